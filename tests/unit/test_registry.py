"""Backends are found through entry points; a broken one warns and the rest goes on."""

from importlib.metadata import EntryPoint

import pytest

from earthsr.backend import available_backends, registry
from earthsr.backend.registry import choose_backend, get_backend
from earthsr.errors import BackendError, EarthsrWarning


@pytest.fixture
def entries(monkeypatch):
    """Let tests say which entry points there are."""

    def set_(**values):
        found = [EntryPoint(name, value, registry.GROUP) for name, value in values.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)
        available_backends.cache_clear()

    yield set_
    monkeypatch.undo()
    available_backends.cache_clear()


def test_both_backends_are_registered():
    assert set(available_backends()) == {"torch", "mindspore"}
    for name, backend in available_backends().items():
        assert backend.name == name


@pytest.mark.parametrize(
    "value", ["no_such_package:Backend", "earthsr.errors:NoSuchClass", "earthsr.errors:InputError"]
)
def test_a_broken_plug_in_warns_and_the_rest_goes_on(entries, value):
    entries(broken=value, torch="earthsr_torch:TorchBackend")
    with pytest.warns(EarthsrWarning, match="backend broken"):
        assert set(available_backends()) == {"torch"}


def test_the_first_wish_counts_and_without_one_there_must_be_only_one(entries, monkeypatch):
    entries(torch="earthsr_torch:TorchBackend", mindspore="earthsr_mindspore:MindSporeBackend")
    for backend in available_backends().values():
        monkeypatch.setattr(backend, "installed", classmethod(lambda cls: True))
    assert choose_backend(None, "mindspore").name == "mindspore"
    assert choose_backend("torch", "mindspore").name == "torch"
    with pytest.raises(BackendError, match=r"several backends are installed; choose .*installed: mindspore, torch"):
        choose_backend(None, None)
    monkeypatch.setattr(available_backends()["torch"], "installed", classmethod(lambda cls: False))
    assert choose_backend(None, None).name == "mindspore"
    with pytest.raises(BackendError, match=r"backend torch is not installed: pip install 'earthsr\[torch\]'"):
        get_backend("torch")


def test_making_a_backend_needs_no_framework(entries):
    entries(torch="earthsr_torch:TorchBackend", mindspore="earthsr_mindspore:MindSporeBackend")
    for backend in available_backends().values():
        assert backend().framework == backend.name
