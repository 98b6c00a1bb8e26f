"""A scenario that is read year by year: files that follow each other, joins, regions, and what is wrong with it."""

import concurrent.futures

import numpy as np
import pytest
import xarray

from earthsr.errors import DataError, InputError
from earthsr.geo.areas import window_matrix
from earthsr.geo.fields import FieldSource
from earthsr.geo.grid import Grid
from earthsr.landuse.classes import HILDA_PLUS, ClassTable, LandClass
from earthsr.landuse.sources.gaps import Gaps, close_gaps
from earthsr.landuse.sources.scenario import open_scenario
from earthsr.landuse.sources.scenario_forcing import scenario_forcing
from tests.cli.test_prepare_landuse import STATES, write_nc
from tests.cli.test_prepare_landuse import states as all_states

#: Fewer are read sooner.
SOME = ["primf", "urban", "c3per"]
#: A table that ties each of them to a class, so that nothing is said of them.
TIED = ClassTable("tied", tuple(LandClass(name, (i,), "#000000", (name,)) for i, name in enumerate(SOME, 1)))
FINE = Grid(-3.71, 52.28, 0.03, 0.03, 40, 72)
WORLD = {"west": -180.0, "north": 90.0, "rows": 18, "columns": 36, "cell": 10.0}


def states(years, **place):
    return all_states(years, **place)[SOME]


@pytest.fixture
def opened(tmp_path):
    """Open data sets as files a.nc, b.nc … around a fine grid."""
    scenarios = []

    def work(*made, channels=SOME, table=TIED, fine=FINE, notes=None):
        while scenarios:
            scenarios.pop().close()
        paths = [write_nc(tmp_path / f"{name}.nc", each) for name, each in zip("abc", made, strict=False)]
        scenarios.append(open_scenario(paths, channels, table, fine, [] if notes is None else notes))
        return scenarios[-1]

    yield work
    while scenarios:
        scenarios.pop().close()


def expected(made, year, scenario, channels=SOME):
    """Fractions of a made data set on the scenario's grid."""
    layer = list(made.time.values + 850).index(year)
    rows = [int(np.argmin(np.abs(made.lat.values - y))) for y in scenario.grid.latitudes()]
    columns = [int(np.argmin(np.abs((made.lon.values - x + 180) % 360 - 180))) for x in scenario.grid.longitudes()]
    values = np.stack([made[name].values[layer][np.ix_(rows, columns)] for name in channels])
    return np.nan_to_num(values)


def change(first, second, scenario, ocean):
    """Mean absolute difference by channel over cells that are no ocean, weighted by the cosine of the latitude."""
    weights = np.cos(np.deg2rad(scenario.grid.latitudes()))[:, None] * ~ocean
    whole = weights.sum()
    return [float((np.abs(a.astype(float) - b) * weights).sum() / whole) for a, b in zip(first, second, strict=True)]


@pytest.fixture
def layers_read(monkeypatch):
    """Layers that are read from files, one for each channel."""
    found = []
    stored = FieldSource._stored
    monkeypatch.setattr(
        FieldSource, "_stored", lambda self, w, layer: found.append((layer, w)) or stored(self, w, layer)
    )
    return found


def test_a_year_is_read_when_it_is_asked_for_and_two_are_kept(opened, layers_read):
    made = states(range(2000, 2005))
    scenario = opened(made, channels=SOME[::-1])
    assert scenario.years == (2000, 2001, 2002, 2003, 2004)
    assert scenario.channels == tuple(SOME[::-1])
    assert scenario.joins == ()
    assert not layers_read, "nothing is read before"
    for year in (2003, 2002, 2003, 2002, 2004, 2002):
        np.testing.assert_array_equal(scenario.fractions(year), expected(made, year, scenario, SOME[::-1]))
    assert [layer for layer, _ in layers_read] == [3] * 3 + [2] * 3 + [4] * 3
    scenario.fractions(2003)
    assert layers_read[-1][0] == 3, "the third last year was forgotten"
    assert all((w.rows, w.columns) == (scenario.grid.rows, scenario.grid.columns) for _, w in layers_read)
    assert not scenario.fractions(2003).flags.writeable
    with pytest.raises(InputError, match=r"a\.nc: no fractions for 1999, there are those of 2000 to 2004"):
        scenario.fractions(1999)


def test_it_is_what_prepare_reads(opened, tmp_path):
    made = all_states(range(2000, 2003))
    with scenario_forcing(write_nc(tmp_path / "whole.nc", made), (2000, 2001, 2002), FINE, HILDA_PLUS) as whole:
        scenario = opened(made, channels=whole.channels, table=HILDA_PLUS)
        assert scenario.grid == whole.grid
        assert whole.years == (2000, 2001, 2002)
        for year in whole.years:
            np.testing.assert_array_equal(scenario.fractions(year), whole.of_year(year, "test"))
        assert scenario.of_class == whole.of_class


