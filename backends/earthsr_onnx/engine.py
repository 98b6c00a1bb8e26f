"""The ONNX engine: one session of onnxruntime, forward passes alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from earthsr.backend import ExportedEngine, Pending
from earthsr.errors import CheckpointError, WorkError
from earthsr.models import NetworkSpec
from earthsr_onnx.device import find_providers, threads

#: onnxruntime's types of the dtypes of specs.
_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}


class OnnxEngine(ExportedEngine):
    """See :class:`earthsr.backend.Engine`.

    Runs are deterministic: with the same number of threads an operator's work is always divided in the same way.
    """

    precision = "float32"

    def __init__(self, path: Path, spec: NetworkSpec, device: str = "auto") -> None:
        self.path, self.spec = path, spec
        self.device, providers = find_providers(device)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.use_deterministic_compute = True
        # Errors come as exceptions, which say the same.
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers)
        except Exception as error:  # onnxruntime's own kinds have no common base
            raise CheckpointError(
                f"{path}: onnxruntime {onnxruntime.__version__} cannot load it ({_short(error)}); export it again"
            ) from None
        if self.device == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            self.device = "cpu"
        self._require_interface()

    def _require_interface(self) -> None:
        """Check that the graph takes what the spec says."""
        taken = {field.name: field.type for field in self._session.get_inputs()}
        expected = {field.name: _TYPES.get(field.dtype, field.dtype) for field in self.spec.inputs}
        if taken != expected or len(self._session.get_outputs()) != 1:
            took = ", ".join(f"{name} {kind}" for name, kind in taken.items())
            wants = ", ".join(f"{name} {kind}" for name, kind in expected.items())
            raise CheckpointError(
                f"{self.path}: its graph takes {took}, its metadata say {wants}; it was changed: export it again"
            )

    def submit(self, inputs: Mapping[str, NDArray[np.float32]]) -> Pending[NDArray[np.float32]]:
        """Run a forward pass; see the base class."""
        arrays = self.require_arrays(inputs)
        try:
            (output,) = self._session.run(None, arrays)
        except Exception as error:  # as above
            raise WorkError(f"{self.path}: onnxruntime failed ({_short(error)})") from None
        return Pending(lambda: output)


def _short(error: Exception) -> str:
    """What onnxruntime says, in one line, without its own file names."""
    return " ".join(str(error).rpartition("[ONNXRuntimeError] : ")[2].split())[:200]
