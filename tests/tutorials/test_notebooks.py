"""Notebooks: committed ones follow from their sources in both languages, and the sources run on both frameworks."""

import itertools
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from earthsr.backend import available_backends
from tests.conftest import CONFIGS, REPOSITORY, installed
from tools.notebook_parts.build import build, execute, printed, renew_texts
from tools.notebook_parts.check import problems, shows
from tools.notebook_parts.source import (
    LANGUAGES,
    Code,
    NotebookError,
    Text,
    compose,
    names,
    parameters_replaced,
    place,
    read_source,
)

TUTORIALS = REPOSITORY / "tutorials"
NAMES = ("dem_sr", "land_use", "own_data", "switch_backend")

SMALL = """\
# %% [markdown] lang="en"
# # A title

# %% [markdown] lang="zh"
# # 标题，
# 分成两行

# %%
backend = "torch"
quick = False

# %%
import matplotlib.pyplot as plt

import earthsr

print("computed with", backend)
earthsr.create_logger().info("a line of a log")
plt.plot([1, 2, 3])
plt.title("A line")
plt.show()

# %% [raw] lang="zh"
# A line -> Une ligne
# + plt.close("all")
"""


@pytest.fixture
def copy(tmp_path):
    """A notebook and its source, to be broken."""
    for path in (TUTORIALS / "src" / "dem_sr.py", *(place(TUTORIALS, "dem_sr", each) for each in LANGUAGES)):
        target = tmp_path / path.relative_to(TUTORIALS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert problems(tmp_path, "dem_sr") == []
    return tmp_path


def changed(folder, language, change):
    """Change the notebook of a language; ``change`` gets its cells."""
    path = place(folder, "dem_sr", language)
    notebook = nbformat.read(path, as_version=4)
    change(notebook.cells)
    nbformat.write(notebook, path)


def code_cells(cells):
    return [cell for cell in cells if cell.cell_type == "code"]


def with_stream(text):
    def change(cells):
        shown = next(cell for cell in code_cells(cells) if cell.outputs)
        shown.outputs.insert(0, nbformat.v4.new_output("stream", name="stdout", text=text))

    return change


# What is committed


def test_there_is_a_source_for_every_notebook_and_none_beside():
    assert tuple(names(TUTORIALS)) == NAMES
    for folder in LANGUAGES.values():
        assert sorted(path.stem for path in (TUTORIALS / folder).glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_is_in_step_in_both_languages(name):
    assert problems(TUTORIALS, name) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_text_has_chinese_of_its_own(name):
    for cell in read_source(TUTORIALS / "src" / f"{name}.py"):
        if isinstance(cell, Text):
            # Names and numbers aside, Chinese is Chinese, and English has none beside the link to the other page.
            assert re.search(r"[\u4e00-\u9fff]{2}", cell.words["zh"].replace("[English]", "")), cell.words["zh"]
            assert not re.search(r"[\u4e00-\u9fff]", cell.words["en"].replace("[中文]", "")), cell.words["en"]
            assert cell.words["en"].count("`") == cell.words["zh"].count("`"), cell.words["zh"]


@pytest.mark.parametrize("name", NAMES)
def test_one_line_names_the_framework_and_one_the_size(name):
    cells = read_source(TUTORIALS / "src" / f"{name}.py")
    made = parameters_replaced(cells, backend="mindspore", quick=True)
    before, after = ("\n".join(c.source for c in each if isinstance(c, Code)).split("\n") for each in (cells, made))
    differ = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert differ == [('backend = "torch"', 'backend = "mindspore"'), ("quick = False", "quick = True")]


def test_the_table_names_every_notebook():
    text = (TUTORIALS / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"({name}.ipynb)" in text
        assert f"(zh/{name}.ipynb)" in text


def test_links_between_notebooks_lead_somewhere():
    for name, (_, folder) in itertools.product(NAMES, LANGUAGES.items()):
        path = TUTORIALS / folder / f"{name}.ipynb"
        texts = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
        for target in re.findall(r"\]\(([^)]+\.ipynb)\)", "\n".join(texts)):
            assert (path.parent / target).is_file(), f"{path}: {target}"


# What is found


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda cells: code_cells(cells)[1].update(source="print('other')"), "is not what the source has"),
        (lambda cells: cells[0].update(source="# Another title"), "is not what the source has"),
        (lambda cells: cells.pop(), "the source has"),
        (lambda cells: code_cells(cells)[-1].update(outputs=[]), "has no output, and its code shows something"),
        (lambda cells: code_cells(cells)[0].update(execution_count=None), "was executed as None, expected 1"),
        (
            lambda cells: code_cells(cells)[0].outputs.append(
                nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
            ),
            "ended with ValueError: no",
        ),
        (with_stream("wrote /srv/someone/file.tif"), "shows an absolute path"),
        (with_stream("train:  50%|####\r"), "shows a carriage return"),
        (with_stream("x.py:3: UserWarning: careful"), "shows a warning"),
        (with_stream("12:34:56 epoch 1"), "shows a time of day"),
        (with_stream("<object at 0x7f00aa11bb22>"), "shows an address in memory"),
        (with_stream("\x1b[31mred\x1b[0m"), "shows an escape sequence"),
        (with_stream("x" * 600_000), "bytes, expected at most 600,000"),
    ],
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_wrong_with_a_notebook_is_found(copy, language, change, found):
    changed(copy, language, change)
    listed = problems(copy, "dem_sr")
    assert any(found in line and str(place(copy, "dem_sr", language)) in line for line in listed), listed


def test_outputs_that_differ_between_languages_are_found(copy):
    changed(copy, "zh", with_stream("another number"))
    assert problems(copy, "dem_sr") == ["dem_sr: the languages' outputs differ; build it, which executes once for both"]


def test_a_missing_notebook_is_found(copy):
    place(copy, "dem_sr", "zh").unlink()
    assert [line for line in problems(copy, "dem_sr") if "cannot be read" in line and "zh" in line]


@pytest.mark.parametrize(
    ("pattern", "instead", "found"),
    [
        # The first Chinese text goes, so that code follows the English one; then the last one, so that nothing does.
        (r'# %% \[markdown\] lang="zh"\n(#.*\n)+', "", "lacks zh"),
        (r'(?s)# %% \[markdown\] lang="zh"(?!.*lang="zh").*', "", "lacks zh"),
        (r'lang="zh"', "", "has no lang"),
        (r'lang="en"', 'lang="zh"', 'has lang="zh", expected lang="en"'),
        (r"epochs\"\] = 4", 'epochs"] = 5', "is not what the source has"),
    ],
)
def test_what_is_wrong_with_a_source_is_found(copy, pattern, instead, found):
    source = copy / "src" / "dem_sr.py"
    text, count = re.subn(pattern, instead, source.read_text(encoding="utf-8"), count=1)
    assert count == 1
    source.write_text(text, encoding="utf-8")
    assert any(found in line for line in problems(copy, "dem_sr")), problems(copy, "dem_sr")


def test_new_texts_keep_the_outputs_and_new_code_does_not(copy):
    source = copy / "src" / "dem_sr.py"
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace("# # DEM super-resolution in five steps", "# # Another title"), encoding="utf-8")
    assert problems(copy, "dem_sr")
    before = nbformat.read(place(copy, "dem_sr", "zh"), as_version=4)
    renew_texts(copy, "dem_sr")
    assert problems(copy, "dem_sr") == []
    assert nbformat.read(place(copy, "dem_sr", "zh"), as_version=4) == before
    source.write_text(text.replace("loss_fn = MSELoss()", "loss_fn = L1Loss()"), encoding="utf-8")
    with pytest.raises(NotebookError, match="its code has changed since it was executed"):
        renew_texts(copy, "dem_sr")


