"""Rules over a dataset, one after another: each sees the rows that the rules before it kept."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from thresher.curation.masking import mask_rows
from thresher.curation.rule import ROLES, Rows, Rule, check_order
from thresher.curation.verdict import POOL, Verdict
from thresher.dataset.rejection import count_values
from thresher.errors import InputError
from thresher.numeric.arrays import Bool, Int64
from thresher.progress import Progress

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.features import FeatureContext

PREVIEW_CHARACTERS = 200
LARGE_DROP = 1 / 3  # share of the pool that is worth a second look
ROW = {"position": pl.Int64, "row_id": pl.String, "file": pl.String, "line": pl.UInt64, "rule": pl.String}
REPEATS = {"duplicate_of": pl.String, "duplicate_in": pl.String, "similarity": pl.Float32}
PREVIEW = {"preview": pl.String}
DROPPED = ROW | {"reason": pl.String, "explanation": pl.String} | REPEATS | {"cluster": pl.String} | PREVIEW
FINDINGS = ROW | {"reason": pl.String, "finding": pl.String} | REPEATS | {"is_masked": pl.Boolean} | PREVIEW
CLUSTERS = {
    **dict.fromkeys(("rule", "cluster", "cluster_in", "row_id"), pl.String),
    **{"is_kept": pl.Boolean, "similarity": pl.Float32, "preview": pl.String},
}


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """What one rule did.

    Attributes:
        rule: the rule.
        n_in: rows it saw.
        n_findings: rows it reported without dropping them.
        n_masked: rows whose texts it masks.
        dropped: rows it dropped, by reason, the most frequent first.
        notes: facts of its verdict.
        seconds: of features and check together.
    """

    rule: Rule
    n_in: int
    n_findings: int
    n_masked: int
    dropped: Mapping[str, int]
    notes: Mapping[str, int | float | str]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CurationResult:
    """What the rules say of a pool of n rows.

    Attributes:
        kept: (k,) positions, ascending.
        rows: the kept rows, masked where a rule masks.
        dropped: one row per dropped row, by position: columns `DROPPED`.
        findings: one row per finding on a row that a rule did not drop: columns `FINDINGS`.
        clusters: one row per member of a group of duplicates: columns `CLUSTERS`; rows kept earlier
            are not in it.
        masked: position -> the rules that mask the row's texts, in order; kept rows only.
        results: one for each rule, in order.
    """

    kept: Int64
    rows: Dataset
    dropped: pl.DataFrame
    findings: pl.DataFrame
    clusters: pl.DataFrame
    masked: Mapping[int, tuple[Rule, ...]]
    results: tuple[RuleResult, ...]

    @property
    def notes(self) -> list[str]:
        """What the user should know, in sentences: a bad order of rules, and what rules note."""
        notes = [f"{one.rule.name}: {note}" for one in self.results for note in one.notes.values() if type(note) is str]
        return [*check_order([one.rule for one in self.results]), *notes]

    @property
    def large_drops(self) -> list[str]:
        """A sentence for each rule that dropped more than a third of the pool."""
        n_pool = len(self.kept) + self.dropped.height
        return [
            f"{one.rule.name}: drops {n:,} of {n_pool:,} rows, more than a third of the pool"
            for one in self.results
            if (n := sum(one.dropped.values())) > LARGE_DROP * n_pool
        ]

    @property
    def n_orphaned(self) -> int:
        """Rows dropped as duplicates of a row that a later rule dropped for another reason."""
        repeats = {
            row_id: (of, place)
            for row_id, of, place in self.dropped.select("row_id", "duplicate_of", "duplicate_in").iter_rows()
        }
        n = 0
        for row_id, (_, place) in repeats.items():
            if place != POOL:
                continue
            # follow the copies to the first row that is no copy of a row of the pool
            last = row_id
            while last in repeats and repeats[last][1] == POOL:
                last = str(repeats[last][0])
            # that one was dropped, too, and as a copy of nothing
            n += last in repeats and repeats[last][1] is None
        return n


def apply_rules(
    pool: Dataset,
    rules: Sequence[Rule],
    *,
    existing: Dataset | None = None,
    eval: Dataset | None = None,
    context: FeatureContext | None = None,
    report: Collection[str] = (),
    seed: int = 0,
) -> CurationResult:
    """Run rules in order; features are computed only of the rows that are still there.

    Each rule sees the rows as the ones before it left them, masks included: rows that differ in
    what was masked alone are equal from then on, and equal to rows that an earlier run has masked.

    Args:
        pool: n rows.
        rules: in order; each sees the rows that the ones before it kept.
        existing: rows kept earlier. None of them is dropped; a row of the pool that repeats one is.
        eval: rows to evaluate on, which the pool must not contain.
        context: models, device and cache for the features; None for the defaults.
        report: names of rules whose drops become findings: the rows are kept.
        seed: random seed.

    Raises:
        InputError: the existing rows are of another kind than the pool's, so that no row of either
            could repeat one.
    """
    if existing is not None and existing.kind != pool.kind:
        raise InputError(
            f"existing: must hold rows of the pool's kind, {pool.kind}, found {existing.kind}; name the columns (--map)"
        )
    side_rows = _SideRows({"existing": existing, "eval": eval}, context)
    for rule in rules:
        _check_roles(rule, side_rows)
    alive = np.arange(len(pool), dtype=np.int64)
    steps, masks, rows = [], dict[int, tuple[Rule, ...]](), pool
    for number, rule in enumerate(rules):
        rng = np.random.default_rng([seed, number])
        step = _apply_rule(rule, rows, alive, side_rows, context, rng, is_report=rule.name in report)
        rows = mask_rows(rows, dict.fromkeys(step.masked.tolist(), (rule,)))
        for position in step.masked.tolist():
            masks[position] = (*masks.get(position, ()), rule)
        steps.append(step)
        alive = step.kept
    kept = set(alive.tolist())
    dropped = pl.concat([pl.DataFrame(schema=DROPPED), *(step.dropped for step in steps)])
    findings = pl.concat([pl.DataFrame(schema=FINDINGS), *(step.findings for step in steps)])
    clusters = pl.concat([pl.DataFrame(schema=CLUSTERS), *(step.clusters for step in steps)])
    private = _list_private(rules, dropped, findings)
    return CurationResult(
        kept=alive,
        rows=rows if len(alive) == len(rows) else rows.take(alive),
        dropped=_hide_previews(dropped, private, "duplicate_of").sort("position"),
        findings=_hide_previews(findings, private, "duplicate_of").sort("position", maintain_order=True),
        clusters=_hide_previews(clusters, private, "cluster"),
        masked={position: names for position, names in masks.items() if position in kept},
        results=tuple(step.result for step in steps),
    )


def _list_private(rules: Sequence[Rule], dropped: pl.DataFrame, findings: pl.DataFrame) -> pl.Series:
    """Return, as one list, the ids of the rows that a private rule dropped or reported."""
    names = [rule.name for rule in rules if rule.is_private]
    return pl.concat([part.filter(pl.col("rule").is_in(names))["row_id"] for part in (dropped, findings)]).implode()


def _hide_previews(table: pl.DataFrame, private: pl.Series, copy_of: str) -> pl.DataFrame:
    """Return a table that shows no text of private rows, nor of rows that are copies of one."""
    is_private = pl.col("row_id").is_in(private) | pl.col(copy_of).is_in(private).fill_null(value=False)
    return table.with_columns(preview=pl.when(~is_private).then("preview"))


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What one rule did: its parts of a `CurationResult`.

    Attributes:
        kept: positions of the rows that it kept.
        dropped: columns `DROPPED`.
        findings: columns `FINDINGS`.
        clusters: columns `CLUSTERS`.
        masked: positions of kept rows whose texts it masks.
        result: in numbers.
    """

    kept: Int64
    dropped: pl.DataFrame
    findings: pl.DataFrame
    clusters: pl.DataFrame
    masked: Int64
    result: RuleResult


