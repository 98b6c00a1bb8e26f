"""A folder of tiles: each cell in one, by its centre; one raster through the VRT; found through the catalogue."""

import json

import numpy as np
import pytest

from earthsr.dem.predict.plan import PredictOptions
from earthsr.dem.predict.rasters import dry_run, predict_raster
from earthsr.errors import InputError
from tests.dem.predict.conftest import hills, read_band, write_raster

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.usefixtures("small_pieces")

OPTIONS = PredictOptions(tile=12)


def test_tiles_are_the_raster_through_their_vrt(model, coarse, tmp_path):
    predict_raster(model, coarse, tmp_path / "whole.tif", OPTIONS)
    predict_raster(model, coarse, tmp_path / "tiles", OPTIONS, tiles=0.05)
    names = sorted(path.name for path in (tmp_path / "tiles").glob("*.tif"))
    assert names[0] == "N46.80E007.00.tif"
    assert len(names) == 4 * 5
    with rasterio.open(tmp_path / "whole.tif") as whole, rasterio.open(tmp_path / "tiles" / "tiles.vrt") as seen:
        assert seen.shape == whole.shape
        assert seen.transform.almost_equals(whole.transform, 1e-12)
        assert (seen.crs, seen.nodata) == (whole.crs, whole.nodata)
        assert (seen.units, seen.descriptions) == (("m",), ("elevation",))
        assert seen.tags()["source"] == "coarse.tif"
        np.testing.assert_allclose(seen.read(1), whole.read(1), atol=1e-2)  # batches of another size
        assert seen.overviews(1)
    with rasterio.open(tmp_path / "tiles" / "N46.90E007.10.tif") as file:
        assert file.bounds == pytest.approx((7.1, 46.9, 7.15, 46.95))
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags()["source"] == "coarse.tif"


def test_the_catalogue_names_them(model, coarse, tmp_path):
    pystac = pytest.importorskip("pystac")
    predict_raster(model, coarse, tmp_path / "tiles", OPTIONS, tiles=0.1)
    collection = pystac.Collection.from_file(str(tmp_path / "tiles" / "collection.json"))
    items = {item.id: item for item in collection.get_items()}
    files = sorted((tmp_path / "tiles").glob("*.tif"))
    assert sorted(items) == [path.stem for path in files]
    for path in files:
        asset = items[path.stem].assets["elevation"]
        assert asset.get_absolute_href() == str(path)
        assert asset.extra_fields["file:size"] == path.stat().st_size
        with rasterio.open(path) as file:
            assert items[path.stem].bbox == pytest.approx(list(file.bounds))
            assert items[path.stem].properties["proj:shape"] == list(file.shape)
    west, south, east, north = collection.extent.spatial.bboxes[0]
    assert (west, south, east, north) == pytest.approx((7, 47 - 40 / 240, 7 + 56 / 240, 47))
    # Where it was made is nobody's business.
    assert str(tmp_path) not in (tmp_path / "tiles" / "collection.json").read_text()
    assert str(tmp_path) not in next((tmp_path / "tiles" / "items").iterdir()).read_text()


