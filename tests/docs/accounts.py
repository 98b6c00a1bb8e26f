"""What becomes of the commands of the documents when the test reads them: the table to extend when one is added.

A command is run as it stands, in a copy of the repository with smaller configurations and with made archives under the
names that the documents use (``workplace.py``). Where it cannot be, a line here says why, and what is done instead:
other words that still show that the command works, or a check of what it names.
"""

import ast
import inspect
import itertools
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.conftest import REPOSITORY
from tests.docs.words import calls, fault


@dataclass(frozen=True)
class Account:
    """What is done with the commands that begin so; the first account that fits a command is its own."""

    begins: str
    """Regular expression."""
    why: str = ""
    """Why the command is not run as it stands; empty where it is."""
    replaced: dict[str, str] = field(default_factory=dict)
    """Parts of the command, regular expressions, and what is run in their place."""
    added: str = ""
    """Words that are added to the command that is run."""
    first: str = ""
    """A command that is run before it, where the document takes for granted what it makes."""
    check: Callable[[str], None] | None = None
    """Called with the command's words, in place of running them."""
    document: str = ""
    """The only document where this holds, by the end of its path; any where empty."""

    def fits(self, command):
        """Whether this is the account of a command."""
        return command.document.endswith(self.document) and re.match(self.begins, command.text) is not None

    def script(self, command):
        """What is run for a command: nothing where it is checked."""
        if self.check is not None:
            return ""
        text = command.text
        for part, instead in self.replaced.items():
            text, times = re.subn(part, lambda _, instead=instead: instead, text)
            assert times, f"{command}: tests/docs/accounts.py replaces {part!r}, which no longer stands there"
        return "\n".join(filter(None, (self.first, f"{text} {self.added}".strip())))


def installs(text):
    """The constraint file and the extras of ``pip install`` are there."""
    words = shlex.split(text)
    for flag, value in itertools.pairwise(words):
        if flag in ("--constraint", "-c"):
            assert (REPOSITORY / value).is_file(), f"{text}: there is no constraint file {value}"
    named = {extra for word in words for group in re.findall(r"\[(.*)\]", word) for extra in group.split(",")}
    assert named <= set(extras()), f"{text}: pyproject.toml has the extras {', '.join(extras())}"


def names_the_example(text):
    """The files of examples/sst that a command names are there."""
    named = re.findall(r"examples/sst/\S+", text)
    named += [f"examples/sst/{name.replace('.', '/')}.py" for name in re.findall(r"-m (earthsr_sst\.\w+)", text)]
    assert named, text
    for name in named:
        assert (REPOSITORY / name).is_file(), f"{text}: there is no {name}"


