"""From new rows and the pool before to the rows of the next snapshot: rules judge, the budget chooses, the cap cuts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from thresher.curation.pipeline import CurationResult, apply_rules
from thresher.dataset import Dataset, load
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
from thresher.jobs.sources.incoming import Incoming
from thresher.jobs.update.core_set import CoreSet, assign_representatives, build_core_set, transfer_weight
from thresher.jobs.update.dropped_rows import (
    WAS_KEPT,
    collect_budget_drops,
    collect_cap_drops,
    collect_rule_drops,
    merge_drops,
)
from thresher.numeric.arrays import Int64
from thresher.selection.run import select

if TYPE_CHECKING:
    from thresher.features import FeatureContext
    from thresher.numeric.arrays import Array
    from thresher.subset.budget import Budget
    from thresher.subset.subset import Subset


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The rows of the next snapshot.

    Attributes:
        table: its rows: old ones that stay, in their order, then new ones, in the order of the
            sources.
        dropped: every row that did not enter or that left: columns `DROPPED_COLUMNS`.
        judgement: of the new rows by the rules; None when there were none.
        n_passed: new rows that the rules kept.
        entered: source of each of its rows that the snapshot before has not.
        n_left: rows of the snapshot before that are not in it any more.
        n_masked: new rows in it whose texts were masked.
        embedding: (k, d) of its rows, or None when nothing asked for it.
        incoming_embedding: (n, d) of the new rows, or None.
        lengths: (k,) tokens of its rows.
        incoming_lengths: (n,) tokens of the new rows.
        objective: how well its rows cover the weighted rows they were chosen from, 0..1; None
            without `total`.
    """

    table: pa.Table
    dropped: pl.DataFrame
    judgement: CurationResult | None
    n_passed: int
    entered: pl.Series
    n_left: int
    n_masked: int
    embedding: Array | None
    incoming_embedding: Array | None
    lengths: Array
    incoming_lengths: Array
    objective: float | None


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """Features of the old rows followed by the new ones that passed the rules."""

    lengths: Array
    embedding: Array | None
    incoming_lengths: Array
    incoming_embedding: Array | None


def choose(
    job: Job,
    pool: Pool | None,
    incoming: Incoming,
    *,
    old: Pool | None,
    eval_rows: Dataset | None,
    context: FeatureContext,
    version: int,
) -> Choice:
    """Choose the rows of the next snapshot.

    Args:
        job: rules, selection, seed.
        pool: old rows that the new ones join; None when there are none.
        incoming: new rows; in a full run, rows of the snapshot before may be among them.
        old: all rows of the snapshot before; None when there are none.
        eval_rows: rows to evaluate on.
        context: of the features, its encoder resolved.
        version: of the next snapshot.
    """
    rows = incoming.rows
    judgement = None
    passed, at = rows, np.zeros(0, np.int64)
    if rows is not None:
        judgement = apply_rules(
            rows,
            job.rules,
            existing=None if pool is None else pool.rows,
            eval=eval_rows,
            context=context,
            report=job.report,
            seed=job.settings.seed,
        )
        at, passed = judgement.kept, judgement.rows
    n_old = 0 if pool is None else len(pool.rows)
    measured = _measure(job, pool, rows, at, context)
    tables = [] if rows is None or judgement is None else [collect_rule_drops(incoming, judgement)]

    picked = _picked(job, pool, passed, incoming, at, measured, context)
    chosen, weight = picked.chosen, picked.weight
    table = _table(pool, passed, incoming, at, chosen, _FirstVersions(old, version))
    if table.num_rows:
        table = table.set_column(table.column_names.index(WEIGHT), WEIGHT, pa.array(weight[chosen]))
    masked_rows = set() if judgement is None else set(judgement.masked)
    old_names = np.zeros(0, "S16") if old is None else np.sort(pack_row_ids(old.rows.frame["row_id"]))
    dropped = merge_drops([*tables, *picked.dropped], old_names)
    return Choice(
        table=table,
        dropped=dropped,
        judgement=judgement,
        n_passed=len(at),
        entered=pl.Series("source", table[SOURCE].to_pylist(), pl.String).filter(table[SINCE].to_numpy() == version),
        n_left=int(dropped[WAS_KEPT].sum()),
        n_masked=sum(int(at[one - n_old]) in masked_rows for one in chosen.tolist() if one >= n_old),
        embedding=None if measured.embedding is None else measured.embedding[chosen],
        incoming_embedding=measured.incoming_embedding,
        lengths=measured.lengths[chosen],
        incoming_lengths=measured.incoming_lengths,
        objective=picked.objective,
    )


