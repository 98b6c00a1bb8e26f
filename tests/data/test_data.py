import json
import multiprocessing
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthsr.config import from_mapping
from earthsr.data.batch import make_batch
from earthsr.data.dataset import Dataset, ahead
from earthsr.data.normalise import Normalisation, Statistics
from earthsr.data.samples import PADDING, Patches, Sampler, augmented, shifted, transform
from earthsr.dem.split import DemData
from earthsr.errors import DataError, EarthsrError, EarthsrWarning, InputError, TrainingError
from earthsr.geo.resample import block_mean
from earthsr.ranks import ALONE, Rank
from earthsr.samples.dem import write_sample_dem
from earthsr.tasks import task_for
from tests.conftest import tiny_values, write_mindearth, write_patches

PARAMS = {"root_dir": "", "patch_size": 8}


def open_split(root, split="train", **extra):
    return DemData({**PARAMS, "root_dir": root, **extra}, split)


# Order of samples


@given(st.integers(1, 50), st.integers(1, 16), st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_every_sample_comes_once_per_epoch_and_padding_fills_the_rest(samples, batch, seed, epoch):
    sampler = Sampler(samples, batch, seed)
    table = sampler.batches(epoch)
    assert table.shape == (sampler.steps_per_epoch, batch)
    assert sorted(table[table != PADDING]) == list(range(samples))
    assert (table == PADDING).sum() == sampler.steps_per_epoch * batch - samples
    assert (table[:-1] != PADDING).all()
    np.testing.assert_array_equal(table, Sampler(samples, batch, seed).batches(epoch))


def test_epochs_and_seeds_differ():
    orders = {tuple(Sampler(20, 4, seed).order(epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6
    np.testing.assert_array_equal(Sampler(5, 2, shuffle=False).order(3), np.arange(5))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_see_together_what_one_would(world_size):
    sampler = Sampler(13, 8, seed=1)
    shares = [sampler.batches(2, rank, world_size) for rank in range(world_size)]
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), sampler.batches(2))


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(InputError, match="multiple of 3"):
        Sampler(10, 4).batches(0, 0, 3)


# Augmentation


def test_the_eight_symmetries_are_eight_and_keep_coarse_and_fine_aligned():
    fine = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    seen = set()
    for symmetry in range(8):
        patches = Patches(block_mean(fine, 2), fine, (fine > 0).astype(np.uint8), np.array([0]))
        turned = augmented(patches, np.array([symmetry], np.int8))
        np.testing.assert_allclose(block_mean(turned.fine, 2), turned.coarse, atol=1e-6)
        np.testing.assert_array_equal(turned.mask, turned.fine > 0)
        seen.add(turned.fine.tobytes())
    assert len(seen) == 8
    np.testing.assert_array_equal(transform(fine, 0), fine)


def made_patches(fine, mask=None, scale=5):
    """Patches of one raster and their block means, voids as the files hold them."""
    mask = np.ones((len(fine), 1, *fine.shape[-2:]), np.uint8) if mask is None else mask
    means = block_mean(np.where(mask, fine, np.nan), scale)
    whole = np.isfinite(means).repeat(scale, axis=-2).repeat(scale, axis=-1)
    return Patches(means, np.where(whole, fine, 0), whole.astype(np.uint8), np.arange(len(fine)))


def test_a_shifted_patch_is_the_one_that_would_have_been_cut_there():
    rng = np.random.default_rng(0)
    raster = rng.normal(1000, 100, (45, 45)).astype(np.float32)
    holes = np.ones_like(raster, np.uint8)
    holes[13, 17] = 0

    def one(field, down, right):
        return field[None, None, down : down + 40, right : right + 40]

    here = made_patches(one(raster, 0, 0), one(holes, 0, 0))
    for down, right in ((0, 0), (1, 0), (2, 3), (4, 4)):
        there = made_patches(one(raster, down, right), one(holes, down, right))
        # What the file masks with a block stays unknown, so the block that it is cut into now may be so too.
        got = shifted(here, np.array([[down / 5 + 0.1, right / 5 + 0.1]]))
        known = np.isfinite(got.coarse)
        np.testing.assert_array_equal(got.coarse[known], there.coarse[known])
        assert not known[..., 8 - (down > 0) :, :].any()
        assert not known[..., 8 - (right > 0) :].any()
        # Inside, the hole's old block takes two blocks along each axis at most, its new one among them.
        inside = known[0, 0, : 8 - (down > 0), : 8 - (right > 0)]
        assert 1 <= (~inside).sum() <= (1 + (down > 0)) * (1 + (right > 0))
        assert not (known & np.isnan(there.coarse)).any()
        whole = known.repeat(5, axis=-2).repeat(5, axis=-1)
        np.testing.assert_array_equal(got.mask, whole)
        np.testing.assert_array_equal(got.fine, np.where(whole, there.fine, 0))


def test_shifts_reach_every_place_and_depend_on_seed_and_epoch_alone():
    sampler = Sampler(500, 9, seed=3)
    np.testing.assert_array_equal(sampler.shifts(1), Sampler(500, 4, seed=3).shifts(1))
    assert (sampler.shifts(1) != sampler.shifts(2)).any()
    assert {tuple(pair) for pair in np.floor(sampler.shifts(0) * 5).astype(int)} == {
        (a, b) for a in range(5) for b in range(5)
    }


def test_shifted_batches_are_the_same_for_any_batch_rank_and_start(tmp_path):
    root = write_patches(tmp_path / "data", masks=True)
    plain = Normalisation.choose("none", open_split(root).statistics())

    def heights(size, rank=0, world_size=1, start=0, shift=True):
        dataset = Dataset(open_split(root), augment=True, shift=shift, seed=4).create_dataset(size)
        batches = dataset.training_batches(1, plain, start=start, rank=rank, world_size=world_size)
        found = [(b.inputs["elevation"], b.target, b.mask, b.sample_weight) for b in batches]
        return [np.concatenate(field) for field in zip(*found, strict=True)]

    whole = heights(5)
    assert np.isfinite(whole[0]).all()
    assert (whole[3] == 1).sum() == 12
    for other in (heights(12), heights(4)):
        for a, b in zip(whole, other, strict=True):
            np.testing.assert_array_equal(a[:12], b[:12])
    for a, b in zip(whole, heights(5, start=1), strict=True):
        np.testing.assert_array_equal(a[5:], b)
    parts = [heights(4, rank, 2) for rank in (0, 1)]
    for a, *b in zip(heights(4), *parts, strict=True):
        mixed = np.concatenate([part.reshape(-1, 2, *part.shape[1:]) for part in b], axis=1)
        np.testing.assert_array_equal(a, mixed.reshape(a.shape))
    assert (whole[0] != heights(5, shift=False)[0]).any()


def test_coarse_cells_of_another_product_cannot_be_shifted(data_dir):
    config = from_mapping(tiny_values(data_dir, data_dir / "run", data={"shift": True}))
    assert task_for(config).dataset("train").shift
    assert not task_for(config).dataset("valid").shift
    with h5py.File(data_dir / "train" / "train.h5", "r+") as handle:
        handle["8_8"][3, 0, 2, 2] += 0.5
    with pytest.raises(DataError, match=r"train\.h5: 8_8 is up to 0\.5 m from the block means of 40_40.*data\.shift"):
        task_for(config).dataset("train")
    task_for(config).dataset("valid")


def test_one_region_with_another_product_is_enough_to_refuse_shifts(tmp_path):
    root = write_patches(tmp_path / "data", splits=(("train", 40), ("valid", 5), ("test", 5)))
    config = from_mapping(tiny_values(root, tmp_path / "run", data={"shift": True}))
    with h5py.File(root / "train" / "train.h5", "r+") as handle:
        handle["8_8"][3] += 0.5
        regions = handle["region"][...]
        regions[3] = b"lone"
        del handle["region"]
        handle["region"] = regions
    with pytest.raises(DataError, match=r"up to 0\.5 m from the block means"):
        task_for(config).dataset("train")


def test_symmetries_depend_on_seed_and_epoch_alone():
    a = Sampler(100, 4, seed=3)
    np.testing.assert_array_equal(a.symmetries(1), Sampler(100, 9, seed=3).symmetries(1))
    assert (a.symmetries(1) != a.symmetries(2)).any()
    assert set(a.symmetries(0)) == set(range(8))


# Normalisation


def chunk(fine, mask=None, scale=2):
    mask = np.ones_like(fine[:, :1], np.uint8) if mask is None else mask
    return Patches(block_mean(fine, scale), fine, mask, np.arange(len(fine)))


@given(st.integers(1, 5), st.integers(0, 1000), st.floats(-1e4, 1e4))
def test_statistics_do_not_depend_on_how_the_split_is_cut(parts, seed, level):
    fine = (np.random.default_rng(seed).normal(size=(6, 1, 4, 4)) * 30 + level).astype(np.float32)
    whole = Statistics.of([chunk(fine)])
    cut = Statistics.of([chunk(part) for part in np.array_split(fine, parts)])
    for key, value in whole.to_dict().items():
        assert cut.to_dict()[key] == pytest.approx(value, rel=1e-9, abs=1e-9)
    values = fine.astype(np.float64)
    assert whole.mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-9)
    assert whole.std == pytest.approx(values.std(), rel=1e-9)
    assert (whole.minimum, whole.maximum) == (fine.min(), fine.max())


def test_statistics_leave_out_what_is_masked():
    fine = np.full((2, 1, 4, 4), 10.0, np.float32)
    mask = np.ones((2, 1, 4, 4), np.uint8)
    fine[0, 0, 0, 0], mask[0, 0, 0, 0] = 9999, 0
    statistics = Statistics.of([chunk(fine, mask)])
    assert (statistics.count, statistics.mean, statistics.maximum) == (31, 10.0, 10.0)
    with pytest.raises(DataError, match="every value is masked"):
        Statistics.of([chunk(fine, np.zeros_like(mask))])


@pytest.mark.parametrize("kind", ["patch", "global", "none"])
def test_normalisation_goes_there_and_back(kind):
    fine = (np.random.default_rng(0).normal(size=(3, 1, 4, 4)) * 100 + 2000).astype(np.float32)
    patches = chunk(fine)
    normalisation = Normalisation.choose(kind, Statistics.of([patches]))
    offsets = normalisation.offsets(patches.coarse)
    there = normalisation.apply(fine, offsets)
    np.testing.assert_allclose(normalisation.undo(there, offsets), fine, rtol=1e-6)
    if kind == "global":
        assert abs(there.mean()) < 1e-4
        assert there.std() == pytest.approx(1, rel=1e-4)
    if kind == "patch":
        assert np.abs(there.mean(axis=(1, 2, 3))).max() < 1e-4
        assert np.sqrt((there**2).mean()) == pytest.approx(1, rel=1e-4)
    assert Normalisation.from_dict(json.loads(json.dumps(normalisation.to_dict())), "x") == normalisation


def test_a_flat_split_is_not_divided_by_zero():
    flat = Statistics.of([chunk(np.full((2, 1, 4, 4), 7, np.float32))])
    assert Normalisation.choose("global", flat).scale == 1
    assert Normalisation.choose("patch", flat).scale == 1


def test_padding_and_voids_carry_no_weight():
    fine = np.ones((2, 1, 4, 4), np.float32)
    mask = np.ones((2, 1, 4, 4), np.uint8)
    mask[0, 0, :2, :2] = 0
    coarse = block_mean(fine, 2)
    coarse[0, 0, 0, 0] = np.nan
    batch = make_batch(Patches(coarse, fine, mask, np.array([4, 7])), Normalisation("global", 0.0, 2.0), size=3)
    assert batch.size == 2
    np.testing.assert_array_equal(batch.sample_weight, [1, 1, 0])
    assert batch.inputs["elevation"].shape == (3, 1, 2, 2)
    assert batch.inputs["elevation"][0, 0, 0, 0] == 0.5  # its neighbours' 1 m, over a scale of 2
    assert batch.target[0, 0, 0, 0] == 0
    assert batch.mask[2].sum() == 0
    assert np.isfinite(batch.inputs["elevation"]).all()


# Files


def test_our_files_hold_all_that_the_contract_names(data_dir):
    with h5py.File(data_dir / "train" / "train.h5") as handle:
        assert handle["8_8"].shape == (12, 1, 8, 8)
        assert handle["40_40"].shape == (12, 1, 40, 40)
        assert handle["8_8"].dtype == handle["40_40"].dtype == np.float32
        assert handle["40_40"].chunks is None
        assert {"surface", "region", "origin"} <= set(handle)
        assert {"schema_version", "units", "crs", "cell_size_deg", "statistics"} <= set(handle.attrs)


def test_patches_are_read_by_position(data_dir):
    source = open_split(data_dir)
    with h5py.File(source.path) as handle:
        coarse, fine = handle["8_8"][...], handle["40_40"][...]
    patches = source.read(np.array([3, PADDING, 0]))
    np.testing.assert_array_equal(patches.coarse[[0, 2]], coarse[[3, 0]])
    np.testing.assert_array_equal(patches.fine[[0, 2]], fine[[3, 0]])
    assert patches.mask[1].sum() == 0
    item = source[-1]
    np.testing.assert_array_equal(item[0], coarse[-1])
    np.testing.assert_array_equal(item[1], fine[-1])
    assert len(source) == 12
    with pytest.raises(IndexError):
        source[12]


def test_the_scale_is_read_from_the_file_where_none_is_given(data_dir):
    assert open_split(data_dir).layout.scale == 5


def test_files_without_units_are_metres_with_a_warning(tmp_path):
    root = write_mindearth(tmp_path, units=False)
    with pytest.warns(EarthsrWarning, match=r"train\.h5: has no attribute units; metres are assumed"):
        source = open_split(root)
    assert source.groups() == {}
    assert source.fine_cell_size_m() is None


def test_statistics_are_the_training_splits_in_every_file(data_dir):
    train = open_split(data_dir)
    recomputed = Statistics.of(train.chunks(5))
    for split in ("train", "valid", "test"):
        stored = open_split(data_dir, split).statistics()
        for key, value in recomputed.to_dict().items():
            assert stored.to_dict()[key] == pytest.approx(value, rel=1e-9)


def test_masks_of_three_and_four_axes_are_read(tmp_path):
    root = write_patches(tmp_path, masks=True)
    four = open_split(root).read(np.arange(12)).mask
    with h5py.File(root / "train" / "train.h5", "r+") as handle:
        mask = handle["mask_40"][:, 0]
        del handle["mask_40"]
        handle["mask_40"] = mask
    three = open_split(root).read(np.arange(12)).mask
    np.testing.assert_array_equal(three, four)
    assert 0 < three.mean() < 1


def test_masked_nan_is_no_error_and_unmasked_nan_is(tmp_path):
    root = write_patches(tmp_path, masks=True)
    path = root / "train" / "train.h5"
    with h5py.File(path, "r+") as handle:
        fine, mask, coarse = handle["40_40"], handle["mask_40"], handle["8_8"]
        mask[2, 0, 3, 4], mask[2, 0, 9, 9] = 0, 1
        values = fine[2]
        values[0, 3, 4] = np.nan
        fine[2] = values
        low = coarse[2]
        low[0, 0, 0] = np.nan  # its block touches the void
        coarse[2] = low
    patches = open_split(root).read(np.array([2]))
    assert np.isfinite(patches.fine).all()
    assert np.isnan(patches.coarse).sum() == 1
    with h5py.File(path, "r+") as handle:
        values = handle["40_40"][2]
        values[0, 9, 9] = np.inf
        handle["40_40"][2] = values
    with pytest.raises(DataError, match="40_40 holds a NaN or infinite value in patch 2, row 9, column 9"):
        open_split(root).read(np.array([0, 2]))


def test_a_coarse_nan_over_a_whole_block_is_an_error(data_dir):
    path = data_dir / "train" / "train.h5"
    with h5py.File(path, "r+") as handle:
        low = handle["8_8"][1]
        low[0, 2, 3] = np.nan
        handle["8_8"][1] = low
    with pytest.raises(DataError, match="8_8 holds a NaN or infinite value in patch 1, row 2, column 3"):
        open_split(data_dir).read(np.array([1]))


def test_cell_sizes_shrink_with_latitude(data_dir):
    source = open_split(data_dir)
    sizes = source.fine_cell_size_m()
    with h5py.File(source.path) as handle:
        latitude = handle["origin"][:, 1] - 20 / 1200
    # 1/1200 degree is 92.66 m on the sphere of mean radius.
    np.testing.assert_allclose(sizes[:, 0], 92.66, atol=0.01)
    np.testing.assert_allclose(sizes[:, 1], 92.66 * np.cos(np.deg2rad(latitude)), atol=0.01)


def test_fingerprints_tell_data_apart(data_dir, tmp_path):
    train = open_split(data_dir)
    assert train.fingerprint() == open_split(data_dir).fingerprint()
    assert train.fingerprint() != open_split(data_dir, "valid").fingerprint()
    before = train.fingerprint()
    train.close()
    with h5py.File(data_dir / "train" / "train.h5", "r+") as handle:
        handle["40_40"][0] = handle["40_40"][0] + 1
    assert open_split(data_dir).fingerprint() != before


def _read_elsewhere(source, queue):
    queue.put(source.read(np.array([0, 5])).fine)


def test_a_source_opens_its_file_in_the_process_that_reads(data_dir):
    source = open_split(data_dir)
    here = source.read(np.array([0, 5])).fine
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        worker = context.Process(target=_read_elsewhere, args=(source, queue))
        worker.start()
        np.testing.assert_array_equal(queue.get(timeout=60), here)
        worker.join()
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(np.array([0, 5])).fine, here)


