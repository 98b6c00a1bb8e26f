"""Errors by the ground, fitted offsets, and the pictures of regions: what they hold; people look at them besides."""

import json
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest

from earthsr.backend import Model
from earthsr.config import from_mapping
from earthsr.data.normalise import Normalisation, Statistics
from earthsr.data.samples import Patches
from earthsr.dem.ground_errors import BINS, Bins, GroundErrors, ground_errors
from earthsr.dem.region_figures import THIN, bar_length, exaggeration, profile_figure, region_figure
from earthsr.dem.region_views import choose_regions, view
from earthsr.dem.split import DemData
from earthsr.dem.write import Split, write_split
from earthsr.geo.resample import block_mean
from earthsr.inference.evaluate import evaluate_split
from earthsr.models import initial_weights
from earthsr.tasks import task_for
from tests.conftest import terrain, tiny_values, write_patches

CELLS = np.full((8, 2), 90.0)


def found(methods, truth, mask=None, cells=CELLS, border=5):
    mask = np.ones_like(truth[:, :1], np.uint8) if mask is None else mask
    return ground_errors(
        methods, truth, mask, border=border, cell_size_m=None if cells is None else cells[: len(truth)]
    )


# Sums


def test_binned_errors_equal_their_definition():
    truth, rng = terrain(0, 4, 40), np.random.default_rng(1)
    prediction = truth + rng.normal(2, 10, truth.shape).astype(np.float32)
    profile = found({"model": prediction}, truth).to_dict()["profiles"]["elevation"]
    inner = (..., slice(5, -5), slice(5, -5))
    error, height = (prediction.astype(np.float64) - truth)[inner], truth[inner]
    low, high = profile["edges"].index(200), profile["edges"].index(500)
    assert (low + 1, profile["units"]) == (high, "m")
    here = (height >= 200) & (height < 500)
    assert profile["count"][low] == here.sum() > 0
    assert profile["rmse"]["model"][low] == pytest.approx(np.sqrt((error[here] ** 2).mean()), rel=1e-9)
    assert profile["bias"]["model"][low] == pytest.approx(error[here].mean(), rel=1e-9)
    assert sum(profile["count"]) == error.size


def test_merged_parts_equal_the_whole():
    truth, rng = terrain(2, 7, 40), np.random.default_rng(3)
    methods = {name: truth + rng.normal(0, 5, truth.shape).astype(np.float32) for name in ("model", "bicubic")}
    mask = (rng.random(truth.shape) > 0.02).astype(np.uint8)
    whole = found(methods, truth, mask).to_dict()
    parts = GroundErrors()
    for rows in (slice(0, 1), slice(1, 5), slice(5, 7)):
        parts += found({name: field[rows] for name, field in methods.items()}, truth[rows], mask[rows])
    merged = parts.to_dict()
    for kind in ("slope", "elevation"):
        assert merged["profiles"][kind]["count"] == whole["profiles"][kind]["count"]
        for a, b in zip(
            merged["profiles"][kind]["rmse"]["model"], whole["profiles"][kind]["rmse"]["model"], strict=True
        ):
            assert a == (None if b is None else pytest.approx(b, rel=1e-12))
    # Sums of products about no mean: 1e-9 is what float64 keeps of them.
    assert merged["offset"]["bicubic"] == pytest.approx(whole["offset"]["bicubic"], rel=1e-9)


def test_voids_and_borders_count_in_no_bin():
    truth = terrain(0, 2, 40)
    mask = np.ones_like(truth, np.uint8)
    mask[:, :, 18:22, 20:24] = 0
    wild = np.where(mask == 0, 1e6, truth)
    wild[..., :5, :] += 1e6
    profiles = found({"model": wild.astype(np.float32)}, truth, mask).to_dict()["profiles"]
    assert sum(profiles["elevation"]["count"]) == 2 * (30 * 30 - 16)
    # A slope needs its eight neighbours, which neither the edge of what is scored nor the ring around a void has.
    assert sum(profiles["slope"]["count"]) == 2 * (28 * 28 - 36)
    for kind in profiles:
        assert max(value or 0 for value in profiles[kind]["rmse"]["model"]) == 0


