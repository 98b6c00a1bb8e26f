"""Annual maps that cannot be made, opened or written: one line each, and what was there stays."""

import contextlib
import json
import os
import resource
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from earthsr.errors import DataError, InputError
from earthsr.geo import Window
from earthsr.geo.grid import Grid
from earthsr.landuse.classes import HILDA_PLUS, ClassTable, LandClass
from earthsr.landuse.maps import MapsSpec, Scratch, create_maps, open_maps
from tests.landuse.test_maps_store import (
    ALL,
    GLOBE,
    SPEC,
    WHOLE,
    K,
    below,
    classes_of,
    filled,
    make,
    probabilities_of,
)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Maps with all layers; tests leave them as they are."""
    return filled(tmp_path_factory.mktemp("all") / "m.zarr", ALL)


@contextlib.contextmanager
def ordinary_user():
    """Play nobody in particular: root may write into any folder."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def small_disk(size):
    """A limit on the size of files stands in for a full disk: the system's error comes at the same places."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_is_there_is_not_replaced(tmp_path):
    create_maps(tmp_path / "store", SPEC, {})
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = below(tmp_path)
    for name in ("store", "folder", "file"):
        with pytest.raises(InputError, match=f"{name} is there already; choose another name"):
            create_maps(tmp_path / name, SPEC, {})
    with pytest.raises(InputError, match="there is a file in its place"):
        create_maps(tmp_path / "file" / "m.zarr", SPEC, {})
    assert below(tmp_path) == before


@pytest.mark.parametrize("code", [255, 1000, -1])
def test_codes_that_do_not_fit_into_a_byte_are_refused(code):
    classes = (LandClass("peat", (code,), "#000000"), LandClass("rock", (7,), "#000000"))
    with pytest.raises(InputError, match=rf"class table soils: code {code} of peat cannot be written.* 0 to 254"):
        replace(SPEC, table=ClassTable("soils", classes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"years": ()}, "years are none, expected at least one, ascending"),
        ({"years": (1850, 1850)}, "years are 1850, 1850, expected at least one, ascending"),
        ({"years": (0, 1)}, "years are 0 to 1, expected years from 1 to 9998"),
        ({"layers": ("confidence",)}, "layers are confidence, expected land_use and"),
        ({"layers": ("land_use", "margin")}, "layers are land_use, margin, expected land_use and, by choice,"),
        ({"chunk": (0, 8)}, r"chunk is \(0, 8\), expected rows and columns of 1 and more"),
        ({"grid": replace(GLOBE, rows=0)}, "grid has 0 x 50 cells"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(SPEC, **change)


@pytest.mark.parametrize(("crs", "message"), [("EPSG:3035", "CRS is EPSG:3035, expected one"), ("here", "'here' is")])
def test_a_crs_that_is_not_geographic_is_refused_before_anything_is_made(tmp_path, crs, message):
    with pytest.raises(InputError, match=message):
        create_maps(tmp_path / "m.zarr", replace(SPEC, crs=crs), {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layer", "year", "window", "values", "message"),
    [
        ("margin", 1850, WHOLE, classes_of(), "m.zarr: has no layer margin; it has land_use, confidence, prob"),
        ("land_use", 1852, WHOLE, classes_of(), "m.zarr: has no map of 1852; it has 4 from 1849 to 1904"),
        ("land_use", 1850, Window(0, 0, 16, 50), classes_of(), r"values have shape \(25, 50\), expected \(16, 50\)"),
        ("land_use", 1850, Window(8, 0, 16, 32), classes_of()[:16, :32], "is not of whole chunks of 16 x 32 cells"),
        ("land_use", 1850, Window(0, 0, 16, 40), classes_of()[:16, :40], "is not of whole chunks of 16 x 32 cells"),
        ("land_use", 1850, Window(0, -32, 16, 32), classes_of()[:16, :32], "is not of whole chunks"),
        ("land_use", 1850, Window(16, 32, 16, 18), classes_of()[:16, :18], "is not of whole chunks"),
        ("land_use", 1850, Window(0, 0, 0, 32), classes_of()[:0, :32], "is not of whole chunks"),
        ("land_use", 1850, WHOLE, classes_of().astype(np.int64), "classes are of type int64, expected uint8"),
        ("land_use", 1850, WHOLE, classes_of() + np.uint8(1), "classes have the index 7, expected 0 to 6, or 255"),
        ("confidence", 1850, WHOLE, classes_of(), "probabilities are of type uint8, expected float32"),
        ("confidence", 1850, WHOLE, np.full((25, 50), 1.01, np.float32), "a probability is 1.01, expected 0 to 1"),
        ("confidence", 1850, WHOLE, np.full((25, 50), -np.inf, np.float32), "a probability is -inf, expected 0"),
        ("probabilities", 1850, WHOLE, probabilities_of()[0], r"shape \(25, 50\), expected \(7, 25, 50\)"),
    ],
)
def test_what_does_not_fit_is_not_written(everything, layer, year, window, values, message):
    with pytest.raises(ValueError, match=message):
        everything.write(layer, year, window, values)
    assert (everything.stored("land_use", 1850, WHOLE) == 255).all()


def _cut(path):
    (path / "zarr.json").write_text((path / "zarr.json").read_text()[:-50])


def _describe(change):
    def harm(path):
        root = json.loads((path / "zarr.json").read_text())
        said = json.loads(root["attributes"]["earthsr_maps"])
        change(said)
        root["attributes"]["earthsr_maps"] = json.dumps(said)
        (path / "zarr.json").write_text(json.dumps(root))

    return harm


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.rename(path.with_name("away")), "m.zarr: no such folder; give maps that earthsr"),
        (lambda path: (path / "zarr.json").unlink(), r"is no Zarr store of version 3 \(it has no zarr.json\)"),
        (_cut, r"m.zarr: zarr.json cannot be read \(.*\); the store is damaged"),
        (lambda path: (path / "zarr.json").write_text("[]"), "is not that of a group with attributes"),
        (lambda path: (path / "land_use" / "zarr.json").unlink(), "a layer cannot be opened .*; the store is damaged"),
        (lambda path: (path / "land_use" / "zarr.json").write_text("{}"), "a layer cannot be opened"),
        (_describe(lambda said: said.pop("grid")), r"attribute earthsr_maps is damaged \('grid'\)"),
        (_describe(lambda said: said.update(chunk=[8])), "attribute earthsr_maps is damaged"),
        (_describe(lambda said: said.update(schema_version=9)), "schema version 9, expected 1; update earthsr"),
        (_describe(lambda said: said["years"].append(2000)), r"land_use has shape.*\(4, 25, 50\).*expected.*\(5, 25"),
        (_describe(lambda said: said.update(chunk=[8, 8])), r"land_use has shape.* expected .*the store is damaged"),
        (_describe(lambda said: said["classes"].pop("classes")), "m.zarr: is no class table"),
    ],
)
def test_a_damaged_store_is_refused_in_one_line(tmp_path, everything, harm, message):
    shutil.copytree(everything.path, tmp_path / "m.zarr")
    harm(tmp_path / "m.zarr")
    with pytest.raises(DataError, match=message) as caught:
        open_maps(tmp_path / "m.zarr")
    assert "\n" not in str(caught.value)


def test_a_store_of_something_else_is_refused(tmp_path):
    zarr.open_group(tmp_path / "m.zarr", mode="w", zarr_format=3)
    with pytest.raises(DataError, match="is a Zarr store of something else: it has no attribute earthsr_maps"):
        open_maps(tmp_path / "m.zarr")
    (tmp_path / "n.zarr").touch()
    with pytest.raises(DataError, match=r"n.zarr: is no Zarr store of version 3"):
        open_maps(tmp_path / "n.zarr")


# Disks that do not take it.


@pytest.fixture
def open_folder():
    """A folder in one that everybody may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_read_only_folder_gets_one_line(open_folder):
    maps = filled(open_folder / "m.zarr")
    scratch = Scratch.create_or_open(open_folder / "s", GLOBE, 1, (8, 16))
    (open_folder / "closed").mkdir()
    closed = [open_folder / name for name in ("m.zarr/land_use/c/0/0", "m.zarr", "s", "closed")]
    before = below(open_folder)
    for folder in closed:
        folder.chmod(0o555)
    with ordinary_user():
        for work in (
            lambda: create_maps(open_folder / "closed" / "n.zarr", SPEC, {}),
            lambda: maps.write("land_use", 1849, Window(0, 0, 8, 16), np.zeros((8, 16), np.uint8)),
            lambda: maps.write("land_use", 1849, Window(0, 0, 8, 16), np.full((8, 16), 255, np.uint8)),
            lambda: maps.write("land_use", 1850, Window(0, 0, 8, 16), np.zeros((8, 16), np.uint8)),
            lambda: maps.finish({}),
            lambda: scratch.write(0, 1, np.zeros((1, 8, 16), np.float32)),
            lambda: Scratch.create_or_open(open_folder / "closed" / "s", GLOBE, 1, (8, 16)),
        ):
            with pytest.raises(InputError, match=r"cannot (write|create folder) .*: Permission denied") as caught:
                work()
            assert "\n" not in str(caught.value)
    for folder in closed:
        folder.chmod(0o755)
    assert below(open_folder) == before
    np.testing.assert_array_equal(maps.read("land_use", 1849, WHOLE), classes_of(1849))


