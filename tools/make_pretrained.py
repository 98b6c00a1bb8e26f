"""Make the pretrained models that travel with the package, from data to weights and model card.

    python tools/make_pretrained.py --land DIR --more-land DIR          # all of them
    python tools/make_pretrained.py --only dem-3s --land DIR            # for real products of 15 arc-seconds
    python tools/make_pretrained.py --only demo-landuse                 # needs no data of anybody's

Every step is a command that could be typed, and is printed: data are prepared, the model is trained (a killed run goes
on), and scored on a test split that it has not seen. Then weights and card are written into `earthsr/pretrained/`: the
same float32 numbers, with scores, sources and licences in the metadata, and no path of this machine.

`dem-3s` learns from all SRTM tiles of `--land`. Its scores are those of a twin that was trained without the tiles of
the test; from the twin's weights it goes on with all, and the mean of the last checkpoints is what travels.

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
from dataclasses import replace
from pathlib import Path
from typing import Any

from dem_benchmark.config import load_benchmark

from earthsr.check.card import card_markdown, metrics_beside, model_card, packed_scores
from earthsr.errors import EarthsrError, InputError
from earthsr.models import RunFolder, WeightsFile, average_weights, read_weights, resolve_checkpoint, write_weights
from earthsr.store import write_text

REPOSITORY = Path(__file__).resolve().parent.parent
LARGEST_BYTES = {"dem-3s": 8_000_000, "demo-dem": 1_000_000, "demo-landuse": 1_000_000}
CONFIGS = {
    "dem-3s": "dem_srnet_3s.yaml",
    "demo-dem": "dem_srnet_pretrained.yaml",
    "demo-landuse": "landuse_pretrained.yaml",
}

#: Tiles that the twin of dem-3s never sees, neighbours together: mountains, hills, and those under GEBCO's real pair.
UNSEEN = ("N49*", "N48W125", "N50E011")
#: A plain on which both are watched, and from which nothing is chosen.
WATCHED = "N53E009"
#: Epochs of the twin, and of what goes on from it with all tiles; checkpoints whose weights are averaged.
TWIN_EPOCHS, EPOCHS, AVERAGED = 130, 230, 8

#: What only a person can say of a model; the rest of its card is read from the run.
ABOUT: dict[str, dict[str, Any]] = {
    "dem-3s": {
        "summary": "DEM-SRNet for elevation of 15 arc-seconds to be made 3: GEBCO, and means of finer cells alike. Its "
        "surface has no trace of the coarse grid.",
        "data_source": "SRTM 3 arc-second elevation (NASA/USGS): 14 tiles of mountains, hills, plains and coasts. "
        "Coarse cells are drawn anew each time, as means of 5 x 5 fine cells or as bells that are round on the ground, "
        "as GEBCO's are",
        "splits": "scores are of a twin, trained without the tiles N49E011, N49W123, N49W124, N48W125 and N50E011, on "
        "these tiles; the weights here went on from the twin's with all tiles",
        "data_licence": "SRTM is in the public domain",
        "weights_licence": "Apache-2.0",
        "limits": [
            "Trained on land and coasts of 3 arc-second cells; the sea's floor, ice and cities are not in its terrain.",
            "It takes what lies below it for means or bells of 1.7 to 1.9 cells along rows; a product made otherwise, "
            "such as one sharpened or interpolated from soundings, gets detail that is not there.",
            "GEBCO lies half a fine cell off SRTM's cells: earthsr predict --register or --offset moves it.",
            "The spread over symmetries is a tenth of the error, and no estimate of it.",
        ],
        "citation": [
            "NASA Shuttle Radar Topography Mission, 3 arc-second elevation, NASA/USGS: training and test data"
        ],
    },
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


def make_dem_3s(options: argparse.Namespace) -> None:
    """Train the twin of dem-3s without the tiles of the test, score it, and go on with all tiles."""
    tiles = [] if options.land is None else sorted(options.land.glob("*.tif"))
    if not tiles:
        raise InputError("dem-3s needs --land DIR with SRTM tiles (*.tif)")
    watched = ("--patch", "48", "--shares", "1,0,0", "--valid-region", WATCHED, "--units", "m", "--resume")
    unseen = [word for name in UNSEEN for word in ("--test-region", name)]
    config, backend = REPOSITORY / "configs" / CONFIGS["dem-3s"], ("--backend", str(options.backend))
    twin, run = options.runs / "dem-3s-twin", options.runs / "dem-3s"
    stages: list[tuple[Path, list[str], str, int, list[str]]] = [
        (twin, unseen, "40", TWIN_EPOCHS, []),
        (run, [], "32", EPOCHS, ["--set", "train.load_ckpt=true", "--set", f"summary.ckpt_path={twin.resolve()}"]),
    ]
    for folder, own, stride, epochs, start in stages:
        data = options.runs / "data" / folder.name
        if not (data / "train" / "train.h5").is_file():
            call("prepare", "dem", data, *tiles, *watched, "--stride", stride, *own)
        keep = ("--set", "summary.save_checkpoint_epochs=2", "--set", f"summary.keep_checkpoint_max={AVERAGED}")
        more: tuple[str, ...] = ("--set", f"data.root_dir={data}", "--set", f"optimizer.epochs={epochs}", *keep, *start)
        call("train", config, *more, "--output", folder, *backend, *(["--resume"] if folder.exists() else []))
    call("evaluate", twin, *backend)


def make(name: str, options: argparse.Namespace) -> None:
    """Prepare, train and score one model."""
    if name == "dem-3s":
        make_dem_3s(options)
        return
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


def averaged(run: Path) -> WeightsFile:
    """Mean of the weights of a run's newest checkpoints, with the record of the last one."""
    folder = RunFolder(run)
    checkpoints = [folder.folder(step) for step in folder.steps()[-AVERAGED:]]
    mean = average_weights(checkpoints)
    return replace(
        mean, metadata={**read_weights(resolve_checkpoint(checkpoints[-1])).metadata, "averaged": len(checkpoints)}
    )


def pack(name: str, run: Path, target: Path) -> tuple[Path, Path]:
    """Write weights and card of a run that is trained and scored.

    Raises
    ------
    InputError
        If it was not scored, is too large, or names a path.
    """
    twin = run.with_name(f"{run.name}-twin")
    scored = twin if twin.is_dir() else run
    best = resolve_checkpoint(run)
    metrics = metrics_beside(resolve_checkpoint(scored))
    if metrics is None:
        raise InputError(f"{scored}: its best checkpoint was not scored; run earthsr evaluate {scored}")
    file = read_weights(best) if scored == run else averaged(run)
    if "training" not in file.metadata:
        raise InputError(f"{best}: has no record of its training; train it again")
    metadata = {
        **file.metadata,
        "scores": packed_scores(metrics, f"earthsr evaluate, when the model was made (tools/{Path(__file__).name})"),
        "about": {"name": name, **ABOUT[name]},
    }
    require_no_paths(metadata, str(best))
    size = sum(array.nbytes for array in file.weights.values()) + len(json.dumps(metadata))
    if size >= LARGEST_BYTES[name]:
        raise InputError(f"{name}: has {size:,} bytes, and may have {LARGEST_BYTES[name]:,} at most; narrow it")
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