def test_a_globe_of_nodes_has_each_cell_once_and_none_beyond_a_pole(model, tmp_path):
    """Nodes on poles and dateline, the last column that of the first: cells of 5 degrees, fine ones of 2.5."""
    rows, columns = np.mgrid[90:-91:-5, -180:181:5]
    values = 500 + 300 * np.sin(np.deg2rad(rows)) + 200 * np.cos(np.deg2rad(columns))
    source = write_raster(tmp_path / "globe.tif", values, west=-182.5, north=92.5, cell=5.0)
    predict_raster(model, source, tmp_path / "whole.tif", OPTIONS)
    predict_raster(model, source, tmp_path / "tiles", OPTIONS, tiles=45)
    names = sorted(path.stem for path in (tmp_path / "tiles").glob("*.tif"))
    assert len(names) == 4 * 8
    assert {"S90W180", "N45E135", "S45E000"} <= set(names)
    with rasterio.open(tmp_path / "whole.tif") as file:
        whole, (west, _, _, north) = file.read(1), file.bounds
        assert file.bounds.top <= 90 + 1e-9
        assert file.bounds.bottom >= -90 - 1e-9
    seen = np.zeros(whole.shape, int)
    for name in names:
        with rasterio.open(tmp_path / "tiles" / f"{name}.tif") as file:
            values, bounds = file.read(1), file.bounds
        latitude = (bounds.bottom + bounds.top) / 2
        south = int(name[1:3]) * (1 if name[0] == "N" else -1)
        assert south <= latitude < south + 45
        top, left = round((north - bounds.top) / 2.5), round((bounds.left - west) / 2.5)
        place = np.ix_(range(top, top + values.shape[0]), np.arange(left, left + values.shape[1]) % whole.shape[1])
        seen[place] += 1
        np.testing.assert_allclose(values, whole[place], atol=1e-2)
    assert (seen == 1).all()
    with rasterio.open(tmp_path / "tiles" / "tiles.vrt") as file:
        assert file.shape == whole.shape
        assert file.bounds.left == pytest.approx(-180 - 1.25, abs=1.26)


def test_a_box_across_the_dateline_has_names_on_both_sides(model, tmp_path):
    values = hills(36, 72)
    source = write_raster(tmp_path / "globe.tif", values, west=-180, north=90, cell=5.0)
    predict_raster(model, source, tmp_path / "tiles", OPTIONS, bbox=(150, -30, -150, 30), tiles=30)
    names = sorted(path.stem for path in (tmp_path / "tiles").glob("*.tif"))
    assert names == ["N00E150", "N00W180", "S30E150", "S30W180"]
    with rasterio.open(tmp_path / "tiles" / "N00W180.tif") as file:
        assert file.bounds == pytest.approx((-180, 0, -150, 30))
    with rasterio.open(tmp_path / "tiles" / "tiles.vrt") as file:
        assert file.shape == (24, 24)


def test_a_tile_without_a_value_is_not_there(model, tmp_path):
    values = hills(24, 48)
    values[:, 24:] = np.nan
    source = write_raster(tmp_path / "half.tif", values, cell=1 / 240)
    predict_raster(model, source, tmp_path / "tiles", OPTIONS, tiles=0.1)
    names = [path.stem for path in sorted((tmp_path / "tiles").glob("*.tif"))]
    assert names == ["N46.9E007.0"]
    assert np.isfinite(read_band(tmp_path / "tiles" / f"{names[0]}.tif")).all()
    assert len(json.loads((tmp_path / "tiles" / "collection.json").read_text())["links"]) >= 2


@pytest.mark.parametrize(
    ("degrees", "name", "words"),
    [
        (7, "tiles", "--tiles is 7, expected degrees of which 180 is a multiple"),
        (0, "tiles", "--tiles is 0"),
        (180, "tiles", "a tile would have 86400 cells a side"),
        (0.1, "fine.tif", "--tiles writes a folder of tiles; give a name without .tif"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(model, coarse, tmp_path, degrees, name, words):
    before = sorted(tmp_path.iterdir())
    for work in (predict_raster, dry_run):
        with pytest.raises(InputError, match=words):
            work(model, coarse, tmp_path / name, OPTIONS, tiles=degrees)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_of_something_else_is_not_replaced(model, coarse, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="mine is a folder of something else"):
        predict_raster(model, coarse, tmp_path / "mine", OPTIONS, tiles=0.1, overwrite=True)
    predict_raster(model, coarse, tmp_path / "tiles", OPTIONS, tiles=0.1)
    predict_raster(model, coarse, tmp_path / "tiles", OPTIONS, tiles=0.05, overwrite=True)
    assert (tmp_path / "tiles" / "N46.90E007.10.tif").is_file()
