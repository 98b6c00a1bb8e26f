"""The spec of DEM-SRNet and its variants.

Head convolution, residual blocks (convolution, ReLU, convolution, times ``residual_scale``, plus input), body
convolution, global skip, up convolution, upsampling by ``scale``, output convolution; optionally added to an
interpolated surface, in which case the network may see the input's departure from its local mean alone. Zhang et al.,
Science Bulletin (2022), "Super-resolution reconstruction of a 3 arc-second global DEM dataset"; derived from EDSR (Lim
et al., CVPRW 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from earthsr.geo.resample import REACH, Method, axis_kernel, reach
from earthsr.models.spec import Initialiser, InputField, NetworkSpec, Parameter

#: Coarse cells to each side of the mean that local relief departs from.
RELIEF_MEAN = 2

#: Spreads of the detail by which a network of local relief divides: a square of some 20 cells has 5 to 10 of them.
RELIEF_SPAN = 8.0

#: Relief of flat ground, normalised: with the spread of land, some 300 m, a metre.
RELIEF_FLOOR = 2.0**-8


@dataclass(frozen=True)
class DemSRNetSpec(NetworkSpec):
    """Variants are explicit fields; the defaults are the paper's.

    Input ``elevation`` of shape (N, in_channels, H, W), output (N, out_channels, H * scale, W * scale), both
    normalised (dimensionless).

    Examples
    --------
    >>> import earthsr
    >>> f"{earthsr.DemSRNetSpec(features=256, num_blocks=42).parameter_count:,}"
    '50,729,472'
    """

    kind: ClassVar[str] = "demsrnet"
    bounds: ClassVar[Mapping[str, tuple[int, int]]] = {
        "scale": (1, 64),
        "in_channels": (1, 4096),
        "out_channels": (1, 4096),
        "features": (1, 16384),
        "num_blocks": (0, 2048),
        "kernel_size": (1, 63),
        "local_mean": (0, 4096),
        "local_relief": (0, 4096),
    }

    scale: int = 5
    """Fine cells per coarse cell and axis."""
    in_channels: int = 1
    """Fields that go in."""
    out_channels: int = 1
    """Fields that come out."""
    features: int = 256
    """Channels of every hidden convolution."""
    num_blocks: int = 42
    """Residual blocks of two convolutions each."""
    kernel_size: int = 3
    """Odd side of every kernel, in cells."""
    residual_scale: float = 1.0
    """Factor on what a block adds to its input."""
    global_skip: Literal["features", "input"] = "features"
    """What is added to the body's output: the head's features (EDSR), or the input itself (MindEarth)."""
    resize: Literal["half_pixel", "asymmetric"] = "half_pixel"
    """Registration of the bilinear upsampling; ``asymmetric`` shifts terrain, as MindEarth's does."""
    upsampler: Literal["interpolate", "pixel_shuffle"] = "interpolate"
    """Interpolated features, or channels rearranged into fine cells (Shi et al., 2016)."""
    bias: bool = False
    """Whether convolutions have biases."""
    fine_features: int = 0
    """Channels of a non-linear head on fine cells: the upsampling gives as many, and a convolution with ReLU of twice
    as many follows before the output convolution. A linear head behind interpolated features cannot bend in the two
    cells beside an edge of coarse cells. 0: the paper's one convolution."""
    residual_over: Literal["none", "bilinear", "bicubic", "conservative", "mean_preserving"] = "none"
    """Interpolated surface that the network's output is added to. ``mean_preserving`` keeps the coarse values as means
    without steps; ``conservative``, of older weights, has a step at every edge of coarse cells."""
    local_mean: int = 0
    """Coarse cells to each side whose mean is taken off what the network proper sees; 0 leaves the input as it is.

    The mean is that of a square of ``2 * local_mean + 1`` cells, edges replicated. The interpolated surface is still
    made of the input itself, so that a constant added to the input is added to the output, and nothing else changes.
    """
    local_relief: int = 0
    """Coarse cells to each side over which relief is measured, by which the network divides what it sees and multiplies
    what it adds; 0 leaves both as they are. Terrain is nearly self-affine: so one network serves plains and mountains.

    Relief is the root of the mean square, over a square of ``2 * local_relief + 1`` cells, of the input's departure
    from the mean of 5 x 5 cells; no less than :data:`RELIEF_FLOOR`. Like the local mean it is the same wherever a
    window begins, so that a raster predicted by windows has no seams. It needs ``local_mean``.
    """

    @property
    def inputs(self) -> tuple[InputField, ...]:
        """The elevation alone."""
        return (InputField("elevation", (self.in_channels, None, None)),)

    @property
    def upsampled_channels(self) -> int:
        """Channels that the up convolution writes: ``scale**2`` times as many where they are shuffled into pixels."""
        return (self.fine_features or self.features) * (self.scale**2 if self.upsampler == "pixel_shuffle" else 1)

    @property
    def resize_method(self) -> Method:
        """Interpolation of the feature maps, as :mod:`earthsr.geo.resample` names it."""
        return "bilinear" if self.resize == "half_pixel" else "bilinear_asymmetric"

    @property
    def convolutions(self) -> tuple[tuple[str, int, int], ...]:
        """All convolutions in forward order: name, input channels, output channels."""
        n = self.features
        blocks = [(f"blocks.{i}.{conv}", n, n) for i in range(self.num_blocks) for conv in ("conv1", "conv2")]
        return (
            ("head", self.in_channels, n),
            *blocks,
            ("body", n, n),
            ("up", n, self.upsampled_channels),
            *self.fine_convolutions,
        )

    @property
    def fine_convolutions(self) -> tuple[tuple[str, int, int], ...]:
        """Convolutions on fine cells, the output's among them: name, input channels, output channels."""
        if not self.fine_features:
            return (("out", self.features, self.out_channels),)
        return (
            ("fine", self.fine_features, 2 * self.fine_features),
            ("out", 2 * self.fine_features, self.out_channels),
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """All convolutions, blocks after their last one, the upsampling; anomaly, relief and surface if there are."""
        names: list[str] = ["anomaly"] if self.local_mean else []
        names += ["relief"] if self.local_relief else []
        for name, _, _ in self.convolutions:
            names.append(name)
            if name.endswith("conv2"):
                names.append(name.removesuffix(".conv2"))
            if name == "up":
                names.append("upsample")
        return (*names, "surface") if self.residual_over != "none" else tuple(names)

    @property
    def additions(self) -> int:
        """Element-wise additions of the network proper: one per block and the global skip."""
        return self.num_blocks + 1

    @property
    def interpolations(self) -> int:
        """Interpolation layers of the network proper."""
        return 1 if self.upsampler == "interpolate" else 0

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Weights (out, in, k, k), and biases (out,) where the variant has them."""
        k = self.kernel_size
        table: list[Parameter] = []
        for name, fan, out in self.convolutions:
            group = ".".join(name.split(".")[:2]) if name.startswith("blocks.") else name
            # A network that learns a residual starts as the interpolation itself.
            first: Initialiser = "zeros" if name == "out" and self.residual_over != "none" else "uniform_fan_in"
            fan_in = fan * k * k
            table.append(Parameter(f"{name}.weight", (out, fan, k, k), first, group, fan_in))
            if self.bias:
                table.append(Parameter(f"{name}.bias", (out,), first, group, fan_in))
        return tuple(table)

    def _transpose_channels(self, array: NDArray, axis: int) -> NDArray:
        """Swap row and column of the pixels that the up convolution's channels become when they are shuffled."""
        if self.upsampler != "pixel_shuffle":
            return array
        order = np.arange(self.upsampled_channels).reshape(-1, self.scale, self.scale)
        return np.take(array, order.swapaxes(1, 2).reshape(-1), axis=axis)

    def transpose_weights(self, weights: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """See the base class."""
        swapped = super().transpose_weights(weights)
        up = {name: self._transpose_channels(swapped[name], 0) for name in swapped if name.startswith("up.")}
        return {**swapped, **up}

    def transpose_layer(self, name: str, output: NDArray) -> NDArray:
        """See the base class."""
        swapped = super().transpose_layer(name, output)
        return self._transpose_channels(swapped, 1) if name == "up" else swapped

    @property
    def receptive_radius(self) -> int:
        """Coarse cells to each side that can change a coarse cell's output; see the tests for its measurement."""
        half = self.kernel_size // 2
        coarse_convolutions = len(self.convolutions) - len(self.fine_convolutions)
        if self.upsampler == "interpolate":
            reads = np.abs(axis_kernel(self.resize_method, self.scale)) > 0
            offsets = np.arange(-REACH, REACH + 1)
            lowest = [offsets[row].min() for row in reads]
            highest = [offsets[row].max() for row in reads]
        else:
            lowest = highest = [0] * self.scale
        fine_half = half * len(self.fine_convolutions)
        furthest = 0
        for fine in range(self.scale):
            for step in range(-fine_half, fine_half + 1):
                cell, phase = divmod(fine + step, self.scale)
                furthest = max(furthest, -(cell + int(lowest[phase])), cell + int(highest[phase]))
        seen = max(self.local_mean, self.local_relief + RELIEF_MEAN if self.local_relief else 0)
        radius = coarse_convolutions * half + furthest + seen
        if self.residual_over in ("bicubic", "conservative", "mean_preserving"):
            return max(radius, reach(self.residual_over))
        return radius

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able description; an option that is off is left out, as files older than it have it."""
        values = super().to_dict()
        for name in ("local_mean", "local_relief", "fine_features"):
            if not values[name]:
                del values[name]
        return values

    def flops(self, height: int, width: int) -> int:
        """Operations of one forward pass on ``height`` x ``width`` coarse cells.

        Additions, interpolations and means (under 0.1 %) are not counted.
        """
        k2 = self.kernel_size**2
        cells = height * width
        total = 0
        for name, fan, out in self.convolutions:
            total += 2 * k2 * fan * out * cells * (self.scale**2 if name in ("fine", "out") else 1)
        return total
