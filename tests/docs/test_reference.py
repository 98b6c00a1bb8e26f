"""The reference: every public object stands on one page of it, once, and its docstring says what a reader needs."""

import collections
import inspect
import re

import pytest

from earthsr.errors import DataError
from tests.conftest import REPOSITORY
from tests.docs.public import callables, faults, field_faults, public_names, public_objects

PAGES = REPOSITORY / "docs" / "reference"
HOW = "a line `::: NAME` on a page of docs/reference puts it there"


def listed():
    """Names after ``:::`` on the pages of the reference, and the page of each."""
    found = []
    for page in sorted(PAGES.glob("*.md")):
        found += [(name, page.name) for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.M)]
    return found


def test_every_public_object_stands_on_one_page_once():
    names = public_names()
    by_object = collections.defaultdict(list)
    for name, page in listed():
        assert name in names, f"docs/reference/{page}: {name} is no public name; they are those of __all__"
        by_object[_key(name, names[name])].append(f"{name} on {page}")
    places = {name: by_object[_key(name, value)] for name, value in public_objects().items()}
    absent = [name for name, each in places.items() if not each]
    assert not absent, f"on no page: {', '.join(absent)}; {HOW}"
    twice = [f"{name}: {', '.join(each)}" for name, each in places.items() if len(each) > 1]
    assert not twice, f"on more than one place: {'; '.join(twice)}"


def _key(name, value):
    return id(value) if callable(value) else name


def test_names_of_the_package_itself_go_by_it():
    """What ``import earthsr`` offers is shown as ``earthsr.NAME``, not as the room where it lives."""
    pages = dict(listed())
    for name in public_names():
        if name.count(".") == 1:
            assert name in pages, f"{name} is listed under another name: {HOW}"


def test_every_public_callable_says_what_a_reader_needs():
    found = [fault for each in callables() for fault in faults(*each)]
    assert not found, "\n".join(found)


def test_every_field_of_a_public_class_is_explained():
    classes = [(name, each) for name, each in public_objects().items() if inspect.isclass(each)]
    found = [fault for name, each in classes for fault in field_faults(name, each)]
    assert not found, "\n".join(found)


# What the checks see: each of these lacks one thing.

GOOD = """Add.

Parameters
----------
a, b : ndarray of shape (N, H, W)
    Metres.

Returns
-------
ndarray of shape (N, H, W)
    Metres.

Raises
------
DataError
    If the shapes differ.
"""


def adds(a: "NDArray", b: "NDArray") -> "NDArray":  # noqa: F821 - read as text
    """See GOOD."""
    if a.shape != b.shape:
        raise DataError("shapes differ")
    return a + b


def passes_on(a: "NDArray", b: "NDArray") -> "NDArray":  # noqa: F821
    """See GOOD."""
    return adds(a, b)


@pytest.mark.parametrize(
    ("docstring", "lacks"),
    [
        (GOOD, []),
        ("", ["has no docstring"]),
        (GOOD.replace("a, b : ", "a : "), ["does not document b"]),
        (GOOD.replace("DataError", "KeyError"), ["raises DataError"]),
        (GOOD.replace("DataError", "InputError"), []),  # a base of it
        (GOOD.replace("Returns\n-------", "Gives\n-----"), ["does not say what it returns"]),
        (GOOD.replace("of shape (N, H, W)", ""), ["says no shape"]),
    ],
)
@pytest.mark.parametrize("function", [adds, passes_on])
def test_what_a_docstring_lacks_is_seen(function, docstring, lacks, monkeypatch):
    monkeypatch.setattr(adds, "__doc__", GOOD)
    found = faults("adds", function, (docstring, ""), "function")
    assert len(found) == len(lacks), found
    assert all(words in fault for words, fault in zip(lacks, found, strict=True)), found
