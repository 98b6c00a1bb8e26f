"""The U-Net, its objectives and their gradient in float64 NumPy, written from the design's words, not from our code.

Shares nothing with earthsr but the fields of the specs and the canonical names. Every operation gives its value and the
map that takes a gradient back to each of its parts; a pass goes back through them in reverse. The whole gradient is
checked against finite differences, the operations against SciPy (tests/check/parity/test_unet_reference.py).

Running statistics do not learn, so that one step of training is ``loss_and_gradient`` and then ``gradients.adam`` over
``{name: weights[name] for name in spec.learning}``.
"""

import numpy as np

EPS = 1e-5
MOMENTUM = 0.1


class Node:
    """A value, and pairs of a part that it was made of and the map from its gradient to the part's."""

    def __init__(self, value, *parts):
        self.value = value
        self.parts = parts


def gradients(node, dy):
    """Gradient by node, of all that ``node`` was made of, for its own ``dy``."""
    order, met = [], set()

    def visit(this):
        if this in met:
            return
        met.add(this)
        for part, _ in this.parts:
            visit(part)
        order.append(this)

    visit(node)
    found = {node: dy}
    # Whatever uses a node comes after it, so that a node's gradient is whole before it goes on.
    for this in reversed(order):
        for part, back in this.parts:
            found[part] = found.get(part, 0) + back(found[this])
    return found


def _windows(x, side):
    half = side // 2
    padded = np.pad(x, ((0, 0), (0, 0), (half, half), (half, half)))
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(2, 3))


def convolve(x, kernel):
    """Zero-padded cross-correlation of (N, C, H, W) with an odd kernel (O, C, k, k)."""
    side = kernel.value.shape[-1]
    seen = _windows(x.value, side)

    def to_x(dy):
        turned = kernel.value[:, :, ::-1, ::-1]
        return np.moveaxis(np.tensordot(_windows(dy, side), turned, ((1, 4, 5), (0, 2, 3))), -1, 1)

    def to_kernel(dy):
        return np.tensordot(dy, seen, ((0, 2, 3), (0, 2, 3)))

    out = np.moveaxis(np.tensordot(seen, kernel.value, ((1, 4, 5), (1, 2, 3))), -1, 1)
    return Node(out, (x, to_x), (kernel, to_kernel))


def spread(x, kernel):
    """Transposed convolution of stride 2: each cell becomes 2 x 2 cells by a kernel (C, O, 2, 2)."""
    n, _, h, w = x.value.shape
    outputs = kernel.value.shape[1]

    def cells(dy):
        return dy.reshape(n, outputs, h, 2, w, 2)

    out = np.einsum("ncyx,coij->noyixj", x.value, kernel.value, optimize=True)
    return Node(
        out.reshape(n, outputs, 2 * h, 2 * w),
        (x, lambda dy: np.einsum("noyixj,coij->ncyx", cells(dy), kernel.value, optimize=True)),
        (kernel, lambda dy: np.einsum("noyixj,ncyx->coij", cells(dy), x.value, optimize=True)),
    )


def doubling(size):
    """Matrix (2 * size, size) of linear interpolation at half-pixel centres, edges replicated."""
    matrix = np.zeros((2 * size, size))
    for cell in range(2 * size):
        place = (cell + 0.5) / 2 - 0.5
        first = int(np.floor(place))
        for at, share in ((first, first + 1 - place), (first + 1, place - first)):
            matrix[cell, min(max(at, 0), size - 1)] += share
    return matrix


def double(x):
    """Bilinear interpolation to cells half as large."""
    rows, columns = doubling(x.value.shape[2]), doubling(x.value.shape[3])
    return Node(rows @ x.value @ columns.T, (x, lambda dy: rows.T @ dy @ columns))