def extras():
    """Extras of the package."""
    return sorted(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def makes(text):
    """Make knows the targets, and what it would run are commands that exist."""
    done = subprocess.run([*shlex.split(text), "--dry-run"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}: {done.stderr}"
    for line in done.stdout.splitlines():
        parses(line.replace("/bin/earthsr ", "/bin/ earthsr "))


def parses(text):
    """The verb and options of each ``earthsr`` in the command exist."""
    for words in calls(text):
        assert fault(words) is None, f"{text}: {fault(words)}"


def script_is_there(text):
    """The script that a scheduler is given exists and is one."""
    script = next(word for word in shlex.split(text) if word.endswith(".sbatch"))
    subprocess.run(["bash", "-n", REPOSITORY / script], check=True)


def knows(text):
    """The help of a script of Python names all options of the command."""
    words = shlex.split(text)
    verb = words[2:3] if not words[2].startswith("-") else []
    command = [sys.executable, words[1], *verb, "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for word in words:
        assert not word.startswith("--") or re.search(rf"{word}\b", done.stdout), f"{text}: {words[1]} has no {word}"


SLURM = "there is no SLURM here; tests/tools/test_slurm_scripts.py runs the scripts with stand-ins for it"
FRESH = "continuous integration does it in a fresh clone; a test that installs packages would need their source"
SST = "tests/examples installs the workload and runs it"
HOSTS = "tests/landuse/emulator builds and runs them; compilers need not be there"
OTHERS = "tests/contributing runs the worked examples with their files"
#: Three blocks of one tile each, six years on both sides of the anchor, and rasters for earthsr reconstruct.
SMALL_WORLD = "--rows 128 --columns 960 --years 1984:1999 --archives --overwrite"
STATICS = " ".join(f"--static {name}=static.nc" for name in ("slope", "soil", "distance_to_water", "latitude"))
ROLLOUT = (
    "../../landuse-demo --backend torch --anchor 1989=landuse_1989.tif --years 1989:1991 "
    "--scenario scenario_historical.nc --scenario scenario_future.nc "
    f"--static elevation=static.nc {STATICS} --output parts.zarr"
)
#: A quarter of a square degree in place of eighteen.
BOX = {"--bbox 5,45,11,48": "--bbox 8,46.5,8.5,47"}
#: About a twelfth of the patches of the sample terrain.
FEW_PATCHES = "--stride 8"

ACCOUNTS = [
    # Setting up a machine.
    Account(r"python3\.11 -m venv", FRESH, check=lambda text: None),
    Account(r"pip install --editable earthsr-numpy", OTHERS, check=installs, document="CONTRIBUTING.md"),
    Account(r"python -m earthsr_sst\.sample", SST, check=names_the_example),
    Account(r"earthsr (train|parity) examples/sst", SST, check=names_the_example),
    Account(r"pip install", FRESH, check=installs),
    Account(
        r"make -C examples/|examples/fortran/land |python examples/write_fractions", HOSTS, check=lambda text: None
    ),
    Account(r"python -m earthsr\.emulator\.c_library", HOSTS, check=lambda text: None),
    Account(r"make ", FRESH, check=makes),
    Account(r"\. \.venv-test/bin/activate|python -m pytest", FRESH, check=lambda text: None),
    # Launchers and schedulers.
    Account(
        r"earthsr reconstruct … --workers 2",
        "the document leaves out the words of its first command",
        replaced={"…": ROLLOUT},
        first="cd runs/landuse-data/archives",
    ),
    Account(
        r"torchrun .* train CONFIG",
        "README.md starts a training so; tests/training/distributed goes on with one",
        check=parses,
    ),
    Account(r"torchrun "),
    Account(
        r"msrun ",
        "minutes on a processor; tests/training/distributed starts msrun",
        check=parses,
    ),
    Account(r"srun |sbatch tools/slurm/reconstruct", SLURM, check=parses),
    Account(r"sbatch ", SLURM, check=script_is_there),
    Account(r"earthsr reconstruct …", "the document leaves out the words, and means a cluster", check=parses),
    # Smaller than written.
    Account(r"earthsr sample dem", "what is learnt from all its patches is no matter here", added=FEW_PATCHES),
    Account(r"earthsr sample landuse", "the whole world takes a quarter of a minute", added=SMALL_WORLD),
    Account(
        r"earthsr reconstruct runs/landuse-demo",
        "the document leaves out words, and names archives by their names alone",
        replaced={"runs/landuse-demo": "../../landuse-demo", "…": STATICS},
        first="cd runs/landuse-data/archives",
        document="README.md",
    ),
    Account(
        r"earthsr predict dem-3s gebco.nc globe ",
        "the globe takes hours",
        replaced={
            r"--register \S+ ": "",  # made ground is not that of the made tiles
            r"--keep multibeam.tif ": "",
            r"--scheduler dask --workers 8": "--bbox 8.45,46.45,8.55,46.55",
        },
    ),
    Account(r"earthsr prepare landuse", "tiles of 256 cells would need large archives", added="--tile 64"),
    Account(r"earthsr predict .*--bbox 5,45,11,48", "eighteen square degrees take a minute", replaced=BOX),
    Account(
        r"earthsr parity configs/dem_srnet_demo\.yaml",
        "README.md has the same command",
        check=parses,
        document="docs/parity.md",
    ),
    Account(
        r"earthsr parity", "one step shows that it works; tests/check/parity says how near both come", added="--steps 1"
    ),
    Account(
        r"python tools/benchmark_dem\.py .*--list",
        "the document means folders of one's own",
        replaced={
            "--land DIR": "--land regions/land",
            "--more-land DIR": "--more-land regions/more",
            "--ocean DIR": "--ocean regions/ocean",
        },
    ),
    Account(r"jupyter ", FRESH, check=lambda text: None),
    Account(r"python tools/notebooks\.py", "minutes each; tests/tutorials executes the notebooks", check=knows),
    Account(
        r"earthsr export runs/demo model\.onnx",
        "the document takes a run for granted",
        first=f"earthsr sample dem runs/demo-data {FEW_PATCHES}\n"
        "earthsr train configs/dem_srnet_demo.yaml --backend torch",
        document="docs/export.md",
    ),
    Account(r"earthsr evaluate model\.onnx", "data of one's own", replaced={"data/": "runs/demo-data"}),
    Account(r"earthsr reconstruct model\.onnx .*…", "the document leaves out the words", check=parses),
    Account(r"python tools/make_pretrained\.py", "trains for half an hour, on folders of one's own", check=knows),
    Account(r"python tools/train_products\.py", "trains for an hour, on folders of one's own", check=knows),
    Account(r"earthsr info FILE", "FILE is any", replaced={"FILE": "configs/dem_srnet_demo.yaml"}),
    Account(r"earthsr predict runs/demo dem\.", OTHERS, check=parses, document="CONTRIBUTING.md"),
    Account(r"earthsr predict dem-3s etopo1", "takes a quarter of an hour, and ETOPO1", check=parses),
    Account(r"tensorboard --logdir", "it serves until it is stopped", check=lambda text: None),
    # As they stand.
    Account(r"earthsr "),
    Account(r"tensorboard --inspect|mlflow experiments search|export MLFLOW_|for rate in|done$|grep best_valid"),
    Account(r"python -m cProfile|python -c \"import pstats"),
    Account(
        r"python examples/carbon\.py --output",
        "it learns a world of its own for a minute (tests/landuse/emulator lets it); here it takes one that is there",
        added="--checkpoint runs/landuse-demo --archives runs/landuse-data/archives --backend torch",
        document="README.md",
    ),
    Account(r"python examples/", "both backends are installed here", added="--backend torch"),
    Account(r"(rio|cd|mkdir) "),
]


#: Documents whose programs take objects of the reader's own for granted: what runs them, or makes the same calls.
PROGRAMS = {
    "docs/export.md": "tests/cli/test_export.py runs them with models and fields of its own",
    "docs/emulator.md": "tests/landuse/emulator makes these calls on a world of its own",
}


def speaks(block):
    """The program is one, what it imports is there, and what it makes of that has the methods that it calls."""
    tree = ast.parse(block.text)
    names = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), str(block), "exec"), names)
    made = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name):
            maker = node.value.func.value if isinstance(node.value.func, ast.Attribute) else node.value.func
            made[node.targets[0].id] = names.get(getattr(maker, "id", None))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = names.get(node.value.id, made.get(node.value.id))
            if inspect.isclass(owner):
                assert hasattr(owner, node.attr), f"{block}: {node.value.id} has no {node.attr}"


def account_of(command):
    """Return the account of a command; None where nobody accounted for it."""
    return next((account for account in ACCOUNTS if account.fits(command)), None)
