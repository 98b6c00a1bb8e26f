"""From made rasters to patches: registration, voids, splits, and what a kill leaves."""

import errno
import json
import os

import h5py
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from earthsr.dem.prepare import DemPlan, PreparedDem, prepare_dem, shards
from earthsr.dem.prepare import prepare as stages
from earthsr.dem.prepare.plan import starts
from earthsr.dem.prepare.shards import leftovers
from earthsr.dem.split import DemData
from earthsr.errors import DataError, EarthsrWarning, InputError
from earthsr.geo.resample import block_mean

CELL = 1 / 1200
WEST, NORTH = 7.0, 47.0


def hills(x, y, width=0.0, height=0.0):
    """Elevation in metres at longitudes and latitudes, or its exact mean over cells of a size in degrees.

    Waves of 25 to 150 fine cells, 1000 m above the sea.
    """
    rng = np.random.default_rng(0)
    total = np.full(np.broadcast_shapes(np.shape(x), np.shape(y)), 1000.0)
    for length in CELL * np.exp(rng.uniform(np.log(25), np.log(150), 30)):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        east, north = np.cos(angle) / length, np.sin(angle) / length  # waves per degree
        mean = np.sinc(east * width) * np.sinc(north * height)
        total += 40 * mean * np.cos(2 * np.pi * (east * x + north * y) + phase)
    return total


def cells(rows, columns, west=WEST, north=NORTH, cell=CELL):
    """Means of hills over the cells of a grid."""
    x = west + cell * (np.arange(columns) + 0.5)
    y = north - cell * (np.arange(rows) + 0.5)
    return hills(x[None, :], y[:, None], cell, cell)


def write_dem(path, values, west=WEST, north=NORTH, cell=CELL, crs="EPSG:4326", transform=None, units="m", **options):
    """Write a GeoTIFF; ``point=True`` says that pixels are points, in the tags and in the file's tie point."""
    point = options.pop("point", False)
    place = transform or Affine(cell, 0, west, 0, -cell, north)
    size = {"count": 1, "height": values.shape[0], "width": values.shape[1]}
    with rasterio.open(path, "w", "GTiff", dtype=values.dtype, crs=crs, transform=place, **size, **options) as file:
        file.write(values, 1)
        if units:
            file.units = (units,)
        if point:
            file.update_tags(AREA_OR_POINT="Point")
    return path


def read(root, split):
    with h5py.File(root / split / f"{split}.h5") as handle:
        return {key: handle[key][()] for key in handle}, dict(handle.attrs)