# Batches


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_do_not_depend_on_the_number_of_workers(data_dir, workers):
    normalisation = Normalisation("global", 300.0, 100.0)

    def batches(count, start=0):
        dataset = Dataset(open_split(data_dir), num_workers=count, augment=True, seed=4).create_dataset(5)
        return list(dataset.training_batches(1, normalisation, start=start))

    expected, found = batches(0), batches(workers)
    assert len(found) == 3
    assert [batch.size for batch in found] == [5, 5, 2]
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a.target, b.target)
        np.testing.assert_array_equal(a.inputs["elevation"], b.inputs["elevation"])
    np.testing.assert_array_equal(batches(workers, start=2)[0].target, expected[2].target)


def test_the_dictionary_iterator_gives_inputs_and_labels_in_metres(data_dir):
    source = open_split(data_dir, "test")
    dataset = Dataset(source, distribute=False, num_workers=1, shuffle=False).create_dataset(2)
    items = list(dataset.create_dict_iterator())
    assert [len(item["inputs"]) for item in items] == [2, 2, 1]
    assert dataset.get_dataset_size() == 3
    np.testing.assert_array_equal(np.concatenate([i["labels"] for i in items]), source.read(np.arange(5)).fine)


def test_a_generator_of_pairs_is_enough():
    class Pairs:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            fine = np.full((1, 4, 4), float(index), np.float32)
            fine[0, 0, 0] = np.nan
            return block_mean(np.nan_to_num(fine), 2), fine

    batches = list(Dataset(Pairs(), shuffle=False).create_dataset(2).training_batches(0, Normalisation()))
    assert [batch.size for batch in batches] == [2, 1]
    assert batches[0].mask[0, 0, 0, 0] == 0
    assert batches[0].target[1, 0, 1, 1] == 1


