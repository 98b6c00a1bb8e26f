"""The search of docs/tracking.md: the program as it stands, on a small configuration."""

import sys
import types

import pytest
import yaml

from tests.conftest import CONFIGS, installed
from tests.docs.blocks import blocks


class Stopped(Exception):
    """A trial that was given up."""


class Trial:
    """What the program asks a trial of Optuna; the second is given up, as one behind the first would be."""

    def __init__(self, number):
        self.number, self.reports = number, []

    def suggest_float(self, name, low, high, log=False):
        return low

    def suggest_categorical(self, name, choices):
        return choices[self.number]

    def report(self, value, step):
        self.reports.append((step, value))

    def should_prune(self):
        return self.number == 1


class Study:
    def optimize(self, objective, n_trials):
        assert n_trials > 1
        self.trials = [Trial(number) for number in range(2)]
        self.best_trial, self.best_params = self.trials[0], {"num_blocks": 4}
        self.best_value = objective(self.trials[0])
        with pytest.raises(Stopped):
            objective(self.trials[1])


@pytest.mark.slow
@pytest.mark.skipif(not installed("torch"), reason="the program names PyTorch")
def test_the_search_trains_reports_and_gives_up(sample_dem, tmp_path, monkeypatch, capsys):
    """Optuna's part is played here, where it need not be installed; the page says with which version it was tried."""
    study = Study()
    optuna = types.SimpleNamespace(TrialPruned=Stopped, create_study=lambda direction: study)
    monkeypatch.setitem(sys.modules, "optuna", optuna)
    values = yaml.safe_load((CONFIGS / "dem_srnet_demo.yaml").read_text(encoding="utf-8"))
    values["model"]["features"], values["optimizer"]["epochs"] = 4, 2
    values["data"]["root_dir"] = str(sample_dem)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "dem_srnet_demo.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (program,) = (block.text for block in blocks("docs/tracking.md") if block.title == "sweep.py")
    exec(compile(program, "sweep.py", "exec"), {})
    trained, stopped = study.trials
    assert [step for step, _ in trained.reports] == [1, 2]
    assert study.best_value == min(value for _, value in trained.reports)
    assert len(stopped.reports) == 1
    assert capsys.readouterr().out == f"RMSE {study.best_value:.2f} m with {{'num_blocks': 4}}, run 000\n"
