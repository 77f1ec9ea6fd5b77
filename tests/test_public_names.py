"""What `import thresher` promises."""

import inspect
import re
from pathlib import Path

import pytest

import thresher as th


@pytest.mark.parametrize("name", th.__all__)
def test_every_public_name_can_be_loaded(name):
    assert getattr(th, name) is not None


def list_examples():
    """Return the Python blocks of the pages, which `test_docs.py` runs."""
    root = Path(__file__).parent.parent
    pages = [root / "README.md", *(root / "docs").rglob("*.md")]
    return "".join(
        code for page in pages for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    )


@pytest.mark.parametrize("name", [name for name in th.__all__ if name != "__version__"])
def test_every_public_name_has_an_example_that_the_tests_run(name):
    """A function is called in one; a class is built there, or is what a function returns."""
    examples = list_examples()
    called = {other for other in th.__all__ if re.search(rf"\bth\.{other}\b", examples)}
    returned = {str(inspect.signature(getattr(th, other)).return_annotation) for other in called if other.islower()}
    assert name in called | returned
