"""The calls of MindEarth's scripts; its five steps as a whole are tutorials/src/dem_sr.py (tests/tutorials)."""

import logging
import re
import runpy
import sys
import types

import numpy as np
import pytest

import earthsr
import earthsr.mindearth
from earthsr.config import from_mapping
from earthsr.errors import ConfigError, EarthsrWarning, InputError
from earthsr.models import RunFolder
from earthsr.training import Callback
from tests.conftest import REPOSITORY, backend_parameters, tiny_values, write_mindearth

YAML = """
model: {{name: DEMNet, scale: 5, out_channels: 4, kernel_size: 3, in_channels: 1, num_blocks: 1}}
data: {{name: nasadem, root_dir: {root}, patch_size: 8, batch_size: 4}}
optimizer: {{name: adam, learning_rate: 0.001, eps: 0.0000001, finetune_lr: 0.00001, epochs: 100}}
summary: {{save_checkpoint_epochs: 1, keep_checkpoint_max: 1}}
train: {{name: oop}}
backend: {backend}
"""

# As MindEarth's folder `src` is laid out: what its user has to change are the imports and the optimiser.
SOLVER = """
from earthsr import EvaluateCallBack, OptimizerSpec, Trainer


class LossMonitor:  # stands for MindSpore's callback of this name
    pass


class DemSrTrainer(Trainer):
    def __init__(self, config, model, loss_fn, logger):
        super(DemSrTrainer, self).__init__(config, model, loss_fn, logger, weather_data_source="DemSR")
        self.model = model
        self.optimizer_params = config["optimizer"]
        self.train_dataset, self.valid_dataset = self.{prefix}get_dataset()
        self.optimizer = self.get_optimizer()
        self.solver = self.{prefix}get_solver()

    def get_optimizer(self):
        self.steps_per_epoch = self.train_dataset.get_dataset_size()
        if self.logger:
            self.logger.info(f"steps of an epoch: {{self.steps_per_epoch}}")
        if not self.optimizer_params["name"]:
            raise NotImplementedError("no optimizer.name")
        return OptimizerSpec(name=self.optimizer_params["name"], eps=self.optimizer_params["eps"])

    def get_callback(self):
        return EvaluateCallBack(self.model, self.valid_dataset, self.config, self.logger)

    def train(self):
        watching = [LossMonitor(), self.ckpt_cb]
        if self.pred_cb:
            watching.append(self.pred_cb)
        self.solver.train(epoch=self.optimizer_params["epochs"], train_dataset=self.train_dataset, callbacks=watching,
                          dataset_sink_mode=True)
"""

MAIN = """
import argparse
import os

from earthsr import Dataset, DemData, InferenceModule, MSELoss, create_logger, init_data_parallel, init_model
from earthsr import load_yaml_config, update_config
{trainer}

parser = argparse.ArgumentParser()
parser.add_argument("--config_file_path", type=str, default="DEM-SRNet.yaml")
parser.add_argument("--device_target", "-d", type=str, choices=["Ascend", "GPU", "CPU"], default="Ascend")
parser.add_argument("--device_id", type=int, default=0)
parser.add_argument("--distribute", type=bool, default=False)
parser.add_argument("--rank_size", type=int, default=1)
parser.add_argument("--amp_level", type=str, default="O0")
parser.add_argument("--run_mode", type=str, choices=["train", "test"], default="train")
parser.add_argument("--load_ckpt", type=bool, default=False)
parser.add_argument("--num_workers", type=int, default=1)
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--valid_frequency", type=int, default=100)
parser.add_argument("--output_dir", type=str, default="./summary")
parser.add_argument("--ckpt_path", type=str, default="")
args = parser.parse_args()

config = load_yaml_config(args.config_file_path)
update_config(args, config)
logger = create_logger(path=os.path.join(config["summary"]["summary_dir"], "results.log"))
for section in ("train", "model", "data", "optimizer", "summary"):
    logger.info(config[section])
if config["train"]["distribute"]:
    init_data_parallel(args.device_target == "Ascend")
model = init_model(config)
if args.run_mode == "train":
    DemSrTrainer(config, model, MSELoss(), logger).train()
else:
    test = Dataset(DemData(data_params=config["data"], run_mode="test"), distribute=False,
                   num_workers=config["data"]["num_workers"], shuffle=False)
    test = test.create_dataset(config["data"]["batch_size"])
    InferenceModule(model, config, logger).eval(test)
"""
NAME = "DEMNet_scale_5_out_channels_4_kernel_size_3_in_channels_1_num_blocks_1_adam_oop"

