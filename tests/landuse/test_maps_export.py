"""Copies of annual maps for tools of the field: one NetCDF file, and a cloud-optimised GeoTIFF a year."""

import os
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import xarray

from earthsr.errors import InputError
from earthsr.geo import Window
from earthsr.geo.grid import Grid
from earthsr.landuse.classes import HILDA_PLUS, ClassTable, LandClass
from earthsr.landuse.maps import MapsSpec, create_maps, export_geotiffs, export_netcdf, open_maps
from tests.landuse.test_maps_refused import ordinary_user, small_disk
from tests.landuse.test_maps_store import (
    ALL,
    GLOBE,
    REGION,
    SPEC,
    WHOLE,
    below,
    classes_of,
    filled,
)

CODES = np.array([11, 22, 33, 40, 55, 66, 77, *[255] * 249], np.uint8)
PROVENANCE = {"title": "Maps", "history": "made", "provenance": {"checkpoint": "best", "loss": float("nan")}}


@pytest.fixture(scope="module")
def globe(tmp_path_factory):
    """Finished maps of the globe with all layers; those of 1850 and 1851 have no value."""
    maps = filled(tmp_path_factory.mktemp("globe") / "m.zarr", ALL)
    maps.finish(PROVENANCE)
    return maps


@pytest.fixture(scope="module")
def region(tmp_path_factory):
    """Finished maps across the dateline, 170 to 190 degrees."""
    maps = filled(tmp_path_factory.mktemp("region") / "m.zarr", replace(SPEC, grid=REGION))
    maps.finish(PROVENANCE)
    return maps


def large(path, rows, columns, years=(1850,), side=256):
    """Finished maps of noise that does not compress much."""
    spec = MapsSpec(Grid(-10.0, 50.0, 0.01, 0.01, rows, columns), "EPSG:4326", years, HILDA_PLUS, (side, side))
    create_maps(path, spec, {})
    maps = open_maps(path)
    for year in years:
        noise = np.random.default_rng(year).integers(0, len(HILDA_PLUS), (rows, columns), np.uint8)
        maps.write("land_use", year, Window(0, 0, rows, columns), noise)
    maps.finish({})
    return maps


# NetCDF.


