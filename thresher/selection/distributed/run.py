"""`select` on an engine: the stages in their order, and what passes between them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from filelock import FileLock, Timeout

from thresher.artifacts.folder import MANIFEST, OutputFolder, check_free, expand_path, read_identity, write_atomic
from thresher.artifacts.manifest import Manifest, digest, versions
from thresher.dataset import Dataset
from thresher.dataset.provenance import describe_reading, refuse_input_as_output
from thresher.errors import InputError, OutputError
from thresher.features.compute import COLUMN, compute
from thresher.features.container import Features
from thresher.models.torch_products import load_products
from thresher.numeric.arrays import Array
from thresher.selection.choose import choose
from thresher.selection.distributed.engine import Engine, run_stage
from thresher.selection.distributed.pool_files import files_of
from thresher.selection.distributed.shard_features import MeasureShard, gathered_features, of_shards, sent
from thresher.selection.distributed.sharded_pool import ReadShard, ShardedPool, gathered_pool, key_of_read
from thresher.selection.distributed.stage import Record
from thresher.selection.distributed.stored import StoredSubset
from thresher.selection.distributed.two_rounds import Partitioning, choose_in_partitions, partitioning
from thresher.selection.distributed.writing import WriteShard, added_up, clear, first_positions, write_verdicts
from thresher.selection.manifest import Outcome, build_manifest, summarize_outcome
from thresher.selection.pool_adapters import train_missing_adapters
from thresher.selection.request import Request, SelectCall, check_request
from thresher.subset.cut import verdict_table
from thresher.subset.subset import Subset

if TYPE_CHECKING:
    from thresher.selection.distributed.writing import Verdicts

KEY_DIGITS = 16


def select_on(
    engine: Engine, call: SelectCall, out: Path | None, *, partitions: int | None = None, force: bool = False
) -> Subset:
    """Choose rows of a pool of files, stage by stage on an engine; see `thresher.selection.run.select`.

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
    out = expand_path(out).absolute()
    if out.exists() and (read_identity(out) is None or force):
        check_free(out, force=force)
    work = out.with_name(f".{out.name}.stages")
    with _locked(out, work):
        return _select(Run(engine, call, work), out, partitions, force=force, started=started)


@contextmanager
def _locked(out: Path, work: Path) -> Iterator[None]:
    """Keep two runs with one output folder apart from the first stage on."""
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work.with_name(f"{work.name}.lock"))
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(f"{out}: another run is writing this folder; wait for it or choose another --out") from None
    except OSError as error:
        raise OutputError(
            f"{out}: its parent folder must be writable, got '{error.strerror}'; choose another --out"
        ) from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _select(run: Run, out: Path, partitions: int | None, *, force: bool, started: float) -> Subset:
    request = run.read()
    refuse_input_as_output(out, (request.pool, *request.others.values()))
    plan = partitioning(request, partitions)
    identity = digest({**request.identity(), **({} if plan is None else {"partitioning": plan.to_json()})})
    with OutputFolder(out, identity=identity, force=force) as folder:
        if not folder.is_done:
            try:
                run.write(folder, identity, plan, started)
            except OSError as error:
                if isinstance(error, OutputError):
                    raise
                raise OutputError(f"{out}: the folder must be writable, got '{error}'; free some space there") from None
            clear(folder.work)
            folder.publish()
    shutil.rmtree(run.work, ignore_errors=True)
    return StoredSubset(out, run.pool.reader.files.load)


@dataclass
class _Timer:
    """Seconds spent since the last call."""

    at: float

    def lap(self) -> float:
        now = time.monotonic()
        spent, self.at = now - self.at, now
        return spent