def test_the_command_ends_with_1_where_something_is_wrong(copy):
    command = [sys.executable, str(REPOSITORY / "tools" / "notebooks.py"), "check", "--folder", str(copy)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    changed(copy, "zh", lambda cells: cells[0].update(source="# 另一个标题"))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is not what the source has" in done.stdout


# How notebooks are made


def test_parameters_are_replaced_where_they_stand_once():
    cells = [Code('backend = "torch"\nother = backend'), Code("x = 1")]
    assert parameters_replaced(cells, backend="mindspore")[0].source == 'backend = "mindspore"\nother = backend'
    with pytest.raises(NotebookError, match="'quick = …' is there 0 times"):
        parameters_replaced(cells, quick=True)
    with pytest.raises(NotebookError, match="'backend = …' is there 2 times"):
        parameters_replaced([*cells, Code('backend = "torch"')], backend="mindspore")


DRAWS = '# %%\nprint("two words", 1, {"key": 2}["key"])\n'


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ("three words -> 三个词", "is not 'words of the cell before -> their Chinese'"),
        ("two words 三个词", "is not 'words of the cell before -> their Chinese'"),
        (", 1 -> , 2", "change more than strings of the code"),
        ("key -> 键", "change more than strings of the code"),
    ],
)
def test_labels_change_words_and_nothing_else(tmp_path, labels, note):
    source = tmp_path / "src" / "small.py"
    source.parent.mkdir()
    source.write_text(f'{DRAWS}\n# %% [raw] lang="zh"\n# {labels}\n', encoding="utf-8")
    with pytest.raises(NotebookError, match=re.escape(note)):
        read_source(source)


