"""Tiled prediction against prediction in one piece, on every backend that is installed."""

import numpy as np
import pytest

from earthsr.backend import Model
from earthsr.data.normalise import Normalisation
from earthsr.data.samples import restore, transform
from earthsr.dem.predict import plan as module
from earthsr.dem.predict.enlarge import enlarge
from earthsr.dem.predict.plan import PredictOptions, make_plan, survey
from earthsr.errors import DataError, InputError
from earthsr.geo import Georeference, MemorySink, Window, array_source
from earthsr.models import DemSRNetSpec

#: Float32 rounds at 6e-8 of a value; sums of 54 products, seven layers deep, in another order for windows of another
#: shape, lose up to some 20 times that (1.4e-6 was seen). Metres, for fields that span 10 km.
ROUNDING_M = 4e-6 * 10_000


def spec_of(**fields):
    return DemSRNetSpec(**{"scale": 3, "features": 6, "num_blocks": 2, **fields})


def model_of(backend, seed=0, kind="patch", **fields):
    """A small model with weights that do something (a residual network starts as zero)."""
    spec = spec_of(**fields)
    rng = np.random.default_rng(seed)
    weights = {p.name: (rng.normal(size=p.shape) * (p.fan_in**-0.5)).astype(np.float32) for p in spec.parameters}
    normalisation = Normalisation(kind, 1500.0 if kind == "global" else 0.0, 250.0)
    return Model(spec, weights, {"normalisation": normalisation.to_dict()}, backend=backend)


def hills(rows, columns, seed=0, height=2000.0):
    rng = np.random.default_rng(seed)
    field = rng.normal(size=(rows, columns)).cumsum(axis=0).cumsum(axis=1)
    field = (field - field.mean()) / max(field.std(), 1e-9)
    return (height + 400 * field).astype(np.float32)


def source_of(values, name="made"):
    rows, columns = values.shape
    return array_source(values, Georeference(7.0, 47.0, 0.004, 0.004, rows, columns), name)


def run(models, values, options=None, bbox=None, offset=None):
    source = source_of(values)
    plan = make_plan(models if isinstance(models, list) else [models], source, options, bbox)
    sink = MemorySink(plan.output, plan.bands)
    if offset is None:
        offset = survey(source).mean
    return sink.values, enlarge(plan, sink, offset), plan


