"""Make the pretrained models that travel with the package, from data to weights and model card.

    python tools/make_pretrained.py --land DIR --more-land DIR          # both models
    python tools/make_pretrained.py --only demo-landuse                 # needs no data of anybody's

Every step is a command that could be typed, and is printed: data are prepared, the model is trained (a killed run goes
on), and scored on a test split that it has not seen. Then weights and card are written into `earthsr/pretrained/`: the
same float32 numbers, with scores, sources and licences in the metadata, under a megabyte, and no path of this machine.

`demo-dem` learns from the folders of rasters that tools/benchmark_dem.py takes, split as its fold without the Alps:
`--land` holds SRTM tiles of 3 arc-seconds, `--more-land` GEBCO regions of 15. `demo-landuse` learns from the synthetic
world of `earthsr sample landuse`.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dem_benchmark.config import load_benchmark

from earthsr.check.card import metrics_beside, model_card, packed_scores
from earthsr.check.card_pages import card_markdown
from earthsr.errors import EarthsrError, InputError
from earthsr.models import read_weights, resolve_checkpoint, write_weights
from earthsr.store import write_text

REPOSITORY = Path(__file__).resolve().parent.parent
LARGEST_BYTES = 1_000_000
CONFIGS = {"demo-dem": "dem_srnet_pretrained.yaml", "demo-landuse": "landuse_pretrained.yaml"}

#: What only a person can say of a model; the rest of its card is read from the run.
ABOUT: dict[str, dict[str, Any]] = {
    "demo-dem": {
        "summary": "A small DEM-SRNet that makes elevation five times finer, to try earthsr out in a minute. For real "
        "work train a larger one: configs/dem_srnet_small_land.yaml, configs/dem_srnet.yaml.",
        "data_source": "SRTM 3 arc-second elevation (NASA/USGS) of British Columbia, the Southern Tablelands of "
        "Australia and Cape Town; GEBCO grid of 15 arc-seconds (GEBCO Compilation Group), regions with much land on "
        "all continents but Antarctica. Coarse cells are means of 5 x 5 fine cells",
        "splits": "whole regions; the test is the SRTM tile N46E008 (Alps), validation eight regions of GEBCO",
        "data_licence": "SRTM is in the public domain; so is the GEBCO grid, with the attribution GEBCO Compilation "
        "Group. The release of the GEBCO grid is not recorded",
        "weights_licence": "Apache-2.0",
        "limits": [
            "A demonstration, half as wide as the model that docs/dem.md reports.",
            "Most of its training terrain has fine cells of 15 arc-seconds; of 3 arc-seconds it has seen four rasters.",
            "Trained on land and coast; sea floor only where a region of land had some.",
        ],
        "citation": [
            "NASA Shuttle Radar Topography Mission, 3 arc-second elevation, NASA/USGS: training and test data",
            "GEBCO Compilation Group, the GEBCO Grid: training and validation data",
        ],
    },
    "demo-landuse": {
        "summary": "A small U-Net that maps land use in earthsr's synthetic world, to try rollouts out in a minute. "
        "Nothing that it knows was observed on Earth.",
        "splits": "blocks of the world: training in the west, validation and test in the east; the last ten years are "
        "in the test alone",
        "data_licence": "made by rules (earthsr sample landuse), Apache-2.0 as the code",
        "weights_licence": "Apache-2.0",
        "limits": ["The world is synthetic: use the model to learn the tool, never for a map of the Earth."],
        "citation": ["earthsr sample landuse, the synthetic world: training and test data"],
    },
}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--land", type=Path, help="folder of SRTM tiles, for demo-dem")
    parser.add_argument("--more-land", type=Path, help="folder of GEBCO regions, for demo-dem")
    parser.add_argument("--only", nargs="+", choices=list(CONFIGS), default=list(CONFIGS), metavar="NAME")
    parser.add_argument("--runs", type=Path, default=Path("runs/pretrained"), help="folder for data and runs")
    parser.add_argument("--target", type=Path, default=REPOSITORY / "earthsr" / "pretrained")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--pack-only", action="store_true", help="of runs that are trained and scored")
    return parser.parse_args(words)


def call(*words: str | Path) -> None:
    """Run a command of earthsr and show it."""
    spelled = [str(word) for word in words]
    print(f"$ earthsr {shlex.join(spelled)}", flush=True)
    if subprocess.run([sys.executable, "-m", "earthsr", *spelled], check=False).returncode:
        raise InputError(f"earthsr {spelled[0]} failed; see above")


def prepare_dem(folder: Path, land: Path | None, more_land: Path | None) -> None:
    if land is None or more_land is None:
        raise InputError("demo-dem needs --land DIR (SRTM) and --more-land DIR (GEBCO)")
    benchmark = load_benchmark(REPOSITORY / "configs" / "benchmark_dem.yaml")
    cut = benchmark.cut
    rasters = [*sorted(land.glob("*.tif")), *sorted(more_land.glob("*.tif"))]
    if not rasters:
        raise InputError(f"{land}, {more_land}: hold no .tif")
    splits = [word for name in benchmark.land.groups["alps"] for word in ("--test-region", name)]
    splits += [word for name in benchmark.land.validation for word in ("--valid-region", name)]
    sizes = ("--scale", cut.scale, "--patch", cut.patch, "--stride", cut.stride, "--minimum-valid", cut.minimum_valid)
    call(
        *("prepare", "dem", folder, *rasters, *map(str, sizes), "--shares", "1,0,0", "--mix-cell-sizes"),
        *(*splits, "--units", "m", "--resume"),
    )


def make(name: str, options: argparse.Namespace) -> None:
    """Prepare, train and score one model."""
    data = options.runs / "data" / ("dem" if name == "demo-dem" else "landuse")
    if not (data / "test" / "test.h5").is_file():
        if name == "demo-dem":
            prepare_dem(data, options.land, options.more_land)
        else:
            call("sample", "landuse", data)
    run, config = options.runs / name, REPOSITORY / "configs" / CONFIGS[name]
    where = ("--set", f"data.root_dir={data}", "--output", run, "--backend", options.backend)
    call("train", config, *where, *(["--resume"] if run.exists() else []))
    call("evaluate", run, "--backend", options.backend)


def require_no_paths(values: Any, where: str) -> None:
    """Check that nothing that will travel names a folder of this machine."""
    for text in re.findall(r'"((?:[^"\\]|\\.)*)"', json.dumps(values)):
        if re.search(r"(^|[\s(=])(/|~/|[A-Za-z]:\\)\w", text):
            raise InputError(f"{where}: its metadata name a path of this machine: {text!r}; take it out")


def pack(name: str, run: Path, target: Path) -> tuple[Path, Path]:
    """Write weights and card of a run that is trained and scored.

    Raises
    ------
    InputError
        If it was not scored, is too large, or names a path.
    """
    best = resolve_checkpoint(run)
    file, metrics = read_weights(best), metrics_beside(best)
    if metrics is None:
        raise InputError(f"{run}: its best checkpoint was not scored; run earthsr evaluate {run}")
    if "training" not in file.metadata:
        raise InputError(f"{best}: has no record of its training; train it again")
    metadata = {
        **file.metadata,
        "scores": packed_scores(metrics, f"earthsr evaluate, when the model was made (tools/{Path(__file__).name})"),
        "about": {"name": name, **ABOUT[name]},
    }
    require_no_paths(metadata, str(best))
    size = sum(array.nbytes for array in file.weights.values()) + len(json.dumps(metadata))
    if size >= LARGEST_BYTES:
        raise InputError(f"{name}: has {size:,} bytes, and a pretrained model {LARGEST_BYTES:,} at most; narrow it")
    weights, card = target / f"{name}.safetensors", target / f"{name}.md"
    write_weights(weights, file.spec, file.weights, metadata)
    write_text(card, card_markdown(model_card(file.spec, metadata, name=name)))
    return weights, card


def main() -> int:
    options = parse()
    try:
        for name in options.only:
            if not options.pack_only:
                make(name, options)
            for path in pack(name, options.runs / name, options.target):
                print(f"{path}: {path.stat().st_size:,} bytes")
    except EarthsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