def test_labels_belong_to_the_cell_before_them(tmp_path):
    source = tmp_path / "small.py"
    source.write_text(f'{DRAWS}\n# %% [raw] lang="zh"\n# two words -> 两个词\n', encoding="utf-8")
    (cell,) = read_source(source)
    assert (cell.of("en"), cell.of("zh")) == (
        'print("two words", 1, {"key": 2}["key"])',
        'print("两个词", 1, {"key": 2}["key"])',
    )
    source.write_text('# %% [raw] lang="zh"\n# two words -> 两个词\n', encoding="utf-8")
    with pytest.raises(NotebookError, match="have to follow a code cell"):
        read_source(source)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_that_a_notebook_draws_has_chinese_labels(name):
    draws = re.compile(r"set_title|set_.label|plt\.title|plt_dem_data\(|title=")
    cells = [cell for cell in read_source(TUTORIALS / "src" / f"{name}.py") if isinstance(cell, Code)]
    drawing = [cell for cell in cells if draws.search(cell.source)]
    assert drawing
    for cell in drawing:
        assert re.search(r"[\u4e00-\u9fff]", cell.chinese), cell.source


def test_a_line_break_within_chinese_is_no_gap():
    words = {"en": "one\ntwo", "zh": "# 标题\n\n先读取\n数据，\n`再`训练。\n\n- 第一\n  点；\n- 第二点。\n1. 第三点"}
    made = {language: compose("any", [Text(words)], language).cells[0].source for language in LANGUAGES}
    assert made == {"en": "one\ntwo", "zh": "# 标题\n\n先读取数据，`再`训练。\n\n- 第一点；\n- 第二点。\n1. 第三点"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print(1)", True),
        ("%%bash\necho", True),
        ("for i in x:\n    plt.show()", True),
        ("def f():\n    print(1)", False),
        ("x = 1", False),
        ("trainer.train()", False),
        ("x", True),
    ],
)
def test_what_shows_something(code, expected):
    assert shows(code) is expected


def test_one_framework_alone_is_told_what_is_missing(monkeypatch):
    known = available_backends()

    class Absent(known["mindspore"]):
        framework = "a_framework_that_is_not_here"

    cells = [cell.source for cell in read_source(TUTORIALS / "src" / "switch_backend.py") if isinstance(cell, Code)]
    monkeypatch.setattr("earthsr.backend.available_backends", lambda: {**known, "mindspore": Absent})
    with pytest.raises(SystemExit, match=r"(?s)mindspore is not installed.*pip install.*--record FILE"):
        exec("\n".join(cells[:2]), {})


@pytest.mark.slow
def test_building_executes_once_for_both_and_again_changes_nothing(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "small.py").write_text(SMALL, encoding="utf-8")
    build(tmp_path, "small", CONFIGS)
    assert problems(tmp_path, "small") == []
    first = {language: place(tmp_path, "small", language).read_bytes() for language in LANGUAGES}
    english, chinese = (nbformat.reads(first[language].decode(), as_version=4) for language in LANGUAGES)
    # The second cell draws: with labels of its own in each notebook, from one execution (any letters do for the test).
    drawn, labelled = (code_cells(notebook.cells)[1] for notebook in (english, chinese))
    assert [cell.execution_count for cell in code_cells(chinese.cells)] == [1, 2]
    assert ("A line" in drawn.source, "Une ligne" in labelled.source) == (True, True)
    assert drawn.outputs[1]["data"]["image/png"] != labelled.outputs[1]["data"]["image/png"]
    assert labelled.source == drawn.source.replace("A line", "Une ligne") + '\nplt.close("all")'
    assert chinese.cells[0].source == "# 标题，分成两行"
    # On standard output, without its time of day: Jupyter draws standard error on red.
    assert code_cells(english.cells)[1].outputs[0] == {
        "output_type": "stream", "name": "stdout", "text": "computed with torch\na line of a log\n"
    }  # fmt: skip
    assert english.metadata["kernelspec"]["name"] == "python3"
    build(tmp_path, "small", CONFIGS)
    assert first == {language: place(tmp_path, "small", language).read_bytes() for language in LANGUAGES}

    (tmp_path / "src" / "small.py").write_text(SMALL + "\n# %%\nraise ValueError('stop')\n", encoding="utf-8")
    with pytest.raises(NotebookError, match="ValueError"):
        build(tmp_path, "small", CONFIGS)
    assert first == {language: place(tmp_path, "small", language).read_bytes() for language in LANGUAGES}


# What the notebooks find: small on both frameworks


