"""What an engine has to do with a U-Net, on every backend: structured inputs, class losses, fed-back maps, norms."""

import dataclasses

import numpy as np
import pytest

from earthsr.data.batch import Earlier
from earthsr.errors import BackendError
from earthsr.landuse.tile_task import synthetic_tiles
from earthsr.models import CrossEntropyLoss, MSELoss, OptimizerSpec, Precision, State, UNetSpec, initial_weights
from tests.conftest import backend_parameters
from tests.reference import unet as reference

SPEC = UNetSpec(coarse_channels=3, static_channels=2, classes=4, width=4, depth=1)
RATE = [1e-3]

#: MindSpore compiles a graph for each: the quick run leaves them to PyTorch.
every_backend = pytest.mark.parametrize(
    "backend_name",
    [
        pytest.param(*p.values, marks=[*p.marks, pytest.mark.slow] if p.values[0] == "mindspore" else p.marks)
        for p in backend_parameters()
    ],
)


def engine_of(name, spec=SPEC, level="O0", **options):
    from earthsr.backend import get_backend

    return get_backend(name).engine(
        spec, initial_weights(spec, 0, keep_zeros=False), device="cpu", precision=Precision(level), **options
    )


def batches_of(spec=SPEC, count=1, samples=3):
    return synthetic_tiles(spec, 8, samples, count).batches


def fed_back(batch, own, **fields):
    """A batch whose samples are to start from the model's own map of a step before."""
    earlier = {name: batch.inputs[name] for name in ("coarse", "prior", "prior_mask", "scalars")} | fields
    return dataclasses.replace(batch, earlier=Earlier(earlier, np.array(own, np.float32)))


