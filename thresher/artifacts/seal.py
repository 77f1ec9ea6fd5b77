"""Seals: checksums by which what was stored is known to be what was written.

A record is a JSON object on disk, such as a manifest or the mark of a finished run. Its section
`run` holds the seal: the xxh3 of the record and of each file it vouches for. A record without a
seal was written by an earlier version and is read as it is. A file that does not fit its seal is
damaged, or was changed by hand, and is never used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import xxhash

from thresher.errors import ManifestError, is_temporary

MANIFEST = "manifest.json"
IDENTITY = "identity.txt"  # of the work that a folder which is not finished yet is for
SECTION, SEAL, RECORD, FILES = "run", "seal", "record", "files"
BLOCK = 1 << 22
DEPTH = 2  # folders between a file and the manifest that vouches for it
CHANGED = "must be unchanged, but its checksum differs"
REMEDY = f"write it again, or delete the section '{SEAL}' in {MANIFEST} to use it as it is"


def hash_file(path: Path) -> str:
    """Return the xxh3-128 of a file, 32 hex digits."""
    total = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
    return total.hexdigest()


def hash_files(folder: Path, *, skip: Collection[str] = ()) -> dict[str, str]:
    """Return the checksum of each file below a folder, by its path from there, with slashes.

    What is hidden is left out: a killed run was writing it, or will need it.
    """
    paths: list[Path] = []
    for inside, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(inside, name) for name in names if not name.startswith(".")]
    checksums = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: hash_file(path) for name, path in sorted(checksums.items()) if name not in skip}


def seal_record(content: Mapping[str, Any], files: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a record with its seal.

    Args:
        content: JSON values.
        files: checksum of each file that the record vouches for.
    """
    bare: dict[str, Any] = json.loads(json.dumps(_without_seal(content)))
    seal = {FILES: dict(files or {})}
    sealed = {**bare, SECTION: {**bare.get(SECTION, {}), SEAL: seal}}
    return {**sealed, SECTION: {**sealed[SECTION], SEAL: {**seal, RECORD: _hash_content(sealed)}}}


def encode_record(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a record."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def seal_manifest(folder: Path) -> bytes:
    """Return the manifest of a folder with a seal over all files there."""
    content = json.loads((folder / MANIFEST).read_bytes())
    return encode_record(seal_record(content, hash_files(folder, skip=(MANIFEST, IDENTITY))))


def read_record(path: Path) -> dict[str, Any]:
    """Read a record, without its seal.

    Raises:
        ManifestError: it is no JSON object, or does not fit its seal.
        OSError: it cannot be read.
    """
    return _without_seal(_read_sealed(path))


def find_damage(folder: Path, record: str = MANIFEST) -> str | None:
    """Say what is wrong with a record or with a file it vouches for; None where all is well.

    Raises:
        OSError: the storage is away for a time, which says nothing of the files.
    """
    try:
        files = _list_files(_read_sealed(folder / record))
    except (OSError, ManifestError) as error:
        if is_temporary(error):
            raise
        return str(error)
    damages = (_compare(folder / name, checksum) for name, checksum in files.items())
    return next((damage for damage in damages if damage is not None), None)


def _compare(path: Path, checksum: str) -> str | None:
    try:
        return None if hash_file(path) == checksum else f"{path}: {CHANGED}"
    except OSError as error:
        if is_temporary(error):
            raise
        return f"{path}: must be readable, got '{error.strerror}'"


def check_file(path: Path, checksum: str | None = None) -> None:
    """Refuse a file that is not what the manifest of its folder says.

    Args:
        path: of the file.
        checksum: its own, where it is known.

    Raises:
        ManifestError: it is damaged, or was changed.
    """
    folder = next((each for each in list(path.parents)[:DEPTH] if (each / MANIFEST).is_file()), None)
    if folder is None:
        return
    known = _list_files(_read_sealed(folder / MANIFEST)).get(path.relative_to(folder).as_posix())
    damage = None if known in (None, checksum) else _compare(path, str(known))
    if damage is not None:
        raise ManifestError(f"{damage}; {REMEDY}")


def _read_sealed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: must be JSON, found {error}; the folder was changed by hand or damaged") from None
    if not isinstance(content, dict):
        raise ManifestError(f"{path}: must be a JSON object, found '{type(content).__name__}'")
    sections = [name for name, section in content.items() if _is_sealed(section)]
    if not sections:
        return content
    seal = content[sections[0]].get(SEAL)
    if sections != [SECTION] or not isinstance(seal, dict) or not isinstance(seal.get(FILES), dict):
        raise ManifestError(f"{path}: {CHANGED}; {REMEDY}")
    bare = {**content, SECTION: {**content[SECTION], SEAL: {FILES: seal[FILES]}}}
    if seal.get(RECORD) != _hash_content(bare):
        raise ManifestError(f"{path}: {CHANGED}; {REMEDY}")
    return content


def _is_sealed(section: Any) -> bool:
    """Tell whether a section holds a seal, under any name: a name may be what is damaged."""
    items = section.items() if isinstance(section, dict) else ()
    return any(isinstance(value, dict) and (name == SEAL or set(value) == {FILES, RECORD}) for name, value in items)


def _list_files(content: Mapping[str, Any]) -> dict[str, str]:
    return dict(content[SECTION][SEAL][FILES]) if _is_sealed(content.get(SECTION)) else {}


def _without_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as it was before it was sealed."""
    section = content.get(SECTION)
    if not isinstance(section, dict) or SEAL not in section:
        return dict(content)
    rest = {name: value for name, value in section.items() if name != SEAL}
    return {**content, SECTION: rest} if rest else {name: v for name, v in content.items() if name != SECTION}


def _hash_content(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())
