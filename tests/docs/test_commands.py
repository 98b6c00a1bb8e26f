"""Every command of README and the documents runs as it is written, or stands in ``accounts.py`` with a reason.

Each document has a workplace of its own (``workplace.py``), as fresh as a clone. Its blocks are run from top to bottom,
each in a shell that begins at the root, and stop at the first command that fails (``shell.py``).
"""

import functools
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from earthsr.config import Config, from_mapping
from earthsr.samples.world import SyntheticWorld
from tests.conftest import BACKENDS, REPOSITORY, installed
from tests.docs.accounts import ACCOUNTS, PROGRAMS, account_of, speaks
from tests.docs.blocks import SHOWN, TYPED, Block, blocks, commands, documents
from tests.docs.shell import run_script
from tests.docs.words import calls, fault, takes
from tests.docs.workplace import environment, make_workplace

SHELLS = tuple(language for language in TYPED if language != "python")
#: Documents whose blocks are files, and the tests that write and use them.
WRITTEN = {
    "CONTRIBUTING.md": "tests/contributing/test_examples.py",
    "docs/tracking.md": "tests/docs/test_sweep.py",
}
#: One command; the longest, parity of both backends, takes a third of it.
SECONDS = 180
TEXT = dict(capture_output=True, text=True)
HELP = (
    "Either the document is wrong, or the command needs a file that tests/docs/workplace.py could make, or it cannot "
    "be run so and needs an entry in tests/docs/accounts.py that says why and what is run instead."
)


def typed(document, languages=TYPED):
    return [block for block in blocks(document) if block.language in languages and not block.title]


def all_commands():
    return [command for name in documents() for block in typed(name, SHELLS) for command in commands(block)]


def test_blocks_are_found_with_their_lines():
    text = "a\n```sh\nearthsr info X  # why\n\n# alone\nearthsr train \\\n  C '#1'\n```\n"
    text += "\n- b\n\n  ```python\n  x = 1\n  ```\n"
    shell, python = blocks("d.md", text)
    assert (shell.line, python.line, python.text) == (3, 13, "x = 1\n")
    assert [(c.line, c.text) for c in commands(shell)] == [(3, "earthsr info X"), (6, "earthsr train C '#1'")]
    console = Block("d.md", 1, "console", "$ earthsr doctor\npython 3.11\n")
    assert [c.text for c in commands(console)] == ["earthsr doctor"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("earthsr tran C", "unknown verb tran"),
        ("earthsr train C --epochs 3", "unknown option --epochs"),
        ("earthsr train … --epochs 3", "unknown option --epochs"),
        ("earthsr sample", "no verb"),
        ("earthsr predict MODEL", "Missing argument"),
        ("earthsr bench C --steps few", "--steps"),
        ("torchrun --nproc-per-node 2 $(which earthsr) train C --resum", "unknown option --resum"),
        ("earthsr predict m i o --bbox 5,45,11,48 --dry-run && earthsr doctor --json", None),
        ("earthsr train … --resume", None),
        ("earthsr --version", None),
    ],
)
def test_what_is_wrong_with_a_command_is_seen(text, words):
    found = next(filter(None, map(fault, calls(text))), None)
    assert found is None if words is None else found is not None and words in found, found


def test_languages_are_known():
    """A block whose language is none of these would be neither run nor looked at."""
    for document in documents():
        for block in blocks(document):
            assert block.language in (*TYPED, *SHOWN), f"{block}: {block.language!r} is neither TYPED nor SHOWN"


def test_texts_of_files_are_tried_elsewhere():
    """A block with a title is a file that a reader writes; a test of its own has to write and use it."""
    found = {document for document in documents() for block in blocks(document) if block.title}
    assert found <= set(WRITTEN), f"{found - set(WRITTEN)}: blocks with titles that no test writes"
    for test in WRITTEN.values():
        assert (REPOSITORY / test).is_file()


def test_every_command_is_accounted_for():
    for command in all_commands():
        assert account_of(command) is not None, (
            f"{command}\nis not accounted for: add a line to ACCOUNTS in tests/docs/accounts.py that runs it, runs "
            "something smaller, or checks what it names, and says why."
        )


