"""DEM-SRNet in MindSpore; parameter and cell names are the spec's canonical names."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from earthsr.geo.resample import Method, polyphase_kernel, reach
from earthsr.models import DemSRNetSpec
from earthsr.models.demsrnet import RELIEF_FLOOR, RELIEF_MEAN, RELIEF_SPAN
from earthsr_mindspore.precision import Convolution, resizable


def _conv(spec: DemSRNetSpec, inputs: int, outputs: int) -> nn.Conv2d:
    half = spec.kernel_size // 2
    return Convolution(inputs, outputs, spec.kernel_size, pad_mode="pad", padding=half, has_bias=spec.bias)


class ResidualBlock(nn.Cell):
    """Convolution, ReLU, convolution, times ``residual_scale``, plus input."""

    def __init__(self, spec: DemSRNetSpec) -> None:
        super().__init__()
        self.conv1 = _conv(spec, spec.features, spec.features)
        self.conv2 = _conv(spec, spec.features, spec.features)
        self.residual_scale = spec.residual_scale

    def construct(self, x: Tensor) -> Tensor:
        """(N, features, h, w) to the same."""
        residual = self.conv2(ops.relu(self.conv1(x)))
        return x + (residual if self.residual_scale == 1.0 else residual * self.residual_scale)


class Upsample(nn.Cell):
    """Enlarge feature maps by an integer factor: shuffle channels into pixels, or interpolate bilinearly."""

    def __init__(self, spec: DemSRNetSpec) -> None:
        super().__init__()
        self.scale, self.upsampler, self.resize = spec.scale, spec.upsampler, spec.resize
        # What ops.interpolate calls in the end: its checks take a graph longer to compile than the rest of this cell,
        # and exporters, whose extents are free, do not take them.
        self.half_pixel = ops.ResizeBilinearV2(align_corners=False, half_pixel_centers=True)
        self.aligned = ops.ResizeBilinearV2(align_corners=True, half_pixel_centers=False)

    def construct(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C', h * scale, w * scale)."""
        if self.upsampler == "pixel_shuffle":
            return ops.pixel_shuffle(x, self.scale)
        height, width = x.shape[-2:]
        kind, x = x.dtype, resizable(x)
        if self.resize == "half_pixel":
            return self.half_pixel(x, (height * self.scale, width * self.scale)).astype(kind)
        # Asymmetric registration reads source = destination / scale. With one replicated row and column more,
        # aligned corners sample exactly these positions.
        padded = ops.pad(x, (0, 1, 0, 1), mode="replicate")
        fine = self.aligned(padded, (height * self.scale + 1, width * self.scale + 1))
        return fine[:, :, :-1, :-1].astype(kind)


class Surface(nn.Cell):
    """An interpolated surface, which a residual network adds to, as a fixed convolution and a pixel shuffle."""

    def __init__(self, method: Method, scale: int) -> None:
        super().__init__()
        self.scale, self.reach = scale, reach(method)
        side = 2 * self.reach + 1
        kernel = polyphase_kernel(method, scale).reshape(scale**2, 1, side, side)
        self.kernel = Tensor(kernel.astype(np.float32))
        self.convolve = ops.Conv2D(scale**2, side)

    def construct(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C, h * scale, w * scale)."""
        n, c, h, w = x.shape
        flat = ops.pad(ops.reshape(x, (n * c, 1, h, w)), (self.reach,) * 4, mode="replicate")
        fine = ops.pixel_shuffle(self.convolve(flat, self.kernel), self.scale)
        return ops.reshape(fine, (n, c, h * self.scale, w * self.scale))


class LocalMean(nn.Cell):
    """Mean over a square of cells, edges replicated."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.offsets = Tensor(np.arange(-reach, reach + 1, dtype=np.int32))

    def construct(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same, in float32."""
        return self._mean(self._mean(x, 2), 3)

    def _mean(self, x: Tensor, axis: int) -> Tensor:
        # Gathered and added up: what pools on an Ascend is its matrix unit, which may compute in a lower precision.
        last = x.shape[axis] - 1
        cells = ops.reshape(ops.arange(last + 1), (-1, 1)).astype(mstype.int32) + self.offsets
        return ops.gather(x, ops.clamp(cells, 0, last), axis).mean(axis + 1)


class Anomaly(nn.Cell):
    """The input's departure from its local mean: a constant added to the input takes no part."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.mean = LocalMean(reach)

    def construct(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same, in float32."""
        return x - self.mean(x)


class Relief(nn.Cell):
    """Spread of the input's detail around each cell; no less than that of flat ground."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.detail, self.mean = Anomaly(RELIEF_MEAN), LocalMean(reach)

    def construct(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same, in float32."""
        return ops.sqrt(self.mean(ops.square(self.detail(x))) + RELIEF_FLOOR**2)


class DemSRNet(nn.Cell):
    """DEM-SRNet; see :class:`earthsr.models.DemSRNetSpec`."""

    def __init__(self, spec: DemSRNetSpec) -> None:
        super().__init__()
        self.anomaly = Anomaly(spec.local_mean) if spec.local_mean else None
        self.relief = Relief(spec.local_relief) if spec.local_relief else None
        self.fine_relief = Surface("bilinear", spec.scale) if spec.local_relief else None
        self.head = _conv(spec, spec.in_channels, spec.features)
        self.blocks = nn.CellList([ResidualBlock(spec) for _ in range(spec.num_blocks)])
        self.body = _conv(spec, spec.features, spec.features)
        self.up = _conv(spec, spec.features, spec.upsampled_channels)
        self.upsample = Upsample(spec)
        layers = {name: _conv(spec, inputs, outputs) for name, inputs, outputs in spec.fine_convolutions}
        self.fine = layers.get("fine")
        self.out = layers["out"]
        self.surface = Surface(spec.residual_over, spec.scale) if spec.residual_over != "none" else None
        self.skip_features = spec.global_skip == "features"

    def construct(self, elevation: Tensor) -> Tensor:
        """(N, in_channels, h, w) to (N, out_channels, h * scale, w * scale) in float32, both normalised."""
        seen = elevation if self.anomaly is None else self.anomaly(elevation)
        relief = elevation
        if self.relief is not None:
            relief = self.relief(elevation)
            seen = seen / (RELIEF_SPAN * relief)
        head = self.head(seen)
        x = head
        for block in self.blocks:
            x = block(x)
        x = self.body(x)
        x = x + (head if self.skip_features else seen.astype(x.dtype))
        x = self.upsample(self.up(x))
        if self.fine is not None:
            x = ops.relu(self.fine(x))
        x = self.out(x).astype(mstype.float32)
        if self.fine_relief is not None:
            x = x * self.fine_relief(relief)
        return x if self.surface is None else x + self.surface(elevation)
