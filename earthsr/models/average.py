"""The average of several checkpoints' weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthsr.errors import CheckpointError, EarthsrWarning, InputError
from earthsr.models.checkpoint import resolve_checkpoint
from earthsr.models.weights import WeightsFile, read_weights, require_same_spec

_CELLS = ("input_cell_size_deg", "output_cell_size_deg")

#: Metadata that may differ between checkpoints of one average; all else says what the numbers mean.
_FREE = ("earthsr_version", "averaged", "training", "scores", "about")


def average_weights(sources: Iterable[str | Path | WeightsFile]) -> WeightsFile:
    """Average the weights of several checkpoints of one model, such as the last ones of a run.

    Stochastic weight averaging (Izmailov et al., 2018): the mean of weights along the way is often better than the
    last of them, at no cost in prediction. :func:`earthsr.models.write_weights` makes a file of the result.

    Parameters
    ----------
    sources : iterable of str, Path or WeightsFile
        Run folders (their best), checkpoint folders, weights files, or what was read of them. One is in memory at a
        time.

    Returns
    -------
    WeightsFile
        Means in float64, rounded to float32, with the metadata of the first checkpoint, without its scores, and
        ``averaged``, the number of checkpoints.

    Raises
    ------
    InputError
        If there are none.
    CheckpointError
        If one cannot be read, or they differ in their spec, normalisation, units, classes or, by more than 1 %, in
        their cells.

    Notes
    -----
    Running statistics of batch norms are averaged too, with a warning: those of the averaged weights are others, and
    only data can tell them. Models without batch norm have none.

    Examples
    --------
    >>> import earthsr
    >>> from pathlib import Path
    >>> file = earthsr.average_weights(sorted(Path("runs/demo/checkpoints").glob("step-*")))
    >>> file.metadata["averaged"]
    2
    """
    count, first = 0, None
    sums: dict[str, NDArray[np.float64]] = {}
    for source in sources:
        file = source if isinstance(source, WeightsFile) else read_weights(resolve_checkpoint(source))
        if first is None:
            first = file
        _require_same_model(file, first, count + 1)
        for name, value in file.weights.items():
            wide = value.astype(np.float64)
            sums[name] = sums[name] + wide if name in sums else wide
        count += 1
    if first is None:
        raise InputError("average_weights was given no checkpoint; expected one or more paths or weights files")
    if count > 1 and len(first.spec.learning) < len(first.spec.parameters):
        warnings.warn(
            "the model has batch norms, whose running statistics were averaged like weights: score the average before "
            "using it, or train it on for some steps",
            EarthsrWarning,
            stacklevel=2,
        )
    weights = {name: (total / count).astype(np.float32) for name, total in sums.items()}
    return WeightsFile(first.spec, weights, {**_meaning(first), **_training(first), "averaged": count})


def same_cells(one: Any, other: Any) -> bool:
    """Tell whether cell sizes, degrees, single or (latitude, longitude), agree to a hundredth.

    Tiles of one product differ in the fourth digit, where each says its extent in whole cells of its own.
    """
    if one is None or other is None:
        return one is other
    return np.shape(one) == np.shape(other) and bool(np.allclose(one, other, rtol=0.01, atol=0.0))


def _meaning(file: WeightsFile) -> dict[str, Any]:
    return {key: value for key, value in file.metadata.items() if key not in _FREE}


def _training(file: WeightsFile) -> dict[str, Any]:
    """What the first checkpoint says of its training; scores of one checkpoint are not those of the average."""
    record = file.metadata.get("training")
    if not isinstance(record, dict):
        return {}
    return {"training": {key: value for key, value in record.items() if key != "validation"}}


def _require_same_model(file: WeightsFile, first: WeightsFile, number: int) -> None:
    source = f"checkpoint {number}" if file.path is None else str(file.path)
    require_same_spec(file.spec, first.spec, source)
    other_meaning, meaning = _meaning(file), _meaning(first)
    for key in sorted({*other_meaning, *meaning}):
        compare = same_cells if key in _CELLS else eq
        if not compare(other_meaning.get(key), meaning.get(key)):
            raise CheckpointError(
                f"{source}: has {key} {other_meaning.get(key)}, the first one {meaning.get(key)}; only weights that "
                "were trained on the same numbers can be averaged"
            )
