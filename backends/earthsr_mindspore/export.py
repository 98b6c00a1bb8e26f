"""Writing a network as MindIR or ONNX with MindSpore's own exporters, and running MindIR.

Exporters take graphs whose batch, height and width are free. What ``ops.interpolate`` and ``ops.conv2d`` check in
Python has no place in such a graph: the networks call the primitives underneath.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from google.protobuf.message import DecodeError
from mindspore import Tensor, nn, ops
from mindspore.train.mind_ir_pb2 import ModelProto
from numpy.typing import NDArray

from earthsr.backend import ExportedEngine, Pending
from earthsr.backend.exported import exported_metadata, output_name
from earthsr.errors import BackendError, CheckpointError, install_hint
from earthsr.models import DemSRNetSpec, NetworkSpec, UNetSpec, WeightsFile
from earthsr_mindspore import device as process
from earthsr_mindspore.networks import build, parameters, write
from earthsr_mindspore.precision import tensor

#: The one version of ONNX's operators that MindSpore 2.10 writes.
OPSET = 11

#: Operators of a MindIR graph that run Python, or load a library: none of our networks has them.
_FOREIGN = frozenset({"Custom", "CustomExt", "PyExecute", "PyFunc", "PyInterpret", "PythonOp", "raise"})


class _Shuffle(nn.Cell):
    """A pixel shuffle in one operator, which ONNX has too; it counts a pixel's place before its feature."""

    def __init__(self, spec: DemSRNetSpec) -> None:
        super().__init__()
        self.shuffle = ops.DepthToSpace(spec.scale)

    def construct(self, x: Tensor) -> Tensor:
        return self.shuffle(x)


class _Submitted(nn.Cell):
    """The network as an engine's ``submit`` runs it."""

    def __init__(self, network: nn.Cell, softmax: bool) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.softmax = softmax

    def construct(self, *fields: Tensor) -> Tensor:
        output = self.network(*fields)
        return ops.softmax(output, 1) if self.softmax else output


def _load(file: WeightsFile, shuffled: bool) -> nn.Cell:
    network = build(file.spec)
    weights = dict(file.weights)
    if shuffled and isinstance(file.spec, DemSRNetSpec):
        network.upsample = _Shuffle(file.spec)
        for name in ("up.weight", "up.bias"):
            if name in weights:
                weights[name] = _place_first(weights[name], file.spec)
    own = parameters(network, file.spec)
    for name, array in weights.items():
        write(own[name], array)
    submitted = _Submitted(network, file.spec.softmax)
    submitted.set_train(False)
    return submitted


def _place_first(array: NDArray[np.float32], spec: DemSRNetSpec) -> NDArray[np.float32]:
    """Channels that are shuffled into pixels, ordered by a pixel's place and then by feature, not the other way."""
    by_feature = array.reshape(spec.features, spec.scale**2, *array.shape[1:])
    return np.ascontiguousarray(by_feature.swapaxes(0, 1)).reshape(array.shape)


def _examples(spec: NetworkSpec) -> list[Tensor]:
    """Tensors without data, their free extents unknown; classes are integers as :func:`tensor` makes them."""
    kinds = {"float32": ms.float32, "uint8": ms.int32}
    return [Tensor(shape=[None, *field.shape], dtype=kinds[field.dtype]) for field in spec.inputs]


def onnx_reason(spec: NetworkSpec) -> str | None:
    """Why MindSpore's exporter has no ONNX for a network, or None where it has.

    Tried operator by operator with MindSpore 2.10.0 and onnxruntime 1.31.
    """
    if isinstance(spec, UNetSpec):
        return (
            "it has no bilinear resizing and no group norm, and what it writes for a transposed convolution and for "
            "the softmax over classes is not valid ONNX"
        )
    if isinstance(spec, DemSRNetSpec):
        if spec.upsampler != "pixel_shuffle":
            return "it has no bilinear resizing (ResizeBilinearV2)"
        if spec.residual_over != "none":
            return "it has no padding with edge values (PadV3)"
        if spec.local_mean:
            return "it has no operator that reads a free extent (Shape), which the local mean needs at the edges"
    return None


