"""Command lines of ``earthsr`` against the parser that answers them; nothing is run and no file is looked for."""

import functools
import re
import shlex

import typer

from earthsr.cli.main import app

#: How the documents call the command line.
_CALL = re.compile(r"(?:^|\s)(?:\$\(which earthsr\)|(?:python )?-m earthsr|earthsr)(?=\s|$)")


@functools.cache
def _verbs():
    return typer.main.get_command(app)


def calls(text):
    """Words after ``earthsr`` of each call in a command of the shell, launchers and pipes around it left out."""
    found = []
    for match in _CALL.finditer(text):
        words = []
        for word in shlex.split(text[match.end() :].replace("$(which earthsr)", "earthsr")):
            if word in ("&&", "||", "|", ";", "&") or word.startswith((">", "2>")):
                break
            words.append(word.rstrip(";"))
        found.append(words)
    return found


def fault(words):
    """What is wrong with the words of a call: its verb, an option, or the number of arguments; None where nothing is.

    ``…`` stands for words that a document leaves out; then only the verb and the options that are there are checked.
    """
    command, rest = _verbs(), list(words)
    context = None
    while hasattr(command, "commands"):
        own = [each for each in rest if each.startswith("-")]
        if not rest:
            return f"no verb; there are {', '.join(command.commands)}"
        if rest[0] == "…":
            return None
        if rest[0] in own:
            unknown = [each for each in own if each not in ("--help", "--version", "--traceback")]
            return f"unknown option {unknown[0]}" if unknown else None
        verb = rest.pop(0)
        if verb not in command.commands:
            return f"unknown verb {verb}; there are {', '.join(command.commands)}"
        command = command.commands[verb]
    rest = [word for word in rest if word != "--traceback"]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [w for w in rest if w.startswith("--") and w.partition("=")[0] not in {*options, "--help"}]
    if unknown:
        return f"unknown option {unknown[0]}"
    if "…" in rest or "--help" in rest:
        return None
    try:
        context = command.make_context("earthsr", rest)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return error.format_message()
    context.close()
    return None


def takes(words, option):
    """Whether the verb of a call has an option."""
    command = _verbs()
    for word in words:
        if not hasattr(command, "commands"):
            break
        command = command.commands.get(word, command)
    return any(option in parameter.opts for parameter in command.params)
