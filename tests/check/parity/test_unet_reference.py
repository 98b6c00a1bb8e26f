"""The float64 reference of the U-Net: its operations against SciPy, its gradient against finite differences, its losses
against sums done by hand, and what the spec says of the network (mirror, reach, work) against what the network does."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import ndimage, signal

from earthsr.models import CrossEntropyLoss, HuberLoss, L1Loss, MSELoss, OptimizerSpec, UNetSpec, initial_weights
from tests.reference import unet as reference
from tests.reference.gradients import adam

SMALL = UNetSpec(coarse_channels=2, static_channels=2, classes=3, width=4, depth=2, out_channels=2)
CONTINUOUS = dataclasses.replace(SMALL, head="continuous")
EVERYTHING = CrossEntropyLoss(class_weights=(1.0, 2.0, 0.5), label_smoothing=0.1, dice=0.5)
NODATA = 255

variants = pytest.mark.parametrize(
    "variant",
    [
        pytest.param(dict(norm=norm, upsampling=upsampling), id=f"{norm}-{upsampling}")
        for norm in ("batch", "group", "none")
        for upsampling in ("bilinear", "transposed")
    ],
)


def drawn_weights(spec, seed=0):
    """Weights without the ones and zeros that norms start from, running statistics included."""
    rng = np.random.default_rng(seed)
    weights = {name: value.astype(np.float64) for name, value in initial_weights(spec, seed, keep_zeros=False).items()}
    for name, value in weights.items():
        if name.endswith("running_mean"):
            weights[name] = rng.normal(0.0, 0.1, value.shape)
        if name.endswith("running_var"):
            weights[name] = rng.uniform(0.5, 2.0, value.shape)
    return weights


def drawn_inputs(spec, n=2, height=8, width=8, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = 3, 4
    inputs = {
        "coarse": rng.normal(size=(n, spec.coarse_channels, rows, columns)),
        "wy": rng.dirichlet(np.ones(rows), (n, height)),
        "wx": rng.dirichlet(np.ones(columns), (n, width)),
        "static": rng.normal(size=(n, spec.static_channels, height, width)),
        "scalars": rng.normal(size=(n, 3)),
    }
    if spec.prior:
        prior = rng.integers(0, spec.classes, (n, height, width))
        mask = (rng.random(prior.shape) > 0.2).astype(np.uint8)
        inputs |= {"prior": np.where(mask, prior, NODATA).astype(np.uint8), "prior_mask": mask}
    return inputs


def drawn_target(spec, n=2, height=8, width=8, seed=1):
    """Target, and validity times the weights of samples; of the last sample less counts."""
    rng = np.random.default_rng(seed)
    weight = (rng.random((n, 1, height, width)) > 0.2).astype(np.float64)
    weight[-1] *= 0.5
    if spec.head == "continuous":
        return rng.normal(size=(n, spec.out_channels, height, width)), weight
    target = rng.integers(0, spec.classes, weight.shape).astype(np.uint8)
    # Nodata that no mask covers: no class, so that of a smoothed label the even share alone is left.
    target[0, 0, 0, 0], weight[0, 0, 0, 0] = NODATA, 1.0
    return target, weight


def require_finite_differences(spec, objective):
    weights, (target, mask_weight) = drawn_weights(spec), drawn_target(spec)
    arguments = (drawn_inputs(spec), target, mask_weight)
    loss, gradient, _ = reference.loss_and_gradient(spec, objective, weights, *arguments)
    assert loss == reference.loss(spec, objective, weights, *arguments)
    assert tuple(gradient) == spec.learning
    rng = np.random.default_rng(0)
    step = 1e-7
    for name, slope in gradient.items():
        assert slope.shape == weights[name].shape
        direction = rng.normal(size=slope.shape)
        either = [
            reference.loss(spec, objective, {**weights, name: weights[name] + amount * direction}, *arguments)
            for amount in (step, -step)
        ]
        # Central differences: an error of the order of step**2 and 1e-16 / step. The step is short because a ReLU or a
        # maximum that turns in between counts for more.
        expected = (either[0] - either[1]) / (2 * step)
        assert (slope * direction).sum() == pytest.approx(expected, rel=1e-5, abs=1e-8), name


@variants
def test_gradients_of_cross_entropy_are_what_finite_differences_show(variant):
    require_finite_differences(dataclasses.replace(SMALL, **variant), EVERYTHING)


@variants
def test_gradients_of_huber_are_what_finite_differences_show(variant):
    require_finite_differences(dataclasses.replace(CONTINUOUS, **variant), HuberLoss(0.7))


@pytest.mark.parametrize(
    ("spec", "objective"),
    [
        pytest.param(CONTINUOUS, MSELoss(), id="mse"),
        pytest.param(CONTINUOUS, L1Loss(), id="l1"),
        pytest.param(SMALL, CrossEntropyLoss(), id="cross-entropy"),
        pytest.param(SMALL, CrossEntropyLoss(class_weights=(1.0, 2.0, 0.5)), id="class-weights"),
        pytest.param(SMALL, CrossEntropyLoss(label_smoothing=0.1), id="label-smoothing"),
        pytest.param(SMALL, CrossEntropyLoss(dice=1.0), id="dice"),
        pytest.param(dataclasses.replace(SMALL, prior=False, norm_groups=2), EVERYTHING, id="no-prior"),
    ],
)
def test_gradients_of_other_objectives_are_what_finite_differences_show(spec, objective):
    require_finite_differences(dataclasses.replace(spec, norm="group", depth=1), objective)


def test_operations_are_what_scipy_computes():
    """A gradient can be true to a wrong operation; these are checked on their own."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 2, 4, 6))
    node = reference.Node(x)

    for side in (1, 3):
        kernel = rng.normal(size=(3, 2, side, side))
        expected = [sum(signal.correlate2d(x[0, i], own[i], mode="same") for i in range(2)) for own in kernel]
        np.testing.assert_allclose(reference.convolve(node, reference.Node(kernel)).value[0], expected, atol=1e-12)

    # Each cell puts its multiple of the kernel down: a full convolution of the cells with holes in between.
    holes = np.zeros((2, 8, 12))
    holes[:, ::2, ::2] = x[0]
    kernel = rng.normal(size=(2, 3, 2, 2))
    expected = [sum(signal.convolve2d(holes[i], kernel[i, o])[:8, :12] for i in range(2)) for o in range(3)]
    np.testing.assert_allclose(reference.spread(node, reference.Node(kernel)).value[0], expected, atol=1e-12)

    grid = np.meshgrid((np.arange(8) + 0.5) / 2 - 0.5, (np.arange(12) + 0.5) / 2 - 0.5, indexing="ij")
    expected = [ndimage.map_coordinates(own, grid, order=1, mode="nearest") for own in x[0]]
    np.testing.assert_allclose(reference.double(node).value[0], expected, atol=1e-12)

    expected = ndimage.maximum_filter(x, (1, 1, 2, 2), origin=(0, 0, -1, -1))[:, :, ::2, ::2]
    np.testing.assert_array_equal(reference.pool(node).value, expected)