def different(years, seed):
    """Return fractions like those of :func:`states`, of other years and places."""
    made = states(years)
    shuffled = np.random.default_rng(seed).permutation(3)
    fields = {name: made[SOME[k]] * np.float32(0.9) for name, k in zip(SOME, shuffled, strict=True)}
    return made.assign(fields)


@pytest.mark.parametrize("later_first", [False, True])
def test_files_in_both_orders_and_the_jump_between_them(opened, later_first):
    """The first that is given has the year that both have; jumps are computed here from the whole files."""
    early, late = states(range(1995, 2003)), different(range(2002, 2010), 1)
    notes = []
    scenario = opened(*((late, early) if later_first else (early, late)), notes=notes)
    assert scenario.years == tuple(range(1995, 2010))
    which = "b.nc also has 2002: taken from a.nc"
    assert which in notes
    (join,) = scenario.joins
    first = 2002 if later_first else 2003
    assert join.year == first
    assert (join.before, join.after) == (("b.nc", "a.nc") if later_first else ("a.nc", "b.nc"))
    truth = {y: expected(early if y < first else late, y, scenario) for y in range(1995, 2010)}
    for year in (1995, first - 1, first, 2009):
        np.testing.assert_array_equal(scenario.fractions(year), truth[year])
    ocean = (truth[1995] == 0).all(axis=0)
    assert ocean.any()
    jump = change(truth[first - 1], truth[first], scenario, ocean)
    np.testing.assert_allclose([join.jump[name] for name in SOME], jump, rtol=1e-12)
    pairs = [y for y in range(first - 5, first + 6) if y != first]
    ordinary = np.mean([change(truth[y - 1], truth[y], scenario, ocean) for y in pairs], axis=0)
    np.testing.assert_allclose([join.ordinary[name] for name in SOME], ordinary, rtol=1e-12)
    # What was dropped is compared with what was kept.
    apart = change(expected(early, 2002, scenario), expected(late, 2002, scenario), scenario, ocean)
    (note,) = [each for each in notes if "differ in 2002" in each]
    assert note.startswith("b.nc and a.nc differ in 2002 by ")
    assert f"{SOME[int(np.argmax(apart))]} {max(apart):.2g}, " in note


def test_a_jump_by_hand(opened):
    """Two land cells of one row each, the ocean counts for nothing; single years have nothing ordinary beside them."""
    axes = {"lat": [60.0, 0.0, -60.0], "lon": [0.0, 60.0]}

    def one(year, north, equator):
        values = np.array([[[north, np.nan], [equator, np.nan], [np.nan, np.nan]]], np.float32)
        return xarray.Dataset({"wood": (("time", "lat", "lon"), values)}, {"time": [year], **axes})

    table = ClassTable("toy", (LandClass("wood", (1,), "#000000"), LandClass("open", (2,), "#ffffff")))
    fine = Grid(0, 60, 10, 10, 12, 6)
    scenario = opened(one(2000, 0.25, 0.5), one(2001, 0.5, 0.75), channels=["wood"], table=table, fine=fine)
    (join,) = scenario.joins
    assert join.year == 2001
    assert join.jump == {"wood": 0.25}
    assert join.ordinary == {}
    scenario = opened(one(2000, 0.25, 0.5), one(2001, 0.5, 0.5), channels=["wood"], table=table, fine=fine)
    # The cosine of 60 degrees is a half.
    assert scenario.joins[0].jump["wood"] == pytest.approx(0.25 * 0.5 / 1.5)


def test_files_that_agree_where_both_have_a_year(opened):
    notes = []
    whole = states(range(2000, 2006))
    opened(whole.isel(time=slice(0, 4)), whole.isel(time=slice(2, 6)), notes=notes)
    assert "b.nc and a.nc agree in 2002" in notes
    assert "b.nc and a.nc agree in 2003" in notes


def test_a_file_between_two_others(opened):
    """It may be given first, and take years from the middle of another one."""
    scenario = opened(different([2003, 2004], 4), states(range(2000, 2008)))
    assert [(join.year, join.before, join.after) for join in scenario.joins] == [
        (2003, "b.nc", "a.nc"),
        (2005, "a.nc", "b.nc"),
    ]