def in_one_piece(model, values):
    return model.submit(values[None, None]).result()[0, 0]


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of which a small raster has several."""
    monkeypatch.setattr(module, "CHUNK", 16)
    monkeypatch.setattr(module, "SAMPLE_CELLS", 8)


VARIANTS = {
    "plain": {},
    "bicubic": {"residual_over": "bicubic"},
    "conservative, local mean": {"residual_over": "conservative", "local_mean": 3},
    "asymmetric": {"resize": "asymmetric", "global_skip": "input"},
    "means kept, fine head": {"residual_over": "mean_preserving", "fine_features": 3, "upsampler": "pixel_shuffle"},
    "pixel shuffle": {"upsampler": "pixel_shuffle", "bias": True},
}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("variant", "kind"), list(zip(VARIANTS, ["patch", "global", "patch", "global", "patch", "patch"], strict=True))
)
def test_exact_equals_one_piece(backend, variant, kind):
    # Low relief: weights that were never trained overshoot, and what is no elevation would be refused.
    values = 2000 + (hills(97, 113) - 2000) / 4
    values[4:9, 10:16] = np.nan
    values[30, 30] = np.nan
    values[:, 112] = np.nan
    model = model_of(backend, kind=kind, **VARIANTS[variant])
    found, outcome, plan = run(model, values, PredictOptions("exact", tile=16))
    assert len(plan.chunks) == 56
    assert plan.tiles.shape[0] < 97  # there is something to cut
    expected = in_one_piece(model, values)
    void = np.isnan(values).repeat(3, axis=0).repeat(3, axis=1)
    np.testing.assert_array_equal(np.isnan(found[0]), void)
    assert np.abs(found[0] - expected)[~void].max() < ROUNDING_M * max(np.ptp(expected) / 10_000, 1)
    assert outcome.valid == (~void).sum()
    assert outcome.minimum == pytest.approx(float(np.nanmin(found)))


def test_a_halo_too_small_would_show(any_backend, small_chunks, monkeypatch):
    # What the test above would see if the receptive radius were one cell less than it is.
    values = hills(97, 113)
    model = model_of(any_backend)
    monkeypatch.setattr(module, "halo_of", lambda group: model.spec.receptive_radius - 1)
    found, _, _ = run(model, values, PredictOptions("exact", tile=16))
    assert np.abs(found[0] - in_one_piece(model, values)).max() > ROUNDING_M


@pytest.mark.parametrize("mode", ["exact", "gaussian"])
def test_what_is_taken_off_a_raster_does_not_matter_to_local_means(any_backend, mode):
    # Not beside a void either, however wide: what is not filled of it stands at the offset, out of reach of any value.
    values = hills(110, 110)
    values[20:90, 20:90] = np.nan
    model = model_of(any_backend, residual_over="conservative", local_mean=8)
    fields = [run(model, values, PredictOptions(mode, tile=32), offset=offset)[0][0] for offset in (500.0, 3000.0)]
    valid = np.isfinite(fields[0])
    assert np.abs(fields[0] - fields[1])[valid].max() < ROUNDING_M


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (40, 2), (17, 17)])
@pytest.mark.parametrize("mode", ["exact", "gaussian"])
def test_rasters_smaller_than_a_tile(any_backend, shape, mode):
    values = hills(*shape)
    model = model_of(any_backend, residual_over="bicubic")
    found, _, _ = run(model, values, PredictOptions(mode))
    expected = in_one_piece(model, values)
    # One Gaussian window holds the raster: nothing is blended.
    np.testing.assert_allclose(found[0], expected, atol=ROUNDING_M)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    "options",
    [PredictOptions("exact", tile=9), PredictOptions(tile=12, overlap=0.4), PredictOptions(conserve=True, tile=12)],
)
def test_a_box_is_cut_from_the_whole(any_backend, options):
    values = hills(41, 53)
    model = model_of(any_backend, residual_over="bicubic")
    whole, _, _ = run(model, values, options)
    bbox = (7.0 + 10 * 0.004, 47.0 - 30 * 0.004, 7.0 + 37 * 0.004, 47.0 - 5 * 0.004)
    part, _, plan = run(model, values, options, bbox)
    assert plan.wanted == Window(5, 10, 25, 27)
    assert plan.output.bounds == pytest.approx(bbox)
    np.testing.assert_allclose(part, whole[:, 15:90, 30:111], atol=ROUNDING_M)


@pytest.mark.usefixtures("small_chunks")
def test_gaussian_says_how_far_it_is_from_exact(any_backend):
    values = hills(41, 53)
    model = model_of(any_backend, residual_over="bicubic")
    blended, outcome, _ = run(model, values, PredictOptions(tile=16, overlap=0.5, compare=True))
    exact, _, _ = run(model, values, PredictOptions("exact"))
    largest = np.abs(blended - exact).max()
    assert outcome.difference == pytest.approx(largest, rel=1e-3)
    assert largest > 10 * ROUNDING_M
    assert outcome.compared == 41 * 53
    _, sampled, _ = run(model, values, PredictOptions(tile=16, overlap=0.5))
    assert 0 < sampled.difference <= largest * 1.001
    assert 0 < sampled.compared < 41 * 53


@pytest.mark.usefixtures("small_chunks")
def test_comparing_takes_no_more_memory_than_a_window_of_the_exact_mode(any_backend, monkeypatch):
    # Small windows go in large batches; exact ones, which are larger by their halo, shall not be padded to these.
    shapes = []
    submit = Model.submit

    def watched(self, coarse, pad_to=None, offset=None):
        shapes.append((offset is not None, pad_to or len(coarse), *coarse.shape[-2:]))
        return submit(self, coarse, pad_to, offset)

    monkeypatch.setattr(Model, "submit", watched)
    _, outcome, plan = run(model_of(any_backend), hills(64, 64), PredictOptions(tile=4, overlap=0.5))
    assert plan.batch_size > 8
    exact = {(size, rows, columns) for is_exact, size, rows, columns in shapes if is_exact}
    assert exact == {(1, *plan.exact.shape)}
    assert outcome.difference > 0


@pytest.mark.usefixtures("small_chunks")
def test_conserving_asks_for_no_more_exact_windows(any_backend):
    source, model = source_of(hills(64, 48)), model_of(any_backend)
    plain, conserving = (make_plan([model], source, PredictOptions("exact", conserve=wish)) for wish in (False, True))
    assert plain.windows == conserving.windows == 12


@pytest.mark.usefixtures("small_chunks")
def test_windows_without_any_value_are_not_predicted(any_backend, monkeypatch):
    values = hills(64, 64)
    values[:40, :40] = np.nan
    model = model_of(any_backend, residual_over="bicubic")
    counted = []
    submit = Model.submit
    monkeypatch.setattr(Model, "submit", lambda self, x, *a: counted.append(np.isnan(x).all()) or submit(self, x, *a))
    found, _, _ = run(model, values, PredictOptions(tile=16, overlap=0.0, batch_size=1))
    assert np.isnan(found[0][:120, :120]).all()
    assert np.isfinite(found[0][120:]).all()
    assert not any(counted)


@pytest.mark.usefixtures("small_chunks")
def test_the_ensemble_is_the_mean_of_its_members_and_their_spread(any_backend):
    values = hills(20, 24)
    models = [model_of(any_backend, seed, residual_over="bicubic") for seed in (0, 1)]
    found, _, plan = run(models, values, PredictOptions("exact", symmetries=True))
    assert plan.bands == ("elevation", "spread")
    assert len(plan.group) == 16
    fields = [
        restore(in_one_piece(model, np.ascontiguousarray(transform(values, s))), s)
        for model in models
        for s in range(8)
    ]
    np.testing.assert_allclose(found[0], np.mean(fields, axis=0), atol=ROUNDING_M)
    np.testing.assert_allclose(found[1], np.std(fields, axis=0), atol=2 * ROUNDING_M)
    assert found[1].max() > 1


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("mode", ["exact", "gaussian"])
def test_conserving_reports_both_residuals(any_backend, mode):
    values = hills(41, 53)
    values[7, 9] = np.nan
    model = model_of(any_backend, residual_over="bicubic")
    found, outcome, plan = run(model, values, PredictOptions(mode, tile=16, conserve=True))
    from earthsr.dem.predict.enlarge import area_mean, area_weights

    weights = area_weights(plan.source.georeference, 0, 41, 3)
    gaps = np.abs(area_mean(found[0], weights) - values)
    assert outcome.before.largest > 1
    # float32 keeps 2,500 m to 1.2e-4 m.
    assert outcome.after.largest < 2.5e-4
    assert np.nanmax(gaps) == pytest.approx(outcome.after.largest)
    assert outcome.after.count == 41 * 53 - 1
    # Chunks leave no seam: the correction is that of the whole raster.
    monolith, _, _ = run_with_one_chunk(model, values, mode)
    np.testing.assert_allclose(found, monolith, atol=ROUNDING_M)


def test_conserving_adds_no_lattice():
    """What is missing differs from cell to cell, and still no edge of coarse cells shows in what is added."""
    from earthsr.dem.lattice import SurfaceSums
    from earthsr.dem.predict.enlarge import area_mean, conserved

    scale, weights = 5, np.full((40, 5), 0.2)
    rng = np.random.default_rng(0)
    fine = np.zeros((200, 200), np.float32)
    coarse = rng.normal(scale=10, size=(40, 40)).astype(np.float32)
    shifted = conserved(fine, coarse, weights)
    np.testing.assert_allclose(area_mean(shifted, weights), coarse, atol=1e-4)
    inner = shifted[None, 40:-40, 40:-40].astype(np.float64)
    bends = SurfaceSums.of(inner, np.ones(inner.shape, bool), scale).to_dict()["curvature_by_phase_m"]
    # A surface of given means bends most within the cells; where blocks jump it bends most beside their edges (by 4).
    assert max(bends[0], bends[-1]) < min(bends[1:-1])


def run_with_one_chunk(model, values, mode):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 1000)
        return run(model, values, PredictOptions(mode, tile=16, conserve=True))


@pytest.mark.parametrize("over", ["bilinear", "bicubic", "conservative"])
@pytest.mark.parametrize("scale", [2, 3, 5])
def test_a_ramp_and_a_delta_land_where_they_belong(backend, over, scale):
    # Zero weights: what is left of a residual network is its surface. Half-pixel centres.
    spec = spec_of(scale=scale, residual_over=over)
    weights = {p.name: np.zeros(p.shape, np.float32) for p in spec.parameters}
    model = Model(spec, weights, {"normalisation": Normalisation("none").to_dict()}, backend=backend)
    grid = Georeference(7.0, 47.0, 0.01, 0.01, 24, 20)
    east, south = 100.0, -60.0  # metres per coarse cell
    ramp = (1000 + east * np.arange(20)[None, :] + south * np.arange(24)[:, None]).astype(np.float32)
    fine = enlarged(model, ramp, grid)
    assert fine.georeference == grid.refined(scale)
    x, y = fine.georeference.x(), fine.georeference.y()
    expected = 1000 + east * ((x - 7.0) / 0.01 - 0.5)[None, :] + south * ((47.0 - y) / 0.01 - 0.5)[:, None]
    inner = slice(3 * scale, -3 * scale)
    # A hundredth of a fine cell, in metres of this ramp.
    off = np.abs(fine.values[0][inner, inner] - expected[inner, inner]).max()
    assert off < 0.01 * min(east, -south) / scale
    delta = np.zeros((24, 20), np.float32)
    delta[11, 7] = 500.0
    spread = enlarged(model, delta, grid).values[0].astype(np.float64)
    # Its centre of mass, in coordinates, is the coarse cell's centre.
    total = spread.sum()
    assert abs((spread.sum(axis=0) * x).sum() / total - (7.0 + 7.5 * 0.01)) < 0.01 * 0.01 / scale
    assert abs((spread.sum(axis=1) * y).sum() / total - (47.0 - 11.5 * 0.01)) < 0.01 * 0.01 / scale


def enlarged(model, values, grid):
    plan = make_plan([model], array_source(values, grid), PredictOptions("exact"))
    sink = MemorySink(plan.output, plan.bands)
    enlarge(plan, sink)
    return sink


def test_asymmetric_resizing_is_seen_to_shift():
    # The same test shows the fault of the asymmetric variant: two fifths of a coarse cell at 5x.
    from earthsr.geo.resample import interpolate

    ramp = np.arange(20, dtype=np.float32)[None, :].repeat(20, axis=0)
    fine = interpolate(ramp, 5, "bilinear_asymmetric")
    assert fine[50, 50] - ((50 + 0.5) / 5 - 0.5) == pytest.approx(0.4, abs=1e-6)


def test_what_is_no_elevation_is_found_before_anything_is_written(any_backend):
    values = hills(20, 20)
    values[3, 4] = -32768
    with pytest.raises(DataError, match=r"made: holds -32768 in row 3, column 4.*--nodata"):
        survey(source_of(values))
    with pytest.raises(DataError, match="no cell has a value"):
        survey(source_of(np.full((4, 4), np.nan, np.float32)))
    with pytest.raises(DataError, match="row 3, column 4"):
        run(model_of(any_backend), values, offset=0.0)


def test_models_that_do_not_go_together_are_refused(any_backend):
    models = [model_of(any_backend), model_of(any_backend, scale=2)]
    with pytest.raises(InputError, match=r"enlarges by 2.*by 3"):
        make_plan(models, source_of(hills(8, 8)))
    near, far = model_of(any_backend), model_of(any_backend)
    near.metadata["input_cell_size_deg"], far.metadata["input_cell_size_deg"] = 1 / 240, 1 / 48
    with pytest.raises(InputError, match="one size"):
        make_plan([near, far], source_of(hills(8, 8)))
    with pytest.raises(InputError, match="2 channels"):
        make_plan([model_of(any_backend, in_channels=2, out_channels=2)], source_of(hills(8, 8)))


def test_a_mode_that_is_none_is_refused(any_backend):
    with pytest.raises(InputError, match="mode is 'Exact', expected 'gaussian' or 'exact'"):
        make_plan([model_of(any_backend)], source_of(hills(8, 8)), PredictOptions("Exact"))
