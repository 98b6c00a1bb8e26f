import warnings
from importlib.metadata import EntryPoint

import pytest
import yaml

import earthsr
from earthsr.config import from_mapping, installed_workloads, json_schema, load_yaml_config, to_yaml
from earthsr.dem.task import DemWorkload
from earthsr.errors import ConfigError, EarthsrWarning
from earthsr.models import MSELoss, Objective
from earthsr.tasks import task_for
from tests.conftest import CONFIGS, installed

MINDEARTH = """
model:
  name: DEMNet
  scale: 5
  out_channels: 256
  kernel_size: 3
  in_channels: 1
data:
  name: DEMSR
  root_dir: './dataset'
  patch_size: 32
  batch_size: 64
  num_workers: 1
  epochs: 100
  epoch_size: 100
optimizer:
  name: Adam
  learning_rate: 0.0001
  eps: 1e-7
  finetune_lr: 0.00001
  epochs: 100
summary:
  save_checkpoint_epochs: 10
  keep_checkpoint_max: 50
  valid_frequency: 10
  summary_dir: './summary'
  ckpt_path: ''
train:
  name: oop
  distribute: False
  amp_level: O2
  device_id: 0
  run_mode: train
  load_ckpt: False
"""


def test_mindearths_published_keys_load_as_they_are(tmp_path):
    path = tmp_path / "DEM-SRNet.yaml"
    path.write_text(MINDEARTH)
    config = load_yaml_config(path)
    given = yaml.safe_load(MINDEARTH)
    for section, keys in given.items():
        for key, value in keys.items():
            found = config[section][key]
            if key == "name" and section == "optimizer":
                assert found == "adam"
            elif key == "eps":
                assert found == 1e-7  # YAML 1.1 takes 1e-7 for text
            elif key == "ckpt_path":
                assert found is None
            else:
                assert found == value, (section, key)
    assert config.demsrnet.features == 256
    assert config.epochs == 100


