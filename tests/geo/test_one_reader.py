"""The contract of reading: one file gives the same values to every command, whatever its format says in which way.

Two readers once disagreed on each of these probes. Each goes through the entry of each command here: what
``prepare dem``, ``prepare landuse``, ``predict``, ``reconstruct``, the emulator and ``info`` make of it.
"""

import json
import warnings
from dataclasses import dataclass, field
from typing import Any

import h5netcdf
import h5py
import numpy as np
import pytest
import rasterio
import xarray
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from earthsr.check.info import describe_file
from earthsr.dem.prepare import DemPlan, prepare_dem
from earthsr.geo import Window
from earthsr.landuse.classes import ClassTable
from earthsr.landuse.emulator.maps import read_map, read_protected, read_static
from earthsr.landuse.prepare import prepare_landuse
from earthsr.landuse.sources.rasters import ClassMaps
from earthsr.landuse.sources.world_inputs import Inputs, open_world
from earthsr.landuse.write import SplitPlan
from tests.cli.test_predict_rasters import write_model
from tests.conftest import call_cli

ROWS, COLUMNS, CELL, WEST, NORTH = 40, 60, 0.1, 5.0, 50.0
LATITUDES = NORTH - CELL * (np.arange(ROWS) + 0.5)
LONGITUDES = WEST + CELL * (np.arange(COLUMNS) + 0.5)
NORTHWARDS = {"units": "degrees_north", "standard_name": "latitude"}
EASTWARDS = {"units": "degrees_east", "standard_name": "longitude"}


@dataclass(frozen=True)
class Probe:
    """A file, made when it is needed."""

    name: str
    usual: float
    """Value of all cells but one, and of that one; NaN where it has none."""
    odd: float
    attributes: dict[str, Any] = field(default_factory=dict)
    fill: Any = None
    stored: tuple[Any, Any] = (500, -32768)
    dtype: str = "i2"
    ascending: bool = False
    west: float = WEST
    names: tuple[str, str] = ("lat", "lon")
    axes: tuple[dict[str, str], dict[str, str]] = (NORTHWARDS, EASTWARDS)

    @property
    def values(self):
        """Expected (rows, columns)."""
        values = np.full((ROWS, COLUMNS), self.usual, np.float32)
        values[0, 1] = self.odd
        return values

    def write(self, folder):
        """Write the file, whose name ends as its format does."""
        stored = np.full((ROWS, COLUMNS), self.stored[0], self.dtype)
        stored[0, 1] = self.stored[1]
        path = folder / self.name
        if self.name.endswith(".tif"):
            return write_tif(path, stored, self.name)
        if self.name.endswith(".zarr"):
            axes = {
                name: ((name,), at, said) for name, at, said in zip(self.names, self.centres, self.axes, strict=True)
            }
            dataset = xarray.Dataset({"elevation": (self.names, stored, {"units": "m"})}, axes)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset.to_zarr(path)
            return path
        with h5netcdf.File(path, "w") as file:
            file.dimensions = dict(zip(self.names, stored.shape, strict=True))
            for name, at, said in zip(self.names, self.centres, self.axes, strict=True):
                file.create_variable(name, (name,), "f8", data=at).attrs.update(said)
            stored = stored[::-1] if self.ascending else stored
            more = {} if self.fill is None else {"fillvalue": self.fill}
            variable = file.create_variable("elevation", self.names, stored.dtype, data=stored, **more)
            variable.attrs.update({"units": "m", **self.attributes})
        return path

    @property
    def centres(self):
        """Coordinates in the file's order."""
        rows = LATITUDES[::-1] if self.ascending else LATITUDES
        return rows, LONGITUDES + (self.west - WEST)


def write_tif(path, stored, name):
    bands = 2 if "alpha" in name else 1
    profile = {"height": ROWS, "width": COLUMNS, "count": bands, "dtype": stored.dtype, "crs": "EPSG:4326"}
    # Masks are kept in the file: one beside it would be another file to carry.
    place = from_origin(WEST, NORTH, CELL, CELL)
    shown = np.full(stored.shape, 255, np.uint8)
    shown[0, 1] = 0
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", "GTiff", transform=place, **profile) as file,
    ):
        file.write(stored, 1)
        file.units = ("m",) * bands
        if "mask" in name:
            file.write_mask(shown)
        if bands == 2:
            file.write(shown, 2)
            file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    return path


