"""The loss of DEM-SRNet, its gradient by the chain rule, and Adam, in float64 NumPy and SciPy.

Written beside ``demsrnet.py`` from the same words; every linear map is undone by its adjoint, and the whole gradient is
checked against finite differences of the forward pass (tests/check/parity/test_reference.py).
"""

import numpy as np
from scipy import signal

from tests.reference import demsrnet as forward_pass


def convolve_adjoint(x, dy, weights, name):
    """Gradients of a convolution: of its input, and of its weights and biases by name."""
    kernel = np.asarray(weights[f"{name}.weight"], np.float64)
    half = kernel.shape[-1] // 2
    dx, dk = np.zeros_like(x), np.zeros_like(kernel)
    padded = np.pad(x, ((0, 0), (0, 0), (half, half), (half, half)))
    for n in range(x.shape[0]):
        for o in range(kernel.shape[0]):
            for i in range(kernel.shape[1]):
                dx[n, i] += signal.convolve2d(dy[n, o], kernel[o, i], mode="same")
                dk[o, i] += signal.correlate2d(padded[n, i], dy[n, o], mode="valid")
    gradient = {f"{name}.weight": dk}
    if f"{name}.bias" in weights:
        gradient[f"{name}.bias"] = dy.sum(axis=(0, 2, 3))
    return dx, gradient


def bilinear_adjoint(dy, scale, registration):
    """Transpose of the interpolation matrix of each axis, read off the forward pass's own unit columns."""
    height, width = dy.shape[-2] // scale, dy.shape[-1] // scale

    def matrix(size):
        unit = np.eye(size).reshape(size, 1, size, 1).repeat(2, axis=3)
        return forward_pass.bilinear(unit, scale, registration)[:, 0, :, 0].T

    return np.einsum("Yy,ncYX,Xx->ncyx", matrix(height), dy, matrix(width))


def pixel_shuffle_adjoint(dy, scale):
    n, c, h, w = dy.shape
    out = np.empty((n, c * scale**2, h // scale, w // scale))
    for i in range(scale):
        for j in range(scale):
            out[:, i * scale + j :: scale**2] = dy[:, :, i::scale, j::scale]
    return out


def layers(spec, weights, x):
    """Outputs of all layers by their canonical names, and of the whole network as ``output``."""
    seen = {}

    def conv(y, name):
        seen[name] = forward_pass.convolve(y, weights, name)
        return seen[name]

    x = field = np.asarray(x, np.float64)
    if spec.local_mean:
        field = seen["anomaly"] = forward_pass.anomaly(x, spec.local_mean)
    if spec.local_relief:
        seen["relief"] = forward_pass.relief(x, spec.local_relief)
        field = seen["seen"] = field / (8 * seen["relief"])
    y = head = conv(field, "head")
    for i in range(spec.num_blocks):
        inner = np.maximum(conv(y, f"blocks.{i}.conv1"), 0)
        y = y + spec.residual_scale * conv(inner, f"blocks.{i}.conv2")
        seen[f"blocks.{i}"] = y
    y = conv(y, "body") + (head if spec.global_skip == "features" else field)
    seen["skip"] = y
    y = conv(y, "up")
    shuffled = spec.upsampler == "pixel_shuffle"
    y = forward_pass.pixel_shuffle(y, spec.scale) if shuffled else forward_pass.bilinear(y, spec.scale, spec.resize)
    seen["upsample"] = y
    if spec.fine_features:
        y = np.maximum(conv(y, "fine"), 0)
    y = conv(y, "out")
    if spec.local_relief:
        seen["fine_relief"] = forward_pass.bilinear(seen["relief"], spec.scale, "half_pixel")
        y = y * seen["fine_relief"]
    whole = forward_pass.forward(spec, weights, x)
    if spec.residual_over != "none":
        seen["surface"] = whole - y
    seen["output"] = whole
    return seen


def loss_and_gradient(spec, weights, inputs, target, weight, slope=0.0):
    """Weighted mean of squares, and ``slope`` times that of the gradients' errors; its gradient by parameter."""
    x = np.asarray(inputs, np.float64)
    seen = layers(spec, weights, x)
    weight = np.broadcast_to(weight, target.shape).astype(np.float64)
    error = seen["output"] - target
    total = weight.sum() or 1.0
    loss, derror = (weight * error**2).sum(), 2 * weight * error
    for axis, (after, before), difference, product in forward_pass.pairs(error, weight):
        loss = loss + slope * (product * difference**2).sum()
        both = np.moveaxis(derror, axis, 0)
        each = np.moveaxis(2 * slope * product * difference, axis, 0)
        np.add.at(both, after, each)
        np.subtract.at(both, before, each)
    # Relief is the input's own, and takes no gradient.
    derror = derror * seen.get("fine_relief", 1.0)
    gradient = {}

    def back(y, dy, name):
        dx, own = convolve_adjoint(y, dy, weights, name)
        gradient.update(own)
        return dx

    if spec.fine_features:
        dy = back(np.maximum(seen["fine"], 0), derror / total, "out") * (seen["fine"] > 0)
        dy = back(seen["upsample"], dy, "fine")
    else:
        dy = back(seen["upsample"], derror / total, "out")
    shuffled = spec.upsampler == "pixel_shuffle"
    dy = pixel_shuffle_adjoint(dy, spec.scale) if shuffled else bilinear_adjoint(dy, spec.scale, spec.resize)
    skip = back(seen["skip"], dy, "up")
    last = seen[f"blocks.{spec.num_blocks - 1}"] if spec.num_blocks else seen["head"]
    dy = back(last, skip, "body")
    for i in reversed(range(spec.num_blocks)):
        below = seen[f"blocks.{i - 1}"] if i else seen["head"]
        inner = seen[f"blocks.{i}.conv1"]
        dinner = back(np.maximum(inner, 0), spec.residual_scale * dy, f"blocks.{i}.conv2") * (inner > 0)
        dy = dy + back(below, dinner, f"blocks.{i}.conv1")
    if spec.global_skip == "features":
        dy = dy + skip
    back(seen.get("seen", seen.get("anomaly", x)), dy, "head")
    return float(loss / total), {name: gradient[name] for name in weights}


def adam(optimizer, weights, first, second, gradient, rate, step):
    """One update of Adam (Kingma and Ba, algorithm 1) or AdamW, clipped before; returns new arrays."""
    norm = np.sqrt(sum((g**2).sum() for name, g in gradient.items() if name not in optimizer.frozen))
    factor = 1.0 if optimizer.clip_norm is None else min(1.0, optimizer.clip_norm / (norm + 1e-6))
    new, m, v = {}, {}, {}
    for name, weight in weights.items():
        if name in optimizer.frozen:
            new[name] = weight
            continue
        g = gradient[name] * factor
        if optimizer.name == "adam":
            g = g + optimizer.weight_decay * weight
        else:
            weight = weight * (1 - rate * optimizer.weight_decay)
        m[name] = optimizer.beta1 * first[name] + (1 - optimizer.beta1) * g
        v[name] = optimizer.beta2 * second[name] + (1 - optimizer.beta2) * g**2
        m_hat = m[name] / (1 - optimizer.beta1**step)
        v_hat = v[name] / (1 - optimizer.beta2**step)
        new[name] = weight - rate * m_hat / (np.sqrt(v_hat) + optimizer.eps)
    return new, m, v
