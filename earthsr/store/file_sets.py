"""Several files that belong together: all of them are new or none, or it is said that they are not."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from earthsr.errors import DataError, already_there
from earthsr.store.disk import disk_errors, make_folder, remove_empty
from earthsr.store.whole import flush_folder, owned, part_name, write_json

_JOURNAL: Final = ".unfinished.json"

_logger = logging.getLogger("earthsr")


def require_free(root: Path, folders: Sequence[str], overwrite: bool) -> None:
    """Raise an :class:`InputError` where ``root`` holds one of some folders, which are not to be replaced."""
    for name in folders:
        if (root / name).exists() and not overwrite:
            raise already_there(root / name, "folder")


@contextlib.contextmanager
def files_together(root: Path, folders: Sequence[str], overwrite: bool, replaced: Sequence[str] = ()) -> Iterator[Path]:
    """Give a folder whose files get their places in ``root`` when the block ends without an error, all or none.

    Parameters
    ----------
    root : Path
        Where they belong. Another process is kept from it meanwhile.
    folders : sequence of str
        Folders in it, which may not be there without ``overwrite``.
    overwrite : bool
        Whether these may be there.
    replaced : sequence of str
        Files in ``root`` that go where the block writes no others of their names.

    Raises
    ------
    InputError
        If one of the folders is there, another process writes into ``root``, or the disk does not take the files.
    """
    require_free(root, folders, overwrite)
    with owned(root, inside=True):
        finish_placing(root)
        require_free(root, folders, overwrite)
        staging = root / part_name(root / "data")
        try:
            with disk_errors(root):
                staging.mkdir()
            yield staging
            names = [str(path.relative_to(staging)) for path in sorted(staging.rglob("*")) if path.is_file()]
            moves = {str(Path(staging.name, name)): name for name in names}
            gone = [name for name in replaced if name not in names]
            with disk_errors(root):
                place_together(root, moves, gone, "start the same command again with --overwrite")
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def place_together(root: Path, moves: Mapping[str, str], remove: Sequence[str], remedy: str) -> None:
    """Give files in ``root`` their final names, and remove others.

    Before the first one moves it is written down what is to happen; :func:`finish_placing` carries out the rest after
    a kill, and until then :func:`require_placed` refuses what is there.

    Parameters
    ----------
    root : Path
        The folder.
    moves : mapping of str to str
        From where each file is to where it belongs, in ``root``; what is not there is in its place already.
    remove : sequence of str
        Files that are not to be there any more.
    remedy : str
        What a user can do after a kill.
    """
    numbers = {name: (root / new).stat().st_ino for new, name in moves.items() if (root / new).exists()}
    written = {"moves": dict(moves), "files": numbers, "remove": list(remove), "remedy": remedy}
    write_json(root / _JOURNAL, written)
    _carry_out(root, written)


def _carry_out(root: Path, journal: Mapping) -> None:
    for new, name in journal["moves"].items():
        if (root / new).exists():
            make_folder((root / name).parent)
            os.replace(root / new, root / name)
            flush_folder((root / name).parent)
    for name in journal["remove"]:
        (root / name).unlink(missing_ok=True)
        remove_empty([(root / name).parent])
    (root / _JOURNAL).unlink()
    flush_folder(root)


def finish_placing(root: Path) -> bool:
    """Carry out what a killed process wrote down, where all its files are there; returns whether that was so."""
    try:
        journal = json.loads((root / _JOURNAL).read_text(encoding="utf-8"))
        whole = all(
            (root / new).exists() or (root / name).stat().st_ino == journal["files"][name]
            for new, name in journal["moves"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    if whole:
        _carry_out(root, journal)
        _logger.info("%s: files are in their places now; the process that replaced them had been killed", root)
    return whole


def require_placed(root: Path) -> None:
    """Check that the files of a folder belong together.

    Raises
    ------
    DataError
        If a process was killed while it gave them their names: new ones may lie beside old ones.
    """
    path = root / _JOURNAL
    if path.is_file():
        try:
            remedy = json.loads(path.read_text(encoding="utf-8"))["remedy"]
        except (OSError, ValueError, KeyError, TypeError):
            remedy = "write them anew"
        raise DataError(
            f"{root}: new files may lie beside old ones ({path.name}): the process that replaces them was killed, or "
            f"is not done; {remedy}"
        )
