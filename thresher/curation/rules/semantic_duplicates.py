"""Semantic duplicates: rows whose embeddings point in nearly the same direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from thresher.curation.rule import EXISTING, Rows
from thresher.curation.similarity.cosine_groups import nearest_kept
from thresher.curation.similarity.duplicate_groups import (
    FIRST,
    Copies,
    check_keep,
    keep_needs,
    label_codes,
    line_up,
    verdict_of,
)
from thresher.curation.verdict import Verdict
from thresher.numeric.vectors import unit_rows
from thresher.validation import check_number, check_whole

EMBEDDING = "embedding"


@dataclass(frozen=True, kw_only=True)
class SemanticDuplicates:
    """Drop rows that say the same as a row that stays, in other words.

    Two rows are semantic duplicates when the cosine of their embeddings is at least the threshold.
    Rows are judged in order of preference and compared with those that stay. Up to `exact_rows`
    rows (of one label) all are compared; beyond that rows are compared within clusters of spherical
    k-means, and those that stay also with the rows of the next nearest cluster.

    Source: SemDeDup, Abbas et al. 2023, arXiv:2303.09540. Differs: all pairs for small pools; a row
    is compared with rows that stay, not with rows that are gone, so that each dropped row is
    similar to the row that is named; the first or best row stays, not the one farthest from the
    centroid (`keep`). Cost: O(n k d), k the rows of a label or of a cluster that stay. Needs:
    `embedding`. Existing rows: none is dropped; a row that repeats one is. With all pairs compared,
    judging the pool in parts gives what judging it at once gives. Fails: what the threshold means
    depends on the encoder and the data: look at `clusters.parquet` first. Rows of one narrow task,
    told from a template, are close to one another without being copies.

    Attributes:
        threshold: smallest cosine of duplicates.
        same_label: rows of classification data with different labels are no duplicates.
        keep: "first", "longest", "highest:NAME" or "lowest:NAME" with a column of numbers or a
            feature.
        exact_rows: groups of up to so many rows are compared pair by pair.
        cluster_rows: size that clusters of larger groups have on average.
    """

    name: ClassVar[str] = "semantic-duplicates"
    accepts: ClassVar[Mapping[str, frozenset[str]]] = {EXISTING: frozenset({EMBEDDING})}

    threshold: float = 0.9
    same_label: bool = True
    keep: str = FIRST
    exact_rows: int = 20_000
    cluster_rows: int = 2_000

    def __post_init__(self) -> None:
        """Check the settings."""
        check_number(self.name, "threshold", self.threshold, -1.0, 1.0)
        check_keep(self.name, self.keep)
        check_whole(self.name, "exact_rows", self.exact_rows, 1)
        check_whole(self.name, "cluster_rows", self.cluster_rows, 1)

    @property
    def needs(self) -> frozenset[str]:
        """The embedding, and the feature that decides which row stays, if one does."""
        return keep_needs(self.keep) | {EMBEDDING}

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row that is similar to a preferred row that stays."""
        line = line_up(pool, existing, self.keep)
        given = [rows.features[EMBEDDING] for rows in (existing, pool) if rows is not None]
        unit = unit_rows(np.concatenate(given), round_once=True)
        labels = label_codes(pool.dataset, None if existing is None else existing.dataset) if self.same_label else None
        stands = np.arange(len(unit))
        similarity = np.full(len(unit), np.nan, np.float32)
        n_clusters = 0
        for rows in _groups(line.order, labels):
            found = nearest_kept(
                unit[rows],
                n_fixed=int((rows < line.n_existing).sum()),
                threshold=self.threshold,
                exact_rows=self.exact_rows,
                cluster_rows=self.cluster_rows,
                rng=rng,
            )
            stands[rows] = rows[found.stands]
            similarity[rows] = found.similarity
            n_clusters += found.n_clusters
        return verdict_of(
            Copies(stands, similarity),
            pool,
            existing,
            reason="semantic-duplicate",
            measure="cosine",
            notes={"clusters": n_clusters, **pool.features.notes.get(EMBEDDING, {})},
        )


def _groups(order: NDArray[np.int64], labels: NDArray[np.int64] | None) -> list[NDArray[np.int64]]:
    """Return the rows of each label, in the order of preference; one group where there are no labels."""
    if labels is None:
        return [order]
    by_label = np.argsort(labels[order], kind="stable")
    edges = np.flatnonzero(np.diff(labels[order][by_label])) + 1
    return np.split(order[by_label], edges)
