"""One process at a time writes an output; a dead one keeps nobody away."""

import errno
import fcntl
import json
import os
import time

import pytest

from earthsr.errors import InputError
from earthsr.store import Lock, WorkFolder, owned
from earthsr.store.lock import Process
from tests.store.processes import ended_pid, killed, started

HOLD = """
import sys
from pathlib import Path
from earthsr.store import owned
with owned(Path(sys.argv[1])):
    print("begun", flush=True)
    sys.stdin.readline()
"""


def left_behind(file, **changes):
    """Write the lock of a process that did not release it."""
    values = {**Process.this().to_dict(), **changes}
    file.write_text(json.dumps(values))


def test_a_second_process_is_refused_and_told_whom_it_would_meet(tmp_path):
    process = started(HOLD, tmp_path / "out.tif")
    said = rf"out\.tif: is being written by process {process.pid} on "
    with pytest.raises(InputError, match=said) as caught, owned(tmp_path / "out.tif"):
        pass
    assert "choose another output" in str(caught.value)
    with owned(tmp_path / "another.tif"):
        pass
    process.communicate("\n", timeout=30)
    with owned(tmp_path / "out.tif"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_keeps_nobody_away(tmp_path):
    killed("from pathlib import Path\nfrom earthsr.store import owned\nwith owned(sys.argv[1]): die()", tmp_path / "o")
    assert [path.name for path in tmp_path.iterdir()] == [".o.lock"]
    with owned(tmp_path / "o"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_keeps_nobody_away_while_a_process_that_it_forked_lives(tmp_path):
    code = """
from earthsr.store import owned
with owned(sys.argv[1]):
    if os.fork() == 0:
        os.close(1); os.close(2)
        import time
        time.sleep(20)
        os._exit(0)
    die()
"""
    killed(code, tmp_path / "o")
    with owned(tmp_path / "o"):
        pass


def test_the_number_of_a_dead_process_may_be_that_of_another_one(tmp_path):
    left_behind(tmp_path / ".o.lock", start="17")  # this process, as it would be had it started at another time
    with owned(tmp_path / "o"):
        pass


def test_a_process_on_another_machine_is_reported_with_its_age_and_a_remedy_that_works(tmp_path):
    lock = tmp_path / ".o.lock"
    left_behind(lock, host="node17", pid=ended_pid(), time=time.time() - 3 * 3600, command="earthsr predict")
    with pytest.raises(InputError, match=r"on node17, .*3\.0 h ago; earthsr predict") as caught, owned(tmp_path / "o"):
        pass
    assert lock.exists()
    words = str(caught.value).split("rm ")[1]
    assert os.system(f"rm {words}") == 0
    with owned(tmp_path / "o"):
        pass


def test_a_job_that_was_queued_again_has_ended_where_it_ran_before(tmp_path, monkeypatch):
    left_behind(tmp_path / ".o.lock", host="node17", job="4711")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with owned(tmp_path / "o"):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "a", "pid": "b"}'])
def test_a_damaged_lock_is_no_lock(tmp_path, text):
    (tmp_path / ".o.lock").write_text(text)
    with owned(tmp_path / "o"):
        pass


def test_a_folder_is_locked_inside_and_gone_if_it_stays_empty(tmp_path):
    with owned(tmp_path / "run" / "a", inside=True):
        assert [path.name for path in (tmp_path / "run" / "a").iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_flock(monkeypatch):
    """A disk without locks, as Lustre without -o flock."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_locks_of_the_system_the_file_speaks(tmp_path, no_flock):
    left_behind(tmp_path / ".o.lock", pid=ended_pid())
    with owned(tmp_path / "o"):
        left_behind(tmp_path / ".p.lock", pid=os.getppid(), start="")
        with pytest.raises(InputError, match="is being written by"), owned(tmp_path / "p"):
            pass
    assert not (tmp_path / ".o.lock").exists()


def test_a_folder_of_work_is_owned_without_locks_too(tmp_path, no_flock):
    work = WorkFolder(tmp_path / "maps.work")
    with work.owned(tmp_path / "maps"):
        assert (work.path / "lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_written_is_said_with_its_output(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match=r"cannot write .*o: Permission denied"), owned(tmp_path / "o"):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_a_lock_is_released_once(tmp_path):
    lock = Lock(tmp_path / "a.lock", tmp_path / "a")
    lock.release()
    other = Lock(tmp_path / "a.lock", tmp_path / "a")
    lock.release()
    assert (tmp_path / "a.lock").exists()
    other.release()
