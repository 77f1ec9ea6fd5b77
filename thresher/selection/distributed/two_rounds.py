"""Choosing in two rounds: from each part of the pool, and then from what the parts chose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from thresher.artifacts.folder import atomic_file, write_parquet
from thresher.errors import InputError
from thresher.features.container import Features
from thresher.models.torch_products import load_products
from thresher.numeric.arrays import Array, Int64
from thresher.numeric.kmeans import fit_spherical_centroids
from thresher.numeric.vectors import distinct_rows, unit_rows
from thresher.selection.distributed.coverage import (
    EXISTING,
    BoundShard,
    Certificate,
    CoverShard,
    certify,
    values_of_sample,
)
from thresher.selection.distributed.partitions import (
    EMBEDDING,
    AssignShard,
    ChoosePart,
    DrawRows,
    arrays_path,
    ids_of,
    number_path,
    together,
)
from thresher.selection.distributed.shard_features import MeasureShard, notes_of
from thresher.selection.distributed.stage import Record
from thresher.selection.manifest import Outcome

if TYPE_CHECKING:
    from thresher.selection.distributed.run import Run
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
    "two rounds over centroid partitions, with fewer picks per part than the budget: no bound beforehand; what they "
    "have of the optimum is measured afterwards (certified_share)"
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


def partitioning(request: Request, asked: int | None) -> Partitioning | None:
    """Return how the pool is chosen from in parts, or None where all its rows are looked at at once.

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
            f"partitions: {selector.name} cannot weigh rows that stand for others, as the second of two rounds must; "
            f"leave partitions out, or take facility-location"
        )
    if request.quota is not None or request.budget.unit not in ("rows", "share"):
        found = f"the quota {request.quota}" if request.quota is not None else f"the budget {request.budget}"
        raise InputError(f"partitions: need a budget in rows or a share and no quota, got {found}; choose in two steps")
    return Partitioning(n_parts=asked)


def choose_in_partitions(
    run: Run, plan: Partitioning, measured: MeasureShard, records: list[Record]
) -> tuple[CoverShard, Outcome, Int64, Mapping[str, Mapping[str, int]]]:
    """Choose in two rounds, and tell what the picks are worth.

    GreeDi (Mirzasoleiman et al. 2013, arXiv:1411.0541) with the parts of a k-means in place of
    random ones. Its bounds hold for parts that each pick as many rows as the budget: (1 - 1/e)^2 /
    min(parts, k) for any parts, and (1 - 1/e)/2 in expectation for random ones (Barbosa et al.
    2015, arXiv:1502.02606). Here a part picks `oversampling` times its share, so neither holds;
    what the picks have of the optimum is measured.

    Returns:
        What became of the rows of a shard, what came out, the positions of the kept rows, and notes
        of features.
    """
    return _TwoRounds(run, plan, measured, records).choose()


