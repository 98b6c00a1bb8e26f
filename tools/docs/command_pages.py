"""A page per verb of the command line, from the help that ``--help`` prints."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from earthsr.cli.main import app
from tools.docs.markdown import code, plain, table

FOLDER = "reference/commands"

TAIL = """Exit codes: 0 done, 1 the work failed, 2 the arguments, configuration or input are wrong; 130 after Ctrl-C. An
error is one line on standard error that says what, where and what to do; `--traceback`, anywhere among the words, shows
where it came from. Results that a program reads are JSON on standard output with `--json`. Keys that `--set` takes are
those of the [configuration](../configuration.md)."""


def verbs() -> dict[str, Any]:
    """Verbs of ``earthsr`` and their commands, in the order of its help."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Names, as they are typed after ``earthsr``, and commands of a verb: its subcommands, or itself."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word, subcommand in inner.items():
        yield from leaves(f"{name} {word}", subcommand)


def verb_page(name: str, command: Any) -> str:
    """Return the page of one verb: what it does, how it is called, its arguments and options."""
    lines = [f"# earthsr {name}", ""]
    if hasattr(command, "commands"):
        lines += [plain(command.help or ""), ""]
        for word, leaf in leaves(name, command):
            lines += [f"## earthsr {word}", "", *_body(word, leaf)]
    else:
        lines += _body(name, command)
    return "\n".join(lines)


def index_page() -> str:
    """Return the page that lists all verbs, exit codes and what they have in common."""
    rows = []
    for name, command in verbs().items():
        for word, leaf in leaves(name, command):
            anchor = "" if word == name else f"#earthsr-{word.replace(' ', '-')}"
            rows.append((f"[`earthsr {word}`]({name}.md{anchor})", plain(_summary(leaf))))
    return "\n".join(
        [
            "# Commands",
            "",
            "Generated from the help of the commands themselves: `earthsr VERB --help` prints the same.",
            "",
            table(("command", "what it does"), rows),
            "",
            TAIL,
            "",
        ]
    )


def _body(name: str, command: Any) -> list[str]:
    context = command.make_context(f"earthsr {name}", [], resilient_parsing=True)
    words = " ".join(command.collect_usage_pieces(context)).replace("{", "").replace("}", "")
    lines = [_paragraphs(command.help or ""), "", "```text", f"earthsr {name} {words}", "```", ""]
    arguments, options = [], []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            continue
        row = (code(record[0]), plain(record[1]))
        (arguments if parameter.param_type_name == "argument" else options).append(row)
    if arguments:
        lines += [table(("argument", "what"), arguments), ""]
    return [*lines, table(("option", "what"), options), ""]


def _paragraphs(text: str) -> str:
    return "\n\n".join(plain(part) for part in inspect.cleandoc(text).split("\n\n"))


def _summary(command: Any) -> str:
    return inspect.cleandoc(command.help or "").split("\n\n")[0]
