"""The rules over the new rows, and the features by which old and new rows are chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thresher.curation.pipeline import CurationResult, apply_rules
from thresher.dataset import Dataset
from thresher.features import FeatureContext, compute
from thresher.jobs.job_file import Job
from thresher.jobs.snapshots.read import Pool
from thresher.jobs.sources.batches import Incoming
from thresher.jobs.state import UpdateInputs
from thresher.numeric.arrays import Array, Int64


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The m old rows followed by the n new rows that passed the rules.

    Attributes:
        pool: the old rows; None when there are none.
        incoming: all new rows.
        curation: what the rules say of the new rows; None when there are none.
        positions: (n,) of the rows that passed, among the new rows.
        lengths: (m + n,) tokens.
        embedding: (m + n, d), or None when nothing compares rows by it.
        incoming_lengths: tokens of all new rows.
        incoming_embedding: of all new rows, or None.
    """

    pool: Pool | None
    incoming: Incoming
    curation: CurationResult | None
    positions: Int64
    lengths: Array
    embedding: Array | None
    incoming_lengths: Array
    incoming_embedding: Array | None

    @property
    def passed(self) -> Dataset | None:
        """The n new rows that passed, masked where a rule masks; None without new rows."""
        return None if self.curation is None else self.curation.rows

    @property
    def n_old(self) -> int:
        """How many of the candidates are old rows."""
        return 0 if self.pool is None else len(self.pool.rows)

    @property
    def weight(self) -> Int64:
        """(m + n,) how many rows each stands for: a new row for itself."""
        old = np.zeros(0, np.int64) if self.pool is None else self.pool.weight
        return np.concatenate([old, np.ones(len(self.positions), np.int64)])

    def require_embedding(self) -> Array:
        """Return the embeddings, which a budget or a total needs."""
        if self.embedding is None:
            raise AssertionError("a budget or a total needs embeddings")
        return self.embedding


def needs_embedding(job: Job) -> bool:
    """Tell whether a run of the job compares rows by meaning outside its rules."""
    return job.budget is not None or job.settings.select.total is not None or job.settings.gates.n_topics > 0


def curate_rows(job: Job, inputs: UpdateInputs, context: FeatureContext) -> Candidates:
    """Apply the rules to the new rows beside the pool, and compute features of both."""
    rows, pool = inputs.incoming.rows, inputs.pool
    curation, positions = None, np.zeros(0, np.int64)
    if rows is not None:
        curation = apply_rules(
            rows,
            job.rules,
            existing=None if pool is None else pool.rows,
            eval=inputs.plan.eval_rows,
            context=context,
            report=job.report,
            seed=job.settings.seed,
        )
        positions = curation.kept
    needs = {"length", "embedding"} if needs_embedding(job) else {"length"}
    old = None if pool is None else compute(pool.rows, needs, context)
    new = None if rows is None else compute(rows, needs, context)

    def join(name: str) -> Array:
        parts = [] if old is None else [old[name]]
        return np.concatenate(parts if new is None else [*parts, new[name][positions]])

    has_embedding = "embedding" in needs
    return Candidates(
        pool=pool,
        incoming=inputs.incoming,
        curation=curation,
        positions=positions,
        lengths=join("length"),
        embedding=join("embedding") if has_embedding else None,
        incoming_lengths=np.zeros(0, np.int64) if new is None else new["length"],
        incoming_embedding=new["embedding"] if new is not None and has_embedding else None,
    )
