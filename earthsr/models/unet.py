"""The spec of the U-Net that fuses coarse forcing, static fields and last year's map (Ronneberger et al., MICCAI 2015).

Its inputs are structured: what is stored and moved stays small, and they are fused on the device. The coarse forcing
is a window of its own grid; two matrices made on the host bring it onto the fine one, ``Wy @ coarse @ Wx.T``: exact for
any ratio and offset. Fused with it are static fields, last year's classes as one channel each beside a mask of where
they are known, and scalars (year, step, direction) spread over the tile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import BackendError
from earthsr.models.spec import InputField, NetworkSpec, Parameter

#: Scalars in their order: normalised year, years since the prior (0: the map is this year's), direction (1 forwards).
SCALARS: Final = ("year", "step", "direction")


@dataclass(frozen=True)
class UNetSpec(NetworkSpec):
    """Encoder and decoder with skips; per level two convolutions of side 3, each with norm and ReLU.

    Level ``l`` has ``width * 2**l`` features on cells ``2**l`` times as large. Down goes a maximum over 2 x 2 cells. Up
    goes a convolution of side 1 and bilinear interpolation (in this order, which gives the same at a quarter of the
    cost), or a transposed convolution of side 2.

    Outputs are logits (N, classes, H, W) for ``head: classes``, normalised values (N, out_channels, H, W) for
    ``head: continuous``. With ``norm: group`` every output depends on statistics of the whole tile.

    Examples
    --------
    >>> import earthsr
    >>> [field.name for field in earthsr.UNetSpec(prior=False).inputs][:4]
    ['coarse', 'wy', 'wx', 'static']
    """

    kind: ClassVar[str] = "unet"
    bounds: ClassVar[Mapping[str, tuple[int, int]]] = {
        "coarse_channels": (0, 4096),
        "static_channels": (0, 4096),
        "classes": (1, 255),
        "width": (1, 16384),
        "depth": (0, 12),
        "norm_groups": (1, 16384),
        "out_channels": (1, 4096),
    }

    coarse_channels: int = 12
    """Channels C_c of the forcing."""
    static_channels: int = 5
    """Static fields C_s."""
    classes: int = 7
    prior: bool = True
    """Whether last year's classes and their mask are inputs."""
    totals: bool = False
    """Whether the prior's own coarse fractions are fused in beside the forcing: what a map lacks of its totals is then
    seen at once. They are averages of the prior over the cells that the interpolation spreads a coarse value to,
    ``Wy.T @ prior @ Wx`` over the same of ones, brought back as the forcing is."""
    width: int = 64
    depth: int = 4
    """Times that cells become twice as large."""
    norm: Literal["batch", "group", "none"] = "batch"
    norm_groups: int = 8
    upsampling: Literal["bilinear", "transposed"] = "bilinear"
    """The way up: interpolation, or transposed convolutions."""
    head: Literal["classes", "continuous"] = "classes"
    out_channels: int = 12
    """Of a continuous head."""

    @property
    def inputs(self) -> tuple[InputField, ...]:
        """Forcing window (C_c, h, w), its matrices (H, h) and (W, w), static fields, prior and mask, scalars."""
        fields = [
            InputField("coarse", (self.coarse_channels, None, None)),
            InputField("wy", (None, None)),
            InputField("wx", (None, None)),
            InputField("static", (self.static_channels, None, None)),
        ]
        if self.prior:
            fields += [InputField("prior", (None, None), "uint8"), InputField("prior_mask", (None, None), "uint8")]
        return (*fields, InputField("scalars", (len(SCALARS),)))

    @property
    def outputs(self) -> int:
        """Channels of the output."""
        return self.classes if self.head == "classes" else self.out_channels

    @property
    def softmax(self) -> bool:
        """Whether a prediction is probabilities of classes."""
        return self.head == "classes"

    @property
    def fed_back(self) -> str | None:
        """Input that the classes of an earlier pass can stand in for."""
        return "prior" if self.prior and self.head == "classes" else None

    @property
    def fused_channels(self) -> int:
        """Channels after fusing."""
        prior = self.classes + 1 + (self.classes if self.totals else 0) if self.prior else 0
        return self.coarse_channels + self.static_channels + prior + len(SCALARS)

    @property
    def scale(self) -> int:
        """One: outputs have the cells of the static fields."""
        return 1

    @property
    def multiple(self) -> int:
        """Tiles have sides of a multiple of this."""
        return int(2**self.depth)

    def cells_of_width(self, channels: int, size: int) -> int:
        """See the base class: the level where features have become that many."""
        level = math.ceil(math.log2(max(channels / self.width, 1)))
        return int(size // 2 ** min(level, self.depth))

    def random_inputs(self, batch: int, rows: int, columns: int, seed: int = 0) -> dict[str, NDArray]:
        """Make normalised inputs (N, …): see the base class.

        Extents are multiples of what the depth asks for; the forcing's window has another size, and its own matrices.

        Parameters
        ----------
        batch, rows, columns : int
            Samples, and height and width in those multiples.
        seed : int
            Of NumPy's generator.
        """
        rng = np.random.default_rng(seed)
        fine = (rows * self.multiple, columns * self.multiple)
        window = (rows + 1, columns + 3)
        inputs: dict[str, NDArray] = {}
        for field in self.inputs:
            if field.name in ("wy", "wx"):
                axis = 0 if field.name == "wy" else 1
                # Rows that add up to 1, as those of an interpolation do.
                matrix = rng.dirichlet(np.full(window[axis], 0.3), (batch, fine[axis]))
                inputs[field.name] = matrix.astype(np.float32)
                continue
            extents = window if field.name == "coarse" else fine
            # One class more than there are: some cells have none.
            inputs[field.name] = self._random_field(rng, field, (batch, *extents), self.classes + 1)
        return inputs

    def features(self, level: int) -> int:
        """Channels of a level."""
        return int(self.width * 2**level)

    @property
    def blocks(self) -> tuple[tuple[str, int, int], ...]:
        """Blocks of two convolutions in forward order: name, input and output channels."""
        down = [
            (f"down.{level}", self.features(level - 1) if level else self.fused_channels, self.features(level))
            for level in range(self.depth)
        ]
        middle = ("middle", self.features(self.depth - 1), self.features(self.depth))
        up = [(f"up.{level}", 2 * self.features(level), self.features(level)) for level in self.up_levels]
        return (*down, middle, *up)

    @property
    def up_levels(self) -> tuple[int, ...]:
        """Levels of the decoder in forward order."""
        return tuple(reversed(range(self.depth)))

    @property
    def layers(self) -> tuple[str, ...]:
        """The fused inputs, all convolutions and norms, all blocks, the output."""
        names = ["fuse"]
        for block, _, _ in self.blocks:
            if block.startswith("up"):
                names.append(f"{block}.enlarge")
            for conv, norm in (("conv1", "norm1"), ("conv2", "norm2")):
                names.append(f"{block}.{conv}")
                if self.norm != "none":
                    names.append(f"{block}.{norm}")
            names.append(block)
        return (*names, "out")

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Weights (out, in, k, k); of transposed convolutions (in, out, 2, 2). Running statistics do not learn."""
        table: list[Parameter] = []

        def convolution(
            name: str, fan: int, out: int, side: int, group: str, bias: bool, transposed: bool = False
        ) -> None:
            shape = (fan, out, side, side) if transposed else (out, fan, side, side)
            fan_in = fan if transposed else fan * side * side
            table.append(Parameter(f"{name}.weight", shape, "uniform_fan_in", group, fan_in))
            if bias:
                table.append(Parameter(f"{name}.bias", (out,), "uniform_fan_in", group, fan_in))

        def norm(name: str, features: int, group: str) -> None:
            if self.norm == "none":
                return
            table.append(Parameter(f"{name}.weight", (features,), "ones", group, 1))
            table.append(Parameter(f"{name}.bias", (features,), "zeros", group, 1))
            if self.norm == "batch":
                table.append(Parameter(f"{name}.running_mean", (features,), "zeros", group, 1, learns=False))
                table.append(Parameter(f"{name}.running_var", (features,), "ones", group, 1, learns=False))

        for block, fan, out in self.blocks:
            if block.startswith("up"):
                transposed = self.upsampling == "transposed"
                convolution(f"{block}.enlarge.conv", 2 * out, out, 2 if transposed else 1, block, True, transposed)
            # A norm takes away what a bias before it adds.
            bias = self.norm == "none"
            convolution(f"{block}.conv1", fan, out, 3, block, bias)
            norm(f"{block}.norm1", out, block)
            convolution(f"{block}.conv2", out, out, 3, block, bias)
            norm(f"{block}.norm2", out, block)
        convolution("out", self.width, self.outputs, 1, "out", True)
        return tuple(table)

    def transpose_inputs(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """See the base class; the matrix of the rows becomes that of the columns."""
        turned = super().transpose_inputs({k: v for k, v in inputs.items() if k not in ("wy", "wx")})
        return {**turned, "wy": inputs["wx"], "wx": inputs["wy"]} if "wy" in inputs else turned

    def require_shapes(self, inputs: Mapping[str, NDArray]) -> None:
        """See the base class."""
        height, width = inputs["static"].shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise BackendError(
                f"input static has {height} x {width} cells; a U-Net of depth {self.depth} takes multiples of "
                f"{self.multiple}"
            )
        coarse = inputs["coarse"].shape[-2:]
        expected = {"wy": (height, coarse[0]), "wx": (width, coarse[1])}
        expected |= {name: (height, width) for name in ("prior", "prior_mask") if self.prior}
        for name, shape in expected.items():
            if inputs[name].shape[1:] != shape:
                raise BackendError(f"input {name} has shape {inputs[name].shape}, expected (N, {shape[0]}, {shape[1]})")

    @property
    def receptive_radius(self) -> int:
        """Fine cells to each side that can change a cell's output.

        With group norm the statistics of the whole tile do too, and with ``totals`` the prior all over a coarse cell.
        """
        radius = 0
        for cell in range(self.multiple):
            low, high = self._reads(0, cell, cell)
            radius = max(radius, cell - low, high - cell)
        return radius

    def _encoded(self, level: int, low: int, high: int) -> tuple[int, int]:
        """Input cells that cells ``low … high`` of the encoder's level read."""
        low, high = low - 2, high + 2
        return (low, high) if level == 0 else self._encoded(level - 1, 2 * low, 2 * high + 1)

    def _reads(self, level: int, low: int, high: int) -> tuple[int, int]:
        """Input cells that cells ``low … high`` of the decoder's level read."""
        if level == self.depth:
            return self._encoded(level, low, high)
        low, high = low - 2, high + 2
        skip = self._encoded(level, low, high)
        if self.upsampling == "transposed":
            deep = self._reads(level + 1, low // 2, high // 2)
        else:
            # Half-pixel bilinear: cell j lies at j / 2 - 1/4 of the coarser cells, between two of them.
            deep = self._reads(level + 1, int(np.floor(low / 2 - 0.25)), int(np.floor(high / 2 - 0.25)) + 1)
        return min(skip[0], deep[0]), max(skip[1], deep[1])

    def flops(self, height: int, width: int) -> int:
        """Operations of the convolutions of one forward pass on ``height`` x ``width`` fine cells.

        Fusing and norms (about 1 %) are not counted.
        """
        cells = height * width
        total = 0
        for block, fan, out in self.blocks:
            level = self.depth if block == "middle" else int(block.split(".")[1])
            cells_of_level = cells // 4**level
            total += 2 * 9 * (fan + out) * out * cells_of_level
            if block.startswith("up"):
                # Side 1 on the coarser cells; a transposed convolution makes four cells of each.
                total += (
                    2 * 2 * out * out * (cells_of_level if self.upsampling == "transposed" else cells_of_level // 4)
                )
        return total + 2 * self.width * self.outputs * cells
