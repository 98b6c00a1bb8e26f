"""Run folders and checkpoint folders: what is in them, which one is meant, and writing them whole.

``checkpoints/step-000123/`` holds ``weights.safetensors``, ``optimizer.safetensors`` and ``state.json``;
``checkpoints/best`` and ``checkpoints/latest`` are files that name one of these folders.

Weights and model cards that travel with the package are in ``earthsr/pretrained/``. The name of such a model stands
wherever a checkpoint is named, unless there is a file or folder of that name; ``tools/make_pretrained.py`` makes them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from earthsr.errors import CheckpointError, InputError
from earthsr.models.hub import download, repository
from earthsr.models.spec import NetworkSpec
from earthsr.models.weights import (
    SCHEMA_VERSION,
    State,
    WeightsFile,
    read_tensors,
    read_weights,
    write_tensors,
    write_weights,
)
from earthsr.store import Lock, atomic_folder, make_folder, remove_leftovers, remove_whole, write_json, write_text
from earthsr.store.untrusted import parse_json

_SUFFIX = ".safetensors"


def pretrained_folder() -> Path:
    """Folder inside the installed package that holds weights (``NAME.safetensors``) and cards (``NAME.md``)."""
    # Weights are opened by path, and packages with compiled dependencies such as ours are never run from a zip file.
    return Path(str(files("earthsr"))) / "pretrained"


def pretrained_names() -> tuple[str, ...]:
    """Names of the pretrained models, sorted."""
    return tuple(sorted(path.name.removesuffix(_SUFFIX) for path in pretrained_folder().glob(f"*{_SUFFIX}")))


def pretrained_weights(name: str) -> Path | None:
    """Weights file of the pretrained model of that name, or None where there is none."""
    return pretrained_folder() / f"{name}{_SUFFIX}" if name in pretrained_names() else None


def is_pretrained(weights: str | Path) -> bool:
    """Whether a weights file is one of the package's own, beside which nothing should be written."""
    return Path(weights).parent == pretrained_folder()


WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
_STEP = re.compile(r"^step-(\d{6,})$")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that was read: weights, optimiser and the run's own notes."""

    folder: Path
    weights: WeightsFile
    state: State
    """What an engine takes over."""
    notes: dict[str, Any]
    """The contents of ``state.json``: epoch, sampler position, metrics, data fingerprint and so on."""


class RunFolder:
    """The folder of one run: configuration, metrics, figures and checkpoints.

    Parameters
    ----------
    path : str or Path
        The folder; :meth:`create` makes it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.figures = self.path / "figures"
        self.interrupted_file = self.path / "interrupted"

    def create(self) -> None:
        """Create the folders, and remove what a killed process left unfinished."""
        make_folder(self.checkpoints)
        make_folder(self.figures)
        for folder in (self.path, self.checkpoints):
            remove_leftovers(folder)

    def lock(self, newest: Path | None) -> Lock:
        """Keep other trainings from the folder; release the lock when all is written.

        Parameters
        ----------
        newest : Path or None
            The newest checkpoint when the folder was looked at, in which nothing may have changed since.

        Raises
        ------
        InputError
            If another training writes into it, or has just done so.
        """
        lock = Lock(self.path / ".lock", self.path)
        if self.newest() != newest:
            lock.release()
            raise InputError(f"{self.path}: another training wrote into it just now; start again")
        return lock

    def clear(self) -> None:
        """Remove an earlier run's checkpoints and metrics, so that a fresh run cannot be taken for it."""
        remove_whole(self.checkpoints)
        self.metrics_file.unlink(missing_ok=True)
        self.interrupted_file.unlink(missing_ok=True)
        self.create()

    def interrupted(self) -> str | None:
        """What ended a run before its time, in words, and None where it was not a signal."""
        try:
            return self.interrupted_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def steps(self) -> list[int]:
        """Steps of all checkpoints that are whole, ascending."""
        if not self.checkpoints.is_dir():
            return []
        matches = (_STEP.match(entry.name) for entry in self.checkpoints.iterdir() if (entry / STATE).is_file())
        return sorted(int(match.group(1)) for match in matches if match)

    def folder(self, step: int) -> Path:
        """Folder of the checkpoint at ``step``."""
        return self.checkpoints / f"step-{step:06d}"

    def pointed(self, pointer: str) -> Path | None:
        """Folder that ``pointer``, ``best`` or ``latest``, names, or None where there is none."""
        try:
            name = (self.checkpoints / pointer).read_text(encoding="utf-8").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        target = self.checkpoints / name
        whole = target if _STEP.match(name) and (target / STATE).is_file() else None
        return whole if pointer != "latest" else self._latest(whole)

    def _latest(self, pointed: Path | None) -> Path | None:
        """Newest whole checkpoint where the pointer was written before it: a kill may have come between the two."""
        newest = self.newest()
        if newest is None or pointed is None:
            return newest
        with contextlib.suppress(OSError):
            if (newest / STATE).stat().st_mtime_ns > (self.checkpoints / "latest").stat().st_mtime_ns:
                return newest
        return pointed

    def newest(self) -> Path | None:
        """Newest whole checkpoint: that of the highest step, which ``latest`` may lag behind by one after a kill."""
        steps = self.steps()
        return self.folder(steps[-1]) if steps else None

    def point(self, pointer: str, step: int) -> None:
        """Let ``pointer``, ``best`` or ``latest``, name the checkpoint at ``step``."""
        write_text(self.checkpoints / pointer, self.folder(step).name + "\n")

    def save(
        self, step: int, spec: NetworkSpec, state: State, metadata: Mapping[str, Any], notes: Mapping[str, Any]
    ) -> Path:
        """Write a checkpoint beside its destination, rename it into place and point ``latest`` at it.

        Parameters
        ----------
        step : int
            Names the folder.
        spec : NetworkSpec
            Of the model.
        state : State
            Weights, moments and counters.
        metadata : mapping
            Travels with the weights: normalisation, units and others, JSON-able.
        notes : mapping
            Contents of ``state.json``, JSON-able.

        Returns
        -------
        Path
            The checkpoint's folder.
        """
        target = self.folder(step)
        with atomic_folder(target) as folder:
            write_weights(folder / WEIGHTS, spec, state.weights, metadata)
            moments = {f"first_moments/{k}": v for k, v in state.first_moments.items()}
            moments |= {f"second_moments/{k}": v for k, v in state.second_moments.items()}
            write_tensors(folder / OPTIMIZER, moments)
            engine = {
                "step": state.step,
                "loss_scale": state.loss_scale,
                "loss_scale_good_steps": state.loss_scale_good_steps,
                "skipped_steps": state.skipped_steps,
            }
            write_json(folder / STATE, {"schema_version": SCHEMA_VERSION, **notes, "engine": engine})
        self.point("latest", step)
        return target

    def prune(self, keep: int) -> None:
        """Remove all but the ``keep`` newest checkpoints; ``best`` and ``latest`` always stay."""
        protected = {self.pointed("best"), self.pointed("latest")}
        for step in self.steps()[:-keep]:
            folder = self.folder(step)
            if folder not in protected:
                remove_whole(folder)


