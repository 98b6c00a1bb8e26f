"""Specs of what is minimised, how, and in which precision; backends implement them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from earthsr.errors import ConfigError

Reduction = Literal["mse", "l1", "huber", "cross_entropy"]


@dataclass(frozen=True)
class Objective:
    """What is minimised: a loss per value, and by choice one of slopes, or Dice's over the batch.

    The first is the sum of ``weight * loss`` over all values of the global batch, divided by the sum of ``weight``; the
    weight of a value is its validity (1 or 0) times its sample's weight (0 for padding) times its class's weight.
    Weights are relative: their sum may be as small as it likes, and where it is 0 so are the loss and its gradient.
    """

    name: Reduction
    """The loss per value."""
    delta: float = 1.0
    """Huber only: where the loss turns from quadratic to linear, in normalised units."""
    class_weights: tuple[float, ...] | None = None
    """Cross entropy only: weight of the cells of every true class."""
    label_smoothing: float = 0.0
    """Cross entropy only: share of the label that is spread evenly over all classes (Szegedy et al., 2016)."""
    dice: float = 0.0
    """Cross entropy only: factor of the Dice loss that is added (Milletari et al., 2016): the mean over classes of
    ``1 - (2 I + 1) / (P + T + 1)`` with sums over the batch's valid cells of probability times truth, probability, and
    truth."""
    slope: float = 0.0
    """Not of cross entropy: factor of the slope-aware loss that is added: the sum over all pairs of cells beside or
    below each other of ``min(w1, w2) * ((p2 - p1) - (t2 - t1))**2``, with weight ``w``, prediction ``p`` and truth
    ``t``, divided by the sum of ``weight`` as the first. A cell has two pairs: it is about the mean squared error of
    both components of the gradient added up, in normalised units per fine cell."""

    def __post_init__(self) -> None:
        if self.slope and self.of_classes:
            raise ConfigError(
                f"slope is {self.slope:g}, but objective {self.name} compares classes, which have none; set it to 0, "
                "or use mse, l1 or huber"
            )

    @property
    def of_classes(self) -> bool:
        """Whether the target is a class index."""
        return self.name == "cross_entropy"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description of what counts for this loss."""
        values = asdict(self)
        if self.of_classes:
            del values["delta"], values["slope"]
            values["class_weights"] = None if self.class_weights is None else list(self.class_weights)
            return values
        # Without a slope as records older than it have it.
        slope = {"slope": self.slope} if self.slope else {}
        return {"name": values["name"], "delta": values["delta"], **slope}


def MSELoss(slope: float = 0.0) -> Objective:
    """Mean squared error over valid values, and ``slope`` times that of their gradients.

    Parameters
    ----------
    slope : float
        Factor of the squared error of differences between neighbouring fine cells, which is added; 0 leaves it out.

    Returns
    -------
    Objective
        A spec; each backend computes it.

    Examples
    --------
    >>> import earthsr
    >>> earthsr.MSELoss(slope=0.1).name
    'mse'
    """
    return Objective("mse", slope=slope)


def L1Loss(slope: float = 0.0) -> Objective:
    """Mean absolute error over valid values, and ``slope`` times the mean squared error of their gradients.

    Parameters
    ----------
    slope : float
        Factor of the squared error of differences between neighbouring fine cells, which is added; 0 leaves it out.

    Returns
    -------
    Objective
        A spec; each backend computes it.

    Examples
    --------
    >>> import earthsr
    >>> earthsr.L1Loss().name
    'l1'
    """
    return Objective("l1", slope=slope)


def HuberLoss(delta: float = 1.0, slope: float = 0.0) -> Objective:
    """Huber loss over valid values: quadratic within ``delta`` of the truth, linear beyond; ``slope`` as of MSELoss.

    Parameters
    ----------
    delta : float
        Where the loss turns linear, in normalised units.
    slope : float
        Factor of the squared error of differences between neighbouring fine cells, which is added; 0 leaves it out.

    Returns
    -------
    Objective
        A spec; each backend computes it.

    Examples
    --------
    >>> import earthsr
    >>> earthsr.HuberLoss(delta=0.5).delta
    0.5
    """
    return Objective("huber", delta, slope=slope)


def CrossEntropyLoss(
    class_weights: tuple[float, ...] | None = None, label_smoothing: float = 0.0, dice: float = 0.0
) -> Objective:
    """Cross entropy over valid cells, and Dice's loss by choice.

    Parameters
    ----------
    class_weights : tuple of float, optional
        Weight of the cells of every true class.
    label_smoothing : float
        Share of the label that is spread evenly over all classes, 0 to below 1.
    dice : float
        Factor of the Dice loss of the batch, which is added; 0 leaves it out.

    Returns
    -------
    Objective
        A spec; each backend computes it.

    Examples
    --------
    >>> import earthsr
    >>> earthsr.CrossEntropyLoss(label_smoothing=0.1).of_classes
    True
    """
    return Objective("cross_entropy", class_weights=class_weights, label_smoothing=label_smoothing, dice=dice)


@dataclass(frozen=True)
class OptimizerSpec:
    """Adam (Kingma and Ba, 2015, algorithm 1) with bias correction; the rate comes with each step as data.

    The update is ``rate * m_hat / (sqrt(v_hat) + eps)``. ``weight_decay`` is added to the gradient for ``adam`` and
    multiplies the weights by ``1 - rate * weight_decay`` for ``adamw`` (Loshchilov and Hutter, 2019).

    Examples
    --------
    >>> import earthsr
    >>> earthsr.OptimizerSpec(name="adamw", weight_decay=0.01).beta1
    0.9
    """

    name: Literal["adam", "adamw"] = "adam"
    """``adam`` or ``adamw``."""
    beta1: float = 0.9
    """Decay of the first moment per step."""
    beta2: float = 0.999
    """Decay of the second moment per step."""
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    """Largest norm of the gradient over all parameters; None does not clip."""
    frozen: frozenset[str] = frozenset()
    """Canonical names of parameters that do not learn."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description."""
        return {**asdict(self), "frozen": sorted(self.frozen)}


@dataclass(frozen=True)
class Precision:
    """A level of mixed precision, O0 (none) to O3, and its low precision.

    Examples
    --------
    >>> import earthsr
    >>> model = earthsr.from_pretrained("demo-dem", backend="torch", precision=earthsr.Precision("O2"))
    """

    level: Literal["O0", "O1", "O2", "O3"] = "O0"
    dtype: Literal["auto", "bfloat16", "float16"] = "auto"
    """The low precision; ``auto`` is the device's own choice."""
    strict: bool = False
    """Plain, deterministic kernels only: nothing fused, no TF32. For comparing backends; slower."""
