"""The site: built strictly, with every command, key and public name on it, and nothing from another machine."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urlparse

import pytest

from tests.conftest import REPOSITORY, watched
from tests.docs.public import public_names
from tools.docs import command_pages, configuration_page, notebook_pages, repository
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
    return (site / f"{place}.html").read_text(encoding="utf-8")


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


@pytest.mark.slow
def test_every_notebook_is_a_page_with_what_it_printed_and_drew(site):
    sources = notebook_pages.notebooks(REPOSITORY)
    assert {place.split("/")[1] == "zh" for place in sources} == {False, True}
    for place, source in sources.items():
        html = page(site, place.removesuffix(".md"))
        shown = notebook_pages.notebook_page(REPOSITORY, source)
        assert f'<html lang="{"zh" if "/zh/" in place else "en"}"' in html
        assert shown.title in html
        assert shown.pictures
        for name, picture in shown.pictures.items():
            assert (site / name).read_bytes() == picture
            assert f"_files/{name.rpartition('/')[2]}" in html
        assert html.count("output no-copy") == shown.text.count("{.text .output .no-copy}") > 0
        assert "%%bash" not in html
        assert not re.search(r"<img[^>]*data:", html)


class References(HTMLParser):
    """What a page refers to, and the anchors that it has."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.anchors = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        self.targets |= {given[key] for key in ("href", "src") if given.get(key)}


@pytest.mark.slow
def test_every_link_names_a_file_so_that_the_site_can_be_read_from_a_folder(site):
    pages = {path: References(path.read_text("utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    for path, page_references in pages.items():
        for target in page_references.targets:
            if urlparse(target).scheme:
                continue
            place, anchor = urldefrag(target)
            file = (path.parent / unquote(place)).resolve() if place else path
            assert file.is_file(), f"{path}: {target}"
            if anchor and file in pages:
                assert unquote(anchor) in pages[file].anchors | {"__codelineno"}, f"{path}: {target}"


ENTRIES = ".md-nav--primary a.md-nav__link"


@pytest.mark.slow
def test_every_entry_of_the_navigation_opens_from_a_folder(site, chromium):
    with watched(chromium) as view:
        view.goto((site / "index.html").as_uri())
        addresses = view.eval_on_selector_all(ENTRIES, "all => all.map(a => a.href).filter(h => !h.includes('#'))")
        titles = {}
        for address in dict.fromkeys(addresses):
            # By the script's click: some stand in a section that is closed.
            with view.expect_navigation(wait_until="domcontentloaded"):
                view.eval_on_selector_all(ENTRIES, "(all, h) => all.find(a => a.href === h).click()", address)
            assert view.url == address
            titles[view.title()] = view.locator("h1").first.inner_text().removesuffix("¶").strip()
    assert len(titles) == len(set(addresses)) > 50
    assert all(titles.values())
    assert titles["DEM super-resolution in five steps - earthsr"] == "DEM super-resolution in five steps"
    assert titles["五步完成 DEM 超分辨率 - earthsr"] == "五步完成 DEM 超分辨率"


@pytest.mark.slow
def test_the_search_finds_a_page_from_a_folder(site, chromium):
    with watched(chromium) as view:
        view.goto((site / "dem.html").as_uri())
        view.click(".md-search__input")
        view.keyboard.type("multibeam")
        view.wait_for_selector(".md-search-result__item a", state="attached")
        places = view.eval_on_selector_all(".md-search-result__item a", "all => all.map(a => a.href)")
        assert places
        view.goto(places[0])
        assert "multibeam" in view.inner_text("article").lower()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_reads_every_kind_of_page(site, chromium, scheme):
    with watched(chromium, 390, 844, scheme) as view:
        for place in ("index", "dem", "tutorials/zh/land_use", "reference/plain", "reference/commands/predict"):
            view.goto((site / f"{place}.html").as_uri())
            assert view.evaluate("document.documentElement.scrollWidth") <= 390, place
            paper = view.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (min(map(int, re.findall(r"\d+", paper)[:3])) > 200) == (scheme == "light"), (place, paper)
        view.goto((site / "index.html").as_uri())
        view.click("label.md-header__button[for=__drawer]")
        view.click(".md-nav--primary label.md-nav__link:has-text('Beginning')")
        view.click(".md-nav--primary a[href$='alternatives.html']")
        view.wait_for_url("**/alternatives.html")


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
    # A notebook is a page.
    text = "[a](../tutorials/zh/dem_sr.ipynb)"
    assert repository.site_links(text, "docs/dem.md", "dem.md", REPOSITORY) == "[a](tutorials/zh/dem_sr.md)"


def test_help_is_shown_as_it_stands():
    assert plain("a *b* <c> [d] e_f ``g_h``") == r"a \*b\* &lt;c&gt; \[d\] e\_f `g_h`"


def test_a_key_without_a_description_is_refused():
    from pydantic.fields import FieldInfo

    with pytest.raises(ValueError, match=r"train\.odd: its field has no description"):
        configuration_page._row("odd", "train.odd", FieldInfo(annotation=int, default=1))
