"""The arrow from a dataset to features, on its own: `score`, for people with rules of their own."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import polars as pl

from thresher.artifacts.folder import atomic_file, write_atomic, write_csv, write_ndjson, write_parquet
from thresher.artifacts.local_path import expand_path
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.remote.result import publish_files, read_back, stage
from thresher.artifacts.result import Excerpt, Result
from thresher.artifacts.safe_csv import escape_formulas, unescape_formulas
from thresher.artifacts.seal import encode_record, find_damage, hash_file, seal_record
from thresher.artifacts.stored import explain_unreadable
from thresher.dataset import Dataset, load
from thresher.dataset.provenance import (
    describe_reading,
    describe_rows,
    describe_run,
    refuse_input_as_output,
)
from thresher.dataset.values.given import hash_given
from thresher.dataset.values.given_settings import GivenOptions, GivenSettings
from thresher.errors import InputError, ManifestError, OutputError
from thresher.features.container import current_name
from thresher.models.settings import ModelOptions, ModelSettings
from thresher.validation import document_options, split_options

if TYPE_CHECKING:
    from thresher.features import Features, Progress
    from thresher.features.plan import FeaturesPlan

FLAT = (".csv", ".jsonl", ".ndjson")
SUFFIXES = (".parquet", *FLAT)


@dataclass(frozen=True, kw_only=True, repr=False)
class FeatureTable(Result):
    """Features of a dataset's rows, in the order of its file.

    Attributes:
        frame: one row per row of the dataset: `row_id`, a column per feature (null where a row has
            no value), and `NAME_missing` with the reason for features that can lack values. A
            feature of several numbers is a column of arrays (`embedding`), one of named parts a
            column for each part (`in_context_utility_example`, `in_context_utility_utility`).
        manifest: the rows, the models behind each feature, and the versions.
        path: of the file, or None when none was asked for.
    """

    frame: pl.DataFrame
    manifest: Manifest
    path: Path | None = None

    @staticmethod
    def read(path: str | Path) -> FeatureTable:
        """Read a table back.

        Raises:
            ManifestError: it is no table that `score` wrote, or is damaged.
        """
        file = Path(path)
        beside = _manifest_path(file)
        if not beside.is_file():
            raise ManifestError(f"{file}: must be a table that score wrote, found no {beside.name} beside it")
        damage = find_damage(file.parent, beside.name)
        if damage is not None:
            raise ManifestError(f"{damage}; write the table again")
        return FeatureTable(frame=_read(file), manifest=Manifest.read_file(beside), path=file)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.frame)

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the number of rows and the columns."""
        return [("rows", f"{len(self):,}"), ("columns", ", ".join(self.frame.columns))]

    def list_excerpts(self) -> list[Excerpt]:
        """Return the first rows."""
        first = self.frame.head()
        return [Excerpt("Rows", first.columns, first.rows())]

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the table, whole or not at all, and its manifest beside it as `PATH.manifest.json`.

        Args:
            path: ends in .parquet, .csv or .jsonl; columns of arrays need .parquet or .jsonl.
            force: replace a table that `score` wrote.

        Raises:
            OutputError: the file is there already, cannot be written, or its format cannot hold a
                column.
        """
        path = expand_path(stage(path))
        _check_suffix(path)
        read_back(path, _manifest_path(path))
        nested = [name for name, kind in self.frame.schema.items() if kind.is_nested()]
        if path.suffix == ".csv" and nested:
            raise OutputError(f"{path}: a CSV file holds plain values, '{nested[0]}' has several; choose .parquet")
        if not _is_free(path, self.manifest.identity, force=force):
            return path
        _make_parent(path)
        with atomic_file(path) as temporary:
            _write(self.frame, temporary, path.suffix)
            # a kill from here on must not leave an old table beside a new manifest
            path.unlink(missing_ok=True)
            sealed = seal_record(self.manifest.content, {path.name: hash_file(temporary)})
            write_atomic(_manifest_path(path), encode_record(sealed))
        publish_files(_manifest_path(path), path)
        return path


class ScoreOptions(ModelOptions, GivenOptions, total=False):
    """Fields of `GivenSettings` and `ModelSettings` as keyword arguments, for type checkers."""


@document_options(GivenSettings, ModelSettings)
def score(
    pool: Any,
    features: str | Iterable[str],
    *,
    reference: str | None = None,
    examples: Any = None,
    out: str | Path | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Unpack[ScoreOptions],
) -> FeatureTable:
    """Compute features for every row: what the selectors see, for your own rules.

    Args:
        pool: a Dataset, or anything `load` accepts.
        features: names, as a list or with commas: "length", "embedding", "loss", "number:COLUMN"
            and so on.
        reference: model or adapter that has learned such rows, for `reference_loss`.
        examples: rows whose worth as in-context examples `in_context_utility` measures. Default:
            the pool's own.
        out: file to write, .parquet, .csv or .jsonl; a finished one is read back.
        force: replace an earlier table in `out`.
        on_progress: called with a Progress while features are computed.
        **options: fields of `GivenSettings` and `ModelSettings`.

    Raises:
        InputError: no feature is named, or one cannot be computed of these rows.
        NotFoundError: there is no such feature, column or encoder.
        OutputError: `out` holds something else.
    """
    from thresher.features import FeatureContext, compute, fingerprints

    names = parse_names(features)
    refuse_unused_examples(names, examples)
    if reference is not None and "reference_loss" not in names:
        raise InputError(
            f"reference: only reference_loss reads it, found {', '.join(names)}; add reference_loss, or leave it out"
        )
    given, models = split_options("score", options, GivenSettings, ModelSettings)
    rows = given.attach(pool if isinstance(pool, Dataset) else load(pool))
    beside = examples if examples is None or isinstance(examples, Dataset) else load(examples)
    context = FeatureContext(
        models=models, reference=reference, examples=beside, on_progress=on_progress, given=hash_given(rows)
    )
    context = context.resolved()
    request = {"features": names, "pool": rows.fingerprint, "models": fingerprints(names, context, kind=rows.kind)}
    read = [describe_reading(each) for each in (rows, beside) if each is not None]
    identity = digest({"request": request, "read": read, "thresher": versions(())})
    path = None if out is None else expand_path(stage(out))
    if path is not None:
        _check_suffix(path)
        refuse_input_as_output(path, [each for each in (rows, beside) if each is not None])
        read_back(path, _manifest_path(path))
        if not _is_free(path, identity, force=force):
            return FeatureTable(frame=_read(path), manifest=Manifest.read_file(_manifest_path(path)), path=path)
        _make_parent(path)
    computed = compute(rows, names, context)
    content = {
        "format": FORMAT,
        "kind": "features",
        "identity": identity,
        **request,
        **_describe_result(rows, computed),
    }
    table = FeatureTable(frame=_table(computed, names), manifest=Manifest(content), path=path)
    if path is not None:
        table.save(path, force=force)
    return table


def plan_score(
    rows: Dataset,
    names: Sequence[str],
    models: ModelSettings,
    *,
    reference: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> FeaturesPlan:
    """Estimate what `score` of these features will take; nothing is written.

    Args:
        rows: to compute them of.
        names: of the features, from `parse_names`.
        models: which models are run, and how.
        reference: as for `score`.
        on_progress: listener.
    """
    from thresher.features import FeatureContext
    from thresher.features.plan import plan_features

    context = FeatureContext(models=models, reference=reference, on_progress=on_progress, given=hash_given(rows))
    return plan_features(rows, names, context.resolved())


def _table(computed: Features, names: Iterable[str]) -> pl.DataFrame:
    """Return features as columns, in the order of the names."""
    columns = [computed.row_id.alias("row_id")]
    for name in names:
        values = computed[name]
        parts = {name: values}
        if values.dtype.names is not None:
            parts = {f"{name}_{part}": values[part] for part in values.dtype.names}
        for column, array in parts.items():
            series = pl.Series(column, np.ascontiguousarray(array))
            columns.append(series.fill_nan(None) if array.ndim == 1 and series.dtype.is_float() else series)
        if name in computed.missing:
            columns.append(computed.missing[name].alias(f"{name}_missing"))
        if name in computed.reasons:
            columns.append(computed.reasons[name].alias(f"{name}_reasons"))
    return pl.DataFrame(columns)


def _check_suffix(path: Path) -> None:
    """Refuse a file name that tells no format that can be written.

    Raises:
        OutputError: it ends in something else.
    """
    if path.suffix not in SUFFIXES:
        raise OutputError(f"{path}: must end in one of {', '.join(SUFFIXES)}, got '{path.suffix}'; rename it")


def _make_parent(path: Path) -> None:
    """Make the folder of a file, before hours are spent on what will stand there.

    Raises:
        OutputError: it cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OutputError(
            f"{path}: its parent folder must be writable, got '{error.strerror}'; choose another --out"
        ) from None