def test_years_that_are_missing(opened):
    words = r"no fractions for 2003 to 2004 between a\.nc, which ends with 2002, and b\.nc, which goes on with 2005"
    with pytest.raises(InputError, match=words):
        opened(states(range(2000, 2003)), states(range(2005, 2008)))
    notes = []
    scenario = opened(states([2000, 2001, 2004]), states([2005]), notes=notes)
    assert scenario.years == (2000, 2001, 2004, 2005)
    assert "a.nc has no fractions for 2002 to 2003, which no other file has" in notes
    jump, ordinary = scenario.joins[0].jump, scenario.joins[0].ordinary
    assert jump["urban"] > 0
    assert ordinary == {}, "2001 and 2004 are no neighbours"


def test_regions_have_a_cell_around_and_count_longitudes_as_the_maps_do(opened):
    made = states([2000], **{**WORLD, "west": 0.0})
    scenario = opened(made, fine=Grid(172.0, 33.0, 0.5, 0.5, 20, 36))
    assert scenario.grid == Grid(160, 50, 10, 10, 4, 4)
    np.testing.assert_array_equal(scenario.fractions(2000), expected(made, 2000, scenario))
    regional = states([2000], west=170.0, north=50.0, rows=8, columns=5, cell=5.0)
    assert opened(regional, fine=Grid(-180.0, 33.0, 0.5, 0.5, 20, 10)).grid == Grid(-185, 40, 5, 5, 5, 3)


def test_a_global_scenario_goes_around_the_earth(opened):
    made = states([2000], **{**WORLD, "west": 0.0})
    scenario = opened(made, fine=Grid(-180, 90, 1, 1, 180, 360))
    assert scenario.grid == Grid(-180, 90, 10, 10, 18, 36)
    assert scenario.grid.periodic
    found = scenario.fractions(2000)
    np.testing.assert_array_equal(found, expected(made, 2000, scenario))
    # Fine cells to both sides of the dateline lie between the last column and the first.
    columns, weights = window_matrix(np.array([179.5, 180.5]), -175.0, 10.0, 36, 3, periodic=True)
    np.testing.assert_array_equal(columns[:2], [35, 0])
    np.testing.assert_allclose(weights[:, :2], [[0.55, 0.45], [0.45, 0.55]], rtol=1e-6)


def test_classes_know_their_channels_by_the_table_or_by_their_own_name(opened):
    by_table = opened(all_states([2000]), channels=STATES, table=HILDA_PLUS).of_class
    assert by_table["pasture"] == ("pastr", "range")
    assert set(by_table) == set(HILDA_PLUS.names) - {"sparse", "water"}
    some = opened(all_states([2000]), channels=["urban", "pastr", "primf", "secdf"], table=HILDA_PLUS).of_class
    assert some == {"urban": ("urban",), "forest": ("primf", "secdf")}
    # NetCDF allows no slash in names of variables.
    made = all_states([2000])
    own = made[[]].assign(urban=made.urban, forest=made.primf, grass_shrub=made.range, water=made.primn)
    scenario = opened(own, channels=["water", "grass/shrub", "forest", "urban"], table=HILDA_PLUS)
    names = ("urban", "forest", "grass/shrub", "water")
    assert scenario.of_class == {name: (name,) for name in names}
    np.testing.assert_array_equal(
        scenario.fractions(2000), expected(made, 2000, scenario, ["primn", "range", "primf", "urban"])
    )


def test_threads_read_what_one_reads(opened):
    made = states(range(2000, 2006))
    scenario = opened(made)
    years = [2000 + k % 6 for k in range(30)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scenario.fractions, years))
    for year, values in zip(years, found, strict=True):
        np.testing.assert_array_equal(values, expected(made, year, scenario))


# What is wrong with scenarios


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (37.0, r"a\.nc: c3per is 37 in 2001 at 51\.375 N, 2\.125 W, expected a fraction of 0 to 1; is it in percent"),
        (-0.2, r"a\.nc: c3per is -0\.2 in 2001 at"),
        (0.99, r"a\.nc: the fractions .* in 2001 at 51\.375 N, 2\.125 W, expected at most 1"),
    ],
)
def test_values_that_are_no_fractions(opened, value, words):
    made = states(range(2000, 2003)).fillna(0)
    made.c3per[1, 10, 15] = value
    scenario = opened(made)
    scenario.fractions(2000)
    for _ in range(2):
        with pytest.raises(DataError, match=words):
            scenario.fractions(2001)
    scenario.fractions(2002)


def test_fill_values_are_the_ocean_declared_or_not(opened, caplog):
    made = states([2000])
    scenario = opened(made.fillna(np.float32(1e20)))
    np.testing.assert_array_equal(scenario.fractions(2000), expected(made, 2000, scenario))
    assert not caplog.records
    made.urban[0, 12, 16] = np.nan
    scenario = opened(made)
    np.testing.assert_array_equal(scenario.fractions(2000), expected(made, 2000, scenario))
    assert "a.nc: some, not all fractions have no value in 1 cells of 2000: taken as 0" in caplog.text