def pool(x):
    """Largest of 2 x 2 cells; of equal ones the first in row-major order has the gradient."""
    n, c, h, w = x.value.shape
    four = x.value.reshape(n, c, h // 2, 2, w // 2, 2).swapaxes(3, 4).reshape(n, c, h // 2, w // 2, 4)
    first = four.argmax(-1)[..., None]

    def back(dy):
        out = np.zeros_like(four)
        np.put_along_axis(out, first, dy[..., None], -1)
        return out.reshape(n, c, h // 2, w // 2, 2, 2).swapaxes(3, 4).reshape(n, c, h, w)

    return Node(np.take_along_axis(four, first, -1)[..., 0], (x, back))


def relu(x):
    """Zero has no slope."""
    open_ = x.value > 0
    return Node(x.value * open_, (x, lambda dy: dy * open_))


def concatenate(first, second):
    """One after the other, along channels."""
    count = first.value.shape[1]
    return Node(
        np.concatenate([first.value, second.value], 1),
        (first, lambda dy: dy[:, :count]),
        (second, lambda dy: dy[:, count:]),
    )


def add_channels(x, bias):
    """A number per channel added."""
    return Node(x.value + bias.value[:, None, None], (x, lambda dy: dy), (bias, lambda dy: np.einsum("nchw->c", dy)))


def scale_channels(x, factor):
    """A number per channel multiplied."""
    return Node(
        x.value * factor.value[:, None, None],
        (x, lambda dy: dy * factor.value[:, None, None]),
        (factor, lambda dy: np.einsum("nchw,nchw->c", dy, x.value)),
    )


def reshape(x, shape):
    """The same values in the same order."""
    return Node(x.value.reshape(shape), (x, lambda dy: dy.reshape(x.value.shape)))


def standardise(x, axes):
    """Mean 0 and (biased) variance 1 over ``axes``, both of which move with ``x``."""
    mean = x.value.mean(axes, keepdims=True)
    deviation = np.sqrt(((x.value - mean) ** 2).mean(axes, keepdims=True) + EPS)
    out = (x.value - mean) / deviation

    def back(dy):
        return (dy - dy.mean(axes, keepdims=True) - out * (dy * out).mean(axes, keepdims=True)) / deviation

    return Node(out, (x, back))


def one_hot(classes, count):
    """Indices (N, H, W) to (N, count, H, W); zeros for what is no class."""
    return np.stack([np.asarray(classes) == k for k in range(count)], 1).astype(np.float64)


def log_softmax(z):
    """Over channels; finite where a share itself is too small for a number."""
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def softmax(z):
    """Over channels."""
    return np.exp(log_softmax(z))


def fuse(spec, inputs):
    """All inputs on the fine cells: forcing, static fields, prior classes, where they are known, scalars."""
    part = {name: np.asarray(value, np.float64) for name, value in inputs.items()}
    n, _, h, w = part["static"].shape
    parts = [np.einsum("nyi,ncij,nxj->ncyx", part["wy"], part["coarse"], part["wx"], optimize=True), part["static"]]
    if spec.prior:
        known = part["prior_mask"][:, None]
        classes = one_hot(part["prior"], spec.classes) * known
        parts += [classes, known]
        if spec.totals:
            sums = np.einsum("nyi,ncyx,nxj->ncij", part["wy"], classes, part["wx"], optimize=True)
            area = np.einsum("nyi,nxj->nij", part["wy"], part["wx"])[:, None]
            fractions = np.divide(sums, area, out=np.zeros_like(sums), where=np.broadcast_to(area > 1e-6, sums.shape))
            parts.append(np.einsum("nyi,ncij,nxj->ncyx", part["wy"], fractions, part["wx"], optimize=True))
    parts.append(np.broadcast_to(part["scalars"][:, :, None, None], (n, part["scalars"].shape[1], h, w)))
    return np.concatenate(parts, 1)


class Pass:
    """One forward pass: outputs of layers by name, the running statistics after it, the work of its convolutions.

    Norms named in ``held`` (by their weights) use and keep their running statistics in training too.
    """

    def __init__(self, spec, weights, inputs, training=False, held=frozenset()):
        self.spec = spec
        self.weights = {name: Node(np.asarray(value, np.float64)) for name, value in weights.items()}
        self.training = training
        self.held = held
        self.seen = {}
        self.statistics = {name: node.value for name, node in self.weights.items() if "running" in name}
        self.multiply_adds = 0
        self.out = self._network(Node(fuse(spec, inputs)))

    def _network(self, x):
        self._see("fuse", x)
        skips = []
        for level in range(self.spec.depth):
            x = self._block(x, f"down.{level}")
            skips.append(x)
            x = pool(x)
        x = self._block(x, "middle")
        for level in reversed(range(self.spec.depth)):
            x = self._see(f"up.{level}.enlarge", self._enlarge(x, f"up.{level}.enlarge.conv"))
            x = self._block(concatenate(skips[level], x), f"up.{level}")
        return self._see("out", self._convolve(x, "out"))

    def _see(self, name, node):
        self.seen[name] = node.value
        return node

    def _block(self, x, name):
        for i in (1, 2):
            x = self._see(f"{name}.conv{i}", self._convolve(x, f"{name}.conv{i}"))
            if self.spec.norm != "none":
                x = self._see(f"{name}.norm{i}", self._norm(x, f"{name}.norm{i}"))
            x = relu(x)
        return self._see(name, x)

    def _convolve(self, x, name, operation=convolve):
        kernel = self.weights[f"{name}.weight"]
        out = operation(x, kernel)
        if operation is spread:
            # Every input value meets the kernel's part of its channel once.
            self.multiply_adds += x.value.size * kernel.value[0].size
        else:
            # Every output value takes one window; what the padding adds counts as well.
            self.multiply_adds += out.value.size * kernel.value[0].size
        bias = self.weights.get(f"{name}.bias")
        return out if bias is None else add_channels(out, bias)

    def _enlarge(self, x, name):
        if self.spec.upsampling == "transposed":
            return self._convolve(x, name, spread)
        return double(self._convolve(x, name))

    def _norm(self, x, name):
        n, features, h, w = x.value.shape
        if self.spec.norm == "group":
            groups = min(self.spec.norm_groups, features)
            x = reshape(standardise(reshape(x, (n, groups, -1)), 2), (n, features, h, w))
        elif self.training and f"{name}.weight" not in self.held:
            means = x.value.mean((0, 2, 3))
            variances = x.value.var((0, 2, 3), ddof=1)
            for key, now in ((f"{name}.running_mean", means), (f"{name}.running_var", variances)):
                self.statistics[key] = (1 - MOMENTUM) * self.statistics[key] + MOMENTUM * now
            x = standardise(x, (0, 2, 3))
        else:
            x = add_channels(x, Node(-self.statistics[f"{name}.running_mean"]))
            x = scale_channels(x, Node(1 / np.sqrt(self.statistics[f"{name}.running_var"] + EPS)))
        return add_channels(scale_channels(x, self.weights[f"{name}.weight"]), self.weights[f"{name}.bias"])


def layers(spec, weights, inputs, training=False):
    """Outputs of all layers by their canonical names, and the prediction (classes: probabilities) as ``output``."""
    seen = Pass(spec, weights, inputs, training).seen
    return {**seen, "output": softmax(seen["out"]) if spec.head == "classes" else seen["out"]}


def loss_and_slope(objective, z, target, mask_weight):
    """Loss of the network's raw outputs (N, C, H, W), and its gradient by them.

    ``mask_weight`` (N, 1, H, W) is validity times the weight of the sample.
    """
    valid = np.asarray(mask_weight, np.float64)
    if not objective.of_classes:
        error = z - np.asarray(target, np.float64)
        weight = np.broadcast_to(valid, z.shape)
        if objective.name == "mse":
            loss, slope = error**2, 2 * error
        elif objective.name == "l1":
            loss, slope = np.abs(error), np.sign(error)
        else:
            delta = objective.delta
            near = np.abs(error) <= delta
            loss = np.where(near, error**2 / 2, delta * (np.abs(error) - delta / 2))
            slope = np.where(near, error, delta * np.sign(error))
        total = weight.sum() or 1.0
        return float((weight * loss).sum() / total), weight * slope / total

    count = z.shape[1]
    index = np.asarray(target)[:, 0]
    truth, p = one_hot(index, count), softmax(z)
    weight = valid
    if objective.class_weights is not None:
        table = np.asarray(objective.class_weights, np.float64)
        weight = valid * np.einsum("nkhw,k->nhw", one_hot(index, len(table)), table)[:, None]
    total = weight.sum() or 1.0
    share = objective.label_smoothing
    label = (1 - share) * truth + share / count
    loss = float((weight * label * -log_softmax(z)).sum() / total)
    slope = weight * (p * label.sum(1, keepdims=True) - label) / total
    if objective.dice:
        cells = (0, 2, 3)
        overlap, both = (p * truth * valid).sum(cells), (p * valid).sum(cells) + (truth * valid).sum(cells)
        upper, lower = 2 * overlap + 1, both + 1
        loss += objective.dice * float((1 - upper / lower).mean())
        each = lambda values: values[:, None, None]  # noqa: E731
        by_p = -valid * (2 * truth / each(lower) - each(upper / lower**2)) / count
        slope = slope + objective.dice * p * (by_p - (p * by_p).sum(1, keepdims=True))
    return loss, slope


def loss(spec, objective, weights, inputs, target, mask_weight, frozen=frozenset()):
    """Loss of a forward pass in training mode."""
    done = Pass(spec, weights, inputs, training=True, held=frozen)
    return loss_and_slope(objective, done.out.value, target, mask_weight)[0]


def loss_and_gradient(spec, objective, weights, inputs, target, mask_weight, frozen=frozenset()):
    """Loss, its gradient by the parameters that learn, and the running statistics after this pass of training.

    Batch norms whose weight is ``frozen`` hold their statistics; gradients of frozen parameters are given all the same.
    """
    done = Pass(spec, weights, inputs, training=True, held=frozen)
    value, slope = loss_and_slope(objective, done.out.value, target, mask_weight)
    found = gradients(done.out, slope)
    return value, {name: found[done.weights[name]] for name in spec.learning}, done.statistics


def multiply_adds(spec, weights, inputs):
    """Multiplications of the convolutions of a forward pass, each with its addition, counted as they are made."""
    return Pass(spec, weights, inputs).multiply_adds