def export(file: WeightsFile, path: Path, opset: int | None = None) -> dict[str, Any]:
    """Write a MindIR or an ONNX file; see :meth:`earthsr.backend.WeightsBackend.export`."""
    how: dict[str, Any] = {"exporter": f"mindspore {ms.__version__}", "opset": None, "output": output_name(file)}
    if path.suffix == ".mindir":
        if opset is not None:
            raise BackendError(f"opset {opset} is of ONNX; MindIR has none: leave --opset out")
        _write_mindir(file, path, how)
        return how
    if opset not in (None, OPSET):
        raise BackendError(f"MindSpore writes ONNX of opset {OPSET}, not {opset}; leave --opset out")
    reason = onnx_reason(file.spec)
    if reason is not None:
        raise BackendError(
            f"MindSpore's exporter cannot write this network as ONNX: {reason}; load the same checkpoint with "
            "--backend torch, or write a .mindir file"
        )
    how["opset"] = OPSET
    _write_onnx(file, path, how)
    return how


def _failed(path: Path, error: Exception) -> BackendError:
    reason = str(error).strip().partition("\n")[0][:200]
    return BackendError(f"MindSpore cannot export this network as {path.suffix}: {reason}")


def _write_mindir(file: WeightsFile, path: Path, how: Mapping[str, Any]) -> None:
    packed = exported_metadata(file, how)

    def sign(model: Any) -> None:
        for key, value in packed.items():
            model.user_info[key] = value

    with process.mode(graph=True):
        try:
            ms.export(
                _load(file, shuffled=False),
                *_examples(file.spec),
                file_name=str(path),
                file_format="MINDIR",
                custom_func=sign,
            )
        except (RuntimeError, ValueError, TypeError) as error:
            raise _failed(path, error) from error


def _write_onnx(file: WeightsFile, path: Path, how: Mapping[str, Any]) -> None:
    try:
        import onnx
    except ImportError as error:
        raise BackendError(f"to write ONNX needs onnx ({error}): {install_hint('export')}") from None
    (field,) = file.spec.inputs
    with process.mode(graph=True):
        try:
            ms.onnx.export(
                _load(file, shuffled=True),
                *_examples(file.spec),
                file_name=str(path),
                input_names=[field.name],
                output_names=[how["output"]],
                dynamic_axes={field.name: {0: "batch", 2: "height", 3: "width"}},
            )
        except (RuntimeError, ValueError, TypeError) as error:
            raise _failed(path, error) from error
    model = onnx.load(path)
    onnx.helper.set_model_props(model, exported_metadata(file, how))
    onnx.save(model, path)


def require_no_code(path: Path) -> None:
    """Check that a MindIR graph computes and does nothing else: it comes from elsewhere, as weights do.

    Raises
    ------
    CheckpointError
        If it holds operators that run Python or load a library, or is damaged.
    """
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise CheckpointError(f"{path}: is not a whole MindIR file ({error}); export it again") from None
    graphs = [model.graph, *model.functions]
    kinds = {primitive.op_type for primitive in model.primitives} | {
        node.op_type for graph in graphs for node in graph.node
    }
    foreign = sorted(kinds & _FOREIGN)
    if foreign:
        raise CheckpointError(
            f"{path}: its graph runs code beside computing ({', '.join(foreign)}), and is not opened; export the "
            "checkpoint again"
        )


class MindIREngine(ExportedEngine):
    """A MindIR file on MindSpore; see :class:`earthsr.backend.Engine`."""

    precision = "float32"

    def __init__(self, path: Path, spec: NetworkSpec, device: str) -> None:
        self.path, self.spec, self.device = path, spec, device
        if device == "ascend":
            process.forbid_hf32()
        require_no_code(path)
        try:
            # A protocol buffer: nothing in it is unpickled.
            self._graph = nn.GraphCell(ms.load(str(path)))
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise CheckpointError(
                f"{path}: MindSpore {ms.__version__} cannot load it ({reason}); export it again"
            ) from None

    def submit(self, inputs: Mapping[str, NDArray[np.float32]]) -> Pending[NDArray[np.float32]]:
        """Start a forward pass; see the base class."""
        ordered = [tensor(array) for array in self.require_arrays(inputs).values()]
        with process.mode(graph=True):
            output = self._graph(*ordered)
        return Pending(lambda: output.asnumpy())
