"""Reading the normalisation that a checkpoint owns, of whichever workload."""

from __future__ import annotations

from typing import Any

from earthsr.data.normalise import Normalisation
from earthsr.landuse.normalise import ChannelNormalisation


def read_normalisation(values: Any, source: str) -> Normalisation | ChannelNormalisation:
    """Read what a checkpoint holds.

    Parameters
    ----------
    values : Any
        What the checkpoint holds.
    source : str
        Where, for messages.

    Returns
    -------
    Normalisation or ChannelNormalisation
        Of elevations, or of the channels of land use.

    Raises
    ------
    CheckpointError
        If it is missing or damaged.
    """
    if isinstance(values, dict) and values.get("kind") == "channels":
        return ChannelNormalisation.from_dict(values, source)
    return Normalisation.from_dict(values, source)
