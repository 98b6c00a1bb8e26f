"""Weights from one format into another: safetensors, MindSpore's ``.ckpt``, PyTorch's ``.pt`` and ``.pth``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from earthsr.backend import WeightsBackend, choose_backend, weights_backends
from earthsr.config import Config
from earthsr.errors import CheckpointError, InputError, already_there
from earthsr.models import resolve_checkpoint, write_weights
from earthsr.models.foreign import Recognised, recognise, rename_to_mindearth
from earthsr.models.weights_file import pack_metadata, read_tensors
from earthsr.store import atomic_file, owned, require_other
from earthsr.tasks import task_for

SAFETENSORS = ".safetensors"


def formats() -> dict[str, str]:
    """Suffixes that can be read and written, and the backend that knows them (empty: none is needed)."""
    known = {SAFETENSORS: ""}
    for name, backend in weights_backends().items():
        known |= dict.fromkeys(backend.file_suffixes, name)
    return known


def _backend_of(path: Path) -> WeightsBackend | None:
    known = formats()
    if path.suffix not in known:
        raise InputError(f"{path}: unknown suffix {path.suffix or 'none'!r}; expected one of {', '.join(known)}")
    name = known[path.suffix]
    return choose_backend(name) if name else None


def read_foreign(path: str | Path, config: Config | None = None) -> Recognised:
    """Read weights in any format and give them their canonical names.

    Parameters
    ----------
    path : str or Path
        A weights file, or a run or checkpoint folder of earthsr.
    config : Config, optional
        Describes the network where the file does not say what it is, and MindEarth's ``scale``.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or holds no network that is known.
    BackendError
        If the framework whose format it is is not installed.
    """
    path = resolve_checkpoint(path)
    spec = None if config is None else task_for(config).spec()
    backend = _backend_of(path)
    arrays, packed = read_tensors(path) if backend is None else backend.read_file(path)
    return recognise(arrays, packed, str(path), spec)


def convert(
    source: str | Path,
    target: str | Path,
    *,
    config: Config | None = None,
    names: str = "earthsr",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Convert weights.

    Parameters
    ----------
    source, target : str or Path
        Their suffixes say the formats.
    config : Config, optional
        Describes the network where the source does not say what it is.
    names : {"earthsr", "mindearth"}
        Names to write; MindEarth's only for its own variant.
    overwrite : bool
        Replace the target where it is there.

    Returns
    -------
    dict
        What was read and written; nothing was trained and no number changed.

    Raises
    ------
    CheckpointError
        If the source is no network that is known.
    InputError
        If the target is there already, or a suffix is unknown.

    Examples
    --------
    >>> import earthsr
    >>> done = earthsr.convert("demo-dem", "demo.pt", overwrite=True)
    >>> done["kind"], done["output"]
    ('earthsr', 'demo.pt')
    """
    source, target = Path(source), Path(target)
    if names not in ("earthsr", "mindearth"):
        raise InputError(f"names are {names!r}, expected earthsr or mindearth")
    writer = _backend_of(target)
    if target.exists() and not overwrite:
        raise already_there(target)
    require_other([target], [source])
    read = read_foreign(source, config)
    weights = read.weights if names == "earthsr" else rename_to_mindearth(read.spec, read.weights)
    if writer is None and names == "mindearth":
        raise InputError(f"{target}: MindEarth's names are for its own framework's file; expected .ckpt")
    with owned(target), atomic_file(target) as temporary:
        if writer is None:
            write_weights(temporary, read.spec, weights, read.metadata)
        else:
            writer.write_file(temporary, weights, pack_metadata(read.spec, read.metadata))
        _check(temporary, target, read)
    return {
        "input": str(source),
        "kind": read.kind,
        "output": str(target),
        "names": names,
        "tensors": len(weights),
        "parameters": read.spec.parameter_count,
        "left_out": list(read.left_out),
        "spec": read.spec.to_dict(),
        "normalisation": read.metadata.get("normalisation"),
    }


def _check(written: Path, target: Path, read: Recognised) -> None:
    """Read back what was written, before it takes its name: a file that does not hold the same is no result."""
    again = read_foreign(written)
    if again.spec != read.spec or any((again.weights[k] != v).any() for k, v in read.weights.items()):
        raise CheckpointError(f"{target}: does not read back as it was written; nothing was left there")
