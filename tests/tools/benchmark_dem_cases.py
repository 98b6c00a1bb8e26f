"""What the tests of tools/benchmark_dem.py share: a small benchmark's files, and its plan."""

import json

import yaml

from tools.dem_benchmark.config import load_benchmark
from tools.dem_benchmark.plan import Folders, Plan

LAND = {"one": ["a"], "two": ["b", "c"]}
TINY = {
    "backend": "torch",
    "cut": {"patch": 8, "stride": 8},
    "land": {
        "config": "land.yaml",
        "baseline": "edsr.yaml",
        "groups": LAND,
        "validation": ["m1"],
        "epochs": 4,
        "baseline_epochs": 2,
        "time_points": 3,
        "tiles": {"config": "tiles.yaml", "epochs": 2},
        "variants": {"rough": {"topic": "loss", "label": "squared error", "set": ["train.loss=mse"]}},
    },
    "ocean": {
        "config": "ocean.yaml",
        "fold": "one",
        "epochs": 2,
        "train": ["o1"],
        "valid": ["o2"],
        "test": ["o3"],
        "variants": {"whole": {"topic": "fine-tuning", "label": "nothing frozen", "set": ["train.freeze=[]"]}},
    },
    "ablations": {
        "fold": "one",
        "epochs": 2,
        "average_last": 2,
        "variants": {
            "shallow": {"topic": "depth", "label": "1 block", "set": ["model.num_blocks=1"], "curve": "depth"},
            "alone": {"topic": "data", "label": "tiles alone", "more_land": 0, "epochs": 3, "curve": "regions"},
            "wide": {"topic": "context", "label": "patches of 16", "patch": 16, "stride": 16, "curve": "patch"},
        },
    },
}


def write_files(folder, changes=None):
    """A benchmark's file and the configurations that it names; ``changes`` are keys with dots."""
    folder.mkdir(exist_ok=True)
    values = json.loads(json.dumps(TINY))
    for key, value in (changes or {}).items():
        place = values
        *path, last = key.split(".")
        for part in path:
            place = place.setdefault(part, {})
        if value is None:
            place.pop(last)
        else:
            place[last] = value
    model = {"features": 4, "num_blocks": 2, "residual_over": "bicubic"}
    land = {
        "model": model,
        "data": {"patch_size": 8, "batch_size": 16, "num_workers": 0},
        "optimizer": {"learning_rate": 1e-3, "epochs": 5},
        "summary": {"log_every": 5, "keep_checkpoint_max": 2},
        "train": {"amp_level": "O2"},
    }
    ocean = {**land, "train": {"run_mode": "finetune", "load_ckpt": True, "freeze": ["head", "blocks.0"]}}
    ocean["summary"] = {"ckpt_path": "runs/land", "log_every": 5}
    edsr = {**land, "model": {"features": 4, "num_blocks": 2, "upsampler": "pixel_shuffle", "bias": True}}
    tiles = {**ocean, "train": {"run_mode": "finetune", "load_ckpt": True}}
    for name, config in (("land", land), ("ocean", ocean), ("edsr", edsr), ("tiles", tiles)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    path = folder / "benchmark.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def named(folder, names):
    """Files that are called as rasters are, for plans, which do not open them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.tif").write_bytes(name.encode())
    return folder


def planned(tmp_path, changes=None, scale_epochs=1.0, more=("m1", "m2", "m3")):
    folders = Folders(
        named(tmp_path / "land", ("a", "b", "c")),
        named(tmp_path / "more", more),
        named(tmp_path / "ocean", ("o1", "o2", "o3")),
        tmp_path / "out",
    )
    path = write_files(tmp_path / "configs", changes)
    return Plan(load_benchmark(path), path, folders, scale_epochs)