def test_of_equal_cells_the_first_in_row_major_order_has_the_gradient():
    x = reference.Node(np.array([[[[1.0, 2.0, 5.0, 5.0], [2.0, 2.0, 5.0, 5.0]]]]))
    pooled = reference.pool(x)
    np.testing.assert_array_equal(pooled.value, [[[[2.0, 5.0]]]])
    found = reference.gradients(pooled, np.array([[[[3.0, 7.0]]]]))[x]
    np.testing.assert_array_equal(found, [[[[0.0, 3.0, 7.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]])


def test_fusing_puts_every_input_into_its_channels():
    spec = dataclasses.replace(SMALL, classes=2)
    inputs = {
        "coarse": np.array([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 8.0]]]], np.float32),
        "wy": np.array([[[1.0, 0.0], [0.5, 0.5]]], np.float32),
        "wx": np.array([[[1.0, 0.0], [0.25, 0.75]]], np.float32),
        "static": np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2),
        # A class of a cell that is not known does not count, nor does one that is none.
        "prior": np.array([[[0, 1], [1, NODATA]]], np.uint8),
        "prior_mask": np.array([[[1, 1], [0, 1]]], np.uint8),
        "scalars": np.array([[0.5, 1.0, -1.0]], np.float32),
    }
    expected = [
        [[1.0, 1.75], [2.0, 2.75]],
        [[0.0, 0.0], [0.0, 3.0]],
        [[0, 1], [2, 3]],
        [[4, 5], [6, 7]],
        [[1, 0], [0, 0]],
        [[0, 1], [0, 0]],
        [[1, 1], [0, 1]],
        np.full((2, 2), 0.5),
        np.full((2, 2), 1.0),
        np.full((2, 2), -1.0),
    ]
    np.testing.assert_array_equal(reference.fuse(spec, inputs)[0], expected)


