"""Who predicts: one model, or several, each as it is or under the eight symmetries of the square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from earthsr.backend import Model, Pending
from earthsr.data.normalise import Normalisation
from earthsr.data.samples import restore, transform
from earthsr.errors import CheckpointError, InputError
from earthsr.geo.voids import REACH
from earthsr.models import UNetSpec
from earthsr.models.average import same_cells

#: Of the eight symmetries of the square those that leave rows rows: none, half a turn, and the two reflections.
_UPRIGHT: Final = (0, 2, 5, 7)


@dataclass(frozen=True)
class Member:
    """A model that sees rasters turned by a symmetry, and turns its predictions back."""

    model: Model
    symmetry: int = 0

    def start(self, coarse: NDArray[np.float32], offset: float | None, pad_to: int) -> Pending[NDArray[np.float32]]:
        """Start a prediction.

        Parameters
        ----------
        coarse : ndarray of shape (N, 1, h, w)
            Metres; NaN where there is no value.
        offset : float or None
            Normalisation's offset in metres; each window's own where absent.
        pad_to : int
            Size of the batch that is run.

        Returns
        -------
        Pending of ndarray of shape (N, 1, h * scale, w * scale)
            Metres.
        """
        turned = np.ascontiguousarray(transform(coarse, self.symmetry))
        pending = self.model.submit(turned, pad_to, offset)
        return Pending(lambda: restore(pending.result(), self.symmetry))


def ensemble(models: Sequence[Model], symmetries: bool) -> tuple[Member, ...]:
    """Put an ensemble together.

    Parameters
    ----------
    models : sequence of Model
        The first one is the reference of the others.
    symmetries : bool
        Each under all eight symmetries of the square; under four of them, which leave rows rows, where the model was
        trained on products that are blurred more along columns than along rows.

    Raises
    ------
    InputError
        If a model is no model of elevations with one channel, or their scales or cell sizes differ.
    """
    for model in models:
        require_elevations(model)
    first = models[0]
    cell = first.metadata.get("input_cell_size_deg")
    for model in models[1:]:
        if model.spec.scale != first.spec.scale:
            raise InputError(
                f"{_name(model)} enlarges by {model.spec.scale}, {_name(first)} by {first.spec.scale}: an ensemble "
                "needs one scale"
            )
        other = model.metadata.get("input_cell_size_deg")
        if cell and other and not same_cells(other, cell):
            raise InputError(
                f"{_name(model)} was trained on cells of {other:.6g} degrees, {_name(first)} on {cell:.6g}: an "
                "ensemble needs one size"
            )
    return tuple(Member(model, s) for model in models for s in (_symmetries(model) if symmetries else (0,)))


def _symmetries(model: Model) -> Sequence[int]:
    training = model.metadata.get("training")
    settings = training.get("settings") if isinstance(training, dict) else None
    degradation = settings.get("degradation") if isinstance(settings, dict) else None
    upright = isinstance(degradation, dict) and degradation.get("kind") != "block_mean"
    return _UPRIGHT if upright else range(8)


def require_elevations(model: Model) -> None:
    """Check that a model enlarges rasters of elevation.

    Raises
    ------
    InputError
        If it does not.
    CheckpointError
        If it has no normalisation.
    """
    if isinstance(model.spec, UNetSpec):
        raise InputError(
            f"{_name(model)}: is a land-use model, and predict enlarges elevations; earthsr "
            "reconstruct makes its maps, earthsr evaluate scores it"
        )
    channels = model.spec.inputs[0].shape[0]
    if channels != 1:
        raise InputError(f"{_name(model)}: takes {channels} channels, and a raster of elevation has one")
    if not isinstance(model.normalisation, Normalisation):
        raise CheckpointError(f"{_name(model)}: its normalisation is not one of elevations")


def halo_of(group: Sequence[Member]) -> int:
    """Coarse cells beyond a cell that can change what is predicted there, by any member."""
    return max(member.model.spec.receptive_radius for member in group) + REACH


def takes_patch_means(model: Model) -> bool:
    """Whether a model knows patches about their own mean: what an exact prediction has to give it for the raster."""
    normalisation = model.normalisation
    assert isinstance(normalisation, Normalisation)
    return normalisation.kind == "patch"


def _name(model: Model) -> str:
    return str(model.metadata.get("source", "the model"))
