"""DEM-SRNet in float64 NumPy and SciPy, written from the paper's and the design's words, not from our code.

Shares nothing with earthsr but the canonical names of the weights.
"""

import numpy as np
from scipy import ndimage, signal


def convolve(x, weights, name):
    """Zero-padded cross-correlation, (N, C, H, W) float64, as deep-learning frameworks mean 'convolution'."""
    kernel = np.asarray(weights[f"{name}.weight"], np.float64)
    out = np.zeros((x.shape[0], kernel.shape[0], *x.shape[2:]))
    for n in range(x.shape[0]):
        for o in range(kernel.shape[0]):
            for i in range(kernel.shape[1]):
                out[n, o] += signal.correlate2d(x[n, i], kernel[o, i], mode="same", boundary="fill")
    if f"{name}.bias" in weights:
        out += np.asarray(weights[f"{name}.bias"], np.float64)[None, :, None, None]
    return out


def sample(x, rows, columns, order=1):
    """Sample the last two axes at fractional coordinates, edges replicated."""
    grid = np.meshgrid(rows, columns, indexing="ij")
    out = np.empty((*x.shape[:2], len(rows), len(columns)))
    for index in np.ndindex(x.shape[:2]):
        out[index] = ndimage.map_coordinates(x[index], grid, order=order, mode="nearest", prefilter=False)
    return out


def bilinear(x, scale, registration):
    height, width = x.shape[-2:]
    if registration == "half_pixel":
        place = lambda n: np.clip((np.arange(n * scale) + 0.5) / scale - 0.5, 0, n - 1)  # noqa: E731
    else:
        place = lambda n: np.clip(np.arange(n * scale) / scale, 0, n - 1)  # noqa: E731
    return sample(x, place(height), place(width))


def keys(t):
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    if t < 2:
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return 0.0


def bicubic(x, scale):
    """Keys' cubic convolution with a = -1/2, one output cell at a time."""
    for axis in (-2, -1):
        n = x.shape[axis]
        parts = []
        for i in range(n * scale):
            position = (i + 0.5) / scale - 0.5
            first = int(np.floor(position)) - 1
            total = 0.0
            for j in range(first, first + 4):
                total = total + keys(position - j) * np.take(x, [min(max(j, 0), n - 1)], axis=axis)
            parts.append(total)
        x = np.concatenate(parts, axis=axis)
    return x


def mean_preserving(x, scale):
    """Bicubic interpolation of filtered coarse values: six cells to each side of the filter that gives back the means.

    The filter is a column of the inverse of what bicubic interpolation and block means make of coarse values on a long
    ring, scaled to a sum of 1; edges are replicated before anything else, 8 cells wide.
    """
    ring = np.zeros((81, 81))
    for i, j in np.ndindex(ring.shape):
        step = (j - i + 40) % 81 - 40
        ring[i, j] = np.mean([keys((phase + 0.5) / scale - 0.5 - step) for phase in range(scale)])
    taps = np.linalg.inv(ring)[40, 34:47]
    taps /= taps.sum()
    x = np.pad(x, [(0, 0), (0, 0), (8, 8), (8, 8)], mode="edge")
    for axis in (-2, -1):
        x = ndimage.correlate1d(x, taps, axis=axis)
    inner = slice(6, -6)
    fine = bicubic(x[..., inner, inner], scale)
    cut = slice(2 * scale, -2 * scale)
    return fine[..., cut, cut]


def blocks(x, scale):
    n, c, h, w = x.shape
    return x.reshape(n, c, h // scale, scale, w // scale, scale).mean(axis=(3, 5))


def pixel_shuffle(x, scale):
    n, c, h, w = x.shape
    out = np.empty((n, c // scale**2, h * scale, w * scale))
    for i in range(scale):
        for j in range(scale):
            out[:, :, i::scale, j::scale] = x[:, i * scale + j :: scale**2]
    return out


def anomaly(x, reach):
    """What is left of a field without its mean over squares of ``2 * reach + 1`` cells, edges replicated."""
    share = np.full(2 * reach + 1, 1 / (2 * reach + 1))
    mean = ndimage.correlate1d(ndimage.correlate1d(x, share, axis=-1, mode="nearest"), share, axis=-2, mode="nearest")
    return x - mean


def relief(x, reach):
    """Root of the mean square, over a square, of the departure from the mean of 5 x 5; 1/256 is the least."""
    share = np.full(2 * reach + 1, 1 / (2 * reach + 1))
    squares = anomaly(x, 2) ** 2
    for axis in (-1, -2):
        squares = ndimage.correlate1d(squares, share, axis=axis, mode="nearest")
    return np.sqrt(squares + 1 / 256**2)


def forward(spec, weights, x):
    """(N, C, h, w) to (N, C', h * scale, w * scale), float64."""
    x = np.asarray(x, np.float64)
    seen = anomaly(x, spec.local_mean) if spec.local_mean else x
    if spec.local_relief:
        seen = seen / (8 * relief(x, spec.local_relief))
    head = convolve(seen, weights, "head")
    y = head
    for i in range(spec.num_blocks):
        inner = np.maximum(convolve(y, weights, f"blocks.{i}.conv1"), 0)
        y = y + spec.residual_scale * convolve(inner, weights, f"blocks.{i}.conv2")
    y = convolve(y, weights, "body")
    y = y + (head if spec.global_skip == "features" else seen)
    y = convolve(y, weights, "up")
    y = pixel_shuffle(y, spec.scale) if spec.upsampler == "pixel_shuffle" else bilinear(y, spec.scale, spec.resize)
    if spec.fine_features:
        y = np.maximum(convolve(y, weights, "fine"), 0)
    y = convolve(y, weights, "out")
    if spec.local_relief:
        y = y * bilinear(relief(x, spec.local_relief), spec.scale, "half_pixel")
    if spec.residual_over == "bilinear":
        y = y + bilinear(x, spec.scale, "half_pixel")
    elif spec.residual_over == "bicubic":
        y = y + bicubic(x, spec.scale)
    elif spec.residual_over == "mean_preserving":
        y = y + mean_preserving(x, spec.scale)
    elif spec.residual_over == "conservative":
        surface = bicubic(x, spec.scale)
        gap = x - blocks(surface, spec.scale)
        y = y + surface + gap.repeat(spec.scale, axis=2).repeat(spec.scale, axis=3)
    return y


def pairs(error, weight):
    """Of cells beside and below each other: the difference of the errors, and the smaller weight."""
    for axis in (-1, -2):
        ends = [np.delete(np.arange(error.shape[axis]), end) for end in (0, -1)]
        after, before = (np.take(error, end, axis) for end in ends)
        yield axis, ends, after - before, np.minimum(np.take(weight, ends[0], axis), np.take(weight, ends[1], axis))


def masked_mse(spec, weights, inputs, target, weight, slope=0.0):
    """Sum of weighted squares over the sum of weights, and ``slope`` times that of the gradients."""
    error = forward(spec, weights, inputs) - target
    weight = np.broadcast_to(weight, target.shape)
    squares = (weight * error**2).sum() + slope * sum((w * d**2).sum() for _, _, d, w in pairs(error, weight))
    return float(squares / weight.sum())
