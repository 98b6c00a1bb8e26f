"""A reader's shell whose ``earthsr`` runs in the process of the tests: frameworks are imported once, not each time.

What bash does with a line stays bash's: quotes, patterns of names, folders, pipes and exit codes. A function of the
shell stands for the program; what looks for its file, as ``torchrun … $(which earthsr)`` does, finds the real one.
"""

import contextlib
import json
import socket
import subprocess
import sys
import time
import traceback

from tests.conftest import call_cli

#: What the function runs: it asks the process of the tests, and shows and returns what that answers.
ASK = """
import json, os, socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as line, line.makefile("rw") as file:
    file.write(json.dumps([sys.argv[2:], os.getcwd()]) + "\\n")
    file.flush()
    code, out, err = json.loads(file.readline())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


def run_script(script, place, environment, seconds):
    """Run a script of bash at a place; ``seconds`` are for all of it that is not ``earthsr``.

    Returns
    -------
    subprocess.CompletedProcess

    Raises
    ------
    subprocess.TimeoutExpired
        The script is stopped then.
    """
    ask = place.parent / "ask.py"
    ask.write_text(ASK)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        open(place.parent / "out", "w+") as out,
        open(place.parent / "err", "w+") as err,
    ):
        server.settimeout(0.1)
        port = server.getsockname()[1]
        function = f'earthsr() {{ "{sys.executable}" -IS "{ask}" {port} "$@"; }}\n'
        words = ["bash", "-c", function + script]
        with subprocess.Popen(words, cwd=place, env=environment, stdout=out, stderr=err) as bash:
            deadline = time.monotonic() + seconds
            while bash.poll() is None:
                if time.monotonic() > deadline:
                    bash.kill()
                    raise subprocess.TimeoutExpired(script, seconds)
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    before = time.monotonic()
                    _answer(connection)
                    deadline += time.monotonic() - before
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess(words, bash.returncode, *texts)


def _answer(connection):
    with connection, connection.makefile("rw") as file:
        words, folder = json.loads(file.readline())
        try:
            done = call_cli(*words, cwd=folder)
            answer = [done.returncode, done.stdout, done.stderr]
        except Exception:  # A command that ends so has failed, and the script stops there.
            answer = [1, "", traceback.format_exc()]
        file.write(json.dumps(answer) + "\n")
        file.flush()
