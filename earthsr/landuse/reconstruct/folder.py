"""The folder in which a reconstruction grows, and what is made there.

``NAME.work`` beside the output holds ``manifest.json`` (what is made, from what), the store of maps, static fields, and
records of what is done (:class:`earthsr.inference.journal.Journal`). Whoever begins makes it; a command that finds
another manifest there refuses, and so does one that finds a process at work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from earthsr.errors import InputError, WorkError
from earthsr.store import WorkFolder

_MANIFEST: Final = "manifest"


class RolloutFolder(WorkFolder):
    """Places of a reconstruction.

    Parameters
    ----------
    target : Path
        The output that was asked for.
    """

    def __init__(self, target: Path) -> None:
        super().__init__(target.with_name(f"{target.name}.work"))
        self.target = target

    @property
    def manifest(self) -> Path:
        """What is made."""
        return self.path / f"{_MANIFEST}.json"

    @property
    def maps(self) -> Path:
        """The store of maps."""
        return self.path / "maps.zarr"

    @property
    def scratch(self) -> Path:
        """Static fields."""
        return self.path / "static"

    @property
    def land(self) -> Path:
        """Share of land of each coarse cell, where the scenario has to have a value; written before the manifest."""
        return self.path / "land_share.npy"

    @property
    def done(self) -> Path:
        """Records of what is done."""
        return self.path / "done"

    @property
    def exporting(self) -> Path:
        """A file that is there once maps are being brought to their place: what lies there then is this run's own.

        It names the GeoTIFFs that are finished, or the number of the store that is moved (:attr:`moved`).
        """
        return self.path / "exporting"

    @property
    def moved(self) -> bool:
        """Whether the store of maps is in its place: it may have changed places with what was there before."""
        if not self.maps.exists():
            return True
        try:
            return self.exporting.read_text(encoding="utf-8").strip() == str(self.target.stat().st_ino)
        except OSError:
            return False

    @property
    def report(self) -> Path:
        """Folder of report and figures, beside the output."""
        return self.target.with_name(f"{self.target.stem}_report")

    def read_manifest(self) -> dict[str, Any] | None:
        """Return what is being made here; None where nothing is."""
        return self.read(_MANIFEST)

    def require_same(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the manifest of what is being made here, if it is what is asked for; None where nothing is.

        Raises
        ------
        InputError
            If something else is being made; the message names what differs.
        """
        manifest = self.read_manifest()
        if manifest is None:
            return None
        asked = json.loads(json.dumps(identity))
        differs = [key for key in asked if manifest["identity"].get(key) != asked[key]]
        if differs:
            raise InputError(
                f"{self.path}: was begun with another {', '.join(differs)}; give the same, or remove the folder (or "
                "--overwrite) to begin anew"
            )
        return manifest

    def require_current(self, begun: float) -> None:
        """Check that nothing was begun anew since: a worker may go on for a while after its run was given up.

        Parameters
        ----------
        begun : float
            Of the manifest that the worker knows.

        Raises
        ------
        WorkError
            If something was: what this worker would write is of another reconstruction.
        """
        present = self.read_manifest()
        if present is None or present["begun"] != begun:
            raise WorkError(
                f"{self.path}: another process has begun anew there, or removed it; this one stops, and has changed "
                "nothing of that"
            )

    def finished(self, identity: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Return the report of the output, if that is there and is what is asked for; else nothing.

        Parameters
        ----------
        identity : Mapping
            Of what is asked for.
        names : sequence of str
            Files or folders of the output. Another output of this name (``maps.nc``) has the same report.
        """
        try:
            report: dict[str, Any] = json.loads((self.report / "reconstruct.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        same = report.get("identity") == json.loads(json.dumps(identity)) and report.get("files") == list(names)
        return report if same and all((self.target.parent / name).exists() for name in names) else {}

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest: everything else is there."""
        self.write(_MANIFEST, manifest)

    def clear(self, first: Sequence[str] = (), last: Sequence[str] = ()) -> None:
        """Remove what was begun; the manifest first, without which nothing is carried on."""
        super().clear((self.manifest.name, *first), last)
