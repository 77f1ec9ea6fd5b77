"""The notebooks in examples/ run from beginning to end, on a few rows and with a few steps."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_docs import N_ROWS, STEPS, copy_rows

ROOT = Path(__file__).parent.parent
MANY, FEW = "range(300)", "range(60)"  # of the rows to test on


@pytest.mark.filterwarnings("ignore")  # what the notebook machinery warns of is not ours
@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    copy_rows(tmp_path / "data/products", N_ROWS)
    content = STEPS.sub("3", path.read_text())
    assert MANY in content
    notebook = nbformat.reads(content.replace(MANY, FEW), as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
