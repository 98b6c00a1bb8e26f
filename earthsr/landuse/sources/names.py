"""Names of variables for channels: a channel may be called ``grass/shrub``, a variable of a NetCDF file may not."""

from __future__ import annotations

import re


def variable_name(channel: str) -> str:
    """Name of the variable that holds a channel: letters, digits and underscores, as CF wants names.

    Parameters
    ----------
    channel : str
        Such as ``urban`` or ``grass/shrub``, which becomes ``grass_shrub``.
    """
    return re.sub(r"[^0-9A-Za-z_]", "_", channel)
