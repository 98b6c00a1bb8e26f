"""Mutated inputs of every format, through every verb that reads it."""

from __future__ import annotations

import random
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


@dataclass(frozen=True)
class Reader:
    """A format, the file of ``samples.py`` that is mutated, and a command line that reads it."""

    kind: str
    """Format and verb."""
    sample: str
    """File, or folder of which one file is mutated."""
    words: Callable[[Path, Path], Words]
    """Command line for the mutated file and a folder of the case's own."""


def _predict(sample: str, *more: object) -> Callable[[Path, Path], Words]:
    return lambda path, folder: ("predict", "demo-dem", path, folder / f"out{sample}", "--backend", "torch", *more)


def _prepare(path: Path, folder: Path) -> Words:
    return ("prepare", "dem", folder / "out", path, "--patch", 8, "--scale", 2, "--buffer", 0, "--shares", "1,0,0")


def _with_weights(path: Path, folder: Path) -> Words:
    return ("predict", path, folder.parent / "samples" / "dem.npz", folder / "out.npz", "--backend", "torch")


RASTERS = ("dem.tif", "dem.nc", "dem_classic.nc", "dem_v2.zarr", "dem_v3.zarr")
READERS: tuple[Reader, ...] = (
    *(Reader(f"{name} predict", name, _predict(".tif")) for name in RASTERS),
    *(Reader(f"{name} predict --dry-run", name, _predict(".tif", "--dry-run")) for name in RASTERS),
    *(Reader(f"{name} prepare", name, _prepare) for name in RASTERS),
    *(Reader(f"{name} info", name, lambda path, _: ("info", path)) for name in ("dem.tif", "dem.nc", "dem_v3.zarr")),
    Reader("dem.npz info", "dem.npz", lambda path, _: ("info", path)),
    Reader("dem.npz predict", "dem.npz", _predict(".npz")),
    Reader("patches info", "patches", lambda path, _: ("info", path / "test" / "test.h5")),
    Reader(
        "patches evaluate",
        "patches",
        lambda path, folder: ("evaluate", "demo-dem", "--data", path, "--output", folder / "out", "--backend", "torch"),
    ),
    Reader("landuse info", "landuse", lambda path, _: ("info", path / "test" / "test.h5")),
    Reader("weights info", "weights.safetensors", lambda path, _: ("info", path)),
    Reader("weights predict", "weights.safetensors", _with_weights),
    Reader("weights convert", "weights.pt", lambda path, folder: ("convert", path, folder / "out.safetensors")),
    Reader("config validate", "config.yaml", lambda path, _: ("config", "validate", path)),
    Reader("config info", "config.yaml", lambda path, _: ("info", path)),
    Reader("model.onnx info", "model.onnx", lambda path, _: ("info", path)),
    Reader(
        "model.onnx predict",
        "model.onnx",
        lambda path, folder: (
            *("predict", path, folder.parent / "samples" / "dem.npz", folder / "out.npz"),
            *("--backend", "onnx"),
        ),
    ),
)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Cut, flip, fill, insert or move a part of some bytes; half of the damage is near the beginning or the end."""
    made = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        size = len(made)
        if not size:
            break
        region = chance.random()
        place = chance.randrange(min(size, 600)) if region < 0.4 else chance.randrange(size)
        if region > 0.9:
            place = size - 1 - chance.randrange(min(size, 200))
        kind = chance.choice(("cut", "flip", "flip", "fill", "insert", "number", "move"))
        if kind == "cut":
            del made[place:]
        elif kind == "flip":
            made[place] ^= 1 << chance.randrange(8)
        elif kind == "fill":
            length = chance.randrange(1, 64)
            made[place : place + length] = bytes([chance.choice((0, 255, chance.randrange(256)))]) * length
        elif kind == "insert":
            made[place:place] = chance.randbytes(chance.randrange(1, 9))
        elif kind == "number":
            # What a length or a size is looks so: tiny, huge, negative.
            value = chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 1 << 62, (1 << 64) - 1))
            width = chance.choice((2, 4, 8))
            made[place : place + width] = (value % (1 << (8 * width))).to_bytes(width, chance.choice(("little", "big")))
        else:
            other = chance.randrange(size)
            made[place : place + 16] = made[other : other + 16]
    return bytes(made)


def mutate(sample: Path, target: Path, chance: random.Random) -> Path:
    """Copy a sample with one of its files mutated."""
    if sample.is_dir():
        shutil.copytree(sample, target)
        path = chance.choice(sorted(path for path in target.rglob("*") if path.is_file()))
    else:
        path = target
        shutil.copy(sample, target)
    path.write_bytes(mutated(path.read_bytes(), chance))
    return target


def run(minutes: float, seed: int, only: str | None = None) -> Tally:
    """Go round the readers until the time is over; the seed of a case alone makes it again."""
    warm()
    tally = Tally("fuzz")
    readers = [reader for reader in READERS if only is None or reader.kind.startswith(only)]
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as root:
        samples = Path(root) / "samples"
        made = in_child(lambda: make_samples(samples), seconds=300, memory=None)
        if made.code:
            raise SystemExit(f"the samples could not be made:\n{made.error}")
        number = seed
        while time.monotonic() < end:
            for reader in readers:
                folder = Path(root) / f"case-{number}"
                folder.mkdir()
                path = mutate(samples / reader.sample, folder / reader.sample, random.Random(f"{number} {reader.kind}"))
                outcome = earthsr(*reader.words(path, folder), cwd=folder)
                tally.add(reader.kind, number, outcome.fault())
                shutil.rmtree(folder)
                if time.monotonic() >= end:
                    break
            number += 1
    return tally
