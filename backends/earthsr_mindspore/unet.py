"""The U-Net in MindSpore; parameter and cell names are the spec's canonical names, but for its norms' parameters."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from earthsr.models import UNetSpec
from earthsr_mindspore.precision import Convolution, TransposedConvolution, resizable


def one_hot(classes: Tensor, index: Tensor) -> Tensor:
    """Class indices (N, H, W) to (N, count, H, W) float32; an index beyond the classes gives zeros."""
    return (ops.expand_dims(classes, 1) == index).astype(mstype.float32)


class Fuse(nn.Cell):
    """Bring all inputs onto the fine cells, always in float32."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.prior = spec.prior
        self.totals = spec.totals
        self.index = Tensor(np.arange(spec.classes, dtype=np.int32).reshape(1, -1, 1, 1))

    def construct(self, coarse: Tensor, wy: Tensor, wx: Tensor, static: Tensor, *rest: Tensor) -> Tensor:
        """Fields in the spec's order to (N, fused_channels, H, W)."""
        n, _, height, width = static.shape
        rows, columns = ops.expand_dims(wy, 1), ops.expand_dims(wx, 1)
        across = ops.transpose(columns, (0, 1, 3, 2))
        fine = ops.matmul(ops.matmul(rows, coarse), across)
        scalars = rest[-1]
        spread = ops.broadcast_to(
            ops.reshape(scalars, (n, scalars.shape[1], 1, 1)), (n, scalars.shape[1], height, width)
        )
        if self.prior:
            known = ops.expand_dims(rest[1], 1).astype(mstype.float32)
            classes = one_hot(rest[0], self.index) * known
            if self.totals:
                down = ops.transpose(rows, (0, 1, 3, 2))
                area = ops.expand_dims(rows.sum(2), 3) * ops.expand_dims(columns.sum(2), 2)
                fractions = ops.matmul(ops.matmul(down, classes), columns) / ops.clamp(area, min=1e-6)
                totals = ops.matmul(ops.matmul(rows, fractions), across)
                return ops.cat((fine, static, classes, known, totals, spread), 1)
            return ops.cat((fine, static, classes, known, spread), 1)
        return ops.cat((fine, static, spread), 1)


def _norm(spec: UNetSpec, features: int) -> nn.Cell:
    if spec.norm == "batch":
        # MindSpore's momentum is the share of the old statistic, PyTorch's that of the new one (0.1).
        return nn.BatchNorm2d(features, eps=1e-5, momentum=0.9)
    return nn.GroupNorm(min(spec.norm_groups, features), features)


class ConvBlock(nn.Cell):
    """Convolution, norm, ReLU, twice; norms compute in float32."""

    def __init__(self, spec: UNetSpec, inputs: int, outputs: int) -> None:
        super().__init__()
        bias = spec.norm == "none"
        self.conv1 = Convolution(inputs, outputs, 3, pad_mode="pad", padding=1, has_bias=bias)
        self.conv2 = Convolution(outputs, outputs, 3, pad_mode="pad", padding=1, has_bias=bias)
        self.normed = not bias
        if self.normed:
            self.norm1 = _norm(spec, outputs)
            self.norm2 = _norm(spec, outputs)

    def construct(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h, w)."""
        x = self.conv1(x)
        if self.normed:
            x = self.norm1(x.astype(mstype.float32))
        x = self.conv2(ops.relu(x))
        if self.normed:
            x = self.norm2(x.astype(mstype.float32))
        return ops.relu(x)


class Enlarge(nn.Cell):
    """Half the features on cells half as large."""

    def __init__(self, spec: UNetSpec, outputs: int) -> None:
        super().__init__()
        self.bilinear = spec.upsampling == "bilinear"
        # What ops.interpolate calls in the end: see demsrnet.Upsample.
        self.half_pixel = ops.ResizeBilinearV2(align_corners=False, half_pixel_centers=True)
        self.conv = (
            Convolution(2 * outputs, outputs, 1, has_bias=True)
            if self.bilinear
            else TransposedConvolution(2 * outputs, outputs, 2, stride=2, pad_mode="valid", has_bias=True)
        )

    def construct(self, x: Tensor) -> Tensor:
        """(N, 2 * outputs, h, w) to (N, outputs, 2 * h, 2 * w)."""
        x = self.conv(x)
        if self.bilinear:
            return self.half_pixel(resizable(x), (2 * x.shape[2], 2 * x.shape[3])).astype(x.dtype)
        return x


class UpBlock(ConvBlock):
    """Enlarge, put the encoder's features beside it, convolve."""

    def __init__(self, spec: UNetSpec, outputs: int) -> None:
        super().__init__(spec, 2 * outputs, outputs)
        self.enlarge = Enlarge(spec, outputs)

    def construct(self, x: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]  # what it joins is an input
        """(N, 2 * outputs, h, w) and (N, outputs, 2 * h, 2 * w) to the latter's shape."""
        x = self.enlarge(x)
        return super().construct(ops.cat((skip.astype(x.dtype), x), 1))


class UNet(nn.Cell):
    """See :class:`earthsr.models.UNetSpec`."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.fuse = Fuse(spec)
        sizes = {name: (inputs, outputs) for name, inputs, outputs in spec.blocks}
        self.down = nn.CellList([ConvBlock(spec, *sizes[f"down.{level}"]) for level in range(spec.depth)])
        self.middle = ConvBlock(spec, *sizes["middle"])
        self.up = nn.CellList([UpBlock(spec, sizes[f"up.{level}"][1]) for level in range(spec.depth)])
        self.out = Convolution(spec.width, spec.outputs, 1, has_bias=True)
        self.depth = spec.depth
        self.pool = nn.MaxPool2d(2, 2)

    def construct(self, *fields: Tensor) -> Tensor:
        """Fields in the spec's order to (N, outputs, H, W) in float32."""
        x = self.fuse(*fields)
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.middle(x)
        for i in range(self.depth):
            level = self.depth - 1 - i
            x = self.up[level](x, skips[level])
        return self.out(x).astype(mstype.float32)
