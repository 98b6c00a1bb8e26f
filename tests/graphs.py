"""MindSpore's graphs compiled once for all tests of a process that need the same.

Compiling is most of what a test on MindSpore costs: seconds for a step that takes milliseconds. All that an engine
knows lies in parameters, which it writes when it is made and when it prepares a training; the cells that read them are
the same for every engine of one spec and precision. So cells go back to a pool when their engine goes, and the next
engine of their kind takes them over, with its own numbers. ``EARTHSR_FRESH_GRAPHS=1`` compiles anew for every engine.
"""

from __future__ import annotations

import functools
import os
import weakref
from collections import defaultdict
from typing import Any


class Pool:
    """Cells that no engine holds, by what they were built for; and the training steps of each network."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.make_cells, self.make_step, self.recompute = engine.make_cells, engine.make_step, engine.recompute_blocks
        self.idle: defaultdict[str, list[Any]] = defaultdict(list)
        self.steps: dict[int, dict[str, Any]] = defaultdict(dict)
        self.changed: set[int] = set()

    def cells(self, spec: Any, plan: Any, steps: int) -> Any:
        """Take idle cells of a kind, or build some; they come back with the engine's end."""
        key = repr((spec, plan, steps))
        kept = self.idle[key].pop() if self.idle[key] else self.make_cells(spec, plan, steps)
        handed = self.engine.Cells(kept.network, kept.parameters, kept.forward, kept.first)
        weakref.finalize(handed, self.take_back, key, kept)
        return handed

    def take_back(self, key: str, kept: Any) -> None:
        """Keep cells for the next engine, unless they are no longer what they were built as."""
        if id(kept.network) not in self.changed:
            self.idle[key].append(kept)

    def step(self, spec: Any, cells: Any, objective: Any, optimizer: Any, plan: Any, ranks: int) -> Any:
        """Take the training step that the network has for this, as if it had never run, or build one."""
        from earthsr_mindspore.networks import write
        from earthsr_mindspore.precision import FIRST_SCALE

        steps = self.steps[id(cells.network)]
        key = repr((objective, optimizer, ranks))
        if key not in steps:
            steps[key] = self.make_step(spec, cells, objective, optimizer, plan, ranks)
        elif steps[key].dynamic:
            write(steps[key].scaler.scale_value, FIRST_SCALE)
            write(steps[key].scaler.counter, 0)
        return steps[key]

    def recompute_blocks(self, network: Any) -> None:
        """Let blocks compute again; such a network is nobody else's."""
        self.changed.add(id(network))
        self.recompute(network)


@functools.cache
def pool() -> Pool:
    """Put the pool in the place of what builds cells."""
    from earthsr_mindspore import engine

    made = Pool(engine)
    engine.make_cells, engine.make_step, engine.recompute_blocks = made.cells, made.step, made.recompute_blocks
    return made


def share_graphs() -> None:
    """Let engines of this process share graphs, from the first engine on: MindSpore is not imported before."""
    if os.environ.get("EARTHSR_FRESH_GRAPHS"):
        return
    from earthsr_mindspore import device
    from earthsr_mindspore.backend import MindSporeBackend

    engine = MindSporeBackend.engine

    @functools.wraps(engine)
    def shared(self: Any, *words: Any, **named: Any) -> Any:
        device.load()
        pool()
        return engine(self, *words, **named)

    MindSporeBackend.engine = shared
