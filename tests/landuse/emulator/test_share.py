"""Several ranks make a region together: their maps and areas are those of one, and a missing exchange is said."""

import numpy as np
import pytest

from earthsr import Emulator
from earthsr.errors import EarthsrError
from earthsr.landuse.classes import NODATA
from tests.landuse.emulator.cases import forcing_of, opened
from tests.landuse.emulator.test_bmi import CLASS, everything, fractions, unchanged, write_config

RANKS = 4


@pytest.fixture
def ranks(model, static, anchor):
    """All of the world in eight chunks, of two for each rank."""
    emulators = [Emulator(model, static=static, batch_size=4, chunk=32, share=(rank, RANKS)) for rank in range(RANKS)]
    for emulator in emulators:
        emulator.start(anchor)
    return emulators


def step_all(ranks, scenario, year):
    """A year on each rank; what they made, put together."""
    made = [emulator.step(forcing_of(scenario, year), year) for emulator in ranks]
    whole = np.min([state["land_use"].values for state in made], axis=0)  # 255, not known, is the largest
    return made, whole


def test_maps_and_areas_are_those_of_one(ranks, model, static, scenario, anchor):
    one = Emulator(model, static=static, batch_size=4, chunk=32)
    one.start(anchor)
    owners = {emulator.share.rank: emulator.share.own for emulator in ranks}
    assert (np.sum(list(owners.values()), axis=0) == 1).all(), "each cell is of one rank"
    for year in (1994, 1995):
        made, whole = step_all(ranks, scenario, year)
        expected = one.step(forcing_of(scenario, year), year)
        assert np.array_equal(whole, expected["land_use"].values), year
        areas = np.sum([state["area"].values for state in made], axis=0)
        assert np.allclose(areas, expected["area"].values, rtol=1e-12)
        for emulator, state in zip(ranks, made, strict=True):
            other = ~emulator.share.own & (state["may_change"].values == 1)
            assert (state["land_use"].values[other] == NODATA).all(), "what others make is not made up"
            # No more is handed over than what is read.
            emulator.exchange(np.where(emulator.share.reads, whole, NODATA))
            assert 0 < emulator.share.reads.sum() < whole.size


def test_the_prior_may_be_read_from_a_store_that_ranks_share(ranks, model, static, scenario, anchor, tmp_path):
    one = Emulator(model, static=static, batch_size=4, chunk=32)
    one.start(anchor)
    one.step(forcing_of(scenario, 1994), 1994)
    made, whole = step_all(ranks, scenario, 1994)
    shared = made[0][["land_use", "may_change"]]
    shared["land_use"].values[...] = whole
    shared.to_netcdf(tmp_path / "1994.nc", engine="h5netcdf")
    parts = [rank.step(forcing_of(scenario, 1995), 1995, prior=opened(tmp_path / "1994.nc")) for rank in ranks]
    expected = one.step(forcing_of(scenario, 1995), 1995)
    assert np.array_equal(np.min([part["land_use"].values for part in parts], axis=0), expected["land_use"].values)


def test_a_part_of_an_exchange_is_refused_and_changes_nothing(ranks, scenario):
    _, whole = step_all(ranks, scenario, 1994)
    emulator = ranks[1]
    share, before = emulator.share, emulator.state
    free = emulator.state["may_change"].values == 1
    row, column = np.argwhere(share.reads & ~share.own & free)[0]
    for value, match in (
        (NODATA, f"1 cells of other ranks that rank 1 reads have no class, the first in row {row}, column {column}"),
        (5, "has the code 5, which is in no class"),
    ):
        wrong = whole.copy()
        wrong[row, column] = value
        with pytest.raises(EarthsrError, match=match):
            emulator.exchange(wrong)
    row, column = np.argwhere(~share.own & ~free)[0]
    wrong = whole.copy()
    wrong[row, column] = 11
    with pytest.raises(EarthsrError, match=rf"row {row}, column {column} .* has to keep its class"):
        emulator.exchange(wrong)
    assert emulator.state.identical(before)
    for options in ({}, {"prior": before}):
        with pytest.raises(EarthsrError, match="other ranks"):
            emulator.step(forcing_of(scenario, 1995), 1995, **options)
    emulator.exchange(whole)
    with pytest.raises(EarthsrError, match="2 years at once: ranks exchange cells after each"):
        emulator.step(scenario[0], 1992)


@pytest.mark.parametrize(
    ("share", "match"), [((4, 4), "rank 4 of 4, expected 0 to 3"), ((0, 99), "99 ranks, and 16 chunks of 32 x 32")]
)
def test_ranks_that_there_are_not(model, static, share, match):
    with pytest.raises(EarthsrError, match=match):
        Emulator(model, static=static, chunk=32, share=share)


def test_without_a_share_there_is_nobody_to_exchange_with(emulator, anchor):
    emulator.start(anchor)
    with pytest.raises(EarthsrError, match="no share= was given"):
        emulator.exchange(np.zeros((32, 64), np.uint8))


def test_through_the_interface_the_map_itself_is_exchanged(world, any_backend, scenario, tmp_path):
    pytest.importorskip("bmipy")
    from earthsr.landuse.emulator.bmi import EarthsrBmi

    lands = []
    for share in (None, (0, 2), (1, 2)):
        land = EarthsrBmi()
        land.initialize(write_config(tmp_path / "bmi.yaml", world, any_backend, chunk=32, share=share))
        lands.append(land)
    one, *both = lands
    assert CLASS not in both[0].get_input_var_names(), "inputs are fractions, with and without ranks"
    assert "land_surface_grid_cell__process_rank" not in one.get_output_var_names()
    owner = both[0].get_value_ptr("land_surface_grid_cell__process_rank")
    assert sorted(np.unique(owner)) == [0, 1]
    whole = one.get_value_ptr(CLASS).copy()
    for year in (1994, 1995):
        for land in lands:
            for name, values in fractions(land, scenario, year).items():
                land.set_value(name, values)
            if land is both[0] and year == 1995:
                before = everything(land)
                with pytest.raises(EarthsrError, match="cells of other ranks that rank 0 reads have no class"):
                    land.update()
                assert unchanged(before, everything(land))
                with pytest.raises(EarthsrError, match="expected 2048 codes of 0 to 255"):
                    land.set_value(CLASS, np.full(2048, 300))
                land.set_value(CLASS, whole)
                both[1].get_value_ptr(CLASS)[:] = whole
            land.update()
        whole = np.where(owner == 0, both[0].get_value_ptr(CLASS), both[1].get_value_ptr(CLASS))
        assert np.array_equal(whole, one.get_value_ptr(CLASS)), year