def test_ground_lies_in_the_bin_of_its_own_slope_and_height():
    rows = np.mgrid[:40, :40][0][None, None].astype(np.float32)
    for angle, edge in ((4.0, 3), (22.0, 20), (60.0, 50)):
        plane = rows * 90 * np.tan(np.deg2rad(angle)).astype(np.float32)
        slope = found({"model": plane}, plane).to_dict()["profiles"]["slope"]
        assert [slope["edges"][i] for i, count in enumerate(slope["count"]) if count] == [edge]
    levels = {-11000.0: -12000, -3.0: -20, 0.0: -0.5, 3.0: 0.5, 8800.0: 5000, -20000.0: -12000, 9999.0: 5000}
    for height, edge in levels.items():
        flat = np.full((1, 1, 40, 40), height, np.float32)
        profile = found({"model": flat}, flat).to_dict()["profiles"]["elevation"]
        assert [profile["edges"][i] for i, count in enumerate(profile["count"]) if count] == [edge], height


def test_without_cell_sizes_there_is_no_slope():
    truth = terrain(0, 2, 40)
    assert set(found({"model": truth}, truth, cells=None).to_dict()["profiles"]) == {"elevation"}


def moved(east, south):
    """A smooth landscape that lies so many cells farther east and south."""
    rows, columns = np.mgrid[:60, :60].astype(np.float64)
    y, x = rows - south, columns - east
    hills = 80 * np.sin(x / 4) * np.cos(y / 5) + 60 * np.sin((x + y) / 7) + 40 * np.cos((x - 2 * y) / 9)
    return hills[None, None].astype(np.float32)


@pytest.mark.parametrize(("east", "south"), [(0.3, 0.0), (-0.1, 0.25), (0.0, -0.4)])
def test_an_offset_is_found_with_its_sign(east, south):
    truth = moved(0, 0)
    offsets = found({"model": moved(east, south), "bicubic": truth}, truth).to_dict()["offset"]
    # Registration's own promise: some hundredths of a cell.
    assert offsets["model"]["east_cells"] == pytest.approx(east, abs=0.02)
    assert offsets["model"]["south_cells"] == pytest.approx(south, abs=0.02)
    assert 0 <= offsets["model"]["standard_error_cells"] < 0.02
    assert offsets["bicubic"]["east_cells"] == pytest.approx(0, abs=1e-9)


def test_flat_ground_tells_no_offset():
    flat = np.full((1, 1, 40, 40), -0.0, np.float32)
    values = found({"model": flat}, flat).to_dict()
    assert values["offset"]["model"] == dict.fromkeys(("east_cells", "south_cells", "standard_error_cells"))
    json.dumps(values, allow_nan=False)


# Figures


def test_low_ground_is_exaggerated_until_it_shows():
    rows = np.mgrid[:40, :40][0].astype(float)
    assert exaggeration(rows * 90, 90, 90) == 1  # 45 degrees
    assert exaggeration(rows * 90 * 0.1, 90, 90) == 5  # a rise of 0.1; 25 degrees are 0.47
    assert exaggeration(rows * 0, 90, 90) == 50
    holed = np.where(rows == 7, np.nan, rows * 90 * 0.1)
    assert exaggeration(holed, 90, 90) == 5


@pytest.mark.parametrize(("width", "length"), [(15, 5), (14.9, 2), (30, 10), (150, 50), (0.7, 0.2), (6, 2)])
def test_the_bar_has_a_round_length_of_at_most_a_third(width, length):
    assert bar_length(width) == pytest.approx(length)


def test_a_bar_without_known_cells_counts_cells():
    figure = panels(cell_size_m=None)
    assert [text.get_text() for text in figure.axes[0].texts] == ["20 fine cells"]
    bar = figure.axes[0].lines[0].get_xdata()
    assert bar[1] - bar[0] == pytest.approx(20 / 5)


def panels(**changes):
    truth = terrain(0, 1, 80)[0, 0]
    valid = np.ones(truth.shape, bool)
    valid[:10, :10] = False
    coarse = block_mean(truth[None, None], 5)[0, 0]
    coarse[:2, :2] = np.nan
    fields = dict(coarse=coarse, truth=truth, prediction=truth + 1, bicubic=truth - 2, valid=valid)
    return region_figure(**{"cell_size_m": (92.0, 46.0), **fields, **changes}, title="N46E008", border=5)


