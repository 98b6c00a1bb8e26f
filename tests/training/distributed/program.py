"""What each process of a launch does: pieces of work one after another, as a file says.

A launch takes longer than most of what it is there for: it starts processes, which import their frameworks and find
each other. So several tests share one.
"""

import contextlib
import importlib
import io
import json
import os
import runpy
import shutil
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from earthsr.ranks import launched_rank
from tests.graphs import share_graphs


def end_itself(step, number):
    """Send rank 1 a signal after a step, the first time that processes are started."""
    from earthsr.training.trainer import Trainer

    record = Trainer._record
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"

    def recorded(self, line, event):
        record(self, line, event)
        if first and launched_rank().number == 1 and self.progress.step == step:
            os.kill(os.getpid(), number)

    Trainer._record = recorded
    return lambda: setattr(Trainer, "_record", record)


def command_line(words):
    """Run the installed ``earthsr`` in this process; returns its exit code."""
    sys.argv = [shutil.which("earthsr"), *words]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    return 0


def function(name, *words):
    """Call ``module:function``; returns an exit code."""
    module, _, name = name.partition(":")
    try:
        getattr(importlib.import_module(module), name)(*words)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def main(pieces):
    """Do each piece of work, until one fails; what each printed is in a file beside the pieces, by name and rank."""
    share_graphs()
    for piece in json.loads(pieces.read_text()):
        restore = end_itself(piece["step"], piece["signal"]) if piece.get("signal") else lambda: None
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = function(*piece["call"]) if "call" in piece else command_line(piece["words"])
        restore()
        sys.stderr.write(err.getvalue())
        done = {"code": code, "out": out.getvalue(), "err": err.getvalue()}
        rank = launched_rank().number
        pieces.with_name(f"{piece['name']}.{rank}.json").write_text(json.dumps(done))
        if code or os.environ.get("MS_ROLE") == "MS_SCHED":
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
