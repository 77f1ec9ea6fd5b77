"""Each rule of the layout finds its breach in a tiny tree, and nothing in one without."""

import pytest
from check_layout import Exemption, filter_findings, main
from layout_checks import run_checks

PACKAGE = '"""What lives here.\n\nWho imports it.\nWhere to add a thing.\n"""\n'


@pytest.fixture
def write(tmp_path):
    """Write files below a repository's root that has nothing else."""

    def write_files(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write_files


def findings(root):
    return [(item.check, item.path, item.line) for item in run_checks(root)]


def test_a_tidy_tree_has_no_findings(write):
    root = write(
        {
            "thresher/__init__.py": "",
            "thresher/subset/__init__.py": PACKAGE,
            "thresher/subset/cut.py": 'def cut_rows():\n    """Cut."""\n',
            "README.md": "Short.\n",
        }
    )
    assert findings(root) == []


def test_six_modules_may_lie_at_the_root_beside_init_and_main(write):
    files = {f"thresher/{name}.py": "" for name in ("__init__", "__main__", "a", "b", "c", "d", "e", "f")}
    assert findings(write(files)) == []
    assert findings(write({"thresher/g.py": ""})) == [("root-modules", "thresher", 1)]


def test_sixteen_files_may_lie_in_a_folder(write):
    assert findings(write({f"tests/jobs/test_{i}.py": "" for i in range(16)})) == []
    assert findings(write({"tests/jobs/conftest.py": ""})) == [("flat-folder", "tests/jobs", 1)]


@pytest.mark.parametrize(
    "back",
    [
        "from thresher.a import f\n",
        "import thresher.a\n",
        "from thresher import a\n",
        "def g():\n    if True:\n        from thresher.a import f\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from thresher.a import f\n",
    ],
    ids=["name", "module", "from package", "lazy", "type only"],
)
def test_a_circle_is_found_however_it_is_closed(write, back):
    root = write({"thresher/__init__.py": "", "thresher/a.py": "from thresher.b import g\n", "thresher/b.py": back})
    assert findings(root) == [("circle", "thresher/a.py", 1)]
    assert "thresher.a, thresher.b" in str(run_checks(root)[0])


def test_a_name_from_a_package_counts_as_from_the_module_that_defines_it(write):
    root = write(
        {
            "thresher/__init__.py": "from thresher.p import one\n",
            "thresher/p/__init__.py": PACKAGE + "from thresher.p.one import one\nfrom thresher.p.two import two\n",
            "thresher/p/one.py": "one = 1\n",
            "thresher/p/two.py": "from thresher.p import one\ntwo = 2\n",
        }
    )
    assert findings(root) == []
    write({"thresher/p/one.py": "def f():\n    from thresher.p import two\n"})
    assert findings(root) == [("circle", "thresher/p/one.py", 1)]


@pytest.mark.parametrize("name", ["kernel_of", "_select_on", "of", "features_beside", "add_up"])
def test_function_names_that_end_in_a_preposition(write, name):
    root = write({"thresher/a.py": f"class A:\n    def {name}(self):\n        def build_kernel(): ...\n"})
    assert findings(root) == [("preposition", "thresher/a.py", 2)]


def test_names_that_only_begin_or_look_like_one(write):
    text = "def _on_event(): ...\ndef from_json(): ...\ndef proof(): ...\ndef test_what_it_looks_at(): ...\n"
    assert findings(write({"tests/test_a.py": text})) == []


def test_getattr_with_a_literal_name(write):
    text = 'x = getattr(plugin, "memory", None)\ny = getattr(plugin, name)\n'
    root = write(dict.fromkeys(["thresher/a.py", "thresher/models/a.py", "thresher/trainer/engine/a.py"], text))
    write({"tests/a.py": text})
    assert findings(root) == [("getattr", "thresher/a.py", 1)]


def test_files_and_functions_that_are_too_long(write):
    body = "    x = 1\n" * 48
    docstring = '    """First.\n\n' + "    More.\n" * 20 + '    """\n'
    root = write({"thresher/a.py": f"def short(\n):\n{docstring}{body}"})
    assert findings(root) == []
    write({"thresher/a.py": f"def long(\n):\n{docstring}{body}    y = 1\n", "benchmarks/b.py": "\n" * 401})
    assert findings(root) == [("file-size", "benchmarks/b.py", 1), ("function-size", "thresher/a.py", 1)]


def test_wide_prose_in_code(write):
    wide = "word " * 20 + "."
    text = (
        f'"""Fine.\n\n{wide}\n"""\n'
        f"# {wide}\n"
        f"x = 1  # {wide}\n"
        f'y = "{wide}"\n'
        f"import os  # noqa: {wide}\n"
        f"# {'word ' * 10} https://example.org/{'x' * 80}\n"
    )
    root = write({"thresher/a.py": text})
    assert findings(root) == [("prose-width", "thresher/a.py", line) for line in (3, 5, 6)]


def test_wide_prose_in_pages(write):
    wide = "word " * 21
    text = f"{wide}\n\n| {wide} |\n\n```\n{wide}\n```\n\n    {wide}\n\n    {wide}\n\n- item\n  {wide}\n    {wide}\n"
    root = write({"docs/decisions/0001.md": text, "README.md": wide, "CHANGELOG.md": f"[a](https://{'x' * 120})"})
    assert findings(root) == [
        ("prose-width", "README.md", 1),
        ("prose-width", "docs/decisions/0001.md", 1),
        ("prose-width", "docs/decisions/0001.md", 14),
        ("prose-width", "docs/decisions/0001.md", 15),
    ]


def test_a_subpackage_says_what_lives_there(write):
    root = write({"thresher/__init__.py": "", "thresher/p/__init__.py": '"""One line."""\n'})
    assert findings(root) == [("package-docstring", "thresher/p/__init__.py", 1)]


def test_an_exemption_covers_its_findings_and_is_reported_when_it_covers_none(write):
    root = write({"thresher/a.py": 'getattr(x, "one")\ngetattr(x, "two")\n'})
    exemptions = [Exemption("getattr", "thresher/a.py", "a reason", "one")]
    assert [item.subject for item in filter_findings(run_checks(root), exemptions)] == ["two"]
    exemptions += [Exemption("file-size", "thresher/a.py", "no longer long"), Exemption("flat-folder", "x", "later")]
    assert [item.check for item in filter_findings(run_checks(root), exemptions)] == ["getattr", "exemption"]


def test_the_exit_code_and_the_lines_printed(write, capsys):
    root = write({"thresher/b.py": "def kernel_of(): ...\n", "thresher/a.py": "def at(): ...\n"})
    assert main([str(root)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "thresher/a.py:1: preposition: at ends in 'at'",
        "thresher/b.py:1: preposition: kernel_of ends in 'of'",
    ]
    assert main([str(root), "--report"]) == 0
    assert main([str(root), "--summary"]) == 0
    assert "2 findings" in capsys.readouterr().out
