"""Whether a model has learnt to do without a prior."""

from __future__ import annotations

from pathlib import Path

import yaml

from earthsr.backend import Model
from earthsr.models import UNetSpec


def hidden_share(model: Model) -> float | None:
    """Share of training samples whose prior was hidden; 1 for a network without a prior, None where nothing says it.

    The checkpoint says it, or else the configuration of the run that it lies in.
    """
    if isinstance(model.spec, UNetSpec) and not model.spec.prior:
        return 1.0
    if "prior_hidden" in model.metadata:
        return float(model.metadata["prior_hidden"])
    weights = Path(str(model.metadata.get("source", "in memory")))
    path = weights.parent.parent.parent / "config.yaml"
    if weights.parent.parent.name != "checkpoints" or not path.is_file():
        return None
    try:
        return float(yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["prior_hidden"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return None
