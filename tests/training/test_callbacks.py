"""What a user sees while a run goes on."""

import io
import logging
import sys
import types

import pytest

import earthsr
from earthsr.config import from_mapping
from earthsr.dem.task import DemSR
from earthsr.training.callbacks import LossMonitor, ProgressBar, TimeMonitor
from earthsr.training.state import MetricsFile


class Terminal(io.StringIO):
    def isatty(self):
        return True


def trainer(step=0, rank=0):
    engine = types.SimpleNamespace(rank=rank)
    return types.SimpleNamespace(
        task=DemSR(from_mapping({})),
        model=types.SimpleNamespace(training_engine=engine),
        progress=types.SimpleNamespace(step=step),
        step_size=4,
        total_steps=10,
        epochs=2,
        logger=logging.getLogger("test"),
    )


def record(step, epoch=1):
    return {"step": step, "epoch": epoch, "loss": 0.25}


@pytest.mark.parametrize(("rank", "terminal"), [(0, True), (1, True), (0, False)])
def test_the_bar_counts_samples_on_a_terminal_of_rank_0_alone(monkeypatch, rank, terminal):
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    bar, run = ProgressBar(), trainer(step=2, rank=rank)
    bar.begin(run)
    bar.log(run, record(5))
    bar.epoch(run, record(10))
    bar.end(run)
    text = stream.getvalue()
    if rank == 0 and terminal:
        last = text.strip().split("\r")[-1]
        assert "100%" in last
        assert "40.0/40.0" in last
        assert "samples/s" in last
        assert "loss=2.50e-01" in last
    else:
        assert text == ""


def test_monitors_report_loss_scores_and_time(caplog):
    run, monitors = trainer(), (LossMonitor(), TimeMonitor())
    with caplog.at_level(logging.INFO, "test"):
        for monitor in monitors:
            monitor.begin(run)
            monitor.epoch(run, {**record(5), "valid": {"rmse": 12.3456, "bicubic_rmse": 15.0}})
    assert "epoch 1/2, step 5: loss 2.500e-01, valid RMSE 12.346 m (bicubic 15.000 m)" in caplog.text
    assert "ms per step" in caplog.text


def test_the_logger_writes_to_standard_error_and_a_file(tmp_path, capsys):
    logger = earthsr.create_logger(path=tmp_path / "logs" / "results.log")
    logger.info("hello")
    earthsr.create_logger().info("once")
    logging.getLogger("earthsr").handlers.clear()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line[9:] for line in shown.err.splitlines()] == ["hello", "once"]
    assert (tmp_path / "logs" / "results.log").read_text()[9:] == "hello\n"


def test_a_notebook_shows_the_log_as_output_and_not_as_a_fault(capsys, monkeypatch):
    from ipykernel.iostream import OutStream

    # What a kernel puts there, without the kernel; tests/tutorials executes a log in a real one.
    monkeypatch.setattr(sys, "stderr", OutStream.__new__(OutStream))
    earthsr.create_logger().info("hello")
    logging.getLogger("earthsr").handlers.clear()
    assert capsys.readouterr().out[9:] == "hello\n"


def test_metrics_are_cut_back_and_a_torn_last_line_is_left_out(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.cut(3)
    assert file.read() == []
    for step in range(5):
        file.append(record(step))
    file.cut(3)
    assert [line["step"] for line in file.read()] == [0, 1, 2]
    with file.path.open("a") as handle:
        handle.write('{"step": 3, "lo')
    assert len(file.read()) == 3
    file.cut(9)
    assert len(file.read()) == 3