def _apply_rule(
    rule: Rule,
    pool: Dataset,
    alive: Int64,
    side_rows: _SideRows,
    context: FeatureContext | None,
    rng: np.random.Generator,
    *,
    is_report: bool,
) -> _Step:
    """Let one rule judge the rows that are still there."""
    started = time.monotonic()
    rows = pool if len(alive) == len(pool) else pool.take(alive)
    verdict = _ask_rule(rule, rows, side_rows, context, rng)
    is_dropped = np.zeros(len(rows), np.bool_) if is_report else verdict.is_dropped
    table = _tabulate(rows, alive, rule, verdict)
    dropped = table.filter(is_dropped).select(list(DROPPED))
    findings = table.filter(~pl.Series(is_dropped) & table["finding"].is_not_null()).select(list(FINDINGS))
    masked = alive[~is_dropped & table["is_masked"].to_numpy()]
    result = RuleResult(
        rule=rule,
        n_in=len(rows),
        n_findings=findings.height,
        n_masked=len(masked),
        dropped=count_values(dropped["reason"]),
        notes=dict(verdict.notes),
        seconds=time.monotonic() - started,
    )
    return _Step(
        kept=alive[~is_dropped],
        dropped=dropped,
        findings=findings,
        clusters=_list_clusters(table, is_dropped),
        masked=masked,
        result=result,
    )