class _Picked(NamedTuple):
    """Rows of the union of old rows and new ones that passed, whose positions follow one another."""

    chosen: Int64  # (k,) positions, ascending
    weight: Int64  # (n,) of all rows of the union; 0 for those whose weight another row has taken
    dropped: list[pl.DataFrame]
    objective: float | None


def _picked(
    job: Job,
    pool: Pool | None,
    passed: Dataset | None,
    incoming: Incoming,
    at: Int64,
    measured: _Measured,
    context: FeatureContext,
) -> _Picked:
    """Apply the budget to the new rows, then the total to all."""
    n_old = 0 if pool is None else len(pool.rows)
    tables: list[pl.DataFrame] = []
    weight = np.concatenate([np.zeros(0, np.int64) if pool is None else pool.weight, np.ones(len(at), np.int64)])
    union = np.arange(n_old + len(at), dtype=np.int64)  # old rows, then new ones that passed
    chosen = union
    if passed is not None and job.budget is not None and len(passed):
        taken, why = _within_budget(job, pool, passed, context)
        chosen = np.concatenate([union[:n_old], n_old + taken])
        tables.append(collect_budget_drops(incoming, at, why))
        if len(chosen):
            weight = transfer_weight(weight, assign_representatives(_needed(measured.embedding), chosen))
    core, objective = _capped(job, pool, passed, chosen, weight, measured, context)
    if core is not None:
        tables.append(collect_cap_drops(pool, incoming, at, chosen, core))
        weight[chosen] = transfer_weight(weight[chosen], core)
        chosen = chosen[core.kept]
    return _Picked(chosen, weight, tables, objective)


def needs_embedding(job: Job) -> bool:
    """Tell whether a run of the job compares rows by meaning outside its rules."""
    chosen = job.settings.select
    return job.budget is not None or chosen.total is not None or job.settings.gates.n_topics > 0


def _measure(job: Job, pool: Pool | None, rows: Dataset | None, at: Int64, context: FeatureContext) -> _Measured:
    from thresher.features import compute

    needs = {"length", "embedding"} if needs_embedding(job) else {"length"}
    old = None if pool is None else compute(pool.rows, needs, context)
    new = None if rows is None else compute(rows, needs, context)

    def joined(name: str) -> Array | None:
        if name not in needs:
            return None
        parts = [] if old is None else [old[name]]
        parts += [] if new is None else [new[name][at]]
        return np.concatenate(parts) if parts else np.zeros(0)

    lengths = joined("length")
    return _Measured(
        lengths=np.zeros(0, np.int64) if lengths is None else lengths,
        embedding=joined("embedding"),
        incoming_lengths=np.zeros(0, np.int64) if new is None else new["length"],
        incoming_embedding=None if new is None or "embedding" not in needs else new["embedding"],
    )


def _needed(embedding: Array | None) -> Array:
    if embedding is None:
        raise AssertionError("a budget or a total needs embeddings")
    return embedding


def _within_budget(job: Job, pool: Pool | None, passed: Dataset, context: FeatureContext) -> tuple[Int64, pl.DataFrame]:
    """Return positions of the new rows that the budget takes, and the others with their reasons."""
    budget = job.budget
    if budget is None:
        raise AssertionError("no budget")
    if budget.unit == "rows" and budget.amount >= len(passed):
        return np.arange(len(passed), dtype=np.int64), pl.DataFrame()
    if budget.unit == "tokens":
        from thresher.features import compute

        if int(compute(passed, {"length"}, context)["length"].sum()) <= budget.amount:
            return np.arange(len(passed), dtype=np.int64), pl.DataFrame()
    accepts: frozenset[str] = getattr(job.selector, "accepts", frozenset())
    takes_existing = any(name.startswith("existing_") for name in accepts)
    existing = pool.rows if pool is not None and takes_existing else None
    subset = _selected(job, passed, budget, existing, context)
    return np.sort(subset.kept), subset.dropped


