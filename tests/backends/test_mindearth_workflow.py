"""The calls of MindEarth's scripts; its five steps as a whole are tutorials/src/dem_sr.py (tests/tutorials)."""

import logging

import numpy as np
import pytest

import earthsr
from earthsr.config import from_mapping
from tests.conftest import REPOSITORY, tiny_values, write_mindearth


def test_a_checkpoint_is_loaded_by_configuration_and_by_hand(tmp_path, any_backend):
    root = write_mindearth(tmp_path / "dataset")
    config = from_mapping({**tiny_values(root, tmp_path / "summary"), "backend": any_backend})
    model = earthsr.init_model(config)
    earthsr.Trainer(config, model, earthsr.MSELoss(), logging.getLogger("quiet")).train()
    inputs = earthsr.DemData(data_params=config["data"], run_mode="test").read(np.arange(3)).coarse
    expected = earthsr.InferenceModule(model, config).forecast(inputs)
    assert expected.shape == (3, 1, 40, 40)

    config["summary"]["ckpt_path"] = "checkpoints/" + earthsr.Run(tmp_path / "summary", None).best.name
    config["train"]["load_ckpt"] = True
    by_config = earthsr.InferenceModule(earthsr.init_model(config), config).forecast(inputs)
    np.testing.assert_array_equal(by_config, expected)

    config["train"]["load_ckpt"] = False
    fresh = earthsr.init_model(config)
    params = earthsr.load_checkpoint(tmp_path / "summary")
    assert earthsr.load_param_into_net(fresh, params) == []
    np.testing.assert_array_equal(earthsr.InferenceModule(fresh, config).forecast(inputs), expected)

    config["train"]["run_mode"] = "test"
    by_mode = earthsr.InferenceModule(earthsr.init_model(config), config).forecast(inputs)
    np.testing.assert_array_equal(by_mode, expected)


def test_setting_what_the_script_sets(tmp_path, any_backend):
    config = earthsr.load_yaml_config(REPOSITORY / "configs" / "dem_srnet_mindearth.yaml")
    config["train"]["distribute"] = False
    config["train"]["device_id"] = 0
    config["train"]["amp_level"] = "O2"
    config["train"]["run_mode"] = "train"
    config["train"]["load_ckpt"] = False
    config["data"]["num_workers"] = 1
    config["data"]["epochs"] = 100
    config["summary"]["valid_frequency"] = 100
    config["summary"]["summary_dir"] = str(tmp_path)
    config["summary"]["ckpt_path"] = ""
    config.check()
    name = "_".join(f"{key}_{config['model'][key]}" for key in config["model"].keys() if key != "name")  # noqa: SIM118
    assert "out_channels_256" in name


def test_every_public_name_is_there():
    for name in earthsr.__all__:
        assert getattr(earthsr, name) is not None
    assert set(earthsr.__all__) <= set(dir(earthsr))
    with pytest.raises(AttributeError, match="nothing"):
        earthsr.nothing  # noqa: B018
