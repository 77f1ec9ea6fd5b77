"""Run the notebooks of examples/ in a kernel, and keep their outputs.

python tools/run_notebooks.py [NAME ...]
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
PROGRESS = "ipywidgets"


def run(path: Path) -> None:
    """Run a notebook from the root of the repository, and write it back with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(ROOT)}}).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)  # times of day
            # a bar that has ended tells nothing, and warnings name folders of this machine
            cell.outputs = [out for out in cell.outputs if out.output_type in ("execute_result", "stream")]
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    nbformat.write(notebook, path)


if __name__ == "__main__":
    there = {each.stem: each for each in sorted((ROOT / "examples").glob("*.ipynb"))}
    names = [Path(name).stem for name in sys.argv[1:]] or list(there)
    if unknown := sorted({*names} - {*there}):
        sys.exit(f"a notebook of examples/ is required, found {', '.join(unknown)}; name {', '.join(there)}")
    for name in names:
        run(there[name])
        print(there[name])
