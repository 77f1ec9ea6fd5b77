"""The adapter gate: a snapshot must not make the adapter that is trained on it worse.

Two adapters are trained in the same way and with the same seeds, one on the rows of the published
snapshot and one on those of the next, and compared on the job's `eval` rows, paired by row and
seed: on all of them, on each slice, and, for language models, on rows that are not of the task. The
p-values are adjusted for their number (Holm), so that an equal snapshot fails in at most 5 % of
runs. Adapters lie in the cache, by what they were trained on: that of the published snapshot is
there already, and a run that was killed goes on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from thresher.artifacts.folder import MANIFEST, write_atomic
from thresher.artifacts.manifest import FORMAT, Manifest, digest
from thresher.cache.folder_cache import FolderCache
from thresher.dataset import Dataset, load
from thresher.errors import InputError
from thresher.evaluation.effect import Effect, adjust_p_values, describe_effect, estimate_effect, is_clear
from thresher.evaluation.metric import METRICS, Metric, Unit, find_unit
from thresher.features.compute import column_values
from thresher.jobs.drift.gates import Alarm
from thresher.jobs.events import EventLog
from thresher.jobs.job_file import Job
from thresher.jobs.settings import TrainSection
from thresher.jobs.snapshots.table import ROW_ID
from thresher.jobs.state import UpdateInputs
from thresher.numeric.units import format_count

KIND, ADAPTER = "gates", "adapter"  # folder of the cache, and in each of its folders
SMALLEST_SLICE = 5  # rows
BITS = Metric(name="bits per byte", is_higher_better=False, column="bits_after", weight="n_bytes")
BITS_UNIT = Unit(name=BITS.name, factor=1.0, digits=3)
ALL, GENERAL = "all rows", "general rows"


@dataclass(frozen=True)
class AdapterReport:
    """What the gate found.

    Attributes:
        section: of the report, in JSON values; None where nothing was asked.
        alarms: where the next adapter is worse.
    """

    section: dict[str, Any] | None
    alarms: list[Alarm]


NOT_TRAINED = AdapterReport(None, [])


def get_gate_cache() -> FolderCache:
    """Return where the adapters of gates are kept."""
    return FolderCache(KIND)


def check_adapter(job: Job, inputs: UpdateInputs, table: pa.Table, log: EventLog) -> AdapterReport:
    """Train on the rows of the next snapshot, and compare with the published one.

    Args:
        job: with a section [train], or the gate does nothing.
        inputs: with the published snapshot.
        table: rows of the next snapshot.
        log: hears what happens.

    Raises:
        InputError: there are no rows to measure on, or none to train on.
        SettingsError: a setting does not fit the model.
    """
    settings, held_out = job.settings.train, inputs.plan.eval_rows
    if settings is None:
        return NOT_TRAINED
    if held_out is None:
        raise InputError(f"{job.path.name}: [train] compares adapters on held-out rows, found none; give eval")
    if inputs.old is None or not table.num_rows:
        log.note("train", "there is no published snapshot yet, so no adapter to compare with")
        return AdapterReport({"verdict": "first", "tests": []}, [])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        pa.parquet.write_table(table, path)
        rows = load([str(path)], schema=inputs.schema, id_column=ROW_ID)
        sides = [_train(job, settings, each, held_out, log) for each in (inputs.old.rows, rows)]
    slices = _find_slices(settings, held_out, sides[0][0])
    tests = list(_compare(sides[1], sides[0], slices, kind=held_out.kind))
    adjusted = adjust_p_values([effect.p for _, _, effect in tests])
    alarms, entries = [], []
    for (name, metric, effect), p in zip(tests, adjusted, strict=True):
        is_worse = is_clear(effect, p) and effect.value < 0
        entries.append({"rows": name, "metric": metric, **asdict(effect), "p_adjusted": p, "is_worse": is_worse})
        what = f"{name}: {_describe(metric, effect, p)}"
        log.send("train", what)
        if is_worse:
            message = (
                f"train: the adapter must not be worse than that of the published snapshot, got {what}; look at the "
                f"new rows, or accept them with --accept"
            )
            alarms.append(Alarm("train", True, effect.value, 0.0, message, what))
    return AdapterReport({"verdict": "worse" if alarms else "not clearly worse", "tests": entries}, alarms)


def _train(job: Job, settings: TrainSection, rows: Dataset, held_out: Dataset, log: EventLog) -> list[Path]:
    """Return an adapter's folder for each seed; what is in the cache is not trained again."""
    from thresher.trainer.context import resolve_run
    from thresher.trainer.settings import TrainSettings
    from thresher.trainer.train import train
    from thresher.trainer.untouched.settings import UntouchedSettings
    from thresher.validation import build_settings

    own = build_settings(TrainSettings, "train", settings.settings)
    model, first = job.resolve_model(settings.model), job.settings.seed
    # with the content of the base, which a model's name does not tell
    run = resolve_run(
        rows, model=model, settings=own, seed=first, eval=held_out, untouched=UntouchedSettings(base="none")
    )
    about = {key: value for key, value in run.identity().items() if key != "seeds"}
    folders = []
    for seed in range(first, first + settings.seeds):
        key = digest({"gate": about, "seed": seed})

        def write(work: Path, key: str = key, seed: int = seed) -> None:
            train(
                rows, model=model, eval=held_out, control="none", settings=own, seed=seed, base="none",
                out=work / ADAPTER, force=True,
            )  # fmt: skip
            write_atomic(work / MANIFEST, Manifest({"format": FORMAT, "kind": KIND, "identity": key}).to_json())

        folder = get_gate_cache().make(key, write) / ADAPTER
        log.send("train", f"adapter on {len(rows):,} rows, seed {seed}: {folder}")
        folders.append(folder)
    return folders


