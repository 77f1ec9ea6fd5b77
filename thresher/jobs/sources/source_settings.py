"""How each source of a job is read, and the columns in which the snapshots hold all of them.

A job is a mixture where any source has a schema, columns or a mark of wanted rows of its own: then
each source is read in its own way, and its rows get the columns of the snapshots, which the first
run chooses. Else all sources are read as the first rows are, and keep their columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from thresher.dataset import Dataset, Schema, load
from thresher.dataset.mixture.join import Reading, choose_common_schema, list_used_columns
from thresher.dataset.schema import build_mapped_schema, build_named_schema
from thresher.errors import SettingsError
from thresher.jobs.job_file import Job
from thresher.jobs.settings import Source
from thresher.jobs.sources.scan import SourceFile


def has_own_settings(source: Source) -> bool:
    """Tell whether a source says how its rows are read."""
    return not (source.schema_name is None and source.columns is None and source.wanted is None)


class SourceSettings:
    """How the sources of a job are read.

    Attributes:
        schema: of the rows of the snapshots; None until the first rows were read.
        is_mixture: each source is read in its own way.
    """

    def __init__(self, job: Job, schema: Schema | None) -> None:
        """Look at a job; `schema` is that of its snapshots, None before the first run."""
        self._job = job
        self.schema = schema
        changed_wanted = schema is not None and schema.wanted != job.settings.rows.wanted
        self.is_mixture = changed_wanted or any(map(has_own_settings, job.settings.sources))

    def group_files(self, files: Sequence[SourceFile]) -> Iterator[list[SourceFile]]:
        """Yield files that are read together: of a mixture those of one source, else all."""
        if not self.is_mixture:
            yield list(files)
            return
        for _, group in groupby(files, key=lambda one: one.source):
            yield list(group)

    def load(self, name: str, rows: Any, *, config: str | None = None, split: str | None = None) -> Dataset:
        """Load rows of a source.

        Args:
            name: of the source.
            rows: of it, as `thresher.load` takes them.
            config: of a Hub dataset.
            split: of a Hub dataset.

        Raises:
            InputError: they cannot be read, or none is usable.
        """
        reading = self._job.settings.rows
        how = self._choose_options(self._find_source(name))
        dataset = load(rows, config=config, split=split, max_row_bytes=reading.max_row_bytes, **how)
        if self.schema is None and not self.is_mixture:
            self.schema = replace(dataset.schema, label_names=None, integer_columns=frozenset())
        # snapshots do not say which class a number is, so they hold names
        names = frozenset(column for shard in dataset.shards for column in shard.label_names)
        return replace(dataset, decoded_columns=names)

    def _find_source(self, name: str) -> Source:
        sources = self._job.settings.sources
        return next(source for number, source in enumerate(sources) if self._job.source_name(number) == name)

    def _choose_options(self, source: Source) -> dict[str, Any]:
        reading = self._job.settings.rows
        wanted = {"wanted": source.wanted or reading.wanted}
        if source.columns is not None or source.schema_name is not None:
            return {"columns": source.columns, "schema": source.schema_name, **wanted}
        if self.schema is not None and not self.is_mixture:
            return {"schema": self.schema}
        return {"columns": reading.columns, "schema": reading.schema_name, **wanted}

    def choose_schema(self, datasets: Sequence[tuple[str, Dataset]]) -> Schema | None:
        """Return the schema of the snapshots, which the first rows of a mixture decide.

        Sources without rows count by what the job says of them.

        Args:
            datasets: name of the source and rows, of each part that was read.

        Raises:
            InputError: the sources hold rows of several kinds.
        """
        if self.schema is None and self.is_mixture and datasets:
            readings = [
                Reading(name=name, schema=rows.schema, column_names=list_used_columns(rows.schema, rows.shards))
                for name, rows in datasets
            ]
            read = {name for name, _ in datasets}
            for number, source in enumerate(self._job.settings.sources):
                name = self._job.source_name(number)
                if name not in read and (schema := build_declared_schema(source)) is not None:
                    required = [column for group in schema.required for column in group]
                    readings.append(Reading(name=name, schema=schema, column_names=required))
            common = choose_common_schema(readings)
            self.schema = replace(common, label_names=None, integer_columns=frozenset())
        return self.schema


def build_declared_schema(source: Source) -> Schema | None:
    """Return the schema that a source names or maps; None where its rows decide."""
    if source.columns is not None:
        return replace(build_mapped_schema(source.columns), wanted=source.wanted)
    if source.schema_name is not None:
        return replace(build_named_schema(source.schema_name), wanted=source.wanted)
    return None


def check_same_columns(job: Job, schema: Schema | None) -> None:
    """Refuse a job file whose sources do not fit into the columns that its snapshots hold.

    Raises:
        SettingsError: it says so; the rows of one folder have one schema.
    """
    if schema is None:
        return
    settings = SourceSettings(job, schema)
    if settings.is_mixture:
        _check_kinds(job, schema)
        return
    reading = job.settings.rows
    mapped = None if reading.columns is None else build_mapped_schema(reading.columns)
    is_other = mapped is not None and (
        (mapped.kind, mapped.required) != (schema.kind, schema.required)
        or any(schema.columns.get(role) != names for role, names in mapped.columns.items())
    )
    if is_other or reading.schema_name not in (None, schema.name):
        asked = reading.schema_name if mapped is None else mapped.describe(mapped.column_names)
        raise SettingsError(
            f"{job.path}: [rows] must read what the snapshots in {job.output_folder} hold, "
            f"{schema.describe(schema.column_names)}, found {asked}; set it back, or name another folder in [output]"
        )


def _check_kinds(job: Job, schema: Schema) -> None:
    """Refuse sources whose rows have no place in the snapshots, as far as the job file tells.

    Raises:
        SettingsError: there is one.
    """
    for number, source in enumerate(job.settings.sources):
        own = build_declared_schema(source)
        if own is not None and own.kind != schema.kind:
            raise SettingsError(
                f"{job.path}: the source {job.source_name(number)} must hold rows as the snapshots in "
                f"{job.output_folder}, {schema.kind} ({schema.describe(schema.column_names)}), found {own.kind} "
                f"({own.name}); name its columns, or another folder in [output]"
            )
