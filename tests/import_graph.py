"""Import-linter's contracts on sources as they are, and on the same with lines that break them, in one process.

A script, since grimp finds packages where Python does: ``python import_graph.py BREACHES.json`` in a copy of the
sources prints JSON. Graphs are built twice, of the sources before and after all breaches were written into them; a
contract is then checked against the graph before with the one import of a breach added.
"""

import ast
import json
import sys
from copy import deepcopy
from pathlib import Path

from importlinter import configuration
from importlinter.application import use_cases
from importlinter.application.app_config import settings


class Ready:
    """Stands for import-linter's builder of graphs, and gives one that is there already."""

    def __init__(self, graph):
        self.graph = graph

    def build(self, **_):
        return self.graph


def kept(graph, contract):
    """Whether a graph keeps a contract."""
    settings.configure(GRAPH_BUILDER=Ready(graph))
    return use_cases.lint_imports(limit_to_contracts=(contract,), cache_dir=None, is_debug_mode=True, no_logo=True)


def imported(line, modules):
    """The module that a line imports, as grimp names it."""
    node = ast.parse(line).body[0]
    node = next(inner for inner in ast.walk(node) if isinstance(inner, ast.Import | ast.ImportFrom))
    if isinstance(node, ast.Import):
        return node.names[0].name
    inner = f"{node.module}.{node.names[0].name}"
    return inner if inner in modules else node.module


def main(breaches):
    """Check everything; see the module's first lines."""
    configuration.configure()
    builder, options = settings.GRAPH_BUILDER, use_cases.read_user_options()
    build = lambda: builder.build(  # noqa: E731
        root_package_names=options.session_options["root_packages"],
        include_external_packages=True,
        exclude_type_checking_imports=False,
        cache_dir=None,
    )
    clean = build()
    clean_keeps = {options_of["id"]: kept(clean, options_of["id"]) for options_of in options.contracts_options}
    for file, line, _ in breaches:
        path = Path(file)
        path.write_text(f"{path.read_text()}\n{line}\n")
    dirty, seen, noticed = build(), [], []
    for file, line, contract in breaches:
        module = file.removeprefix("backends/").removesuffix(".py").replace("/", ".")
        edge = {"importer": module, "imported": imported(line, clean.modules)}
        seen.append(dirty.direct_import_exists(**edge) and not clean.direct_import_exists(**edge))
        graph = deepcopy(clean)
        if edge["imported"] not in graph.modules:
            graph.add_module(edge["imported"], is_squashed=True)
        graph.add_import(**edge, line_number=1, line_contents=line)
        noticed.append(clean_keeps[contract] and not kept(graph, contract))
    return {"kept": clean_keeps, "seen": seen, "noticed": noticed}


if __name__ == "__main__":
    answer = main(json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(answer))
