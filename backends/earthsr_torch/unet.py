"""The U-Net in PyTorch; parameter and module names are the spec's canonical names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earthsr.models import UNetSpec
from earthsr_torch.device import layout


def one_hot(classes: Tensor, count: int) -> Tensor:
    """Class indices (N, H, W) to (N, count, H, W) float32; an index beyond the classes gives zeros."""
    index = torch.arange(count, device=classes.device, dtype=torch.int32).view(1, count, 1, 1)
    return (classes.to(torch.int32).unsqueeze(1) == index).float()


class Fuse(nn.Module):
    """Bring all inputs onto the fine cells, always in float32."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.classes = spec.classes
        self.totals = spec.totals

    def forward(self, coarse: Tensor, wy: Tensor, wx: Tensor, static: Tensor, *rest: Tensor) -> Tensor:
        """Fields in the spec's order to (N, fused_channels, H, W)."""
        *prior, scalars = rest
        n, _, height, width = static.shape
        rows, columns = wy.unsqueeze(1), wx.unsqueeze(1)
        with torch.autocast(static.device.type, enabled=False):
            parts = [rows @ coarse @ columns.mT, static]
            if prior:
                known = prior[1].unsqueeze(1).float()
                classes = one_hot(prior[0], self.classes) * known
                parts += [classes, known]
                if self.totals:
                    area = rows.sum(2).unsqueeze(3) * columns.sum(2).unsqueeze(2)
                    fractions = rows.mT @ classes @ columns / area.clamp(min=1e-6)
                    parts.append(rows @ fractions @ columns.mT)
        parts.append(scalars[:, :, None, None].expand(n, -1, height, width))
        return torch.cat(parts, 1).contiguous(memory_format=layout(parts[0].device))


def _norm(spec: UNetSpec, features: int) -> nn.Module:
    if spec.norm == "batch":
        return nn.BatchNorm2d(features)
    return nn.GroupNorm(min(spec.norm_groups, features), features)


class ConvBlock(nn.Module):
    """Convolution, norm, ReLU, twice; norms compute in float32."""

    def __init__(self, spec: UNetSpec, inputs: int, outputs: int) -> None:
        super().__init__()
        bias = spec.norm == "none"
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias)
        self.normed = not bias
        if self.normed:
            self.norm1 = _norm(spec, outputs)
            self.norm2 = _norm(spec, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h, w)."""
        x = self.conv1(x.to(self.conv1.weight.dtype))
        x = F.relu(self.norm1(x.float()) if self.normed else x)
        x = self.conv2(x.to(self.conv2.weight.dtype))
        return F.relu(self.norm2(x.float()) if self.normed else x)


class Enlarge(nn.Module):
    """Half the features on cells half as large."""

    def __init__(self, spec: UNetSpec, outputs: int) -> None:
        super().__init__()
        self.bilinear = spec.upsampling == "bilinear"
        self.conv: nn.Conv2d | nn.ConvTranspose2d = (
            nn.Conv2d(2 * outputs, outputs, 1)
            if self.bilinear
            else nn.ConvTranspose2d(2 * outputs, outputs, 2, stride=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2 * outputs, h, w) to (N, outputs, 2 * h, 2 * w)."""
        x = self.conv(x.to(self.conv.weight.dtype))
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False) if self.bilinear else x


class UpBlock(ConvBlock):
    """Enlarge, put the encoder's features beside it, convolve."""

    def __init__(self, spec: UNetSpec, outputs: int) -> None:
        super().__init__(spec, 2 * outputs, outputs)
        self.enlarge = Enlarge(spec, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # type: ignore[override]
        """(N, 2 * outputs, h, w) and (N, outputs, 2 * h, 2 * w) to the latter's shape."""
        x = self.enlarge(x)
        return super().forward(torch.cat([skip.to(x.dtype), x], 1))


class UNet(nn.Module):
    """See :class:`earthsr.models.UNetSpec`."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.fuse = Fuse(spec)
        sizes = {name: (inputs, outputs) for name, inputs, outputs in spec.blocks}
        self.down = nn.ModuleList(ConvBlock(spec, *sizes[f"down.{level}"]) for level in range(spec.depth))
        self.middle = ConvBlock(spec, *sizes["middle"])
        self.up = nn.ModuleList(UpBlock(spec, sizes[f"up.{level}"][1]) for level in range(spec.depth))
        self.out = nn.Conv2d(spec.width, spec.outputs, 1)

    def forward(self, *fields: Tensor) -> Tensor:
        """Fields in the spec's order to (N, outputs, H, W) in float32."""
        x = self.fuse(*fields)
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for level in reversed(range(len(skips))):
            x = self.up[level](x, skips[level])
        return self.out(x.to(self.out.weight.dtype)).float()
