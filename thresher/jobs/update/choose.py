"""From the candidates to the next snapshot: the budget selects new rows, the total cuts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from thresher.dataset import Dataset, load
from thresher.dataset.mixture.recorded import ANY_LENGTH
from thresher.errors import NothingKeptError
from thresher.features import FeatureContext, compute
from thresher.jobs.job_file import Job
from thresher.jobs.snapshots.read import Pool
from thresher.jobs.snapshots.seen_ids import mask_known, pack_row_ids
from thresher.jobs.snapshots.table import (
    ROW_ID,
    SINCE,
    SOURCE,
    WEIGHT,
    build_empty_table,
    build_own_columns,
    build_table,
    stack_tables,
)
from thresher.jobs.state import UpdateInputs
from thresher.jobs.update.core_set import assign_representatives, build_core_set, transfer_weight
from thresher.jobs.update.curate import Candidates
from thresher.jobs.update.dropped_rows import (
    WAS_KEPT,
    collect_budget_drops,
    collect_cap_drops,
    collect_rule_drops,
    describe_unfit,
    merge_drops,
)
from thresher.numeric.arrays import Int64
from thresher.selection.run import select
from thresher.subset.budget import Budget
from thresher.subset.subset import Subset, list_decisions


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The rows of the next snapshot.

    Attributes:
        table: its rows: old ones that stay, in their order, then new ones, in the order of the
            sources.
        positions: (k,) of its rows among the candidates, ascending.
        dropped: every row that did not enter or that left: columns `DROPPED_COLUMNS`.
        n_passed: new rows that passed the rules.
        entered: source of each of its rows that the previous snapshot does not have.
        n_left: rows of the previous snapshot that are not in it any more.
        n_masked: new rows in it whose texts were masked.
        objective: how well its rows cover the weighted rows they were chosen from, 0..1; None
            without `total`.
        decisions: how `auto` decided on a method, in sentences.
    """

    table: pa.Table
    positions: Int64
    dropped: pl.DataFrame
    n_passed: int
    entered: pl.Series
    n_left: int
    n_masked: int
    objective: float | None
    decisions: tuple[str, ...]


class _Picks(NamedTuple):
    """Candidates that are chosen so far."""

    positions: Int64  # (k,) of the candidates, ascending
    weight: Int64  # (k,) how many rows each stands for
    dropped: list[pl.DataFrame]  # tables of the others, with reasons
    objective: float | None = None
    decisions: tuple[str, ...] = ()


def choose_rows(job: Job, inputs: UpdateInputs, candidates: Candidates, context: FeatureContext) -> Choice:
    """Choose the rows of the next snapshot."""
    picks = _apply_total(job, candidates, _apply_budget(job, candidates, context), context)
    new = picks.positions[picks.positions >= candidates.n_old] - candidates.n_old
    table = _build_rows(inputs, candidates, picks, new)
    old_ids = np.zeros(0, "S16") if inputs.old is None else np.sort(pack_row_ids(inputs.old.rows.frame["row_id"]))
    dropped = merge_drops([*collect_rule_drops(candidates), *picks.dropped], old_ids)
    masked = set() if candidates.curation is None else set(candidates.curation.masked)
    is_new = table[SINCE].to_numpy() == inputs.version
    return Choice(
        table=table,
        positions=picks.positions,
        dropped=dropped,
        n_passed=len(candidates.positions),
        entered=pl.Series("source", table[SOURCE].to_pylist(), pl.String).filter(is_new),
        n_left=int(dropped[WAS_KEPT].sum()),
        n_masked=sum(position in masked for position in candidates.positions[new].tolist()),
        objective=picks.objective,
        decisions=picks.decisions,
    )


def _apply_budget(job: Job, candidates: Candidates, context: FeatureContext) -> _Picks:
    """Select among the new rows; whatever is left out gives its weight to the rest."""
    passed, budget, n_old = candidates.passed, job.budget, candidates.n_old
    everything = np.arange(n_old + len(candidates.positions), dtype=np.int64)
    weight = candidates.weight
    if passed is None or budget is None or not len(passed) or _has_room(budget, passed, context):
        return _Picks(everything, weight, [])
    decisions: tuple[str, ...] = ()
    avoids_existing = "existing" in job.selector.requirements.side_features
    existing = candidates.pool.rows if candidates.pool is not None and avoids_existing else None
    try:
        subset = _select(job, passed, budget, existing, context)
        kept, left_out, decisions = np.sort(subset.kept), subset.dropped, _list_decisions(subset)
    except NothingKeptError as error:  # as of a night whose rows all score low: the old rows stay
        if not n_old:
            raise
        kept, left_out = np.empty(0, np.int64), describe_unfit(passed, str(error))
    positions = np.concatenate([everything[:n_old], n_old + kept])
    if len(positions):
        weight = transfer_weight(weight, assign_representatives(candidates.require_embedding(), positions))
    dropped = [collect_budget_drops(candidates, left_out)]
    return _Picks(positions, weight[positions], dropped, decisions=decisions)


