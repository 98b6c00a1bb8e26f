"""Writing so that a kill at any moment leaves what was there before, or all of what is new; carrying on after it.

``disk`` has the words for disks that take no more, ``whole`` writes beside the destination and gives the final name in
one step, ``file_sets`` does so with several files, ``lock`` keeps two processes from one output, and ``resume`` has the
folder in which long work grows, and knows the files that it reads.
"""

# ruff: noqa: F401 - rooms take names from here that are not public

from earthsr.store.disk import cannot_write, disk_errors, make_folder, require_room, require_writable
from earthsr.store.file_sets import files_together, finish_placing, place_together, require_free, require_placed
from earthsr.store.lock import Lock
from earthsr.store.resume import WorkFolder, absolute, fingerprint, glance, require_other
from earthsr.store.whole import (
    Part,
    atomic_file,
    atomic_folder,
    flush,
    flush_folder,
    is_zarr,
    owned,
    part_name,
    place,
    remove_leftovers,
    remove_whole,
    require_replaceable,
    restore,
    work_name,
    write_json,
    write_text,
)

# What plug-ins write with; the rest is for the rooms of earthsr.
__all__ = ["atomic_file", "atomic_folder", "write_json", "write_text"]
