"""What a job file may say: one frozen model per section, unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]+$")]
Line = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]


def _without_references(path: str) -> str:
    if "${" in path:
        raise ValueError("must be a path as it stands: ${NAME} is filled in only in url and webhook")
    return path


Path = Annotated[Line, AfterValidator(_without_references)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
HubId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$")]
Share = Annotated[float, Field(ge=0, le=1)]
EntryPoint = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]


class Section(BaseModel):
    """Base of the sections: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(Section):
    """One place rows come from: exactly one of `files`, `hub` and `sql`.

    Attributes:
        name: how manifests, drift and weights call it; not set: "files-1", "hub-2", ... by its
            place.
        files: paths, globs and folders, from the folder of the job file.
        hub: "owner/name" of a Hub dataset.
        config: of the Hub dataset.
        split: of the Hub dataset.
        sql: a query whose result holds the rows; `:since` in it becomes the time of `--since`.
        url: of the database, for example "sqlite:///pool.db" or
            "postgresql://me:${PGPASSWORD}@host/db".
    """

    name: Name | None = None
    files: list[Path] | None = Field(default=None, min_length=1)
    hub: HubId | None = None
    config: Line | None = None
    split: Line | None = None
    sql: Text | None = None
    url: Line | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        given = [kind for kind in ("files", "hub", "sql") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"must have exactly one of files, hub and sql, found {' and '.join(given) or 'none'}")
        if (self.sql is None) != (self.url is None):
            raise ValueError("sql and url go together, found only one of them")
        if self.hub is None and (self.config or self.split) is not None:
            raise ValueError("config and split are of a Hub dataset, found them without hub")
        return self


class RowSettings(Section):
    """How rows are read.

    Attributes:
        schema_name: of the rows, as for `load`; not set: recognized from the first rows of the
            first run.
        columns: role -> column, for rows of no known schema.
        unreadable: what a damaged file does: "fail" the run, or "skip" the file, report it and try
            it again next time.
        max_row_bytes: longer rows of text files are rejected.
        settle_s: a file that changed less than so many seconds ago is left to the next run: it may
            still be written.
    """

    schema_name: Line | None = Field(default=None, alias="schema")
    columns: dict[Line, Line] | None = None
    unreadable: Literal["fail", "skip"] = "fail"
    max_row_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = 4 << 20
    settle_s: Annotated[float, Field(ge=0, le=7 * 86_400)] = 0.0


class Step(BaseModel):
    """One rule; every key but these two is a setting of the rule.

    Attributes:
        rule: its name.
        report: report what it finds, and drop nothing.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    rule: EntryPoint
    report: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """The rule's settings."""
        given = self.model_extra or {}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


class Select(Section):
    """Which of the rows that pass the rules are kept.

    Attributes:
        method: selector that chooses among the new rows when there is a `budget`.
        budget: of the new rows of each run: 500, "30%", "200ktok", "score>0.8"; not set: all that
            pass the rules.
        settings: of the selector.
        total: rows of a snapshot at most; not set: it grows.
        cap: how the union of old and new rows is cut to `total`: "facility-location" by the weight
            of what each row stands for, or "method" by the selector alone.
    """

    method: EntryPoint = "facility-location"
    budget: int | float | Line | None = None
    settings: dict[Name, Any] = Field(default_factory=dict)
    total: Annotated[int, Field(ge=1)] | None = None
    cap: Literal["facility-location", "method"] = "facility-location"


class Models(Section):
    """Models behind the features.

    Attributes:
        encoder: as for `select`; not set: chosen by the rows of the first run, and kept.
        model: causal language model.
        tokenizer: whose tokens are counted.
        device: "cpu", "cuda", ...
    """

    encoder: Line | None = None
    model: Line | None = None
    tokenizer: Line | None = None
    device: Line | None = None


class Output(Section):
    """Where snapshots go.

    Attributes:
        folder: from the folder of the job file.
        keep: how many of the newest snapshots stay.
        shard_rows: rows of one Parquet file.
        title: of the dataset card; not set: the job's name.
        license: of the dataset card.
        language: of the dataset card.
        tags: of the dataset card.
    """

    folder: Path
    keep: Annotated[int, Field(ge=1)] = 7
    shard_rows: Annotated[int, Field(ge=1)] = 100_000
    title: Line | None = None
    license: Line | None = None
    language: list[Line] = Field(default_factory=list)
    tags: list[Line] = Field(default_factory=list)