class _SideRows:
    """Rows beside the pool, with the features that rules ask of them, each computed once."""

    def __init__(self, rows: Mapping[str, Dataset | None], context: FeatureContext | None) -> None:
        self.rows = {role: each for role, each in rows.items() if each is not None and len(each)}
        self._context = context
        self._computed: dict[tuple[str, frozenset[str], str], Rows] = {}

    def get(self, role: str, rule: Rule) -> Rows | None:
        """Return the rows of a role for a rule; None when it ignores them or there are none."""
        requirements = rule.requirements
        if role not in requirements.side_features or role not in self.rows:
            return None
        needs = frozenset(requirements.side_features[role])
        key = (role, needs, str(requirements.feature_settings))
        if key not in self._computed:
            self._computed[key] = _compute_features(self.rows[role], needs, rule, self._context)
        return self._computed[key]


def _check_roles(rule: Rule, side_rows: _SideRows) -> None:
    missing = sorted(rule.requirements.required_roles - set(side_rows.rows))
    if missing:
        role = missing[0]
        raise InputError(f"{rule.name}: needs {ROLES[role]}, found none; give --{role} FILE, or leave out the rule")


def _compute_features(rows: Dataset, needs: frozenset[str], rule: Rule, context: FeatureContext | None) -> Rows:
    from thresher.features import FeatureContext, compute

    context = FeatureContext() if context is None else context
    context = replace(context, **rule.requirements.feature_settings)
    return Rows(dataset=rows, features=compute(rows, needs, context))


def _ask_rule(
    rule: Rule, rows: Dataset, side_rows: _SideRows, context: FeatureContext | None, rng: np.random.Generator
) -> Verdict:
    """Return the verdict of one rule; a pool without rows needs no rule and no feature."""
    if not len(rows):
        empty = pl.Series([], dtype=pl.String)
        return Verdict(reason=empty, explanation=empty)
    plan = rule.describe_plan(rows, side_rows.rows.get("existing"))
    if plan is not None and context is not None and context.on_progress is not None:
        context.on_progress(Progress(stage=rule.name, done=0, total=len(rows), note=plan))
    verdict = rule.check(
        _compute_features(rows, frozenset(rule.requirements.features), rule, context),
        existing=side_rows.get("existing", rule),
        eval=side_rows.get("eval", rule),
        rng=rng,
    )
    if len(verdict) != len(rows):
        raise ValueError(f"rule '{rule.name}': its verdict must have {len(rows)} rows, got {len(verdict)}")
    return verdict


def _tabulate(rows: Dataset, positions: Int64, rule: Rule, verdict: Verdict) -> pl.DataFrame:
    """Return what the rule says of each row: the columns of `DROPPED` and of `FINDINGS`."""
    frame = rows.frame.select("row_id", pl.col("file").cast(pl.String), pl.col("line").cast(pl.UInt64))
    return frame.with_columns(
        position=pl.lit(pl.Series(positions)),
        rule=pl.lit(rule.name),
        reason=verdict.reason,
        explanation=verdict.explanation,
        finding=verdict.explanation,
        duplicate_of=pl.lit(verdict.duplicate_of, pl.String),
        duplicate_in=pl.lit(verdict.duplicate_in, pl.String),
        similarity=pl.lit(verdict.similarity, pl.Float32),
        cluster=pl.lit(verdict.cluster, pl.String),
        is_masked=pl.lit(value=False) if verdict.is_masked is None else pl.Series(verdict.is_masked),
        preview=preview_rows(rows),
    )


def _list_clusters(table: pl.DataFrame, is_dropped: Bool) -> pl.DataFrame:
    """Return the members of each cluster, those of the pool's clusters that are kept first."""
    members = table.with_columns(is_kept=pl.Series(~is_dropped), cluster_in=pl.col("duplicate_in").fill_null(POOL))
    members = members.filter(pl.col("cluster").is_not_null()).select(list(CLUSTERS))
    return members.sort("cluster", "cluster_in", "is_kept", descending=[False, False, True], maintain_order=True)


def preview_rows(rows: Dataset) -> pl.Series:
    """Return the beginning of each row's text, (n,)."""
    column = "response" if rows.kind == "text" else "prompt"
    return rows.frame[column].str.slice(0, PREVIEW_CHARACTERS).alias("preview")
