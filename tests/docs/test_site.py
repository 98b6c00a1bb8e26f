"""The site: built strictly, with every command, key and public name on it, and nothing from another machine."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.docs.public import public_names
from tools.docs import command_pages, configuration_page, repository
from tools.docs.markdown import plain

pytest.importorskip("mkdocs")


def build(config, target):
    """Run MkDocs as ``mkdocs build --strict`` does."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config, "--site-dir", target],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        # Not a warning of this site: an announcement of its theme.
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    done = build(REPOSITORY / "mkdocs.yml", target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def page(site, place):
    return (site / place / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_command_has_a_page_with_its_options(site):
    for verb, command in command_pages.verbs().items():
        html = page(site, f"reference/commands/{verb}")
        for name, each in command_pages.leaves(verb, command):
            assert f"earthsr {name}" in html
            for parameter in each.params:
                # An option of earlier days answers what to say instead, and is in no page.
                if getattr(parameter, "hidden", False):
                    continue
                for option in (*parameter.opts, *parameter.secondary_opts):
                    assert not option.startswith("--") or option in html, f"earthsr {name} {option}"


@pytest.mark.slow
def test_every_key_of_the_configuration_is_there(site):
    html = page(site, "reference/configuration")
    for section, model in configuration_page.sections().items():
        for key, anchor in configuration_page.anchors(section, model).items():
            assert f'id="{anchor}"' in html, f"{section}.{key}"
    assert 'id="backend"' in html


@pytest.mark.slow
def test_every_public_name_has_an_anchor(site):
    pages = "".join(each.read_text("utf-8") for each in (site / "reference").rglob("*.html"))
    anchors = set(re.findall(r'id="(earthsr\.[\w.]+)"', pages))
    # An object with two public names has one anchor, by the name that its page gives it.
    for name, value in public_names().items():
        names = {name, *(other for other, same in public_names().items() if callable(value) and same is value)}
        assert anchors & names, name


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(site):
    for path in site.rglob("*.html"):
        html = path.read_text("utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe|source|video)\b[^>]*>", html):
            assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag), f"{path}: {tag}"
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text("utf-8")), path


@pytest.mark.slow
def test_roles_of_docstrings_are_links_or_names(site):
    """A role that is left as it stands would be shown with its colons."""
    for path in (site / "reference").rglob("*.html"):
        assert not re.search(r":(?:class|func|meth|mod|data|attr):", path.read_text("utf-8")), path


#: Pages that lead nowhere, and what a strict build has to say of each.
NOWHERE = {
    "page": ("[gone](gone.md)", "gone.md"),
    "anchor": ("[gone](index.md#gone)", "#gone"),
    "file": ("[gone](../configs/gone.yaml)", "gone.yaml"),
    "name": ("[gone][earthsr.lost]", "earthsr.lost"),
}


def build_of(folder, pages):
    """Build pages with this site's settings, less what hooks add: its links lead to pages that are not here."""
    docs = folder / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# Home\n", encoding="utf-8")
    for name, text in pages.items():
        (docs / f"{name}.md").write_text(f"# {name}\n\n{text}\n", encoding="utf-8")
    settings = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    nav = ", ".join(["index.md", *(f"{name}.md" for name in pages)])
    settings = re.sub(r"^nav:\n(?:  .*\n)+", f"nav: [{nav}]\n", settings, flags=re.M)
    settings = settings.replace("docs_dir: docs", f"docs_dir: {docs}").replace("tools/", f"{REPOSITORY}/tools/")
    settings = settings.replace("paths: [., backends]", f"paths: [{REPOSITORY}]")
    settings = re.sub(r"^hooks:\n(?:  .*\n)+", "", settings, flags=re.M)
    (folder / "mkdocs.yml").write_text(settings, encoding="utf-8")
    return build(folder / "mkdocs.yml", folder / "site")


@pytest.mark.slow
def test_what_leads_nowhere_fails_the_build(tmp_path):
    """All of it is said in one build: a page with each."""
    done = build_of(tmp_path, {name: text for name, (text, _) in NOWHERE.items()})
    assert done.returncode != 0
    warned = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("WARNING")]
    for name, (_, words) in NOWHERE.items():
        assert any(words in line and f"{name}.md" in line for line in warned), (name, warned)


@pytest.mark.slow
def test_a_reference_to_a_name_that_is_gone_ends_the_build(tmp_path):
    done = build_of(tmp_path, {"reference": "::: earthsr.gone"})
    assert done.returncode != 0
    assert "earthsr.gone" in done.stdout + done.stderr, done.stdout + done.stderr


def test_links_of_a_page_point_at_what_travels_with_the_site():
    text = "[a](../configs/dem_srnet.yaml) [b](dem.md#top) [c](../CHANGELOG.md) [d](https://example.org) [e](../gone)\n"
    text += "```sh\n[f](../configs/dem_srnet.yaml)\n```\n"
    found = repository.site_links(text, "docs/parity.md", "parity.md", REPOSITORY)
    assert found.splitlines()[0] == (
        "[a](repository/configs/dem_srnet.yaml) [b](dem.md#top) [c](changelog.md) [d](https://example.org) [e](../gone)"
    )
    assert found.splitlines()[2] == "[f](../configs/dem_srnet.yaml)"
    assert repository.linked_files(text, "docs/parity.md", REPOSITORY) == {"configs/dem_srnet.yaml"}
    deeper = repository.site_links(
        "[a](dem.md) [b](../../setup.py)", "docs/reference/x.md", "reference/x.md", REPOSITORY
    )
    assert deeper == "[a](dem.md) [b](../repository/setup.py)"


def test_help_is_shown_as_it_stands():
    assert plain("a *b* <c> [d] e_f ``g_h``") == r"a \*b\* &lt;c&gt; \[d\] e\_f `g_h`"


def test_a_key_without_a_description_is_refused():
    from pydantic.fields import FieldInfo

    with pytest.raises(ValueError, match=r"train\.odd: its field has no description"):
        configuration_page._row("odd", "train.odd", FieldInfo(annotation=int, default=1))