def test_a_variable_that_is_missing(opened):
    made = all_states([2000])[["urban", "primf", "range"]]
    words = r"a\.nc: has no variable c4per, primn, which the model reads; it has urban, primf, range"
    with pytest.raises(DataError, match=words):
        opened(made, channels=["urban", "c4per", "primn"])


def test_files_that_do_not_fit(opened, tmp_path):
    with pytest.raises(DataError, match=r"b\.nc is not on the grid of a\.nc: 20 x 32 cells against 24 x 32"):
        opened(states([2000]), states([2001], rows=20))
    with pytest.raises(DataError, match=r"a\.nc covers 48 to 54 N, -6 to -2 E, the maps need .* to -1\.565 E"):
        opened(states([2000], columns=16))
    with pytest.raises(DataError, match=r"a\.nc covers 48 to 54 N, 20 to 28 E, the maps need"):
        opened(states([2000], west=20.0))
    with pytest.raises(DataError, match=r"absent\.nc: no such scenario file"):
        open_scenario([tmp_path / "absent.nc"], SOME, HILDA_PLUS, FINE, [])
    with pytest.raises(InputError, match="no scenario is given; --scenario FILE"):
        open_scenario([], SOME, HILDA_PLUS, FINE, [])
    flat = states([2000]).isel(time=0, drop=True)
    with pytest.raises(DataError, match=r"a\.nc: primf has no dimension time"):
        opened(flat)


def luh3(years):
    made, share = all_states(years), np.float32(0.1)
    for name in STATES:
        made[name] *= 1 - share
    return made.assign(pltns=made.secdf * 0 + share)


def test_plantations_count_with_secondary_forest_for_a_model_that_does_not_know_them(opened, caplog):
    """A model that was trained on LUH2, driven by LUH3: nothing of the land is lost, and it is said."""
    made, notes = luh3([2000]), []
    scenario = opened(made, channels=STATES, table=HILDA_PLUS, notes=notes)
    assert scenario.of_class["forest"] == ("primf", "secdf")
    both = made.assign(secdf=made.secdf + made.pltns)
    np.testing.assert_allclose(scenario.fractions(2000), expected(both, 2000, scenario, STATES), rtol=1e-6)
    (note,) = notes
    assert all(word in note for word in ("b.nc" if "b.nc" in note else "a.nc", "pltns (10.00%", "added to secdf"))
    assert note in caplog.text


def test_plantations_that_a_scenario_lacks_are_none(opened):
    """A model that was trained on LUH3, driven by LUH2's past and LUH3's future."""
    early, late, notes = all_states([2000, 2001]), luh3([2002, 2003]), []
    scenario = opened(early, late, channels=[*STATES, "pltns"], table=HILDA_PLUS, notes=notes)
    assert scenario.of_class["forest"] == ("primf", "secdf", "pltns")
    early = early.assign(pltns=early.secdf * 0)
    for made, year in ((early, 2001), (late, 2002)):
        np.testing.assert_array_equal(scenario.fractions(year), expected(made, year, scenario, [*STATES, "pltns"]))
    assert any("a.nc has no pltns" in note for note in notes)


def test_gaps_are_refused_by_share_of_land_and_filled_from_the_nearest():
    """Land by more than half needs some value, any land needs all or none, the sea needs nothing."""
    grid = Grid(170.0, 10.0, 5.0, 5.0, 2, 4)  # across the dateline
    share = np.array([[0.6, 0.5, 0.0, 0.2], [1.0, 1.0, 1.0, 1.0]])
    values = np.arange(16, dtype=np.float32).reshape(2, 2, 4) / 100
    values[:, 0, 1] = np.nan  # half land, nothing: left
    values[0, 0, 2] = np.nan  # sea, a part: 0
    kept = values.copy()
    assert close_gaps(values, share, ("a", "b"), 2000, grid, "s.nc") == Gaps(left=1)
    np.testing.assert_array_equal(values, np.nan_to_num(kept))
    for place, channels in (((slice(None), 0, 0), "a, b"), ((1, 0, 3), "b")):
        values = kept.copy()
        values[place] = np.nan
        with pytest.raises(DataError, match=rf"s\.nc has no value \(NaN\) for {channels} in 2000 at 7\.5 N"):
            close_gaps(values, share, ("a", "b"), 2000, grid, "s.nc")
    assert close_gaps(values, share, ("a", "b"), 2000, grid, "s.nc", "nearest") == Gaps(filled=2)
    # South of it are whole cells, and nothing nearer.
    np.testing.assert_array_equal(values[:, 0, 3], kept[:, 1, 3])
    assert not np.isnan(values).any()
