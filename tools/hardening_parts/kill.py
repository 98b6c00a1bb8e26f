"""Kills of every verb that writes, at a random time: what is there is old or new, and the same command ends well."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.hardening_parts.forked import earthsr, in_child, warm
from tools.hardening_parts.outcomes import Tally
from tools.hardening_parts.samples import make_samples

Words = tuple[object, ...]

#: Seconds that a command may take that is not killed, and bytes of memory beyond what is mapped: none is asked here.
PATIENCE_S = 300.0
#: Keys of JSON that hold times, or what is measured.
_MEASURED = ("second", "time", "date", "history", "samples_per_s", "megapixels", "created", "begun")

TORCH = ("--backend", "torch")
WORLD = ("--rows", 48, "--columns", 256, "--tile", 16, "--years", "1990:1993", "--held-out-years", 1)
BLOCKS = ("--patch", 4, "--scale", 2, "--buffer", 0, "--shares", "0.34,0.33,0.33")


@dataclass(frozen=True)
class Verb:
    """A command line that writes."""

    name: str
    words: Callable[[Path], Words]
    """Of the folder of samples; it runs in a folder of its own."""
    output: str
    """What it writes, in that folder."""
    again: Words = ("--overwrite",)
    """What carries it on after a kill, or begins it anew."""
    single: bool = True
    """Whether what is there is whole at any moment, an old one or the new one."""


def _predict(suffix: str, source: str = "dem.tif") -> Verb:
    words: Callable[[Path], Words] = lambda s: ("predict", "demo-dem", s / source, f"o{suffix}", *TORCH)  # noqa: E731
    return Verb(f"predict {suffix}", words, f"o{suffix}")


VERBS: tuple[Verb, ...] = (
    Verb("train", lambda s: ("train", s / "train.yaml", *TORCH), "run", ("--resume",), single=False),
    Verb("train landuse", lambda s: ("train", s / "unet.yaml", *TORCH), "run", ("--resume",), single=False),
    Verb(
        "evaluate",
        lambda s: ("evaluate", "demo-dem", "--data", s / "patches", "--output", "o", *TORCH),
        "o",
        (),
        single=False,
    ),
    *(_predict(suffix) for suffix in (".tif", ".nc", ".zarr")),
    *(_predict(suffix, "dem.npz") for suffix in (".npz", ".h5")),
    Verb("prepare dem", lambda s: ("prepare", "dem", "o", s / "dem.tif", *BLOCKS), "o", ("--resume",), single=False),
    Verb("prepare landuse", lambda s: ("prepare", "landuse", "o", *_classes(s)), "o", single=False),
    Verb("sample dem", lambda _: ("sample", "dem", "o", "--patch-size", 8, "--stride", 16), "o", single=False),
    Verb("sample landuse", lambda _: ("sample", "landuse", "o", *WORLD, "--archives"), "o", single=False),
    *(
        Verb(f"reconstruct {suffix}", lambda s, to=suffix: _reconstruct(s, f"o{to}"), f"o{suffix}", (), single=False)
        for suffix in (".zarr", ".nc", ".tif")
    ),
    Verb("plot", lambda s: ("plot", s / "dem.tif", "o.png"), "o.png"),
    Verb("convert", lambda s: ("convert", s / "weights.pt", "o.safetensors"), "o.safetensors"),
    Verb("export", lambda s: ("export", s / "weights.safetensors", "o.onnx", *TORCH), "o.onnx"),
)


def _classes(samples: Path) -> Words:
    archives = samples / "world" / "archives"
    maps = [("--classes", path) for path in sorted(archives.glob("landuse_*.tif"))]
    more = ("--table", archives / "classes.yaml", "--static", f"elevation={archives / 'static.nc'}:elevation")
    cut = ("--tile", 16, "--buffer", 0, "--shares", "0.34,0.33,0.33")
    return (*(word for pair in maps for word in pair), *more, *cut)


def _reconstruct(samples: Path, target: str) -> Words:
    words = json.loads((samples / "reconstruct.json").read_text())
    words[words.index("--output") + 1] = target
    return (*words, "--chunk", 32, *TORCH)


def _prepare_samples(folder: Path) -> int:
    """Samples of other campaigns, and a world with a trained model. Runs in a child."""
    import yaml

    from earthsr.cli import main
    from earthsr.samples.landuse import write_sample_landuse
    from earthsr.samples.world import WorldSpec

    code = make_samples(folder)
    values = {
        "model": {"features": 4, "num_blocks": 1},
        "data": {"root_dir": str(folder / "patches"), "patch_size": 8, "batch_size": 4, "num_workers": 1},
        "optimizer": {"epochs": 6},
        "summary": {"summary_dir": "run", "log_every": 1, "save_checkpoint_steps": 2, "keep_checkpoint_max": 3},
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(values))
    spec = WorldSpec(rows=48, columns=256, years=tuple(range(1990, 1994)), seed=3)
    made = write_sample_landuse(folder / "world", spec, tile_size=16, held_out_last=1, archives=True).archives
    assert made is not None
    unet = {
        "model": {"name": "unet", "coarse_channels": 7, "static_channels": 5, "classes": 7, "width": 4, "depth": 2},
        "data": {"root_dir": str(folder / "world"), "patch_size": 16, "batch_size": 8, "num_workers": 1},
        "optimizer": {"epochs": 2},
        "summary": {"summary_dir": "run", "log_every": 1, "save_checkpoint_steps": 2},
    }
    (folder / "unet.yaml").write_text(yaml.safe_dump(unet))
    trained = ("--set", f"summary.summary_dir={folder / 'unet'}", "--set", "optimizer.epochs=1")
    code = code or main(["train", str(folder / "unet.yaml"), *TORCH, *trained])
    command = made.command(made.folder, Path("o.zarr"))
    words = [str(word) for word in (shlex.split(command) if isinstance(command, str) else command)]
    words = words[words.index("reconstruct") :]
    words[1] = str(folder / "unet")
    (folder / "reconstruct.json").write_text(json.dumps(words))
    return code


def run(minutes: float, seed: int, only: str | None, keep: Path | None = None) -> Tally:
    """Kill for so long; copy the folders of failures below ``keep``."""
    warm()
    tally = Tally("kill")
    verbs = [verb for verb in VERBS if verb.name.startswith(only or "")]
    with tempfile.TemporaryDirectory() as name:
        samples = Path(name) / "samples"
        made = in_child(lambda: _prepare_samples(samples), PATIENCE_S, memory=None)
        if made.code:
            raise RuntimeError(f"samples cannot be made: {made.error}")
        references: dict[str, tuple[float, dict[str, str]]] = {}
        end = time.monotonic() + 60 * minutes
        for number in range(10**9):
            verb = verbs[number % len(verbs)]
            if time.monotonic() > end and number >= len(verbs):
                break
            if verb.name not in references:
                references[verb.name] = _reference(verb, samples, Path(name) / "reference")
            folder = Path(name) / "case"
            folder.mkdir()
            kills, fault = _case(verb, samples, folder, references[verb.name], seed + number)
            tally.kills[verb.name] += kills
            tally.add(verb.name, seed + number, fault)
            if fault is not None and keep is not None:
                shutil.copytree(folder, keep / f"{verb.name.replace(' ', '-')}-{seed + number}", symlinks=True)
            shutil.rmtree(folder)
    return tally


def _reference(verb: Verb, samples: Path, folder: Path) -> tuple[float, dict[str, str]]:
    folder.mkdir()
    began = time.monotonic()
    done = earthsr(*verb.words(samples), cwd=folder, seconds=PATIENCE_S)
    if done.code:
        raise RuntimeError(f"{verb.name} cannot be run: {done.error}")
    taken, contents = time.monotonic() - began, digests(folder)
    shutil.rmtree(folder)
    return taken, contents


def _case(
    verb: Verb, samples: Path, folder: Path, reference: tuple[float, dict[str, str]], seed: int
) -> tuple[int, str | None]:
    """Kill a command once or more, look, and carry it on; says how often it died, and what is wrong."""
    chance = random.Random(seed)
    taken, whole = reference
    words = verb.words(samples)
    old = verb.single and chance.random() < 0.5
    if old:
        _old_output(folder / verb.output)
    before = digests(folder)
    kills = 0
    for kill in range(chance.choice((1, 1, 2, 3))):
        more = verb.again if kill or old else ()
        left = earthsr(*words, *more, cwd=folder, seconds=max(chance.uniform(0, 1.05) * taken, 0.01))
        kills += left.timed_out
        if not left.timed_out and left.code:
            return kills, f"after {kill} kills: exit {left.code}: {left.error.strip()[-300:]}"
        if verb.single and digests(folder) not in (before, whole, *((({}),) if not old else ())):
            return kills, "what is there after a kill is neither the old nor the new"
    done = earthsr(*words, *verb.again, cwd=folder, seconds=PATIENCE_S)
    if done.code:
        return kills, f"does not end well after a kill: exit {done.code}: {done.error.strip()[-300:]}"
    after = digests(folder)
    differ = sorted(name for name in {*after, *whole} if after.get(name) != whole.get(name))
    if differ:
        lacking, more = ([name for name in differ if name not in held] for held in (after, whole))
        return kills, f"other contents than without a kill: {', '.join(differ)}; lacking {lacking}, more {more}"
    hidden = sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))
    return kills, f"left behind: {', '.join(hidden[:3])}" if hidden else None


def _old_output(path: Path) -> None:
    """Something that may be replaced."""
    if path.suffix == ".zarr":
        path.mkdir()
        (path / "zarr.json").write_text('{"old": true}')
    else:
        path.write_text("old")


def digests(folder: Path) -> dict[str, str]:
    """What every file that is no part or lock holds: values where bytes hold times, nothing of pictures."""
    of_files = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            of_files[name] = _digest(path)
    return of_files


def _digest(path: Path) -> str:
    if path.suffix in (".png", ".html"):
        return ""
    total = hashlib.sha256()
    with contextlib.suppress(Exception):
        for piece in _values(path):
            total.update(piece)
        return total.hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _values(path: Path):
    """Give the values of a file as bytes; raises where it is no whole file of its kind."""
    import h5py
    import numpy as np

    if path.suffix in (".h5", ".nc"):
        with h5py.File(path) as handle:
            names: list[str] = []
            handle.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            for name in sorted(names):
                if handle[name].dtype.kind not in "OSV" and name != "provenance":
                    yield name.encode() + np.asarray(handle[name][()]).tobytes()
    elif path.suffix in (".tif", ".tiff"):
        import rasterio

        with rasterio.open(path) as raster:
            yield repr((raster.crs, raster.transform, raster.nodata)).encode() + raster.read().tobytes()
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            for name in sorted(arrays.files):
                yield name.encode() + arrays[name].tobytes()
    elif path.suffix in (".json", ".jsonl"):
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            yield json.dumps(_plain(json.loads(line)), sort_keys=True).encode()
    else:
        yield path.read_bytes()


def _plain(value):
    """Leave out what is measured: times, and what stands in texts with them."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if not any(word in k.lower() for word in _MEASURED)}
    return [_plain(item) for item in value] if isinstance(value, list) else value
