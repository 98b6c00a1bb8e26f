"""Other processes for tests of the store: they write, and are killed at a chosen place."""

import os
import subprocess
import sys


def run(code, *arguments, **options):
    """Run a program in a process of its own; returns it when it has ended."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60, **options
    )


def killed(code, *arguments):
    """Run a program that kills itself."""
    done = run("import os, signal, sys\ndef die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n" + code, *arguments)
    assert done.returncode == -9, done.stderr


def started(code, *arguments):
    """Start a program, and wait until it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def ended_pid():
    """Give the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert process.pid != os.getpid()
    return process.pid