@variants
def test_layers_follow_from_one_another(variant):
    """Skips come before what is enlarged; blocks give what their last ReLU gives; the head has no ReLU."""
    spec = dataclasses.replace(SMALL, **variant)
    weights = drawn_weights(spec)
    seen = {name: reference.Node(value) for name, value in reference.layers(spec, weights, drawn_inputs(spec)).items()}

    def require(name, expected, weight=None):
        if f"{weight}.bias" in weights:
            expected = expected + weights[f"{weight}.bias"][:, None, None]
        np.testing.assert_allclose(seen[name].value, expected, atol=1e-12, err_msg=name)

    def convolved(name, x):
        require(name, reference.convolve(x, reference.Node(weights[f"{name}.weight"])).value, name)

    normed = "norm" if spec.norm != "none" else "conv"
    convolved("down.0.conv1", seen["fuse"])
    convolved("down.1.conv1", reference.pool(seen["down.0"]))
    convolved("middle.conv1", reference.pool(seen["down.1"]))
    for level, below in ((1, "middle"), (0, "up.1")):
        name = f"up.{level}.enlarge"
        kernel = reference.Node(weights[f"{name}.conv.weight"])
        if spec.upsampling == "transposed":
            enlarged = reference.spread(seen[below], kernel)
        else:
            enlarged = reference.convolve(reference.double(seen[below]), kernel)  # either order gives the same
        require(name, enlarged.value, f"{name}.conv")
        both = np.concatenate([seen[f"down.{level}"].value, seen[name].value], 1)
        convolved(f"up.{level}.conv1", reference.Node(both))
    for block in ("down.0", "down.1", "middle", "up.1", "up.0"):
        inner = np.maximum(seen[f"{block}.{normed}1"].value, 0)
        convolved(f"{block}.conv2", reference.Node(inner))
        require(block, np.maximum(seen[f"{block}.{normed}2"].value, 0))
    convolved("out", seen["up.0"])
    shares = np.exp(seen["out"].value)
    require("output", shares / shares.sum(1, keepdims=True))


def constant_network(shares):
    """A network whose probabilities are ``shares`` everywhere, whatever it sees."""
    spec = dataclasses.replace(SMALL, classes=len(shares), depth=1, norm="none")
    weights = {name: np.zeros_like(value) for name, value in initial_weights(spec, 0).items()}
    weights["out.bias"] = np.log(shares)
    return spec, weights


