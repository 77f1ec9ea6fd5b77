"""The notebooks in examples/ run from beginning to end, and keep their outputs.

They run in this process, with fewer rows and steps: the cell tagged "parameters" is replaced, as
papermill does it.
"""

import ast
from pathlib import Path

import pytest

from thresher.artifacts.result import Result

ROOT = Path(__file__).parent.parent
FEW = {
    "labels": {"N_POOL": 240, "N_TEST": 16, "METHOD": "prototypes", "MAX_STEPS": 2, "SEEDS": 2},
    "instructions": {"MODEL": "tiny", "BUDGET": 8, "MAX_STEPS": 2, "N_TEST": 4},
    "nightly": {"N_ROWS": 60},
}
PATHS = sorted((ROOT / "examples").glob("*.ipynb"))


def read_cells(path):
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run_cell(source, names):
    """Run a cell as a kernel does, and return the value of its last expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FEW)
def test_a_notebook_runs(name, tiny_bert, monkeypatch):
    monkeypatch.chdir(ROOT)
    few = FEW[name] | ({"MODEL": str(tiny_bert)} if name == "labels" else {})
    names = {}
    for cell in read_cells(ROOT / "examples" / f"{name}.ipynb"):
        source = cell.source
        if "parameters" in cell.metadata.get("tags", ()):
            declared = {}
            exec(source, declared)
            assert few.keys() <= declared.keys()
            source = "\n".join(
                f"{key} = {value!r}"
                for key, value in {**{k: v for k, v in declared.items() if k.isupper()}, **few}.items()
            )
        value = run_cell(source, names)
        if isinstance(value, Result):
            assert value._repr_html_()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_keeps_its_outputs(path):
    assert path.stem in FEW
    for cell in read_cells(path):
        shows = isinstance(ast.parse(cell.source).body[-1], ast.Expr)
        assert cell.outputs or not shows, cell.source
        assert not any(out.output_type == "error" for out in cell.outputs)
        assert not any(str(ROOT) in str(out) for out in cell.outputs)