def _list_decisions(subset: Subset) -> tuple[str, ...]:
    """Return how `auto` decided, in sentences; nothing of another method."""
    content = subset.manifest.content
    return tuple(f"{content['method']}: {why}" for why in list_decisions(content))


def _has_room(budget: Budget, rows: Dataset, context: FeatureContext) -> bool:
    """Tell whether a budget of rows or tokens takes all of some rows."""
    if budget.unit == "rows":
        return budget.amount >= len(rows)
    return budget.unit == "tokens" and int(compute(rows, {"length"}, context)["length"].sum()) <= budget.amount


def _select(job: Job, rows: Dataset, budget: int | Budget, existing: Dataset | None, context: FeatureContext) -> Subset:
    """Return what the job's selector chooses of some rows."""
    return select(
        rows,
        job.selector,
        budget=budget,
        existing=existing,
        encoder=context.models.encoder,
        model=context.models.model,
        tokenizer=context.models.tokenizer,
        device=context.models.device,
        seed=job.settings.seed,
        on_progress=context.on_progress,
    )


def _apply_total(job: Job, candidates: Candidates, picks: _Picks, context: FeatureContext) -> _Picks:
    """Cut old and new rows to `total`; a dropped row gives its weight to the nearest kept one."""
    total = job.settings.select.total
    if total is None or len(picks.positions) <= total:
        return picks._replace(objective=None if total is None else 1.0)
    x = candidates.require_embedding()[picks.positions]
    decisions = picks.decisions
    if job.settings.select.cap == "method":
        subset = _select_by_method(job, candidates, picks.positions, total, context)
        core, decisions = assign_representatives(x, np.sort(subset.kept)), decisions + _list_decisions(subset)
    else:
        core = build_core_set(x, picks.weight, total, np.random.default_rng(job.settings.seed))
    covered = np.maximum(core.cosine.astype(np.float64), 0.0) * picks.weight
    return _Picks(
        picks.positions[core.kept],
        transfer_weight(picks.weight, core)[core.kept],
        [*picks.dropped, collect_cap_drops(candidates, picks.positions, core)],
        float(covered.sum() / picks.weight.sum()),
        decisions,
    )


def _select_by_method(
    job: Job, candidates: Candidates, positions: Int64, total: int, context: FeatureContext
) -> Subset:
    """Return the best `total` of the candidates at `positions`, by the selector alone."""
    pool, passed = candidates.pool, candidates.passed
    tables = [] if pool is None else [(pool.rows, pool.table)]
    if passed is not None:
        blank = pl.Series([""] * len(passed), dtype=pl.String)
        own = build_own_columns(passed.frame["row_id"], blank, blank, np.zeros(len(passed), np.int64))
        tables.append((passed, build_table(passed, own)))
    schema = tables[0][0].schema
    union = stack_tables([_keep_schema_columns(rows, table) for rows, table in tables], schema.column_names)
    frame = pl.DataFrame(pl.from_arrow(union.take(pa.array(positions))))
    rows = load(frame, schema=schema, id_column=ROW_ID, max_row_bytes=ANY_LENGTH)
    return _select(job, rows, total, None, context)


def _keep_schema_columns(rows: Dataset, table: pa.Table) -> pa.Table:
    names = [name for name in rows.schema.column_names if name in table.column_names and name != ROW_ID]
    return table.select([ROW_ID, *names])


def _build_rows(inputs: UpdateInputs, candidates: Candidates, picks: _Picks, new: Int64) -> pa.Table:
    """Return the rows of the snapshot: old ones, then those at `new` of the rows that passed."""
    pool, passed = candidates.pool, candidates.passed
    n_kept = len(picks.positions) - len(new)
    tables = [] if pool is None else [pool.table.take(pa.array(picks.positions[:n_kept]))]
    if passed is not None and len(new):
        rows, places = passed.take(new), candidates.positions[new]
        ids, incoming = rows.frame["row_id"], candidates.incoming
        since = _find_first_versions(ids, inputs.old, inputs.version)
        own = build_own_columns(ids, incoming.sources.gather(places), incoming.files.gather(places), since)
        tables.append(build_table(rows, own))
    schema_rows = pool.rows if pool is not None else passed
    columns = () if schema_rows is None else schema_rows.schema.column_names
    table = stack_tables(tables, columns) if tables else build_empty_table(columns)
    return table.set_column(table.column_names.index(WEIGHT), WEIGHT, pa.array(picks.weight)) if len(table) else table


def _find_first_versions(row_ids: pl.Series, old: Pool | None, version: int) -> Int64:
    """Return (n,) versions in which rows appeared; a full run reads rows of old ones, too."""
    since = np.full(len(row_ids), version, np.int64)
    if old is None:
        return since
    ids, known = pack_row_ids(row_ids), pack_row_ids(old.rows.frame["row_id"])
    order = np.argsort(known, kind="stable")
    is_old = mask_known(ids, known[order])
    since[is_old] = old.table[SINCE].to_numpy()[order[np.searchsorted(known[order], ids[is_old])]]
    return since
