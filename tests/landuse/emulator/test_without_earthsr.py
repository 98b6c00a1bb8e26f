"""Maps of the emulator, made again from the exported file by a program that has NumPy and onnxruntime alone."""

import re
import runpy

import numpy as np
import pytest

from earthsr import Emulator
from earthsr.backend import Model
from earthsr.landuse.classes import NODATA
from earthsr.landuse.match_areas import match_areas
from tests.conftest import REPOSITORY, call_cli, installed
from tests.landuse.emulator.cases import PART, forcing_of
from tests.landuse.reconstruct.cases import box

PROGRAM = REPOSITORY / "examples" / "year_without_earthsr.py"

pytestmark = [
    *(pytest.mark.skipif(not installed(name), reason=f"backend {name} is not installed") for name in ("torch", "onnx")),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def exported(world, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    done = call_cli("export", world / "model.safetensors", path, "--backend", "torch")
    assert done.returncode == 0, done.stderr
    return path


def axis(program, centres):
    return program["Axis"](float(centres[0]), float(centres[1] - centres[0]), len(centres))


def test_the_program_imports_nothing_of_earthsr():
    imported = re.findall(r"^(?:from|import) (\w+)", PROGRAM.read_text(), re.M)
    assert set(imported) == {"__future__", "json", "math", "dataclasses", "typing", "numpy"}


@pytest.mark.parametrize(("part", "years"), [(PART, (1994, 1995)), ("odd", (1992, 1991))])
def test_an_independent_program_makes_the_same_maps(exported, static, scenario, anchor, part, years):
    """Whole coarse cells forwards; and backwards a part that begins and ends inside one."""
    import onnxruntime

    model = Model.from_checkpoint(exported)
    if part == "odd":
        part = box(Emulator(model, static=static).grid, 5, 11, 40, 90)
    emulator = Emulator(model, static=static, bbox=part, fixed=("water",))
    state = emulator.start(anchor)
    program = runpy.run_path(str(PROGRAM))
    fine, coarse = emulator.grid, emulator.forcing_grid
    region = program["Region"](
        axis(program, fine.latitudes()), axis(program, fine.longitudes()),
        axis(program, coarse.latitudes()), axis(program, coarse.longitudes()),
    )  # fmt: skip
    fields = static.sel(lat=state["lat"], lon=state["lon"], method="nearest")
    values = np.stack(
        [
            np.broadcast_to(fine.latitudes()[:, None], (fine.rows, fine.columns))
            if name == "latitude"
            else fields[name].values
            for name in emulator.static_channels
        ]
    ).astype(np.float32)
    maker = program["Year"](onnxruntime.InferenceSession(exported), region, values)
    codes = np.array([land_class["code"] for land_class in maker.classes])
    prior = np.full((fine.rows, fine.columns), NODATA, np.uint8)
    for k, code in enumerate(codes):
        prior[state["land_use"].values == code] = k
    free = state["may_change"].values == 1
    before = emulator.year
    for year in years:
        forcing = forcing_of(scenario, year)
        made = emulator.step(forcing, year)
        fractions = emulator._scenario.given[year]
        prior, probabilities = maker.make(fractions, year, prior, before, free)
        before = year
        expected = made["land_use"].values
        assert np.array_equal(np.where(prior == NODATA, NODATA, codes[np.minimum(prior, len(codes) - 1)]), expected)
        confidence = np.where(free, probabilities.max(axis=0), np.nan)
        assert np.allclose(confidence, made["confidence"], atol=1e-5, equal_nan=True)
        assert (expected != state["land_use"].values).any(), "nothing changed, so that nothing was shown"


@pytest.mark.parametrize("seed", range(6))
def test_the_decoder_alone_where_areas_differ_much_and_cells_are_fixed(seed):
    """Rows from 1 to 4 times as large, so that counts do not give areas; one class the forcing does not know."""
    rng = np.random.default_rng(seed)
    k, rows, columns = 5, 9, 11
    probabilities = rng.dirichlet(np.ones(k), (rows, columns)).transpose(2, 0, 1).astype(np.float32)
    fractions = rng.dirichlet(np.ones(k)).astype(np.float32)
    fractions[3] = np.nan
    fixed = np.where(rng.random((rows, columns)) < 0.2, rng.integers(0, k, (rows, columns)), NODATA).astype(np.uint8)
    row_areas = np.linspace(1, 4, rows)
    expected = match_areas(
        probabilities, fractions[:, None, None], np.zeros((rows, columns), np.int64), np.isfinite(fractions),
        fixed=fixed, pixel_area=row_areas,
    ).classes  # fmt: skip
    free = fixed == NODATA
    likeliest = np.where(free, probabilities.argmax(0), fixed).astype(np.uint8)
    areas = np.repeat(row_areas, columns)
    decode = runpy.run_path(str(PROGRAM))["decode"]
    made = decode(probabilities.reshape(k, -1), fractions, likeliest.ravel(), free.ravel(), areas)
    assert np.array_equal(made.reshape(rows, columns), expected)
