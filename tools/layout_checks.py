"""The rules of `check_layout.py`, one function each: source files in, findings out."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from import_graph import build_import_graph, find_circles, name_module, walk_statements

PACKAGE = "thresher"
FOLDERS = (PACKAGE, "tests", "benchmarks", "data", "examples", "tools")
PAGES = ("*.md", "docs/**/*.md", "data/**/*.md", "examples/**/*.md", "tools/*.md", f"{PACKAGE}/**/*.md")

MAX_ROOT_MODULES = 6
MAX_FLAT_FILES = 16
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
MAX_COLUMNS = 100
MIN_PACKAGE_DOCSTRING = 3

PREPOSITIONS = re.compile(
    "about|above|across|after|against|along|among|around|at|before|behind|below|beside|besides|between|beyond|by|for"
    "|from|in|into|near|of|on|onto|over|per|since|than|through|to|toward|towards|under|until|up|upon|via|with|within"
    "|without"
)
# Where getattr is free: classes of other libraries differ in what they have.
MODEL_FOLDERS = ("models", "trainer/engine")
PRAGMA = re.compile(r"#\s*(noqa|type:|ruff:|pragma|fmt:|mypy:|!)")
URL = re.compile(r"\w+://\S+")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Finding:
    """One breach of a rule; `subject` is the function, attribute or module that it is about."""

    path: str  # relative to the root, with "/"
    line: int
    check: str
    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.check}: {self.message}"


class Source:
    """A Python file, read and parsed once."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path.relative_to(root).as_posix()
        self.module = name_module(path, root)
        self.text = path.read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.tree = ast.parse(self.text, self.path)

        nodes = list(walk_statements(self.tree))
        self.functions = [node for node in nodes if isinstance(node, Function)]
        self.documented = [node for node in nodes if isinstance(node, ast.Module | ast.ClassDef | Function)]


def find_docstring(node: ast.Module | ast.ClassDef | Function) -> ast.Constant | None:
    """Return the docstring of a module, class or function as a node, which knows its lines."""
    match node.body:
        case [ast.Expr(value=ast.Constant(value=str()) as text), *_]:
            return text
    return None


def run_checks(root: Path) -> list[Finding]:
    """Return every breach of a rule below a repository's root, by path."""
    sources = [Source(path, root) for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    findings = [
        *check_root_modules(sources),
        *check_flat_folders(sources),
        *check_circles(sources),
        *(finding for source in sources for check in SOURCE_CHECKS for finding in check(source)),
        *(finding for path in list_pages(root) for finding in check_page(path, root)),
    ]
    return sorted(findings)


def check_root_modules(sources: Sequence[Source]) -> Iterator[Finding]:
    """Few modules lie at the package root."""
    names = [source.path for source in sources if re.fullmatch(rf"{PACKAGE}/(?!__)\w+\.py", source.path)]
    if len(names) > MAX_ROOT_MODULES:
        message = f"{len(names)} modules at the package root, at most {MAX_ROOT_MODULES}: {', '.join(names)}"
        yield Finding(PACKAGE, 1, "root-modules", PACKAGE, message)


def check_flat_folders(sources: Sequence[Source]) -> Iterator[Finding]:
    """No folder holds many files side by side."""
    for folder, n_files in Counter(source.path.rpartition("/")[0] for source in sources).items():
        if n_files > MAX_FLAT_FILES:
            message = f"{n_files} Python files lie flat in this folder, at most {MAX_FLAT_FILES}"
            yield Finding(folder, 1, "flat-folder", folder, message)


def check_circles(sources: Sequence[Source]) -> Iterator[Finding]:
    """No modules import one another in a circle, whether at the top, lazily or for types."""
    inside = [source for source in sources if source.path.startswith(f"{PACKAGE}/")]
    paths = {source.module: source.path for source in inside}
    packages = frozenset(name for name, path in paths.items() if path.endswith("__init__.py"))
    graph = build_import_graph({source.module: source.tree for source in inside}, packages)
    for circle in find_circles(graph):
        message = f"{len(circle)} modules import one another in a circle: {', '.join(circle)}"
        yield Finding(paths[circle[0]], 1, "circle", circle[0], message)


def check_names(source: Source) -> Iterator[Finding]:
    """Function names are verb + object, and none ends in a preposition; tests are sentences."""
    for node in source.functions:
        if node.name.startswith(("test_", "__")):
            continue
        if PREPOSITIONS.fullmatch(word := node.name.rpartition("_")[2]):
            yield Finding(source.path, node.lineno, "preposition", node.name, f"{node.name} ends in '{word}'")


def check_getattr(source: Source) -> Iterator[Finding]:
    """Members of plug-ins are declared, not looked for by `getattr(x, "literal")`."""
    foreign = tuple(f"{PACKAGE}/{folder}/" for folder in MODEL_FOLDERS)
    if not source.path.startswith(f"{PACKAGE}/") or source.path.startswith(foreign):
        return
    for node in ast.walk(source.tree) if "getattr(" in source.text else ():
        match node:
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str() as name), *_]):
                message = f"getattr(..., '{name}'): declare the member in its protocol"
                yield Finding(source.path, node.lineno, "getattr", name, message)


