"""The Basic Model Interface: all of it, with the numbers of the emulator itself, and errors that change nothing."""

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest

from earthsr import Emulator
from earthsr.errors import EarthsrError
from earthsr.landuse.sources.scenario_files import variable_name
from tests.conftest import REPOSITORY
from tests.landuse.emulator.cases import PART, forcing_of

bmipy = pytest.importorskip("bmipy")

CLASS = "land_surface__land_use_class_code"


def write_config(path, world, backend, **more):
    archives = world / "archives"
    values = {
        "checkpoint": str(world / "model.safetensors"),
        "static": str(archives / "static.nc"),
        "anchor": str(archives / "landuse_1993.tif"),
        "end_year": 1995,
        "bbox": list(PART),
        "backend": backend,
        "batch_size": 4,
        **more,
    }
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))  # JSON is YAML
    return str(path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("demo-landuse", "demo-landuse"),
        ("run", "{folder}/run"),
        ("../run/checkpoints/best", "{folder}/../run/checkpoints/best"),
        ("demo-lnduse", "{folder}/demo-lnduse"),
    ],
)
def test_checkpoints_are_paths_or_names_of_pretrained_models(tmp_path, given, expected):
    from earthsr.landuse.emulator.bmi_description import BmiConfig

    path = tmp_path / "bmi.yaml"
    path.write_text(f"checkpoint: {given}\nstatic: static.nc\nanchor: 1993=anchor.tif\nend_year: 1995\n")
    assert BmiConfig.read(path).checkpoint == expected.format(folder=tmp_path)
    if given == "demo-landuse":
        (tmp_path / given).mkdir()
        assert BmiConfig.read(path).checkpoint == str(tmp_path / given), "what lies there goes first"


@pytest.fixture
def config(tmp_path, world, any_backend):
    return write_config(tmp_path / "bmi.yaml", world, any_backend)


@pytest.fixture(scope="module")
def still(tmp_path_factory, world, any_backend):
    """Shared by tests that only look, or are refused: it stays in its first year."""
    from earthsr.landuse.emulator.bmi import EarthsrBmi

    found = EarthsrBmi()
    found.initialize(write_config(tmp_path_factory.mktemp("bmi") / "bmi.yaml", world, any_backend))
    yield found
    assert found.get_current_time() == 1993
    found.finalize()


@pytest.fixture
def bmi(config):
    from earthsr.landuse.emulator.bmi import EarthsrBmi

    found = EarthsrBmi()
    found.initialize(config)
    yield found
    found.finalize()


def fractions(bmi, scenario, year):
    """Fractions by variable on the interface's coarse grid, whose rows go from south to north."""
    rows, columns = bmi.get_grid_shape(1, np.empty(2, int))
    lat, lon = bmi.get_grid_y(1, np.empty(rows)), bmi.get_grid_x(1, np.empty(columns))
    # Beyond the edge of the world the nearest cell stands, as where a forcing ends there.
    forcing = forcing_of(scenario, year).reindex(lat=lat, lon=lon, method="nearest")
    names = [variable_name(channel) for channel in ("urban", "cropland", "pasture", "forest", "grass/shrub", "sparse")]
    return dict(zip(bmi.get_input_var_names(), [forcing[name].values for name in (*names, "water")], strict=True))


def couple(bmi, scenario, year):
    for name, values in fractions(bmi, scenario, year).items():
        bmi.set_value(name, values)
    bmi.update()


def everything(bmi):
    return {
        name: bmi.get_value_ptr(name).copy() for name in (*bmi.get_input_var_names(), *bmi.get_output_var_names())
    } | {"time": np.array([bmi.get_current_time()])}


def unchanged(before, after):
    return all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)


