"""Models for callers outside of earthsr: ONNX and MindIR, checked against the engine that trains before they count.

The exporters are the backends' own. What is here is the same for all: which backend writes and which one runs a file,
the comparison, and that nothing is left behind where a file does not agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import earthsr
from earthsr.backend import (
    Engine,
    ExportedBackend,
    WeightsBackend,
    available_backends,
    choose_backend,
    choose_runner,
    exported_suffixes,
    read_model,
    weights_backends,
)
from earthsr.backend.exported import EXPORTED
from earthsr.check.parity_compare import BY_NAME, relative
from earthsr.errors import BackendError, CheckpointError, InputError, WorkError, already_there, install_hint
from earthsr.models import Precision, WeightsFile
from earthsr.store import atomic_file, fingerprint, owned, require_other

#: Batches, and multiples of the smallest height and width, that are compared: no two extents of a case are the same,
#: and both cases differ in all of them, so that no extent can have become a constant.
CASES: Final = ((1, 2, 3), (3, 4, 2))

#: A protocol buffer holds no more; some of it is not weights.
MOST_BYTES: Final = 2**31 - 2**24


def export(
    source: str | Path,
    target: str | Path,
    *,
    backend: str | None = None,
    opset: int | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a checkpoint as a model that runs without the framework that trained it, and check it.

    Parameters
    ----------
    source : str or Path
        A run folder (its best), a checkpoint folder or a weights file.
    target : str or Path
        ``.onnx`` or ``.mindir``. It carries spec, normalisation, class table and all else that the weights file says.
    backend : str, optional
        Whose exporter writes it; the only one installed that can where absent.
    opset : int, optional
        Version of ONNX's operators; the exporter's own choice where absent.
    device : str
        Where the comparison is computed.
    overwrite : bool
        Replace the target where it is there.

    Returns
    -------
    dict
        ``format``, ``exporter``, ``opset``, ``bytes``, ``inputs`` with their free axes, ``output``, and under
        ``checked`` what was compared: by what runtime, on what shapes, the largest difference and its tolerance.

    Raises
    ------
    InputError
        If source or target do not fit, or the target is there already.
    BackendError
        If no backend that is installed can write it, or run it for the comparison.
    WorkError
        If the file does not agree with the engine that trains; nothing is left behind.

    Examples
    --------
    >>> import earthsr
    >>> done = earthsr.export("demo-dem", "demo.onnx", backend="torch", overwrite=True)
    >>> done["checked"]["largest_difference"] <= done["checked"]["tolerance"]
    True
    """
    target = Path(target)
    writer, runner = _writer(target, backend), _runner(target)
    if target.exists() and not overwrite:
        raise already_there(target)
    read = read_model(source)
    assert read.path is not None
    if not read.weights:
        raise InputError(f"{read.path}: is an exported model already; name the checkpoint that it was exported from")
    if 4 * sum(array.size for array in read.weights.values()) > MOST_BYTES:
        raise InputError(f"{read.path}: has more than 2 GB of weights, which {target.suffix} files do not hold")
    about = {"checkpoint": fingerprint(read.path), "earthsr_version": earthsr.__version__}
    file = WeightsFile(read.spec, read.weights, {**read.metadata, EXPORTED: about}, read.path)
    require_other([target], [read.path])
    with owned(target), atomic_file(target) as temporary:
        how = writer.export(file, temporary, opset=opset)
        _check_metadata(runner, temporary, target, file)
        checked = _check_outputs(writer, runner, temporary, target, file, device)
        size = temporary.stat().st_size
    return {
        "input": str(read.path),
        "output_file": str(target),
        "format": target.suffix.removeprefix("."),
        "bytes": size,
        "parameters": file.spec.parameter_count,
        **how,
        "inputs": {field.name: [None, *field.shape] for field in file.spec.inputs},
        "checked": checked,
    }


