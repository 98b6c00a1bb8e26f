"""The paper's table for DEM super-resolution, from a configuration and folders of rasters: resumable, stage by stage.

    python tools/benchmark_dem.py configs/benchmark_dem.yaml --land DIR --more-land DIR --ocean DIR --output DIR

Land regions are left out in turn, whole; DEM-SRNet and EDSR are trained on the others and scored on those left out;
DEM-SRNet is fine-tuned on ocean and scored there; short runs with one thing changed say what it bought. Every stage is
commands that could be typed, and are printed; its time and peak memory are kept. After a kill at any moment the same
command carries on; two that run at once share the stages out. Results: `table.md`, `table.json`, `times.json` and
`figures/` in the output folder, brought up to date after every stage.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType

from dem_benchmark.config import load_benchmark
from dem_benchmark.figures import draw
from dem_benchmark.plan import Folders, Plan
from dem_benchmark.results import collect
from dem_benchmark.run import Records, Runner, duration, times
from dem_benchmark.stages import chosen, keys
from dem_benchmark.table import markdown

from earthsr.errors import EarthsrError, InputError
from earthsr.store import write_json, write_text


def say(text: str) -> None:
    print(text, flush=True)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, metavar="CONFIG", help="such as configs/benchmark_dem.yaml")
    parser.add_argument("--land", type=Path, required=True, help="folder of 3 arc-second land rasters")
    parser.add_argument("--more-land", type=Path, required=True, help="folder of coarser land rasters, to learn from")
    parser.add_argument("--ocean", type=Path, required=True, help="folder of ocean rasters")
    parser.add_argument("--output", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="these stages, and what they need")
    parser.add_argument("--list", action="store_true", help="show the stages and their state; run nothing")
    parser.add_argument("--threads", type=int, default=2, help="threads of each command")
    parser.add_argument("--scale-epochs", type=float, default=1.0, metavar="F", help="times every budget")
    return parser.parse_args(words)


def report(plan: Plan, commands: str) -> None:
    """Write tables and times from what is there."""
    results = collect(plan)
    write_json(plan.folders.output / "times.json", times(plan.folders.output, plan.stages))
    write_json(plan.folders.output / "table.json", results)
    write_text(plan.folders.output / "table.md", markdown(results, commands))
    draw(results, plan.folders.output / "figures")


def show(plan: Plan, only: list[str]) -> None:
    records, wanted = Records(plan.folders.output), keys(plan.stages)
    for stage in chosen(plan.stages, only):
        record = records.read(stage.name)
        spent = "" if record is None else f"  {duration(record.seconds)}, {record.peak_mib:,.0f} MiB"
        say(f"{records.state(stage, wanted[stage.name]):7} {stage.name}{spent}")


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, _end)
    try:
        if options.threads < 1:
            raise InputError(f"--threads is {options.threads}, expected 1 or more")
        if not 0 < options.scale_epochs <= 100:
            raise InputError(f"--scale-epochs is {options.scale_epochs:g}, expected more than 0, such as 0.1")
        benchmark = load_benchmark(options.config)
        folders = Folders(options.land, options.more_land, options.ocean, options.output)
        plan = Plan(benchmark, options.config, folders, options.scale_epochs)
        if options.list:
            show(plan, options.only)
            return 0
        return run(plan, options)
    except EarthsrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `… --list | head`
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command carries on", file=sys.stderr)
        return 130


def run(plan: Plan, options: argparse.Namespace) -> int:
    stages = chosen(plan.stages, options.only)
    commands = shlex.join(["python", "tools/benchmark_dem.py", *sys.argv[1:]])
    runner = Runner(options.output, options.threads, say)
    bad = runner.run(stages, keys(plan.stages), lambda: report(plan, commands))
    report(plan, commands)
    say(f"{options.output / 'table.md'}, {options.output / 'figures'}")
    if bad:
        print(f"error: {len(bad)} of {len(stages)} stages failed: {', '.join(bad)}; see logs/", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
