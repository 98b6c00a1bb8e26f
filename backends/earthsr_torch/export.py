"""Writing a network as ONNX through ``torch.export``."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from earthsr.backend.exported import exported_metadata, output_name
from earthsr.errors import BackendError, install_hint
from earthsr.models import NetworkSpec, UNetSpec, WeightsFile
from earthsr_torch.networks import build, parameters, write

#: The oldest version of ONNX's operators that torch's exporter writes, and so the one that most runtimes read.
OPSET = 18


class _Submitted(nn.Module):
    """The network as an engine's ``submit`` runs it."""

    def __init__(self, network: nn.Module, softmax: bool) -> None:
        super().__init__()
        self.network = network
        self.softmax = softmax

    def forward(self, *fields: Tensor) -> Tensor:
        """Fields in the spec's order to values or probabilities, float32."""
        output = self.network(*fields).float()
        return output.softmax(1) if self.softmax else output


def _free_axes(spec: NetworkSpec) -> dict[str, dict[int, Any]]:
    """Names of the free axes by field and place: batch, height and width, and those of the forcing's window."""
    batch: Any = Dim("batch")
    if not isinstance(spec, UNetSpec):
        return {field.name: {0: batch, 2: Dim("height"), 3: Dim("width")} for field in spec.inputs}
    # The sides are multiples, and the file says of what.
    height, width = spec.multiple * Dim("height_cells"), spec.multiple * Dim("width_cells")
    rows, columns = Dim("coarse_height"), Dim("coarse_width")
    axes: dict[str, dict[int, Any]] = {
        "coarse": {0: batch, 2: rows, 3: columns},
        "wy": {0: batch, 1: height, 2: rows},
        "wx": {0: batch, 1: width, 2: columns},
        "static": {0: batch, 2: height, 3: width},
        "prior": {0: batch, 1: height, 2: width},
        "prior_mask": {0: batch, 1: height, 2: width},
        "scalars": {0: batch},
    }
    return {field.name: axes[field.name] for field in spec.inputs}


def _example(spec: NetworkSpec) -> list[Tensor]:
    """Fields of extents that all differ: torch.export takes what is equal for the same, and 1 for fixed."""
    multiple = spec.multiple if isinstance(spec, UNetSpec) else 4
    sizes = {"height": 2 * multiple, "width": 3 * multiple, "coarse_height": 4, "coarse_width": 5}
    shapes: dict[str, tuple[str, ...]] = {
        "coarse": ("coarse_height", "coarse_width"),
        "wy": ("height", "coarse_height"),
        "wx": ("width", "coarse_width"),
    }
    inputs = []
    for field in spec.inputs:
        free = iter(shapes.get(field.name, ("height", "width")))
        shape = [sizes[next(free)] if extent is None else extent for extent in field.shape]
        inputs.append(torch.zeros(2, *shape, dtype=getattr(torch, field.dtype)))
    return inputs


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep what the exporter says of packages that nobody asked for, and of its own deprecations, to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _load(file: WeightsFile) -> nn.Module:
    network = build(file.spec)
    own = parameters(network, file.spec)
    for name, array in file.weights.items():
        write(own[name], array)
    return _Submitted(network, file.spec.softmax).eval()


def export(file: WeightsFile, path: Path, opset: int | None = None) -> dict[str, Any]:
    """Write an ONNX file; see :meth:`earthsr.backend.WeightsBackend.export`."""
    wanted = opset or OPSET
    if wanted < OPSET:
        raise BackendError(f"opset {wanted} is older than torch's exporter writes; leave --opset out, or give {OPSET}")
    # Asked first: torch imports them when it exports, and says so in words of its own.
    missing = [package for package in ("onnx", "onnxscript") if importlib.util.find_spec(package) is None]
    if missing:
        raise BackendError(
            f"torch writes ONNX with onnx and onnxscript, and {' and '.join(missing)} cannot be found: "
            f"{install_hint('export')}"
        )
    name = output_name(file)
    axes = _free_axes(file.spec)
    try:
        with _quietly(), torch.no_grad():
            program = torch.onnx.export(
                _load(file),
                tuple(_example(file.spec)),
                input_names=list(axes),
                output_names=[name],
                opset_version=wanted,
                dynamo=True,
                dynamic_shapes=(tuple(axes.values()),),
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BackendError(f"torch cannot export this network at opset {wanted}: {reason}") from error
    assert program is not None
    written = program.model.opset_imports[""]
    if written != wanted:
        raise BackendError(
            f"opset {wanted} was asked for and torch's exporter wrote {written}; leave --opset out, or give {OPSET}"
        )
    how = {"exporter": f"torch {torch.__version__}", "opset": written, "output": name}
    program.model.metadata_props.clear()
    program.model.metadata_props.update(exported_metadata(file, how))
    # Where in our sources each operator comes from is of no use to a caller, and names folders of this machine.
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    program.model.producer_name = "earthsr"
    program.save(path, external_data=False)
    return how
