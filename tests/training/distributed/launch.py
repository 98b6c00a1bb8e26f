"""Several processes on this machine, as the frameworks' own launchers start them."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earthsr.models import RunFolder, read_checkpoint

#: Floats of two ranks are added in another order than those of one. Float32 rounds at 6e-8; the largest that was seen
#: after 20 steps of Adam is 2.4e-7 of a tensor's largest value. Where a step changes a weight by its rate however
#: small the gradient is, and where an activation within rounding of 0 falls on the other side, it grows: a thousandth
#: of what 20 steps at this rate can change (0.02, of weights of 0.1) is allowed.
TOLERANCE = 2e-4
PROGRAM = Path(__file__).with_name("program.py")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@dataclass(frozen=True)
class Work:
    """What all ranks ended a piece of work with, and what they printed."""

    codes: list[int]
    text: str


class Launch:
    """Two processes that do pieces of work (``program.py``), of which each has a name, one after another."""

    def __init__(self, backend, folder, pieces, options=()):
        scripts, port = Path(sys.executable).parent, free_port()
        self.folder, self.names = folder, [piece["name"] for piece in pieces]
        file = folder / f"{'-'.join(self.names)[:60]}.pieces.json"
        file.write_text(json.dumps(pieces))
        if backend == "torch":
            words = [scripts / "torchrun", "--nproc-per-node", 2, "--master-addr", "127.0.0.1", "--master-port", port]
        else:
            words = [scripts / "msrun", "--worker_num", 2, "--local_worker_num", 2, "--master_addr", "127.0.0.1"]
            words += ["--master_port", port, "--join", "True", "--log_dir", folder / "logs"]
        words += [*options, PROGRAM, file]
        # msrun starts the python that is found first, as an active environment has it.
        path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(list(map(str, words)), env=environment, cwd=folder, **pipes)

    def end(self):
        """Wait for the launcher; returns its exit code and what it printed."""
        with self.process:
            try:
                out, err = self.process.communicate(timeout=300)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, out, err)

    def work(self):
        """What each piece of work ended with, where all ranks came to its end."""
        ends = {}
        for name in self.names:
            files = [self.folder / f"{name}.{rank}.json" for rank in (0, 1)]
            ranks = [json.loads(file.read_text()) for file in files]
            ends[name] = Work([rank["code"] for rank in ranks], "".join(rank["out"] + rank["err"] for rank in ranks))
        return ends


def newest(run):
    """Weights of a run's last checkpoint, and its state."""
    return read_checkpoint(RunFolder(run).newest())


def apart(one, other):
    """Largest difference of each tensor over its largest value."""
    assert list(one) == list(other)
    return {name: float(np.abs(one[name] - other[name]).max() / max(np.abs(one[name]).max(), 1e-30)) for name in one}
