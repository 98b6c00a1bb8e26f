"""Built-in class tables: every code of the products, each once, tied to the states of a scenario as a whole."""

import numpy as np
import pytest

from earthsr.errors import DataError
from earthsr.landuse.class_tables import TABLES, class_table
from earthsr.landuse.classes import HILDA_PLUS
from earthsr.landuse.sources.scenario_files import STATES
from tests.cli.test_prepare_landuse import prepare, read, write_tif

#: As the products' own legends list them, without their nodata.
CODES = {
    "esa-cci": [
        10, 11, 12, 20, 30, 40, 50, 60, 61, 62, 70, 71, 72, 80, 81, 82, 90, 100, 110, 120, 121, 122, 130, 140, 150,
        151, 152, 153, 160, 170, 180, 190, 200, 201, 202, 210, 220,
    ],
    "modis-igbp": list(range(18)),
    "corine": [
        *range(1, 45), 111, 112, 121, 122, 123, 124, 131, 132, 133, 141, 142, 211, 212, 213, 221, 222, 223, 231, 241,
        242, 243, 244, 311, 312, 313, 321, 322, 323, 324, 331, 332, 333, 334, 335, 411, 412, 421, 422, 423, 511, 512,
        521, 522, 523,
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CODES)
def test_every_code_of_the_product_is_in_one_class(name):
    table = class_table(name)
    assert sorted(code for each in table.classes for code in each.codes) == CODES[name]
    indices = table.index(np.array(CODES[name]), "test")
    assert set(indices) == set(range(len(table)))


@pytest.mark.parametrize("name", TABLES)
def test_every_state_of_a_scenario_is_of_one_class(name):
    tied = [state for each in TABLES[name].classes for state in each.forcing]
    assert sorted(tied) == sorted({*STATES, "pltns"})


@pytest.mark.parametrize(
    ("name", "code", "meaning"),
    [
        ("esa-cci", 190, "urban"),
        ("esa-cci", 30, "cropland"),
        ("esa-cci", 40, "grass/shrub"),
        ("esa-cci", 62, "forest"),
        ("esa-cci", 220, "ice"),
        ("modis-igbp", 0, "water"),
        ("modis-igbp", 13, "urban"),
        ("modis-igbp", 8, "forest"),
        ("modis-igbp", 9, "grass/shrub"),
        ("corine", 18, "pasture"),
        ("corine", 231, "pasture"),
        ("corine", 22, "cropland"),
        ("corine", 34, "ice"),
        ("corine", 324, "grass/shrub"),
        ("corine", 44, "water"),
    ],
)
def test_codes_mean_what_the_legends_say(name, code, meaning):
    table = class_table(name)
    assert table.names[int(table.index(np.array([code]), "test")[0])] == meaning


def test_a_name_that_is_none_lists_those_that_are(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="esacci: no such class table; there are hilda, esa-cci, modis-igbp, corine"):
        class_table("esacci")
    assert class_table("HILDA") is HILDA_PLUS
    with pytest.raises(DataError, match=r"mine\.yaml: no such class table"):
        class_table(tmp_path / "mine.yaml")


def test_prepare_takes_a_table_by_its_name(tmp_path):
    codes = np.random.default_rng(0).choice(CODES["esa-cci"], (40, 72)).astype(np.uint8)
    for year in (2001, 2002, 2003):
        write_tif(tmp_path / f"20221006_classes_{year}.tif", codes)
    assert prepare(tmp_path, "--table", "esa-cci").returncode == 0
    data, _ = read(tmp_path, "train")
    row, column = data["tile_index"][0]
    expected = class_table("esa-cci").index(codes[row : row + 16, column : column + 16], "test")
    np.testing.assert_array_equal(data["classes"][0, 0], expected)
    refused = prepare(tmp_path, "--overwrite")
    assert "esa-cci" in refused.stderr
    assert "is in no class of table HILDA+" in refused.stderr
