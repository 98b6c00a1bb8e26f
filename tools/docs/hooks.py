"""Hooks of MkDocs: generated pages, and what comes from the repository's root. ``mkdocs.yml`` names this file.

Nothing generated is written to ``docs/``: the pages live in memory while a site is built.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[2]
#: Page that lists the notebooks, and the folder of the Chinese ones' pages.
TUTORIALS = "tutorials/index.md"
CHINESE = "tutorials/zh/"
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

from tools.docs import command_pages, configuration_page, notebook_pages, repository  # noqa: E402


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put verbs and notebooks into the navigation, below their indexes; drop what the repository lacks."""
    absent = {page for source, page in repository.PAGES.items() if not (REPOSITORY / source).is_file()}
    entries = [entry for entry in config.nav or [] if not (isinstance(entry, dict) and absent & _pages(entry))]
    below = {f"{command_pages.FOLDER}/index.md": _verbs(), TUTORIALS: _notebooks()}
    config.nav = [_with_pages(entry, below) for entry in entries]
    return config


def _pages(entry: dict[str, Any]) -> set[Any]:
    """Pages that an entry of the navigation leads to by itself."""
    return {page for page in entry.values() if isinstance(page, str)}


def _verbs() -> list[Any]:
    return [{f"earthsr {name}": f"{command_pages.FOLDER}/{name}.md"} for name in command_pages.verbs()]


def _notebooks() -> list[Any]:
    """Entries of the notebooks by their titles: the English ones, then a section of the Chinese ones."""
    entries: dict[bool, list[Any]] = {False: [], True: []}
    for place, source in notebook_pages.notebooks(REPOSITORY).items():
        title = notebook_pages.notebook_page(REPOSITORY, source).title
        entries[place.startswith(CHINESE)].append({title: place})
    return entries[False] + ([{"中文": entries[True]}] if entries[True] else [])


def _with_pages(entry: Any, below: dict[str, list[Any]]) -> Any:
    """Return an entry of the navigation in which an index has its pages below it."""
    if not isinstance(entry, dict):
        return entry
    (title, inside), *_ = entry.items()
    if isinstance(inside, list):
        return {title: [_with_pages(page, below) for page in inside]}
    return {title: [inside, *below[inside]] if below.get(inside) else inside}


def generated_pages() -> dict[str, str]:
    """Markdown of all pages that are not in ``docs/``, by their place in the site."""
    pages = {configuration_page.PAGE: configuration_page.page()}
    pages[f"{command_pages.FOLDER}/index.md"] = command_pages.index_page()
    for name, command in command_pages.verbs().items():
        pages[f"{command_pages.FOLDER}/{name}.md"] = command_pages.verb_page(name, command)
    return pages | repository.root_pages(REPOSITORY)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add generated pages, and the files of the repository that pages link to."""
    linked: set[str] = set()
    for source in repository.PAGES:
        if (REPOSITORY / source).is_file():
            linked |= repository.linked_files((REPOSITORY / source).read_text("utf-8"), source, REPOSITORY)
    for file in files.documentation_pages():
        linked |= repository.linked_files(file.content_string, f"docs/{file.src_uri}", REPOSITORY)
    for place, text in generated_pages().items():
        files.append(File.generated(config, place, content=text))
    for place, source in notebook_pages.notebooks(REPOSITORY).items():
        page = notebook_pages.notebook_page(REPOSITORY, source)
        # The search knows no Chinese, and of these pages would find the code and the outputs of the English ones again.
        unsearched = "---\nsearch: {exclude: true}\n---\n" if place.startswith(CHINESE) else ""
        files.append(File.generated(config, place, content=unsearched + page.text))
        for name, picture in page.pictures.items():
            files.append(File.generated(config, name, content=picture))
        linked.add(source)
    for path in sorted(linked):
        files.append(File.generated(config, f"{repository.FOLDER}/{path}", abs_src_path=str(REPOSITORY / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave ``docs/`` at the files that travel with the site."""
    if page.file.generated_by:
        return markdown
    return repository.site_links(markdown, f"docs/{page.file.src_uri}", page.file.src_uri, REPOSITORY)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Say of Chinese pages that they are: it decides how a browser draws the letters and a reader speaks them."""
    return output.replace('<html lang="en"', '<html lang="zh"', 1) if page.file.src_uri.startswith(CHINESE) else output
