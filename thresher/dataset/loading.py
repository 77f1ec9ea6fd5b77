"""Loading: from anything that holds rows to a `Dataset`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from thresher.dataset.dataset import Dataset
from thresher.dataset.formats.shard import Shard, sample_rows
from thresher.dataset.mixture.join import Reading, join_datasets, list_used_columns
from thresher.dataset.mixture.parsing import list_sources
from thresher.dataset.mixture.recorded import adopt_recorded
from thresher.dataset.mixture.source import Source
from thresher.dataset.opening.open_rows import open_file, open_rows
from thresher.dataset.read_shards import DUPLICATED_ID, read_rows
from thresher.dataset.rejection import NoRowsError, count_values, format_rejected
from thresher.dataset.schema import (
    LABELS,
    MAP_SYNTAX,
    Schema,
    build_mapped_schema,
    check_columns_exist,
    count_columns,
    has_columns,
    infer_column_types,
    recognize_schema,
)
from thresher.dataset.settings import ReadOptions, ReadSettings
from thresher.dataset.sources import detect_file_format
from thresher.dataset.values.class_names import check_label_names, find_label_names, list_disagreeing_columns
from thresher.dataset.values.close_guesses import ask_about_columns
from thresher.dataset.values.given_settings import GivenOptions, GivenSettings
from thresher.dataset.values.kept_rows import KeptRows
from thresher.dataset.values.labels import are_number_labels, refuse_wrong_labels
from thresher.dataset.values.marks import refuse_marks, refuse_pairs
from thresher.dataset.values.notes import count_labels, list_file_notes, list_notes
from thresher.errors import InputError, SettingsError
from thresher.validation import document_options, split_options

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    Rows: TypeAlias = (
        str
        | Source
        | Sequence[str | Path | Source]
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
MOST_REPEATED = 0.9  # of the ids; a column of more names no rows
_ANY = Schema(name="text", kind="text", columns={"text": ("text",)})


class LoadOptions(ReadOptions, GivenOptions, total=False):
    """What `load` takes besides the rows, for type checkers."""


@document_options(ReadSettings, GivenSettings)
def load(source: Rows, *, extra_columns: Sequence[str] = (), **options: Unpack[LoadOptions]) -> Dataset:
    """Load rows to select from or to train on.

    Rows that cannot be used are rejected: `Dataset.rejected` has them with file, line and reason.

    Args:
        source: a path, a glob, a list of paths, a folder of shards, a folder of
            `datasets.save_to_disk`, a Hub id "owner/name", "-" for standard input (JSONL, or JSON
            when it begins with "["), a `datasets.Dataset`, a polars or pandas frame, a pyarrow
            Table, what `select`, `curate` or `correct` returned, or a list or an iterator of dicts.
            A list with a `Source` among its members, or
            a TOML file, is several sources side by side, each read in its own way; options are
            for those that do not say otherwise. A text may carry settings: "owner/name:split",
            "owner/name:config:split", "rows.csv:prompt=question,response=answer".
        extra_columns: columns that will be asked for with `Dataset.column`: checked to exist, and
            read now.
        **options: fields of `ReadSettings` and `GivenSettings`. The schema may be that of another
            Dataset, to read these rows as those were read; `columns` maps a role to a column of
            yours ("A+B" joins columns): prompt and response (and system), or text and label, or
            text, or messages.

    Raises:
        InputError: the source cannot be read, no schema fits, no row is usable (of several sources:
            of any of them), or `strict` and a row is not.
        NotFoundError: a column or a split is not there.
        SettingsError: an option is unknown or illegal, or names no schema or role.
        MissingExtraError: a Hub id was given and `datasets` is not installed.
    """
    read, given = split_options("load", options, ReadSettings, GivenSettings)
    dataset: Dataset = given.attach(_load_sources(source, read))
    for name in extra_columns:
        dataset.column(name)
    return dataset


def load_side_rows(rows: Any, read: ReadSettings) -> Dataset:
    """Load rows beside a pool: as the pool where they have its columns, else in their own way.

    Args:
        rows: anything that `load` takes.
        read: of the pool. Its schema or columns count where the rows have these columns, its ids
            and its mark of wanted rows where they have that column; settings of the rows' own come
            first.

    Raises:
        InputError: the rows cannot be read, or none is usable.
    """
    return _load_sources(rows, read, is_side=True)


def _load_sources(rows: Any, read: ReadSettings, *, is_side: bool = False) -> Dataset:
    """Load what a user named, each source by its own settings; the others are for all."""
    if isinstance(rows, KeptRows):
        if read != ReadSettings() and not is_side:
            raise InputError(f"load: the rows of a {type(rows).__name__} are already read; leave the options out")
        return rows.dataset
    _refuse_both(read.schema, read.columns)
    sources = list_sources(rows)
    parts = [_load_source(source, read, is_side=is_side, is_alone=len(sources) == 1) for source in sources]
    return parts[0] if len(parts) == 1 else join_datasets(parts, [source.label for source in sources])


def _load_source(source: Source, read: ReadSettings, *, is_side: bool, is_alone: bool) -> Dataset:
    own = source.settings
    if isinstance(source.rows, Dataset):
        if is_alone or own:
            raise InputError("load: rows are already loaded, got a Dataset; pass it directly")
        return source.rows
    for name in ("config", "split"):
        if is_alone and name in own and getattr(read, name) is not None:
            raise SettingsError(f"{source.label}: the {name} is given twice, and as '{getattr(read, name)}'; give one")
    soft = {"schema", "wanted", "id_column"} - own.keys() if is_side else set()
    if own.keys() & {"schema", "columns"}:
        read, soft = replace(read, schema=None, columns=None), soft - {"schema"}
    read, recorded = adopt_recorded(source.rows, replace(read, **own), with_id=is_alone)
    try:
        return _load_one(source.rows, read, frozenset(soft) | recorded)
    except NoRowsError as error:
        if is_alone or str(error).startswith(source.label):
            raise
        raise NoRowsError(f"{source.label}: {error}", error.rejected) from None


def _load_one(rows: Any, read: ReadSettings, soft: frozenset[str]) -> Dataset:
    """Load one source; `soft` as in `_choose_schema`."""
    limit = MAX_ROW_BYTES if read.max_row_bytes is None else read.max_row_bytes
    shards = open_rows(rows, config=read.config, split=read.split, max_row_bytes=limit)
    chosen = _choose_schema(
        shards,
        schema=read.schema,
        columns=read.columns,
        id_column=read.id_column,
        wanted=read.wanted,
        soft=soft,
    )
    dataset = _read(shards, chosen)
    if dataset.n_rejected and read.strict:
        raise InputError(
            f"{dataset.n_rejected} of {dataset.n_read} rows cannot be used: {format_rejected(dataset.rejected, 3)}; "
            "fix them, or load without strict to reject them"
        )
    repeats = dataset.rejected_by_reason.get(DUPLICATED_ID.format(chosen.id_column), 0)
    if repeats > MOST_REPEATED * dataset.n_read:
        raise InputError(
            f"id_column '{chosen.id_column}': must name each row, but {repeats:,} of {dataset.n_read:,} rows "
            f"repeat the id of an earlier row; choose another column, or leave it out to use a hash of each row"
        )
    if len(dataset) == 0:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in list(dataset.rejected_by_reason.items())[:3])
        raise NoRowsError(
            f"{shards[0].name}: at least one usable row is required, found none in {dataset.n_read} rows "
            f"({reasons or 'the table is empty'}); they were read as {chosen.describe(dataset.column_names)}; "
            f"to read others give {MAP_SYNTAX}{shards[0].advice}",
            dataset.rejected,
        )
    return dataset


def load_unlabeled(rows: Any, read: ReadSettings) -> tuple[Dataset, Dataset | None]:
    """Return rows of text of which some may have a label: all as texts, and the labeled or None.

    Args:
        rows: anything `load` accepts but several sources; a row may have no label.
        read: how they are read.

    Raises:
        InputError: as `load`; or the rows are pairs of prompt and response.
    """
    _refuse_both(read.schema, read.columns)
    if isinstance(rows, Dataset) and rows.kind == "text":
        return rows, None
    is_free = read.schema is None and read.columns is None
    read, recorded = adopt_recorded(rows, read)
    if isinstance(rows, Dataset):
        shards, chosen = list(rows.shards), rows.schema
    else:
        shards = open_rows(
            rows, config=read.config, split=read.split, max_row_bytes=read.max_row_bytes or MAX_ROW_BYTES
        )
        chosen = _choose_schema(
            shards,
            schema=_add_label(read.schema, _find_label_column(shards)) if is_free else read.schema,
            columns=read.columns,
            id_column=read.id_column,
            soft=recorded,
        )
    if chosen.kind == "sft":
        raise InputError(
            f"{shards[0].name}: rows of text without an answer are required, found {chosen.name} rows of prompt and "
            "response; name the text that is to be labeled with --map text=COLUMN"
        )
    columns = {"text": chosen.columns["text"]}
    texts = _read(shards, replace(chosen, name="text", kind="text", columns=columns, label_names=None))
    if not len(texts):
        raise InputError(f"{shards[0].name}: at least one row with a text is required, found none")
    labeled = _read(shards, chosen) if chosen.kind == "classification" else None
    if labeled is not None:
        refuse_wrong_labels(labeled.rejected_by_reason, chosen.columns["label"][0], shards[0].name)
    return texts, labeled or None


def _add_label(schema: str | Schema | None, label: str | None) -> str | Schema | None:
    """Return the schema of rows of which some may have a label, from that of their folder."""
    if label is None or not isinstance(schema, Schema):
        return schema if label is None else "text-label"
    if schema.kind != "text" or label in schema.columns["text"]:
        return schema
    return replace(schema, name="mapped", kind="classification", columns={**schema.columns, "label": (label,)})


def _find_label_column(shards: Sequence[Shard]) -> str | None:
    names = {name for shard in shards for name in shard.column_names}
    return next((name for name in LABELS if name in names), None)


def ensure_dataset(rows: Any) -> Dataset:
    """Return a Dataset as it is, and load anything else."""
    return rows if isinstance(rows, Dataset) else load(rows)


def load_shard(path: str | Path, schema: Schema, *, max_row_bytes: int = MAX_ROW_BYTES) -> Dataset:
    """Load one file of a larger pool as the pool's schema says; it may hold no usable row.

    Args:
        path: of the file.
        schema: of the pool, from `infer_reading`: nothing is recognized or looked up anew.
        max_row_bytes: longer rows are rejected.

    Raises:
        InputError: the file cannot be read.
    """
    return _read([open_file(detect_file_format(Path(path)), max_row_bytes)], schema)


def infer_reading(
    paths: Sequence[str | Path], read: ReadSettings, *, name: str, soft: frozenset[str] = frozenset()
) -> Reading:
    """Return how a pool's files are read, from the first that has rows; others stay unopened.

    Args:
        paths: of the files.
        read: what the user says of them.
        name: of the files together.
        soft: settings that are those of a folder of results, see `adopt_recorded`.

    Raises:
        InputError: the file cannot be read, no file holds a row, or no schema fits.
        SettingsError: the schema's name or a role is unknown.
    """
    _refuse_both(read.schema, read.columns)
    limit = MAX_ROW_BYTES if read.max_row_bytes is None else read.max_row_bytes
    opened = (open_file(detect_file_format(Path(path)), limit) for path in paths)
    shards = next(([shard] for shard in opened if _has_rows(shard)), None)
    if shards is None:
        shards = [open_file(detect_file_format(Path(paths[0])), limit)]
    schema = _choose_schema(
        shards,
        schema=read.schema,
        columns=read.columns,
        id_column=read.id_column,
        wanted=read.wanted,
        soft=soft,
    )
    return Reading(name=name, schema=schema, column_names=list_used_columns(schema, shards))


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


def _has_rows(shard: Shard) -> bool:
    return next(iter(shard.blocks(columns=shard.column_names[:1])), None) is not None


def _choose_schema(
    shards: Sequence[Shard],
    *,
    schema: str | Schema | None,
    columns: Mapping[str, str] | None,
    id_column: str | None,
    wanted: str | None = None,
    soft: frozenset[str] = frozenset(),
) -> Schema:
    """Return the schema the user named or mapped, or that of the first rows.

    With "schema" in `soft`, schema and columns count only where the rows have what they need; with
    "wanted" or "id_column", that only where the rows have the column.
    """
    first_shard = next((shard for shard in shards if _has_rows(shard)), shards[0])
    where, rows = first_shard.name, sample_rows(first_shard)
    if not rows:
        first = next((block.preview(0) for shard in shards for block in shard.blocks()), "")
        start = f"none that can be read; it begins with {first[:60]!r}" if first else "none"
        unread = read_rows([first_shard], _ANY).rejected.frame()  # any schema gives the reasons
        why = "".join(f" ({count} x {reason})" for reason, count in list(count_values(unread["reason"]).items())[:1])
        advice = first_shard.advice or ("; convert the file with iconv" if "not UTF-8" in why else "")
        raise NoRowsError(f"{where}: rows are required, found {start}{why}{advice}", unread)
    if "schema" in soft and not has_columns(rows, schema=schema, columns=columns):
        schema = columns = None
    if "wanted" in soft and not any(wanted in row for row in rows):
        wanted = None
    if "id_column" in soft and not any(id_column in row for row in rows):
        id_column = None
    if isinstance(schema, Schema):
        chosen = schema
    elif columns is not None:
        chosen = build_mapped_schema(columns)
    else:
        refuse_pairs(rows, where=where)
        chosen = recognize_schema(rows, name=schema, where=where, advice=first_shard.advice)
        if schema is None:
            ask_about_columns(rows, chosen, where=where)
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
