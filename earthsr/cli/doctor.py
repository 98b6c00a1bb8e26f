"""The verb doctor: what this machine can do."""

from __future__ import annotations

from earthsr.cli.options import Json, as_lines, show


def doctor(as_json: Json = False) -> None:
    """Say what this machine can do: backends, devices, precisions, packages; and what not, and why."""
    from earthsr.check.info import describe_machine

    values = describe_machine()
    show(values, as_json, as_lines(values))