#: What rooms call by the same name, since it says what it is.
SAME = {"Dataset", "DemData", "MSELoss", "Trainer", "load_yaml_config"}


@pytest.fixture
def application(tmp_path, monkeypatch):
    """Write an application of MindEarth's shape, and give what runs its main script."""

    def make(backend, trainer="from src.solver import DemSrTrainer", prefix=""):
        write_mindearth(tmp_path / "dataset")
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "__init__.py").touch()
        (tmp_path / "src" / "solver.py").write_text(SOLVER.format(prefix=prefix))
        (tmp_path / "main.py").write_text(MAIN.format(trainer=trainer))
        (tmp_path / "DEM-SRNet.yaml").write_text(YAML.format(root=tmp_path / "dataset", backend=backend))
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)

        def run(*words):
            monkeypatch.setattr(sys, "argv", ["main.py", "-d", "CPU", *words])
            for name in [name for name in sys.modules if name.partition(".")[0] == "src"]:
                monkeypatch.delitem(sys.modules, name)
            try:
                return runpy.run_path(str(tmp_path / "main.py"), run_name="__main__")
            finally:
                for handler in list(logging.getLogger("earthsr").handlers):
                    logging.getLogger("earthsr").removeHandler(handler)
                    handler.close()

        return run

    return make


#: MindSpore compiles graphs for seconds, which the quick run leaves out.
EACH_BACKEND = [
    pytest.param(*case.values, marks=[*case.marks, *[pytest.mark.slow] * (case.values == ("mindspore",))])
    for case in backend_parameters()
]


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_the_main_script_and_its_solver_train_and_test(application, tmp_path, backend):
    run = application(backend)
    config = run("--epochs", "3", "--valid_frequency", "2")["config"]
    folder = tmp_path / "summary" / NAME
    assert config["summary"]["summary_dir"] == f"summary/{NAME}"
    assert RunFolder(folder).steps()[-1] == 9  # 12 patches in batches of 4, --epochs times: the file says 100
    log = (folder / "results.log").read_text()
    assert "steps of an epoch: 3" in log
    assert len(re.findall(r"epoch \d/3, step", log)) == 3
    assert len(re.findall(r"valid RMSE", log)) == 2  # after the second, and the last
    run("--run_mode", "test", "--ckpt_path", ".")
    assert re.search(r"test: model .*bicubic", (folder / "results.log").read_text(), re.S)


@pytest.mark.parametrize(
    ("trainer", "prefix"),
    [("from earthsr import DemSrTrainer", ""), ("from src.solver import DemSrTrainer", "_")],
    ids=["earthsr's own", "newer names"],
)
def test_the_main_script_runs_with_other_trainers(application, tmp_path, any_backend, trainer, prefix):
    application(any_backend, trainer, prefix)("--epochs", "1")
    assert RunFolder(tmp_path / "summary" / NAME).steps() == [3]


def test_several_processes_need_a_launcher(application, any_backend, monkeypatch):
    run = application(any_backend)
    with pytest.raises(ConfigError, match=r"torchrun.*train\.distribute"):
        run("--distribute", "True", "--epochs", "1")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    earthsr.init_data_parallel(False)


@pytest.fixture
def parts(tmp_path, any_backend):
    """Configuration, model and loss of a small training."""
    root = write_mindearth(tmp_path / "dataset")
    config = from_mapping({**tiny_values(root, tmp_path / "summary"), "backend": any_backend})
    return config, earthsr.init_model(config), earthsr.MSELoss()


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [("steps_per_epoch", 2, "data.batch_size"), ("epochs", 7, "optimizer.epochs"), ("total_steps", 1, "optimizer")],
)
def test_what_a_subclass_sets_against_the_configuration_is_an_error(parts, name, value, key):
    class Setting(earthsr.Trainer):
        def get_optimizer(self):
            setattr(self, name, value)
            return super().get_optimizer()

    with pytest.raises(InputError, match=rf"Setting sets {name} to {value}, and it is .*{key}"):
        Setting(*parts)


