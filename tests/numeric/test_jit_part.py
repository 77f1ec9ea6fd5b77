"""Parts of kernels have no way in from Python: a call from there would end the process."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILED = {"jit", "jit_part", "jit_fastmath"}


def list_decorators(node):
    return {each.id for each in getattr(node, "decorator_list", []) if isinstance(each, ast.Name)}


def find_parts(tree):
    return {node.name for node in tree.body if "jit_part" in list_decorators(node)}


def find_uses(tree, parts):
    """Return the lines outside of compiled functions that name a part of {module: names}."""
    names, modules = find_parts(tree), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for each in node.names:
                if each.name in parts.get(node.module, ()):
                    names.add(each.asname or each.name)
                modules[each.asname or each.name] = parts.get(f"{node.module}.{each.name}", set())
    waiting, lines = [tree], []
    while waiting:
        node = waiting.pop()
        if COMPILED & list_decorators(node):
            continue
        waiting += ast.iter_child_nodes(node)
        is_name = isinstance(node, ast.Name) and node.id in names
        is_member = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if is_name or (is_member and node.attr in modules.get(node.value.id, ())):
            lines.append(node.lineno)
    return sorted(lines)


def name_module(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_parts_of_kernels_are_named_in_compiled_functions_alone():
    texts = {path: path.read_text() for path in (ROOT / "thresher").rglob("*.py")}
    parts = {name_module(path): find_parts(ast.parse(text)) for path, text in texts.items() if "@jit_part" in text}
    assert sum(map(len, parts.values())) > 20
    for folder in ("tests", "benchmarks", "tools"):
        texts |= {path: path.read_text() for path in (ROOT / folder).rglob("*.py")}
    named = re.compile(r"\b(" + "|".join(set().union(*parts.values())) + r")\b")
    found = {str(path): find_uses(ast.parse(text), parts) for path, text in texts.items() if named.search(text)}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("from a.b import part\n@jit\ndef f(x):\n    return part(x)", []),
        ("from a.b import part\ndef f(x):\n    return part(x)", [3]),
        ("from a.b import part as g\ng(1)", [2]),
        ("from a import b\nmap(b.part, [1])", [2]),
        ("@jit_part\ndef own(x):\n    return x\n@jit\ndef f(x):\n    return own(x)\nown(1)", [7]),
        ("from c import part\npart(1)", []),
    ],
)
def test_a_call_from_python_is_found(text, lines):
    assert find_uses(ast.parse(text), {"a.b": {"part"}}) == lines
