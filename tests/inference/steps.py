"""Work for schedulers that can be checked by hand: cells in a ring, each the sum of its neighbours a step before."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from earthsr.inference.journal import Journal, Key, Written
from earthsr.inference.pieces import Piece

STEPS, CELLS = 6, 4


def key_of(step, cell):
    return Key(str(step), str(cell % CELLS))


def pieces(steps=STEPS):
    keys = [(step, cell) for step in range(steps) for cell in range(CELLS)]
    around = lambda s, c: tuple(key_of(s - 1, c + i) for i in (-1, 0, 1)) if s else ()  # noqa: E731
    return {key_of(s, c): Piece(key_of(s, c), (s, c), around(s, c)) for s, c in keys}


@dataclass(frozen=True)
class Sums:
    """A recipe; a worker that is to die does so once, before it writes."""

    folder: Path
    die_at: tuple[int, int] | None = None
    pause_s: float = 0.0

    def open(self, place):
        with (self.folder / "opened").open("a") as file:
            file.write(f"{os.getpid()} {place.number}\n")
        return self

    def read(self, item):
        step, cell = item
        if step == 0:
            return [cell, 0, 1]
        return [int((self.folder / f"{step - 1}-{(cell + i) % CELLS}").read_text()) for i in (-1, 0, 1)]

    def compute(self, item, values):
        time.sleep(self.pause_s)
        if item == self.die_at and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return sum(values) % 997

    def write(self, item, made):
        name = f"{item[0]}-{item[1]}"
        (self.folder / f".{name}").write_text(str(made))
        (self.folder / f".{name}").replace(self.folder / name)
        with (self.folder / "wrote").open("a") as file:
            file.write(f"{name}\n")
        return Written((name,), {"value": made}, "python")


def expected():
    values = [[cell + 1 for cell in range(CELLS)]]
    while len(values) < STEPS:
        before = values[-1]
        values.append([sum(before[(c + i) % CELLS] for i in (-1, 0, 1)) % 997 for c in range(CELLS)])
    return values


def made(folder):
    return [[int((folder / f"{s}-{c}").read_text()) for c in range(CELLS)] for s in range(STEPS)]


def journal_of(folder):
    return Journal(folder / "done", folder)
