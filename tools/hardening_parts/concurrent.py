"""Two commands at one output: one ends well, the other too or is told whom it would meet; the output is whole."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from pathlib import Path

from tools.hardening_parts.forked import earthsr, in_child, warm
from tools.hardening_parts.kill import PATIENCE_S, VERBS, Verb, _prepare_samples, _reference, digests
from tools.hardening_parts.outcomes import Outcome, Tally


def run(minutes: float, seed: int, only: str | None) -> Tally:
    """Let commands meet for so long."""
    warm()
    tally = Tally("concurrent")
    verbs = [verb for verb in VERBS if verb.name.startswith(only or "") and verb.name != "evaluate"]
    with tempfile.TemporaryDirectory() as name:
        samples = Path(name) / "samples"
        made = in_child(lambda: _prepare_samples(samples), PATIENCE_S, memory=None)
        if made.code:
            raise RuntimeError(f"samples cannot be made: {made.error}")
        references: dict[str, tuple[float, dict[str, str]]] = {}
        end = time.monotonic() + 60 * minutes
        for number in range(10**9):
            verb = verbs[number % len(verbs)]
            if time.monotonic() > end and number >= len(verbs):
                break
            if verb.name not in references:
                references[verb.name] = _reference(verb, samples, Path(name) / "reference")
            folder = Path(name) / "case"
            folder.mkdir()
            tally.add(verb.name, seed + number, _case(verb, samples, folder, references[verb.name], seed + number))
            shutil.rmtree(folder)
    return tally


def _case(verb: Verb, samples: Path, folder: Path, reference: tuple[float, dict[str, str]], seed: int) -> str | None:
    taken, whole = reference
    outcomes: list[Outcome] = []
    wait = random.Random(seed).uniform(0, taken)

    def go(seconds: float) -> None:
        time.sleep(seconds)
        outcomes.append(earthsr(*verb.words(samples), *verb.again, cwd=folder, seconds=PATIENCE_S))

    threads = [threading.Thread(target=go, args=(seconds,)) for seconds in (0.0, wait)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if all(outcome.code for outcome in outcomes):
        return f"neither ended well: {outcomes[0].error.strip()[-200:]}"
    for outcome in outcomes:
        met = "is being written by process" in outcome.error or "just now" in outcome.error
        if outcome.code and not (outcome.code == 2 and met):
            return f"exit {outcome.code}: {outcome.error.strip()[-300:]}"
    after = digests(folder)
    differ = sorted(name for name in {*after, *whole} if after.get(name) != whole.get(name))
    if differ:
        return f"other contents than of one alone: {', '.join(differ[:4])}"
    hidden = sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))
    return f"left behind: {', '.join(hidden[:3])}" if hidden else None