class _TwoRounds:
    def __init__(self, run: Run, plan: Partitioning, measured: MeasureShard, records: list[Record]) -> None:
        self.run, self.plan, self.records = run, plan, records
        self.pool, self.request = run.pool, run.request
        self.features = measured.folder
        self.k = self.request.budget.n_rows(len(self.pool))
        self.key = [measured.folder.name, plan.to_json(), self.request.settings()]
        self.folder = run.folder("parts", self.key)
        self.beside_path = self.folder / "beside.safetensors"

    def choose(self) -> tuple[CoverShard, Outcome, Int64, Mapping[str, Mapping[str, int]]]:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.beside: Mapping[str, Array] = self.run.beside()
        with atomic_file(self.beside_path) as path:
            save_file({name: np.ascontiguousarray(array) for name, array in self.beside.items()}, path)
        rng = np.random.default_rng(self.request.seed)
        assigned, counts = self._assign(rng)
        candidates = self._first_round(assigned, counts)
        picks, notes = self._second_round(candidates, rng)
        certificate = self._certify(picks, rng)
        self._tell(certificate.sentence())
        positions = self.pool.order[picks["number"]]
        cover = self._cover(assigned, picks, positions)
        kept = np.sort(positions)
        made = Outcome(
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
            depends_on_seed=True,
        )
        return cover, made, kept, notes_of(self.records)

    def _assign(self, rng: np.random.Generator) -> tuple[AssignShard, Int64]:
        """Find the centroids and put every row into its part; returns also the rows of each part."""
        n_sampled = min(len(self.pool), ROWS_PER_CENTROID * self.plan.n_parts, MAX_CENTROID_ROWS)
        sample = self._drawn("sample", n_sampled, rng)
        unit = unit_rows(sample)
        n_parts = min(self.plan.n_parts, len(distinct_rows(unit).first))
        centroid = fit_spherical_centroids(unit, n_parts, rng, n_iterations=N_ITERATIONS, starts_spread=True)
        centroids = self.folder / "centroids.npy"
        with atomic_file(centroids) as path, path.open("wb") as file:
            np.save(file, centroid)
        numbers = self.folder / "numbers"
        numbers.mkdir(exist_ok=True)
        for shard in range(self.pool.n_shards):
            with atomic_file(number_path(numbers, shard)) as path, path.open("wb") as file:
                np.save(file, self.pool.rank[self.pool.shard(shard)])
        assigned = AssignShard(
            features=self.features, centroids=centroids, numbers=numbers, folder=self.folder / "assigned"
        )
        found = self.run.stage(assigned)
        return assigned, np.sum([record["parts"] for record in found], axis=0).astype(np.int64)

    def _drawn(self, name: str, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return the embeddings of rows drawn without regard to the order and the number of the files."""
        number = np.sort(rng.choice(len(self.pool), n, replace=False))
        position = self.pool.order[number]
        shard = np.searchsorted(self.pool.start, position, side="right") - 1
        drawn = {one: position[shard == one] - self.pool.start[one] for one in np.unique(shard).tolist()}
        work = DrawRows(features=self.features, drawn=drawn, folder=self.folder / name, name=name)
        self.run.stage(work, sorted(drawn))
        x = np.empty((n, self._width), np.float32)
        for one in drawn:
            x[shard == one] = load_file(arrays_path(work.folder, one))[EMBEDDING]
        return x

    @property
    def _width(self) -> int:
        return int(next(r["shapes"][EMBEDDING][1][0] for r in self.records))

    def _first_round(self, assigned: AssignShard, counts: Int64) -> dict[str, Array]:
        """Rank the rows of each part, as far as its share of the budget goes; returns the picks of all, by number."""
        share = np.ceil(self.plan.oversampling * self.k * counts / counts.sum()).astype(np.int64)
        n_ranked = np.minimum(counts, share)
        memory = self.request.selector.memory  # type: ignore[attr-defined]
        second = memory(int(n_ranked.sum()), self._width)  # says now when the second round will not fit
        sizes = f"{len(counts):,} parts of {int(counts.min()):,} to {int(counts.max()):,} rows"
        self._tell(f"{sizes}, then {second.told('the second round', int(n_ranked.sum()), GUARANTEE)}")
        n_largest = int(counts.max())
        work = ChoosePart(
            assigned=assigned.folder,
            n_shards=self.pool.n_shards,
            selector=self.request.selector,
            n_ranked=tuple(n_ranked.tolist()),
            beside=self.beside_path,
            seed=self.request.seed,
            folder=self.folder / "first",
            memory_bytes=memory(n_largest, self._width).n_bytes + 8 * n_largest * self._width,
        )
        n_picks = [record["picks"] for record in self.run.stage(work, range(len(counts)))]
        found = together(work.folder, range(len(counts)))
        found["part"] = np.repeat(np.arange(len(counts)), n_picks)
        order = np.argsort(found["number"])
        return {name: array[order] for name, array in found.items()}

    def _second_round(
        self, candidates: dict[str, Array], rng: np.random.Generator
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Rank what the parts picked, each with the rows that it stands for; returns the picks, best first."""
        features = Features(
            row_id=ids_of(candidates["number"]),
            arrays={EMBEDDING: candidates[EMBEDDING], WEIGHT: candidates[WEIGHT]},
            context=self.beside,
            products=load_products(self.request.context.models.device),
        )
        scores = self.request.selector.score(features, n_ranked=self.k, rng=rng)
        ranking = scores.ranking()[: self.k]
        return {name: array[ranking] for name, array in candidates.items()}, dict(scores.notes or {})

    def _certify(self, picks: dict[str, Array], rng: np.random.Generator) -> Certificate:
        n = len(self.pool)
        sample = self._drawn("judges", min(N_JUDGES, n), rng)
        value = values_of_sample(sample, picks[EMBEDDING], self.beside.get(EXISTING))
        judges = self.folder / "judges.safetensors"
        with atomic_file(judges) as path:
            save_file({EMBEDDING: sample, "value": value}, path)
        work = BoundShard(features=self.features, judges=judges, n_largest=self.k, folder=self.folder / "bound")
        self.run.stage(work)
        gain = together(work.folder, range(self.pool.n_shards))["gain"]
        return certify(value, -np.sort(-gain)[: self.k], n)

    def _cover(self, assigned: AssignShard, picks: dict[str, Array], positions: Int64) -> CoverShard:
        path, ids = self.folder / "picks.safetensors", self.folder / "picks.parquet"
        with atomic_file(path) as temporary:
            kept = {name: np.ascontiguousarray(picks[name]) for name in (EMBEDDING, "number", "part")}
            save_file(kept, temporary)
        with atomic_file(ids) as temporary:
            write_parquet(pl.DataFrame({"row_id": self.pool.row_id.gather(positions)}), temporary)
        return CoverShard(
            assigned=assigned.folder, picks=path, ids=ids, centroids=assigned.centroids, beside=self.beside_path
        )

    def _tell(self, sentence: str) -> None:
        from thresher.progress import Progress

        on_progress = self.request.context.on_progress
        if on_progress is not None:
            note = f"{self.request.selector.name}: {sentence}"
            on_progress(Progress(stage="select", done=0, total=len(self.pool), note=note))
