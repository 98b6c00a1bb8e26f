"""What the site takes from the repository beside ``docs/``: pages at its root, and files that pages link to.

A page may link to any file of the repository by the path that works on a forge's own pages, ``../configs/x.yaml``. The
file travels with the site, so that the link works there too, without a network and without knowing the forge.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

#: Files of the repository that are pages of the site: where they are, and what they are there.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/sst/README.md": "workload.md",
    "tutorials/README.md": "tutorials/index.md",
}
#: Where linked files lie in the site.
FOLDER = "repository"

#: Folder whose notebooks are pages of the same name.
NOTEBOOKS = "tutorials"

_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)


def root_pages(repository: Path) -> dict[str, str]:
    """Markdown of the repository's own pages by their place in the site, links rewritten."""
    pages = {source: page for source, page in PAGES.items() if (repository / source).is_file()}
    return {
        page: site_links((repository / source).read_text(encoding="utf-8"), source, page, repository)
        for source, page in pages.items()
    }


def linked_files(text: str, source: str, repository: Path) -> set[str]:
    """Files of the repository outside of ``docs/`` that the page ``source`` links to, as paths from its root."""
    targets = (_target(link.group(2), source) for part in _prose(text) for link in _LINK.finditer(part))
    return {path for path, _ in filter(None, targets) if _site_place(path) is None and (repository / path).is_file()}


def site_links(text: str, source: str, page: str, repository: Path) -> str:
    """Rewrite links of Markdown that lies at ``source`` in the repository and at ``page`` in the site.

    A link whose file is not there stays as it is: the build then says so.
    """

    def rewritten(link: re.Match[str]) -> str:
        target = _target(link.group(2), source)
        if target is None or not (repository / target[0]).exists():
            return link.group(0)
        path, anchor = target
        place = _site_place(path) or (f"{FOLDER}/{path}" if (repository / path).is_file() else None)
        if place is None:
            return link.group(0)
        return link.group(1) + posixpath.relpath(place, posixpath.dirname(page) or ".") + anchor + link.group(3)

    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(rewritten, part) for part in parts)


def _prose(text: str) -> list[str]:
    return [part for part in _FENCE.split(text) if not part.startswith("```")]


def _target(link: str, source: str) -> tuple[str, str] | None:
    """Path from the repository's root and anchor of a relative link; None where it leaves the repository."""
    if re.match(r"[a-z]+:|#|/", link):
        return None
    path, mark, anchor = link.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    return None if path.startswith("..") else (path, mark + anchor)


def _site_place(path: str) -> str | None:
    """Where a file of the repository lies in the site as a page or asset of its own."""
    if path == "README.md":
        return "index.md"
    if path.startswith(f"{NOTEBOOKS}/") and path.endswith(".ipynb"):
        return f"{path.removesuffix('.ipynb')}.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else PAGES.get(path)