def test_a_full_disk_gets_one_line_and_leaves_what_was_there(tmp_path):
    spec = MapsSpec(Grid(0.0, 50.0, 0.01, 0.01, 256, 256), "EPSG:4326", (1850,), HILDA_PLUS, (256, 256))
    everything, noise = Window(0, 0, 256, 256), np.random.default_rng(0).integers(0, K, (256, 256), np.uint8)
    maps = make(tmp_path / "m.zarr", spec)
    maps.write("land_use", 1850, everything, np.ones((256, 256), np.uint8))
    before = below(tmp_path)
    scratch = Scratch.create_or_open(tmp_path / "s", spec.grid, 1, spec.chunk)
    with small_disk(8_000):
        with pytest.raises(InputError, match=r"cannot write .*m.zarr.*; free some space or choose another") as caught:
            maps.write("land_use", 1850, everything, noise)
        with pytest.raises(InputError, match=r"cannot write .*0_0.npy.*; free some space or choose another"):
            scratch.write(0, 0, np.zeros((1, 256, 256), np.float32))
    assert "\n" not in str(caught.value)
    assert (maps.read("land_use", 1850, everything) == 1).all()
    assert not scratch.file(0, 0).exists()
    assert below(tmp_path) == sorted([*before, "s", "s/scratch.json"])
    with small_disk(500), pytest.raises(InputError, match=r"cannot write .*n.zarr"):
        create_maps(tmp_path / "n.zarr", SPEC, {})
    assert below(tmp_path) == sorted([*before, "s", "s/scratch.json"])


def test_a_store_that_is_gone_is_neither_read_nor_written(tmp_path):
    """What is not there has no value: a folder that was moved away would read as an empty map."""
    maps = make(tmp_path / "m.zarr")
    maps.path.rename(tmp_path / "away.zarr")
    with pytest.raises(DataError, match=r"m.zarr: is not there any more; another process has moved or removed it"):
        maps.read("land_use", 1850, WHOLE)
    with pytest.raises(DataError, match=r"m.zarr: is not there any more"):
        maps.write("land_use", 1850, WHOLE, classes_of())
    with pytest.raises(DataError, match=r"m.zarr: no such folder"):
        maps.finish({})
    assert [entry.name for entry in tmp_path.iterdir()] == ["away.zarr"]