def files_below(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


SMALL = DemPlan(patch=8, shares=(0.6, 0.2, 0.2), buffer=2)


# Without a coarse product


@pytest.fixture
def alps(tmp_path):
    """A raster with a void."""
    values = cells(203, 304).astype(np.float32)
    values[50:52, 100:140] = -9999
    values[:, 297:] = -9999
    return write_dem(tmp_path / "alps.tif", values, nodata=-9999), np.where(values == -9999, np.nan, values)


def test_patches_are_the_rasters_own_cells(tmp_path, alps, monkeypatch):
    monkeypatch.setattr(stages, "_SHARD_PATCHES", 5)  # a shard per row of patches
    path, values = alps
    done = prepare_dem(tmp_path / "out", [path], plan=SMALL)
    assert isinstance(done, PreparedDem)
    blocks = SMALL.blocks("alps", 40, 60, None)
    mean = block_mean(values[:200, :300], 5)
    seen = np.zeros((200, 300), int)
    for number, (split, block) in enumerate(blocks.items()):
        data, attributes = read(tmp_path / "out", split)
        assert len(data["8_8"]) == done.counts[split]
        assert done.counts[split] + done.left_out[split] == len(list(SMALL.jobs("alps", split, block))) * len(
            starts(block.column, block.columns, 8, SMALL.step(split))
        )
        assert attributes["units"] == "m"
        assert attributes["crs"] == "EPSG:4326"
        assert attributes["cell_size_deg"] == pytest.approx(CELL)
        assert set(data["region"]) == {b"alps"}
        for coarse, fine, mask, (west, north) in zip(
            data["8_8"], data["40_40"], data.get("mask_40", np.ones((len(data["40_40"]), 1, 40, 40))), data["origin"],
            strict=True,
        ):  # fmt: skip
            row, column = round((NORTH - north) / CELL), round((west - WEST) / CELL)
            own = mean[row // 5 : row // 5 + 8, column // 5 : column // 5 + 8]
            np.testing.assert_array_equal(coarse[0], own)
            truth = values[row : row + 40, column : column + 40]
            clear = np.kron(~np.isnan(own), np.ones((5, 5), bool))
            np.testing.assert_array_equal(mask[0], clear)
            np.testing.assert_array_equal(fine[0], np.where(clear, truth, np.nan))
            seen[row : row + 40, column : column + 40] |= 1 << number
        source = DemData({"root_dir": tmp_path / "out", "patch_size": 8}, split)
        source.scan()
        assert source.layout.scale == 5
        assert "surface" in source.groups()
    # No fine cell is in two splits, and two coarse cells lie between them.
    assert set(np.unique(seen)) == {0, 1, 2, 4}
    used = [np.flatnonzero((seen == 1 << number).any(axis=0)) for number in range(3)]
    assert used[1][0] - used[0][-1] > 2 * 5
    assert used[2][0] - used[1][-1] > 2 * 5
    assert "mask_40" in read(tmp_path / "out", "train")[0]
    assert "mask_40" not in read(tmp_path / "out", "valid")[0]


def test_patches_with_few_valid_cells_are_left_out(tmp_path):
    """A quarter of the cells of one patch is void, three quarters of another: 40 x 30 of 40 x 40."""
    values = cells(40, 120).astype(np.float32)
    values[:, 40:50], values[:, 80:110] = -9999, -9999
    path = write_dem(tmp_path / "alps.tif", values, nodata=-9999)
    for minimum, kept in ((0.5, [0, 8]), (0.75, [0, 8]), (0.8, [0]), (0.25, [0, 8, 16])):
        plan = DemPlan(patch=8, shares=(1, 0, 0), minimum_valid=minimum)
        done = prepare_dem(tmp_path / "out", [path], plan=plan, overwrite=True)
        assert (done.counts["train"], done.left_out["train"]) == (len(kept), 3 - len(kept))
        west = read(tmp_path / "out", "train")[0]["origin"][:, 0]
        np.testing.assert_allclose(west, WEST + np.array(kept) * 5 * CELL)


def test_statistics_are_those_of_training(tmp_path, alps):
    path, _ = alps
    prepare_dem(tmp_path / "out", [path], plan=SMALL)
    data, _ = read(tmp_path / "out", "train")
    valid = data["mask_40"].astype(bool)
    values = data["40_40"].astype(np.float64)[valid]
    for split in ("train", "valid", "test"):
        statistics = json.loads(read(tmp_path / "out", split)[1]["statistics"])
        assert statistics["count"] == valid.sum()
        assert statistics["mean"] == pytest.approx(values.mean())
        assert statistics["std"] == pytest.approx(values.std())
        assert (statistics["minimum"], statistics["maximum"]) == (values.min(), values.max())


def test_strides_and_overlaps(tmp_path):
    path = write_dem(tmp_path / "alps.tif", cells(200, 300).astype(np.float32))
    prepare_dem(tmp_path / "out", [path], plan=DemPlan(patch=8, shares=(0.6, 0.2, 0.2), buffer=2, stride=3))
    for split, most in (("train", 3), ("valid", 6), ("test", 6)):
        west = np.unique(np.round((read(tmp_path / "out", split)[0]["origin"][:, 0] - WEST) / CELL / 5).astype(int))
        assert np.diff(west).max(initial=0) <= most
        north = np.unique(np.round((NORTH - read(tmp_path / "out", split)[0]["origin"][:, 1]) / CELL / 5).astype(int))
        assert np.diff(north).max() <= most
        assert (north[0], north[-1]) == (0, 32)


def test_surfaces_are_told_by_the_share_of_the_sea(tmp_path):
    """8 x 40 fine cells of sea in a patch of 40 x 40 is a fifth."""
    values = np.full((40, 160), 50.0, np.float32)
    values[:, 40:80] = 0
    values[:2, 80:120] = -3.5
    values[:, 120:128] = -20
    path = write_dem(tmp_path / "coast.tif", values)
    for coast, expected in (((0.05, 0.95), [0, 2, 1, 1]), ((0.06, 0.95), [0, 2, 0, 1]), ((0.05, 0.1), [0, 2, 1, 2])):
        plan = DemPlan(patch=8, shares=(1, 0, 0), coast=coast)
        done = prepare_dem(tmp_path / "out", [path], plan=plan, overwrite=True)
        assert list(read(tmp_path / "out", "train")[0]["surface"]) == expected
        assert sum(done.surfaces["train"].values()) == 4
    assert "no valid split is written" in " ".join(done.notes)
    assert not (tmp_path / "out" / "test").exists()


def test_whole_regions_and_tiles_that_touch(tmp_path):
    """Tiles of one name are one mosaic, across whose seam patches go on; the row that both have counts once."""
    whole = cells(200, 401).astype(np.float32)
    left = write_dem(tmp_path / "left.tif", whole[:, :201])
    right = write_dem(tmp_path / "right.tif", whole[:, 200:], west=WEST + 200 * CELL)
    far = write_dem(tmp_path / "far.tif", whole[:100, :100], west=20.0)
    plan = DemPlan(patch=8, shares=(1, 0, 0), valid_regions=("far",), test_regions=())
    done = prepare_dem(tmp_path / "out", [f"both={left}", far, f"both={right}"], plan=plan)
    assert done.regions == {"train": ["both"], "valid": ["far"]}
    data, _ = read(tmp_path / "out", "train")
    assert done.counts["train"] == 5 * 10
    for fine, (west, north) in zip(data["40_40"], data["origin"], strict=True):
        row, column = round((NORTH - north) / CELL), round((west - WEST) / CELL)
        np.testing.assert_array_equal(fine[0], whole[row : row + 40, column : column + 40])


def test_neighbours_in_different_splits(tmp_path):
    whole = cells(200, 401).astype(np.float32)
    left = write_dem(tmp_path / "left.tif", whole[:, :201])
    right = write_dem(tmp_path / "right.tif", whole[:, 200:], west=WEST + 200 * CELL)
    plan = DemPlan(patch=8, shares=(1, 0, 0), test_regions=("right",))
    done = prepare_dem(tmp_path / "out", [left, right], plan=plan)
    assert "regions left and right are in different splits and lie side by side: terrain goes on across" in done.notes
    inside = write_dem(tmp_path / "inside.tif", whole[:100, 150:301], west=WEST + 150 * CELL)
    plan = DemPlan(patch=8, shares=(1, 0, 0), test_regions=("inside",))
    with pytest.raises(DataError, match=r"regions left \(train\) and inside \(test\) overlap"):
        prepare_dem(tmp_path / "other", [left, inside], plan=plan)


def test_regions_of_different_cells_only_where_it_is_said(tmp_path):
    fine = write_dem(tmp_path / "fine.tif", cells(100, 100).astype(np.float32))
    coarse = write_dem(tmp_path / "coarse.tif", cells(100, 100, 20, 50, 5 * CELL).astype(np.float32), 20, 50, 5 * CELL)
    plan = DemPlan(patch=8, shares=(1, 0, 0), valid_regions=("coarse",), test_regions=("fine",))
    with pytest.raises(DataError, match=r"region coarse has cells of 0\.0041.* region fine of 0\.00083"):
        prepare_dem(tmp_path / "out", [fine, coarse], plan=plan)
    assert not (tmp_path / "out").exists()
    third = write_dem(tmp_path / "third.tif", cells(100, 100, 30, 50).astype(np.float32), 30, 50)
    fourth = write_dem(tmp_path / "fourth.tif", cells(90, 90, 40, 50, 5 * CELL).astype(np.float32), 40, 50, 5 * CELL)
    mixed = DemPlan(**{**vars(plan), "mix_cell_sizes": True})
    prepare_dem(tmp_path / "out", [fine, coarse, third, fourth], plan=mixed)
    sizes = (("train", CELL, [CELL, 5 * CELL]), ("valid", 5 * CELL, [5 * CELL]), ("test", CELL, [CELL]))
    for split, attribute, own in sizes:
        data, attributes = read(tmp_path / "out", split)
        assert attributes["cell_size_deg"] == pytest.approx(attribute)
        np.testing.assert_allclose(np.unique(data["cell_size_deg"]), own)
        # Slopes are of each patch's own cells: a degree of latitude has 111.195 km on the mean sphere.
        metres = DemData({"root_dir": tmp_path / "out", "patch_size": 8}, split).fine_cell_size_m()
        np.testing.assert_allclose(np.unique(metres[:, 0]), 111_195 * np.array(own), rtol=1e-4)


def test_projected_rasters(tmp_path):
    """Origins are in degrees; a cell has metres, and no degrees, in which it would not be square."""
    values = cells(100, 100).astype(np.float32)
    path = write_dem(tmp_path / "utm.tif", values, 500_000, 5_200_000, 90, crs="EPSG:32632")
    prepare_dem(tmp_path / "out", [path], plan=DemPlan(patch=8, shares=(1, 0, 0)))
    data, attributes = read(tmp_path / "out", "train")
    assert attributes["crs"] == "EPSG:32632"
    assert attributes["cell_size_m"] == 90
    assert "cell_size_deg" not in attributes
    np.testing.assert_array_equal(data["origin_xy"][0], [500_000, 5_200_000])
    # 500 km east is the zone's middle, 9 E; so far north of the equator a degree has 111.16 km, times 0.9996.
    np.testing.assert_allclose(data["origin"][0], [9.0, 5200 / 0.9996 / 110.79], atol=1e-3)
    sizes = DemData({"root_dir": tmp_path / "out", "patch_size": 8}).fine_cell_size_m()
    np.testing.assert_array_equal(sizes, np.full((len(data["origin"]), 2), 90.0))


def test_other_crs_are_reprojected_where_it_is_said(tmp_path):
    """A raster in degrees on a grid in metres: heights of a function of the place stay where they are."""
    path = write_dem(tmp_path / "alps.tif", cells(200, 200, 9.0).astype(np.float32), 9.0)
    done = prepare_dem(tmp_path / "out", [path], plan=DemPlan(patch=8, shares=(1, 0, 0)), crs="EPSG:32632")
    assert any("interpolated from another CRS onto EPSG:32632: alps.tif" in note for note in done.notes)
    data, attributes = read(tmp_path / "out", "train")
    assert attributes["crs"] == "EPSG:32632"
    size = attributes["cell_size_m"]
    from rasterio.warp import transform

    for fine, corner in zip(data["40_40"], data["origin_xy"], strict=True):
        steps = size * (np.arange(40) + 0.5)
        y, x = np.meshgrid(corner[1] - steps, corner[0] + steps, indexing="ij")
        lon, lat = (np.reshape(v, x.shape) for v in transform("EPSG:32632", "EPSG:4326", x.ravel(), y.ravel()))
        valid = ~np.isnan(fine[0])
        # Bilinear between cells of 90 m on waves of two kilometres and more: a few metres of a range of a thousand.
        assert np.abs(fine[0] - hills(lon, lat))[valid].max() < 5


def in_metres(rows, columns, cell=90.0, west=500_000.0, north=5_200_000.0):
    """Hills at the centres of a grid of UTM zone 32."""
    from rasterio.warp import transform

    y, x = np.meshgrid(north - cell * (np.arange(rows) + 0.5), west + cell * (np.arange(columns) + 0.5), indexing="ij")
    lon, lat = (np.reshape(v, x.shape) for v in transform("EPSG:32632", "EPSG:4326", x.ravel(), y.ravel()))
    return hills(lon, lat).astype(np.float32)


def test_a_coarse_product_in_another_crs(tmp_path):
    """It is interpolated onto the blocks themselves; rasters in another CRS take over the first one's cells."""
    hr = write_dem(tmp_path / "utm.tif", in_metres(120, 160), 500_000, 5_200_000, 90, crs="EPSG:32632")
    place = 8.95, 47.0, 90 * 5 / 100_000
    lr = write_dem(tmp_path / "degrees.tif", cells(50, 60, *place).astype(np.float32), *place)
    with pytest.raises(DataError, match=r"degrees\.tif: CRS is EPSG:4326, that of the fine rasters EPSG:32632"):
        prepare_dem(tmp_path / "out", [hr], [lr], plan=WHOLE)
    done = prepare_dem(tmp_path / "out", [hr], [lr], plan=WHOLE, crs="EPSG:32632")
    found = done.registration[0]
    assert found["between_grids"] == pytest.approx({"rows": 0, "columns": 0}, abs=1e-6)
    assert [found["measured"][axis] for axis in ("rows", "columns")] == pytest.approx([0, 0], abs=0.1)
    assert read(tmp_path / "out", "train")[1]["cell_size_m"] == 90
    other = write_dem(tmp_path / "east.tif", cells(200, 200, 10.0).astype(np.float32), 10.0)
    prepare_dem(tmp_path / "both", [hr, other], plan=WHOLE, crs="EPSG:32632")
    corners = read(tmp_path / "both", "train")[0]["origin_xy"]
    np.testing.assert_allclose(np.mod(corners - [500_000, 5_200_000] + 1e-4, 90), 1e-4, atol=1e-5)


# With a coarse product


def srtm_and_gebco(folder, wrong=(0.0, 0.0), half=(0.5, 0.5), size=320, **options):
    """Fine cells called points, a coarse product called areas: their cells' edges lie ``half`` a fine cell apart.

    The coarse file says that it lies ``wrong`` fine cells (south, east) from where it does.
    """
    west, north = WEST - half[1] * CELL, NORTH + half[0] * CELL
    fine = cells(size + 1, size + 1, west, north).astype(np.float32)
    hr = write_dem(folder / "srtm.tif", fine, west, north, point=True)
    # The product is larger than the fine raster, as products are.
    place = WEST - 50 * CELL, NORTH + 50 * CELL
    product = cells(size // 5 + 20, size // 5 + 20, *place, 5 * CELL).astype(np.float32) + 2.5
    said = place[0] + wrong[1] * CELL, place[1] - wrong[0] * CELL
    lr = write_dem(folder / "gebco.tif", product, *said, 5 * CELL, **options)
    return hr, lr


def differences(root, split="train"):
    """Coarse cells against block means of the truth, metres, the product's bias of 2.5 m taken off."""
    data, _ = read(root, split)
    return data["8_8"] - 2.5 - block_mean(data["40_40"], 5)


WHOLE = DemPlan(patch=8, shares=(1, 0, 0))


def test_points_and_areas_need_no_correction(tmp_path):
    """The half pixel is in the georeferences, if these are read as they are meant: nothing is left to correct."""
    hr, lr = srtm_and_gebco(tmp_path)
    with rasterio.open(hr) as file:
        assert file.tags()["AREA_OR_POINT"] == "Point"
        assert file.transform.c == pytest.approx(WEST - CELL / 2)
    done = prepare_dem(tmp_path / "out", [hr], [lr], plan=WHOLE)
    (found,) = done.registration
    assert [abs(found["between_grids"][axis]) for axis in ("rows", "columns")] == pytest.approx([0.5, 0.5], abs=1e-6)
    assert found["corrected"] == {"rows": 0, "columns": 0}
    assert [found["measured"][axis] for axis in ("rows", "columns")] == pytest.approx([0, 0], abs=0.02)
    assert found["measured"]["bias"] == pytest.approx(2.5, abs=0.05)
    # What cubic convolution over a tenth of a coarse cell cannot do with waves of five of these: a metre, of 150.
    gap = differences(tmp_path / "out")
    assert np.sqrt(np.square(gap).mean()) < 1.2
    # Cells put together by their number alone are ten times as far off.
    fine = rasterio.open(hr).read(1)
    product = rasterio.open(lr).read(1)[10:74, 10:74] - 2.5
    assert np.sqrt(np.square(product - block_mean(fine[:320, :320], 5)).mean()) > 10


@pytest.mark.parametrize(
    ("wrong", "half", "corrected"),
    [
        ((0.5, 0.5), (0, 0), (0.5, 0.5)),
        ((0, -0.5), (0, 0), (0, -0.5)),
        ((0.5, 0), (0.5, 0.5), (0.5, 0)),
        ((-2.5, 2.5), (0, 0), (-2.5, 2.5)),
    ],
)
def test_half_a_pixel_in_a_georeference_is_detected_and_corrected(tmp_path, wrong, half, corrected):
    hr, lr = srtm_and_gebco(tmp_path, wrong, half)
    done = prepare_dem(tmp_path / "out", [hr], [lr], plan=WHOLE)
    (found,) = done.registration
    assert (found["corrected"]["rows"], found["corrected"]["columns"]) == corrected
    # Half a coarse cell is so large that waves of five cells see it as two hundredths too much.
    measured = found["measured"]["rows"], found["measured"]["columns"]
    assert measured == pytest.approx(wrong, abs=0.02 if max(map(abs, wrong)) < 1 else 0.06)
    assert (found["after"]["rows"], found["after"]["columns"]) == pytest.approx((0, 0), abs=0.02)
    gap = differences(tmp_path / "out")
    if half == (0, 0):
        # The corrected cells are blocks: they are copied, and differ by the rounding of float32 sums of heights.
        assert np.abs(gap).max() < 0.01
    else:
        assert np.sqrt(np.square(gap).mean()) < 1.2
    # In the file.
    attributes = read(tmp_path / "out", "train")[1]
    assert json.loads(attributes["registration"]) == done.registration
    assert json.loads(attributes["provenance"])["registration"] == done.registration
    assert any("half a pixel, taken off" in note for note in json.loads(attributes["provenance"])["notes"])


def test_a_report_corrects_nothing_and_off_measures_nothing(tmp_path):
    hr, lr = srtm_and_gebco(tmp_path, (0.5, 0.5), (0, 0))
    with pytest.warns(EarthsrWarning, match=r"lies 0\.\d+ ± 0\.0\d+ fine cells south and 0\.\d+ ± 0\.0\d+ fine"):
        done = prepare_dem(tmp_path / "out", [hr], [lr], plan=WHOLE, register="report")
    assert done.registration[0]["measured"]["rows"] == pytest.approx(0.5, abs=0.02)
    assert done.registration[0]["corrected"] == {"rows": 0, "columns": 0}
    assert np.sqrt(np.square(differences(tmp_path / "out")).mean()) > 9
    done = prepare_dem(tmp_path / "off", [hr], [lr], plan=WHOLE, register="off")
    assert done.registration[0]["measured"] is None
    with pytest.raises(InputError, match="--register is 'never', expected auto, report, off"):
        prepare_dem(tmp_path / "never", [hr], [lr], plan=WHOLE, register="never")


def test_other_offsets_are_warned_about_and_not_corrected(tmp_path):
    hr, lr = srtm_and_gebco(tmp_path, (1.2, 0), (0, 0))
    with pytest.warns(EarthsrWarning, match=r"lies 1\.\d+ ± 0\.0\d+ fine cells south .* which is not corrected"):
        done = prepare_dem(tmp_path / "out", [hr], [lr], plan=WHOLE)
    assert done.registration[0]["corrected"] == {"rows": 0, "columns": 0}


def test_voids_of_the_product_mask_the_truth(tmp_path):
    hr, lr = srtm_and_gebco(tmp_path, half=(0, 0), nodata=-9999)
    with rasterio.open(lr, "r+") as file:
        values = file.read(1)
        values[13:15, 20] = -9999
        file.write(values, 1)
    with rasterio.open(hr, "r+") as file:
        file.nodata = -32768
        fine = file.read(1)
        fine[33, 77] = -32768
        file.write(fine, 1)
    done = prepare_dem(tmp_path / "out", [hr], [lr], plan=WHOLE)
    data, _ = read(tmp_path / "out", "train")
    # Blocks 3 and 4 of the first patch row, block 10: second patch. The truth there is known, and not used.
    patch = 1
    np.testing.assert_allclose(data["origin"][patch], [WEST + 40 * CELL, NORTH])
    expected = np.zeros((8, 8), bool)
    expected[3:5, 2] = True
    np.testing.assert_array_equal(np.isnan(data["8_8"][patch, 0]), expected)
    mask = ~np.kron(expected, np.ones((5, 5), bool))
    mask[33, 37] = False  # a void of the truth alone: the product knows its block
    np.testing.assert_array_equal(data["mask_40"][patch, 0], mask)
    np.testing.assert_array_equal(np.isnan(data["40_40"][patch, 0]), ~mask)
    assert done.counts["train"] == 64
    source = DemData({"root_dir": tmp_path / "out", "patch_size": 8})
    source.scan()


def test_a_product_serves_the_regions_that_it_overlaps(tmp_path):
    hr, lr = srtm_and_gebco(tmp_path, half=(0, 0))
    far = write_dem(tmp_path / "far.tif", cells(100, 100, 20).astype(np.float32), 20)
    with pytest.raises(DataError, match=r"gebco\.tif: does not overlap region far, which covers 20, 46\.91"):
        prepare_dem(tmp_path / "out", [hr, far], [lr], plan=WHOLE)
    own = write_dem(tmp_path / "own.tif", cells(40, 40, 20 - 50 * CELL, 47 + 50 * CELL, 5 * CELL).astype(np.float32),
                    20 - 50 * CELL, 47 + 50 * CELL, 5 * CELL)  # fmt: skip
    done = prepare_dem(tmp_path / "out", [hr, far], [lr, own], plan=WHOLE)
    assert [each["region"] for each in done.registration] == ["srtm", "far"]
    files = json.loads(read(tmp_path / "out", "train")[1]["provenance"])["files"]
    assert [(f["name"], f["region"], f["part"]) for f in files] == [
        ("srtm.tif", "srtm", "fine"),
        ("gebco.tif", "srtm", "coarse"),
        ("far.tif", "far", "fine"),
        ("own.tif", "far", "coarse"),
    ]
    with pytest.raises(DataError, match=r"region far has no coarse raster, others have: --lr far=PATH, or --lr PATH"):
        prepare_dem(tmp_path / "other", [hr, far], [f"srtm={lr}"], plan=WHOLE)
    with pytest.raises(InputError, match=r"--lr moon=.*: no such region; there are srtm, far"):
        prepare_dem(tmp_path / "other", [hr, far], [f"moon={lr}"], plan=WHOLE)


# Interruption


class Killed(BaseException):
    """Stands for a signal that nobody catches; only in a process of its own does nothing run after it."""


def killed_at(step, root, path, before):
    """Prepare in a child that kills itself at a rename, before or after it; returns whether it got there."""
    child = os.fork()
    if child == 0:
        try:
            done, replace, count = 0, os.replace, 0

            def counted(source, target):
                nonlocal count
                count += 1
                if before and count == step:
                    os.kill(os.getpid(), 9)
                replace(source, target)
                if count == step:
                    os.kill(os.getpid(), 9)

            os.replace = counted
            prepare_dem(root, [path], plan=MANY)
        finally:
            os._exit(done)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


MANY = DemPlan(patch=8, shares=(0.6, 0.2, 0.2), buffer=2, stride=1)


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 64 patches, so that a small raster makes some."""
    monkeypatch.setattr(stages, "_SHARD_PATCHES", 64)


EVERY = [pytest.param(1, before, marks=pytest.mark.slow) for before in (True, False)]


@pytest.mark.parametrize(("stride", "before"), [(5, True), *EVERY], ids=["some", "before", "after"])
def test_a_kill_at_any_rename_is_made_up_for(tmp_path, small_shards, stride, before):
    """Datasets are the same to the byte, whenever the process was killed."""
    values = cells(60, 250).astype(np.float32)
    values[20:30, 20:40] = -9999
    path = write_dem(tmp_path / "alps.tif", values, nodata=-9999)
    prepare_dem(tmp_path / "whole", [path], plan=MANY)
    expected = files_below(tmp_path / "whole")
    assert list(expected) == ["test/test.h5", "train/train.h5", "valid/valid.h5"]
    step, kept = 1, set()
    root = tmp_path / "killed"
    while killed_at(step, root, path, before):
        (work,) = leftovers(root) or [None]
        kept.add(len(list(work.glob("*.npz"))) if work else None)
        if work:
            with pytest.raises(InputError, match="holds an unfinished preparation: --resume carries it on"):
                prepare_dem(root, [path], plan=MANY)
        prepare_dem(root, [path], plan=MANY, resume=True)
        assert files_below(root) == expected
        for split in ("train", "valid", "test"):
            (root / split / f"{split}.h5").unlink()
            (root / split).rmdir()
        root.rmdir()
        step += stride
    # registration, shards, summary, three files, commit, three files in place
    assert step > 12
    assert max(kept - {None}) >= 4


def test_finished_shards_are_not_made_again(tmp_path, small_shards, monkeypatch):
    path = write_dem(tmp_path / "alps.tif", cells(60, 250).astype(np.float32))
    made = []
    cut = shards.cut

    def counted(pair, job, plan, stop=6):
        made.append(job)
        if stop and len(made) > stop:
            raise Killed
        return cut(pair, job, plan)

    monkeypatch.setattr(shards, "cut", counted)
    with pytest.raises(Killed):
        prepare_dem(tmp_path / "out", [path], plan=MANY)
    first = list(made)
    made.clear()
    monkeypatch.setattr(shards, "cut", lambda *rest: counted(*rest, stop=0))
    prepare_dem(tmp_path / "out", [path], plan=MANY, resume=True)
    whole = [job for split, own in MANY.blocks("alps", 12, 50, None).items() for job in MANY.jobs("alps", split, own)]
    again = set(first) & set(made)
    assert set(first) | set(made) == set(whole)
    assert len(again) < len(first)


def test_a_resumed_preparation_that_is_complete_says_so(tmp_path, alps):
    path, _ = alps
    first = prepare_dem(tmp_path / "out", [path], plan=SMALL)
    before = files_below(tmp_path / "out")
    assert prepare_dem(tmp_path / "out", [path], plan=SMALL, resume=True) == first
    assert files_below(tmp_path / "out") == before
    with pytest.raises(InputError, match="is there already; choose another folder, or --overwrite"):
        prepare_dem(tmp_path / "out", [path], plan=SMALL)
    with pytest.raises(InputError, match="is there already"):
        prepare_dem(tmp_path / "out", [path], plan=DemPlan(patch=4), resume=True)


def test_what_another_plan_left_is_not_taken_over(tmp_path, alps, monkeypatch):
    path, _ = alps

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stages, "summarise", killed)
        with pytest.raises(Killed):
            prepare_dem(tmp_path / "out", [path], plan=SMALL)
    assert len(leftovers(tmp_path / "out")) == 1
    other = DemPlan(patch=8, shares=(0.5, 0.25, 0.25))
    for resume in (True, False):
        with pytest.raises(InputError, match="holds an unfinished preparation of another plan or of other files"):
            prepare_dem(tmp_path / "out", [path], plan=other, resume=resume)
    assert len(leftovers(tmp_path / "out")) == 1
    prepare_dem(tmp_path / "out", [path], plan=other, resume=True, overwrite=True)
    assert [entry.name for entry in sorted((tmp_path / "out").iterdir())] == ["test", "train", "valid"]


def test_overwriting_replaces_all_splits(tmp_path, alps):
    path, _ = alps
    prepare_dem(tmp_path / "out", [path], plan=SMALL)
    prepare_dem(tmp_path / "out", [path], plan=DemPlan(patch=8, shares=(0.7, 0.3, 0)), overwrite=True)
    assert sorted(files_below(tmp_path / "out")) == ["train/train.h5", "valid/valid.h5"]


@pytest.mark.parametrize(("module", "target"), [(shards, "write_shard"), (stages, "assemble")], ids=["shard", "file"])
def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path, alps, monkeypatch, module, target):
    path, _ = alps

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, target, full)
    with pytest.raises(InputError, match=r"cannot write .*out.*: No space left on device"):
        prepare_dem(tmp_path / "deep" / "out", [path], plan=SMALL)
    assert not (tmp_path / "deep").exists()


def test_nan_may_be_called_nodata(tmp_path, alps):
    values = np.where(cells(60, 60) > 1100, np.nan, 7).astype(np.float32)
    path = write_dem(tmp_path / "nan.tif", values)
    prepare_dem(tmp_path / "out", [path], plan=DemPlan(patch=8, shares=(1, 0, 0), minimum_valid=0), nodata=np.nan)
    data, attributes = read(tmp_path / "out", "train")
    assert json.loads(attributes["provenance"])["parameters"]["nodata"] == ["nan"]
    assert 0 < data["mask_40"].mean() < 1


def test_provenance_names_files_and_not_where_they_lie(tmp_path, alps):
    path, _ = alps
    prepare_dem(tmp_path / "out", [path], plan=SMALL, nodata=-9999)
    _, attributes = read(tmp_path / "out", "test")
    said = json.loads(attributes["provenance"])
    (file,) = said["files"]
    assert (file["name"], file["bytes"], len(file["sha256"])) == ("alps.tif", path.stat().st_size, 64)
    assert said["parameters"]["patch"] == 8
    assert said["parameters"]["nodata"] == [-9999]
    assert said["earthsr"]
    assert said["result"]["counts"].keys() == {"train", "valid", "test"}
    assert str(tmp_path) not in json.dumps(said)
    assert attributes["source"] == "fine cells of alps.tif; coarse cells: means of 5 x 5 fine cells"


def test_long_provenance_goes_into_a_dataset(tmp_path, alps, monkeypatch):
    from earthsr.dem.prepare import output

    path, _ = alps
    monkeypatch.setattr(output, "MOST_BYTES", 500)
    first = prepare_dem(tmp_path / "out", [path], plan=SMALL)
    data, attributes = read(tmp_path / "out", "test")
    assert json.loads(attributes["provenance"]) == "in the dataset provenance"
    assert json.loads(data["provenance"])["files"][0]["name"] == "alps.tif"
    assert prepare_dem(tmp_path / "out", [path], plan=SMALL, resume=True) == first