def test_a_run_is_that_of_the_emulator(bmi, model, static, scenario, anchor):
    emulator = Emulator(model, static=static, bbox=PART, batch_size=4)
    state = emulator.start(anchor)
    reference = bmi.get_value_ptr(CLASS)
    rows, columns = bmi.get_grid_shape(0, np.empty(2, int))
    assert np.array_equal(reference.reshape(rows, columns)[::-1], state["land_use"])
    assert (bmi.get_start_time(), bmi.get_current_time(), bmi.get_end_time()) == (1993, 1993, 1995)
    for year in (1994, 1995):
        couple(bmi, scenario, year)
        made = emulator.step(forcing_of(scenario, year), year)
        assert bmi.get_current_time() == year
        assert np.array_equal(reference.reshape(rows, columns)[::-1], made["land_use"]), "the reference stays valid"
        names = [name for name in bmi.get_output_var_names() if bmi.get_var_grid(name) == 1]
        for name, areas in zip(names, made["area"].values, strict=True):
            dest = np.empty(areas.size)
            assert np.array_equal(bmi.get_value(name, dest).reshape(areas.shape)[::-1], areas)
        confidence = bmi.get_value_ptr("land_surface__land_use_class_probability").reshape(rows, columns)[::-1]
        assert np.array_equal(confidence, made["confidence"], equal_nan=True)
    with pytest.raises(EarthsrError, match="the run ends with 1995"):
        bmi.update()


def test_every_method_of_the_interface_is_there(still):
    from earthsr.landuse.emulator.bmi import EarthsrBmi

    assert isinstance(still, bmipy.Bmi)
    assert len(bmipy.Bmi.__abstractmethods__) > 40
    for name in bmipy.Bmi.__abstractmethods__:
        ours, theirs = getattr(EarthsrBmi, name), getattr(bmipy.Bmi, name)
        assert not getattr(ours, "__isabstractmethod__", False), name
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), name


def test_variables_say_what_they_are(still):
    assert still.get_component_name() == "earthsr land-use emulator"
    inputs, outputs = still.get_input_var_names(), still.get_output_var_names()
    assert still.get_input_item_count() == len(inputs) == 7
    assert still.get_output_item_count() == len(outputs) == 3 + 7
    assert inputs[0] == "land_surface_urban__area_fraction"
    assert "land_surface_grass-shrub__area_fraction" in inputs
    assert "land_surface_grass-shrub__area" in outputs
    for name in (*inputs, *outputs):
        size = still.get_grid_size(still.get_var_grid(name))
        values = still.get_value_ptr(name)
        assert values.shape == (size,)
        assert still.get_var_itemsize(name) * size == still.get_var_nbytes(name) == values.nbytes
        assert np.dtype(still.get_var_type(name)) == values.dtype
        assert still.get_var_location(name) == "node"
        assert still.get_var_units(name) == ("km2" if name.endswith("__area") else "1")
        assert values.flags.writeable == (name in inputs)
    assert still.get_time_units() == "year"
    assert still.get_time_step() == 1.0


def test_grids_are_regular_and_begin_in_the_south_west(still, model, static):
    emulator = Emulator(model, static=static, bbox=PART)
    for number, grid in enumerate((emulator.grid, emulator.forcing_grid)):
        assert still.get_grid_rank(number) == 2
        assert still.get_grid_type(number) == "uniform_rectilinear"
        shape = still.get_grid_shape(number, np.empty(2, int))
        assert shape.tolist() == [grid.rows, grid.columns]
        assert still.get_grid_size(number) == still.get_grid_node_count(number) == shape.prod()
        spacing, origin = still.get_grid_spacing(number, np.empty(2)), still.get_grid_origin(number, np.empty(2))
        y, x = still.get_grid_y(number, np.empty(shape[0])), still.get_grid_x(number, np.empty(shape[1]))
        assert np.allclose(y, origin[0] + spacing[0] * np.arange(shape[0]))
        assert np.allclose(x, origin[1] + spacing[1] * np.arange(shape[1]))
        assert np.allclose(y[::-1], grid.latitudes())
        assert np.allclose(x, grid.longitudes())
        for method in ("get_grid_edge_count", "get_grid_face_count"):
            with pytest.raises(NotImplementedError, match=f"{method}: grid {number} is uniform_rectilinear and has no"):
                getattr(still, method)(number)
        for method in ("edge_nodes", "face_edges", "face_nodes", "nodes_per_face", "z"):
            with pytest.raises(NotImplementedError, match="uniform_rectilinear"):
                getattr(still, f"get_grid_{method}")(number, np.empty(1, int))
    with pytest.raises(EarthsrError, match="no grid 2"):
        still.get_grid_rank(2)
    areas = still.get_value_ptr("land_surface_grid_cell__area")
    assert areas.sum() == pytest.approx(0.5 * 1.0 * 111.195**2 * np.cos(np.deg2rad(47.75)), rel=1e-4)


