"""What is written is there whole or not at all, also after a kill; nothing of killed writers stays."""

import errno
import json
import os

import pytest

from earthsr.errors import InputError
from earthsr.store import (
    Part,
    atomic_file,
    atomic_folder,
    disk,
    remove_leftovers,
    remove_whole,
    restore,
    whole,
    write_json,
)
from tests.store.processes import killed, started

#: Replaces folder d by one whose file says new; what sys.argv[2] names kills the process when it is called.
REPLACE = """
from pathlib import Path
from earthsr.store import Part, disk, whole
path = Path(sys.argv[1])
part = Part(path, overwrite=True, store=True)
part.target.mkdir()
(part.target / "zarr.json").write_text("new")
if sys.argv[2] == "fallback":
    disk._rename2 = lambda: None
    renames = iter(range(int(sys.argv[3])))
    replace = os.replace
    os.replace = lambda *a: replace(*a) if next(renames, None) is not None else die()
else:
    whole.flush_folder = die
part.commit()
"""


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_an_error_while_writing_leaves_the_previous_file(tmp_path):
    path = write_json(tmp_path / "a.json", {"x": 1})

    def fail():
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert json.loads(path.read_text()) == {"x": 1}
    assert names(tmp_path) == ["a.json"]


def test_a_full_disk_is_an_input_error_that_names_the_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*b\.txt: No space left"), atomic_file(tmp_path / "b.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(InputError, match="cannot write"), atomic_folder(tmp_path / "c"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # HDF5 puts the number into a text.
    with pytest.raises(InputError, match="No space left"), atomic_file(tmp_path / "b.h5"):
        raise RuntimeError("Unable to flush (file write failed: errno = 28, error message = 'No space left on device')")
    assert names(tmp_path) == []


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="shape"), atomic_file(tmp_path / "b.txt"):
        raise RuntimeError("shape")
    with pytest.raises(ConnectionResetError), atomic_file(tmp_path / "b.txt"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_a_folder_under_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot create folder"):
        write_json(tmp_path / "file" / "a.json", {})


def test_a_folder_where_a_file_is_to_be_stays(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(InputError, match=r"a\.json: there is a folder"):
        write_json(tmp_path / "a.json", {})


def test_folders_appear_whole(tmp_path):
    def fail():
        with atomic_folder(tmp_path / "d") as folder:
            (folder / "x").write_text("1")
            assert not (tmp_path / "d").exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path) == []
    for text in ("1", "2"):
        with atomic_folder(tmp_path / "d") as folder:
            (folder / "x").write_text(text)
        assert (tmp_path / "d" / "x").read_text() == text
    assert names(tmp_path) == ["d"]


def test_names_as_long_as_the_disk_allows(tmp_path):
    path = tmp_path / ("ä" * 120 + ".json")
    write_json(path, {"x": 1})
    part = Part(path, overwrite=True)
    part.target.write_text("2")
    part.commit()
    assert path.read_text() == "2"
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize(("how", "renames"), [("exchange", 0), ("fallback", 0), ("fallback", 1), ("fallback", 2)])
def test_a_kill_while_a_folder_is_replaced_leaves_the_old_or_the_new_one(tmp_path, how, renames):
    store = tmp_path / "d.zarr"
    store.mkdir()
    (store / "zarr.json").write_text("old")
    killed(REPLACE, store, how, renames)
    restore(store)
    expected = "new" if how == "exchange" or renames == 2 else "old"
    assert (store / "zarr.json").read_text() == expected
    # The next writer clears away the rest.
    part = Part(store, overwrite=True, store=True)
    part.target.mkdir()
    (part.target / "zarr.json").write_text("third")
    part.commit()
    assert (store / "zarr.json").read_text() == "third"
    assert names(tmp_path) == ["d.zarr"]


def test_two_folders_change_places_where_a_system_cannot_exchange_them(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_rename2", lambda: None)
    for text in ("1", "2"):
        with atomic_folder(tmp_path / "d") as folder:
            (folder / "x").write_text(text)
        assert (tmp_path / "d" / "x").read_text() == text
    assert names(tmp_path) == ["d"]


@pytest.mark.parametrize("exchange", [True, False])
def test_what_another_process_has_made_meanwhile_is_not_replaced(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(disk, "_rename2", lambda: None)
    part = Part(tmp_path / "a.tif", overwrite=False)
    part.target.write_text("mine")
    (tmp_path / "a.tif").write_text("theirs")
    with pytest.raises(InputError, match=r"a\.tif is there already"):
        part.commit()
    part.discard()
    assert (tmp_path / "a.tif").read_text() == "theirs"
    assert names(tmp_path) == ["a.tif"]


def test_the_next_writer_removes_what_a_killed_one_left_and_says_so(tmp_path, caplog):
    begin = """
from pathlib import Path
from earthsr.store import Part
part = Part(Path(sys.argv[1]), overwrite=True)
part.target.write_text("half")
die()
"""
    killed(begin, tmp_path / "a.tif")
    killed(begin, tmp_path / "other.tif")
    left = [name for name in names(tmp_path) if name.startswith(".a.tif.part-")]
    assert len(left) == 1
    with caplog.at_level("INFO", logger="earthsr"):
        part = Part(tmp_path / "a.tif", overwrite=True)
    assert left[0] in caplog.text
    part.target.write_text("whole")
    part.commit()
    assert [name for name in names(tmp_path) if ".a.tif" in name] == []
    assert [name for name in names(tmp_path) if ".other.tif" in name], "of another output"


def test_what_a_process_that_lives_is_writing_stays(tmp_path):
    write = """
import sys
from pathlib import Path
from earthsr.store import atomic_file
with atomic_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("theirs")
    print("begun", flush=True)
    sys.stdin.readline()
"""
    process = started(write, tmp_path / "a.json")
    (tmp_path / ".a.json.part-7.json").write_text("")  # of a version that did not say whose it is
    assert remove_leftovers(tmp_path) == [".a.json.part-7.json"]
    process.communicate("\n", timeout=30)
    assert (tmp_path / "a.json").read_text() == "theirs"


def test_what_a_process_of_another_machine_writes_stays(tmp_path):
    (tmp_path / ".a.json.part-999999-1-00000000-abcdef.json").write_text("")
    assert remove_leftovers(tmp_path) == []


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    (tmp_path / ".step-000001.part-abc").mkdir()
    (tmp_path / ".a.json.part-7.json").write_text("")
    (tmp_path / "kept").write_text("")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["kept"]


def test_a_folder_is_removed_whole(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_text("1")
    with monkeypatch.context() as patch:
        patch.setattr(whole.shutil, "rmtree", lambda *_, **__: None)  # a kill before anything of it is gone
        remove_whole(tmp_path / "d")
    assert not (tmp_path / "d").exists()
    remove_whole(tmp_path / "d")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_does_not_remove_what_its_parent_writes(tmp_path):
    part = Part(tmp_path / "a.tif", overwrite=False)
    part.target.write_text("mine")
    pid = os.fork()
    if pid == 0:
        part.discard()
        os._exit(0)
    os.waitpid(pid, 0)
    part.commit()
    assert (tmp_path / "a.tif").read_text() == "mine"
