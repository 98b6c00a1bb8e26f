"""Which texts mean the same CRS, and what is said where PROJ cannot read one."""

import os
import sqlite3
import subprocess
import sys

import pytest

from earthsr.errors import DataError
from earthsr.geo import same_crs
from earthsr.geo.crs import metres_per_unit, parse_crs, wkt_of

ESRI = (
    'GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",SPHEROID["WGS_1984",6378137.0,298.257223563]],'
    'PRIMEM["Greenwich",0.0],UNIT["Degree",0.0174532925199433]]'
)


def wkt(text):
    return wkt_of(parse_crs(text, "test"))


@pytest.mark.parametrize("text", ["OGC:CRS84", "EPSG:4979", "EPSG:9518", "EPSG:9707", "EPSG:4326+5773", ESRI])
def test_wgs84_is_one_system_on_the_ground(text):
    assert same_crs(wkt(text), wkt("EPSG:4326"))
    assert same_crs(wkt("EPSG:4326"), wkt(text))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("EPSG:32632+5773", "EPSG:32632", True),  # a height above the geoid beside UTM
        ("OGC:CRS83", "EPSG:4269", True),
        ("EPSG:4269", "EPSG:4326", False),  # NAD83
        ("EPSG:4258", "EPSG:4326", False),  # ETRS89
        ("EPSG:4322", "EPSG:4326", False),  # WGS 72
        ("EPSG:4807", "EPSG:4326", False),  # degrees of 400 to the circle from Paris
        ("EPSG:4047", "EPSG:4326", False),  # a sphere
        ("EPSG:32632", "EPSG:32633", False),
        ("EPSG:32632", "EPSG:4326", False),
        ("EPSG:2264", "EPSG:32119", False),  # one projection, in feet and in metres
    ],
)
def test_other_systems_are_told_apart(first, second, same):
    assert same_crs(wkt(first), wkt(second)) == same


@pytest.mark.parametrize(
    ("text", "metres"), [("EPSG:32632", 1), ("EPSG:2264", 0.3048006096), ("EPSG:2222", 0.3048), ("EPSG:4326", 1)]
)
def test_coordinates_count_in_what_the_crs_says(text, metres):
    assert metres_per_unit(wkt(text)) == pytest.approx(metres, rel=1e-9)


@pytest.mark.parametrize("variable", ["PROJ_LIB", "PROJ_DATA"])
def test_data_of_another_proj_name_the_variable(tmp_path, variable):
    with sqlite3.connect(tmp_path / "proj.db") as database:
        database.execute("CREATE TABLE other (key TEXT)")
    code = "from earthsr.geo.crs import parse_crs; parse_crs('EPSG:4326', 'a.nc')"
    environment = {**os.environ, variable: str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "a.nc: CRS 'EPSG:4326' is not understood" in done.stderr
    assert f"{variable}={tmp_path}" in done.stderr
    assert f"env -u {variable} earthsr" in done.stderr


def test_a_text_that_is_no_crs_asks_for_a_code():
    with pytest.raises(DataError, match=r"a.nc: CRS 'EPSG:999999' .*give a code such as EPSG:4326"):
        parse_crs("EPSG:999999", "a.nc")
