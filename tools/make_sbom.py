"""Write a software bill of materials of an installation: CycloneDX 1.6, as JSON.

Packages come from the metadata of what is installed, their hashes from requirements.lock and
models.lock, the embedded models from the code that checks their files. Equal installations give
equal bytes: there is no time in it.

    python tools/make_sbom.py dist/sbom.json
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "models.lock", "torch.lock")
PACKAGE = "thresher"
EVERYDAY = "all"  # the extra with what users install; what is beyond it is for development
NAMESPACE = uuid.UUID("5b9d4b0e-7c0e-5f3e-9a83-0d0a3c1f7a11")
_PINNED = re.compile(r"^([\w.-]+)==([\w.+!-]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def check_installed(pinned: Mapping[str, tuple[str, list[str]]]) -> None:
    """Refuse an installation that is not the one of the locks.

    Raises:
        SystemExit: a package of them is not installed, or in another version.
    """
    installed = find_installed()
    for name, (version, _) in pinned.items():
        found = installed[name].version.partition("+")[0] if name in installed else "none"
        if found != version:
            raise SystemExit(f"{name}: the locks have version {version}, found {found}; run make setup")


def find_installed() -> dict[str, Distribution]:
    """Return what is installed, by canonical name."""
    return {canonicalize_name(each.name): each for each in distributions()}


def make_sbom(pinned: Mapping[str, tuple[str, list[str]]]) -> dict[str, Any]:
    """Return the bill of materials of this installation.

    Args:
        pinned: of `read_locks`: packages that are listed whether thresher needs them or not.
    """
    installed = find_installed()
    required = find_required(PACKAGE, installed, extras=set())
    everyday = find_required(PACKAGE, installed, extras={EVERYDAY})
    parts = {name: installed[name] for name in sorted({*pinned, *everyday} - {PACKAGE})}
    components = [
        describe_package(
            part,
            scope="required" if name in required else "optional" if name in everyday else "excluded",
            sha256=pinned.get(name, ("", []))[1],
        )
        for name, part in parts.items()
    ]
    models = list(describe_models())
    links = {name: sorted({*find_direct(part, installed)} & {*parts}) for name, part in parts.items()}
    own = distribution(PACKAGE)
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {**describe_package(own, scope="required", sha256=[]), "type": "application"},
            "tools": {"components": [{"type": "application", "name": "tools/make_sbom.py"}]},
        },
        "components": [*components, *models],
        "dependencies": [
            {"ref": refer(own), "dependsOn": sorted(refer(parts[name]) for name in everyday if name in parts)},
            *({"ref": refer(parts[name]), "dependsOn": [refer(parts[n]) for n in links[name]]} for name in parts),
        ],
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps(content, sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "serialNumber": f"urn:uuid:{serial}",
        **content,
    }


def read_locks() -> dict[str, tuple[str, list[str]]]:
    """Return version and sha256 of each file of the packages in the locks, by canonical name."""
    pinned: dict[str, tuple[str, list[str]]] = {}
    for lock in LOCKS:
        name = ""
        for line in (ROOT / lock).read_text().splitlines():
            match = _PINNED.match(line)
            if match:
                name = canonicalize_name(match[1])
                pinned[name] = (match[2], [])
            if name:
                pinned[name][1].extend(_HASH.findall(line))
    return pinned


def find_direct(
    part: Distribution, installed: Mapping[str, Distribution], *, extras: set[str] | None = None
) -> set[str]:
    """Return the names of installed packages that one needs, with some of its extras."""
    names = set()
    for text in part.requires or ():
        need = Requirement(text)
        contexts = [{"extra": extra} for extra in ("", *sorted(extras or ()))]
        if need.marker is None or any(need.marker.evaluate(context) for context in contexts):
            names.add(canonicalize_name(need.name))
            if need.extras and canonicalize_name(need.name) == canonicalize_name(part.name):
                names |= find_direct(part, installed, extras=set(need.extras))
    return {name for name in names if name in installed}


def find_required(name: str, installed: Mapping[str, Distribution], *, extras: set[str]) -> set[str]:
    """Return all packages that one needs, directly or not."""
    found: set[str] = set()
    waiting = find_direct(installed[name], installed, extras=extras) - {name}
    while waiting:
        found |= waiting
        waiting = set().union(*(find_direct(installed[each], installed) for each in waiting)) - found - {name}
    return found


def refer(part: Distribution) -> str:
    """Return the package URL of a package of PyPI."""
    return f"pkg:pypi/{canonicalize_name(part.name)}@{part.version.partition('+')[0]}"


def describe_package(part: Distribution, *, scope: str, sha256: list[str]) -> dict[str, Any]:
    """Return the component of a package; the hashes are those of its files on PyPI."""
    about = part.metadata
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": refer(part),
        "name": part.name,
        "version": part.version,
        "scope": scope,
        "purl": refer(part),
    }
    expression, text = about.get("License-Expression"), about.get("License")
    classifiers = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or () if "License" in line]
    if expression:
        component["licenses"] = [{"expression": expression}]
    elif classifiers or text:
        named = classifiers or [str(text).strip().splitlines()[0][:100]]
        component["licenses"] = [{"license": {"name": name}} for name in sorted(set(named))]
    if about.get("Summary") not in (None, "UNKNOWN"):
        component["description"] = about["Summary"]
    if sha256:
        component["externalReferences"] = [
            {
                "type": "distribution",
                "url": f"https://pypi.org/project/{canonicalize_name(part.name)}/{part.version.partition('+')[0]}/",
                "hashes": [{"alg": "SHA-256", "content": digest} for digest in sorted(sha256)],
            }
        ]
    return component


def describe_models() -> Iterator[dict[str, Any]]:
    """Yield the embedded models, and each of their files with its sha256."""
    from thresher.models.causal_lm import embedded, smollm2
    from thresher.models.encoders import minilm, static

    models = {
        embedded.EMBEDDED_NAME: embedded.FILES,
        "thresher/static-minilm-256": static.FILES | static.OTHER_FILES,
        "sentence-transformers/all-MiniLM-L6-v2": minilm.FILES,
        embedded.SMOLLM2_NAME: {smollm2.FILE: smollm2.SHA256},
    }
    for name, files in models.items():
        yield {
            "type": "machine-learning-model",
            "bom-ref": f"model:{name}",
            "name": name,
            "licenses": [{"license": {"id": "Apache-2.0"}}],
            "components": [
                {
                    "type": "file",
                    "bom-ref": f"model:{name}/{file}",
                    "name": file,
                    "hashes": [{"alg": "SHA-256", "content": digest}],
                }
                for file, digest in files.items()
            ],
        }


def main(arguments: list[str]) -> None:
    """Write the bill of materials."""
    if len(arguments) != 1:
        raise SystemExit("usage: python tools/make_sbom.py FILE")
    path = Path(arguments[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    pinned = read_locks()
    check_installed(pinned)
    content = make_sbom(pinned)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {len(content['components'])} components")


if __name__ == "__main__":
    main(sys.argv[1:])