def test_shipped_configurations_load():
    # Those of tools/ have schemas of their own.
    files = sorted(path for path in CONFIGS.glob("*.yaml") if not path.name.startswith("benchmark_"))
    assert len(files) >= 4
    for file in files:
        load_yaml_config(file)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": {}}, "unknown key modle; did you mean model?"),
        ({"model": {"scael": 5}}, "unknown key model.scael; did you mean scale?"),
        ({"model": {"name": "DEMNet", "features": 5}}, "unknown key model.features"),
        ({"data": {"batchsize": 5}}, "unknown key data.batchsize; did you mean batch_size?"),
        ({"optimizer": {"lr": 1}}, "unknown key optimizer.lr; did you mean learning_rate?"),
        ({"train": {"qqqq": 5}}, "unknown key train.qqqq; known keys: name, run_mode"),
        ({"model": {"name": "demnet2"}}, "expected one of: demsrnet, DEMNet"),
        ({"model": {"scale": 1}}, "model.scale is 1"),
        ({"model": {"scale": 11}}, "model.scale is 11"),
        ({"optimizer": {"learning_rate": 0}}, "optimizer.learning_rate is 0"),
        ({"optimizer": {"learning_rate": float("nan")}}, "optimizer.learning_rate is nan"),
        ({"train": {"amp_level": "O4"}}, "train.amp_level is 'O4'"),
        ({"data": {"batch_size": "many"}}, "data.batch_size is 'many'"),
        ({"data": []}, r"data is \[\]"),
        ({"train": {"load_ckpt": True}}, "summary.ckpt_path names no checkpoint"),
        ({"train": {"run_mode": "finetune"}}, "set train.load_ckpt to true"),
        ({"model": {"local_mean": 8}}, "model.local_mean is 8.*model.residual_over is none"),
        ({"model": {"local_mean": -1}}, "model.local_mean is -1"),
        ({"model": {"name": "DEMNet", "local_mean": 8}}, "unknown key model.local_mean"),
        ({"train": {"slope": -0.5}}, "train.slope is -0.5"),
        (
            {"data": {"shift": False}, "model": {"name": "unet"}},
            "data.shift belongs to elevation.*of unet: remove it",
        ),
        (
            {"train": {"slope": 0.5}, "model": {"name": "unet"}},
            "train.slope belongs to elevation.*of unet: remove it",
        ),
        (
            {"data": {"prior_own": 0.0}},
            r"data.prior_own belongs to land use \(model.name unet\); this configuration is of demsrnet: remove it",
        ),
        (
            {"model": {"name": "DEMNet"}, "train": {"dice": 1}},
            "train.dice belongs to land use.*of DEMNet: remove it",
        ),
        ({"train": {"slope": 0.5, "loss": "cross_entropy"}}, "train.loss is cross_entropy"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        from_mapping(values)


@pytest.mark.parametrize("loss", ["auto", "mse", "l1", "huber"])
def test_options_of_terrain_reach_the_network_and_the_objective(loss):
    config = from_mapping(
        {
            "model": {"residual_over": "bicubic", "local_mean": 8},
            "train": {"slope": 0.5, "loss": loss, "huber_delta": 2},
        }
    )
    task = task_for(config)
    assert task.spec().local_mean == 8
    assert task.objective().slope == 0.5
    assert task.objective().name == ("mse" if loss == "auto" else loss)
    off = task_for(from_mapping({"train": {"loss": loss, "huber_delta": 2}}))
    assert off.spec().local_mean == 0
    assert off.objective() == (MSELoss() if loss == "auto" else Objective(loss, delta=2))


def test_sections_read_and_write_like_dictionaries():
    config = from_mapping({})
    config["train"]["amp_level"] = "O2"
    assert config.train.amp_level == config["train"]["amp_level"] == "O2"
    assert "amp_level" in config["train"]
    assert set(config.keys()) >= {"model", "data", "optimizer", "summary", "train"}
    assert dict(config["data"].items())["patch_size"] == config["data"].get("patch_size") == 32
    assert config["data"].get("nothing", 3) == 3
    assert {**config["optimizer"]}["name"] == "adam"
    config["data"].update({"patch_size": 16, "batch_size": 2})
    assert (config.data.patch_size, config.data.batch_size) == (16, 2)


@pytest.mark.parametrize(("key", "value"), [("amp_level", "O9"), ("seed", -1), ("run_mode", "finetune")])
def test_setting_a_wrong_value_changes_nothing(key, value):
    config = from_mapping({})
    before = config["train"][key]
    with pytest.raises(ConfigError, match=f"train.{key}"):
        config["train"][key] = value
    assert config["train"][key] == before


def test_an_unknown_item_is_an_error_of_both_kinds():
    config = from_mapping({})
    with pytest.raises(ConfigError, match="did you mean amp_level"):
        config["train"]["amp_levle"] = "O2"
    with pytest.raises(KeyError):
        config["trian"]


def test_keys_set_one_by_one_are_checked_together():
    config = from_mapping({})
    config["train"]["load_ckpt"] = True
    with pytest.raises(ConfigError, match="ckpt_path"):
        config.check()


def test_overrides_go_before_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model: {features: 8}\n")
    config = load_yaml_config(path, ["model.features=16", "optimizer.learning_rate=1e-3", "train.freeze=[head]"])
    assert config.demsrnet.features == 16
    assert config.optimizer.learning_rate == 1e-3
    assert config.train.freeze == ["head"]
    assert load_yaml_config(path, ["backend=torch"]).backend == "torch"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.features", "expected section.key=value"),
        ("features=3", "found 1 level.*did you mean model.features"),
        ("qqq=3", "found 1 level"),
        ("a.b.c=3", "found 3 level"),
        ("modle.features=3", "did you mean model"),
        ("model.featuers=3", "did you mean features"),
        ("model.features=[", "not valid YAML"),
    ],
)
def test_wrong_overrides_are_named(tmp_path, override, message):
    path = tmp_path / "c.yaml"
    path.write_text("model: {}\n")
    with pytest.raises(ConfigError, match=message):
        load_yaml_config(path, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [1, 2", "not valid YAML"),
        ("- a\n- b\n", "found list"),
        ("model: {scale: 3}\nmodel: {scale: 5}\n", "key model stands twice"),
        ("model: {scale: 3, scale: 5}\n", "key scale stands twice"),
        ("data: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("? [a, b]\n: 3\n", "plain text"),
    ],
)
def test_damaged_yaml_is_named_with_its_file(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_yaml_config(path)
    assert "bad.yaml" in str(caught.value)


def test_missing_and_binary_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration"):
        load_yaml_config(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="cannot be read as a YAML"):
        load_yaml_config(tmp_path / "binary.yaml")


def test_the_resolved_configuration_reads_back_equal(tmp_path):
    config = from_mapping(
        {"model": {"features": 8}, "train": {"freeze": ["head"]}, "optimizer": {"learning_rate": 1e-5}}
    )
    path = tmp_path / "c.yaml"
    path.write_text(to_yaml(config))
    assert load_yaml_config(path) == config


def test_epochs_come_from_the_first_key_that_has_them():
    assert from_mapping({}).epochs == 100
    assert from_mapping({"data": {"epoch_size": 3}}).epochs == 3
    assert from_mapping({"data": {"epochs": 4}}).epochs == 4
    with pytest.warns(
        EarthsrWarning, match=r"optimizer\.epochs = 5, data\.epochs = 4 disagree; optimizer\.epochs is used"
    ):
        config = from_mapping({"data": {"epochs": 4}, "optimizer": {"epochs": 5}})
    assert config.epochs == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_mapping({"data": {"epochs": 5}, "optimizer": {"epochs": 5}})


def test_the_schema_describes_every_key_of_every_workload():
    schema = json_schema()
    defined = schema["$defs"]
    kinds = [each["$ref"].rpartition("/")[2] for each in schema["anyOf"]]
    assert kinds == ["DemConfig", "LandUseConfig"]
    for kind in kinds:
        assert set(defined[kind]["properties"]) == {"backend", "model", "data", "optimizer", "summary", "train"}
    for section in ("DemDataSection", "LandUseDataSection"):
        assert defined[section]["properties"]["patch_size"]["minimum"] == 4
        assert defined[section]["additionalProperties"] is False
    assert "prior_own" in defined["LandUseDataSection"]["properties"]
    assert "prior_own" not in defined["DemDataSection"]["properties"]
    assert "slope" not in defined["LandUseTrainSection"]["properties"]


FOREIGN = {"demsrnet": ("data", "prior_own", 0.0, 0.3), "unet": ("train", "slope", 0.0, 0.5)}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_run_saved_when_all_keys_stood_in_every_file_still_loads(name, tmp_path):
    section, key, default, other = FOREIGN[name]
    config = from_mapping({"model": {"name": name}, "data": {"patch_size": 64}})
    assert key not in yaml.safe_load(to_yaml(config))[section]
    saved = yaml.safe_load(to_yaml(config))
    saved[section][key] = default
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(saved))
    assert load_yaml_config(path) == config
    with pytest.raises(ConfigError, match=f"{section}.{key} belongs to .*{name}: remove it"):
        load_yaml_config(path, [f"{section}.{key}={default}"])
    saved[section][key] = other
    path.write_text(yaml.safe_dump(saved))
    with pytest.raises(ConfigError, match=f"config.yaml: {section}.{key} belongs to"):
        load_yaml_config(path)
    with pytest.raises(ConfigError, match=f"{section}.{key} belongs to"):
        config[section][key] = other


def test_a_workload_that_cannot_be_loaded_warns_and_the_others_go_on(monkeypatch):
    entries = [
        EntryPoint(n, v, "earthsr.tasks")
        for n, v in (
            ("a-broken", "earthsr.no_such_module:X"),
            ("dem", "earthsr.dem.task:DemWorkload"),
            ("none", "earthsr.config:Config"),
            ("twin", "earthsr.dem.task:DemWorkload"),
        )
    ]
    monkeypatch.setattr("earthsr.config.workloads.entry_points", lambda group: entries)
    installed_workloads.cache_clear()
    try:
        with pytest.warns(EarthsrWarning) as caught:
            assert list(installed_workloads()) == ["dem"]
        told = [str(warning.message) for warning in caught]
        assert [message.split()[1] for message in told] == ["a-broken", "none", "twin"]
        assert "no_such_module" in told[0]
        assert "demsrnet is that of workload dem already" in told[2]
        with pytest.raises(ConfigError, match=r"expected one of: demsrnet, DEMNet .*installed: dem"):
            from_mapping({"model": {"name": "unet"}})
    finally:
        installed_workloads.cache_clear()


@pytest.mark.skipif(not installed("torch"), reason="backend torch is not installed")
def test_a_training_makes_its_task_once(tiny, monkeypatch):
    made = []
    task = DemWorkload.task
    monkeypatch.setattr(DemWorkload, "task", lambda self, config: made.append(task(self, config)) or made[-1])
    earthsr.train(tiny(optimizer={"epochs": 1}), backend="torch")
    assert len(made) == 1
