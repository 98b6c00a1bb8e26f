"""What does not fit is refused in one line, and the state stays as it was."""

import numpy as np
import pytest

from earthsr import Emulator
from earthsr.errors import CheckpointError, DataError, InputError
from tests.landuse.emulator.cases import PART, forcing_of, same


@pytest.fixture(scope="module")
def started(model, static, anchor):
    """Shared, for what is refused changes nothing: that is what is tested."""
    found = Emulator(model, static=static, bbox=PART, batch_size=4)
    found.start(anchor)
    return found


def refused(emulator, match, *arguments, error=InputError, **options):
    """Check that a step is refused, in one line, and leaves the state."""
    state, year = emulator.state, emulator.year
    with pytest.raises(error, match=match) as caught:
        emulator.step(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert emulator.year == year
    if state is not None:
        assert np.array_equal(emulator.state["land_use"], state["land_use"])
        assert np.array_equal(emulator.state["area"], state["area"])


def in_percent(forcing):
    return forcing.map(lambda each: 100 * each)


def with_units(forcing, units):
    forcing = forcing.copy(deep=True)
    forcing["urban"].attrs["units"] = units
    return forcing


def shifted(forcing, lat=0.0, lon=0.0):
    return forcing.assign_coords(lat=forcing["lat"] + lat, lon=forcing["lon"] + lon)


def with_nan(forcing, name="forest", column=1):
    forcing = forcing.copy(deep=True)
    forcing[name][0, column] = np.nan
    return forcing


BAD_FORCINGS = {
    "values in percent": (in_percent, "urban is .* expected a fraction of 0 to 1; is it in percent"),
    "units of percent": (lambda f: with_units(f, "%"), "forcing: urban is in %, expected fractions .* divide by 100"),
    "other units": (lambda f: with_units(f, "km2"), "forcing: urban is in 'km2', expected fractions"),
    "sums above 1": (lambda f: f.assign(urban=f["urban"] * 0 + 0.9), "add up to"),
    "sums of nearly nothing": (lambda f: f.map(lambda each: each / 100), "adds up to 0.0\\d+ over land in 1994"),
    "shifted along longitude": (lambda f: shifted(f, lon=0.125), "its grid is shifted by 0 of a cell .* and 0.5 along"),
    "shifted along latitude": (lambda f: shifted(f, lat=0.1), "its grid is shifted by 0.4 of a cell along latitude"),
    "of another place": (lambda f: shifted(f, lon=90), "covers .* E, the maps need"),
    "of half the region": (lambda f: f.isel(lon=slice(0, 3)), "covers .* E, the maps need"),
    "other cells": (
        lambda f: f.isel(lat=slice(0, 2), lon=slice(0, 16, 2)),
        "cells are 0.5 degrees wide, expected 0.25",
    ),
    "no coordinates": (lambda f: f.drop_vars("lat"), "has no coordinate of latitude"),
    "irregular": (lambda f: f.assign_coords(lat=[47.9, 47.6, 47.4]), "lat is not regular"),
    "a channel missing": (lambda f: f.drop_vars("urban"), "forcing has no urban; the model reads urban, cropland"),
    "channels without names": (lambda f: f.to_dataarray("kind"), "expected a dimension channel"),
    "no value over land": (with_nan, "has no value \\(NaN\\) for forest in 1994 at 47.875 N, -7.625 E"),
    "no value at all over land": (lambda f: f.map(lambda each: each.where(each["lon"] != f["lon"][1])), "no value"),
    "of another year": (lambda f: f.assign_coords(time=f["time"] + 1), "forcing is of 1995, asked for is 1994"),
    "not xarray": (lambda f: f["urban"].values, "forcing is of type ndarray, expected an xarray"),
}


@pytest.mark.parametrize("case", BAD_FORCINGS)
def test_forcings_that_do_not_fit(started, scenario, case):
    change, match = BAD_FORCINGS[case]
    refused(started, match, change(forcing_of(scenario, 1994)), 1994)


def test_states_that_no_class_is_tied_to_are_warned_of_once(started, scenario, caplog):
    given = forcing_of(scenario, 1994)
    given = given.assign(agrof=given["urban"] * 0 + 0.25, secma=given["urban"] * 0 + 37)
    before = started.state
    with_them = started.step(given, 1994, prior=before)
    started.step(given, 1994, prior=before)
    assert same(with_them, started.step(forcing_of(scenario, 1994), 1994, prior=before))
    (warning,) = [text for text in caplog.messages if "agrof" in text]
    assert "25.00%" in warning
    assert "secma" not in caplog.text


@pytest.mark.parametrize("year", [1994.5, "1994", None, 1, 3000, True, np.nan])
def test_years_that_are_none(started, scenario, year):
    refused(started, "expected a calendar year", forcing_of(scenario, 1994), year)


def test_the_year_of_the_state_itself(started, scenario):
    refused(started, "the prior is of 1993 itself", forcing_of(scenario, 1993), 1993)


def test_a_gap_needs_the_years_between(started, scenario):
    refused(started, "goes year by year: step through 1994 to 1995, or", forcing_of(scenario, 1995), 1995)


def test_years_that_a_forcing_with_time_lacks(started, scenario):
    refused(started, "forcing is of 1990 to 1993, asked for is 1994", scenario[0], 1994)


def test_an_emulator_that_was_not_started(emulator, scenario):
    refused(emulator, "there is no prior: give step", forcing_of(scenario, 1994), 1994)


BAD_PRIORS = {
    "codes of another table": (
        lambda p: p.assign(land_use=p["land_use"].assign_attrs(flag_values=[1, 2], flag_meanings="sea land")),
        "is of another class table: .* say 1 sea, 2 land, the checkpoint knows 11 urban",
    ),
    "other names": (
        lambda p: p.assign(
            land_use=p["land_use"].assign_attrs(
                flag_meanings=p["land_use"].attrs["flag_meanings"].replace("forest", "trees")
            )
        ),
        "another class table",
    ),
    "an unknown code": (lambda p: p.assign(land_use=p["land_use"].where(p["land_use"] != 40, 39)), "has the code 39"),
    "a fraction for a code": (lambda p: p["land_use"] + 0.5, "has the code .*.5, which is in no class"),
    "no class at all": (lambda p: p.assign(land_use=p["land_use"] * 0 + 255), "no cell of the region has a class"),
    "no year": (lambda p: p.drop_vars("year").drop_attrs(), "prior does not say its year"),
    "a part of the region": (lambda p: p.isel(lon=slice(0, 40)), "covers 1280 of the 2048 cells"),
    "shifted": (lambda p: shifted(p, lat=0.005), "prior: .*shifted by 0.32 of a cell"),
    "other cells": (lambda p: p.isel(lat=slice(0, 32, 2)), "cells are 0.03125 degrees high, expected 0.015625"),
    "no map": (lambda p: p[["area"]], "has no variable land_use, it has area"),
    "not xarray": (lambda p: p["land_use"].values, "prior is of type ndarray"),
}


@pytest.mark.parametrize("case", BAD_PRIORS)
def test_priors_that_do_not_fit(started, scenario, case):
    change, match = BAD_PRIORS[case]
    prior = started.state
    prior["land_use"].attrs = {**prior["land_use"].attrs}
    refused(started, match, forcing_of(scenario, 1994), 1994, prior=change(prior))


def test_an_anchor_of_another_year_than_it_says_changes_nothing(started, anchor):
    state = started.state
    with pytest.raises(InputError, match="is of 1993 by its own coordinate, the year given is 1990"):
        started.start(state, 1990)
    with pytest.raises(DataError, match="no such file"):
        started.start("missing.tif", 1990)
    assert started.year == 1993
    assert np.array_equal(started.state["land_use"], state["land_use"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s.drop_vars("soil"), "missing: soil; give them in static="),
        (lambda s: s.drop_vars("lat"), "has no coordinate of latitude"),
        (
            lambda s: {
                "elevation": s["elevation"],
                **{n: s[n][:, :99] for n in ("slope", "soil", "distance_to_water")},
            },
            "static field slope covers 4752 of the 12288 cells",
        ),
        (lambda s: [s], "static is of type list"),
        (lambda s: "missing.nc", "no such file of static fields"),
    ],
)
def test_static_fields_that_do_not_fit(model, static, change, match):
    with pytest.raises(InputError, match=match):
        Emulator(model, static=change(static))


