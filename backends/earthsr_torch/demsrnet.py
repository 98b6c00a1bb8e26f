"""DEM-SRNet in PyTorch; parameter and module names are the spec's canonical names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earthsr.geo.resample import Method, polyphase_kernel, reach
from earthsr.models import DemSRNetSpec
from earthsr.models.demsrnet import RELIEF_FLOOR, RELIEF_MEAN, RELIEF_SPAN
from earthsr_torch.device import numerics


def _conv(spec: DemSRNetSpec, inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, spec.kernel_size, padding=spec.kernel_size // 2, bias=spec.bias)


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, times ``residual_scale``, plus input."""

    def __init__(self, spec: DemSRNetSpec) -> None:
        super().__init__()
        self.conv1 = _conv(spec, spec.features, spec.features)
        self.conv2 = _conv(spec, spec.features, spec.features)
        self.residual_scale = spec.residual_scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, features, h, w) to the same."""
        residual = self.conv2(F.relu(self.conv1(x)))
        return x + (residual if self.residual_scale == 1.0 else residual * self.residual_scale)


class Upsample(nn.Module):
    """Enlarge feature maps by an integer factor: shuffle channels into pixels, or interpolate bilinearly."""

    def __init__(self, spec: DemSRNetSpec) -> None:
        super().__init__()
        self.scale, self.upsampler, self.resize = spec.scale, spec.upsampler, spec.resize

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C', h * scale, w * scale)."""
        if self.upsampler == "pixel_shuffle":
            return F.pixel_shuffle(x, self.scale)
        if self.resize == "half_pixel":
            return F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        # Asymmetric registration reads source = destination / scale. With one replicated row and column more,
        # aligned corners sample exactly these positions.
        height, width = x.shape[-2:]
        size = (height * self.scale + 1, width * self.scale + 1)
        padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
        fine = F.interpolate(padded, size=size, mode="bilinear", align_corners=True)
        return fine[..., :-1, :-1]


class Surface(nn.Module):
    """An interpolated surface, which a residual network adds to, as a fixed convolution and a pixel shuffle."""

    kernel: Tensor

    def __init__(self, method: Method, scale: int) -> None:
        super().__init__()
        self.scale, self.reach = scale, reach(method)
        side = 2 * self.reach + 1
        kernel = polyphase_kernel(method, scale).reshape(scale**2, 1, side, side)
        self.register_buffer("kernel", torch.tensor(kernel, dtype=torch.float32), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Goes to a device with the network, but not into a low precision, where its weights would not add up to 1.
        exact = self.kernel
        super()._apply(fn, recurse)
        self.kernel = exact.to(self.kernel.device)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C, h * scale, w * scale), always in float32."""
        n, c, h, w = x.shape
        wide = numerics(x.device, tf32=False, strict=torch.backends.cudnn.deterministic)
        with torch.autocast(x.device.type, enabled=False), wide:
            flat = F.pad(x.float().reshape(n * c, 1, h, w), (self.reach,) * 4, mode="replicate")
            fine = F.pixel_shuffle(F.conv2d(flat, self.kernel), self.scale)
        return fine.reshape(n, c, h * self.scale, w * self.scale)


class LocalMean(nn.Module):
    """Mean over a square of cells, edges replicated."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same, always in float32: pooled, since a GPU may lower a convolution to TF32."""
        width = 2 * self.reach + 1
        with torch.autocast(x.device.type, enabled=False):
            mean = F.pad(x.float(), (self.reach,) * 4, mode="replicate")
            return F.avg_pool2d(F.avg_pool2d(mean, (width, 1), stride=1), (1, width), stride=1)


class Anomaly(nn.Module):
    """The input's departure from its local mean: a constant added to the input takes no part."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.mean = LocalMean(reach)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same, always in float32."""
        return x.float() - self.mean(x)


class Relief(nn.Module):
    """Spread of the input's detail around each cell; no less than that of flat ground."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.detail, self.mean = Anomaly(RELIEF_MEAN), LocalMean(reach)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same, always in float32."""
        return (self.mean(self.detail(x).square()) + RELIEF_FLOOR**2).sqrt()


class DemSRNet(nn.Module):
    """DEM-SRNet; see :class:`earthsr.models.DemSRNetSpec`."""

    def __init__(self, spec: DemSRNetSpec) -> None:
        super().__init__()
        self.spec = spec
        self.anomaly = Anomaly(spec.local_mean) if spec.local_mean else None
        self.relief = Relief(spec.local_relief) if spec.local_relief else None
        self.fine_relief = Surface("bilinear", spec.scale) if spec.local_relief else None
        self.head = _conv(spec, spec.in_channels, spec.features)
        self.blocks = nn.ModuleList(ResidualBlock(spec) for _ in range(spec.num_blocks))
        self.body = _conv(spec, spec.features, spec.features)
        self.up = _conv(spec, spec.features, spec.upsampled_channels)
        self.upsample = Upsample(spec)
        layers = {name: _conv(spec, inputs, outputs) for name, inputs, outputs in spec.fine_convolutions}
        self.fine = layers.get("fine")
        self.out = layers["out"]
        self.surface = Surface(spec.residual_over, spec.scale) if spec.residual_over != "none" else None

    def forward(self, elevation: Tensor) -> Tensor:
        """(N, in_channels, h, w) to (N, out_channels, h * scale, w * scale) in float32, both normalised."""
        seen = elevation if self.anomaly is None else self.anomaly(elevation)
        relief = None if self.relief is None else self.relief(elevation)
        if relief is not None:
            seen = seen / (RELIEF_SPAN * relief)
        head = self.head(seen.to(self.head.weight.dtype))
        x = head
        for block in self.blocks:
            x = block(x)
        x = self.body(x)
        x = x + (head if self.spec.global_skip == "features" else seen.to(x.dtype))
        x = self.upsample(self.up(x))
        if self.fine is not None:
            x = F.relu(self.fine(x))
        x = self.out(x).float()
        if relief is not None and self.fine_relief is not None:
            x = x * self.fine_relief(relief)
        return x if self.surface is None else x + self.surface(elevation)