def test_cross_entropy_with_nodata_is_what_a_hand_sums():
    spec, weights = constant_network([1 / 8, 2 / 8, 5 / 8])
    inputs = drawn_inputs(spec, n=2, height=2, width=2)
    # The second sample counts half; one cell of each sample has no data.
    target = np.array([[[[0, 1], [2, NODATA]]], [[[0, 0], [NODATA, 1]]]], np.uint8)
    mask_weight = np.array([[[[1, 1], [1, 0]]], [[[0.5, 0.5], [0, 0.5]]]])

    def computed(objective):
        loss, gradient, statistics = reference.loss_and_gradient(spec, objective, weights, inputs, target, mask_weight)
        assert statistics == {}
        return loss, gradient["out.bias"]

    # Weights by class: 0 has 1 + 0.5 + 0.5, 1 has 1 + 0.5, 2 has 1; 4.5 in all.
    loss, slope = computed(CrossEntropyLoss())
    assert loss == pytest.approx((2 * math.log(8) + 1.5 * math.log(4) + math.log(8 / 5)) / 4.5, rel=1e-14)
    np.testing.assert_allclose(slope, np.array([1 / 8, 2 / 8, 5 / 8]) - np.array([2, 1.5, 1]) / 4.5, rtol=1e-13)

    # Class weights 1, 2, 4: 2, 3 and 4; 9 in all.
    loss, slope = computed(CrossEntropyLoss(class_weights=(1.0, 2.0, 4.0)))
    assert loss == pytest.approx((2 * math.log(8) + 3 * math.log(4) + 4 * math.log(8 / 5)) / 9, rel=1e-14)
    np.testing.assert_allclose(slope, np.array([1 / 8, 2 / 8, 5 / 8]) - np.array([2, 3, 4]) / 9, rtol=1e-13)

    # Three tenths of a label are spread over three classes: 0.7 + 0.1 for the truth, 0.1 for each other.
    loss, slope = computed(CrossEntropyLoss(label_smoothing=0.3))
    each = [0.7 * own + 0.1 * 4.5 for own in (2, 1.5, 1)]
    assert loss == pytest.approx(
        (each[0] * math.log(8) + each[1] * math.log(4) + each[2] * math.log(8 / 5)) / 4.5, rel=1e-14
    )
    np.testing.assert_allclose(slope, np.array([1 / 8, 2 / 8, 5 / 8]) - np.array(each) / 4.5, rtol=1e-13)

    # Dice over the same 4.5 cells, whatever the class weights are.
    dice = 1 - np.mean(
        [
            (2 * 2 / 8 + 1) / (4.5 / 8 + 2 + 1),
            (2 * 1.5 / 4 + 1) / (4.5 / 4 + 1.5 + 1),
            (2 * 5 / 8 + 1) / (4.5 * 5 / 8 + 1 + 1),
        ]
    )
    classes = (1.0, 2.0, 4.0)
    added = computed(CrossEntropyLoss(classes, dice=0.5))[0] - computed(CrossEntropyLoss(classes))[0]
    assert added == pytest.approx(0.5 * dice, rel=1e-12)


@pytest.mark.parametrize(
    ("objective", "losses"),
    [(MSELoss(), (0.25, 4.0)), (L1Loss(), (0.5, 2.0)), (HuberLoss(1.5), (0.125, 1.5 * (2 - 0.75)))],
    ids=["mse", "l1", "huber"],
)
def test_losses_of_values_are_what_a_hand_sums(objective, losses):
    spec = dataclasses.replace(CONTINUOUS, depth=1, norm="none")
    weights = {name: np.zeros_like(value) for name, value in initial_weights(spec, 0).items()}
    weights["out.bias"] = np.array([0.5, -2.0])
    target = np.zeros((1, 2, 2, 2))
    target[..., 1, 1] = 1e6
    mask_weight = np.array([[[[1.0, 0.5], [1.0, 0.0]]]])
    loss, _, _ = reference.loss_and_gradient(spec, objective, weights, drawn_inputs(spec, 1, 2, 2), target, mask_weight)
    assert loss == pytest.approx(sum(losses) / 2, rel=1e-14)


def test_cells_without_data_change_nothing():
    weights, inputs = drawn_weights(SMALL), drawn_inputs(SMALL)
    target, mask_weight = drawn_target(SMALL)
    other = np.where(mask_weight > 0, target, NODATA)
    assert (other != target).any()
    one = reference.loss_and_gradient(SMALL, EVERYTHING, weights, inputs, target, mask_weight)
    two = reference.loss_and_gradient(SMALL, EVERYTHING, weights, inputs, other, mask_weight)
    assert one[0] == two[0]
    for name in SMALL.learning:
        np.testing.assert_array_equal(one[1][name], two[1][name])


