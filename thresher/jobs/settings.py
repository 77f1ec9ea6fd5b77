"""What a job file may say: one frozen model per section; unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from thresher.artifacts.local_path import refuse_address
from thresher.artifacts.remote.address import is_address, parse_address, refuse_unwritable, strip_file_scheme
from thresher.errors import OutputError, ThresherError
from thresher.trainer.settings import TrainSettings
from thresher.validation import build_settings

Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]+$")]
Line = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]


def _refuse_references(path: str) -> str:
    if "${" in path:
        raise ValueError("must be a path as it stands: ${NAME} is filled in only in url and webhook")
    path = strip_file_scheme(path)
    if is_address(path):
        parse_address(path)
    return path


def _refuse_address(path: str) -> str:
    refuse_address(path)
    return path


def _refuse_unwritable(path: str) -> str:
    try:
        if is_address(path):
            refuse_unwritable(parse_address(path))
    except OutputError as error:
        raise ValueError(str(error)) from None
    return path


PathText = Annotated[Line, AfterValidator(_refuse_references)]
LocalPath = Annotated[PathText, AfterValidator(_refuse_address)]
OutputPath = Annotated[PathText, AfterValidator(_refuse_unwritable)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
HubId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$")]
Share = Annotated[float, Field(ge=0, le=1)]
EntryPoint = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]
Positive = Annotated[int, Field(ge=1)]
PromFile = Annotated[LocalPath, Field(pattern=r"\.prom$")]
Limit = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Base of the sections: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(Section):
    """One place rows come from: exactly one of `files`, `hub` and `sql`."""

    name: Name | None = Field(default=None, description="Name in manifests. Default: files-1, hub-2, ...")
    files: list[PathText] | None = Field(default=None, min_length=1, description="Paths, addresses, globs, folders.")
    hub: HubId | None = Field(default=None, description="owner/name of a Hub dataset.")
    config: Line | None = Field(default=None, description="Configuration of the Hub dataset.")
    split: Line | None = Field(default=None, description="Split of the Hub dataset, or of folders of files.")
    schema_name: Line | None = Field(default=None, alias="schema", description="Of its rows. Default: as in [rows].")
    columns: dict[Line, Line] | None = Field(default=None, description="Role -> column, instead of a schema.")
    wanted: Line | None = Field(default=None, description="Column that marks the rows to keep.")
    sql: Text | None = Field(default=None, description="Query that returns the rows; :since is the time of --since.")
    url: Line | None = Field(default=None, description="Database, such as sqlite:///pool.db.")

    @model_validator(mode="after")
    def _check_one_place(self) -> Source:
        places = [kind for kind in ("files", "hub", "sql") if getattr(self, kind) is not None]
        if len(places) != 1:
            raise ValueError(f"must have exactly one of files, hub and sql, found {' and '.join(places) or 'none'}")
        if (self.sql is None) != (self.url is None):
            raise ValueError("sql and url go together, found only one of them")
        if self.hub is None and self.config is not None:
            raise ValueError("config is of a Hub dataset, found it without hub")
        if self.sql is not None and self.split is not None:
            raise ValueError("split is of a Hub dataset or of files, found it with sql")
        return self


class RowSettings(Section):
    """How rows are read."""

    schema_name: Line | None = Field(default=None, alias="schema", description="Default: by the first rows.")
    columns: dict[Line, Line] | None = Field(default=None, description="Role -> column, for rows of no known schema.")
    wanted: Line | None = Field(default=None, description="Column that marks the rows to keep: true or 1.")
    unreadable: Literal["fail", "skip"] = Field(default="fail", description="What to do with a damaged file.")
    max_row_bytes: int = Field(default=4 << 20, ge=1, le=1 << 30, description="Longer rows are rejected.")
    settle_s: float = Field(default=0.0, ge=0, le=7 * 86_400, description="Files modified later wait for the next run.")


class Step(BaseModel):
    """One rule; every key but these two is a setting of the rule."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    rule: EntryPoint = Field(description="Name of the rule.")
    report: bool = Field(default=False, description="Report what it finds, and drop nothing.")

    @property
    def settings(self) -> dict[str, Any]:
        """The rule's settings."""
        values = self.model_extra or {}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