NAN = float("nan")
DEGREES = ({"units": "degrees"}, {"units": "degrees"})
PROBES = [
    Probe("missing_value_beside_fill.nc", 500, NAN, {"missing_value": np.int16(-32768)}, fill=np.int16(-9999)),
    Probe("list_of_missing_values.nc", 500, NAN, {"missing_value": np.array([-9999, -32768], "i2")}),
    Probe("unsigned.nc", 200, 10, {"_Unsigned": "true"}, stored=(-56, 10), dtype="i1"),
    Probe("infinite.nc", 500, NAN, stored=(500, np.inf), dtype="f4"),
    Probe("degrees_on_y_and_x.nc", 500, 300, stored=(500, 300), dtype="f4", names=("y", "x"), axes=DEGREES),
    Probe("mask.tif", 500, NAN),
    Probe("store.zarr", 500, NAN, stored=(500, np.nan), dtype="f4"),
    Probe("alpha.tif", 7, NAN, stored=(7, 9), dtype="u1"),
    # Further ways to say the same.
    Probe("ascending.nc", 500, 300, stored=(500, 300), dtype="f4", ascending=True),
    Probe("packed.nc", 500, NAN, {"scale_factor": 0.5, "add_offset": 100.0}, fill=np.int16(-1), stored=(800, -1)),
]


def write_classes(folder):
    """Two class rasters on the grid of the probes."""
    codes = np.random.default_rng(0).choice(np.array([1, 2], np.uint8), (ROWS, COLUMNS))
    return [write_tif(folder / f"classes_{year}.tif", codes, "classes") for year in (2000, 2001)]


TABLE = ClassTable.from_mapping(
    {
        "name": "two",
        "classes": [
            {"name": "a", "codes": [1], "colour": "#00ff00"},
            {"name": "b", "codes": [2], "colour": "#ff0000"},
        ],
    },
    "test",
)


def by_prepare_dem(path, folder):
    """Truth of the patches, put together; the five by five cells of a coarse one with a void are void."""
    prepare_dem(folder / "dem", [path], plan=DemPlan(patch=4, scale=5, shares=(0.6, 0.2, 0.2), buffer=0))
    values = np.full((ROWS, COLUMNS), np.nan, np.float32)
    for split in ("train", "valid", "test"):
        with h5py.File(folder / "dem" / split / f"{split}.h5") as file:
            for fine, (west, north) in zip(file["20_20"][:, 0], file["origin"][:], strict=True):
                row, column = round((NORTH - north) / CELL), round((west - WEST) / CELL)
                values[row : row + 20, column : column + 20] = fine
    return values


def by_prepare_landuse(path, folder):
    """The static field of the tiles, put together."""
    plan = SplitPlan(tile_size=20, buffer_cells=0, shares=(0.34, 0.33, 0.33))
    classes = [str(name) for name in write_classes(folder)]
    prepare_landuse(folder / "landuse", classes, [f"elevation={path}"], table=TABLE, plan=plan)
    values = np.full((ROWS, COLUMNS), np.nan, np.float32)
    for split in ("train", "valid", "test"):
        with h5py.File(folder / "landuse" / split / f"{split}.h5") as file:
            for static, (row, column) in zip(file["static"][:, 0], file["tile_index"][:], strict=True):
                values[row : row + 20, column : column + 20] = static
    return values


def by_predict(path, folder):
    """A model that adds nothing, to surfaces of one value: the coarse cells come back."""
    model = write_model(folder / "model.safetensors", zero=True, cell=CELL, residual_over="nearest")
    words = ("predict", model, path, folder / "fine.tif", "--units", "m", "--backend", "torch")
    call_cli(*words, check=0)
    with rasterio.open(folder / "fine.tif") as file:
        fine = file.read(1, masked=True).filled(np.nan)
    return fine[2::5, 2::5]


def by_reconstruct(path, folder):
    """What a reconstruction reads as its static field."""
    scenario = xarray.Dataset(
        {"a": (("time", "lat", "lon"), np.full((3, 16, 12), 0.5, np.float32))},
        {"time": [2000, 2001, 2002], "lat": 52 - 0.5 * np.arange(16), "lon": 4 + 0.75 * np.arange(12)},
    )
    scenario.time.attrs["units"] = "years"
    scenario.to_netcdf(folder / "states.nc", engine="h5netcdf")
    anchor = write_classes(folder)[0]
    inputs = Inputs(str(anchor), (folder / "states.nc",), (f"elevation={path}",), protected=(str(path),))
    world = open_world(inputs, TABLE, static_names=["elevation"], coarse_channels=["a"])
    try:
        window = Window(0, 0, ROWS, COLUMNS)
        values = world.static(window)[0]
        np.testing.assert_array_equal(world.protected(window), np.isfinite(values) & (values != 0))
        return values
    finally:
        world.close()


def by_emulator(path, folder):
    """What an emulator reads as its static field."""
    static = read_static({"elevation": path}, ["elevation"])
    protected = read_protected(path, static.grid)
    np.testing.assert_array_equal(protected, np.isfinite(static.values[0]) & (static.values[0] != 0))
    return static.values[0]


