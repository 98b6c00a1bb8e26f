"""tools/benchmark_dem.py: what is finished is kept, what was killed carries on, and everything runs for real."""

import json
import os
import resource
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from earthsr.errors import DataError
from earthsr.models import RunFolder, read_weights
from tests.conftest import REPOSITORY, installed, terrain
from tests.tools.benchmark_dem_cases import write_files
from tools.dem_benchmark.run import Record, Records, Runner, held
from tools.dem_benchmark.stages import Command, Stage, keys

TOOL = REPOSITORY / "tools" / "benchmark_dem.py"


def python(code, result, name="a", **more):
    return Stage(name, (Command(("python", "-c", code)),), Path(result), **more)


def run_all(output, stages, say=None):
    return Runner(output, 1, say or (lambda _: None)).run(stages, keys(stages), lambda: None)


def test_finished_stages_are_kept_and_failures_stop_only_what_needs_them(tmp_path):
    out = tmp_path / "out"
    good = python(f"open({str(tmp_path / 'a')!r}, 'a').write('x')", tmp_path / "a", "a")
    bad = python("raise SystemExit('no luck')", tmp_path / "b", "b")
    after = python("print(1)", tmp_path / "c", "c", needs=("b",))
    other = python(f"open({str(tmp_path / 'd')!r}, 'a').write('x')", tmp_path / "d", "d", needs=("a",))
    stages = [good, bad, after, other]
    assert run_all(out, stages) == ["b", "c"]
    assert run_all(out, stages) == ["b", "c"]
    assert (tmp_path / "a").read_text() == (tmp_path / "d").read_text() == "x", "finished stages ran once"
    records = Records(out)
    assert records.read("b").error == "no luck"
    assert records.read("b").attempts == 2
    assert records.read("c") is None
    done = records.read("a")
    assert (done.state, done.attempts, done.threads) == ("done", 1, 1)
    # A bare interpreter takes some megabytes and some hundredths of a second; up to its exec Linux counts what this
    # process holds as the child's.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    assert 3 < done.peak_mib < max(500, 1.1 * own)
    assert 0.005 < done.seconds < 60


def test_a_stage_that_was_begun_carries_on_and_a_changed_one_begins_anew(tmp_path):
    log, luck = tmp_path / "log", tmp_path / "luck"
    code = "import os, sys; open(sys.argv[1], 'a').write(sys.argv[3] + ' '); sys.exit(not os.path.exists(sys.argv[2]))"
    command = Command(("python", "-c", code, str(log), str(luck)), ("--overwrite",), ("--resume",))
    stage = Stage("a", (command,), tmp_path / "result")
    said = []
    assert run_all(tmp_path / "out", [stage]) == ["a"]
    assert run_all(tmp_path / "out", [stage]) == ["a"]
    inputs = tmp_path / "config.yaml"
    inputs.write_text("epochs: 3")
    changed = Stage("a", (command,), tmp_path / "result", inputs=(inputs,))
    assert run_all(tmp_path / "out", [changed], said.append) == ["a"]
    assert "begins anew" in " ".join(said)
    luck.touch()
    # What was left from before is not taken for this one's.
    (tmp_path / "result").touch()
    inputs.write_text("epochs: 4")
    assert run_all(tmp_path / "out", [changed]) == ["a"]
    assert "is not there" in Records(tmp_path / "out").read("a").error
    (tmp_path / "result").touch()
    assert run_all(tmp_path / "out", [changed]) == []
    assert log.read_text().split() == ["--overwrite", "--resume", "--overwrite", "--overwrite", "--resume"]


def test_a_result_that_is_wrong_or_missing_is_a_failure(tmp_path):
    def check():
        raise DataError("train and test share ground")

    nothing = python("print(1)", tmp_path / "never", "nothing")
    wrong = python(f"open({str(tmp_path / 'b')!r}, 'w')", tmp_path / "b", "wrong", check=check)
    assert run_all(tmp_path / "out", [nothing, wrong]) == ["nothing", "wrong"]
    records = Records(tmp_path / "out")
    assert "is not there, though every command ended well" in records.read("nothing").error
    assert records.read("wrong").error == "train and test share ground"


def test_two_benchmarks_share_the_stages_out(tmp_path):
    """While one is held, the others are run; it is looked at again, and found done."""
    log = tmp_path / "log"

    def stage(name, **more):
        code = f"open({str(log)!r}, 'a').write('{name} '); open({str(tmp_path / name)!r}, 'w')"
        return python(code, tmp_path / name, name, **more)

    first, second, third = stage("first"), stage("second"), stage("third", needs=("first",))
    stages, said = [first, second, third], []
    with ThreadPoolExecutor(1) as threads:
        with held(tmp_path / "out", "first") as lock:
            assert lock is not None
            run = threads.submit(run_all, tmp_path / "out", stages, said.append)
            assert wait_for(lambda: log.exists() and "second" in log.read_text())
            (tmp_path / "first").touch()
            Records(tmp_path / "out").write(Record("first", keys(stages)["first"], "done"))
        assert run.result(timeout=60) == []
    assert log.read_text() == "second third "
    assert "[1/3] first: another run works at it" in said
    assert "[1/3] first: done before" in said