def check_sizes(source: Source) -> Iterator[Finding]:
    """Files and functions are short; the docstring of a function does not count."""
    if len(source.lines) > MAX_FILE_LINES:
        message = f"{len(source.lines)} lines, at most {MAX_FILE_LINES}"
        yield Finding(source.path, 1, "file-size", source.path, message)
    for node in source.functions:
        n_lines = (node.end_lineno or 0) - node.lineno + 1
        if text := find_docstring(node):
            n_lines -= (text.end_lineno or 0) - text.lineno + 1
        if n_lines > MAX_FUNCTION_LINES:
            message = f"{node.name} has {n_lines} lines without its docstring, at most {MAX_FUNCTION_LINES}"
            yield Finding(source.path, node.lineno, "function-size", node.name, message)


def check_prose(source: Source) -> Iterator[Finding]:
    """Docstrings and comments are at most 100 columns wide; code may have 120."""
    wide = {line for line, text in enumerate(source.lines, 1) if is_wide(text)}
    if not wide:
        return
    for text in filter(None, map(find_docstring, source.documented)):
        for line in sorted(wide & set(range(text.lineno, (text.end_lineno or 0) + 1))):
            yield _report_width(source.path, line, source.lines[line - 1])
    if not any("#" in source.lines[line - 1] for line in wide):
        return  # reading tokens is slow
    for line in sorted(wide & set(_list_comment_lines(source))):
        yield _report_width(source.path, line, source.lines[line - 1])


def check_package_docstring(source: Source) -> Iterator[Finding]:
    """Each subpackage says what lives there, what may import it and where to add a thing."""
    if not re.fullmatch(rf"{PACKAGE}/.+/__init__\.py", source.path):
        return
    text = ast.get_docstring(source.tree) or ""
    n_lines = sum(bool(line.strip()) for line in text.splitlines())
    if n_lines < MIN_PACKAGE_DOCSTRING:
        message = f"the docstring has {n_lines} lines, at least {MIN_PACKAGE_DOCSTRING}: what lives here, for whom"
        yield Finding(source.path, 1, "package-docstring", source.module, message)


def check_page(path: Path, root: Path) -> Iterator[Finding]:
    """Prose in Markdown is at most 100 columns wide; tables and code are exempt."""
    in_fence = in_code = was_blank = False
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if text.lstrip().startswith("```"):
            in_fence = not in_fence
        # Four spaces after an empty line start a code block, which lasts until a line without them.
        in_code = bool(text.startswith("    ") and (in_code or was_blank)) or (in_code and not text.strip())
        was_blank = not text.strip() or text.startswith("#")
        if not (in_fence or in_code or text.lstrip().startswith("|")) and is_wide(text):
            yield _report_width(path.relative_to(root).as_posix(), line, text)


def list_pages(root: Path) -> list[Path]:
    """Return the Markdown files whose width is checked."""
    return sorted({path for pattern in PAGES for path in root.glob(pattern)})


def is_wide(text: str) -> bool:
    """Say whether a line is too wide for prose even without its URLs, which cannot be wrapped."""
    return len(text) > MAX_COLUMNS and len(URL.sub("", text)) > MAX_COLUMNS


def _report_width(path: str, line: int, text: str) -> Finding:
    return Finding(path, line, "prose-width", path, f"prose is {len(text)} columns wide, at most {MAX_COLUMNS}")


def _list_comment_lines(source: Source) -> Iterator[int]:
    """Yield the lines with a comment, but for those that speak to a tool."""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and not PRAGMA.match(token.string):
            yield token.start[0]


SOURCE_CHECKS = (check_names, check_getattr, check_sizes, check_prose, check_package_docstring)
