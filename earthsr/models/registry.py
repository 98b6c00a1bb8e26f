"""The kinds of network that there are, and reading a spec of any of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from earthsr.errors import CheckpointError
from earthsr.models.demsrnet import DemSRNetSpec
from earthsr.models.spec import NetworkSpec
from earthsr.models.unet import UNetSpec

KINDS: Final[dict[str, type[NetworkSpec]]] = {spec.kind: spec for spec in (DemSRNetSpec, UNetSpec)}


def spec_from_dict(values: Mapping[str, Any]) -> NetworkSpec:
    """Read a spec written by :meth:`NetworkSpec.to_dict`.

    Parameters
    ----------
    values : mapping
        The fields, and ``kind``.

    Raises
    ------
    CheckpointError
        If the kind or a field is unknown.
    """
    rest = dict(values)
    kind = rest.pop("kind", None)
    if kind not in KINDS:
        raise CheckpointError(f"unknown kind of network {kind!r}; this version knows: {', '.join(KINDS)}")
    try:
        return KINDS[kind].from_fields(rest)
    except TypeError as error:
        raise CheckpointError(f"spec of kind {kind!r} is damaged: {error}") from None
