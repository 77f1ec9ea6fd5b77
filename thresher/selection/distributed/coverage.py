"""What the picks do for every row: which one represents it, and what any other set could gain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file

from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.vectors import inverse_norms, unit_rows
from thresher.selection.distributed.partitions import EMBEDDING, arrays_path, write_arrays
from thresher.selection.distributed.shard_features import features_path, read_features
from thresher.selection.distributed.stage import FILES, Record
from thresher.selectors.submodular.kernels import similarity_to_existing

N_PROBED = 4  # parts with picks that are searched for the pick which stands for a row
BLOCK_CELLS = 1 << 22  # cosines computed at once
EXISTING = "existing_embedding"


@dataclass(frozen=True, kw_only=True)
class CoverShard:
    """Returns the verdicts on the rows of a shard: `distributed.writing.Verdicts`.

    A row's pick is looked for in its own part and the nearest others, `N_PROBED` parts with picks
    in all.

    Attributes:
        assigned: folder of `AssignShard`.
        picks: file with the (k, d) `embedding`, `number` and `part` of the picks, best first.
        ids: file with the ids of the picks, best first.
        centroids: file of the (p, d) centroids.
        side_inputs: file of the features of rows beside the pool.
    """

    assigned: Path
    picks: Path
    ids: Path
    centroids: Path
    side_inputs: Path

    def __call__(self, number: int) -> pl.DataFrame:
        """Return the (n,) verdicts of a shard, in the order of its rows."""
        rows, picks = load_file(arrays_path(self.assigned, number)), load_file(self.picks)
        n, x = len(rows["index"]), rows[EMBEDDING]
        nearest, cosine = self._nearest(rows, picks, np.load(self.centroids))
        # the place of each row among the picks, best first; -1 for rows that are no picks
        place = np.full(n, -1, np.int64)
        order = np.argsort(picks["number"])
        at = np.minimum(np.searchsorted(picks["number"], rows["number"], sorter=order), len(order) - 1)
        is_pick = picks["number"][order[at]] == rows["number"]
        place[is_pick] = order[at][is_pick]
        floor = similarity_to_existing(x, inverse_norms(x), load_file(self.side_inputs).get(EXISTING))
        is_covered, is_owned = cosine > 0, (floor > 0) & (floor >= cosine)
        reason = np.where(is_owned, "covered-by-existing", np.where(is_covered, "covered", "over-budget"))
        ids = pl.read_parquet(self.ids)["row_id"]
        table = pl.DataFrame(
            {
                "index": rows["index"],
                "value": np.where(is_pick, -place.astype(np.float64), -np.inf),
                "rank": pl.Series(np.where(is_pick, place + 1, 0)).replace(0, None),
                "reason": pl.Series(reason.tolist(), dtype=pl.String),
                "covered_by": ids.gather(nearest),
                "similarity": pl.Series(np.where(is_owned, floor, cosine).astype(np.float32)),
                "excluded": pl.Series([None] * n, dtype=pl.String),
                "is_pick": is_pick,
            }
        )
        is_kept, reason_of = pl.col("is_pick"), pl.col("reason")
        return (
            table.with_columns(
                reason=pl.when(~is_kept).then(reason_of),
                covered_by=pl.when(~is_kept & (reason_of == "covered")).then(pl.col("covered_by")),
                similarity=pl.when(~is_kept & (reason_of != "over-budget")).then(pl.col("similarity")),
            )
            .sort("index")
            .drop("index", "is_pick")
        )

    def _nearest(
        self, rows: dict[str, NDArray[np.generic]], picks: dict[str, NDArray[np.generic]], centroid: Float32
    ) -> tuple[Int64, Float32]:
        """Return the nearest pick of each row, of those in nearby parts, and the cosine with it."""
        start, x = rows["start"], unit_rows(rows[EMBEDDING])
        own = unit_rows(picks[EMBEDDING])
        has_picks = np.unique(picks["part"])
        nearest, cosine = np.zeros(len(x), np.int64), np.zeros(len(x), np.float32)
        for part in np.flatnonzero(np.diff(start)):
            # the parts with picks, nearest first; its own part leads where it has any
            rest = has_picks[has_picks != part]
            near = rest[np.argsort(-(centroid[rest] @ centroid[part]), kind="stable")]
            probed = [part, *near] if len(rest) < len(has_picks) else near
            candidates = np.flatnonzero(np.isin(picks["part"], probed[:N_PROBED]))
            step = max(1, BLOCK_CELLS // len(candidates))
            for low in range(start[part], start[part + 1], step):
                high = min(low + step, start[part + 1])
                best = candidates[(x[low:high] @ own[candidates].T).argmax(axis=1)]
                nearest[low:high] = best
                cosine[low:high] = np.einsum("ij,ij->i", x[low:high], own[best], dtype=np.float64)
        return nearest, cosine


@dataclass(frozen=True, kw_only=True)
class BoundShard:
    """Finds how much each row of a shard could still add to the objective on the sampled rows.

    Attributes:
        features: folder of the feature files.
        judges: file with the (m, d) `embedding` of the sampled rows and their (m,) `value` under
            the picks.
        n_largest: gains that are kept of a shard.
        folder: for the result.
    """

    features: Path
    judges: Path
    n_largest: int
    folder: Path
    name: str = "bound"
    memory_bytes: int = 0

    def __call__(self, number: int) -> Record:
        """Write the largest gains of a shard, as means over the sampled rows."""
        arrays, _ = read_features(features_path(self.features, number), [EMBEDDING])
        judges = load_file(self.judges)
        x, sample = unit_rows(arrays[EMBEDDING]), unit_rows(judges[EMBEDDING])
        gain = compute_gains(x, sample, judges["value"])
        if len(gain) > self.n_largest:
            gain = -np.partition(-gain, self.n_largest - 1)[: self.n_largest]
        return {FILES: [write_arrays(self.folder, number, {"gain": gain})], "rows": len(x)}


def compute_gains(candidates: Float32, sample: Float32, value: Float64) -> Float64:
    """Return what each candidate adds to the sample's mean cosine with the nearest pick, (n,)."""
    gain = np.empty(len(candidates))
    # a candidate adds what its cosine exceeds the present one by, never less than nothing
    now = value.astype(np.float32)
    step = max(1, BLOCK_CELLS // len(sample))
    for low in range(0, len(candidates), step):
        above = candidates[low : low + step] @ sample.T
        above -= now
        gain[low : low + step] = np.maximum(above, 0, out=above).sum(axis=1, dtype=np.float64) / len(sample)
    return gain


def compute_sample_values(sample: Float32, picks: Float32, existing: Float32 | None) -> Float64:
    """Return each sampled row's cosine with the nearest pick or existing row, (m,), at least 0."""
    unit, own = unit_rows(sample), unit_rows(picks).T
    value = similarity_to_existing(sample, inverse_norms(sample), existing)
    step = max(1, BLOCK_CELLS // max(own.shape[1], 1))
    for low in range(0, len(unit), step):
        value[low : low + step] = np.maximum(value[low : low + step], (unit[low : low + step] @ own).max(axis=1))
    return value


class Certificate(NamedTuple):
    """What is known of picks, all as means per row.

    Attributes:
        value: of the objective, estimated on a uniform sample.
        stderr: its standard error, 0 when all rows were looked at.
        n: sampled rows.
        bound: no set of as many rows has a larger value on the sample.
    """

    value: float
    stderr: float
    n: int
    bound: float

    @property
    def share(self) -> float:
        """At least this share of the largest possible value, on the sample."""
        return self.value / self.bound if self.bound > 0 else 1.0

    def sentence(self) -> str:
        """Return it in words."""
        return (
            f"mean cosine between a row and its nearest pick {self.value:.4f} ± {self.stderr:.4f} on {self.n:,} "
            f"sampled "
            f"rows; no selection of this size exceeds {self.bound:.4f} there, so the picks have at least "
            f"{100 * self.share:.1f} % of the optimum"
        )


def certify(value: Float64, largest_gains: Float64, n_rows: int) -> Certificate:
    """Return what the sampled values and the largest gains prove.

    For a monotone submodular f, max over |T| = k of f(T) <= f(S) + the sum of the k largest gains
    of single rows, given S (Minoux 1978, doi:10.1007/BFb0006528; Leskovec et al. 2007,
    doi:10.1145/1281192.1281239). A cosine is at most 1.

    Args:
        value: (m,) of the sampled rows under the picks.
        largest_gains: (k,) or fewer.
        n_rows: of the pool.
    """
    mean = float(value.mean())
    left_out = 1.0 - len(value) / n_rows  # a sample without repetition
    stderr = float(value.std(ddof=1) * np.sqrt(left_out / len(value))) if len(value) > 1 else 0.0
    return Certificate(mean, stderr, len(value), min(1.0, mean + float(largest_gains.sum())))