def test_a_batch_without_data_has_no_loss_and_no_gradient():
    target, mask_weight = drawn_target(SMALL)
    loss, gradient, _ = reference.loss_and_gradient(
        SMALL,
        CrossEntropyLoss((1.0, 2.0, 0.5), 0.1),
        drawn_weights(SMALL),
        drawn_inputs(SMALL),
        np.full_like(target, NODATA),
        0 * mask_weight,
    )
    assert loss == 0
    assert all((slope == 0).all() for slope in gradient.values())


def test_batch_norm_learns_its_statistics_and_predicts_by_them():
    weights, inputs = drawn_weights(SMALL), drawn_inputs(SMALL, n=3)
    target, mask_weight = drawn_target(SMALL, n=3)
    predicting = reference.layers(SMALL, weights, inputs)
    training = reference.layers(SMALL, weights, inputs, training=True)
    _, _, after = reference.loss_and_gradient(SMALL, EVERYTHING, weights, inputs, target, mask_weight)
    assert set(after) == set(weights) - set(SMALL.learning)

    # The first convolution sees the same either way.
    name = "down.0.norm1"
    values = training["down.0.conv1"].transpose(1, 0, 2, 3).reshape(4, -1)
    np.testing.assert_array_equal(predicting["down.0.conv1"], training["down.0.conv1"])
    old = {key: weights[f"{name}.running_{key}"] for key in ("mean", "var")}
    cells = 3 * 8 * 8
    np.testing.assert_allclose(after[f"{name}.running_mean"], 0.9 * old["mean"] + 0.1 * values.mean(1))
    unbiased = values.var(1) * cells / (cells - 1)
    np.testing.assert_allclose(after[f"{name}.running_var"], 0.9 * old["var"] + 0.1 * unbiased)

    for seen, mean, variance in (
        (predicting, old["mean"], old["var"]),
        (training, values.mean(1), values.var(1)),
    ):
        normal = (values - mean[:, None]) / np.sqrt(variance + 1e-5)[:, None]
        expected = normal * weights[f"{name}.weight"][:, None] + weights[f"{name}.bias"][:, None]
        np.testing.assert_allclose(seen[name].transpose(1, 0, 2, 3).reshape(4, -1), expected, atol=1e-12)


def test_frozen_batch_norms_hold_their_statistics():
    weights, inputs = drawn_weights(SMALL), drawn_inputs(SMALL)
    target, mask_weight = drawn_target(SMALL)
    frozen = SMALL.select(["down"])
    _, gradient, after = reference.loss_and_gradient(
        SMALL, EVERYTHING, weights, inputs, target, mask_weight, frozen=frozen
    )
    assert tuple(gradient) == SMALL.learning
    for name, value in after.items():
        assert (value == weights[name]).all() == (name in frozen), name


def test_group_norm_has_as_many_groups_as_features_allow():
    spec = dataclasses.replace(SMALL, norm="group", norm_groups=8)
    weights = drawn_weights(spec)
    for name in weights:
        if ".norm" in name:
            weights[name] = np.full_like(weights[name], float(name.endswith("weight")))
    seen = reference.layers(spec, weights, drawn_inputs(spec))
    for block, features in (("down.0", 4), ("down.1", 8), ("middle", 16), ("up.0", 4)):
        groups = min(8, features)
        values, before = (seen[f"{block}.{layer}"].reshape(2, groups, -1) for layer in ("norm1", "conv1"))
        np.testing.assert_allclose(values.mean(-1), 0, atol=1e-12)
        variance = before.var(-1)
        np.testing.assert_allclose(values.var(-1), variance / (variance + 1e-5), rtol=1e-9)


def test_adam_takes_the_gradient_of_what_learns():
    weights = drawn_weights(SMALL)
    learning = {name: weights[name] for name in SMALL.learning}
    zeros = {name: np.zeros_like(value) for name, value in learning.items()}
    target, mask_weight = drawn_target(SMALL)
    losses = []
    first, second = zeros, zeros
    for step in range(1, 4):
        loss, gradient, after = reference.loss_and_gradient(
            SMALL, EVERYTHING, {**weights, **learning}, drawn_inputs(SMALL), target, mask_weight
        )
        learning, first, second = adam(OptimizerSpec(), learning, first, second, gradient, 1e-3, step)
        weights |= after
        losses.append(loss)
    assert losses[0] > losses[1] > losses[2]


