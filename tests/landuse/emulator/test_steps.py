"""What a step gives, and what a caller may keep and give back: stateless, stateful, saved, in another process."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import earthsr
from earthsr import Emulator
from earthsr.backend import Model
from earthsr.errors import InputError
from earthsr.landuse.class_areas import cell_areas
from tests.conftest import REPOSITORY
from tests.landuse.emulator.cases import PART, forcing_of, same


def test_it_is_a_public_name():
    assert earthsr.Emulator is Emulator
    assert "Emulator" in earthsr.__all__


@pytest.fixture(scope="module")
def shared(model, static):
    """For what leaves no state behind, or begins with its own."""
    return Emulator(model, static=static, bbox=PART, batch_size=4, fixed=("water",))


def test_what_a_step_gives(shared, scenario, anchor):
    state = shared.start(anchor)
    made = shared.step(forcing_of(scenario, 1994), 1994)
    assert made["land_use"].dims == ("lat", "lon")
    assert made["land_use"].dtype == np.uint8
    assert made["land_use"].attrs["flag_values"].tolist() == [11, 22, 33, 40, 55, 66, 77]
    assert made["land_use"].attrs["flag_meanings"].split()[4] == "grass_shrub"
    assert made["lat"].attrs["standard_name"] == "latitude"
    assert made["crs"].attrs["grid_mapping_name"] == "latitude_longitude"
    assert made["land_use"].attrs["grid_mapping"] == "crs"
    assert made.attrs["year"] == int(made["year"]) == 1994
    assert made.attrs["direction"] == "forwards"
    assert made.attrs["checkpoint"].endswith("model.safetensors")
    assert set(np.unique(made["land_use"])) <= {11, 22, 33, 40, 55, 66, 77, 255}
    void = state["land_use"].values == 255
    assert void.any()
    assert (made["land_use"].values[void] == 255).all(), "cells without a class stay without one"
    predicted = np.isfinite(made["confidence"].values)
    assert np.array_equal(predicted, made["may_change"].values == 1)
    assert 0 < made["confidence"].min() <= made["confidence"].max() <= 1


def test_areas_are_of_the_cells_and_those_of_the_forcing(shared, scenario, anchor):
    shared.start(anchor)
    forcing = forcing_of(scenario, 1994)
    made = shared.step(forcing, 1994)
    assert made["area"].dims == ("class", "coarse_lat", "coarse_lon")
    assert made["area"].attrs["units"] == "km2"
    cells = cell_areas(shared.grid)
    for code in made["class"].values:
        expected = cells[made["land_use"].values == code].sum()
        assert made["area"].sel({"class": code}).sum() == pytest.approx(expected, rel=1e-12)
    # A coarse cell without sea, of classes that the forcing knows: each class's area is the forcing's, to half a fine
    # cell of the largest kind (256 in a coarse cell) and what cells of fixed classes take.
    whole = made["area"].sum("class")
    inside = made["area"].sel(coarse_lat=slice(48, 47.5), coarse_lon=slice(-8, -7))
    share = (inside / inside.sum("class")).values
    names = [str(name).replace("/", "_") for name in made["class_name"].values]
    wanted = np.stack([forcing[name].sel(lat=slice(48, 47.5), lon=slice(-8, -7)).values for name in names])
    full = inside.sum("class").values > 0.999 * whole.values.max()
    assert full.any()
    assert np.abs(share - wanted)[:, full].max() < 2 / 256
    assert made.attrs["area_error_percent"] < 1 < made.attrs["area_error_percent_without_decoder"]


def test_stateless_and_stateful_give_the_same_and_the_first_keeps_no_state(shared, scenario, anchor):
    prior = shared.start(anchor)
    stateful = [shared.step(forcing_of(scenario, year), year) for year in (1994, 1995)]
    assert shared.year == 1995
    for year, expected in zip((1994, 1995), stateful, strict=True):
        prior = shared.step(forcing_of(scenario, year), year, prior=prior)
        assert same(prior, expected)
    assert shared.year == 1995
    assert (stateful[1]["land_use"] != stateful[0]["land_use"]).any()


def test_a_state_is_a_copy_and_goes_through_a_file(shared, scenario, anchor, tmp_path):
    shared.start(anchor)
    made = shared.step(forcing_of(scenario, 1994), 1994)
    made["land_use"][:] = 11
    kept = shared.state
    assert (kept["land_use"] != 11).any()
    expected = shared.step(forcing_of(scenario, 1995), 1995)
    kept.to_netcdf(tmp_path / "state.nc", engine="h5netcdf")
    for masked in (True, False):
        with xr.open_dataset(tmp_path / "state.nc", mask_and_scale=masked) as read:
            assert shared.start(read).attrs["year"] == 1994
        assert same(shared.step(forcing_of(scenario, 1995), 1995), expected)


def test_forcings_come_in_several_forms(shared, scenario, anchor):
    prior, forcing = shared.start(anchor), forcing_of(scenario, 1994)
    expected = shared.step(forcing, 1994, prior=prior)
    channels = [name.replace("_", "/") if name == "grass_shrub" else name for name in forcing.data_vars]
    array = forcing.to_dataarray("channel").assign_coords(channel=channels)
    reversed_order = array.isel(channel=slice(None, None, -1)).transpose("lon", "lat", "channel")
    around = forcing.isel(lon=slice(0, 5))  # a cell more than the region has, as is needed to interpolate
    forms = [
        array,
        reversed_order.drop_vars("time").astype(np.float64),
        around,
        forcing.assign_coords(lon=forcing["lon"] + 360),
        forcing.drop_vars("time").expand_dims(time=np.array(["1994-01-01"], "datetime64[ns]")),
        forcing.drop_vars("time").assign_attrs(year=1994),
        xr.concat([forcing_of(scenario, year) for year in (1994, 1995)], "time"),
    ]
    for number, form in enumerate(forms):
        assert same(shared.step(form, 1994, prior=prior), expected), number


def test_cells_around_the_region_may_be_absent(shared, scenario, anchor):
    """The nearest one stands for them: interpolation beyond the outermost centres takes the outermost cell."""
    prior, forcing = shared.start(anchor), forcing_of(scenario, 1994)
    least = forcing.isel(lat=slice(0, 2), lon=slice(0, 4))
    filled = forcing.isel(lon=slice(0, 5)).copy(deep=True)
    for each in filled.data_vars.values():
        each[:, 4], each[2] = each[:, 3], each[1].copy()
        each[2, 4] = each[1, 3]
    made = shared.step(least, 1994, prior=prior)
    assert same(made, shared.step(filled, 1994, prior=prior))


def test_masks_in_memory_and_in_files_are_the_same(model, static, scenario, anchor, world):
    mask = xr.zeros_like(static["soil"], dtype=bool)
    mask[:, 10:30] = True
    emulator = Emulator(model, static=static, bbox=PART, batch_size=4, protected=mask.isel(lat=slice(None, None, -1)))
    before = emulator.start(anchor)
    after = emulator.step(forcing_of(scenario, 1994), 1994)
    changed = (before["land_use"] != after["land_use"]).values
    assert not changed[:, 10:30].any()
    assert changed.any()
    anywhere = Emulator(
        model, static=static, bbox=PART, batch_size=4, protected=str(world / "archives/static.nc:slope")
    )
    fixed = ~emulator.start(anchor)["may_change"].values.astype(bool)
    assert not np.array_equal(fixed, ~anywhere.start(anchor)["may_change"].values.astype(bool))


def test_static_fields_from_a_file_by_name_and_in_any_order_are_the_same(model, static, world, scenario, anchor):
    path = world / "archives" / "static.nc"
    names = ("elevation", "slope", "soil", "distance_to_water")
    forms = [
        static,
        str(path),
        {name: f"{path}:{name}" for name in names},
        {name: static[name].isel(lat=slice(None, None, -1)) for name in reversed(names)},
    ]
    made = []
    for form in forms:
        emulator = Emulator(model, static=form, bbox=PART, batch_size=4)
        made.append(emulator.step(forcing_of(scenario, 1994), 1994, prior=emulator.start(anchor)))
    assert all(same(each, made[0]) for each in made[1:])


def test_without_a_prior_only_where_the_model_has_learnt_it(model, static, scenario):
    def of(hidden):
        metadata = {**model.metadata, "prior_hidden": hidden}
        return Model(model.spec, model.weights, metadata, backend=model.backend)

    emulator = Emulator(of(0.2), static=static, bbox=PART, batch_size=4)
    made = emulator.step(forcing_of(scenario, 1994), 1994)
    assert emulator.year == 1994
    assert (made["land_use"] != 255).mean() > 0.5
    assert (emulator.step(forcing_of(scenario, 1995), 1995)["land_use"] != 255).any()
    with pytest.raises(InputError, match=r"there is no prior: .* it was not"):
        Emulator(of(0.0), static=static, bbox=PART).step(forcing_of(scenario, 1994), 1994)
    with pytest.raises(InputError, match="fixed classes and protected cells have no class to keep"):
        Emulator(of(0.2), static=static, bbox=PART, fixed="water").step(forcing_of(scenario, 1994), 1994)


def test_years_beyond_those_of_training_are_warned_of_once(model, static, scenario, anchor, caplog):
    data = {"years": list(range(1990, 1996)), "held_out_years": [1994, 1995]}  # as training writes it
    told = Model(model.spec, model.weights, {**model.metadata, "training": {"data": data}}, backend=model.backend)
    emulator = Emulator(told, static=static, bbox=PART, batch_size=4)
    emulator.start(anchor)
    with caplog.at_level("WARNING", "earthsr"):
        emulator.step(forcing_of(scenario, 1994), 1994)
        emulator.step(forcing_of(scenario, 1995), 1995)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["1994 lies outside the years that the model was trained on, 1990 to 1993"]


SCRIPT = """
import hashlib, sys
from earthsr import Emulator
from tests.landuse.emulator.cases import PART, forcing_of, opened
folder, backend = sys.argv[1:]
scenario = [opened(f"{folder}/archives/scenario_{part}.nc") for part in ("historical", "future")]
emulator = Emulator.load(
    f"{folder}/model.safetensors", static=opened(f"{folder}/archives/static.nc"), bbox=PART, batch_size=4,
    backend=backend, fixed=("water",),
)
emulator.start(f"{folder}/archives/landuse_1993.tif")
for year in (1994, 1995):
    made = emulator.step(forcing_of(scenario, year), year)
    print(*(hashlib.sha256(made[name].values.tobytes()).hexdigest() for name in ("land_use", "confidence", "area")))
"""


@pytest.mark.slow
def test_the_same_forcing_gives_the_same_map_twice_and_in_another_process(shared, scenario, anchor, world, any_backend):
    import hashlib

    lines = []
    for _ in range(2):
        shared.start(anchor)
        for year in (1994, 1995):
            made = shared.step(forcing_of(scenario, year), year)
            names = ("land_use", "confidence", "area")
            lines.append(" ".join(hashlib.sha256(made[name].values.tobytes()).hexdigest() for name in names))
    assert lines[:2] == lines[2:]
    command = [sys.executable, "-c", SCRIPT, str(world), any_backend]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == lines[:2]