def test_a_subclass_may_set_what_is_so_and_what_is_its_own(parts):
    parts[0]["optimizer"]["accumulate"] = 2

    class Setting(earthsr.Trainer):
        def get_optimizer(self):
            self.steps_per_epoch = self.train_dataset.get_dataset_size()
            self.epochs, self.total_steps, self.step_size = 2, 4, 8
            self.anything = "else"
            return super().get_optimizer()

    trainer = Setting(*parts)
    assert trainer.train_dataset.get_dataset_size() == 3
    assert trainer.steps_per_epoch == 2  # two batches to a step, the last one with one
    assert trainer.train().steps == 4
    assert trainer.anything == "else"


def test_early_stopping_follows_the_callback_that_scores_and_no_other(parts):
    class Counting(Callback):
        epochs = 0

        def epoch(self, trainer, record):
            self.epochs += 1

    class Watched(earthsr.Trainer):
        def get_callback(self):
            return Counting()

    parts[0]["train"]["early_stopping_patience"] = 1
    trainer = Watched(*parts)
    result = trainer.train()
    assert not result.stopped_early
    assert result.best_score is None
    assert trainer.pred_cb.epochs == result.epochs == 2
    assert trainer.validation is None


class Optimizer:
    """Stands for a framework's."""


def test_what_is_done_otherwise_here_names_the_way(parts):
    class Made(earthsr.Trainer):
        def get_optimizer(self):
            return Optimizer()

    config, model, loss = parts
    with pytest.raises(InputError, match=r"Optimizer.*earthsr\.OptimizerSpec\(name="):
        Made(*parts)
    with pytest.raises(InputError, match=r"get_optimizer.*earthsr\.OptimizerSpec"):
        model.trainable_params()
    with pytest.warns(EarthsrWarning, match=r"loss_scale.*train\.amp_level"):
        trainer = earthsr.Trainer(config, model, loss, loss_scale=object())
    with pytest.raises(InputError, match=r"'ERA5'.*'DemSR'.*get_dataset"):
        earthsr.Trainer(config, model, loss, weather_data_source="ERA5")
    assert trainer.get_checkpoint() is None
    with pytest.raises(AttributeError, match=r"eval.*InferenceModule\.eval"):
        trainer.solver.eval(trainer.valid_dataset)
    with pytest.raises(InputError, match=r"epoch is 5.*optimizer\.epochs.* 2"):
        trainer.solver.train(epoch=5)
    with pytest.raises(InputError, match=r"train_dataset.*get_dataset"):
        trainer.solver.train(train_dataset=trainer.valid_dataset)
    with pytest.raises(InputError, match=r"SummaryCollector.*earthsr\.training\.Callback"):
        trainer.solver.train(callbacks=[type("SummaryCollector", (), {})()])


def test_the_solver_tells_further_callbacks(parts):
    seen = []

    class Watching(Callback):
        def epoch(self, trainer, record):
            seen.append(record["epoch"])

    trainer = earthsr.Trainer(*parts)
    result = trainer.solver.train(callbacks=[trainer.pred_cb, Watching()])
    assert seen == [1, 2]
    assert result.steps == 6


def test_options_that_a_script_does_not_have_leave_their_keys(tmp_path):
    config = earthsr.load_yaml_config(REPOSITORY / "configs" / "dem_srnet_mindearth.yaml")
    before = config.model_dump()
    earthsr.update_config(types.SimpleNamespace(output_dir=tmp_path), config)
    folder = tmp_path / "DEMNet_scale_5_out_channels_256_kernel_size_3_in_channels_1_adam_oop"
    assert folder.is_dir()
    assert config.model_dump() == {**before, "summary": {**before["summary"], "summary_dir": str(folder)}}
    earthsr.update_config(types.SimpleNamespace(output_dir=tmp_path, run_mode="test", load_ckpt=False), config)
    assert config["train"]["load_ckpt"]
    with pytest.raises(ConfigError, match=r"amp_level"):
        earthsr.update_config(types.SimpleNamespace(output_dir=tmp_path, amp_level="O9"), config)


def test_no_other_room_knows_the_names():
    names = {*earthsr.mindearth.__all__, "pred_cb", "ckpt_cb", "get_solver", "weather_data_source"} - SAME
    own = re.compile(rf"\b(?:{'|'.join(sorted(names))})\b")
    for path in (REPOSITORY / "earthsr").rglob("*.py"):
        if path.parent.name == "earthsr" and path.name in ("mindearth.py", "__init__.py"):
            continue
        assert not own.findall(path.read_text("utf-8")), path


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
