"""A model that is scored, and whose errors are sorted by the ground at the same time: one pass predicts for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model, Pending
from earthsr.data import ChannelNormalisation, DemData, Normalisation
from earthsr.evaluation import BASELINES, baseline
from earthsr.evaluation.profile import GroundErrors, ground_errors


class Watched:
    """Predicts as a model does, and adds up the errors of what it predicted and of the baselines.

    Parameters
    ----------
    model : Model
        With weights and normalisation.
    source : DemData
        The split that is predicted once, in the order of its file.
    """

    def __init__(self, model: Model, source: DemData) -> None:
        self._model = model
        self._source = source
        self._next = 0
        self._cells = source.fine_cell_size_m()
        self.errors = GroundErrors()

    def submit(self, coarse: NDArray[np.float32], pad_to: int | None = None) -> Pending[NDArray[np.float32]]:
        """Start a prediction of the split's next patches, metres; its errors count when its result is taken."""
        indices = np.arange(self._next, self._next + len(coarse), dtype=np.int64)
        self._next += len(coarse)
        pending = self._model.submit(coarse, pad_to)

        def read() -> NDArray[np.float32]:
            prediction = pending.result()
            self._see(indices, prediction)
            return prediction

        return Pending(read)

    def submit_fields(self, inputs: Mapping[str, NDArray], pad_to: int | None = None) -> Pending[NDArray[np.float32]]:
        """Start a forward pass of the model on the network's own input fields; nothing is added up."""
        return self._model.submit_fields(inputs, pad_to)

    @property
    def normalisation(self) -> Normalisation | ChannelNormalisation:
        """The model's."""
        return self._model.normalisation

    @property
    def trained_on(self) -> Mapping[str, Any]:
        """The model's."""
        return self._model.trained_on

    def _see(self, indices: NDArray[np.int64], prediction: NDArray[np.float32]) -> None:
        patches, scale = self._source.read(indices), self._model.spec.scale
        methods = {"model": prediction}
        for name in BASELINES:
            methods[name] = baseline(patches.coarse, scale, name)
        cells = None if self._cells is None else self._cells[indices]
        self.errors += ground_errors(methods, patches.fine, patches.mask, border=scale, cell_size_m=cells)
