"""Several processes on this machine, as the frameworks' own launchers start them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from earthsr.models import RunFolder, read_checkpoint

#: Floats of two ranks are added in another order than those of one. Float32 rounds at 6e-8; the largest that was seen
#: after 20 steps of Adam is 2.4e-7 of a tensor's largest value. Where a step changes a weight by its rate however
#: small the gradient is, and where an activation within rounding of 0 falls on the other side, it grows: a thousandth
#: of what 20 steps at this rate can change (0.02, of weights of 0.1) is allowed.
TOLERANCE = 2e-4


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def launch(backend, ranks, folder, *arguments, timeout=300, options=(), env=None, program=None):
    """Run ``earthsr``, or another program, in several processes."""
    scripts, port = Path(sys.executable).parent, free_port()
    if backend == "torch":
        words = [scripts / "torchrun", "--nproc-per-node", ranks, "--master-addr", "127.0.0.1", "--master-port", port]
    else:
        words = [scripts / "msrun", "--worker_num", ranks, "--local_worker_num", ranks, "--master_addr", "127.0.0.1"]
        words += ["--master_port", port, "--join", "True", "--log_dir", folder / "logs"]
    words += [*options, program or scripts / "earthsr", *arguments]
    # msrun starts the python that is found first, as an active environment has it.
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=timeout, env=environment, cwd=folder
    )


def newest(run):
    """Weights of a run's last checkpoint, and its state."""
    return read_checkpoint(RunFolder(run).newest())


def apart(one, other):
    """Largest difference of each tensor over its largest value."""
    assert list(one) == list(other)
    return {name: float(np.abs(one[name] - other[name]).max() / max(np.abs(one[name]).max(), 1e-30)) for name in one}