def test_an_error_in_a_worker_reaches_the_loop():
    def fail():
        raise DataError("patch 3 is damaged")

    with pytest.raises(DataError, match="patch 3"):
        list(ahead([lambda: 1, fail, lambda: 2], workers=2, depth=2))


def test_work_is_prepared_only_so_far_ahead():
    started = []
    work = [lambda i=i: started.append(i) for i in range(20)]
    stream = ahead(work, workers=2, depth=3)
    next(stream)
    assert len(started) <= 4
    stream.close()
    assert len(started) <= 6


# The sample


def test_the_sample_is_cut_into_blocks_that_do_not_touch(tmp_path):
    counts = write_sample_dem(tmp_path, patch_size=16, stride=6)
    assert counts["test"] == counts["valid"] == 5
    edges = {}
    for split in ("train", "valid", "test"):
        source = DemData({"root_dir": tmp_path, "patch_size": 16}, split)
        with h5py.File(source.path) as handle:
            west = handle["origin"][:, 0]
            edges[split] = (west.min(), west.max() + 80 / 1200)
            patches = source.read(np.arange(len(source)))
            np.testing.assert_allclose(block_mean(patches.fine, 5), patches.coarse, atol=1e-3)
            assert handle.attrs["crs"] == "EPSG:4326"
            assert "Jacksboro" in handle.attrs["source"]
    cell = 5 / 1200
    assert edges["valid"][0] - edges["train"][1] == pytest.approx(cell, abs=1e-9)
    assert edges["test"][0] - edges["valid"][1] == pytest.approx(cell, abs=1e-9)


