"""Checks what `make release` built: one wheel and one source distribution of the same package."""

from __future__ import annotations

import hashlib
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def check(folder: Path) -> list[str]:
    """Return what is wrong with the distributions in a folder; nothing where all is well."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    wheels, sources = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sources) != 1:
        return [f"{folder}: must hold one wheel and one source distribution, found {len(wheels)} and {len(sources)}"]
    problems = [
        f"{path.name}: must be of version {version}" for path in (*wheels, *sources) if version not in path.name
    ]
    if f'__version__ = "{version}"' not in (ROOT / "thresher" / "__init__.py").read_text():
        problems.append(f"thresher/__init__.py: must have version {version}")
    if f"version: {version}" not in (ROOT / "CITATION.cff").read_text():
        problems.append(f"CITATION.cff: must have version {version}")
    with zipfile.ZipFile(wheels[0]) as wheel, tarfile.open(sources[0]) as source:
        packed = {name for name in wheel.namelist() if name.startswith("thresher/")}
        shipped = {name.partition("/")[2] for name in source.getnames()}
    own = {str(path.relative_to(ROOT)) for path in (ROOT / "thresher").rglob("*.py")}
    problems += [f"{wheels[0].name}: lacks {name}" for name in sorted(own - packed)[:5]]
    problems += [f"{sources[0].name}: lacks {name}" for name in sorted(packed - shipped)[:5]]
    return problems


if __name__ == "__main__":
    where = Path(sys.argv[1])
    wrong = check(where)
    print("\n".join(wrong or [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p}" for p in sorted(where.iterdir())]))
    sys.exit(1 if wrong else 0)
