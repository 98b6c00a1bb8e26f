"""Weights from one format into another: safetensors, MindSpore's ``.ckpt``, PyTorch's ``.pt`` and ``.pth``.

Weights that other programs wrote are recognised for what they are and given their canonical names. Known are earthsr's
own weights in another framework's file, which carry their spec, plain state dictionaries under canonical names, and
MindEarth's ``DEMNet``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from earthsr.backend import WeightsBackend, choose_backend, weights_backends
from earthsr.config import Config
from earthsr.errors import CheckpointError, InputError, already_there
from earthsr.models import resolve_checkpoint, write_weights
from earthsr.models.demsrnet import DemSRNetSpec
from earthsr.models.spec import NetworkSpec
from earthsr.models.weights import KEY, Weights, check_names, pack_metadata, read_tensors, unpack_metadata
from earthsr.store import atomic_file, owned, require_other
from earthsr.tasks import task_for

#: MindEarth's layers under our names; those of the residual blocks are numbered.
_MINDEARTH = {"conv1": "head", "conv2": "body", "conv_up": "up", "conv_out": "out"}
_MINDEARTH_BLOCK = re.compile(r"^body\.(\d+)\.res_conv([12])\.(weight|bias)$")

#: What optimisers, loss scalers and counters leave in a training checkpoint of either framework.
_BOOKKEEPING = re.compile(
    r"^(moment[12]|moments|exp_avg(_sq)?|accu_grads)\.|^(beta[12]_power|learning_rate|global_step|epoch_num|step_num"
    r"|scale_sense|scale_value|current_iterator_step|last_overflow_iterator_step|loss_scale|adam_step)$"
)
#: What wrappers put before every name.
_PREFIX = re.compile(r"^(module|network|_network|_backbone|backbone|model|_orig_mod|net)\.")


@dataclass(frozen=True)
class Recognised:
    """Weights under canonical names, and how they were recognised."""

    spec: NetworkSpec
    weights: Weights
    metadata: dict[str, Any]
    kind: str
    left_out: tuple[str, ...] = ()
    """Names that are no weights: moments, counters."""


def to_mindearth(name: str) -> str:
    """MindEarth's name of a canonical parameter."""
    layer, _, kind = name.rpartition(".")
    if layer.startswith("blocks."):
        _, number, conv = layer.split(".")
        return f"body.{number}.res_{conv}.{kind}"
    return f"{ {ours: theirs for theirs, ours in _MINDEARTH.items()}[layer] }.{kind}"


def from_mindearth(name: str) -> str | None:
    """Canonical name of a parameter of MindEarth's ``DEMNet``, or None where it is not one."""
    block = _MINDEARTH_BLOCK.match(name)
    if block:
        return f"blocks.{int(block[1])}.conv{block[2]}.{block[3]}"
    layer, _, kind = name.rpartition(".")
    return f"{_MINDEARTH[layer]}.{kind}" if layer in _MINDEARTH and kind in ("weight", "bias") else None


def mindearth_spec(weights: Mapping[str, np.ndarray], scale: int = 5) -> DemSRNetSpec:
    """Spec of MindEarth's variant with the sizes that canonical ``weights`` have; ``scale`` leaves no trace in them."""
    head, out = weights["head.weight"], weights["out.weight"]
    blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    return DemSRNetSpec(
        scale=scale,
        in_channels=head.shape[1],
        out_channels=out.shape[0],
        features=head.shape[0],
        num_blocks=len(blocks),
        kernel_size=head.shape[2],
        residual_scale=0.1,
        global_skip="input",
        resize="asymmetric",
        bias="head.bias" in weights,
    )


def _is_mindearth(spec: NetworkSpec) -> bool:
    return spec.kind == DemSRNetSpec.kind and spec == mindearth_spec(
        {p.name: np.empty(p.shape, np.bool_) for p in spec.parameters}, spec.scale
    )


def rename_to_mindearth(spec: NetworkSpec, weights: Weights) -> Weights:
    """Weights under MindEarth's names.

    Raises
    ------
    CheckpointError
        If the network is not MindEarth's variant, whose forward pass would differ.
    """
    if not _is_mindearth(spec):
        raise CheckpointError(
            "these weights are not of MindEarth's DEMNet (global_skip input, resize asymmetric, residual_scale 0.1, "
            "no residual_over): under its names they would predict something else; write them under canonical names"
        )
    return {to_mindearth(name): value for name, value in weights.items()}


def recognise(
    arrays: Mapping[str, np.ndarray], packed: Mapping[str, str], source: str, spec: NetworkSpec | None = None
) -> Recognised:
    """Find out what weights are and give them their canonical names.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Everything that the file holds.
    packed : mapping of str to str
        The file's metadata; the key ``earthsr`` holds spec and normalisation where earthsr wrote it.
    source : str
        Name of the file, for messages.
    spec : NetworkSpec, optional
        What the weights belong to, where the file does not say.

    Raises
    ------
    CheckpointError
        If names or shapes belong to no network that is known or to another one than ``spec``.
    """
    metadata: dict[str, Any] = {}
    kind = "earthsr"
    if KEY in packed:
        own_spec, metadata = unpack_metadata(packed, source)
        if spec is not None and spec != own_spec:
            raise CheckpointError(f"{source}: says itself what network it is, and it is not that of --config")
        spec = own_spec
    named = {name: value for name, value in arrays.items() if not _BOOKKEEPING.match(name)}
    left_out = tuple(sorted(set(arrays) - set(named)))
    if not named:
        raise CheckpointError(f"{source}: holds no weights; its entries are {_some(arrays)}")
    while all(_PREFIX.match(name) for name in named):
        named = {name.partition(".")[2]: value for name, value in named.items()}
    translated = {from_mindearth(name): value for name, value in named.items()}
    if None not in translated and {"head.weight", "up.weight", "out.weight"} <= set(translated):
        named = {str(name): value for name, value in translated.items()}
        kind = "MindEarth DEMNet"
        spec = spec or mindearth_spec(named)
        # MindEarth feeds metres as they are.
        metadata.setdefault("normalisation", {"kind": "none", "offset": 0.0, "scale": 1.0})
    if spec is None:
        raise CheckpointError(
            f"{source}: its names ({_some(named)}) are neither MindEarth's nor is there a spec in the file; name a "
            "configuration that describes the network with --config"
        )
    check_names(named, {p.name: p.shape for p in spec.parameters}, source, complete=True)
    weights: Weights = {}
    for parameter in spec.parameters:
        value = np.asarray(named[parameter.name])
        if value.dtype.kind != "f" or not np.isfinite(value).all():
            raise CheckpointError(
                f"{source}: {parameter.name} is {value.dtype} or not finite, expected finite floating-point numbers"
            )
        weights[parameter.name] = np.ascontiguousarray(value, np.float32)
    return Recognised(spec, weights, metadata, kind, left_out)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")


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
