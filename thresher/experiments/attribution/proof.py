"""The proof: does an answer get less likely without the suspects than without random rows?"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from thresher.artifacts.folder import write_atomic
from thresher.numeric.arrays import Int64
from thresher.trainer.context import RunContext
from thresher.trainer.engine.fit import fit
from thresher.trainer.engine.tokenization import Example
from thresher.trainer.held_out import HeldOut

LEVEL = 0.05
SUSPECTS, RANDOM, OTHERS = "suspects", "random", "other random"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Mean over trainings with its 95 % interval by Student's t.

    Attributes:
        value: by how many nats the answer's loss is higher without the one set of rows than without
            the other.
        low: lower end.
        high: upper end.
        n: pairs of trainings with the same seed.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What trainings without some of the rows showed.

    Attributes:
        suspects: without the suspects, against without as many random rows.
        others: without other random rows, against the same: what chance does.
        losses: of the answer, by set of rows that was left out and seed.
    """

    suspects: Interval
    others: Interval
    losses: dict[str, list[float]]

    @property
    def holds(self) -> bool:
        """Whether the suspects, and not any rows, made the answer."""
        return self.suspects.low > 0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "holds": self.holds}


def prove(
    context: RunContext,
    rows: Sequence[Example],
    question: HeldOut,
    suspects: Int64,
    *,
    seeds: Sequence[int],
    work: Path,
    on_run: Callable[[int, int], None],
) -> Proof:
    """Train again without the suspects, without random rows, and without other random rows.

    All three of a seed have the same number of rows and steps, and the same seed. What a killed
    call has finished is read back.

    Args:
        context: of the adapter's training.
        rows: all that it learned from.
        question: with the answer.
        suspects: (k,) their places in `rows`.
        seeds: of the trainings.
        work: folder that survives a kill.
        on_run: told how many trainings are done, and of how many.
    """
    kinds = (SUSPECTS, RANDOM, OTHERS)
    losses: dict[str, list[float]] = {kind: [] for kind in kinds}
    rest = np.setdiff1d(np.arange(len(rows)), suspects)
    for seed in seeds:
        drawn = np.random.default_rng([seed, len(rows)]).permutation(rest)
        k = len(suspects)
        for kind, left_out in zip(kinds, (suspects, drawn[:k], drawn[k : 2 * k]), strict=True):
            kept = np.setdiff1d(np.arange(len(rows)), left_out)
            folder = work / f"{kind.replace(' ', '-')}-{seed}"
            losses[kind].append(_train_on_rest(context, [rows[i] for i in kept], question, seed, folder))
            on_run(sum(map(len, losses.values())), len(kinds) * len(seeds))
    base = np.array(losses[RANDOM])
    return Proof(
        suspects=_estimate(np.array(losses[SUSPECTS]) - base),
        others=_estimate(np.array(losses[OTHERS]) - base),
        losses=losses,
    )


def _train_on_rest(context: RunContext, rows: Sequence[Example], question: HeldOut, seed: int, folder: Path) -> float:
    """Return the loss of the answer after training on some rows."""
    done = folder / "loss.json"
    if done.is_file():
        return float(json.loads(done.read_bytes())["loss"])
    own = replace(context, seeds=(seed,))
    model = fit(own, rows, seed=seed, folder=folder, run=folder.name).model
    loss = measure_answer(question, model)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(done, json.dumps({"loss": loss}).encode())
    for path in folder.glob("*.safetensors"):
        path.unlink()
    return loss


def measure_answer(question: HeldOut, model: Any) -> float:
    """Return the mean loss of the answer, in nats per token or per label."""
    if question.context.task == "classification":
        return float(question.measure(model)["loss"][0])
    table = question.measure_row_losses(model)
    return float(table["loss"][0] / table["n_tokens"][0])


def _estimate(gaps: Any) -> Interval:
    from scipy import stats

    n, value = len(gaps), float(np.mean(gaps))
    reach = float(stats.t.ppf(1 - LEVEL / 2, n - 1) * np.std(gaps, ddof=1) / np.sqrt(n))
    return Interval(value=value, low=value - reach, high=value + reach, n=n)