def test_values_at_indices(still):
    name = "land_surface_urban__area_fraction"
    still.set_value(name, np.linspace(0, 1, still.get_grid_size(1)))
    still.set_value_at_indices(name, np.array([0, 2]), np.array([0.5, 0.25]))
    assert still.get_value_at_indices(name, np.empty(3), np.array([2, 0, 1])).tolist() == [
        0.25,
        0.5,
        still.get_value_ptr(name)[1],
    ]


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda b: b.set_value("land_surface_sea__area_fraction", np.zeros(1)), "no variable 'land_surface_sea_"),
        (lambda b: b.set_value(CLASS, np.zeros(b.get_grid_size(0))), "is an output; inputs are land_surface_urban"),
        (lambda b: b.set_value(b.get_input_var_names()[0], np.zeros(3)), "3 items of float64, expected \\d+ numbers"),
        (lambda b: b.set_value(b.get_input_var_names()[0], np.full(b.get_grid_size(1), "a")), "items of <U1, expected"),
        (lambda b: b.set_value(b.get_input_var_names()[0], np.full(b.get_grid_size(1), 40.0)), "40 is no fraction"),
        (lambda b: b.set_value_at_indices(b.get_input_var_names()[0], [99], [0.5]), "indices are 99 to 99, expected"),
        (lambda b: b.set_value_at_indices(b.get_input_var_names()[0], [0.5], [0.5]), "indices are float64"),
        (lambda b: b.set_value_at_indices(b.get_input_var_names()[0], [0, 1], [0.5]), "1 items of float64, expected 2"),
        (lambda b: b.get_value(CLASS, np.empty(3)), "has 3 items, expected a NumPy array of 2048"),
        (lambda b: b.get_value(CLASS, [0] * 2048), "has list, expected a NumPy array of 2048"),
        (lambda b: b.get_value("land_surface_grid_cell__area", np.empty(2048, int)), "is of int64, expected float64"),
        (lambda b: b.get_grid_shape(0, np.empty(3, int)), "has 3 items, expected a NumPy array of 2"),
        (lambda b: b.update_until(1993.5), "expected a whole year from 1993 .now. to 1995"),
        (lambda b: b.update_until(1990), "expected a whole year from 1993"),
        (lambda b: b.update_until(1996), "expected a whole year from 1993"),
        (lambda b: b.initialize("other.yaml"), "is initialised already; call finalize first"),
    ],
)
def test_what_does_not_fit_changes_nothing(still, scenario, act, match):
    for name, values in fractions(still, scenario, 1994).items():
        still.set_value(name, values)
    before = everything(still)
    with pytest.raises(EarthsrError, match=match):
        act(still)
    assert unchanged(before, everything(still))


def test_an_update_that_fails_leaves_time_and_maps(bmi, scenario):
    with pytest.raises(EarthsrError, match=r"land_surface_urban__area_fraction, .* was not set; call set_value first"):
        bmi.update()
    given = fractions(bmi, scenario, 1994)
    for name, values in given.items():
        bmi.set_value(name, values)
    bmi.get_value_ptr("land_surface_urban__area_fraction")[:] = 0.9
    before = everything(bmi)
    for step in (bmi.update, lambda: bmi.update_until(1995)):
        with pytest.raises(EarthsrError, match="add up to"):
            step()
        assert unchanged(before, everything(bmi))
    couple(bmi, scenario, 1994)
    assert bmi.get_current_time() == 1994


