"""Where the batches of a benchmark come from: the training split, or made ones."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earthsr.config import Config
from earthsr.data.batch import Batch
from earthsr.errors import DataError, InputError
from earthsr.models import Objective
from earthsr.tasks import Task

_logger = logging.getLogger("earthsr")

#: Made batches that are gone through over and over: enough that none is still in a cache of the processor.
MADE = 8


@dataclass(frozen=True)
class Made:
    """Synthetic batches, which cost nothing to load."""

    batches: list[Batch]
    objective: Objective
    words: str

    def stream(self) -> Generator[Batch, None, None]:
        """Batches without end."""
        yield from itertools.cycle(self.batches)


@dataclass(frozen=True)
class Loaded:
    """The training split, read and prepared as in training."""

    dataset: Any
    normalisation: Any
    objective: Objective
    words: str

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of one epoch."""
        batches: Iterator[Batch] = self.dataset.training_batches(number, self.normalisation)
        return batches

    def stream(self) -> Generator[Batch, None, None]:
        """Batches without end, epoch after epoch."""
        for number in itertools.count():
            yield from self.epoch(number)


def source_of(config: Config, task: Task, synthetic: bool) -> Made | Loaded:
    """Take the training split where ``data.root_dir`` is there, else made batches.

    Raises
    ------
    InputError
        If the data do not fit the configuration.
    """
    here = Path(config.data.root_dir).is_dir()
    if synthetic or not here:
        if not synthetic:
            _logger.info(f"data.root_dir {config.data.root_dir} is not here: made batches are used")
        made = task.made_batches(MADE)
        return Made(made.batches, task.made_objective(), made.source)
    try:
        dataset = task.dataset("train")
        words = f"{dataset.generator.path} ({len(dataset)} samples)"
        return Loaded(dataset, task.normalisation(dataset), task.objective(), words)
    except DataError as error:
        raise InputError(f"{error}; or use --synthetic") from None
