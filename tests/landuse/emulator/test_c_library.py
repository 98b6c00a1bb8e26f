"""``libearthsr_bmi``: hosts of C and Fortran get the maps of ``earthsr reconstruct``, and no host is harmed."""

import os
import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import rasterio

from earthsr import Emulator
from earthsr.emulator import c_table
from tests.conftest import REPOSITORY
from tests.landuse.emulator.cases import PART, forcing_of, opened
from tests.landuse.emulator.test_bmi import CLASS, fractions, write_config
from tests.landuse.emulator.test_same_as_reconstruct import rolled

bmipy = pytest.importorskip("bmipy")
EXAMPLES = REPOSITORY / "examples"

#: Members of ``struct Bmi`` in their order, by the words of bmi-c 2.0 that say what they are.
OF_BMI_C = """
initialize update update_until finalize
get_component_name get_input_item_count get_output_item_count get_input_var_names get_output_var_names
get_var_grid get_var_type get_var_units get_var_itemsize get_var_nbytes get_var_location
get_current_time get_start_time get_end_time get_time_units get_time_step
get_value get_value_ptr get_value_at_indices set_value set_value_at_indices
get_grid_rank get_grid_size get_grid_type get_grid_shape get_grid_spacing get_grid_origin
get_grid_x get_grid_y get_grid_z
get_grid_node_count get_grid_edge_count get_grid_face_count
get_grid_edge_nodes get_grid_face_edges get_grid_face_nodes get_grid_nodes_per_face
"""