def _writer(target: Path, wish: str | None) -> WeightsBackend:
    suffix = target.suffix.lower()
    kinds = weights_backends()
    writers = [name for name, kind in kinds.items() if suffix in kind.export_suffixes]
    if not writers:
        known = sorted({known for kind in kinds.values() for known in kind.export_suffixes})
        raise InputError(f"{target}: unknown suffix {target.suffix or 'none'!r}; expected {' or '.join(known)}")
    if wish is not None:
        if wish in available_backends() and wish not in writers:
            raise BackendError(f"backend {wish} does not write {suffix} files; use --backend {' or '.join(writers)}")
        return choose_backend(wish)
    installed = [name for name in writers if kinds[name].installed()]
    if len(installed) == 1:
        return choose_backend(installed[0])
    if installed:
        raise BackendError(f"{' and '.join(installed)} both write {suffix} files; choose with --backend")
    raise BackendError(f"no backend that writes {suffix} files is installed: {_extras(target, writers[-1])}")


def _extras(target: Path, *writers: str) -> str:
    """Return the command that installs all that writing and checking such a file needs, so that one is enough."""
    runners = exported_suffixes().get(target.suffix.lower(), [])
    return install_hint(*dict.fromkeys((*writers, *runners[:1], "export")))


def _runner(target: Path) -> ExportedBackend:
    """Return the backend that runs the file for the comparison, without which nothing is written."""
    runners = exported_suffixes().get(target.suffix.lower(), [])
    if not any(available_backends()[name].installed() for name in runners):
        raise BackendError(
            f"{target}: cannot be checked, which needs backend {' or '.join(runners)}: {_extras(target)}"
        )
    return choose_runner(target)


def _check_metadata(runner: ExportedBackend, written: Path, target: Path, file: WeightsFile) -> None:
    """Read back what the file says of itself: a caller who finds other numbers there scales its inputs wrongly."""
    spec, metadata = runner.read_model(written)
    if spec != file.spec or {**metadata, EXPORTED: file.metadata[EXPORTED]} != file.metadata:
        raise CheckpointError(f"{target}: its metadata do not read back as they were written; nothing was left")


def _check_outputs(
    writer: WeightsBackend, runner: ExportedBackend, written: Path, target: Path, file: WeightsFile, device: str
) -> dict[str, Any]:
    """Compare the file with the engine that trains, on made inputs of several shapes."""
    spec, contract = file.spec, BY_NAME["raster"]
    ours = writer.training_engine(spec, file.weights, device=device, precision=Precision("O0", strict=True))
    theirs = runner.open_engine(written, spec, device=device)
    cases = [spec.random_inputs(*case, seed=number) for number, case in enumerate(CASES)]
    expected = [ours.submit(inputs).result() for inputs in cases]
    outputs = [theirs.submit(inputs).result() for inputs in cases]
    ours.load_weights({k: np.ascontiguousarray(v) for k, v in spec.transpose_weights(file.weights).items()})
    differences, noises = [], []
    for inputs, one, other in zip(cases, expected, outputs, strict=True):
        if one.shape != other.shape:
            raise WorkError(
                f"{target}: gives {other.shape} where the {writer.name} engine gives {one.shape}; nothing was left"
            )
        differences.append(relative(other, one, contract.norm))
        noises.append(relative(_mirrored(ours, inputs), one, contract.norm))
    difference, tolerance = max(differences), contract.tolerance + contract.noise_factor * max(noises)
    if difference > tolerance:
        raise WorkError(
            f"{target}: differs from the {writer.name} engine by {difference:.2g} of the largest value, the tolerance "
            f"is {tolerance:.2g}; nothing was left"
        )
    return {
        "runtime": f"{runner.name} {runner.version()}",
        "engine": f"{writer.name} {writer.version()} ({ours.device}, {ours.precision})",
        "largest_difference": difference,
        "tolerance": tolerance,
        "own_noise": max(noises),
        "reason": f"{contract.tolerance:g} for rounding through all layers, and {contract.noise_factor:g} times what "
        "the engine differs by from itself where every sum is taken in another order; both relative to the largest "
        "value",
        "shapes": [{name: list(value.shape) for name, value in inputs.items()} for inputs in cases],
    }


def _mirrored(engine: Engine, inputs: Mapping[str, NDArray]) -> NDArray[np.float32]:
    """Output of an engine that holds transposed weights, turned back."""
    turned = engine.spec.transpose_inputs(inputs)
    outputs = engine.submit({name: np.ascontiguousarray(value) for name, value in turned.items()}).result()
    return outputs.swapaxes(-1, -2)