def _find_slices(settings: TrainSection, held_out: Dataset, folder: Path) -> dict[str, list[str]]:
    """Return the row ids of each slice: by a column of the held-out rows, or by label.

    Raises:
        InputError: the rows have no such column.
    """
    outcomes = pl.read_parquet(folder / "predictions.parquet")
    if settings.slices is not None:
        values = column_values(held_out, settings.slices)
        frame = pl.DataFrame({"row_id": held_out.frame["row_id"], "slice": [str(value) for value in values]})
    elif held_out.kind == "classification":
        frame = outcomes.select("row_id", slice="label")
    else:
        return {}
    frame = frame.filter(pl.col("row_id").is_in(outcomes["row_id"].to_list()))
    groups = {str(name): group["row_id"].to_list() for (name,), group in frame.group_by("slice", maintain_order=True)}
    return {name: ids for name, ids in sorted(groups.items()) if len(ids) >= SMALLEST_SLICE}


def _compare(
    ours: Sequence[Path], theirs: Sequence[Path], slices: dict[str, list[str]], *, kind: str
) -> Iterator[tuple[str, str, Effect]]:
    """Yield what was measured on, the metric, and how much better ours is."""
    metric = next(iter(METRICS[kind].values()))
    own, their = ([pl.read_parquet(folder / "predictions.parquet") for folder in side] for side in (ours, theirs))
    yield ALL, metric.name, _estimate(metric, own, their)
    for name, ids in slices.items():
        parts = [[table.filter(pl.col("row_id").is_in(ids)) for table in side] for side in (own, their)]
        yield f"slice {name}", metric.name, _estimate(metric, *parts)
    general = "predictions_general.parquet"
    if (ours[0] / general).is_file():
        tables = [[pl.read_parquet(folder / general) for folder in side] for side in (ours, theirs)]
        totals = [
            [table.with_columns(bits_after=pl.col("bits_after") * pl.col("n_bytes")) for table in side]
            for side in tables
        ]
        yield GENERAL, BITS.name, _estimate(BITS, *totals)


def _estimate(metric: Metric, ours: Sequence[pl.DataFrame], theirs: Sequence[pl.DataFrame]) -> Effect:
    a, b = (np.stack([metric.per_row(table) for table in side]) for side in (ours, theirs))
    return estimate_effect(a, b, metric.weights(ours[0]), is_higher_better=metric.is_higher_better)


def _describe(metric: str, effect: Effect, p: float) -> str:
    """Return the verdict, with the metric and on how many rows and seeds it is."""
    said = describe_effect(effect, p, BITS_UNIT if metric == BITS.name else find_unit(metric))
    return f"{said} ({metric}, n = {effect.n_rows}, {format_count(effect.n_seeds, 'seed')})"