def test_a_regions_picture_shows_six_panels_with_units_and_a_bar():
    figure = panels()
    titles = [axes.get_title() for axes in figure.axes]
    assert "Bicubic minus truth, RMSE 2.00 m" in titles
    assert "Prediction minus truth, RMSE 1.00 m" in titles
    assert [title.split(",")[0] for title in titles[:3]] == [
        "Low resolution (16 x 16)", "Prediction (80 x 80)", "Truth (80 x 80)",
    ]  # fmt: skip
    labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel()) if label]
    assert sorted(labels) == ["elevation (m)", "error (m)"]
    # 80 cells of 46 m are 3.7 km: a kilometre is the longest round length within a third.
    assert [text.get_text() for text in figure.axes[0].texts] == ["1 km"]
    bar = figure.axes[0].lines[0].get_xdata()
    assert bar[1] - bar[0] == pytest.approx(1000 / (5 * 46))


def test_errors_share_one_scale_that_is_symmetric_and_voids_are_blank():
    figure = panels()
    images = [axes.images[0] for axes in figure.axes if axes.images]
    errors = images[4:6]
    assert errors[0].get_clim() == errors[1].get_clim()
    low, high = errors[0].get_clim()
    assert low == -high == pytest.approx(-2)
    for image in (*images[1:6],):
        assert np.ma.getmaskarray(image.get_array())[:10, :10].all()
        assert not np.ma.getmaskarray(image.get_array())[10:, 10:].any()
    assert np.ma.getmaskarray(images[0].get_array()).sum() == 4
    # Cells are twice as long north-south as east-west, and so are they in the pictures.
    assert {axes.get_aspect() for axes in figure.axes[:6]} == {2.0}


def test_a_picture_of_perfect_and_of_flat_predictions_is_drawn():
    flat = np.full((80, 80), 3.0, np.float32)
    coarse = np.full((16, 16), 3.0, np.float32)
    figure = panels(coarse=coarse, truth=flat, prediction=flat, bicubic=flat)
    assert "Prediction minus truth, RMSE 0.00 m" in [axes.get_title() for axes in figure.axes]


def test_thin_bins_are_drawn_hollow():
    count = [0] * BINS["elevation"].count
    count[15:18] = [THIN, THIN - 1, 5 * THIN]
    values = [None] * 15 + [2.0, 3.0, 4.0] + [None] * (len(count) - 18)
    rmse = {"model": values, "bicubic": [None if v is None else 2 * v for v in values]}
    figure = profile_figure(
        {"elevation": {"edges": list(BINS["elevation"].edges), "count": count, "rmse": rmse}}, "test"
    )
    errors, gain, cells = figure.axes
    dots = [line for line in errors.lines if line.get_marker() == "o" and len(line.get_xdata())]
    faces = {line.get_markerfacecolor(): line.get_xdata().tolist() for line in dots[:2]}
    assert faces == {"tab:blue": [0.5, 2.5], "white": [1.5]}
    assert sorted(bar.get_height() for bar in gain.patches) == [50, 50, 50]
    assert [bar.get_height() for bar in cells.patches] == [THIN, THIN - 1, 5 * THIN]
    assert (errors.get_ylabel(), cells.get_xlabel()) == ("RMSE (m)", "elevation of the truth (m)")
    assert [tick.get_text() for tick in cells.get_xticklabels()] == ["20", "50", "100", "200"]


# Which places are drawn


