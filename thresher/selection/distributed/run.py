"""`select` on an engine: the stages in their order, and what passes between them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from filelock import FileLock

from thresher.artifacts.folder import MANIFEST, OutputFolder, check_free, read_identity, take_lock, write_atomic
from thresher.artifacts.local_path import expand_path
from thresher.artifacts.manifest import Manifest, digest
from thresher.artifacts.remote.result import stage
from thresher.dataset import Dataset
from thresher.dataset.provenance import describe_reading, refuse_input_as_output
from thresher.errors import InputError, OutputError
from thresher.features.compute import COLUMN, compute
from thresher.features.container import Features
from thresher.features.registry import is_pairwise
from thresher.features.side_inputs import SideInputs, compute_side_inputs
from thresher.models.torch_products import load_products
from thresher.numeric.arrays import Int64
from thresher.selection.choose import choose
from thresher.selection.distributed.engine import Engine
from thresher.selection.distributed.pool_files import find_pool_files
from thresher.selection.distributed.shard_features import (
    MeasureShard,
    build_worker_context,
    gather_features,
    list_shard_features,
    sum_notes,
)
from thresher.selection.distributed.sharded_pool import ReadShard, ShardedPool, describe_files, gather_pool
from thresher.selection.distributed.stage import Record
from thresher.selection.distributed.stage_runner import KEY_DIGITS, StageRunner
from thresher.selection.distributed.stored import StoredSubset
from thresher.selection.distributed.two_rounds import Partitioning, choose_in_partitions, plan_partitions
from thresher.selection.distributed.writing import (
    Verdicts,
    WriteShard,
    delete_records,
    find_first_positions,
    sum_counts,
    write_verdicts,
)
from thresher.selection.manifest import Outcome, build_manifest, summarize_outcome
from thresher.selection.pool_adapters import train_missing_adapters
from thresher.selection.request import Request, SelectCall, check_request
from thresher.subset.cut import build_verdict_table
from thresher.subset.subset import Subset


def select_distributed(
    engine: Engine, call: SelectCall, out: Path | None, *, partitions: int | None = None, force: bool = False
) -> Subset:
    """Choose rows of a pool of files, stage by stage on an engine; see `selection.run.select`.

    The picks, their scores and the manifest are those of one machine; with partitions, those of two
    rounds.

    Args:
        engine: that runs the stages.
        call: of the user; its pool is files.
        out: folder to write to, on storage that all nodes see.
        partitions: parts that are chosen from separately in the first round; None where all rows
            are looked at at once unless there are too many for that.
        force: replace an earlier result.

    Raises:
        InputError: the pool is not files, there is no folder, or the order is not that of the
            files.
    """
    started = time.monotonic()
    if out is None:
        raise InputError(
            f"engine {engine.name}: needs a folder for the result that all nodes see, got none; give --out"
        )
    if call.settings.order != "file":
        raise InputError(
            f"order: engine {engine.name} writes one file per shard, in the order of the files, "
            f"got '{call.settings.order}'; ranks are in the scores"
        )
    out = expand_path(stage(out)).absolute()
    if out.exists() and (read_identity(out) is None or force):
        check_free(out, force=force)
    work = out.with_name(f".{out.name}.stages")
    with _locked(out, work):
        stages = StageRunner(engine, work, call.on_progress)
        return _select(stages, call, out, partitions, force=force, started=started)


@contextmanager
def _locked(out: Path, work: Path) -> Iterator[None]:
    """Keep two runs with one output folder apart from the first stage on."""
    lock = FileLock(work.with_name(f"{work.name}.lock"))
    take_lock(lock, out)
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@dataclass
class _Timer:
    """Seconds spent on each step.

    Attributes:
        started: on the monotonic clock, with the call.
        lap: when the last step ended.
        seconds: by step.
    """

    started: float
    lap: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    def record(self, step: str) -> None:
        """Note that a step has ended."""
        now = time.monotonic()
        self.seconds[step], self.lap = now - self.lap, now


def _select(
    stages: StageRunner, call: SelectCall, out: Path, partitions: int | None, *, force: bool, started: float
) -> Subset:
    timer = _Timer(started)
    pools: list[ShardedPool] = []  # read once, when the rest of the call was checked

    def read() -> Dataset:
        pools.append(_read_pool(stages, call))
        timer.record("read")
        return cast(Dataset, pools[0])

    request = check_request(call, read, lambda: pools[0].whole)
    pool = pools[0]
    refuse_input_as_output(out, (request.pool, *request.others.values()))
    plan = plan_partitions(request, partitions)
    identity = digest({**request.identity(), **({} if plan is None else {"partitioning": plan.to_json()})})
    with OutputFolder(out, identity=identity, force=force) as folder:
        if not folder.is_done:
            try:
                _fill_folder(folder, _Selection(stages, pool, request, plan), identity, timer)
            except OSError as error:
                if isinstance(error, OutputError):
                    raise
                raise OutputError(f"{out}: the folder must be writable, got '{error}'; free some space there") from None
            delete_records(folder.work)
            folder.publish()
    shutil.rmtree(stages.folder, ignore_errors=True)
    return StoredSubset(out, pool.reader.files.load)


def _read_pool(stages: StageRunner, call: SelectCall) -> ShardedPool:
    files = find_pool_files(call.pool)
    work = ReadShard(files=files, folder=stages.stage_folder("read", describe_files(files)))
    return gather_pool(files, work, stages.run(work, range(len(files))))


def _fill_folder(folder: OutputFolder, selection: _Selection, identity: str, timer: _Timer) -> None:
    """Compute, choose and write everything into the work folder of the output."""
    out, request, pool, stages = folder.work, selection.request, selection.pool, selection.stages
    with train_missing_adapters(request.planned_adapters, request.context.on_progress):
        timer.record("preparation")
        measured, records = selection.measure()
    if selection.plan is None:
        features, values = selection.gather(measured, records)
        timer.record("features")
        verdicts, outcome, kept = selection.choose(features, values)
        notes: Mapping[str, Mapping[str, int]] = features.notes
    else:
        side_inputs, notes = selection.compute_side_inputs().arrays, sum_notes(records)
        timer.record("features")
        verdicts, outcome, kept = choose_in_partitions(
            stages, selection.plan, pool, request, side_inputs, measured, records
        )
    timer.record("selection")
    writing = WriteShard(
        reader=pool.reader,
        verdicts=verdicts,
        out=out,
        key=_compute_write_key(pool, measured, kept),
        first=find_first_positions(pool, kept),
        n_kept=len(kept),
        budget=request.budget,
    )
    if not writing.folder.exists():
        folder.empty()
    written = stages.run(writing, range(pool.n_shards))
    outcome = outcome._replace(
        dropped_by_reason=sum_counts(written, "dropped"), excluded_by_reason=sum_counts(written, "excluded")
    )
    timer.record("write")
    timer.seconds["total"] = time.monotonic() - timer.started
    manifest = build_manifest(request, identity, outcome, notes, timer.seconds)
    write_atomic(out / MANIFEST, selection.add_engine(manifest).to_json())


def _compute_write_key(pool: ShardedPool, measured: MeasureShard, kept: Int64) -> str:
    """Return the hash of what the output files hold beyond the identity of the result.

    Values that are computed again, on another device for example, may differ by rounding, and picks
    with them.
    """
    files = [[source.name, source.sha256] for source in pool.sources]
    return digest([files, measured.folder.name, pool.row_id.gather(kept).to_list()])[:KEY_DIGITS]


@dataclass(frozen=True)
class _Selection:
    """One selection on an engine, once its pool was read and its request checked."""

    stages: StageRunner
    pool: ShardedPool
    request: Request
    plan: Partitioning | None

    def measure(self) -> tuple[MeasureShard, list[Record]]:
        """Compute the features that shards can have by themselves."""
        needs = list_shard_features(self.request.needs, self.pool.kind)
        context = build_worker_context(self.request.context)
        read = [*describe_reading(cast(Dataset, self.pool)), self.pool.fingerprint]
        # where rows have no column `source`, it is their file
        names = self.pool.reader.files.names if f"{COLUMN}source" in needs else ()
        key = [read, names, sorted(needs), self.request.settings()["features"], repr(context)]
        measuring = MeasureShard(
            reader=self.pool.reader, needs=needs, context=context, folder=self.stages.stage_folder("features", key)
        )
        if self.request.quota is not None:
            self._check_column(self.request.quota.column)
        return measuring, self.stages.run(measuring, range(self.pool.n_shards))

    def _check_column(self, name: str) -> None:
        """Refuse a quota on a column that is not there before any model runs."""
        is_known = name in self.pool.reader.column_names or name == "source"
        if not is_known and not (name == "label" and self.pool.kind == "classification"):
            self.pool.reader.rows(0).column(name)  # says which there are

    def gather(self, measured: MeasureShard, records: list[Record]) -> tuple[Features, dict[str, list[str]]]:
        """Return the features of all rows, and the values behind each column's codes.

        Those that compare rows, and those of side inputs, are computed here.
        """
        features, values = gather_features(self.pool, measured, records, self.stages.folder)
        rest = self.request.needs - list_shard_features(self.request.needs, self.pool.kind)
        if rest:
            more = compute(self.pool.whole.take(self.pool.order), rest, self.request.context)
            features = replace(
                features,
                arrays={**features.arrays, **more.arrays},
                missing={**features.missing, **more.missing},
                notes={**features.notes, **more.notes},
            )
        products = load_products(self.request.context.models.device)
        side_inputs = self.compute_side_inputs()
        context, missing = {**features.context, **side_inputs.arrays}, {**features.missing, **side_inputs.missing}
        return replace(features, context=context, missing=missing, products=products), values

    def compute_side_inputs(self) -> SideInputs:
        """Return the features of the rows that were given beside the pool."""
        side_inputs = SideInputs({}, {})
        for role, rows in self.request.others.items():
            names = self.request.selector.requirements.side_features[role]
            pool = self.pool.whole.take(self.pool.order) if any(map(is_pairwise, names)) else rows
            side_inputs.add(compute_side_inputs(role, names, rows, pool, self.request.context))
        return side_inputs

    def choose(self, features: Features, values: Mapping[str, list[str]]) -> tuple[Verdicts, Outcome, Int64]:
        """Choose from all rows at once, as one machine does."""
        names = None
        if self.request.quota is not None:
            names = values[f"{COLUMN}{self.request.quota.column}"]
            self.request.quota.check(names)
        row_id = self.pool.row_id
        scores, cut, kept, depends_on_seed, shortfall = choose(self.request, features, self.pool.order, row_id, names)
        table = build_verdict_table(row_id, scores, cut)
        verdicts = write_verdicts(self.stages.folder / "verdicts", self.pool, table)
        outcome = summarize_outcome(
            scores, row_id.gather(kept), table, depends_on_seed=depends_on_seed, shortfall=shortfall
        )
        return verdicts, outcome, kept

    def add_engine(self, manifest: Manifest) -> Manifest:
        """Add who did the work to what may differ between runs, and partitions to what may not."""
        engine = {"name": self.stages.engine.name, "shards": self.pool.n_shards, **self.stages.describe()}
        content = dict(manifest.content)
        if self.plan is not None:
            content["partitioning"] = self.plan.to_json()
        return Manifest({**content, "run": {**content["run"], "engine": engine}})