@every_backend
def test_predictions_are_probabilities_of_the_reference(backend_name):
    batch = batches_of()[0]
    engine = engine_of(backend_name)
    found = engine.submit(batch.inputs).result()
    weights = {name: value.astype(np.float64) for name, value in engine.export_state().weights.items()}
    np.testing.assert_allclose(found, reference.layers(SPEC, weights, batch.inputs)["output"], atol=2e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


@every_backend
def test_invalid_cells_and_padding_count_in_no_loss(backend_name):
    batch = batches_of()[0]
    weight = np.array([1, 1, 0], np.float32)
    wild = np.where(batch.mask > 0, batch.target, 3).astype(np.uint8)
    wild[2] = 3 - wild[2] % 4

    def loss(target, **changes):
        engine = engine_of(backend_name)
        engine.prepare_training(CrossEntropyLoss((1.0, 2.0, 0.5, 1.0), 0.1, 0.5), OptimizerSpec())
        return engine.run([dataclasses.replace(batch, target=target, **changes)], RATE).result().losses[0]

    masked = loss(batch.target, sample_weight=weight)
    assert loss(wild, sample_weight=weight) == masked
    assert loss(wild) != masked, "the third sample counts where its weight says so"


@every_backend
def test_the_own_map_of_an_earlier_step_takes_the_place_of_the_prior(backend_name):
    """The first pass has no gradient and leaves running statistics alone: only its classes count."""
    now, other = batches_of(count=2)
    batch = fed_back(now, [1, 0, 1], prior=other.inputs["prior"], scalars=other.inputs["scalars"])
    engine = engine_of(backend_name)
    first = engine.submit({**now.inputs, **batch.earlier.inputs}).result().argmax(axis=1)
    prior = now.inputs["prior"].copy()
    for sample in (0, 2):
        prior[sample] = np.where(prior[sample] < SPEC.classes, first[sample], prior[sample])
    assert (prior != now.inputs["prior"]).mean() > 0.1
    by_hand = dataclasses.replace(now, inputs={**now.inputs, "prior": prior})
    results = []
    for given in (batch, by_hand):
        engine = engine_of(backend_name)
        engine.prepare_training(CrossEntropyLoss(), OptimizerSpec())
        loss = engine.run([given], RATE).result().losses[0]
        results.append((loss, engine.export_state()))
    assert results[0][0] == results[1][0]
    for name, value in results[0][1].weights.items():
        np.testing.assert_array_equal(value, results[1][1].weights[name], err_msg=name)
    # And batches that feed back may follow others that do not.
    engine.run([by_hand, batch], RATE * 2).result()


@every_backend
def test_running_statistics_move_in_training_alone_and_travel_in_the_state(backend_name):
    batch = batches_of()[0]
    engine = engine_of(backend_name)
    engine.submit(batch.inputs).result()
    before = engine.export_state().weights
    np.testing.assert_array_equal(before["down.0.norm1.running_mean"], 0)
    engine.prepare_training(CrossEntropyLoss(), OptimizerSpec())
    engine.run([batch], RATE).result()
    state = engine.export_state()
    assert np.abs(state.weights["down.0.norm1.running_mean"]).max() > 1e-3
    assert "down.0.norm1.running_mean" not in state.first_moments
    assert set(state.first_moments) == set(SPEC.learning)
    other = engine_of(backend_name)
    other.load_state(State(state.weights))
    np.testing.assert_array_equal(other.submit(batch.inputs).result(), engine.submit(batch.inputs).result())


@every_backend
def test_frozen_levels_keep_weights_and_statistics(backend_name):
    batch = batches_of()[0]
    engine = engine_of(backend_name)
    frozen = SPEC.select(["down"])
    engine.prepare_training(CrossEntropyLoss(), OptimizerSpec(frozen=frozen))
    before = engine.export_state().weights
    engine.run([batch] * 2, RATE * 2).result()
    after = engine.export_state().weights
    for name, value in after.items():
        same = np.array_equal(value, before[name])
        assert same == (name in frozen), name


@every_backend
@pytest.mark.parametrize("level", ["O2", "O3"])
def test_low_precision_stays_close_and_norms_stay_wide(backend_name, level):
    batch = batches_of()[0]
    exact = engine_of(backend_name).submit(batch.inputs).result()
    engine = engine_of(backend_name, level=level)
    # bfloat16 has 8 bits, float16 11; a handful of layers add their roundings.
    np.testing.assert_allclose(engine.submit(batch.inputs).result(), exact, atol=0.06)
    engine.prepare_training(CrossEntropyLoss(), OptimizerSpec())
    losses = engine.run([batch] * 8, [1e-2] * 8).result().losses
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    weights = engine.export_state().weights
    assert all(value.dtype == np.float32 for value in weights.values())
    assert np.abs(weights["down.0.norm1.running_mean"]).max() > 1e-3


@every_backend
def test_what_does_not_suit_is_refused_with_the_reason(backend_name):
    engine, batch = engine_of(backend_name), batches_of()[0]
    with pytest.raises(BackendError, match="logits of classes"):
        engine.prepare_training(MSELoss(), OptimizerSpec())
    with pytest.raises(BackendError, match="accumulate"):
        engine.prepare_training(CrossEntropyLoss(dice=1.0), OptimizerSpec(), accumulate=2)
    with pytest.raises(BackendError, match="3 class weights, this model has 4"):
        engine.prepare_training(CrossEntropyLoss((1.0, 1.0, 1.0)), OptimizerSpec())
    with pytest.raises(BackendError, match=r"wy.*expected \(N, 8, 4\)"):
        engine.submit({**batch.inputs, "wy": batch.inputs["wy"][:, :, :3]})
    odd = {k: v[..., :7] if k == "static" else v for k, v in batch.inputs.items()}
    with pytest.raises(BackendError, match=r"8 x 7 cells.*multiples of 2"):
        engine.submit(odd)
    with pytest.raises(BackendError, match="inputs are"):
        engine.submit({k: v for k, v in batch.inputs.items() if k != "prior"})


@every_backend
def test_accumulated_batches_equal_one(backend_name):
    """With norms that look at single samples: batch norm sees what a pass sees."""
    spec = dataclasses.replace(SPEC, norm="group", norm_groups=2)
    whole = batches_of(spec, samples=4)[0]

    def part(batch, start):
        cut = slice(start, start + 2)
        fields = {name: value[cut] for name, value in batch.inputs.items()}
        return dataclasses.replace(
            batch, inputs=fields, target=batch.target[cut], mask=batch.mask[cut], sample_weight=batch.sample_weight[cut]
        )

    results = []
    for given, accumulate in (([whole], 1), ([part(whole, 0), part(whole, 2)], 2)):
        engine = engine_of(backend_name, spec)
        engine.prepare_training(CrossEntropyLoss((1.0, 2.0, 0.5, 1.0)), OptimizerSpec(beta1=0.0), accumulate=accumulate)
        loss = engine.run(given, [0.0]).result().losses[0]
        results.append((loss, engine.export_state().first_moments))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    for name, value in results[0][1].items():
        np.testing.assert_allclose(value, results[1][1][name], atol=2e-6 * np.abs(value).max() + 1e-9, err_msg=name)


@every_backend
@pytest.mark.parametrize("first", [True, False])
def test_accumulated_batches_may_feed_back_each_for_itself(backend_name, first):
    """What a batch without an earlier step starts from is its own prior, whatever its neighbour does."""
    spec = dataclasses.replace(SPEC, norm="none")
    one, two, other = batches_of(spec, count=3)
    earlier = dict(prior=other.inputs["prior"], scalars=other.inputs["scalars"])
    given = [fed_back(one, [1, 0, 1], **earlier), two] if first else [two, fed_back(one, [1, 0, 1], **earlier)]
    engine = engine_of(backend_name, spec)
    inputs = {**one.inputs, **earlier}
    classes = engine.submit(inputs).result().argmax(axis=1)
    prior = one.inputs["prior"].copy()
    for sample in (0, 2):
        prior[sample] = np.where(prior[sample] < spec.classes, classes[sample], prior[sample])
    by_hand = dataclasses.replace(one, inputs={**one.inputs, "prior": prior})
    losses = []
    for batches in (given, [by_hand, two] if first else [two, by_hand], [one, two] if first else [two, one]):
        engine = engine_of(backend_name, spec)
        engine.prepare_training(CrossEntropyLoss(), OptimizerSpec(), accumulate=2)
        losses.append(engine.run(batches, [0.0]).result().losses[0])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_a_loss_of_pytorch_itself_sees_classes_with_invalid_cells_marked():
    torch = pytest.importorskip("torch")
    batch = batches_of()[0]
    losses = []
    for objective in (torch.nn.CrossEntropyLoss(), CrossEntropyLoss()):
        engine = engine_of("torch")
        engine.prepare_training(objective, OptimizerSpec())
        losses.append(engine.run([batch], RATE).result().losses[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