class Run:
    """One selection on an engine."""

    def __init__(self, engine: Engine, call: SelectCall, work: Path) -> None:
        self.engine = engine
        self.call = call
        self.work = work
        self.seconds: dict[str, float] = {}
        self.stages: dict[str, list[Record]] = {}
        self.pool: ShardedPool
        self.request: Request

    def read(self) -> Request:
        """Read the pool for the first time, and check the call against it."""
        self.request = check_request(self.call, lambda: cast(Dataset, self._read()), lambda: self.pool.whole)
        return self.request

    def stage(self, work: Any, numbers: Sequence[int] | None = None) -> list[Record]:
        """Run a stage on the shards of the pool, or on others."""
        numbers = range(self.pool.n_shards) if numbers is None else numbers
        records = run_stage(self.engine, work, numbers, self.call.on_progress)
        self.stages[work.name] = records
        return records

    def folder(self, name: str, key: Any) -> Path:
        """Return the folder of a stage whose files are determined by a key."""
        return self.work / f"{name}-{digest([key, versions(())])[:KEY_DIGITS]}"

    def _read(self) -> ShardedPool:
        clock = _Timer(time.monotonic())
        files = files_of(self.call.pool)
        work = ReadShard(files=files, folder=self.folder("read", key_of_read(files)))
        records = self.stage(work, range(len(files)))
        self.pool = gathered_pool(files, work, records)
        self.seconds["read"] = clock.lap()
        return self.pool

    def write(self, folder: OutputFolder, identity: str, plan: Partitioning | None, started: float) -> None:
        """Compute, choose and write everything into the work folder of the output."""
        out = folder.work
        request, clock = self.request, _Timer(time.monotonic())
        with train_missing_adapters(request.planned_adapters, request.context.on_progress):
            self.seconds["preparation"] = clock.lap()
            measured, records = self._measure()
        if plan is None:
            features, values = gathered_features(self.pool, measured, records, self.work)
            features = self._with_the_rest(features)
            self.seconds["features"] = clock.lap()
            verdicts, made, kept = self._choose(features, values)
            notes = features.notes
        else:
            self.seconds["features"] = clock.lap()
            verdicts, made, kept, notes = choose_in_partitions(self, plan, measured, records)
        self.seconds["selection"] = clock.lap()
        writing = WriteShard(
            reader=self.pool.reader,
            verdicts=verdicts,
            out=out,
            key=self._key_of_writing(measured, kept),
            first=first_positions(self.pool, kept),
            n_kept=len(kept),
            budget=request.budget,
        )
        if not writing.folder.exists():
            folder.empty()
        written = self.stage(writing)
        made = made._replace(
            dropped_by_reason=added_up(written, "dropped"), excluded_by_reason=added_up(written, "excluded")
        )
        self.seconds["write"] = clock.lap()
        self.seconds["total"] = time.monotonic() - started
        manifest = build_manifest(request, identity, made, notes, self.seconds)
        write_atomic(out / MANIFEST, self._with_engine(manifest, plan).to_json())

    def _key_of_writing(self, measured: MeasureShard, kept: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
        """Return the hash of what the output files hold beyond the identity of the result.

        Values that are computed again, on another device for example, may differ by rounding, and
        picks with them.
        """
        files = [[source.name, source.sha256] for source in self.pool.sources]
        return digest([files, measured.folder.name, self.pool.row_id.gather(kept).to_list()])[:KEY_DIGITS]

    def _measure(self) -> tuple[MeasureShard, list[Record]]:
        """Compute the features that shards can have by themselves."""
        needs = of_shards(self.request.needs, self.pool.kind)
        context = sent(self.request.context)
        read = [*describe_reading(cast(Dataset, self.pool)), self.pool.fingerprint]
        names = self.pool.reader.files.names if f"{COLUMN}source" in needs else ()  # without such a column, the file
        key = [read, names, sorted(needs), self.request.settings()["features"], repr(context)]
        measuring = MeasureShard(
            reader=self.pool.reader, needs=needs, context=context, folder=self.folder("features", key)
        )
        if self.request.quota is not None:
            self._check_columns()
        return measuring, self.stage(measuring)

    def _check_columns(self) -> None:
        """Refuse a quota on a column that is not there before any model runs."""
        name = "" if self.request.quota is None else self.request.quota.column
        is_known = name in self.pool.reader.column_names or name == "source"
        if not is_known and not (name == "label" and self.pool.kind == "classification"):
            self.pool.reader.rows(0).column(name)  # says which there are

    def _with_the_rest(self, features: Features) -> Features:
        """Add the features that compare rows, and those of rows beside the pool: computed here."""
        request = self.request
        rest = request.needs - of_shards(request.needs, self.pool.kind)
        if rest:
            pool = self.pool.whole.take(self.pool.order)
            more = compute(pool, rest, request.context)
            features = replace(
                features,
                arrays={**features.arrays, **more.arrays},
                missing={**features.missing, **more.missing},
                notes={**features.notes, **more.notes},
            )
        products = load_products(request.context.models.device)
        return replace(features, context={**features.context, **self.beside()}, products=products)

    def beside(self) -> dict[str, Array]:
        """Return the features of rows beside the pool."""
        from thresher.features.registry import is_pairwise
        from thresher.features.side_inputs import compute_side_inputs

        request = self.request
        found: dict[str, Array] = {}
        for role, rows in request.others.items():
            names = request.selector.requirements.side_features[role]
            pool = self.pool.whole.take(self.pool.order) if any(map(is_pairwise, names)) else rows
            found |= compute_side_inputs(role, names, rows, pool, request.context)
        return found

    def _choose(
        self, features: Features, values: Mapping[str, list[str]]
    ) -> tuple[Verdicts, Outcome, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """Choose from all rows at once, as one machine does."""
        names = None
        if self.request.quota is not None:
            names = values[f"{COLUMN}{self.request.quota.column}"]
            self.request.quota.check(names)
        pool = self.pool
        scores, made, kept, depends_on_seed = choose(self.request, features, pool.order, pool.row_id, names)
        table = verdict_table(pool.row_id, scores, made)
        verdicts = write_verdicts(self.work / "verdicts", pool, table)
        outcome = summarize_outcome(scores, pool.row_id.gather(kept), table, depends_on_seed=depends_on_seed)
        return verdicts, outcome, kept

    def _with_engine(self, manifest: Manifest, plan: Partitioning | None) -> Manifest:
        """Add who did the work to what may differ between two runs, and partitions to what may not."""
        hosts = sorted({record["host"] for records in self.stages.values() for record in records})
        spent = {name: _spent(records) for name, records in self.stages.items()}
        engine = {"name": self.engine.name, "shards": self.pool.n_shards, "hosts": hosts, "worker_seconds": spent}
        content = dict(manifest.content)
        if plan is not None:
            content["partitioning"] = plan.to_json()
        return Manifest({**content, "run": {**content["run"], "engine": engine}})


def _spent(records: Sequence[Record]) -> dict[str, float]:
    """Return rows and seconds of the shards of a stage, and those of the median shard, which loads no model."""
    median = sorted(records, key=lambda record: float(record["seconds"]))[len(records) // 2]
    return {
        "rows": sum(record.get("rows", 0) for record in records),
        "seconds": round(sum(record["seconds"] for record in records), 3),
        "median_rows": median.get("rows", 0),
        "median_seconds": median["seconds"],
    }
