"""Which module of a package imports which, read from the source without running it.

Imports inside functions and under `TYPE_CHECKING` count like all others. A name that a package's
`__init__` re-exports counts as imported from the module that defines it: the graph shows who needs
whom, whichever door is used.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

Import = tuple[str, str | None]  # `from module import name`, or `import module` with None


def name_module(path: Path, root: Path) -> str:
    """Return the dotted name of a file: `thresher/cli/__init__.py` is `thresher.cli`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_import_graph(package: Path) -> dict[str, set[str]]:
    """Parse every module of a package and return the modules that each imports."""
    paths = {name_module(path, package.parent): path for path in sorted(package.rglob("*.py"))}
    trees = {name: ast.parse(path.read_bytes(), str(path)) for name, path in paths.items()}
    return build_import_graph(trees, frozenset(name for name, path in paths.items() if path.stem == "__init__"))


def build_import_graph(trees: Mapping[str, ast.Module], packages: frozenset[str]) -> dict[str, set[str]]:
    """Return the modules that each module imports.

    Args:
        trees: The syntax tree of each module, by its dotted name.
        packages: The names that belong to an `__init__.py`.
    """
    exports = {name: dict(_list_exports(trees[name])) for name in packages}
    graph: dict[str, set[str]] = {}
    for name, tree in trees.items():
        targets = {_find_home(target, trees, exports) for target in _list_imports(tree)}
        graph[name] = {target for target in targets if target and target != name}
    return graph


def find_circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return every set of two or more modules that all reach one another, sorted (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}  # the earliest module on the stack that each one reaches
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        # It reaches nothing earlier: all that lie above it on the stack reach it.
        if low[name] == index[name]:
            start = stack.index(name)
            circles.append(sorted(stack[start:]))
            del stack[start:]

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return sorted(circle for circle in circles if len(circle) > 1)


def walk_statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield a tree and all statements below it; expressions are skipped."""
    yield tree
    for block in ("body", "handlers", "cases", "orelse", "finalbody"):
        children = getattr(tree, block, ())
        if isinstance(children, list):  # the body of a conditional expression or a lambda is none
            for child in children:
                yield from walk_statements(child)


def _list_imports(tree: ast.Module) -> Iterator[Import]:
    for node in walk_statements(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def _list_exports(tree: ast.Module) -> Iterator[tuple[str, Import]]:
    """Yield the names that an `__init__` re-exports, each with what it stands for."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.asname or alias.name, (node.module, alias.name)) for alias in node.names)


def _find_home(
    target: Import, trees: Mapping[str, ast.Module], exports: Mapping[str, Mapping[str, Import]]
) -> str | None:
    """Return the module that an import means, or None if it lies outside the package."""
    module, name = target
    if module not in trees:
        return None
    if name is None:
        return module
    if name in exports.get(module, ()):
        return _find_home(exports[module][name], trees, exports)
    return f"{module}.{name}" if f"{module}.{name}" in trees else module
