"""Loading: from anything that holds rows to a `Dataset`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

import polars as pl

from thresher.artifacts.folder import MANIFEST, expand_path
from thresher.dataset.dataset import Dataset
from thresher.dataset.formats.shard import Shard, sample_rows
from thresher.dataset.read_shards import read_rows
from thresher.dataset.rejection import NoRowsError, count_values, format_rejected
from thresher.dataset.schema import (
    MAP_SYNTAX,
    Schema,
    ask_about_target,
    build_mapped_schema,
    check_columns_exist,
    count_columns,
    infer_column_types,
    recognize_schema,
)
from thresher.dataset.settings import ReadOptions, ReadSettings
from thresher.dataset.sources import TABLE_SUFFIXES, FileToRead, detect_file_format, find_files
from thresher.dataset.values.class_names import check_label_names, find_label_names, list_disagreeing_columns
from thresher.dataset.values.labels import are_number_labels
from thresher.dataset.values.marks import refuse_marks, refuse_pairs
from thresher.dataset.values.notes import count_labels, list_file_notes, list_notes
from thresher.errors import InputError, SettingsError
from thresher.validation import document_options, split_options

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import pyarrow as pa

    Source: TypeAlias = (
        str
        | Path
        | Sequence[str | Path]
        | Iterable[Mapping[str, Any]]
        | pa.Table
        | pl.DataFrame
        | pl.LazyFrame
        | pd.DataFrame
        | datasets.Dataset
        | datasets.DatasetDict
    )

MAX_ROW_BYTES = 4 << 20
_NOT_ARROW = (pl.Object, pl.Int128, pl.UInt128)
_ANY = Schema(name="text", kind="text", columns={"text": ("text",)})


@document_options(ReadSettings)
def load(source: Source, *, extra_columns: Sequence[str] = (), **options: Unpack[ReadOptions]) -> Dataset:
    """Load rows to select from or to train on.

    Rows that cannot be used are rejected: `Dataset.rejected` has them with file, line and reason.

    Args:
        source: a path, a glob, a list of paths, a folder of shards, a folder of
            `datasets.save_to_disk`, a Hub id "owner/name", "-" for standard input (JSONL, or JSON
            when it begins with "["), a `datasets.Dataset`, a polars or pandas frame, a pyarrow
            Table, or a list or an iterator of dicts.
        extra_columns: columns that will be asked for with `Dataset.column`: checked to exist, and
            read now.
        **options: fields of `ReadSettings`. The schema may be that of another Dataset, to read
            these rows as those were read; `columns` maps a role to a column of yours ("A+B" joins
            columns): prompt and response (and system), or text and label, or text, or messages.

    Raises:
        InputError: the source cannot be read, no schema fits, no row is usable, or `strict` and a
            row is not.
        NotFoundError: a column or a split is not there.
        SettingsError: an option is unknown or illegal, or names no schema or role.
        MissingExtraError: a Hub id was given and `datasets` is not installed.
    """
    (read,) = split_options("load", options, ReadSettings)
    if isinstance(source, Dataset):
        raise InputError("load: rows are loaded once, got a Dataset; hand it over as it is")
    _refuse_both(read.schema, read.columns)
    limit = MAX_ROW_BYTES if read.max_row_bytes is None else read.max_row_bytes
    shards = _open(source, config=read.config, split=read.split, max_row_bytes=limit)
    chosen = _choose_schema(
        shards,
        schema=read.schema,
        columns=read.columns,
        id_column=read.id_column,
        wanted=read_wanted(source) if read.wanted is None else read.wanted,
    )
    dataset = _read(shards, chosen)
    if dataset.n_rejected and read.strict:
        raise InputError(
            f"{dataset.n_rejected} of {dataset.n_read} rows cannot be used: {format_rejected(dataset.rejected, 3)}; "
            "fix them, or load without strict to reject them"
        )
    if len(dataset) == 0:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in list(dataset.rejected_by_reason.items())[:3])
        raise NoRowsError(
            f"{shards[0].name}: at least one usable row is required, found none in {dataset.n_read} rows "
            f"({reasons or 'the table is empty'}); they were read as {chosen.describe(dataset.column_names)}; "
            f"to read others give {MAP_SYNTAX}{shards[0].advice}",
            dataset.rejected,
        )
    for name in extra_columns:
        dataset.column(name)
    return dataset


def read_wanted(source: Any) -> str | None:
    """Return the column that marks wanted rows where a folder of results says so."""
    if not isinstance(source, str | Path):
        return None
    try:
        content = json.loads((expand_path(source) / MANIFEST).read_bytes())
        wanted = content["schema"]["wanted"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return wanted if isinstance(wanted, str) else None


def ensure_dataset(rows: Any) -> Dataset:
    """Return a Dataset as it is, and load anything else."""
    return rows if isinstance(rows, Dataset) else load(rows)


def load_shard(path: str | Path, schema: Schema, *, max_row_bytes: int = MAX_ROW_BYTES) -> Dataset:
    """Load one file of a larger pool as the pool's schema says; it may hold no usable row.

    Args:
        path: of the file.
        schema: of the pool, from `infer_schema`: nothing is recognized or looked up anew.
        max_row_bytes: longer rows of a text file are rejected.

    Raises:
        InputError: the file cannot be read.
    """
    return _read([_open_file(detect_file_format(Path(path)), max_row_bytes)], schema)


def infer_schema(
    paths: Sequence[str | Path],
    *,
    schema: str | Schema | None = None,
    columns: Mapping[str, str] | None = None,
    id_column: str | None = None,
    wanted: str | None = None,
    max_row_bytes: int = MAX_ROW_BYTES,
) -> Schema:
    """Return the schema of a pool, from the first of its files that has rows; others stay unopened.

    The arguments behind the paths are those of `load`.

    Raises:
        InputError: the file cannot be read, no file holds a row, or no schema fits.
        SettingsError: the schema's name or a role is unknown.
    """
    _refuse_both(schema, columns)
    opened = (_open_file(detect_file_format(Path(path)), max_row_bytes) for path in paths)
    shards = next(([shard] for shard in opened if _has_rows(shard)), None)
    if shards is None:
        shards = [_open_file(detect_file_format(Path(paths[0])), max_row_bytes)]
    return _choose_schema(shards, schema=schema, columns=columns, id_column=id_column, wanted=wanted)


def _refuse_both(schema: str | Schema | None, columns: Mapping[str, str] | None) -> None:
    """Refuse a schema together with a mapping of columns.

    Raises:
        SettingsError: both were given.
    """
    if schema is not None and columns is not None:
        raise SettingsError(f"schema '{schema}' and a mapping of columns exclude each other; give one of them")


def _read(shards: Sequence[Shard], schema: Schema) -> Dataset:
    _check_files(shards, schema)
    read = read_rows(shards, schema)
    for shard in shards:
        shard.source.check_unchanged()
    for shard, unread in zip(shards, read.unread, strict=True):
        columns = {name: column.values for name, column in unread.items()}
        refuse_marks(columns, schema, names=shard.column_names, where=shard.name)
    dataset = Dataset(
        schema=schema,
        frame=read.frame,
        rejected=read.rejected.frame(),
        n_read=read.n_read,
        shards=tuple(shards),
        shard=read.shard,
        position=read.position,
        decoded_columns=list_disagreeing_columns([shard.label_names for shard in shards]),
    )
    of_files = zip(shards, read.unread, strict=True)
    file_notes = tuple(note for shard, unread in of_files for note in list_file_notes(shard, schema, unread))
    notes = list_notes(file_notes, count_labels(dataset), dataset.rejected_by_reason, read.empty)
    return replace(dataset, notes=notes, file_notes=file_notes)


def _check_files(shards: Sequence[Shard], schema: Schema) -> None:
    """Refuse labels whose classes nobody can tell.

    Raises:
        InputError: the files cannot be read together as this schema.
    """
    names = {}
    for shard in shards:
        if any(one.label_names for one in shards):
            names[shard.name] = find_label_names(schema, shard)
    check_label_names(names, *schema.columns.get("label", ("",)))


def _open(source: Any, *, config: str | None, split: str | None, max_row_bytes: int) -> list[Shard]:
    if isinstance(source, str | Path):
        return _open_path(source, config=config, split=split, max_row_bytes=max_row_bytes)
    if config is not None:
        raise SettingsError(f"config is only for a Hub dataset, got '{config}' with {type(source).__name__}")
    if split is not None and type(source).__module__.partition(".")[0] != "datasets":
        raise SettingsError(f"split is only for a Hub dataset, a folder or a DatasetDict, got '{split}'")
    module = type(source).__module__.partition(".")[0]
    if module == "datasets":
        from thresher.dataset.hub import open_dataset

        return [open_dataset(source, split=split)]
    if isinstance(source, Sequence) and all(isinstance(item, str | Path) for item in source):
        return [_open_file(file, max_row_bytes) for file in find_files(source, split=split)]
    return [_open_in_memory(source, module, max_row_bytes)]


def _open_in_memory(source: Any, module: str, max_row_bytes: int) -> Shard:
    """Open a frame, a table or dicts; `module` is the package that its type comes from."""
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        return _open_polars(source.lazy().collect())
    if type(source).__name__ == "Series":
        raise InputError(
            f"load: rows are required, got a Series of {module}, which is one column; give the frame, or "
            "series.to_frame('text')"
        )
    if callable(source):
        raise InputError(f"load: rows are required, got the function {source.__name__!r}; call it: load(rows())")
    if isinstance(source, Mapping):
        raise InputError(
            "load: rows are required, got a dict; give a list of dicts, one per row, or polars.DataFrame(dict) for a "
            "dict of columns"
        )
    if module == "pandas":
        return _open_pandas(source, max_row_bytes)
    if module == "pyarrow":
        return _open_arrow(source)
    if isinstance(source, Sequence | Iterator) and not isinstance(source, bytes):
        return _open_list(source, "<list>", max_row_bytes)
    raise InputError(
        "load: a path, a frame, a Table, a datasets.Dataset or dicts, one per row, are required, got "
        f"{type(source).__name__}; convert it to one of them"
    )


def _open_path(source: str | Path, *, config: str | None, split: str | None, max_row_bytes: int) -> list[Shard]:
    from thresher.dataset import hub
    from thresher.dataset.formats.text_files import open_text

    source = os.path.expanduser(source) if isinstance(source, str) else expand_path(source)
    if source == "-" and split is None and config is None:
        return [open_text(None, ".json", "", max_row_bytes=max_row_bytes)]
    if Path(source).is_dir() and hub.is_saved(Path(source)):
        return list(hub.open_saved(Path(source), split=split))
    if isinstance(source, str) and hub.is_hub_id(source):
        return [hub.open_hub(source, config=config, split=split)]
    if config is not None:
        raise SettingsError(f"{source}: config is only for a Hub dataset, got '{config}'")
    if split is not None and not Path(source).is_dir():
        raise SettingsError(f"{source}: split is only for a Hub dataset, a folder or a DatasetDict, got '{split}'")
    return [_open_file(file, max_row_bytes) for file in find_files(source, split=split)]


def _open_file(file: FileToRead, max_row_bytes: int) -> Shard:
    if file.suffix in TABLE_SUFFIXES and file.path.stat().st_size:
        from thresher.dataset.formats.table_shard import open_table

        return open_table(file.path, file.suffix)
    from thresher.dataset.formats.text_files import open_text

    return open_text(file.path, file.suffix, file.compression, max_row_bytes=max_row_bytes)


def _open_polars(frame: pl.DataFrame) -> Shard:
    from thresher.dataset.formats.table_shard import wrap_table

    for name, kind in frame.schema.items():
        if kind in _NOT_ARROW:  # polars would hand over addresses in place of objects
            raise InputError(
                f"<polars>: columns must hold values that Arrow has, '{name}' holds {kind}; cast it, or leave it out "
                f"with frame.drop('{name}')"
            )
    return wrap_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), "<polars>")


def _open_arrow(table: Any) -> Shard:
    import pyarrow as pa

    from thresher.dataset.formats.table_shard import wrap_table

    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    if not isinstance(table, pa.Table):
        raise InputError(f"load: of pyarrow a Table or a RecordBatch is required, got {type(table).__name__}")
    return wrap_table(table, "<arrow>")


def _open_pandas(frame: pd.DataFrame, max_row_bytes: int) -> Shard:
    """Return the rows of a pandas frame; one whose columns mix types is read as dicts."""
    import pyarrow as pa

    from thresher.dataset.formats.table_shard import wrap_table

    if not frame.columns.is_unique:
        repeated = frame.columns[frame.columns.duplicated()][0]
        raise InputError(f"<pandas>: the columns of a frame must differ, found '{repeated}' twice; rename one")
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return _open_list(frame.to_dict(orient="records"), "<pandas>", max_row_bytes)
    return wrap_table(table, "<pandas>")


def _open_list(rows: Iterable[Any], name: str, max_row_bytes: int) -> Shard:
    """Write rows to a temporary file as JSON lines, so that they are read like a file's."""
    from thresher.dataset.formats.text_files import open_text

    with tempfile.TemporaryFile() as spool:
        for number, row in enumerate(rows):
            try:
                spool.write(json.dumps(row).encode() + b"\n")
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"{name}: rows must hold what JSON can, row {number} does not ({error}); convert it"
                ) from None
        spool.seek(0)
        return open_text(None, ".jsonl", "", max_row_bytes=max_row_bytes, stream=spool, name=name)