@pytest.mark.slow
def test_commands_end_with_a_benchmark_that_was_killed(tmp_path):
    if sys.platform != "linux":
        pytest.skip("only Linux ends them by itself; elsewhere the folder stays locked until they have ended")
    script = f"""
import sys; sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from tools.dem_benchmark.run import Runner
from tools.dem_benchmark.stages import Command, Stage, keys
code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
stage = Stage("a", (Command(("python", "-c", code)),), Path("x"))
Runner(Path({str(tmp_path)!r}), 1, print).run([stage], keys([stage]), lambda: None)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL) as tool:
        log = tmp_path / "logs" / "a.log"
        child = wait_for(lambda: log.exists() and log.read_text().splitlines()[1:])
        tool.kill()
    assert wait_for(lambda: not Path(f"/proc/{int(child[0])}").exists())
    with held(tmp_path, "a") as lock:
        assert lock is not None
    assert Records(tmp_path).read("a").state == "begun"


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


# Everything, for real


def write_raster(path, west, north, cell_deg, elevation):
    rasterio = pytest.importorskip("rasterio")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = elevation.shape
    profile = {"driver": "GTiff", "height": rows, "width": columns, "count": 1, "dtype": "float32", "crs": "EPSG:4326"}
    transform = rasterio.Affine(cell_deg, 0, west, 0, -cell_deg, north)
    with rasterio.open(path, "w", transform=transform, **profile) as raster:
        raster.write(elevation, 1)
        raster.units = ("m",)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Small rasters: three land tiles of which two touch, more land, and ocean; and the tiny configurations."""
    root = tmp_path_factory.mktemp("world")
    fine, coarse = 1 / 1200, 1 / 240
    for i, (name, west) in enumerate((("a", 5.0), ("b", 10.0), ("c", 10.0 + 200 * fine))):
        write_raster(root / "land" / f"{name}.tif", west, 46.0, fine, terrain(i, 1, 200)[0, 0])
    for i in range(3):
        write_raster(root / "more" / f"m{i + 1}.tif", 20.0 + 2 * i, 40.0, coarse, terrain(10 + i, 1, 200)[0, 0])
        write_raster(
            root / "ocean" / f"o{i + 1}.tif", -40.0 + 2 * i, 10.0, coarse, terrain(20 + i, 1, 200)[0, 0] - 4000
        )
    write_files(root / "configs")
    return root


def tool(world, output, *words):
    folders = ["--land", world / "land", "--more-land", world / "more", "--ocean", world / "ocean"]
    line = [
        sys.executable,
        TOOL,
        world / "configs" / "benchmark.yaml",
        *folders,
        "--output",
        output,
        "--threads",
        1,
        *words,
    ]
    return [str(word) for word in line]


#: The tool, whose commands are forks of a process that has imported what each of them would import for three seconds.
#: Pictures of runs and evaluations, which take longer than what they show, stay blank; the tool draws its own.
FORKING = f"""
import base64, os, runpy, signal, subprocess, sys, traceback, types
sys.path[:0] = [{str(REPOSITORY / "tools")!r}, {str(REPOSITORY)!r}]
import bokeh.embed, bokeh.plotting, matplotlib.backends.backend_agg, rasterio, torch._dynamo
import earthsr.api, earthsr.evaluation.figures, earthsr_torch.engine
from earthsr.cli import main
import benchmark_dem
from dem_benchmark import run

BLANK = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)

def blank(figure, path):
    with open(path, "wb") as file:
        file.write(BLANK)

def script(words):
    sys.argv = words
    sys.path.insert(0, os.path.dirname(words[0]))
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    return 0

class Forked(subprocess.Popen):
    def __init__(self, words, *, stdout, env, preexec_fn, **options):
        self.returncode = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                preexec_fn()
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                for number in (1, 2):
                    os.dup2(stdout.fileno(), number)
                os.environ.update(env)
                earthsr.evaluation.figures.write_png = blank
                code = main(words[3:]) if words[1:3] == ["-m", "earthsr"] else script(words[1:])
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)

run.subprocess = types.SimpleNamespace(**{{**vars(subprocess), "Popen": Forked}})
sys.exit(benchmark_dem.main())
"""


