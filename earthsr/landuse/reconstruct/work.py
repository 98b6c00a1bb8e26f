"""The folder in which a reconstruction grows: begun once, shared by all processes, gone when the maps are done.

``NAME.work`` beside the output holds ``manifest.json`` (what is made, from what), the store of maps, static fields,
markers and a lock. Whoever comes first makes it; a process that finds another manifest there refuses.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from earthsr.errors import InputError, WorkError
from earthsr.store import make_folder, write_json

_LOCK: Final = "lock"


@dataclass(frozen=True)
class WorkFolder:
    """Places of a reconstruction."""

    target: Path
    """The output that was asked for."""

    @property
    def folder(self) -> Path:
        """Everything that is begun."""
        return self.target.with_name(f"{self.target.name}.work")

    @property
    def manifest(self) -> Path:
        """What is made."""
        return self.folder / "manifest.json"

    @property
    def maps(self) -> Path:
        """The store of maps."""
        return self.folder / "maps.zarr"

    @property
    def scratch(self) -> Path:
        """Static fields."""
        return self.folder / "static"

    @property
    def done(self) -> Path:
        """Markers."""
        return self.folder / "done"

    @property
    def exporting(self) -> Path:
        """A file that is there once maps are being brought to their place: what lies there then is this run's own.

        It names the GeoTIFFs that are finished.
        """
        return self.folder / "exporting"

    @property
    def report(self) -> Path:
        """Folder of report and figures, beside the output."""
        return self.target.with_name(f"{self.target.stem}_report")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone; the lock ends with the process that holds it."""
        while True:
            make_folder(self.folder)
            try:
                handle = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:
                continue  # another process has removed the folder just now
            fcntl.flock(handle, fcntl.LOCK_EX)
            # Whoever held it before may have finished, and removed the folder with this file.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(self.folder / _LOCK)):
                    break
            os.close(handle)
        try:
            yield
        finally:
            os.close(handle)

    def read_manifest(self) -> dict[str, Any] | None:
        """Return what is being made here; None where nothing is."""
        try:
            found: dict[str, Any] = json.loads(self.manifest.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise InputError(f"{self.manifest}: is damaged ({error}); remove {self.folder} to begin anew") from None
        return found

    def require_same(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the manifest of what is being made here, if it is what is asked for; None where nothing is.

        Raises
        ------
        InputError
            If something else is being made; the message names what differs.
        """
        found = self.read_manifest()
        if found is None:
            return None
        asked = json.loads(json.dumps(identity))
        differs = [key for key in asked if found["identity"].get(key) != asked[key]]
        if differs:
            raise InputError(
                f"{self.folder}: was begun with another {', '.join(differs)}; give the same, or remove the folder (or "
                "--overwrite) to begin anew"
            )
        return found

    def require_current(self, manifest: Mapping[str, Any]) -> None:
        """Check that nobody has begun anew since this process began or joined.

        Raises
        ------
        WorkError
            If somebody has: what this process would write is of another reconstruction.
        """
        found = self.read_manifest()
        if found is None or found["begun"] != manifest["begun"]:
            raise WorkError(
                f"{self.folder}: another process has begun anew there, or removed it; this one stops, and has changed "
                "nothing of that"
            )

    def finished(self, identity: Mapping[str, Any], names: Sequence[str], since: float = -math.inf) -> dict[str, Any]:
        """Return the report of the output, if that is there and is what is asked for; else nothing.

        Parameters
        ----------
        identity : Mapping
            Of what is asked for.
        names : sequence of str
            Files or folders of the output. Another output of this name (``maps.nc``) has the same report.
        since : float
            Seconds since the epoch before which the report was not written.
        """
        path = self.report / "reconstruct.json"
        try:
            report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            late = path.stat().st_mtime >= since
        except (FileNotFoundError, ValueError):
            return {}
        same = report.get("identity") == json.loads(json.dumps(identity)) and report.get("files") == list(names)
        there = all((self.target.parent / name).exists() for name in names)
        return report if late and same and there else {}

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest: everything else that is shared is there."""
        write_json(self.manifest, manifest)

    def clear(self) -> None:
        """Remove what was begun, but for the lock; the manifest first, without which nothing is carried on."""
        self.manifest.unlink(missing_ok=True)
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder; after a kill meanwhile nothing is taken for work that can be carried on."""
        self.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
