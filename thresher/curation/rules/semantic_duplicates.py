"""Semantic duplicates: rows whose embeddings point in nearly the same direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thresher.curation.rule import Rows
from thresher.curation.similarity.cosine_groups import assign_representatives
from thresher.curation.similarity.duplicate_groups import (
    FIRST,
    DuplicateAssignment,
    DuplicateRule,
    build_duplicate_verdict,
    encode_labels,
    order_by_preference,
)
from thresher.curation.verdict import Verdict
from thresher.numeric.arrays import Int64
from thresher.numeric.vectors import unit_rows
from thresher.validation import option

EMBEDDING = "embedding"


@dataclass(frozen=True, kw_only=True)
class SemanticDuplicates(DuplicateRule):
    """Drop rows that say the same as a row that stays, in other words.

    Two rows are semantic duplicates when the cosine of the embeddings of what they say of their own
    is at least the threshold; text that many rows share is passed over
    (`thresher.dataset.own_text`). Rows are judged in order of preference and compared with those
    that stay. Up to `exact_rows` rows (of one label) all are compared; beyond that rows are
    compared within clusters of spherical k-means, and those that stay also with the rows of the
    next nearest cluster.

    Source: SemDeDup, Abbas et al. 2023, arXiv:2303.09540. Differs: all pairs for small pools; a row
    is compared with rows that stay, not with rows that are gone, so that each dropped row is
    similar to the row that is named; the first or best row stays, not the one farthest from the
    centroid (`keep`). Cost: O(n k d), k the rows of a label or of a cluster that stay. Needs:
    `embedding`. Existing rows: none is dropped; a row that repeats one is. With all pairs compared,
    judging the pool in parts gives what judging it at once gives. Fails: what the threshold means
    depends on the encoder and the data: look at `clusters.parquet` first. Rows of one narrow task,
    written from a template, are close to one another without being copies.

    Attributes:
        threshold: smallest cosine of duplicates.
        same_label: rows of classification data with different labels are no duplicates.
        keep: "first", "longest", "highest:NAME" or "lowest:NAME" with a column of numbers or a
            feature.
        exact_rows: groups of up to so many rows are compared pair by pair.
        cluster_rows: size that clusters of larger groups have on average.
    """

    name: ClassVar[str] = "semantic-duplicates"
    _compared: ClassVar[frozenset[str]] = frozenset({EMBEDDING})

    threshold: float = option(0.9, ge=-1, le=1)
    same_label: bool = True
    keep: str = FIRST
    exact_rows: int = option(20_000, ge=1)
    cluster_rows: int = option(2_000, ge=1)

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row that is similar to a preferred row that stays."""
        order = order_by_preference(pool, existing, self.keep)
        embedding = np.concatenate([rows.features[EMBEDDING] for rows in (existing, pool) if rows is not None])
        unit = unit_rows(embedding, round_once=True)
        labels = encode_labels(pool, existing) if self.same_label else None
        representative = np.arange(len(unit))
        similarity = np.full(len(unit), np.nan, np.float32)
        n_clusters = 0
        for rows in _split_by_label(order.rows, labels):
            within = assign_representatives(
                unit[rows],
                n_fixed=int((rows < order.n_existing).sum()),
                threshold=self.threshold,
                exact_rows=self.exact_rows,
                cluster_rows=self.cluster_rows,
                rng=rng,
            )
            representative[rows], similarity[rows] = rows[within.representative], within.similarity
            n_clusters += within.n_clusters
        return build_duplicate_verdict(
            DuplicateAssignment(representative, similarity),
            pool,
            existing,
            reason="semantic-duplicate",
            measure="cosine",
            notes={"clusters": n_clusters, **pool.features.notes.get(EMBEDDING, {})},
        )


def _split_by_label(order: Int64, labels: Int64 | None) -> list[Int64]:
    """Return the rows of each label, in order of preference; one group without labels."""
    if labels is None:
        return [order]
    by_label = np.argsort(labels[order], kind="stable")
    edges = np.flatnonzero(np.diff(labels[order][by_label])) + 1
    return np.split(order[by_label], edges)