@pytest.mark.slow
@pytest.mark.skipif(not installed("torch"), reason="backend torch is not installed")
def test_every_kind_of_stage_runs_and_the_table_is_whole(world, tmp_path):
    output = tmp_path / "out"
    # Times of one kind of command are measured by others; here everything is a single epoch, and the second fold, whose
    # stages differ in names alone, shows only that a fold may be half done.
    stages = ("score/one/*", "score/two/demsrnet", "score/ocean/*", "score/ablation/*")
    words = tool(world, output, "--scale-epochs", "0.5", "--only", *stages)
    forking = tmp_path / "forking.py"
    forking.write_text(FORKING)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    forked = [words[0], forking, *words[2:]]
    done = subprocess.run(forked, capture_output=True, text=True, timeout=1800, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    found = json.loads((output / "table.json").read_text())
    assert [row["region"] for row in found["rows"]] == ["a", "b", "c", "o3"]
    for row in found["rows"]:
        twice = ("demsrnet", "finetuned") if row["kind"] == "ocean" else ("demsrnet", "rough", "tiles")
        models = {"edsr", *(f"{name}{ending}" for name in twice for ending in ("", "-symmetries"))}
        models = models if row["region"] in ("a", "o3") else {"demsrnet"}
        assert set(row["rmse_m"]) == models | {"nearest", "bilinear", "bicubic", "conservative"}
    assert {entry["name"] for entry in found["ablations"]} == {
        "reference", "shallow", "alone", "wide", "long", "long-rough", "averaged", "demsrnet-symmetries", "ensemble",
        "tiles", "finetuned", "whole",
    }  # fmt: skip
    regions = {entry["name"]: entry.get("training_regions") for entry in found["ablations"]}
    assert (regions["reference"], regions["alone"]) == (4, 2)
    assert {record["state"] for record in found["times"]["stages"].values()} == {"done"}
    assert min(record["peak_mib"] for record in found["times"]["stages"].values()) > 20
    assert found["times"] == json.loads((output / "times.json").read_text())
    assert {path.name for path in (output / "figures").iterdir()} == {"regions.png", "ablations.png", "curves.png"}
    # Each command can be typed: an evaluation, as it was printed, gives the same scores again.
    line = next(line for line in done.stdout.splitlines() if line.strip().startswith("$ earthsr evaluate"))
    printed = shlex.split(line.strip()[2:])
    target = Path(printed[printed.index("--output") + 1])
    before = json.loads((target / "metrics.json").read_text())["scores"]
    (target / "metrics.json").unlink()
    subprocess.run([sys.executable, "-m", *printed], check=True, capture_output=True)
    assert json.loads((target / "metrics.json").read_text())["scores"] == before
    # And nothing is done twice.
    again = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0
    assert again.stdout.count("done before") == len(found["times"]["stages"])
    assert "$ earthsr" not in again.stdout


@pytest.mark.slow
@pytest.mark.skipif(not installed("torch"), reason="backend torch is not installed")
def test_a_benchmark_killed_at_any_moment_carries_on_to_the_same_weights(world, tmp_path):
    stage = ("--only", "train/one/demsrnet")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(tool(world, whole, *stage), check=True, capture_output=True, timeout=600)
    data, run = killed / "data" / "one", RunFolder(killed / "runs" / "one" / "demsrnet")
    moments = (
        lambda: (killed / "stages" / "data__one.json").exists(),
        lambda: (data / "test" / "test.h5").exists(),
        lambda: run.steps(),
    )
    for moment in moments:
        with subprocess.Popen(
            tool(world, killed, *stage), stdout=subprocess.DEVNULL, start_new_session=True
        ) as process:
            wait_for(lambda: moment() or process.poll() is not None, seconds=300)  # noqa: B023
            process.kill()
    last = subprocess.run(tool(world, killed, *stage), capture_output=True, text=True, timeout=600)
    assert last.returncode == 0, last.stdout + last.stderr
    ends = [RunFolder(folder / "runs" / "one" / "demsrnet") for folder in (whole, killed)]
    assert ends[0].newest().name == ends[1].newest().name
    one, other = (read_weights(end.newest() / "weights.safetensors").weights for end in ends)
    for name, value in one.items():
        assert value.tobytes() == other[name].tobytes(), name
    assert json.loads((killed / "times.json").read_text())["stages"]["data/one"]["attempts"] >= 1


def test_the_list_of_stages_runs_nothing(world, tmp_path):
    done = subprocess.run(tool(world, tmp_path / "out", "--list"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "data/one" in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_list_whose_reader_has_gone_ends_without_a_word(world, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    words = tool(world, tmp_path / "out", "--list")
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "nothing"], "error: --only nothing: no such stage"),
        (["--threads", "0"], "error: --threads is 0"),
        (["--scale-epochs", "0"], "error: --scale-epochs is 0"),
        (["--ocean", "nowhere"], "error: nowhere: no such folder of rasters"),
    ],
)
def test_wrong_arguments_get_one_line(world, tmp_path, words, message):
    done = subprocess.run(tool(world, tmp_path / "out", *words), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
