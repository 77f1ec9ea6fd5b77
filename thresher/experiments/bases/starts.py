"""Adapters that have learned other data first: what training on one's own rows then goes on from.

    ROOT/trained/v1/KEY/{adapter_model.safetensors, adapter_config.json, ..., manifest.json}

Each is trained once and kept by its content; a killed call continues from the last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

from thresher.artifacts.folder import MANIFEST, write_atomic
from thresher.artifacts.manifest import FORMAT, Manifest, digest
from thresher.dataset import Dataset
from thresher.experiments.cells.cell import compute_cell_key
from thresher.experiments.design.rough_estimate import describe_rough_time
from thresher.experiments.experiment import Experiment
from thresher.numeric.arrays import Int64
from thresher.numeric.units import format_count
from thresher.progress import OnProgress, Progress
from thresher.selection.pool_adapters import CHECKPOINTS, get_adapter_cache
from thresher.trainer.engine.tokenization import require_rows

ROLE = "start"


def train_starts(
    experiment: Experiment,
    first: Mapping[tuple[str, int], Int64],
    n_steps: Mapping[tuple[str, int], int | None],
    on_progress: OnProgress | None,
) -> dict[tuple[str, int], Path]:
    """Return the folders of adapters that have learned other data first.

    Args:
        experiment: model, settings, labels and pool.
        first: positions in the pool, by the name of the data and the seed.
        n_steps: optimizer steps of each; None for as many as the settings ask for.
        on_progress: told what is trained, and how long each takes.

    Raises:
        InputError: none of the rows can be learned.
    """
    stage, sizes, starts = "the other data", [len(rows) for rows in first.values()], {}

    def tell(n_done: int, note: str) -> None:
        if on_progress is not None:
            on_progress(Progress(stage=stage, done=n_done, total=len(first), note=note))

    time_needed = describe_rough_time(experiment, sizes, 1)
    tell(0, f"plan: {stage}: {len(first)} runs of up to {max(sizes):,} rows, learned first; {time_needed}")
    for number, ((name, seed), rows) in enumerate(first.items(), start=1):
        began, own = time.monotonic(), replace(experiment, n_equal_steps=n_steps[name, seed])
        starts[name, seed] = train_start(own, own.pool.take(rows), seed=seed)
        seconds = time.monotonic() - began
        tell(number, f"{name}, seed {seed}: {format_count(len(rows), 'row')} learned first, in {seconds:.0f} s")
    return starts


def train_start(experiment: Experiment, rows: Dataset, *, seed: int) -> Path:
    """Return the folder of an adapter that has learned some rows, trained here or before.

    Args:
        experiment: model, settings and labels.
        rows: to learn.
        seed: of the training.

    Raises:
        InputError: none of the rows can be learned.
    """
    context = experiment.build_context(rows, seed=seed)
    key = digest({"role": ROLE, "training": compute_cell_key(context)})

    def write(work: Path) -> None:
        from thresher.trainer.engine.fit import fit
        from thresher.trainer.engine.lora import save_adapter
        from thresher.trainer.runs import tokenize_rows

        checkpoints = work / CHECKPOINTS
        examples = tokenize_rows(context, context.split.train)
        require_rows(examples, "candidate", n_vocabulary=context.base.n_vocabulary)
        trained = fit(context, examples.rows, seed=seed, folder=checkpoints, run=ROLE)
        save_adapter(trained.model, work)
        rmtree(checkpoints, ignore_errors=True)
        content = {"format": FORMAT, "kind": ROLE, "identity": key, "model": context.identity()["model"]}
        content["n_steps"] = trained.history.step
        write_atomic(work / MANIFEST, Manifest(content).to_json())

    return get_adapter_cache().make(key, write)
