"""setuptools' build backend, but for editable installs, which become entries of ``sys.path``.

Packages of two folders are, in setuptools' own editable installs, found by a hook at the end of ``sys.meta_path``.
Type checkers and editors do not run hooks, and Python asks this one last: a script beside a clone called ``earthsr``
gets that folder, as a namespace package, in the place of ours. Plain entries are found by all of them.
"""

from __future__ import annotations

import base64
import hashlib
import locale
import zipfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the other hooks are setuptools'

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = (REPOSITORY, REPOSITORY / "backends")


def build_editable(
    wheel_directory: str, config_settings: dict | None = None, metadata_directory: str | None = None
) -> str:
    """Build setuptools' editable wheel, and put the folders of the packages in the place of its hook."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    wheel = Path(wheel_directory, name)
    with zipfile.ZipFile(wheel) as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist() if not entry.startswith("__editable__")}
    # As Python before 3.13 reads it.
    lines = "".join(f"{folder}\n" for folder in FOLDERS)
    files["__editable__.earthsr.pth"] = lines.encode(locale.getencoding())
    record = next(entry for entry in files if entry.endswith(".dist-info/RECORD"))
    rows = [f"{entry},{_digest(data)},{len(data)}\n" for entry, data in files.items() if entry != record]
    files[record] = "".join([*rows, f"{record},,\n"]).encode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in files.items():
            archive.writestr(entry, data)
    return name


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
