"""Exported models: files that hold a graph and its weights, run without the code that trained them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from earthsr.backend.interface import Engine, NativeLoss, Pending, StepValues
from earthsr.backend.protobuf import read_entries
from earthsr.backend.registry import training_backends
from earthsr.data.batch import Batch
from earthsr.errors import BackendError, CheckpointError
from earthsr.models import NetworkSpec, Objective, OptimizerSpec, Precision, State, WeightsFile
from earthsr.models.weights_file import KEY, pack_metadata, unpack_metadata

#: Key of the metadata under which an exported model says how it was made.
EXPORTED = "exported"


def exported_metadata(file: WeightsFile, how: Mapping[str, Any]) -> dict[str, str]:
    """Return what an exported model carries: all that the weights file says, and how it was exported.

    Parameters
    ----------
    file : WeightsFile
        What is exported.
    how : mapping
        ``exporter``, ``opset`` (None where the format has none) and ``output``, the output's name.
    """
    return pack_metadata(file.spec, {**file.metadata, EXPORTED: {**file.metadata.get(EXPORTED, {}), **how}})


def read_exported(path: Path, kind: str) -> tuple[NetworkSpec, dict[str, Any]]:
    """Read spec and metadata of an ONNX or MindIR file.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        Name of its format, for messages.

    Raises
    ------
    CheckpointError
        If it is missing or damaged, or earthsr did not write it.
    """
    try:
        packed = read_entries(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: is not a whole {kind} file ({error}); export it again") from None
    if KEY not in packed:
        raise CheckpointError(
            f"{path}: is {kind} of another program: it does not say which network it is, nor its normalisation; make "
            "one with earthsr export CHECKPOINT OUT"
        )
    return unpack_metadata(packed, str(path))


def output_name(file: WeightsFile) -> str:
    """Name of an exported model's output: probabilities, the field that is predicted, or the input on finer cells."""
    if file.spec.softmax:
        return "probabilities"
    field = file.metadata.get("field")
    if field:
        return f"{field}_normalised"
    return f"fine_{file.spec.inputs[0].name}" if file.spec.scale > 1 else "values"


def require_float32(precision: Precision | None, path: Path) -> None:
    """Check that nobody wants an exported model in another precision than its own.

    Raises
    ------
    BackendError
        If somebody does.
    """
    if precision is not None and precision.level != "O0":
        raise BackendError(
            f"{path}: computes in float32, as it was exported; amp_level {precision.level} is for checkpoints: leave "
            "--amp-level out, or set it to O0"
        )


class PredictionEngine(Engine):
    """An engine that holds an exported model: forward passes, and a clear refusal of all else."""

    path: Path

    def _refuse(self, what: str) -> NoReturn:
        raise BackendError(
            f"{self.path}: is an exported model, made for prediction: {what}; use the checkpoint that it was exported "
            f"from, with a backend that trains ({', '.join(training_backends())})"
        )

    def require_arrays(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Inputs by name in graph order, checked for their shapes, (N, …), and types.

        Raises
        ------
        BackendError
            If a field is missing, left over, or of the wrong shape or type.
        """
        arrays = dict(zip((field.name for field in self.spec.inputs), self.require_inputs(inputs), strict=True))
        for field in self.spec.inputs:
            found = arrays[field.name].dtype
            if found != np.dtype(field.dtype):
                raise BackendError(f"input {field.name} is {found}, expected {field.dtype}")
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def prepare_training(
        self,
        objective: Objective | NativeLoss,
        optimizer: OptimizerSpec,
        accumulate: int = 1,
        recompute: bool = False,
        sync_batch_norm: bool = False,
    ) -> None:
        """Refuse: there is nothing to learn in it."""
        self._refuse("it cannot be trained")

    def run(self, batches: Sequence[Batch], learning_rates: Sequence[float]) -> Pending[StepValues]:
        """Refuse: it makes no training steps."""
        self._refuse("it makes no training steps")

    def activations(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Refuse: its layers are merged."""
        self._refuse("outputs of its layers cannot be looked at")

    def export_state(self) -> State:
        """Refuse: its weights are folded into its graph."""
        self._refuse("its weights are part of its graph and cannot be taken out")

    def load_state(self, state: State) -> None:
        """Refuse: see :meth:`export_state`."""
        self._refuse("its weights are part of its graph and cannot be replaced")
