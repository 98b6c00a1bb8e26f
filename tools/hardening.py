"""Campaigns against what happens in the field: kills, damaged files, hostile files, two processes on one output.

    python tools/hardening.py fuzz --minutes 10 --seed 1
    python tools/hardening.py hostile

``kill`` ends each verb that writes at some moment, resumes it and compares bytes; ``concurrent`` runs two on one
output; ``fuzz`` gives mutated inputs of every format to every reader, within limits of time and memory; ``hostile``
files ask for what no file may ask for. A table says what was tried, what survived, and each distinct failure with its
seed; the exit code is 1 where something failed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.hardening_parts.outcomes import Tally

PARTS = "tools.hardening_parts"
CAMPAIGNS = ("kill", "fuzz", "hostile", "concurrent")


def main() -> int:
    """Read the command line, and run a campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to go on; what is begun is ended")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; each next one's is one larger")
    parser.add_argument("--only", help="of the kinds of cases, those that begin so: a verb, or a format")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="kill: copy the folders of failures there, to look at")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    name = f"{PARTS}.{options.campaign}"
    if importlib.util.find_spec(name) is None:
        parser.error(f"{options.campaign} is not here; there is no {name.replace('.', '/')}.py")
    if options.keep is not None and options.campaign != "kill":
        parser.error(f"--keep goes with kill: {options.campaign} has no folders")
    more = () if options.keep is None else (options.keep,)
    tally: Tally = importlib.import_module(name).run(options.minutes, options.seed, options.only, *more)
    print(json.dumps(tally.to_dict(), indent=2) if options.json else tally.table())
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