def _selected(
    job: Job, rows: Dataset, budget: int | Budget, existing: Dataset | None, context: FeatureContext
) -> Subset:
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


def _capped(
    job: Job,
    pool: Pool | None,
    passed: Dataset | None,
    chosen: Int64,
    weight: Int64,
    measured: _Measured,
    context: FeatureContext,
) -> tuple[CoreSet | None, float | None]:
    """Cut the union to `total`; positions in the core-set are into `chosen`."""
    total = job.settings.select.total
    if total is None:
        return None, None
    x = _needed(measured.embedding)[chosen]
    if len(chosen) <= total:
        return None, 1.0
    if job.settings.select.cap == "method":
        kept = _by_method(job, pool, passed, chosen, total, context)
        core = assign_representatives(x, kept)
    else:
        rng = np.random.default_rng(job.settings.seed)
        core = build_core_set(x, weight[chosen], total, rng)
    covered = np.maximum(core.cosine.astype(np.float64), 0.0) * weight[chosen]
    return core, float(covered.sum() / weight[chosen].sum())


def _by_method(
    job: Job, pool: Pool | None, passed: Dataset | None, chosen: Int64, total: int, context: FeatureContext
) -> Int64:
    """Return the best `total` of the union by the job's selector alone, ascending positions in `chosen`."""
    tables = [] if pool is None else [pool.table.select([ROW_ID, *_schema_columns(pool.rows, pool.table)])]
    if passed is not None:
        nothing = pl.Series([""] * len(passed), dtype=pl.String)
        whole = build_table(
            passed, build_own_columns(passed.frame["row_id"], nothing, nothing, np.zeros(len(passed), np.int64))
        )
        tables.append(whole.select([ROW_ID, *_schema_columns(passed, whole)]))
    one = pool.rows if pool is not None else passed
    if one is None:
        raise AssertionError("a union of nothing")
    union = stack_tables(tables, one.schema.column_names).take(pa.array(chosen))
    schema = one.schema
    rows = load(pl.DataFrame(pl.from_arrow(union)), schema=schema, id_column=ROW_ID)
    kept: Int64 = np.sort(_selected(job, rows, total, None, context).kept)
    return kept


def _schema_columns(rows: Dataset, table: pa.Table) -> list[str]:
    return [name for name in rows.schema.column_names if name in table.column_names and name != ROW_ID]


def _table(
    pool: Pool | None, passed: Dataset | None, incoming: Incoming, at: Int64, chosen: Int64, since: _FirstVersions
) -> pa.Table:
    n_old = 0 if pool is None else len(pool.rows)
    tables = [] if pool is None else [pool.table.take(pa.array(chosen[chosen < n_old]))]
    fresh = chosen[chosen >= n_old] - n_old
    if passed is not None and len(fresh):
        rows, places = passed.take(fresh), at[fresh]
        ids = rows.frame["row_id"]
        own = build_own_columns(ids, incoming.sources.gather(places), incoming.files.gather(places), since.of(ids))
        tables.append(build_table(rows, own))
    one = pool.rows if pool is not None else passed
    columns = () if one is None else one.schema.column_names
    return stack_tables(tables, columns) if tables else build_empty_table(columns)


class _FirstVersions(NamedTuple):
    """In which snapshot rows appeared: a row that a full run judges anew and keeps did so before."""

    old: Pool | None
    version: int

    def of(self, row_id: pl.Series) -> Int64:
        """Return (n,) versions of n rows."""
        since = np.full(len(row_id), self.version, np.int64)
        if self.old is None:
            return since
        wanted, known = pack_row_ids(row_id), pack_row_ids(self.old.rows.frame["row_id"])
        order = np.argsort(known, kind="stable")
        is_old = mask_known(wanted, known[order])
        at = order[np.searchsorted(known[order], wanted[is_old])]
        since[is_old] = self.old.table[SINCE].to_numpy()[at]
        return since