COMMANDS = {
    "prepare dem": by_prepare_dem,
    "prepare landuse": by_prepare_landuse,
    "predict": by_predict,
    "reconstruct": by_reconstruct,
    "emulator": by_emulator,
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
@pytest.mark.filterwarnings("ignore")
def test_every_command_reads_the_same(probe, command, tmp_path):
    if command == "predict":
        pytest.importorskip("earthsr_torch")
    values, expected = COMMANDS[command](probe.write(tmp_path), tmp_path), probe.values
    if command == "prepare dem" and np.isnan(probe.odd):
        expected[:5, :5] = np.nan
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_info_reads_the_same(probe, tmp_path):
    said = describe_file(probe.write(tmp_path))
    valid = probe.values[np.isfinite(probe.values)]
    assert (said["minimum"], said["maximum"]) == (valid.min(), valid.max())
    assert said["cells_without_value"] == int(np.isnan(probe.values).sum())
    assert (said["shape"], said["crs"], said["units"]) == ([ROWS, COLUMNS], "EPSG:4326", "m")
    np.testing.assert_allclose(said["bounds"], [5, 46, 11, 50], atol=1e-9)


def test_info_on_the_command_line(tmp_path):
    path = PROBES[0].write(tmp_path)
    said = json.loads(call_cli("info", f"{path}:elevation", "--json", check=0).stdout)
    assert (said["kind"], said["minimum"], said["cells_without_value"]) == ("raster", 500, 1)
    assert said["cells_read"] == "2400 of 2400"


@pytest.mark.parametrize("probe", [p for p in PROBES if p.name.endswith(".nc")], ids=lambda probe: probe.name)
@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_arrays_mean_what_their_file_means(probe, decode, tmp_path):
    """An emulator is given arrays: as xarray decodes them, and as the file stores them."""
    with xarray.open_dataset(probe.write(tmp_path), mask_and_scale=decode) as dataset:
        static = read_static({"elevation": dataset.elevation}, ["elevation"])
        protected = read_protected(dataset.elevation, static.grid)
    np.testing.assert_allclose(static.values[0], probe.values, rtol=1e-6)
    np.testing.assert_array_equal(protected, np.isfinite(probe.values))


# Codes of classes, which are counted and not measured.

CCI = ClassTable.from_mapping(
    {
        "name": "CCI",
        "nodata_codes": [0],
        "classes": [
            {"name": "crop", "codes": [10], "colour": "#f4c542"},
            {"name": "water", "codes": [210], "colour": "#3a7ebf"},
        ],
    },
    "test",
)
CODES = np.random.default_rng(3).choice(np.array([0, 10, 210], np.uint8), (ROWS, COLUMNS))
INDICES = np.where(CODES == 0, 255, np.where(CODES == 210, 1, 0)).astype(np.uint8)


def write_cci(path, kind):
    """Class codes as the ESA's CCI has them (signed bytes that mean unsigned ones), or in another form."""
    axes = {"lat": ("lat", LATITUDES, NORTHWARDS), "lon": ("lon", LONGITUDES, EASTWARDS)}
    stored, attributes = {
        "unsigned": (CODES.view(np.int8), {"_Unsigned": "true"}),
        "filled": (np.where(CODES == 0, 255, CODES).astype(np.uint8), {"_FillValue": np.uint8(255)}),
        "wide": (np.where(CODES == 0, -1, CODES.astype(np.int32)), {"missing_value": np.array([-1, -2], np.int32)}),
        "real": (np.where(CODES == 0, np.inf, CODES).astype(np.float32), {}),
    }[kind]
    fill = attributes.pop("_FillValue", None)
    dataset = xarray.Dataset(
        {"lccs_class": (("time", "lat", "lon"), stored[None], attributes)}, {"time": [2014.0], **axes}
    )
    dataset.time.attrs["units"] = "years"
    encoding = {"lccs_class": {"_FillValue": fill}}
    if path.suffix == ".zarr":
        dataset.to_zarr(path, encoding=encoding)
    else:
        dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return f"{path}:lccs_class"


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("kind", ["unsigned", "filled", "wide", "real"])
@pytest.mark.filterwarnings("ignore")
def test_every_command_reads_the_same_codes(kind, suffix, tmp_path):
    """Code 210 in a signed byte is 210, and a code that means nothing is none."""
    text = write_cci(tmp_path / f"cci{suffix}", kind)
    window = Window(0, 0, ROWS, COLUMNS)
    maps = ClassMaps([text], CCI)  # of prepare landuse and of reconstruct's anchor
    np.testing.assert_array_equal(maps.read(2014, window), INDICES)
    np.testing.assert_array_equal(maps.mask(2014), INDICES != 255)
    emulated = read_map(text, CCI, maps.grid, "prior")
    np.testing.assert_array_equal(emulated.classes, INDICES)
    assert emulated.year == 2014
    with xarray.open_dataset(text.rpartition(":")[0], mask_and_scale=kind == "wide", decode_times=False) as dataset:
        np.testing.assert_array_equal(read_map(dataset.lccs_class, CCI, maps.grid, "prior").classes, INDICES)
    said = describe_file(text)
    assert (said["minimum"], said["maximum"], said["years"]) == (0 if kind == "unsigned" else 10, 210, "2014")