def test_options_that_do_not_fit(model, static, world, any_backend, tmp_path):
    with pytest.raises(InputError, match="fixed: no class 'sea'; the checkpoint knows urban"):
        Emulator(model, static=static, fixed="sea")
    with pytest.raises(InputError, match="is 3, expected a multiple of 2"):
        Emulator(model, static=static, tile=3)
    with pytest.raises(InputError, match="protected is a Dataset"):
        Emulator(model, static=static, protected=static)
    with pytest.raises(CheckpointError):
        Emulator.load(tmp_path / "none.safetensors", static=static, backend=any_backend)


def test_what_stands_upside_down_without_saying_so_is_not_guessed(started, scenario):
    """With coordinates either order is right, and gives the same; without them it is refused."""
    forcing = forcing_of(scenario, 1994)
    first = started.step(forcing, 1994, prior=started.state)
    turned = forcing.isel(lat=slice(None, None, -1))
    assert turned["lat"][0] < turned["lat"][-1]
    prior = started.state.isel(lat=slice(None, None, -1))
    assert same(first, started.step(turned, 1994, prior=prior))
    refused(started, "has no coordinate of latitude", turned.drop_vars("lat"), 1994)
    wrong = turned.assign_coords(lat=forcing["lat"].values)
    assert not same(first, started.step(wrong, 1994, prior=prior)), "the order of this forcing's rows matters"