def _is_free(path: Path, identity: str, *, force: bool) -> bool:
    """Return whether a table is still to be written: not when the same work has finished.

    Raises:
        ManifestError: its manifest is damaged.
        OutputError: something else is there, or a damaged table, and `force` is not set or `score`
            did not write it.
    """
    beside = _manifest_path(path)
    if not path.exists():
        return True
    theirs = Manifest.read_file(beside) if beside.is_file() else None
    if theirs is not None and theirs.identity == identity:
        damage = find_damage(path.parent, beside.name)
        if damage is None:
            return False
        if not force:
            raise OutputError(f"{damage}; write the table again with --force, or choose another --out")
    if theirs is None or not force:
        hint = "replace it with --force, or choose another --out" if theirs is not None else "choose another --out"
        raise OutputError(f"{path}: must be a new file, found one of other work; {hint}")
    return True


def parse_names(features: str | Iterable[str]) -> list[str]:
    """Return the names of features, from a list or a text with commas.

    Raises:
        InputError: there is none.
    """
    parts = features.split(",") if isinstance(features, str) else features
    names = list(dict.fromkeys(current_name(part.strip()) for part in parts if part.strip()))
    if not names:
        raise InputError("features: must name at least one, got none; for example length,loss")
    return names


def refuse_unused_examples(names: Sequence[str], examples: object) -> None:
    """Refuse rows to try as examples where no feature tries any, before they are read.

    Raises:
        InputError: it says so.
    """
    from thresher.features.registry import is_pairwise

    if examples is not None and not any(map(is_pairwise, names)):
        raise InputError(f"examples: none of the features {', '.join(names)} tries any; leave them out")


def _describe_result(rows: Dataset, computed: Features) -> dict[str, Any]:
    """Return what the manifest says of the rows and of what came out."""
    return {
        **describe_rows(
            rows, {"missing": {name: int(why.is_not_null().sum()) for name, why in computed.missing.items()}}
        ),
        "feature_notes": {name: dict(notes) for name, notes in computed.notes.items()},
        "versions": versions(),
        "run": describe_run(rows),
    }


def _manifest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.manifest.json")


def _write(frame: pl.DataFrame, path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        write_parquet(frame, path)
    elif suffix == ".csv":
        write_csv(escape_formulas(frame), path)
    else:
        write_ndjson(frame, path)


def _read(path: Path) -> pl.DataFrame:
    """Read a table back.

    Raises:
        ManifestError: it cannot be read.
    """
    with explain_unreadable(path):
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        if path.suffix == ".csv":
            table = pl.read_csv(path, schema_overrides={"row_id": pl.String}, infer_schema_length=None)
            return unescape_formulas(table)
        return pl.read_ndjson(path, infer_schema_length=None)
