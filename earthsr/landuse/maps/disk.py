"""How chunks get onto the disk: whole or not at all, and there to stay before the next step begins."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Any

from earthsr.errors import geo_module
from earthsr.store import atomic_file, flush_folder


def durable_store(root: Path) -> Any:
    """Make a store of Zarr in a folder, whose files are renamed into place and flushed to the disk.

    Zarr's own store renames files into place too, but leaves it to the system when they reach the disk: after a
    power cut a file may be empty that a later one, such as a marker of what is done, says is there.
    """
    return _store_class()(root)


@functools.cache
def _store_class() -> Any:
    # Made when it is needed, for zarr is no package that earthsr itself needs.
    local = geo_module("zarr.storage").LocalStore
    return type("DurableStore", (local,), {"set": _set, "delete": _delete})


async def _set(store: Any, key: str, value: Any) -> None:
    await asyncio.to_thread(_replace, store.root / key, value)


async def _delete(store: Any, key: str) -> None:
    await asyncio.to_thread(_remove, store.root / key)


def _replace(path: Path, value: Any) -> None:
    new = [folder for folder in path.parents if not folder.exists()]
    with atomic_file(path) as temporary:
        temporary.write_bytes(value.to_bytes())
    for folder in new:
        flush_folder(folder.parent)


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        return
    flush_folder(path.parent)