def test_programs_that_are_not_run_call_what_is_there():
    for document in PROGRAMS:
        for block in typed(document, ("python",)):
            speaks(block)
    with pytest.raises(AssertionError, match="land has no stop"):
        speaks(Block("d.md", 1, "python", "from earthsr import Emulator\nland = Emulator.load('x')\nland.stop()\n"))


def test_every_verb_and_option_exists():
    for command in all_commands():
        for words in calls(command.text):
            assert fault(words) is None, f"{command}\n{fault(words)}"


def test_every_verb_and_option_in_running_text_exists():
    """Commands between backticks in the text name verbs and options that are there."""
    for document in documents():
        text = re.sub(r"^ *```.*?^ *```", "", (REPOSITORY / document).read_text("utf-8"), flags=re.M | re.S)
        for span in re.findall(r"(?<!`)`(earthsr [a-z][^`]*)`", text):
            words = " ".join(span.split())
            for alternative in re.sub(r"[\[\]]", " ", words).split("|")[:1]:
                found = fault([*alternative.split()[1:], "…"])
                assert found is None or "VERB" in words, f"{document}: {words}\n{found}"


def test_yaml_that_is_shown_is_configuration():
    for document in documents():
        for block in blocks(document):
            if block.language == "yaml":
                values = yaml.safe_load(block.text)
                if isinstance(values, dict) and set(values) <= set(Config.model_fields):
                    from_mapping(values, source=str(block))


def test_an_account_that_no_longer_fits_is_noticed():
    """An account with a reason that fits no command is left over from one that was removed."""
    used = {id(account_of(command)) for command in all_commands()}
    left = [account.begins for account in ACCOUNTS if account.why and id(account) not in used]
    assert not left, f"tests/docs/accounts.py: nothing begins with {', '.join(left)}"


# ---------------------------------------------------------------------------------------------- what is run


@pytest.fixture(scope="module", autouse=True)
def one_world():
    """Four documents begin with the same synthetic world; it is grown for the first of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("earthsr.samples.landuse.SyntheticWorld", functools.lru_cache(maxsize=1)(SyntheticWorld))
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("template") / "earthsr")


def script_of(block):
    """The shell script of a block: what the accounts run for its commands, each one shown before it is run."""
    lines = ["set -euo pipefail"]
    for command in commands(block):
        for text in account_of(command).script(command).splitlines():
            lines += [f"echo {quoted(f'[{command.document}:{command.line}] {text}')} >&2", with_backend(text)]
    return "\n".join(lines)


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def with_backend(text):
    """Name a backend where the document does not and both are installed: there a reader has to choose."""
    found = calls(text)
    alone = len(found) == 1 and takes(found[0], "--backend") and not takes(found[0], "--backends")
    if not alone or "--backend" in found[0] or found[0][-1:] == ["--help"]:
        return text
    # The suffix of an exported model says what runs it, and where one backend alone writes such, what writes it.
    said = (".mindir",) if found[0][0] == "export" else (".mindir", ".onnx")
    if any(word.endswith(said) for word in found[0]):
        return text
    return f"{text} --backend torch"


@pytest.mark.slow
@pytest.mark.skipif(not all(map(installed, BACKENDS)), reason="the documents use both backends")
@pytest.mark.parametrize("document", [name for name in documents() if typed(name)])
def test_the_commands_of(document, template, tmp_path):
    place = tmp_path / "earthsr"
    shutil.copytree(template, place)
    for block in typed(document):
        if block.language == "python":
            if document in PROGRAMS:
                continue
            script = block.text
        else:
            for command in commands(block):
                if account_of(command).check is not None:
                    account_of(command).check(command.text)
            script = script_of(block)
        seconds = SECONDS * max(1, script.count("\n"))
        try:
            if block.language == "python":
                words = [sys.executable, "-"]
                done = subprocess.run(words, input=script, cwd=place, env=environment(), **TEXT, timeout=seconds)
            else:
                done = run_script(script, place, environment(), seconds)
        except subprocess.TimeoutExpired as error:
            pytest.fail(f"{block}: took more than {error.timeout:.0f} s\n{script}\n{HELP}")
        assert done.returncode == 0, f"{block}: exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{HELP}"
