"""From what a user names or hands over to shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thresher.artifacts.local_path import expand_path
from thresher.artifacts.remote.fetch import localize
from thresher.dataset.formats.shard import Shard
from thresher.dataset.opening.in_memory import open_in_memory
from thresher.dataset.sources import TABLE_SUFFIXES, FileToRead, find_files
from thresher.errors import SettingsError


def open_rows(source: Any, *, config: str | None, split: str | None, max_row_bytes: int) -> list[Shard]:
    """Open what a user named or handed over.

    Args:
        source: as for `load`.
        config: of a Hub data set.
        split: of a Hub or saved data set, or of a folder.
        max_row_bytes: longer rows are rejected.

    Raises:
        InputError: it cannot be read.
        NotFoundError: there is no such split.
        SettingsError: configuration or split are given for something that has none.
    """
    if isinstance(source, str | Path):
        return _open_path(source, config=config, split=split, max_row_bytes=max_row_bytes)
    if config is not None:
        raise SettingsError(f"config is only for a Hub dataset, got '{config}' with {type(source).__name__}")
    if split is not None and type(source).__module__.partition(".")[0] != "datasets":
        raise SettingsError(f"split is only for a Hub dataset, a folder or a DatasetDict, got '{split}'")
    module = type(source).__module__.partition(".")[0]
    if module == "datasets":
        from thresher.dataset.hub import open_dataset

        return [open_dataset(source, split=split, max_row_bytes=max_row_bytes)]
    if isinstance(source, Sequence) and all(isinstance(item, str | Path) for item in source):
        return [open_file(file, max_row_bytes) for file in find_files(source, split=split)]
    return [open_in_memory(source, module, max_row_bytes)]


def _open_path(source: str | Path, *, config: str | None, split: str | None, max_row_bytes: int) -> list[Shard]:
    from thresher.dataset import hub
    from thresher.dataset.formats.text_files import open_text

    is_text = isinstance(source, str)
    source = localize(source)
    source = str(expand_path(source)) if is_text else expand_path(source)
    if source == "-" and split is None and config is None:
        return [open_text(None, ".json", "", max_row_bytes=max_row_bytes)]
    if Path(source).is_dir() and hub.is_saved(Path(source)):
        return list(hub.open_saved(Path(source), split=split, max_row_bytes=max_row_bytes))
    if isinstance(source, str) and hub.is_hub_id(source):
        return [hub.open_hub(source, config=config, split=split, max_row_bytes=max_row_bytes)]
    if config is not None:
        raise SettingsError(f"{source}: config is only for a Hub dataset, got '{config}'")
    if split is not None and not Path(source).is_dir():
        raise SettingsError(f"{source}: split is only for a Hub dataset, a folder or a DatasetDict, got '{split}'")
    return [open_file(file, max_row_bytes) for file in find_files(source, split=split)]


def open_file(file: FileToRead, max_row_bytes: int) -> Shard:
    """Open a file of rows; longer rows are rejected.

    Raises:
        InputError: it cannot be read.
    """
    if file.suffix in TABLE_SUFFIXES and file.path.stat().st_size:
        from thresher.dataset.formats.table_shard import open_table

        return open_table(file.path, file.suffix, max_row_bytes=max_row_bytes)
    from thresher.dataset.formats.text_files import open_text

    return open_text(file.path, file.suffix, file.compression, max_row_bytes=max_row_bytes)