def executed(name, backend, quick=True, smaller=()):
    if name == "switch_backend":
        absent = [each for each in ("torch", "mindspore") if not installed(each)]
        if absent:
            pytest.skip(f"needs both frameworks; {absent[0]} is not installed")
    elif not installed(backend):
        pytest.skip(f"backend {backend} is not installed")
    values = {"backend": backend, "quick": quick}
    cells = parameters_replaced(read_source(TUTORIALS / "src" / f"{name}.py"), **values)
    for part, instead in smaller:
        (where,) = (i for i, cell in enumerate(cells) if isinstance(cell, Code) and part in cell.source)
        cells[where] = Code(cells[where].source.replace(part, instead))
    before = sorted(path.name for path in TUTORIALS.iterdir())
    notebook, _ = execute(name, cells, CONFIGS)
    assert sorted(path.name for path in TUTORIALS.iterdir()) == before
    assert any("image/png" in output.get("data", {}) for cell in code_cells(notebook.cells) for output in cell.outputs)
    return "\n".join(printed(notebook))


def number(pattern, text):
    found = re.search(pattern, text)
    assert found, f"nothing like {pattern} in:\n{text}"
    return float(found[1])


backends = pytest.mark.parametrize("backend", ["torch", "mindspore"])


#: A network that learns more than block means would give in a sixth of the time of the one that the pages show.
FAST_LEARNER = (
    ('"features"] = 16 if quick else 64', '"features"] = 32'),
    ('"num_blocks"] = 2 if quick else 8', '"num_blocks"] = 4'),
    ("stride=8 if quick else 3", "stride=4"),
)


@pytest.mark.slow
@backends
def test_dem_sr(backend):
    smaller = FAST_LEARNER if backend == "torch" else ()
    text = executed("dem_sr", backend, quick=not smaller, smaller=smaller)
    assert f"training on {backend}" in text
    assert "steps_per_epoch" in text
    model, bicubic = (number(rf"{name}: RMSE +([\d.]+) m", text) for name in ("model", "bicubic"))
    # It also learns more than keeping block means would give; the most reduced one just has to learn.
    assert model < bicubic
    assert not smaller or model < number(r"conservative: RMSE +([\d.]+) m", text)


@pytest.mark.slow
@backends
def test_land_use(backend):
    text = executed("land_use", backend)
    assert f"training on {backend}" in text
    merit = {name: number(rf" {name} .*? ([\d.]+)\n", text) for name in ("rollout", "persistence", "true_prior")}
    assert merit["persistence"] == 0
    assert merit["rollout"] > 0
    # With --match-areas areas are the scenario's, whatever the model: what is left are cells that touch the sea.
    assert number(r"areas ([\d.]+) % off", text) < 0.5


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_committed_land_use_notebook_shows_a_rollout_better_than_persistence(language):
    """It was executed in full; tests/cli/test_landuse_demo.py trains as long, and asks the same of today's code."""
    text = "\n".join(printed(nbformat.read(place(TUTORIALS, "land_use", language), as_version=4)))
    accuracy = {name: number(rf" {name} +[\d.]+ +([\d.]+)", text) for name in ("rollout", "persistence")}
    assert accuracy["rollout"] > accuracy["persistence"]
    merit = {name: number(rf" {name} .*? ([\d.]+)\n", text) for name in ("rollout", "true_prior")}
    assert 0 < merit["rollout"] < merit["true_prior"]


@pytest.mark.slow
@backends
def test_own_data(backend):
    text = executed("own_data", backend)
    assert f"training on {backend}" in text
    # Half a fine cell was put in; the fit's own standard error is about 0.001.
    assert number(r"lies ([\d.]+) ± [\d.]+ fine cells south", text) == pytest.approx(0.5, abs=0.02)
    assert number(r"; now ([\d.]+) ±", text) < 0.02
    # float32 heights of some 1,000 m have a spacing of 6e-5 m.
    assert number(r"conserved: largest ([\d.e-]+) m", text) < 1e-3
    assert number(r"RMSE ([\d.]+) m, [\d.]+ % below bicubic", text) > 0
    for kept in ("EPSG:4326 +EPSG:4326", "-32768.0 +-32768.0", " m +m\n", r"cells without value +40 +1000"):
        assert re.search(kept, text), kept


@pytest.mark.slow
def test_switch_backend():
    """From MindSpore to PyTorch; the other way it was executed when it was built, and tests/check/parity goes both."""
    text = executed("switch_backend", "mindspore")
    assert re.search(r"ended by SIGTERM after step \d+, on mindspore", text)
    assert "training on torch" in text
    # Rounding of float32 through some twenty steps; README promises 1e-4.
    assert number(r"largest relative difference of a loss: ([\d.e-]+)", text) < 1e-4
    assert re.search(r"all \d+ arrays agree", text)