def test_test_patches_cover_the_right_hand_80_columns(sample_dem):
    from earthsr.samples.dem import jacksboro

    with h5py.File(sample_dem / "test" / "test.h5") as handle:
        west, north = handle["origin"][:, 0], handle["origin"][:, 1]
    terrain = jacksboro()
    columns = np.round((west - terrain.west_deg) / terrain.cell_size_deg)
    rows = np.round((terrain.north_deg - north) / terrain.cell_size_deg)
    assert set(columns) == {320}
    assert rows.min() == 0
    assert rows.max() + 80 == 340
    assert np.diff(np.sort(rows)).max() <= 70  # the inner 70 rows of each patch leave no gap


@pytest.mark.parametrize(
    ("patch", "scale", "message"), [(40, 5, "at most 26"), (16, 1, "2 to 10"), (2, 5, "at least 4")]
)
def test_samples_that_cannot_be_cut_are_refused(tmp_path, patch, scale, message):
    with pytest.raises(InputError, match=message):
        write_sample_dem(tmp_path / "x", patch, scale)
    assert not (tmp_path / "x").exists()


# Compression


def test_filters_of_other_tools_are_imported_where_a_file_has_them_and_nowhere_else(data_dir):
    """In a process of its own: the first import makes them known for good."""
    valid, test = (data_dir / split / f"{split}.h5" for split in ("valid", "test"))
    with h5py.File(test, "r+") as handle:
        fine = handle["40_40"][...]
        del handle["40_40"]
        handle.create_dataset("40_40", data=fine, **hdf5plugin.Zstd())
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from earthsr.data.hdf5 import open_h5\n"
        "for path in map(Path, sys.argv[1:]):\n"
        "    with open_h5(path) as handle:\n"
        "        print('hdf5plugin' in sys.modules, float(handle['40_40'][...].sum()) != 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, valid, test], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["False True", "True True"], done.stderr


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_whose_masks_cover_all_is_refused_by_the_scan_before_training(tmp_path, split):
    root = write_patches(tmp_path / "data", masks=True)
    with h5py.File(root / split / f"{split}.h5", "r+") as handle:
        handle["mask_40"][...] = 0
    data = DemData({"root_dir": str(root), "patch_size": 8}, split)
    with pytest.raises(DataError, match=rf"{split}\.h5: the masks cover every cell .* of the {split} split"):
        data.scan()