def test_update_until_is_as_many_updates_with_the_same_forcing(bmi, config, scenario):
    from earthsr.landuse.emulator.bmi import EarthsrBmi

    other = EarthsrBmi()
    other.initialize(config)
    for name, values in fractions(bmi, scenario, 1994).items():
        bmi.set_value(name, values)
        other.set_value(name, values)
    bmi.update_until(1993)
    assert bmi.get_current_time() == 1993
    bmi.update_until(1995.0)
    other.update()
    other.update()
    assert unchanged(everything(bmi), everything(other))


def test_backwards_the_time_step_is_negative(tmp_path, world, any_backend, scenario, caplog):
    from earthsr.landuse.emulator.bmi import EarthsrBmi

    bmi = EarthsrBmi()
    bmi.initialize(write_config(tmp_path / "bmi.yaml", world, any_backend, end_year=1992, start_year=1993))
    assert bmi.get_time_step() == -1.0
    couple(bmi, scenario, 1992)
    assert bmi.get_current_time() == bmi.get_end_time() == 1992
    with pytest.raises(EarthsrError, match="the run ends with 1992"):
        bmi.update()


def test_before_initialize_and_after_finalize_every_method_says_so(config):
    from earthsr.landuse.emulator.bmi import EarthsrBmi

    bmi = EarthsrBmi()
    assert bmi.get_component_name()
    bmi.finalize()
    values = {"time": 2000.0, "name": CLASS, "grid": 0}
    for name in sorted(
        bmipy.Bmi.__abstractmethods__ - {"initialize", "finalize", "get_component_name", "get_time_units"}
    ):
        method = getattr(bmi, name)
        arguments = [values.get(key, np.zeros(1)) for key in inspect.signature(method).parameters]
        with pytest.raises(EarthsrError, match=r"is not initialised; call initialize\(CONFIG.yaml\) first"):
            method(*arguments)
    bmi.initialize(config)
    bmi.finalize()
    with pytest.raises(EarthsrError, match="is not initialised"):
        bmi.update()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"end_year": None}, "bmi.yaml: lacks end_year; checkpoint, static, anchor, end_year are needed"),
        ({"end_yaer": 2000}, "unknown key end_yaer; did you mean end_year"),
        ({"end_year": "soon"}, "end_year is 'soon'"),
        ({"end_year": 12}, "expected a calendar year from 850"),
        ({"overlap": 1.5}, "overlap is 1.5"),
        ({"precision": "half"}, "precision is 'half'"),
        ({"checkpoint": "none.safetensors"}, "none.safetensors"),
        ({"start_year": 1990}, "start_year|is of 1993"),
        ({"fixed": ["sea"]}, "no class 'sea'"),
    ],
)
def test_configurations_that_do_not_fit_leave_nothing_initialised(tmp_path, world, any_backend, change, match):
    from earthsr.landuse.emulator.bmi import EarthsrBmi

    bmi = EarthsrBmi()
    with pytest.raises(EarthsrError, match=match) as caught:
        bmi.initialize(write_config(tmp_path / "bmi.yaml", world, any_backend, **change))
    assert "\n" not in str(caught.value)
    with pytest.raises(EarthsrError, match="is not initialised"):
        bmi.update()


@pytest.mark.parametrize(
    ("text", "match"), [(None, "no such configuration file"), ("- 1", "found list"), ("a: [", "cannot be read as YAML")]
)
def test_files_that_are_no_configuration(tmp_path, text, match):
    from earthsr.landuse.emulator.bmi import EarthsrBmi

    path = tmp_path / "bmi.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(EarthsrError, match=match):
        EarthsrBmi().initialize(str(path))


@pytest.mark.slow
def test_bmipy_is_needed_by_this_module_alone():
    script = """
import sys
sys.modules["bmipy"] = None
import earthsr
assert earthsr.Emulator
try:
    import earthsr.landuse.emulator.bmi
except earthsr.errors.InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    hint = "pip install 'earthsr[bmi]' (in a clone: pip install -e '.[bmi]')"
    assert done.stdout == f"the Basic Model Interface needs the package bmipy: {hint}\n"
