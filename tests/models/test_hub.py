"""Models of the Hugging Face Hub, from a local folder in its layout: nothing here asks a network."""

import shutil
import types

import numpy as np
import pytest

import earthsr
from earthsr.errors import CheckpointError, InputError
from earthsr.models import initial_weights, resolve_checkpoint
from earthsr.models.demsrnet import DemSRNetSpec
from earthsr.models.weights import read_weights, write_weights

hub = pytest.importorskip("huggingface_hub")

SPEC = DemSRNetSpec(features=4, num_blocks=1, scale=2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The Hub's cache in a folder of this test, and no network behind it."""
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


def put(cache, source, name="owner/name"):
    """Lay files where the Hub's client would."""
    place = cache / f"models--{name.replace('/', '--')}"
    commit = "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    shutil.copytree(source, place / "snapshots" / commit)


def weights_in(folder):
    folder.mkdir()
    write_weights(folder / "weights.safetensors", SPEC, initial_weights(SPEC, 3), {"task": "dem", "units": "m"})
    return folder


def test_a_repository_is_read_from_the_clients_cache(cache, tmp_path):
    put(cache, weights_in(tmp_path / "model"))
    path = resolve_checkpoint("hf:owner/name")
    assert path.name == "weights.safetensors"
    assert read_weights(path).spec == SPEC


def test_from_pretrained_takes_owner_and_name(cache, tmp_path, monkeypatch, any_backend):
    put(cache, weights_in(tmp_path / "model"))
    monkeypatch.chdir(tmp_path)
    assert earthsr.from_pretrained("owner/name", backend=any_backend).spec == SPEC
    (tmp_path / "owner").mkdir()
    with pytest.raises(CheckpointError, match="owner/name: no such checkpoint"):
        earthsr.from_pretrained("owner/name", backend=any_backend)


def test_what_cannot_be_had_is_one_line(cache):
    with pytest.raises(CheckpointError, match=r"hf:owner/other: weights\.safetensors cannot be had.*network") as error:
        resolve_checkpoint("hf:owner/other")
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="expected hf:owner/name"):
        resolve_checkpoint("hf:other")


def test_what_is_pushed_comes_back_with_its_card(cache, tmp_path, monkeypatch):
    folder, made = weights_in(tmp_path / "model"), []

    def upload_folder(repo_id, folder_path, commit_message):
        put(cache, folder_path, repo_id)
        return f"there/{repo_id}"

    api = types.SimpleNamespace(
        create_repo=lambda name, private, exist_ok: made.append((name, private)), upload_folder=upload_folder
    )
    monkeypatch.setattr(hub, "HfApi", lambda: api)
    assert earthsr.push_to_hub(folder, "me/mine", private=True) == "there/me/mine"
    assert made == [("me/mine", True)]
    path = resolve_checkpoint("hf:me/mine")
    for name, values in read_weights(folder / "weights.safetensors").weights.items():
        np.testing.assert_array_equal(read_weights(path).weights[name], values)
    assert path.with_name("README.md").read_text().startswith("# ")


def test_a_push_that_fails_says_so_in_a_line(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError("no route\nto host")

    monkeypatch.setattr(hub, "HfApi", lambda: types.SimpleNamespace(create_repo=refused))
    with pytest.raises(InputError, match=r"hf:me/mine.*no route to host.*hf auth login"):
        earthsr.push_to_hub(weights_in(tmp_path / "model"), "me/mine")
    with pytest.raises(InputError, match="expected owner/name"):
        earthsr.push_to_hub(tmp_path / "model", "mine")
