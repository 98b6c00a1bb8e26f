"""The log: one line a message, above a progress bar instead of through it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from earthsr.store import make_folder


class _BesideProgress(logging.StreamHandler):
    """Writes above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=self.stream)


def log_stream() -> TextIO:
    """Return where messages go: standard error, and in a notebook standard output.

    On a command line, standard output is for results, which programs read. A notebook shows standard error on red, as
    if every line of a log were a fault.
    """
    in_notebook = type(sys.stderr).__module__.partition(".")[0] == "ipykernel"
    return sys.stdout if in_notebook else sys.stderr


def set_up_logger(path: str | Path | None = None, level: int = logging.INFO) -> logging.Logger:
    """Set up the logger ``earthsr``: messages on standard error, and in a file where ``path`` is given.

    In a notebook they go to standard output, since it shows standard error on red.

    Parameters
    ----------
    path : str or Path, optional
        File for the same messages; its folder is made.
    level : int
        Of :mod:`logging`; messages below it are dropped.

    Returns
    -------
    logging.Logger
        The logger ``earthsr``.
    """
    logger = logging.getLogger("earthsr")
    logger.setLevel(level)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [_BesideProgress(log_stream())]
    if path is not None:
        make_folder(Path(path).parent)
        handlers.append(logging.FileHandler(path, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)
    return logger
