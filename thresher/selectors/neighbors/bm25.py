"""BM25: how well each row of a pool answers a text, by the n-grams that both have."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from thresher.numeric.arrays import Array, Float32, Float64

K1, B = 1.5, 0.75
N_CELLS = 1 << 24  # scores computed at a time


class Bm25:
    """Scores of the rows of a pool for texts, in Lucene's form.

    score(q, d) = sum over n-grams g of q of tf_q(g) idf(g) tf_d(g) / (tf_d(g) + K1 (1 - B + B |d| /
    mean length)), idf(g) = ln(1 + (n - df + 0.5) / (df + 0.5)).

    Source: Robertson and Zaragoza 2009, doi:10.1561/1500000019; the form of Kamphuis et al. 2020,
    doi:10.1007/978-3-030-45442-5_4.

    Args:
        pool: (n, m) of the feature `ngram`.
        texts: (q, m) of the feature `ngram`.
    """

    def __init__(self, pool: Array, texts: Array) -> None:
        buckets = np.unique(pool["bucket"][pool["bucket"] >= 0])
        counts = _build_matrix(pool, buckets)
        n = counts.shape[0]
        length = np.asarray(counts.sum(axis=1)).ravel()
        n_with = np.bincount(counts.indices, minlength=len(buckets))
        idf = np.log1p((n - n_with + 0.5) / (n_with + 0.5))
        mean = length.mean() if length.any() else 1.0
        damping = K1 * (1 - B + B * length / mean)
        counts.data /= counts.data + np.repeat(damping, np.diff(counts.indptr))
        self._weights = counts.multiply(idf).T.tocsr()  # (words, n)
        self._texts = _build_matrix(texts, buckets)
        self.n_rows = n

    def score(self, texts: Array) -> Float32:
        """Return the scores of all rows for some of the texts, (len(texts), n) float32."""
        scores: Float32 = np.asarray((self._texts[texts] @ self._weights).todense(), dtype=np.float32)
        return scores


def _build_matrix(counts: Array, buckets: Array) -> Any:
    """Return (n, w) float64 counts of the buckets that are known, sparse."""
    is_known = np.isin(counts["bucket"], buckets)
    row, _ = np.nonzero(is_known)
    column = np.searchsorted(buckets, counts["bucket"][is_known])
    values: Float64 = counts["count"][is_known].astype(np.float64)
    return csr_matrix((values, (row, column)), shape=(len(counts), len(buckets)))
