"""The trainings behind `experts`: a common adapter, the experts that continue it, the controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.artifacts.folder import write_atomic, write_parquet
from thresher.artifacts.stored import read_table
from thresher.experiments.experts.clusters import Division, divide, divide_at_random, embed_prompts, sketch_rows
from thresher.experiments.experts.settings import ExpertSettings
from thresher.numeric.arrays import Float32, Int64
from thresher.trainer.context import RunContext
from thresher.trainer.engine.fit import count_steps, fit, load_trained_model
from thresher.trainer.engine.lora import save_adapter
from thresher.trainer.engine.tokenization import Examples
from thresher.trainer.going_on import open_start
from thresher.trainer.held_out import HeldOut

EXPERTS, SINGLE, RANDOM = "experts", "single", "random"
COMMON, OUTCOMES, DONE = "common", "outcomes.parquet", "done"


@dataclass(frozen=True, kw_only=True)
class ExpertRun:
    """What all trainings of one seed share.

    Attributes:
        context: of a training on all rows.
        examples: of all rows.
        held_out: rows to measure on.
        prompts: (n, d) unit embeddings of the training rows' prompts.
        questions: (m, d) of those of the held-out rows.
        settings: of the call.
        seed: of the trainings.
        work: folder of this seed, which survives a kill.
        report: told the name of each training that ends.
    """

    context: RunContext
    examples: Examples
    held_out: HeldOut
    prompts: Float32
    questions: Float32
    settings: ExpertSettings
    seed: int
    work: Path
    report: Callable[[str], None]

    @property
    def n_common(self) -> int:
        """Steps that all rows are trained in together."""
        if self.settings.k == 1:
            return count_steps(len(self.examples), self.context.settings)
        return max(1, round(self.settings.common * count_steps(len(self.examples), self.context.settings)))

    @property
    def n_own(self) -> int:
        """Steps of each expert after that."""
        return max(1, count_steps(len(self.examples), self.context.settings) - self.n_common)


def embed_sides(context: RunContext, examples: Examples, held_out: HeldOut, encoder: str | None) -> list[Float32]:
    """Return the embeddings of the prompts of training rows and of held-out rows."""
    sides = ((context.split.train, examples), (held_out.rows, held_out.examples))
    texts = [rows.frame["prompt"][used.position].to_list() for rows, used in sides]
    return [embed_prompts(each, encoder, device=context.settings.device) for each in texts]


def run_seed(run: ExpertRun) -> tuple[dict[str, pl.DataFrame], Division | None]:
    """Return the outcomes of experts and controls of a seed, and how the rows were divided."""
    everything = np.arange(len(run.examples))
    if run.settings.k == 1:
        folder = train_adapter(run, "experts/0", everything, n_steps=run.n_common, start=None)
        return {EXPERTS: _measure(run, "experts", [folder], None)}, None
    common = train_adapter(run, COMMON, everything, n_steps=run.n_common, start=None)
    if run.settings.clusters == "gradient":
        rows = sketch_rows(run.context, run.examples, load_trained_model(run.context, common))
    else:
        rows = run.prompts
    division = divide(rows, run.prompts, run.questions, int(run.settings.k or 1), seed=run.seed)
    outcomes = {}
    for name, own in ((EXPERTS, division), (RANDOM, divide_at_random(division, seed=run.seed))):
        folders = [
            train_adapter(run, f"{name}/{one}", np.flatnonzero(own.cluster == one), n_steps=run.n_own, start=common)
            for one in range(own.cluster.max() + 1)
        ]
        outcomes[name] = _measure(run, name, folders, own.route)
    n_steps = run.n_own * (int(division.cluster.max()) + 1)
    single = train_adapter(run, SINGLE, everything, n_steps=n_steps, start=common)
    outcomes[SINGLE] = _measure(run, SINGLE, [single], None)
    return outcomes, division


def train_adapter(run: ExpertRun, name: str, rows: Int64, *, n_steps: int, start: Path | None) -> Path:
    """Train on some rows, and return the adapter's folder; what is done is not trained again."""
    folder = run.work / name
    if not (folder / DONE).is_file():
        context = run.context if start is None else _continue(run.context, start)
        checkpoints = run.work / ".checkpoints" / name
        examples = [run.examples.rows[i] for i in rows]
        trained = fit(context, examples, seed=run.seed, folder=checkpoints, run=name, n_steps=n_steps)
        save_adapter(trained.model, folder)
        context.tokenizer.save_pretrained(folder)
        write_atomic(folder / DONE, b"")
    run.report(name)
    return folder


def _continue(context: RunContext, folder: Path) -> RunContext:
    start = open_start(folder)
    return replace(context, start=start)


def _measure(run: ExpertRun, name: str, folders: Sequence[Path], route: Int64 | None) -> pl.DataFrame:
    """Return the outcome of each held-out row by the adapter that it goes to."""
    path = run.work / f"{name}-{OUTCOMES}"
    if path.is_file():
        return read_table(path)
    parts: list[Any] = []
    for number, folder in enumerate(folders):
        keep = np.arange(len(run.held_out.examples)) if route is None else np.flatnonzero(route == number)
        if len(keep):
            model = load_trained_model(run.context, folder).to(run.context.accelerator.device)
            parts.append(
                _take(run.held_out, keep).measure(model).with_columns(expert=pl.lit(number), order=pl.Series(keep))
            )
    table: pl.DataFrame = pl.concat(parts).sort("order").drop("order")
    write_parquet(table, path)
    return table


def _take(held_out: HeldOut, keep: Int64) -> HeldOut:
    """Return some of the held-out rows."""
    examples = held_out.examples
    own = replace(
        examples,
        rows=[examples.rows[i] for i in keep],
        position=[examples.position[i] for i in keep],
    )
    prompts = {place: held_out.prompts[i] for place, i in enumerate(keep.tolist()) if i in held_out.prompts}
    return replace(held_out, examples=own, prompts=prompts)
