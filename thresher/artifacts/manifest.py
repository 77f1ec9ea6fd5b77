"""Manifests: what ran, on what, with which settings, and what came out, in every output folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from thresher.artifacts.seal import MANIFEST, encode_record, read_record, seal_record
from thresher.errors import ManifestError

FORMAT = "thresher-manifest/1"


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        content: JSON values. `format`, `kind` and `identity` are always there. The section `run`
            holds what may differ between two runs of the same work (time, duration, machine);
            everything else is reproducible.
    """

    content: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """Hash of everything that determines the result: inputs, settings, seed and version."""
        return str(self.content["identity"])

    @property
    def hash(self) -> str:
        """sha256 of the manifest without its section `run`: equal for two runs of the same work."""
        return digest({key: value for key, value in self.content.items() if key != "run"})

    def to_json(self) -> bytes:
        """Return the bytes of `manifest.json`."""
        return encode_record(self.content)

    def to_sealed_json(self) -> bytes:
        """Return the bytes of a manifest that no `OutputFolder` seals."""
        return encode_record(seal_record(self.content))

    @staticmethod
    def read(folder: str | Path) -> Manifest:
        """Read the manifest of an output folder.

        Raises:
            ManifestError: there is none, it is damaged, or its format is unknown.
        """
        path = Path(folder) / MANIFEST
        if not path.exists():
            raise ManifestError(f"{folder}: must be a folder that thresher wrote, found no {MANIFEST}; check the path")
        return Manifest.read_file(path)

    @staticmethod
    def read_kind(folder: str | Path, kind: str, what: str) -> Manifest:
        """Read the manifest of an output folder of one kind.

        Args:
            folder: of a result.
            kind: that it must have.
            what: the same in words, for the message.

        Raises:
            ManifestError: the folder is of another kind, or there is no such manifest.
        """
        manifest = Manifest.read(folder)
        if manifest.content.get("kind") != kind:
            raise ManifestError(f"{folder}: must be {what}, found '{manifest.content.get('kind')}'")
        return manifest

    @staticmethod
    def read_file(path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            ManifestError: it is damaged, or its format is unknown.
        """
        content = read_record(path)
        if content.get("format") != FORMAT:
            raise ManifestError(f"{path}: format must be '{FORMAT}', found '{content.get('format')}'")
        return Manifest(content)


def digest(value: Any) -> str:
    """Return the sha256 of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def versions(packages: Iterable[str] = ("numpy", "polars", "pyarrow", "faiss-cpu", "numba")) -> dict[str, str]:
    """Return the installed version of thresher and of each package that is installed."""
    installed = {}
    for package in ("thresher", *packages):
        with suppress(PackageNotFoundError):
            installed[package] = _read_version(package)
    return installed


@cache
def _read_version(package: str) -> str:
    """Return an installed version; reading it takes a millisecond, and each cell asks for seven."""
    return version(package)
