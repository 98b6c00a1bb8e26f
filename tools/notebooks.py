"""Notebooks in two languages from one source each.

    python tools/notebooks.py build [NAME…]      # execute once, write tutorials/NAME.ipynb and tutorials/zh/NAME.ipynb
    python tools/notebooks.py texts [NAME…]      # new texts into built notebooks, whose outputs stay
    python tools/notebooks.py check [NAME…]      # whether what is committed follows from the sources; changes nothing
    python tools/notebooks.py run NAME [--backend mindspore] [--reduced]     # execute and write nothing

A source, ``tutorials/src/NAME.py``, is jupytext's percent format: code cells stand once, and every text twice, an
English markdown cell (``lang="en"``) and right after it the Chinese one (``lang="zh"``). Both notebooks get the outputs
of the same execution, in which a cell that draws is run once with English and once with Chinese labels (how these are
written: ``notebook_parts/source.py``); ``build`` needs a font with Chinese letters, ``run`` does not. It happens in a
temporary folder, where nothing lies but a copy of ``configs``, with the backend and the size that the lines
``backend = …`` and ``quick = …`` of the source say; ``--backend`` and ``--reduced`` replace these lines and no others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from notebook_parts.build import build, execute, printed, renew_texts, write_pictures
from notebook_parts.check import problems
from notebook_parts.source import LANGUAGES, NotebookError, names, parameters_replaced, place, read_source

REPOSITORY: Final = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("build", "texts", "check"):
        verbs.add_parser(verb).add_argument("names", nargs="*", metavar="NAME")
    run = verbs.add_parser("run")
    run.add_argument("names", nargs=1, metavar="NAME")
    run.add_argument("--backend", choices=("torch", "mindspore"), help="in place of the source's line backend = …")
    run.add_argument("--pictures", type=Path, metavar="DIR", help="write what is drawn into a folder, to look at")
    run.add_argument("--reduced", action="store_true", help="quick = True in place of the source's line")
    for verb_parser in verbs.choices.values():
        verb_parser.add_argument(
            "--folder", type=Path, default=REPOSITORY / "tutorials", help="that has src; tutorials"
        )
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    configs = REPOSITORY / "configs"
    chosen = options.names or names(folder)
    try:
        if options.verb == "check":
            notes = [problem for name in chosen for problem in problems(folder, name)]
            print("\n".join(notes) if notes else f"{', '.join(chosen)}: in step in {' and '.join(LANGUAGES)}")
            return int(bool(notes))
        for name in chosen:
            if options.verb == "texts":
                renew_texts(folder, name)
                continue
            if options.verb == "build":
                seconds = build(folder, name, configs)
                sizes = " and ".join(
                    f"{place(folder, name, language).stat().st_size // 1000} kB" for language in LANGUAGES
                )
                print(f"{name}: executed in {seconds:.0f} s, wrote {sizes}")
                continue
            values: dict[str, str | bool] = {"quick": True} if options.reduced else {}
            values |= {"backend": options.backend} if options.backend else {}
            cells = parameters_replaced(read_source(folder / "src" / f"{name}.py"), **values)
            notebook, seconds = execute(name, cells, configs)
            print("\n".join(printed(notebook)))
            if options.pictures:
                print("\n".join(str(path) for path in write_pictures(notebook, options.pictures)))
            print(f"{name}: executed in {seconds:.0f} s, nothing was written")
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
