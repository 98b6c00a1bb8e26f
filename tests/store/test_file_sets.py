"""Files that belong together are all new, or it is said that they are not."""

import pytest

from earthsr.errors import DataError, InputError
from earthsr.store import files_together, finish_placing, require_placed
from tests.store.processes import killed

REPLACE = """
from pathlib import Path
from earthsr.store import files_together
replace, moved = os.replace, []
def counted(old, new):
    if "part-" in str(old) and str(new).endswith(".h5") and "part-" not in str(new):
        if len(moved) == int(sys.argv[2]):
            die()
        moved.append(new)
    replace(old, new)
os.replace = counted
with files_together(Path(sys.argv[1]), ("train", "valid"), True, ("test/test.h5",)) as folder:
    for name in ("train", "valid"):
        (folder / name).mkdir()
        (folder / name / f"{name}.h5").write_text("new")
    if sys.argv[2] == "-1":
        die()
"""


@pytest.fixture
def root(tmp_path):
    """An old data set of three splits."""
    for name in ("train", "valid", "test"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / f"{name}.h5").write_text("old")
    return tmp_path / "data"


def contents(root):
    return {path.stem: path.read_text() for path in sorted(root.rglob("*.h5")) if ".data.part" not in str(path)}


def test_a_kill_before_the_first_file_moves_leaves_the_old_ones(root):
    killed(REPLACE, root, -1)
    require_placed(root)
    assert contents(root) == {"test": "old", "train": "old", "valid": "old"}


@pytest.mark.parametrize("moved", [0, 1])
def test_a_kill_between_two_files_is_refused_by_readers_and_finished_by_the_next_writer(root, moved):
    killed(REPLACE, root, moved)
    with pytest.raises(DataError, match=r"data: new files may lie beside old ones.*--overwrite"):
        require_placed(root)
    assert finish_placing(root)
    require_placed(root)
    assert contents(root) == {"train": "new", "valid": "new"}


def test_what_cannot_be_finished_stays_marked(root):
    killed(REPLACE, root, 1)
    (staged,) = root.glob(".data.part-*")
    (staged / "valid" / "valid.h5").unlink()
    assert not finish_placing(root)
    with pytest.raises(DataError, match="--overwrite"):
        require_placed(root)
    with files_together(root, ("train", "valid"), True) as folder:
        (folder / "train").mkdir()
        (folder / "train" / "train.h5").write_text("newer")
    require_placed(root)
    assert contents(root)["train"] == "newer"
    assert not list(root.glob(".*"))


def test_an_error_leaves_all_as_it_was(root):
    def fail():
        with files_together(root, ("train",), True) as folder:
            (folder / "train.h5").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert contents(root) == {"test": "old", "train": "old", "valid": "old"}
    assert not list(root.glob(".*"))


def test_what_is_there_is_not_replaced_unless_that_is_said(root):
    with (
        pytest.raises(InputError, match=r"train is there already.*--overwrite"),
        files_together(root, ("train",), False),
    ):
        pass