class Select(Section):
    """Which of the rows that pass the rules are kept."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_pilot(cls, data: Any) -> Any:
        if isinstance(data, dict) and "pilot" in data:
            raise ValueError(
                "pilot trains models, which a job does not do to choose: run thresher select --pilot train once, and "
                "name the method that it chose as method"
            )
        return data

    method: EntryPoint = Field(default="facility-location", description="Selector of the new rows, within `budget`.")
    budget: int | float | Line | None = Field(default=None, description='New rows: 500, "30%", "9ktok", "score>0.8".')
    settings: dict[Name, Any] = Field(default_factory=dict, description="Settings of the selector.")
    total: Positive | None = Field(default=None, description="Rows of a snapshot at most. Default: no limit.")
    cap: Literal["facility-location", "method"] = Field(
        default="facility-location", description="How `total` is met: by weighted rows, or by the selector alone."
    )


class Models(Section):
    """Models behind the features."""

    encoder: Line | None = Field(default=None, description="As for `select`. Default: as in the first run.")
    model: Line | None = Field(default=None, description="Causal language model.")
    tokenizer: Line | None = Field(default=None, description="Tokenizer for token budgets and lengths.")
    device: Line | None = Field(default=None, description="cpu, cuda, ...")


class Output(Section):
    """Where snapshots go."""

    folder: OutputPath = Field(description="From the folder of the job file; or an address such as s3://...")
    keep: int = Field(default=7, ge=1, description="Number of snapshots to keep.")
    shard_rows: int = Field(default=100_000, ge=1, description="Rows of one Parquet file.")
    title: Line | None = Field(default=None, description="Of the dataset card. Default: the job's name.")
    license: Line | None = Field(default=None, description="Of the dataset card.")
    language: list[Line] = Field(default_factory=list, description="Of the dataset card.")
    tags: list[Line] = Field(default_factory=list, description="Of the dataset card.")


class Limits(Section):
    """Thresholds of one measure."""

    warn: Limit | None = Field(default=None, description="A larger value is a warning.")
    fail: Limit | None = Field(default=None, description="A larger value fails the run.")

    @model_validator(mode="after")
    def _check_order(self) -> Limits:
        if self.warn is not None and self.fail is not None and self.warn > self.fail:
            raise ValueError(f"warn must be at most fail, found {self.warn:g} and {self.fail:g}")
        return self


class Gates(Section):
    """When a run warns or fails instead of publishing."""

    measure: Literal["jensen-shannon", "psi"] = Field(
        default="jensen-shannon", description="What the four limits of drift apply to: 0..1, or 0.. for psi."
    )
    of: Literal["incoming", "snapshot"] = Field(
        default="incoming", description="New rows against those of the last run, or kept against kept rows."
    )
    lengths: Limits = Field(default=Limits(), description="Drift of tokens per row.")
    sources: Limits = Field(default=Limits(), description="Drift over `source_column`, or over the sources of the job.")
    topics: Limits = Field(default=Limits(), description="Drift over clusters of embeddings.")
    labels: Limits = Field(default=Limits(), description="Drift of labels.")
    source_column: Line | None = Field(default=None, description="Default: the [[sources]] entry of a row.")
    n_topics: int = Field(default=16, ge=0, le=1024, description="Clusters; 0 computes none.")
    min_rows: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Of a snapshot.")
    max_dropped_share: Share | None = Field(default=None, description="Of the new rows that the rules may drop.")
    max_unusable_share: Share | None = Field(default=None, description="Of the rows read that cannot be used.")

    @model_validator(mode="after")
    def _check_reachable(self) -> Gates:
        """Refuse limits that nothing can exceed."""
        for name in ("lengths", "sources", "topics", "labels"):
            limits: Limits = getattr(self, name)
            values = [limit for limit in (limits.warn, limits.fail) if limit is not None]
            if self.measure == "jensen-shannon" and any(limit >= 1 for limit in values):
                raise ValueError(f"{name}: a Jensen-Shannon divergence is at most 1, found the limit {max(values):g}")
            if name == "topics" and values and not self.n_topics:
                raise ValueError("topics: limits need topics, found n_topics = 0")
        return self


class TrainSection(Section):
    """The adapter gate: a snapshot is published only if its adapter is not clearly worse."""

    model: Line | None = Field(default=None, description="Base model, as for `train`.")
    seeds: int = Field(default=3, ge=2, le=20, description="Adapters per snapshot, with seed, seed + 1, ...")
    slices: Line | None = Field(default=None, description="Column of the eval rows. Default: their labels, if any.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Of the training, as in `th.TrainSettings`.")

    @field_validator("settings")
    @classmethod
    def _check_settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            build_settings(TrainSettings, "train", value)
        except ThresherError as error:
            raise ValueError(str(error)) from None
        return value


class Notify(Section):
    """Whom to notify at the end of a run; a notification that fails never fails the run."""

    webhook: Line | None = Field(default=None, description="Gets a JSON POST; ${NAME} is an environment variable.")
    on: Literal["always", "change", "failure"] = Field(default="always", description="When to notify.")
    timeout_s: float = Field(default=10.0, gt=0, le=300, description="Of one attempt, in seconds.")
    retries: int = Field(default=2, ge=0, le=10, description="Attempts after the first.")
    prometheus: PromFile | None = Field(default=None, description="File for the textfile collector.")


class LockSettings(Section):
    """When a run on another machine counts as dead."""

    stale_s: float = Field(
        default=30.0, ge=1, le=3600, description="Seconds without a heartbeat after which a run counts as dead."
    )


class JobSettings(Section):
    """A whole job file."""

    name: Name | None = Field(default=None, description="Of the job. Default: the name of the file.")
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="Random seed.")
    eval: list[PathText] = Field(default_factory=list, description="Rows to evaluate on: contamination is dropped.")
    sources: list[Source] = Field(min_length=1, max_length=1000, description="Where rows come from.")
    rows: RowSettings = Field(default=RowSettings(), description="How rows are read.")
    steps: list[Step] = Field(default_factory=list, max_length=100, description="Rules, in order.")
    select: Select = Field(default=Select(), description="Which rows are kept. Default: all that pass the rules.")
    features: Models = Field(default=Models(), description="Models behind the features.")
    output: Output = Field(description="Where snapshots go.")
    gates: Gates = Field(default=Gates(), description="Limits of drift and quality.")
    train: TrainSection | None = Field(default=None, description="The adapter gate. Default: none is trained.")
    notify: Notify = Field(default=Notify(), description="Notifications at the end of a run.")
    lock: LockSettings = Field(default=LockSettings(), description="Lock against a second run.")

    @model_validator(mode="after")
    def _check_min_rows(self) -> JobSettings:
        if self.train is not None and not self.eval:
            raise ValueError("[train] compares adapters on held-out rows, found none; give eval")
        rows, total = self.gates.min_rows, self.select.total
        if rows is not None and total is not None and rows > total:
            raise ValueError(f"gates.min_rows must be at most select.total, found {rows} and {total}")
        return self