def evaluation_folder(weights: str | Path) -> Path:
    """Where the scores of a weights file go: ``evaluation`` of its run folder, else a folder beside it, named after it.

    Parameters
    ----------
    weights : str or Path
        As :func:`resolve_checkpoint` gives it.
    """
    weights = Path(weights)
    if weights.parent.parent.name == "checkpoints":
        return weights.parent.parent.parent / "evaluation"
    return weights.parent / f"{weights.stem}-evaluation"


def resolve_checkpoint(path: str | Path) -> Path:
    """Weights file that CHECKPOINT means: a run folder's best, else its latest; a checkpoint folder's; or the file.

    Where nothing is at ``path`` it may be the name of a model that travels with the package, such as ``demo-dem``;
    ``hf:owner/name`` is one of the Hugging Face Hub.

    Parameters
    ----------
    path : str or Path
        What a user names.

    Returns
    -------
    Path
        The weights file.

    Raises
    ------
    CheckpointError
        If there is nothing of the kind at ``path``; the message says what was looked for.
    """
    name = repository(path)
    if name is not None:
        return download(name, WEIGHTS)
    path = Path(path)
    if path.is_dir():
        if (path / WEIGHTS).is_file():
            return path / WEIGHTS
        run = RunFolder(path)
        chosen = run.pointed("best") or run.pointed("latest") or run.newest()
        if chosen is not None:
            return chosen / WEIGHTS
        raise CheckpointError(
            f"{path}: is neither a run folder (no whole checkpoint under checkpoints/) nor a checkpoint folder "
            f"(no {WEIGHTS}); train first, or name another path"
        )
    if path.name in ("best", "latest") and path.is_file():
        pointed = RunFolder(path.parent.parent).pointed(path.name)
        if pointed is not None:
            return pointed / WEIGHTS
    if not path.exists():
        pretrained = pretrained_weights(str(path))
        if pretrained is not None:
            return pretrained
        raise CheckpointError(
            f"{path}: no such checkpoint; expected a run folder, a checkpoint folder, a weights file, or the name of a "
            f"pretrained model ({', '.join(pretrained_names()) or 'none is installed'})"
        )
    return path


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder for resuming.

    Parameters
    ----------
    folder : str or Path
        A folder such as ``checkpoints/step-000123``.

    Raises
    ------
    CheckpointError
        If a file is missing, damaged, or does not fit the others.
    """
    folder = Path(folder)
    weights = read_weights(folder / WEIGHTS)
    moments, _ = read_tensors(folder / OPTIMIZER)
    try:
        notes = parse_json((folder / STATE).read_text(encoding="utf-8"))
        engine = notes.pop("engine")
        state = State(
            weights=weights.weights,
            first_moments={k.partition("/")[2]: v for k, v in moments.items() if k.startswith("first_moments/")},
            second_moments={k.partition("/")[2]: v for k, v in moments.items() if k.startswith("second_moments/")},
            step=int(engine["step"]),
            loss_scale=engine["loss_scale"],
            loss_scale_good_steps=int(engine["loss_scale_good_steps"]),
            skipped_steps=int(engine["skipped_steps"]),
        )
    except FileNotFoundError:
        raise CheckpointError(f"{folder / STATE}: no such file; the checkpoint is not whole") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder / STATE}: is damaged ({error!r}); use an earlier checkpoint") from None
    state.require(weights.spec, str(folder))
    return Checkpoint(folder, weights, state, notes)
