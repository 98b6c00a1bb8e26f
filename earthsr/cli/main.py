"""The application: verbs put together, errors turned into one line and an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from earthsr.cli import bench as bench_verbs
from earthsr.cli import config as config_verbs
from earthsr.cli import convert as convert_verbs
from earthsr.cli import doctor as doctor_verbs
from earthsr.cli import evaluate as evaluate_verbs
from earthsr.cli import export as export_verbs
from earthsr.cli import info as info_verbs
from earthsr.cli import parity as parity_verbs
from earthsr.cli import plot as plot_verbs
from earthsr.cli import predict as predict_verbs
from earthsr.cli import prepare as prepare_verbs
from earthsr.cli import reconstruct as reconstruct_verbs
from earthsr.cli import sample as sample_verbs
from earthsr.cli import train as train_verbs
from earthsr.errors import ALLOW_EXTERNAL

app = typer.Typer(
    name="earthsr",
    help="Deep-learning maps of the Earth at high resolution, on PyTorch or MindSpore.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        import earthsr

        typer.echo(earthsr.__version__)
        raise typer.Exit


@app.callback()
def _root(
    traceback: bool = typer.Option(False, "--traceback", help="Show where an error came from; may stand anywhere."),
    external: bool = typer.Option(
        False, "--allow-external", help="Read what a VRT or an HDF5 file names in other folders; may stand anywhere."
    ),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Deep-learning maps of the Earth at high resolution, on PyTorch or MindSpore."""


app.command("train")(train_verbs.train)
app.command("evaluate")(evaluate_verbs.evaluate)
app.command("predict")(predict_verbs.predict)
app.command("reconstruct")(reconstruct_verbs.reconstruct)
app.command("plot")(plot_verbs.plot)
app.add_typer(sample_verbs.app, name="sample")
app.add_typer(prepare_verbs.app, name="prepare")
app.add_typer(config_verbs.app, name="config")
app.command("convert")(convert_verbs.convert)
app.command("export")(export_verbs.export)
app.command("parity")(parity_verbs.parity)
app.command("bench")(bench_verbs.bench)
app.command("info")(info_verbs.info)
app.command("doctor")(doctor_verbs.doctor)


def _require_commas(words: Sequence[str]) -> None:
    """Answer ``--bbox 17 43 18 44``, as other tools have it: three of the numbers would be taken for files."""
    from earthsr.errors import InputError

    for number, word in enumerate(words):
        box = words[number + 1 : number + 5]
        if word == "--bbox" and len(box) == 4 and all(map(_is_number, box)):
            raise InputError(f"--bbox takes four numbers with commas between them: --bbox {','.join(box)}")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _usage(error: Any) -> int:
    """Print a parsing error of the command line in one line."""
    message = error.format_message().strip()
    if message:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "earthsr"
        typer.echo(f"error: {message.rstrip('.')}; see {command} --help", err=True)
    return int(error.exit_code)


def _speaker() -> str:
    """Who says something, where several processes train together."""
    from earthsr.errors import EarthsrError
    from earthsr.ranks import launched_rank

    try:
        rank = launched_rank()
    except EarthsrError:
        return ""
    return f"rank {rank.number}: " if rank is not None and rank.of > 1 else ""


@contextlib.contextmanager
def _allowing_external(allowed: bool) -> Iterator[None]:
    """Let files name others outside their own folder; in the environment, so that processes that are started know."""
    before = os.environ.get(ALLOW_EXTERNAL)
    if allowed:
        os.environ[ALLOW_EXTERNAL] = "1"
    try:
        yield
    finally:
        if allowed and before is None:
            del os.environ[ALLOW_EXTERNAL]


def _one_line(error: Exception) -> str:
    """Return what an error says in one line, without what would move a terminal's cursor."""
    from earthsr.errors import printable

    return printable(" ".join(str(error).split()))


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    from earthsr.errors import printable

    typer.echo(printable(f"warning: {message}"), err=True)


class _LastingStderr(io.RawIOBase):
    """Standard error that goes on when nobody reads it any more: work is not lost for a message."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return os.write(self._descriptor, data)
        return len(data)


def _keep_stderr() -> None:
    """Let a closed standard error, or a broken pipe, end nothing; nor may a file of ours get its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        raw: Any = _LastingStderr(2)
        sys.stderr = io.TextIOWrapper(
            raw, encoding=getattr(sys.stderr, "encoding", "utf-8"), errors="backslashreplace", write_through=True
        )
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        ``sys.argv[1:]`` where absent.

    Returns
    -------
    int
        The exit code.
    """
    from earthsr.errors import EarthsrError, EarthsrWarning

    _keep_stderr()
    words = list(sys.argv[1:] if arguments is None else arguments)
    show = "--traceback" in words
    external = "--allow-external" in words
    words = [word for word in words if word not in ("--traceback", "--allow-external")]
    with _allowing_external(external), warnings.catch_warnings():
        warnings.simplefilter("always", EarthsrWarning)
        warnings.showwarning = _warn
        try:
            _require_commas(words)
            result = app(args=words, prog_name="earthsr", standalone_mode=False)
            return result if isinstance(result, int) else 0
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            return 130
        except BrokenPipeError:
            sys.stderr.close()
            return 1
        except EarthsrError as error:
            if show:
                traceback.print_exc()
            typer.echo(f"{_speaker()}error: {_one_line(error)}", err=True)
            return error.exit_code
        except Exception as error:
            if hasattr(error, "format_message") and hasattr(error, "exit_code"):
                return _usage(error)
            # The last door: nobody shall see a traceback that they did not ask for.
            if show:
                traceback.print_exc()
            text = _one_line(error)
            hint = "" if show else "; --traceback shows where"
            typer.echo(f"{_speaker()}error: {type(error).__name__}: {text}{hint}", err=True)
            return 1