def write_region_split(root, fine, patch, step, region="alps", scale=5, degrees=1 / 1200):
    """Cut overlapping patches from one field, as preparing does, into all three splits."""
    q = patch * scale
    corners = [(r, c) for r in range(0, fine.shape[0] // scale - patch + 1, step)
               for c in range(0, fine.shape[1] // scale - patch + 1, step)]  # fmt: skip
    pieces = np.stack([fine[r * scale : r * scale + q, c * scale : c * scale + q] for r, c in corners])[:, None]
    split = Split(
        coarse=block_mean(pieces, scale),
        fine=pieces,
        origin=np.array([(7 + c * scale * degrees, 47 - r * scale * degrees) for r, c in corners]),
        surface=np.zeros(len(corners), np.uint8),
        region=np.array([region] * len(corners)),
    )
    every = np.ones_like(pieces, np.uint8)
    statistics = Statistics.of([Patches(split.coarse, split.fine, every, np.arange(len(pieces)))])
    for name in ("train", "valid", "test"):
        write_split(root / name / f"{name}.h5", split, statistics, {"crs": "EPSG:4326", "cell_size_deg": degrees})
    return corners


def test_the_steepest_patches_of_the_largest_regions_are_chosen(tmp_path):
    write_patches(tmp_path, splits=(("test", 7),))
    path = tmp_path / "test" / "test.h5"
    with h5py.File(path, "r+") as handle:
        handle["region"][...] = ["alps", "andes", "alps", "andes", "alps", "andes", "jura"]
        handle["40_40"][4] *= 3
        # Steepest of all, but most of it is void: it counts as flat.
        handle["40_40"][2] *= 5
        mask = np.ones((7, 1, 40, 40), np.uint8)
        mask[2, :, :, 2:] = 0
        handle["mask_40"] = mask
    source = DemData({"root_dir": tmp_path, "patch_size": 8}, "test")
    chosen = choose_regions(source, most=2)
    assert chosen.patches.keys() == {"alps", "andes"}
    assert chosen.patches["alps"] == 4
    assert chosen.patches["andes"] in (1, 3, 5)
    assert chosen.left_out == ("jura",)


def test_a_view_is_put_together_from_neighbouring_patches(tmp_path):
    fine = terrain(1, 1, 200)[0, 0]
    corners = write_region_split(tmp_path, fine, patch=8, step=6)
    source = DemData({"root_dir": tmp_path, "patch_size": 8}, "test")
    for index in (0, 7, 14, len(corners) - 1):
        piece = view(source, index)
        assert piece.coarse.shape == (1, 16, 16)
        assert piece.valid.all()
        # The view lies in the field, holds the patch, and is whole: no seam, no cell from elsewhere.
        at = [(r, c) for r in range(0, 121, 5) for c in range(0, 121, 5)
              if np.array_equal(fine[r : r + 80, c : c + 80], piece.truth[0])]  # fmt: skip
        assert len(at) == 1
        row, column = (value // 5 for value in at[0])
        assert row <= corners[index][0] <= row + 8
        assert column <= corners[index][1] <= column + 8
        np.testing.assert_array_equal(piece.coarse, block_mean(piece.truth[None], 5)[0])


def test_a_view_prefers_ground_that_patches_cover(tmp_path):
    fine = terrain(1, 1, 160)[0, 0]
    write_region_split(tmp_path, fine, patch=8, step=8)
    # Of four by four patches the first row and column are another region's, but for the corner.
    own = [row == column == 0 or (row > 0 and column > 0) for row in range(4) for column in range(4)]
    with h5py.File(tmp_path / "test" / "test.h5", "r+") as handle:
        handle["region"][...] = ["alps" if here else "sea" for here in own]
    source = DemData({"root_dir": tmp_path, "patch_size": 8}, "test")
    for index, corner in ((5, (40, 40)), (15, (80, 80)), (10, (60, 60))):
        piece = view(source, index)
        # In the middle of the four by four, where all is covered: centred.
        rows, columns = (slice(start, start + 80) for start in corner)
        np.testing.assert_array_equal(piece.truth[0], fine[rows, columns])
        assert piece.valid.all()


def test_a_patch_whose_place_is_unknown_is_drawn_alone(tmp_path):
    write_region_split(tmp_path, terrain(1, 1, 80)[0, 0], patch=8, step=8)
    path = tmp_path / "test" / "test.h5"
    with h5py.File(path, "r+") as handle:
        del handle["origin"]
    source = DemData({"root_dir": tmp_path, "patch_size": 8}, "test")
    assert view(source, 1).coarse.shape == (1, 8, 8)
    assert choose_regions(source).patches.keys() == {"alps"}


# What evaluating writes


def evaluated(root, tmp_path, backend, shift=None):
    """Evaluate a model that is bicubic interpolation, against truth that may lie elsewhere."""
    if shift is not None:
        with h5py.File(root / "test" / "test.h5", "r+") as handle:
            handle["40_40"][...] = np.roll(handle["40_40"][...], shift, axis=(-2, -1))
    config = from_mapping(tiny_values(root, tmp_path / "run"))
    spec = task_for(config).spec()
    weights = {name: np.zeros_like(value) for name, value in initial_weights(spec, 0).items()}
    model = Model(spec, weights, {"normalisation": Normalisation("patch", 0.0, 100.0).to_dict()}, backend=backend)
    return evaluate_split(model, config, "test", tmp_path / "evaluation")


@pytest.mark.slow
def test_a_split_that_is_flat_sea_is_scored_and_drawn(any_backend, tmp_path):
    """As tiles of SRTM at sea are: errors of 0 m, no ratio of two zeros, figures and a report."""
    root = write_patches(tmp_path / "data")
    with h5py.File(root / "test" / "test.h5", "r+") as handle:
        for key in ("8_8", "40_40"):
            handle[key][...] = 0
    evaluation = evaluated(root, tmp_path, any_backend)
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert {values["rmse"] for values in metrics["scores"].values()} == {0}
    assert metrics.get("rmse_reduction_vs_bicubic_percent") is None
    assert evaluation.report.is_file()
    assert len(list((tmp_path / "evaluation" / "figures").glob("*.png"))) >= 4
    if find_spec("bokeh") is not None:
        page = (tmp_path / "evaluation" / "page.html").read_text(encoding="utf-8")
        assert '"frames": ["low resolution", "bicubic", "prediction", "truth"]' in page
        assert 'href="page.html"' in (tmp_path / "evaluation" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_evaluating_reports_profiles_and_an_offset_worth_saying(tmp_path, any_backend):
    # The truth one fine cell farther west and two farther south: predictions lie east and north of it.
    result = evaluated(write_patches(tmp_path / "data", masks=True), tmp_path, any_backend, shift=(2, -1))
    written = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert written["profiles"].keys() == {"slope", "elevation"}
    profile = written["profiles"]["elevation"]
    for method, scores in written["scores"].items():
        square = sum(n * (r or 0) ** 2 for n, r in zip(profile["count"], profile["rmse"][method], strict=True))
        assert np.sqrt(square / sum(profile["count"])) == pytest.approx(scores["rmse"], rel=1e-9), method
    offset = written["offset"]
    assert set(offset) == {"model", "nearest", "bilinear", "bicubic", "conservative"}
    # The model is bicubic interpolation here: in float32, to rounding.
    assert offset["model"]["east_cells"] == pytest.approx(offset["bicubic"]["east_cells"], abs=1e-5)
    assert offset["model"]["east_cells"] > 0.3
    assert offset["model"]["south_cells"] < -0.6
    assert "fine cells east and " in result.headline
    assert "north of the truth" in result.headline
    names = [Path(path).name for path in result.figures]
    assert {"region-1-alps.png", "region-2-andes.png", "profiles.png", "scores.png"} <= set(names)
    page = result.report.read_text()
    for words in ("Region alps", "Offset from the truth", "Hollow: fewer than 1,000 cells"):
        assert words in page


@pytest.mark.slow
def test_many_regions_are_listed_instead_of_drawn(tmp_path, any_backend):
    root = write_patches(tmp_path / "data", splits=(("train", 4), ("valid", 4), ("test", 11)))
    with h5py.File(root / "test" / "test.h5", "r+") as handle:
        handle["region"][...] = [f"tile {number % 10}" for number in range(11)]
    result = evaluated(root, tmp_path, any_backend)
    drawn = [path.name for path in result.figures if path.name.startswith("region-")]
    assert len(drawn) == 8
    assert "region-1-tile-0.png" in drawn
    assert "<p>tile 8, tile 9</p>" in result.report.read_text()
    # Nothing was shifted, and whatever a few patches say is within two standard errors of that.
    assert "of the truth" not in result.headline


def test_a_value_on_an_edge_is_in_the_bin_above():
    bins = Bins("m", "height (m)", (0, 10, 20, 30))
    values = np.array([0, 9.99, 10, 20, 30, -5, 99])
    np.testing.assert_array_equal(bins.place(values), [0, 0, 1, 2, 2, 0, 2])
