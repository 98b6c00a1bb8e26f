"""Backends are found through entry points; a broken one warns and the rest goes on."""

import sys
from importlib.metadata import EntryPoint

import pytest

from earthsr.backend import available_backends, registry
from earthsr.backend.registry import choose_backend, choose_runner, exported_suffixes, get_backend, training_backends
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


def test_all_backends_are_registered():
    assert set(available_backends()) == {"torch", "mindspore", "onnx"}
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


def test_the_environment_names_a_backend_where_nobody_else_does(entries, monkeypatch):
    entries(torch="earthsr_torch:TorchBackend", mindspore="earthsr_mindspore:MindSporeBackend")
    for backend in available_backends().values():
        monkeypatch.setattr(backend, "installed", classmethod(lambda cls: True))
    monkeypatch.setenv("EARTHSR_BACKEND", "mindspore")
    assert choose_backend(None, None).name == "mindspore"
    assert choose_backend(None, "torch").name == "torch"
    monkeypatch.setenv("EARTHSR_BACKEND", "keras")
    with pytest.raises(BackendError, match=r"EARTHSR_BACKEND is 'keras'.*installed: mindspore, torch"):
        choose_backend(None)


def test_what_only_runs_exported_models_is_no_choice_where_weights_are_run(entries, monkeypatch):
    entries(torch="earthsr_torch:TorchBackend", onnx="earthsr_onnx:OnnxBackend")
    for backend in available_backends().values():
        monkeypatch.setattr(backend, "installed", classmethod(lambda cls: True))
    assert choose_backend(None, None).name == "torch"
    assert training_backends() == ["torch"]
    assert exported_suffixes() == {".onnx": ["onnx"]}
    assert choose_runner("model.onnx").name == "onnx"
    with pytest.raises(BackendError, match=r"backend onnx runs exported models \(\.onnx\) alone: it does not train"):
        choose_backend("onnx")
    with pytest.raises(BackendError, match=r"model\.onnx: backend torch does not run \.onnx files"):
        choose_runner("model.onnx", "torch")
    with pytest.raises(BackendError, match="unknown backend 'jax'"):
        choose_runner("model.onnx", "jax")
    monkeypatch.setattr(available_backends()["torch"], "installed", classmethod(lambda cls: False))
    with pytest.raises(BackendError, match="no backend is installed; choose"):
        choose_backend(None)
    assert training_backends(installed=True) == []


def test_a_framework_that_an_import_hook_hides_is_not_installed(entries, monkeypatch):
    entries(torch="earthsr_torch:TorchBackend")

    class Hide:
        def find_spec(self, name, path=None, target=None):
            if name == "torch":
                raise ModuleNotFoundError(name)

    monkeypatch.setattr(sys, "meta_path", [Hide(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert not available_backends()["torch"].installed()


def test_making_a_backend_needs_no_framework(entries):
    entries(torch="earthsr_torch:TorchBackend", mindspore="earthsr_mindspore:MindSporeBackend")
    for backend in available_backends().values():
        assert backend().framework == backend.name
