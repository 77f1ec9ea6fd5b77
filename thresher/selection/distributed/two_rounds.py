"""Choosing in two rounds: from each part of the pool, and then from what the parts chose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from thresher.artifacts.folder import atomic_file, write_array, write_parquet
from thresher.errors import InputError
from thresher.features.container import Features
from thresher.models.torch_products import load_products
from thresher.numeric.arrays import Array, Int64
from thresher.numeric.kmeans import fit_spherical_centroids
from thresher.numeric.units import format_bytes
from thresher.numeric.vectors import distinct_rows, unit_rows
from thresher.progress import Progress
from thresher.selection.distributed.coverage import (
    EXISTING,
    BoundShard,
    Certificate,
    CoverShard,
    certify,
    compute_sample_values,
)
from thresher.selection.distributed.partitions import (
    EMBEDDING,
    AssignShard,
    ChoosePart,
    SampleRows,
    arrays_path,
    build_ids,
    concatenate_arrays,
    number_path,
)
from thresher.selection.distributed.shard_features import MeasureShard
from thresher.selection.distributed.sharded_pool import ShardedPool
from thresher.selection.distributed.stage import Record
from thresher.selection.distributed.stage_runner import StageRunner
from thresher.selection.manifest import Outcome
from thresher.selection.request import Request

MAX_ROWS_AT_ONCE = 2_000_000  # beyond, a graph of 64 neighbors and the vectors take over 10 GB
ROWS_PER_PART = 50_000
OVERSAMPLING = 2.0
ROWS_PER_CENTROID = 256
MAX_CENTROID_ROWS = 500_000
N_ITERATIONS = 25
N_JUDGES = 10_000
WEIGHT = "weight"
GUARANTEE = (
    "two rounds over centroid partitions, with fewer picks per part than the budget: no bound beforehand; the "
    "share of the optimum is measured afterward (certified_share)"
)


@dataclass(frozen=True, kw_only=True)
class Partitioning:
    """How a pool is chosen from in parts; it determines the picks.

    Attributes:
        n_parts: centroids.
        oversampling: how many times its share of the budget each part ranks in the first round.
    """

    n_parts: int
    oversampling: float = OVERSAMPLING

    def to_json(self) -> dict[str, int | float]:
        """Return it in JSON values."""
        return asdict(self)


def plan_partitions(request: Request, asked: int | None) -> Partitioning | None:
    """Return how the pool is chosen from in parts, or None for all rows at once.

    Raises:
        InputError: parts were asked for, and the number, the method, the budget or a quota does not
            allow them.
    """
    n, selector = len(request.pool), request.selector
    is_able = selector.requirements.takes_weights
    if asked is None:
        if n <= MAX_ROWS_AT_ONCE or not is_able:
            return None
        asked = math.ceil(n / ROWS_PER_PART)
    if not 1 <= asked <= n:
        raise InputError(f"partitions: must be in 1..{n}, the rows of the pool, got {asked}")
    if asked == 1:
        return None
    if not is_able:
        raise InputError(
            f"partitions: {selector.name} cannot weigh rows by how many they represent, as the second round must; "
            f"leave partitions out, or take facility-location"
        )
    if request.quota is not None or request.budget.unit not in ("rows", "share"):
        other = f"the quota {request.quota}" if request.quota is not None else f"the budget {request.budget}"
        raise InputError(f"partitions: need a budget in rows or a share and no quota, got {other}; choose in two steps")
    return Partitioning(n_parts=asked)


def choose_in_partitions(
    stages: StageRunner,
    plan: Partitioning,
    pool: ShardedPool,
    request: Request,
    side_inputs: Mapping[str, Array],
    measured: MeasureShard,
    records: list[Record],
) -> tuple[CoverShard, Outcome, Int64]:
    """Choose in two rounds, and measure what the picks are worth.

    GreeDi (Mirzasoleiman et al. 2013, arXiv:1411.0541) with the parts of a k-means in place of
    random ones. Its bounds hold for parts that each pick as many rows as the budget: (1 - 1/e)^2 /
    min(parts, k) for any parts, and (1 - 1/e)/2 in expectation for random ones (Barbosa et al.
    2015, arXiv:1502.02606). Here a part picks `oversampling` times its share, so neither holds;
    what the picks have of the optimum is measured.

    Args:
        stages: runs the stages.
        plan: the parts.
        pool: rows to choose from.
        request: of the user.
        side_inputs: features of rows beside the pool.
        measured: the stage that computed the features of the pool.
        records: of that stage.

    Returns:
        The verdicts on the rows of a shard, the outcome, and the positions of the kept rows.
    """
    width = int(next(record["shapes"][EMBEDDING][1][0] for record in records))
    key = [measured.folder.name, plan.to_json(), request.settings()]
    folder = stages.stage_folder("parts", key)
    folder.mkdir(parents=True, exist_ok=True)
    side_path = folder / "beside.safetensors"
    with atomic_file(side_path) as path:
        save_file({name: np.ascontiguousarray(array) for name, array in side_inputs.items()}, path)
    return _TwoRounds(stages, plan, pool, request, side_inputs, side_path, measured.folder, folder, width).choose()


@dataclass(frozen=True)
class _TwoRounds:
    """A choice in two rounds.

    Attributes:
        stages: runs the stages.
        plan: the parts.
        pool: rows to choose from.
        request: of the user.
        side_inputs: features of rows beside the pool.
        side_path: the same in a file, for workers.
        features: folder of the feature files.
        folder: for the files of both rounds.
        width: components of an embedding.
    """

    stages: StageRunner
    plan: Partitioning
    pool: ShardedPool
    request: Request
    side_inputs: Mapping[str, Array]
    side_path: Path
    features: Path
    folder: Path
    width: int

    @property
    def k(self) -> int:
        """Rows to pick."""
        return self.request.budget.n_rows(len(self.pool))

    def choose(self) -> tuple[CoverShard, Outcome, Int64]:
        rng = np.random.default_rng(self.request.seed)
        assigned, counts = self._assign(rng)
        candidates = self._first_round(assigned, counts)
        picks, notes = self._second_round(candidates, rng)
        certificate = self._certify(picks, rng)
        self._report(certificate.sentence())
        positions = self.pool.order[picks["number"]]
        cover = self._cover(assigned, picks, positions)
        kept = np.sort(positions)
        outcome = Outcome(
            kept=self.pool.row_id.gather(kept),
            dropped_by_reason={},
            excluded_by_reason={},
            objective=certificate.value * len(self.pool),
            notes={
                **notes,
                "guarantee": GUARANTEE,
                "n_candidates": len(candidates["number"]),
                "objective_mean": certificate.value,
                "objective_stderr": certificate.stderr,
                "objective_sampled_rows": certificate.n,
                "objective_mean_bound": certificate.bound,
                "certified_share": certificate.share,
            },
            pilot=None,
            depends_on_seed=True,
        )
        return cover, outcome, kept

    def _assign(self, rng: np.random.Generator) -> tuple[AssignShard, Int64]:
        """Find the centroids and put every row into its part; return also the rows of each part."""
        n_sampled = min(len(self.pool), ROWS_PER_CENTROID * self.plan.n_parts, MAX_CENTROID_ROWS)
        sample = self._sample_embeddings("sample", n_sampled, rng)
        unit = unit_rows(sample)
        n_parts = min(self.plan.n_parts, len(distinct_rows(unit).first))
        centroid = fit_spherical_centroids(unit, n_parts, rng, n_iterations=N_ITERATIONS, starts_spread=True)
        centroids = self.folder / "centroids.npy"
        with atomic_file(centroids) as path:
            write_array(centroid, path)
        numbers = self.folder / "numbers"
        numbers.mkdir(exist_ok=True)
        for shard in range(self.pool.n_shards):
            with atomic_file(number_path(numbers, shard)) as path:
                write_array(self.pool.rank[self.pool.shard(shard)], path)
        assigned = AssignShard(
            features=self.features, centroids=centroids, numbers=numbers, folder=self.folder / "assigned"
        )
        records = self.stages.run(assigned, range(self.pool.n_shards))
        return assigned, np.sum([record["parts"] for record in records], axis=0).astype(np.int64)

    def _sample_embeddings(self, name: str, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return the embeddings of rows sampled whatever the order and number of the files."""
        number = np.sort(rng.choice(len(self.pool), n, replace=False))
        position = self.pool.order[number]
        shard = np.searchsorted(self.pool.start, position, side="right") - 1
        rows = {one: position[shard == one] - self.pool.start[one] for one in np.unique(shard).tolist()}
        work = SampleRows(features=self.features, sampled=rows, folder=self.folder / name, name=name)
        self.stages.run(work, sorted(rows))
        x = np.empty((n, self.width), np.float32)
        for one in rows:
            x[shard == one] = load_file(arrays_path(work.folder, one))[EMBEDDING]
        return x

    def _first_round(self, assigned: AssignShard, counts: Int64) -> dict[str, Array]:
        """Rank the rows of each part up to its share of the budget; return all picks by number."""
        share = np.ceil(self.plan.oversampling * self.k * counts / counts.sum()).astype(np.int64)
        n_ranked = np.minimum(counts, share)
        n_second = int(n_ranked.sum())
        second_bytes = self._estimate_bytes(n_second)  # says now when the second round will not fit
        sizes = f"{len(counts):,} parts of {int(counts.min()):,} to {int(counts.max()):,} rows"
        self._report(
            f"{sizes}, then a second round on {n_second:,} picks, about {format_bytes(second_bytes)}; {GUARANTEE}"
        )
        n_largest = int(counts.max())
        work = ChoosePart(
            assigned=assigned.folder,
            n_shards=self.pool.n_shards,
            selector=self.request.selector,
            n_ranked=tuple(n_ranked.tolist()),
            side_inputs=self.side_path,
            seed=self.request.seed,
            folder=self.folder / "first",
            memory_bytes=self._estimate_bytes(n_largest) + 8 * n_largest * self.width,
        )
        n_picks = [record["picks"] for record in self.stages.run(work, range(len(counts)))]
        picks = concatenate_arrays(work.folder, range(len(counts)))
        picks["part"] = np.repeat(np.arange(len(counts)), n_picks)
        order = np.argsort(picks["number"])
        return {name: array[order] for name, array in picks.items()}

    def _estimate_bytes(self, n_rows: int) -> int:
        return self.request.selector.estimate_memory(n_rows, n_rows, self.width)

    def _second_round(
        self, candidates: dict[str, Array], rng: np.random.Generator
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Rank the picks of the parts by the rows they represent; return the best, best first."""
        features = Features(
            row_id=build_ids(candidates["number"]),
            arrays={EMBEDDING: candidates[EMBEDDING], WEIGHT: candidates[WEIGHT]},
            context=self.side_inputs,
            products=load_products(self.request.context.models.device),
        )
        scores = self.request.selector.score(features, n_ranked=self.k, rng=rng)
        ranking = scores.ranking()[: self.k]
        return {name: array[ranking] for name, array in candidates.items()}, dict(scores.notes or {})

    def _certify(self, picks: dict[str, Array], rng: np.random.Generator) -> Certificate:
        n = len(self.pool)
        sample = self._sample_embeddings("judges", min(N_JUDGES, n), rng)
        value = compute_sample_values(sample, picks[EMBEDDING], self.side_inputs.get(EXISTING))
        judges = self.folder / "judges.safetensors"
        with atomic_file(judges) as path:
            save_file({EMBEDDING: sample, "value": value}, path)
        work = BoundShard(features=self.features, judges=judges, n_largest=self.k, folder=self.folder / "bound")
        self.stages.run(work, range(self.pool.n_shards))
        gain = concatenate_arrays(work.folder, range(self.pool.n_shards))["gain"]
        return certify(value, -np.sort(-gain)[: self.k], n)

    def _cover(self, assigned: AssignShard, picks: dict[str, Array], positions: Int64) -> CoverShard:
        path, ids = self.folder / "picks.safetensors", self.folder / "picks.parquet"
        with atomic_file(path) as temporary:
            save_file({name: np.ascontiguousarray(picks[name]) for name in (EMBEDDING, "number", "part")}, temporary)
        with atomic_file(ids) as temporary:
            write_parquet(pl.DataFrame({"row_id": self.pool.row_id.gather(positions)}), temporary)
        return CoverShard(
            assigned=assigned.folder, picks=path, ids=ids, centroids=assigned.centroids, side_inputs=self.side_path
        )

    def _report(self, sentence: str) -> None:
        on_progress = self.request.context.on_progress
        if on_progress is not None:
            note = f"{self.request.selector.name}: {sentence}"
            on_progress(Progress(stage="select", done=0, total=len(self.pool), note=note))