def together(ranks, work):
    """What some ranks make of their shares, or their errors; they run in threads and meet where all of them ask."""
    meeting, given = threading.Barrier(ranks), [None] * ranks

    def gather(number, values):
        given[number] = np.array(values)
        meeting.wait(timeout=60)
        everyone = np.stack(given)
        meeting.wait(timeout=60)
        return everyone

    def run(number):
        try:
            return work(Rank(number, ranks, partial(gather, number)))
        except EarthsrError as error:
            return error

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(run, range(ranks)))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_a_scan_and_find_what_one_finds(tmp_path, monkeypatch, ranks):
    root = write_patches(tmp_path / "data", masks=True)
    with h5py.File(root / "train" / "train.h5", "r+") as handle:
        del handle.attrs["statistics"]
    monkeypatch.setattr("earthsr.dem.split.SCAN_CHUNK", 1)
    params, reads = {"root_dir": str(root), "patch_size": 8}, []

    class Counted(DemData):
        def read(self, indices):
            reads.extend(indices.tolist())
            return super().read(indices)

    def scanned(share):
        data = Counted(params, "train")
        data.scan(share)
        return data.statistics(), data.value_range()

    alone = scanned(ALONE)
    assert sorted(reads) == list(range(len(DemData(params, "train"))))
    reads.clear()
    assert together(ranks, scanned) == [alone] * ranks  # to the last bit
    assert sorted(reads) == list(range(len(DemData(params, "train"))))


def test_damage_that_one_rank_finds_ends_all(tmp_path, monkeypatch):
    root = write_patches(tmp_path / "data")
    monkeypatch.setattr("earthsr.dem.split.SCAN_CHUNK", 1)
    with h5py.File(root / "train" / "train.h5", "r+") as handle:
        handle["40_40"][1, 0, 3, 4] = np.nan
    other, finder = together(2, lambda share: DemData({"root_dir": str(root), "patch_size": 8}, "train").scan(share))
    assert isinstance(finder, DataError)
    assert "patch 1, row 3, column 4" in str(finder)
    assert isinstance(other, TrainingError)
    assert "rank 1 failed" in str(other)
