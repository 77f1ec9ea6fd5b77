"""From what the user names (path, glob, folder, list) to the files to read."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from thresher.artifacts.folder import MANIFEST, read_identity
from thresher.artifacts.local_path import expand_path, refuse_other_bytes
from thresher.artifacts.remote.fetch import localize
from thresher.artifacts.seal import check_file
from thresher.dataset.formats.files import COMPRESSIONS
from thresher.errors import InputError, did_you_mean, first_three

TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")
WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
KNOWN = ", ".join((*TEXT_SUFFIXES, *TABLE_SUFFIXES))
_METADATA = {"dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json"}
_SPLIT = re.compile(r"(?:^|[-_./=])(train|test|validation|valid|val|dev|eval)(?=[-_./])")


@dataclass(frozen=True, kw_only=True)
class FileToRead:
    """One file and how to read it."""

    path: Path
    suffix: str
    compression: str


def find_files(
    source: str | Path | Sequence[str | Path], *, split: str | None, skip_links: bool = False
) -> list[FileToRead]:
    """Return the files that a path, a glob, a folder or a list of these names, in order.

    Args:
        source: what the user named.
        split: which files of a folder to read, by their names ("train-00000.parquet"); None for
            all.
        skip_links: leave out links to others of these files, which are refused otherwise.

    Raises:
        InputError: a file is missing or of an unknown kind, or a folder has no rows or several
            splits.
    """
    named = [source] if isinstance(source, str | Path) else list(source)
    if not named:
        raise InputError("load: at least one file is required, got an empty list")
    paths = [path for name in named for path in _expand(expand_path(localize(name)), split)]
    paths = _skip_links(paths) if skip_links else paths
    if repeated := list_repeated_files(paths):
        raise InputError(f"load: each file is read once, {first_three(repeated)} is named twice; name it once")
    return [detect_file_format(path) for path in paths]


def list_repeated_files(paths: Iterable[str | Path]) -> list[str | Path]:
    """Return the paths that name a file again; a link and its target are one file."""
    seen: set[str] = set()
    repeated = []
    for path in paths:
        place = os.path.realpath(path)
        if place in seen:
            repeated.append(path)
        seen.add(place)
    return repeated


def _expand(path: Path, split: str | None) -> list[Path]:
    if path.is_dir():
        return _list_shards(path, split)
    if path.exists():
        return [path]
    if glob.has_magic(str(path)):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        files = [match for match in matches if match.is_file()]
        if not files:
            raise InputError(f"{path}: no file matches this pattern; check it with ls")
        return files
    raise InputError(f"{path}: no such file{_suggest(path)}")


def _skip_links(paths: Sequence[Path]) -> list[Path]:
    """Return each file once, by the path with fewest links: not `latest.jsonl`, but its file."""
    ways: dict[str, Path] = {}
    for path in paths:
        other = ways.setdefault(os.path.realpath(path), path)
        if other != path and _count_links(path) < _count_links(other):
            ways[os.path.realpath(path)] = path
    shortest = set(ways.values())
    return list(dict.fromkeys(path for path in paths if path in shortest))


def _count_links(path: Path) -> int:
    return sum(part.is_symlink() for part in (path, *path.parents))


def _suggest(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f"; the folder {parent} does not exist either"
    return did_you_mean(path.name, sorted(os.listdir(parent))) or f"; check what is in {parent}"


def _list_shards(folder: Path, split: str | None) -> list[Path]:
    """Return the shards of a folder: its files of one kind, without hidden ones and results.

    Of a folder that `select`, `curate` or `correct` wrote, and of a job's snapshot, the kept rows.

    Raises:
        InputError: there are none, or not of one kind and split.
        ManifestError: a file of kept rows is not as it was written.
    """
    results = {path.parent for path in folder.rglob(MANIFEST) if read_identity(path.parent) is not None}
    paths = find_subset_files(folder) if folder in results else folder.rglob("*")
    for path in paths if folder in results else ():
        check_file(path)
    nested = results - {folder}
    shards = [path for path in sorted(paths) if _is_shard(path, folder) and nested.isdisjoint(path.parents)]
    if not shards:
        raise InputError(f"{folder}: a folder must hold files of rows ({KNOWN}), found none")
    names = {path: _parse_split(path.relative_to(folder)) for path in shards}
    splits = sorted({name for name in names.values() if name is not None})
    if split is not None:
        chosen = [path for path in shards if names[path] == split]
        if not chosen:
            raise InputError(f"{folder}: split '{split}' not found; there are: {', '.join(splits) or 'none'}")
        shards = chosen
    elif len(splits) > 1:
        raise InputError(f"{folder}: the folder holds the splits {', '.join(splits)}; choose one with --split")
    kinds = sorted({detect_file_format(path).suffix for path in shards})
    if len(kinds) > 1:
        raise InputError(f"{folder}: a folder must hold files of one kind, found {', '.join(kinds)}; name a glob")
    return shards


def find_subset_files(folder: Path) -> list[Path]:
    """Return the files of kept rows in a folder of results: one, or one for each shard.

    `select` calls them subset, `curate` and `correct` rows; a snapshot of a job has shards in
    `data`.
    """
    patterns = ("subset.*", "subset-*.*", "rows.*", "data/rows-*.parquet")
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def _is_shard(path: Path, folder: Path) -> bool:
    is_hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    return not is_hidden and path.name not in _METADATA and _parse_suffixes(path) is not None and path.is_file()


def _parse_split(path: Path) -> str | None:
    match = _SPLIT.search(path.as_posix())
    return None if match is None else match.group(1)


def _parse_suffixes(path: Path) -> tuple[str, str] | None:
    """Return (suffix, compression) of a file that can be read, else None."""
    suffix, compression = path.suffix.lower(), ""
    if suffix in COMPRESSIONS:
        suffix, compression = Path(path.stem).suffix.lower(), suffix
    if suffix in TEXT_SUFFIXES or (suffix in TABLE_SUFFIXES and not compression):
        return suffix, compression
    return None


def detect_file_format(path: Path) -> FileToRead:
    """Return how to read a file, from its name.

    Raises:
        InputError: the suffix is unknown, or the name is not UTF-8.
    """
    refuse_other_bytes(path)
    suffixes = _parse_suffixes(path)
    if suffixes is None:
        advice = "save the sheet as CSV" if path.suffix.lower() in WORKBOOKS else "rename or convert the file"
        raise InputError(
            f"{path}: the name must end in one of {KNOWN} (text files also with {', '.join(COMPRESSIONS)}), "
            f"got '{path.suffix or path.name}'; {advice}"
        )
    return FileToRead(path=path, suffix=suffixes[0], compression=suffixes[1])
