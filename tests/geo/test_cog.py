"""Cloud-optimised GeoTIFF put together from compressed pieces, read by GDAL."""

import struct

import numpy as np
import pytest

from earthsr.geo import Georeference, cog

rasterio = pytest.importorskip("rasterio")


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(cog, "TILE", 16)


def made(folder, values, side, bands=("elevation",), nodata=-9999.0, crs="EPSG:4326"):
    rows, columns = values.shape[1:]
    wkt = rasterio.crs.CRS.from_string(crs).to_wkt()
    grid = Georeference(7, 48, 0.01, 0.01, rows, columns, wkt, attributes={"standard_name": "height"})
    paths, corners = [], []
    for row in range(0, rows, side):
        for column in range(0, columns, side):
            path = folder / f"{row}-{column}"
            part = values[:, row : row + side, column : column + side]
            path.write_bytes(cog.pack(part, row, column, side, bands, nodata))
            paths.append(path)
            corners.append((row, column))
    target = folder / "o.tif"
    cog.assemble(target, paths, corners, side, grid, bands, nodata, {"mode": "made up"})
    for path in paths:
        path.unlink()
    assert [path.name for path in folder.iterdir()] == ["o.tif"]
    return target


def field(rows, columns):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1, rows, columns)).cumsum(axis=2).astype(np.float32)
    values[0, 3:9, 5:11] = np.nan
    values[0, -1, -1] = -9999.0
    return values


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("rows", "columns", "side"), [(150, 211, 64), (150, 211, 16), (9, 12, 32), (33, 16, 32)])
def test_gdal_reads_what_was_packed(tmp_path, monkeypatch, rows, columns, side, big):
    if big:
        monkeypatch.setattr(cog, "_CLASSIC", 100)
    values = field(rows, columns)
    target = made(tmp_path, values, side)
    assert target.read_bytes()[2] == (43 if big else 42)
    with rasterio.open(target) as file:
        stored = file.read(1)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags()["mode"] == "made up"
        assert file.tags(1)["standard_name"] == "height"
        assert (file.descriptions, file.units, file.crs.to_epsg()) == (("elevation",), ("m",), 4326)
        assert file.transform.almost_equals(rasterio.Affine(0.01, 0, 7, 0, -0.01, 48))
        levels = len(file.overviews(1))
    void = np.isnan(values[0])
    assert (stored[void] == -9999).all()
    # A value that is the void's number moves to the next one.
    assert stored[-1, -1] == np.nextafter(np.float32(-9999), np.float32(np.inf))
    valid = ~void
    valid[-1, -1] = False
    np.testing.assert_array_equal(stored[valid], values[0][valid])
    assert levels == len(cog.shapes(rows, columns)) - 1
    expected = values
    for level in range(levels):
        expected = cog.halved(expected, ("elevation",))
        with rasterio.open(target, overview_level=level) as file:
            stored = file.read(1)
        np.testing.assert_array_equal(stored == -9999, np.isnan(expected[0]))
        np.testing.assert_allclose(stored[stored != -9999], expected[0][stored != -9999], rtol=1e-6)


def test_tiles_lie_behind_the_directories_and_the_smallest_overview_first(tmp_path):
    """What readers over a network count on; each tile between its size and its last four bytes once more."""
    target = made(tmp_path, field(150, 211), 64)
    content = target.read_bytes()
    (place,) = struct.unpack_from("<I", content, 4)
    firsts, directories = [], []
    while place:
        directories.append(place)
        (count,) = struct.unpack_from("<H", content, place)
        tags = {}
        for at in range(place + 2, place + 2 + 12 * count, 12):
            number, kind, length, value = struct.unpack_from("<HHII", content, at)
            tags[number] = (kind, length, value)
        assert list(tags) == sorted(tags)
        lists = []
        for number in (324, 325):
            _, length, value = tags[number]
            lists.append([value] if length == 1 else list(struct.unpack_from(f"<{length}I", content, value)))
        for offset, size in zip(*lists, strict=True):
            assert struct.unpack_from("<I", content, offset - 4)[0] == size
            assert content[offset + size - 4 : offset + size] == content[offset + size : offset + size + 4]
        assert lists[0] == sorted(lists[0])
        firsts.append(lists[0][0])
        (place,) = struct.unpack_from("<I", content, place + 2 + 12 * count)
    assert directories == sorted(directories)
    assert firsts == sorted(firsts, reverse=True)
    assert max(directories) < min(firsts)


def test_codes_are_not_averaged(tmp_path):
    values = np.concatenate([field(40, 40), np.zeros((1, 40, 40), np.float32)])
    values[1, 10:, 11:] = 2
    values[1][np.isnan(values[0])] = np.nan
    target = made(tmp_path, values, 32, ("elevation", "source"))
    with rasterio.open(target) as file:
        assert file.units == ("m", "1")
        np.testing.assert_array_equal(file.read(2)[~np.isnan(values[1])], values[1][~np.isnan(values[1])])
    with rasterio.open(target, overview_level=0) as file:
        assert set(np.unique(file.read(2))) == {-9999.0, 0.0, 2.0}