@variants
@pytest.mark.parametrize("spec", [SMALL, dataclasses.replace(CONTINUOUS, prior=False)], ids=["classes", "continuous"])
def test_the_mirrored_network_computes_the_same_in_exact_arithmetic(variant, spec):
    """The symmetry behind the own noise: transposed weights on transposed inputs give transposed layers."""
    spec = dataclasses.replace(spec, **variant)
    weights, inputs = drawn_weights(spec), drawn_inputs(spec, height=8, width=16)  # not square: rows are no columns
    mirrored, turned_inputs = spec.transpose_weights(weights), spec.transpose_inputs(inputs)
    for key, value in spec.transpose_weights(mirrored).items():
        np.testing.assert_array_equal(value, weights[key])
    for key, value in spec.transpose_inputs(turned_inputs).items():
        np.testing.assert_array_equal(value, inputs[key])
    spec.require_shapes(turned_inputs)
    straight, turned = reference.layers(spec, weights, inputs), reference.layers(spec, mirrored, turned_inputs)
    assert set(straight) == {*spec.layers, "output"}
    for key, value in straight.items():
        back = spec.transpose_layer(key, turned[key])
        # Float64 sums in another order.
        np.testing.assert_allclose(back, value, atol=1e-12 * np.abs(value).max(), err_msg=key)

    target, mask_weight = drawn_target(spec, height=8, width=16)
    objective = EVERYTHING if spec.head == "classes" else HuberLoss(0.7)
    one = reference.loss_and_gradient(spec, objective, weights, inputs, target, mask_weight)
    two = reference.loss_and_gradient(
        spec, objective, mirrored, turned_inputs, target.swapaxes(-1, -2), mask_weight.swapaxes(-1, -2)
    )
    assert one[0] == pytest.approx(two[0], rel=1e-12)
    largest = max(np.abs(value).max() for value in one[1].values())
    for key, value in spec.transpose_weights(two[1]).items():
        np.testing.assert_allclose(value, one[1][key], atol=1e-12 * largest, err_msg=key)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_receptive_radius_is_what_a_perturbation_reaches(norm, upsampling, depth):
    spec = dataclasses.replace(
        CONTINUOUS, static_channels=1, prior=False, width=1, depth=depth, norm=norm, upsampling=upsampling
    )
    # Positive weights and inputs keep every ReLU open, so that nothing hides there.
    weights = {name: np.abs(value) + 0.1 for name, value in drawn_weights(spec).items()}
    for name, value in weights.items():
        if name.endswith("running_mean"):
            weights[name] = np.zeros_like(value)
    radius, period = spec.receptive_radius, spec.multiple
    # Whole periods on each side that take more than the radius, and one in which the perturbed cell lies.
    margin = period * (radius // period + 1)
    size = 2 * margin + period
    inputs = drawn_inputs(spec, n=period + 1, height=size, width=size)
    inputs = {name: np.ones_like(value) for name, value in inputs.items()}
    # On the diagonal: rows and columns each take all places of a period. The step is far larger than what differs
    # between cells (near the edges, where zeros are padded), so that each maximum over four cells shows it.
    cells = margin + np.arange(period)
    inputs["static"][np.arange(period), 0, cells, cells] += 1e6
    out = reference.layers(spec, weights, inputs)["output"]
    # Of the last sample nothing is perturbed.
    changed = (np.abs(out[:-1] - out[-1:]) > 1e-9 * np.abs(out[-1:])).any(1)
    reach = 0
    for cell, own in zip(cells, changed, strict=True):
        rows, columns = np.nonzero(own)
        reach = max(reach, cell - rows.min(), rows.max() - cell, cell - columns.min(), columns.max() - cell)
    assert reach == radius


@variants
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_flops_are_the_multiply_adds_of_a_forward_pass(variant, depth):
    spec = dataclasses.replace(SMALL, depth=depth, **variant)
    inputs = drawn_inputs(spec, n=1, height=8, width=16)
    assert spec.flops(8, 16) == 2 * reference.multiply_adds(spec, drawn_weights(spec), inputs)