def test_the_table_is_that_of_the_interface():
    names = [function.name for function in c_table.BMI]
    assert names == OF_BMI_C.split()
    assert set(names) == bmipy.Bmi.__abstractmethods__
    for function in c_table.BMI:
        assert f"(*{function.name})(struct Bmi *self" in c_table.struct()
    assert (
        "int (*get_value_at_indices)(struct Bmi *self, const char *name, void *dest, int *inds, int count);"
        in c_table.struct()
    )
    assert max(map(len, c_table.fortran_procedures().splitlines())) <= 132, "what Fortran reads of a line"


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program}")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Built once, by the command that people type."""
    pytest.importorskip("cffi")
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("library")
    command = [sys.executable, "-m", "earthsr.emulator.c_library", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout == f"{folder / 'lib' / 'libearthsr_bmi.so'}\n"
    return folder


@pytest.fixture(scope="module")
def flags(library):
    if shutil.which("pkg-config") is None:
        pytest.skip("there is no pkg-config")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(library / "lib" / "pkgconfig")}
    command = ["pkg-config", "--cflags", "--libs", "earthsr_bmi"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.split()


def write_fractions(config, world, output):
    """What ``examples/write_fractions.py`` writes."""
    script = runpy.run_path(str(EXAMPLES / "write_fractions.py"))
    script["write_fractions"](config, sorted((world / "archives").glob("scenario_*.nc")), output)
    return output


@pytest.fixture(scope="module")
def coupled(world, model, any_backend, tmp_path_factory):
    """A configuration, its fractions, and the maps of ``reconstruct`` by year: with protected cells and fixed ones."""
    folder = tmp_path_factory.mktemp("coupled")
    parks = folder / "parks.tif"
    with rasterio.open(world / "archives" / "landuse_1993.tif") as file:
        profile = {**file.profile, "nodata": None}
    profile.pop("colormap", None)
    values = np.zeros((profile["height"], profile["width"]), np.uint8)
    values[:, :21] = 1
    with rasterio.open(parks, "w", **profile) as file:
        file.write(values, 1)
    options = {"match_areas": True, "fixed": ("water",), "protected": (str(parks),), "batch_size": 4}
    codes, _, _ = rolled(model, world / "archives", folder / "maps.zarr", (1993, 1995), **options)
    config = write_config(folder / "bmi.yaml", world, any_backend, fixed=["water"], protected=[str(parks)])
    return config, write_fractions(config, world, folder / "fractions.bin"), codes


@pytest.mark.slow
@pytest.mark.parametrize(
    "language", [pytest.param("c", marks=needs("make")), pytest.param("fortran", marks=needs("gfortran"))]
)
def test_examples_make_the_maps_of_reconstruct(language, library, flags, coupled, tmp_path):
    config, fractions_path, codes = coupled
    make = ["make", "-s", "-C", str(EXAMPLES / language), f"LIBRARY={library}", f"OUT={tmp_path}"]
    built = subprocess.run(make, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, ""), "no warning of the compiler either"
    words = [str(tmp_path / "land"), config, str(fractions_path), str(tmp_path / "maps.bin")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["1994", "1995"]
    maps = np.fromfile(tmp_path / "maps.bin", np.uint8).reshape(2, *codes[1994].shape)[:, ::-1]
    for year, made in zip((1994, 1995), maps, strict=True):
        assert np.array_equal(made, codes[year]), year
    assert not np.array_equal(maps[0], maps[1]), "nothing changed, so that nothing was shown"
    broken = subprocess.run([*words[:1], "none.yaml", *words[2:]], capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    assert "none.yaml: no such configuration file" in broken.stderr


@pytest.mark.slow
@needs("mpicc")
@needs("mpirun")
def test_four_ranks_under_mpi_make_the_map_of_one(library, flags, coupled, world, any_backend, tmp_path):
    """Of the coupled region in eight chunks; two cores take turns."""
    _, _, codes = coupled
    config = write_config(tmp_path / "bmi.yaml", world, any_backend, chunk=16)
    fractions_path = write_fractions(config, world, tmp_path / "fractions.bin")
    make = ["make", "-s", "-C", str(EXAMPLES / "c"), f"LIBRARY={library}", f"OUT={tmp_path}"]
    subprocess.run([*make, str(tmp_path / "land"), str(tmp_path / "land_mpi")], check=True)
    environment = {
        **os.environ,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMP_NUM_THREADS": "1",
    }
    maps = []
    for name, launcher in (("land", []), ("land_mpi", ["mpirun", "--oversubscribe", "-n", "4"])):
        words = [*launcher, str(tmp_path / name), config, str(fractions_path), str(tmp_path / f"{name}.bin")]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        maps.append(np.fromfile(tmp_path / f"{name}.bin", np.uint8))
    assert maps[0].size == 2 * codes[1994].size
    assert np.array_equal(*maps)


@pytest.mark.slow
@needs("gfortran")
def test_all_kinds_of_procedures_of_the_fortran_module(library, flags, world, any_backend, tmp_path):
    config = write_config(tmp_path / "bmi.yaml", world, any_backend)
    sources = [library / "include" / "earthsr_bmi.f90", REPOSITORY / "tests" / "landuse" / "emulator" / "host.f90"]
    command = [
        "gfortran",
        "-std=f2018",
        "-Wall",
        "-Werror",
        "-fcheck=bounds,do,mem,pointer,recursion",
        "-J",
        tmp_path,
        "-o",
        tmp_path / "host",
    ]
    subprocess.run([str(word) for word in (*command, *sources, *flags)], check=True, cwd=tmp_path)
    done = subprocess.run([str(tmp_path / "host"), config], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


#: A host that knows the library by its path alone, as couplers load their components.
BY_PATH = """
#include <dlfcn.h>
#include "earthsr_bmi.h"
int main(int count, char **words) {
  void *library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
  Bmi *(*fill)(Bmi *) = (Bmi *(*)(Bmi *))dlsym(library, "register_bmi_earthsr");
  Bmi land;
  fill(&land);
  if (land.initialize(&land, words[2]) || land.finalize(&land)) return 1;
  return dlclose(library) + count - 3;
}
"""


@pytest.mark.slow
def test_a_host_may_open_and_close_the_library_itself(library, coupled, tmp_path):
    (tmp_path / "plugin.c").write_text(BY_PATH)
    compiler = [
        "cc",
        "-I",
        str(library / "include"),
        "-o",
        str(tmp_path / "plugin"),
        str(tmp_path / "plugin.c"),
        "-ldl",
    ]
    subprocess.run(compiler, check=True)
    words = [str(tmp_path / "plugin"), str(library / "lib" / "libearthsr_bmi.so"), coupled[0]]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def host(flags, tmp_path_factory):
    """The host that is hard on the library."""
    path = tmp_path_factory.mktemp("host") / "host"
    source = REPOSITORY / "tests" / "landuse" / "emulator" / "host.c"
    subprocess.run(["cc", "-Wall", "-Werror", "-o", str(path), str(source), *flags, "-lm", "-lpthread"], check=True)
    return path


def report_of(host, folder, *arguments):
    """Lines of the host's report, last one by key; nothing may be on standard output."""
    report = folder / "report"
    words = [str(host), str(report), *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if "NUM_THREADS" not in key}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    lines = report.read_text().splitlines()
    assert done.returncode == 0, (done.returncode, done.stderr, lines[-3:])
    assert done.stdout == ""
    return dict(line.split(" ", 1) for line in lines), done.stderr


@pytest.fixture(scope="module")
def told(host, world, any_backend, tmp_path_factory):
    """What a host has seen that does nearly everything wrong; of one process."""
    folder = tmp_path_factory.mktemp("host")
    config = write_config(folder / "bmi.yaml", world, any_backend)
    back = write_config(folder / "back.yaml", world, any_backend, end_year=1992)
    write_fractions(config, world, folder / "fractions.bin")
    report, stderr = report_of(host, folder, config, back, folder / "fractions.bin", 0)
    assert stderr == "", "warnings go to the host's function"
    assert report["done"] == "1"
    return report


#: What is answered, by key of the report.
ANSWERS = {
    "threads_none": r"set_threads\(0\): expected 1 thread or more",
    "threads_late": "set_threads: .* call it before the first initialize",
    "null_model": "the model is NULL; fill a struct Bmi with register_bmi_earthsr first",
    "null_config": "config_file is NULL",
    "null_name": "get_value: name is NULL",
    "null_dest": "get_value: dest is NULL",
    "bad_text": "name is no text of UTF-8",
    "not_initialised": r"update: is not initialised; call initialize\(CONFIG.yaml\) first",
    "no_config": "none.yaml: no such configuration file",
    "twice": "is initialised already; call finalize first",
    "unset": "land_surface_urban__area_fraction, .* was not set; call set_value first",
    "deadline_negative": "expected seconds, 0 for no deadline",
    "no_name": "no variable 'nonsense'; there are land_surface_urban__area_fraction",
    "output_set": f"{CLASS} is an output; inputs are land_surface_urban",
    "size": r"3 items of float64, expected \d+ numbers",
    "type": "it holds double, asked for is float",
    "no_type": "no type 'long'; there are double, float, int, unsigned char",
    "negative": "-3 items, expected none or more",
    "grid": "no grid 9",
    "undefined": "get_grid_edge_nodes: grid 0 is uniform_rectilinear",
    "past": "expected a whole year from 1994",
    "index": "indices are 1048576 to 1048576, expected whole numbers from 0 to 2047",
    "percent": "40 is no fraction of 0 to 1",
    "sums": "add up to",
    "other_thread": "no grid 7",
    "end": "the run ends with 1995",
    "finalized": "is not initialised",
    "garbage": "is not initialised",
}


@pytest.mark.slow
def test_errors_are_codes_with_a_text_and_the_state_as_it_was(told):
    for key, pattern in ANSWERS.items():
        assert re.search(pattern, told[key]), (key, told[key])
    assert told["kept"] == told["input_kept"] == "1"
    assert [key for key in told if told[key].startswith("failed:")] == []


@pytest.mark.slow
def test_a_host_keeps_its_signals_streams_locale_and_floating_point(told):
    assert told["signals"] == "0"
    assert told["locale"] == "C"
    assert told["floating"] == "1"


@pytest.mark.slow
def test_a_host_that_traps_and_rounds_upwards_gets_the_same_map(told, model, static, scenario, anchor):
    emulator = Emulator(model, static=static, bbox=PART, batch_size=4)
    emulator.start(anchor)
    checksum = 1469598103
    for code in emulator.step(forcing_of(scenario, 1994), 1994)["land_use"].values[::-1].ravel().tolist():
        checksum = (checksum ^ code) * 1099511628211 % 2**64
    assert told["first"] == str(checksum)


@pytest.mark.slow
def test_two_emulators_in_one_process_and_one_of_them_again(told):
    assert told["times"] == "1995 1992"
    assert told["again"] == told["other_goes_on"] == "1"
    assert len({told["first"], told["second"], told["backwards"]}) == 3


@pytest.mark.slow
def test_late_steps_are_reported_and_threads_are_as_many_as_the_host_wants(told):
    assert told["late"] == told["seconds_kept"] == told["logged"] == "1"
    assert re.fullmatch(r"1995 took \d+\.\d+ s, its deadline is 1e-06 s", told["log30"])
    assert int(told["threads"]) <= 2, "that of the host, and one"


@pytest.mark.slow
def test_memory_is_flat_over_100_years(host, world, any_backend, tmp_path):
    config = write_config(tmp_path / "bmi.yaml", world, any_backend, end_year=2299, bbox=None)
    near = write_config(tmp_path / "near.yaml", world, any_backend, bbox=None)
    write_fractions(near, world, tmp_path / "fractions.bin")
    report, _ = report_of(host, tmp_path, config, config, tmp_path / "fractions.bin", 100)
    assert (report["steps"], report["time"]) == ("100", "2093")
    # A map and its confidence are 60 KiB: one kept a year would be 4,800 in the last 80 years.
    assert int(report["grown"]) < 2048, report


@pytest.mark.slow
def test_every_function_gives_what_python_gives(library, world, any_backend, tmp_path):
    """In the Python that runs this, which is a host as well: its standard output stays its own."""
    import cffi

    from earthsr.landuse.emulator.bmi import EarthsrBmi

    ffi = cffi.FFI()
    header = (library / "include" / "earthsr_bmi.h").read_text()
    declarations = header[header.index("Bmi *register") :].split("\n#if")[0]
    ffi.cdef(c_table.struct() + declarations)
    lib = ffi.dlopen(str(library / "lib" / "libearthsr_bmi.so"))
    stdout = sys.stdout
    land, python = ffi.new("Bmi *"), EarthsrBmi()
    lib.register_bmi_earthsr(land)
    config = write_config(tmp_path / "bmi.yaml", world, any_backend)

    def call(name, *arguments):
        status = getattr(land, name)(land, *arguments)
        assert status == 0, (name, ffi.string(lib.earthsr_bmi_last_error()))

    def value(name, c_type, *arguments, items=1):
        room = ffi.new(f"{c_type}[]", items)
        call(name, *arguments, room)
        return ffi.string(room).decode() if c_type == "char" else list(room) if items > 1 else room[0]

    call("initialize", config.encode())
    assert sys.stdout is stdout
    python.initialize(config)
    scenario = tuple(opened(path) for path in sorted((world / "archives").glob("scenario_*.nc"), reverse=True))
    given = fractions(python, scenario, 1994)
    for name, values in given.items():
        values = np.ascontiguousarray(values, np.float64)
        call("set_value", name.encode(), ffi.cast("void *", values.ctypes.data))
        python.set_value(name, values)
    call("set_value_at_indices", b"land_surface_urban__area_fraction", [0, 2], 2, ffi.new("double[]", [0.25, 0.5]))
    python.set_value_at_indices("land_surface_urban__area_fraction", np.array([0, 2]), np.array([0.25, 0.5]))
    urban = ffi.new("double[3]")
    call("get_value_at_indices", b"land_surface_urban__area_fraction", urban, [2, 0, 1], 3)
    assert list(urban)[:2] == [0.5, 0.25]
    for name, values in given.items():
        values = np.ascontiguousarray(values, np.float32)
        assert (
            lib.earthsr_bmi_set_value_checked(
                land, name.encode(), b"float", ffi.cast("void *", values.ctypes.data), values.size
            )
            == 0
        )
        python.set_value(name, values)
    call("update")
    python.update()
    call("update_until", 1995.0)
    python.update_until(1995.0)

    room = 2048
    assert value("get_component_name", "char", items=room) == python.get_component_name()
    for direction in ("input", "output"):
        count = value(f"get_{direction}_item_count", "int")
        rooms = [ffi.new("char[]", room) for _ in range(count)]
        call(f"get_{direction}_var_names", ffi.new("char *[]", rooms))
        assert tuple(ffi.string(name).decode() for name in rooms) == getattr(python, f"get_{direction}_var_names")()
    assert value("get_time_units", "char", items=room) == "year"
    for name in ("current_time", "start_time", "end_time", "time_step"):
        assert value(f"get_{name}", "double") == getattr(python, f"get_{name}")()
    types = {"double": "float64", "float": "float32", "unsigned char": "uint8"}
    for name in (*python.get_input_var_names(), *python.get_output_var_names()):
        text = name.encode()
        for what in ("grid", "itemsize", "nbytes"):
            assert value(f"get_var_{what}", "int", text) == getattr(python, f"get_var_{what}")(name)
        for what in ("units", "location"):
            assert value(f"get_var_{what}", "char", text, items=room) == getattr(python, f"get_var_{what}")(name)
        c_type = value("get_var_type", "char", text, items=room)
        assert types[c_type] == python.get_var_type(name)
        reference = python.get_value_ptr(name)
        place = ffi.new("void **")
        call("get_value_ptr", text, place)
        pointed = np.frombuffer(ffi.buffer(place[0], reference.nbytes), reference.dtype)
        assert np.array_equal(pointed, reference, equal_nan=True), name
        copied = np.zeros_like(reference)
        call("get_value", text, ffi.cast("void *", copied.ctypes.data))
        assert np.array_equal(copied, reference, equal_nan=True), name
    for grid in (0, 1):
        shape = value("get_grid_shape", "int", grid, items=2)
        assert shape == python.get_grid_shape(grid, np.empty(2, int)).tolist()
        for what in ("rank", "size", "node_count"):
            assert value(f"get_grid_{what}", "int", grid) == getattr(python, f"get_grid_{what}")(grid)
        assert value("get_grid_type", "char", grid, items=room) == python.get_grid_type(grid)
        for what, items in (("spacing", 2), ("origin", 2), ("y", shape[0]), ("x", shape[1])):
            expected = getattr(python, f"get_grid_{what}")(grid, np.empty(items)).tolist()
            assert value(f"get_grid_{what}", "double", grid, items=items) == expected
        for what in ("edge_count", "face_count", "edge_nodes", "face_edges", "face_nodes", "nodes_per_face", "z"):
            room_for_one = ffi.new("double[1]" if what == "z" else "int[1]")
            assert getattr(land, f"get_grid_{what}")(land, grid, room_for_one) == 1
            assert f"get_grid_{what}: grid {grid}" in ffi.string(lib.earthsr_bmi_last_error()).decode()
    call("finalize")
    python.finalize()
    ffi.dlclose(lib)
    assert all(isinstance(module, object) and hasattr(module, "__class__") for module in list(sys.modules.values()))


def test_what_is_missing_is_said_before_anything_is_built(tmp_path, monkeypatch):
    from earthsr.emulator import c_library
    from earthsr.errors import EarthsrError

    monkeypatch.setattr(c_library.sysconfig, "get_config_var", lambda name: str(tmp_path / "none"))
    with pytest.raises(EarthsrError, match="has no shared library of Python"):
        c_library.build_c_library(tmp_path / "library")
    monkeypatch.undo()
    pytest.importorskip("cffi")
    monkeypatch.setitem(sys.modules, "cffi", None)
    with pytest.raises(EarthsrError, match=r"needs the package cffi: pip install 'earthsr\[bmi\]'"):
        c_library.build_c_library(tmp_path / "library")


@pytest.mark.slow
def test_a_compiler_that_fails_is_said_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip("cffi")
    from earthsr.emulator.c_library import build_c_library
    from earthsr.errors import EarthsrError

    monkeypatch.setenv("CC", "false")
    with pytest.raises(EarthsrError, match=r"the C compiler failed .*; a library for C needs gcc or clang") as caught:
        build_c_library(tmp_path / "library")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "library" / "include" / "bmi.h").exists()


@pytest.mark.slow
def test_a_python_without_the_package_is_a_failure_with_a_text(host, world, any_backend, tmp_path):
    """EARTHSR_PYTHON names another environment: one where earthsr is not installed."""
    import venv

    venv.create(tmp_path / "bare", with_pip=False)
    (tmp_path / "fractions.bin").write_bytes(b"")
    words = [str(host), str(tmp_path / "report"), "a.yaml", "b.yaml", str(tmp_path / "fractions.bin"), "1"]
    environment = {**os.environ, "EARTHSR_PYTHON": str(tmp_path / "bare" / "bin" / "python")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    report = (tmp_path / "report").read_text()
    assert done.stdout == ""
    assert "set_threads failed: " in report
    assert re.search(r"initialize failed: .*EARTHSR_PYTHON.* has to have earthsr\[bmi\]", report), report
    assert "No module named" in done.stderr