class Limits(Section):
    """Thresholds of one measure.

    Attributes:
        warn: a larger value is a warning.
        fail: a larger value fails the run.
    """

    warn: Annotated[float, Field(ge=0)] | None = None
    fail: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Limits:
        if self.warn is not None and self.fail is not None and self.warn > self.fail:
            raise ValueError(f"warn must be at most fail, found {self.warn:g} and {self.fail:g}")
        return self


class Gates(Section):
    """When a run warns or fails instead of publishing.

    Attributes:
        measure: "jensen-shannon" (0..1) or "psi" (0..): what `lengths`, `sources`, `topics` and
            `labels` are held to.
        of: "incoming": new rows against those of the last run; "snapshot": kept rows against the
            last snapshot.
        lengths: limits of the drift of tokens per row.
        sources: limits of the drift over `source_column`, or over the job's sources.
        topics: limits of the drift over clusters of embeddings.
        labels: limits of the drift of labels.
        source_column: column that names where a row comes from; not set: the `[[sources]]` entry.
        n_topics: clusters; 0 computes none.
        min_rows: a snapshot must have at least so many rows.
        max_dropped_share: of the new rows that the rules may drop.
        max_unusable_share: of the rows read that cannot be used.
    """

    measure: Literal["jensen-shannon", "psi"] = "jensen-shannon"
    of: Literal["incoming", "snapshot"] = "incoming"
    lengths: Limits = Limits()
    sources: Limits = Limits()
    topics: Limits = Limits()
    labels: Limits = Limits()
    source_column: Line | None = None
    n_topics: Annotated[int, Field(ge=0, le=1024)] = 16
    min_rows: Annotated[int, Field(ge=0)] | None = None
    max_dropped_share: Share | None = None
    max_unusable_share: Share | None = None

    @model_validator(mode="after")
    def _can_fail(self) -> Gates:
        """Refuse limits that nothing can exceed."""
        for name in ("lengths", "sources", "topics", "labels"):
            given = [limit for limit in (getattr(self, name).warn, getattr(self, name).fail) if limit is not None]
            if self.measure == "jensen-shannon" and any(limit >= 1 for limit in given):
                raise ValueError(f"{name}: a Jensen-Shannon divergence is at most 1, found the limit {max(given):g}")
            if name == "topics" and given and not self.n_topics:
                raise ValueError("topics: limits need topics, found n_topics = 0")
        return self


class Notify(Section):
    """Whom to tell at the end of a run; that it fails never fails the run.

    Attributes:
        webhook: address that gets a JSON POST; `${NAME}` stands for an environment variable.
        on: when: "always", "change" (a new snapshot or a failure) or "failure".
        timeout_s: of one attempt, in seconds.
        retries: attempts after the first.
        prometheus: file for the textfile collector, ending in ".prom"; from the folder of the job
            file.
    """

    webhook: Line | None = None
    on: Literal["always", "change", "failure"] = "always"
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    prometheus: Annotated[Path, Field(pattern=r"\.prom$")] | None = None


class Lock(Section):
    """How a run of another machine is told dead.

    Attributes:
        stale_s: its counter must stand still for so long, in seconds.
    """

    stale_s: Annotated[float, Field(ge=1, le=3600)] = 30.0


class JobSettings(Section):
    """A whole job file.

    Attributes:
        name: of the job; not set: the name of the file.
        seed: of everything random.
        eval: files of rows to evaluate on, which must not be in the pool: contamination is then
            checked first.
        sources: where rows come from.
        rows: how they are read.
        steps: rules, in order.
        select: which rows are kept; not set: all that pass the rules.
        features: models.
        output: where snapshots go.
        gates: drift and quality.
        notify: at the end.
        lock: against a second run.
    """

    name: Name | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    eval: list[Path] = Field(default_factory=list)
    sources: list[Source] = Field(min_length=1, max_length=1000)
    rows: RowSettings = RowSettings()
    steps: list[Step] = Field(default_factory=list, max_length=100)
    select: Select = Select()
    features: Models = Models()
    output: Output
    gates: Gates = Gates()
    notify: Notify = Notify()
    lock: Lock = Lock()

    @model_validator(mode="after")
    def _can_pass(self) -> JobSettings:
        rows, total = self.gates.min_rows, self.select.total
        if rows is not None and total is not None and rows > total:
            raise ValueError(f"gates.min_rows must be at most select.total, found {rows} and {total}")
        return self