def test_netcdf_is_the_store_to_the_last_byte(globe, tmp_path):
    assert export_netcdf(globe, tmp_path / "m.nc") == tmp_path / "m.nc"
    assert below(tmp_path) == ["m.nc"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored = xarray.open_zarr(globe.path, mask_and_scale=False, decode_times=False, chunks=None)
        copied = xarray.open_dataset(tmp_path / "m.nc", mask_and_scale=False, decode_times=False)
    xarray.testing.assert_equal(stored, copied)
    assert set(stored.variables) == set(copied.variables)
    for name in stored.variables:
        first, second = stored[name], copied[name]
        assert (first.dtype.kind, first.dims) == (second.dtype.kind, second.dims) or name == "class_name"
        assert set(first.attrs) == set(second.attrs), name
        for key in first.attrs:
            # Numbers are JSON in one, and of NumPy's types in the other; float32(0.004) is 0.004 to 1e-7.
            if isinstance(first.attrs[key], str):
                assert second.attrs[key] == first.attrs[key]
            else:
                np.testing.assert_allclose(second.attrs[key], first.attrs[key], rtol=1e-7)
    assert copied.land_use.attrs["flag_values"].dtype == copied.land_use.dtype == np.uint8
    assert copied.attrs == {**stored.attrs, "earthsr_complete": 1}
    assert copied.attrs["provenance"] == '{"checkpoint": "best", "loss": null}'


def test_texts_of_netcdf_are_characters(globe, tmp_path):
    """NCO keeps the CRS, the bounds and the years of a part only where it can read who names them."""
    export_netcdf(globe, tmp_path / "m.nc")
    with h5py.File(tmp_path / "m.nc") as file:
        places = [file, *(item for item in file.values() if isinstance(item, h5py.Dataset))]
        kinds = {(at.name, key): at.attrs.get_id(key).get_type() for at in places for key in at.attrs}
        texts = {place: kind for place, kind in kinds.items() if isinstance(kind, h5py.h5t.TypeStringID)}
        assert {key for _, key in texts} >= {"grid_mapping", "bounds", "coordinates", "units", "Conventions"}
        assert not [place for place, kind in texts.items() if kind.is_variable_str()]
        assert file.attrs["Conventions"] == b"CF-1.9", "the first version with unsigned bytes"


def test_xarray_copies_a_store_into_netcdf(globe, tmp_path):
    with xarray.open_zarr(globe.path, chunks=None) as dataset:
        dataset.to_netcdf(tmp_path / "copy.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "copy.nc") as copied:
        assert copied.attrs["earthsr_complete"] == 1


def test_netcdf_decodes_and_is_compressed_in_chunks(globe, tmp_path):
    export_netcdf(globe, tmp_path / "m.nc")
    dataset = xarray.open_dataset(tmp_path / "m.nc", decode_coords="all")
    np.testing.assert_array_equal(dataset.time.dt.year, ALL.years)
    assert str(dataset.time_bnds.values[0, 1])[:10] == "1850-01-01"
    masked = dataset.land_use.sel(time="1904-01-01").values
    codes = CODES[classes_of(1904)].astype(np.float32)
    np.testing.assert_array_equal(masked, np.where(codes == 255, np.nan, codes))
    assert dataset.confidence.dtype == dataset.probabilities.dtype == np.float32
    # Two ways to multiply by 0.004 differ in the last bit of float32.
    np.testing.assert_allclose(dataset.confidence[3], globe.read("confidence", 1904, WHOLE), rtol=1e-6)
    np.testing.assert_allclose(dataset.probabilities[3], globe.read("probabilities", 1904, WHOLE), rtol=1e-6)
    np.testing.assert_array_equal(dataset.class_name, HILDA_PLUS.names)
    for name, chunks in (("land_use", (1, 16, 32)), ("probabilities", (1, 1, 16, 32))):
        said = dataset[name].encoding
        assert (said["chunksizes"], said["zlib"], said["_FillValue"]) == (chunks, True, 255)


@pytest.mark.parametrize("which", ["globe", "region"])
def test_gdal_reads_place_and_values_of_netcdf(which, request, tmp_path):
    maps = request.getfixturevalue(which)
    export_netcdf(maps, tmp_path / "m.nc")
    grid = maps.spec.grid
    with rasterio.open(f'NETCDF:"{tmp_path / "m.nc"}":land_use') as file:
        assert file.crs.to_epsg() == 4326
        assert (file.count, file.nodata) == (4, 255)
        np.testing.assert_allclose(file.transform[:6], grid.transform, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(file.read(4), CODES[classes_of(1904, grid)])


def test_qgis_finds_colours_and_names_beside_each_map(region, tmp_path):
    export_geotiffs(region, tmp_path / "m.tif")
    style = ElementTree.parse(tmp_path / "m_1904.qml").getroot()
    renderer = style.find("pipe/rasterrenderer")
    assert (style.tag, renderer.get("type"), renderer.get("band")) == ("qgis", "paletted", "1")
    entries = {
        int(entry.get("value")): (entry.get("label"), entry.get("color")) for entry in renderer.iter("paletteEntry")
    }
    assert entries == {each.code: (each.name, each.colour) for each in HILDA_PLUS.classes}


def test_large_chunks_are_divided_in_netcdf(tmp_path):
    """Readers keep few cells in memory: 2048 x 2048 become four of 1024 x 1024."""
    maps = large(tmp_path / "m.zarr", 2100, 1030, side=2048)
    export_netcdf(maps, tmp_path / "m.nc")
    dataset = xarray.open_dataset(tmp_path / "m.nc", mask_and_scale=False)
    assert dataset.land_use.encoding["chunksizes"] == (1, 1024, 1024)
    np.testing.assert_array_equal(dataset.land_use[0], maps.stored("land_use", 1850, Window(0, 0, 2100, 1030)))


# GeoTIFF.


def test_geotiffs_hold_codes_colours_and_place(region, tmp_path):
    made = export_geotiffs(region, tmp_path / "m.tif")
    assert made == [tmp_path / f"m_{year}.tif" for year in (1849, 1850, 1851, 1904)]
    assert below(tmp_path) == sorted(
        name for path in made for name in (path.name, f"{path.name}.aux.xml", f"{path.stem}.qml")
    )
    with rasterio.open(made[3]) as file:
        assert (file.dtypes, file.nodata, file.count) == (("uint8",), 255, 1)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.crs.to_epsg() == 4326
        assert file.transform[:6] == REGION.transform
        assert tuple(file.bounds) == pytest.approx((170, 5, 190, 10))
        np.testing.assert_array_equal(file.read(1), CODES[classes_of(1904, REGION)])
        np.testing.assert_array_equal(file.dataset_mask() == 0, classes_of(1904, REGION) == 255)
        assert [colour.name for colour in file.colorinterp] == ["palette"]
        colours = file.colormap(1)
        for each in HILDA_PLUS.classes:
            assert "#{:02x}{:02x}{:02x}{:02x}".format(*colours[each.code]) == f"{each.colour}ff"
        assert colours[255][3] == 0
        said = file.tags()
        assert (said["year"], said["title"], said["history"]) == ("1904", "Maps", "made")
        assert said["provenance"] == '{"checkpoint": "best", "loss": null}'
        assert file.tags(1)["flag_values"] == "11 22 33 40 55 66 77"
        assert file.tags(1)["flag_meanings"].split()[4] == "grass_shrub"
    with rasterio.open(made[1]) as file:
        assert (file.read(1) == 255).all()


def test_gdal_finds_names_of_classes(region, tmp_path):
    made = export_geotiffs(region, tmp_path / "m.tif")
    rasterio.shutil.copy(made[0], tmp_path / "m.vrt", driver="VRT")  # says what GDAL itself has read
    names = re.findall(r"<Category(?:>(.*?)</Category>| */>)", (tmp_path / "m.vrt").read_text())
    assert {code: name for code, name in enumerate(names) if name} == {
        each.code: each.name for each in HILDA_PLUS.classes
    }


def test_overviews_show_the_most_frequent_class(tmp_path):
    """Never an average: of codes or colours it is another class, and at coasts one with what has no value."""
    table = ClassTable("t", tuple(LandClass(c, (10 * i,), c) for i, c in enumerate(("#000000", "#ffffff", "#404040"))))
    grid = Grid(0.0, 50.0, 0.01, 0.01, 1024, 1100)
    create_maps(tmp_path / "m.zarr", MapsSpec(grid, "EPSG:4326", (1850,), table, (512, 512)), {})
    maps = open_maps(tmp_path / "m.zarr")
    classes = np.zeros((1024, 1100), np.uint8)
    classes[::2, ::2] = 1  # white is one of four, and their average the grey of the third class
    classes[:, 600:] = 255
    classes[1::2, 700] = 1  # alone among cells without a value
    maps.write("land_use", 1850, Window(0, 0, 1024, 1100), classes)
    maps.finish({})
    export_geotiffs(maps, tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m_1850.tif") as file:
        assert file.overviews(1) == [2, 4]
        assert file.block_shapes == [(512, 512)]
        np.testing.assert_array_equal(file.read(1), maps.stored("land_use", 1850, Window(0, 0, 1024, 1100)))
    with rasterio.open(tmp_path / "m_1850.tif", overview_level=0) as file:
        half = file.read(1)
    assert (half[:, :300] == 0).all()
    assert (half[:, 350] == 10).all()
    assert (half == 255).sum() == 512 * 249


def test_confidence_has_files_of_its_own(globe, tmp_path):
    made = export_geotiffs(globe, tmp_path / "m.tif")
    assert [path.name for path in made[4:]] == [f"m_confidence_{year}.tif" for year in ALL.years]
    assert not list(tmp_path.glob("*probabilities*"))
    with rasterio.open(tmp_path / "m_confidence_1904.tif") as file:
        assert (file.dtypes, file.nodata, file.tags()["year"]) == (("uint8",), 255, "1904")
        values = file.read(1, masked=True) * np.float32(file.scales[0])
    np.testing.assert_allclose(values.filled(np.nan), globe.read("confidence", 1904, WHOLE), rtol=1e-6)


def test_gdal_reads_the_store_itself_where_it_knows_its_codecs(globe):
    try:
        file = rasterio.open(f'ZARR:"{globe.path}":/land_use')
    except rasterio.errors.RasterioIOError as error:
        pytest.skip(f"GDAL {rasterio.__gdal_version__} does not read Zarr of version 3 ({error})")
    with file:
        np.testing.assert_array_equal(file.read(4), CODES[classes_of(1904)])
        assert file.crs.to_epsg() == 4326
        np.testing.assert_allclose(file.transform[:6], GLOBE.transform, rtol=0, atol=1e-9)


# What is refused, and what a failure leaves.


def test_maps_that_are_not_finished_are_not_copied(tmp_path):
    create_maps(tmp_path / "m.zarr", SPEC, {})
    maps = open_maps(tmp_path / "m.zarr")
    for export, name in ((export_netcdf, "m.nc"), (export_geotiffs, "m.tif")):
        with pytest.raises(InputError, match=r"m.zarr: is not finished, maps may be missing; let earthsr reconstruct"):
            export(maps, tmp_path / "out" / name)
    assert not (tmp_path / "out").exists()


def test_copies_are_replaced_only_on_demand(region, tmp_path):
    (tmp_path / "m.nc").write_text("old")
    with pytest.raises(InputError, match=r"m.nc is there already; choose another name, or --overwrite"):
        export_netcdf(region, tmp_path / "m.nc")
    assert (tmp_path / "m.nc").read_text() == "old"
    export_netcdf(region, tmp_path / "m.nc", overwrite=True)
    assert xarray.open_dataset(tmp_path / "m.nc").sizes["time"] == 4
    (tmp_path / "m_1904.tif").write_text("old")
    (tmp_path / "m_1904.tif.aux.xml").write_text("old")
    with pytest.raises(InputError, match=r"m_1904.tif is there already; choose another name, or --overwrite"):
        export_geotiffs(region, tmp_path / "m.tif")
    assert below(tmp_path) == ["m.nc", "m_1904.tif", "m_1904.tif.aux.xml"]
    (tmp_path / "m_1904.qml").write_text("own style")
    export_geotiffs(region, tmp_path / "m.tif", overwrite=True)
    assert (tmp_path / "m_1904.qml").read_text() == "own style"
    assert rasterio.open(tmp_path / "m_1904.tif").tags()["year"] == "1904"
    assert "forest" in (tmp_path / "m_1904.tif.aux.xml").read_text()
    with pytest.raises(InputError, match=r"m.png: suffix '.png' is none of a GeoTIFF, expected NAME.tif"):
        export_geotiffs(region, tmp_path / "m.png")


def test_a_disk_that_does_not_take_a_copy_gets_one_line(tmp_path):
    maps = large(tmp_path / "m.zarr", 512, 512)
    (tmp_path / "out").mkdir()
    for export, name in ((export_netcdf, "m.nc"), (export_geotiffs, "m.tif")):
        with small_disk(60_000), pytest.raises(InputError, match=r"cannot write .*m(_1850)?\.(nc|tif): ") as caught:
            export(maps, tmp_path / "out" / name)
        assert "\n" not in str(caught.value)
        assert below(tmp_path / "out") == []
    if os.geteuid():
        (tmp_path / "out").chmod(0o555)
        with ordinary_user(), pytest.raises(InputError, match=r"cannot write .*m.nc: Permission denied"):
            export_netcdf(maps, tmp_path / "out" / "m.nc")


def test_a_damaged_chunk_is_not_copied(tmp_path):
    maps = filled(tmp_path / "m.zarr")
    maps.finish({})
    next(file for file in (tmp_path / "m.zarr" / "land_use" / "c" / "3").rglob("*") if file.is_file()).write_bytes(b"")
    for export, name in ((export_netcdf, "m.nc"), (export_geotiffs, "m.tif")):
        with pytest.raises(InputError, match="land_use of 1904 cannot be read"):
            export(maps, tmp_path / "out" / name)
    assert below(tmp_path / "out") == sorted(
        f"m_{year}{end}" for year in SPEC.years[:3] for end in (".qml", ".tif", ".tif.aux.xml")
    )


EXPORT = """
import sys
from earthsr.landuse.maps import export_geotiffs, open_maps
export_geotiffs(open_maps(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.slow
def test_a_kill_leaves_whole_geotiffs_only(tmp_path):
    maps = large(tmp_path / "m.zarr", 768, 768, tuple(range(1850, 1880)))
    out = tmp_path / "out"
    child = subprocess.Popen([sys.executable, "-c", EXPORT, str(maps.path), str(out / "m.tif")])
    end = time.monotonic() + 60
    while not list(out.glob("m_*.tif")) and time.monotonic() < end:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    made = sorted(out.glob("m_*.tif"))
    assert 1 <= len(made) < 30
    for path in made:
        year = int(path.stem[2:])
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(1), maps.stored("land_use", year, Window(0, 0, 768, 768)))
    export_geotiffs(maps, out / "m.tif", overwrite=True)
    assert len(list(out.glob("m_*.tif"))) == 30


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
import earthsr.geo.crs
from earthsr.geo.grid import Grid
from earthsr.landuse.classes import HILDA_PLUS
from earthsr.landuse.maps import MapsSpec, create_maps, export_geotiffs, export_netcdf, open_maps
folder, count, side = Path(sys.argv[1]), int(sys.argv[2]), 1024
earthsr.geo.crs._CACHE_BYTES = 2**23
grid = Grid(-10.0, 50.0, 0.001, 0.001, side * count, side * count)
create_maps(folder / "m.zarr", MapsSpec(grid, "EPSG:4326", (1850,), HILDA_PLUS, (side, side)), {})
maps = open_maps(folder / "m.zarr")
fields = np.random.default_rng(0).integers(0, 7, (64, 64), np.uint8).repeat(16, 0).repeat(16, 1)
for i in range(count**2):
    maps.write("land_use", 1850, (side * (i // count), side * (i % count), side, side), (fields + i) % 7)
maps.finish({})
export_netcdf(maps, folder / "m.nc")
export_geotiffs(maps, folder / "m.tif")
# Not of resource.getrusage, where what the parent process had counts too.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_grid(tmp_path):
    peaks = []
    for count in (4, 10):
        (tmp_path / str(count)).mkdir()
        words = [sys.executable, "-c", MEMORY, str(tmp_path / str(count)), str(count)]
        peaks.append(float(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    # The larger one has 84 MiB more of cells, and both fill a cache of GDAL's of 8 MiB; allocators account for some.
    assert peaks[1] - peaks[0] < 40, peaks