def _has_rows(shard: Shard) -> bool:
    return next(iter(shard.blocks(columns=shard.column_names[:1])), None) is not None


def _choose_schema(
    shards: Sequence[Shard],
    *,
    schema: str | Schema | None,
    columns: Mapping[str, str] | None,
    id_column: str | None,
    wanted: str | None = None,
) -> Schema:
    """Return the schema the user named or mapped, or that of the first rows."""
    first_shard = next((shard for shard in shards if _has_rows(shard)), shards[0])
    where, rows = first_shard.name, sample_rows(first_shard)
    if not rows:
        first = next((block.preview(0) for shard in shards for block in shard.blocks()), "")
        start = f"none that can be read; it begins with {first[:60]!r}" if first else "none"
        unread = read_rows([first_shard], _ANY).rejected.frame()  # any schema gives the reasons
        why = "".join(f" ({count} x {reason})" for reason, count in list(count_values(unread["reason"]).items())[:1])
        advice = first_shard.advice or ("; convert the file with iconv" if "not UTF-8" in why else "")
        raise NoRowsError(f"{where}: rows are required, found {start}{why}{advice}", unread)
    if isinstance(schema, Schema):
        chosen = schema
    elif columns is not None:
        chosen = build_mapped_schema(columns)
    else:
        refuse_pairs(rows, where=where)
        chosen = recognize_schema(rows, name=schema, where=where, advice=first_shard.advice)
        if schema is None:
            ask_about_target(rows, chosen, where=where)
    if wanted is None and any(chosen.wanted in row for row in rows):
        wanted = chosen.wanted  # of the rows whose schema this is
    chosen = replace(chosen, id_column=id_column, wanted=wanted)
    check_columns_exist(chosen, count_columns(rows), where=where)
    if "label" in chosen.columns:
        name = chosen.columns["label"][0]
        labels = [row[name] for row in rows if row.get(name) not in (None, "")]
        chosen = replace(
            chosen, label_names=first_shard.label_names.get(name), has_number_labels=are_number_labels(labels)
        )
    return infer_column_types(chosen, rows)
