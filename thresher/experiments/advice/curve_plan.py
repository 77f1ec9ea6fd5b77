"""Which learning curve fits into the time: a limit makes the curve smaller before it drops it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from thresher.experiments.cells.worker_pool import count_workers
from thresher.experiments.curve import MIN_SIZES
from thresher.experiments.design.dry_run import measure_experiment, plan_base, plan_runs
from thresher.experiments.experiment import Experiment
from thresher.experiments.planning import MIN_CELLS, list_doubling_sizes, list_first_cells
from thresher.experiments.settings import BASELINE
from thresher.trainer.estimate import RunCost

CURVE_SHARE = 0.5  # of the time left, for the curve, where training needs the rest
RESERVE = 1.1  # times the estimate for training the adapter, which is kept for it


@dataclass(frozen=True, kw_only=True)
class CurvePlan:
    """A learning curve that fits into the time.

    Attributes:
        methods: random, and the method that chooses where there is time for it, too.
        largest: most rows of the curve.
        allowed: seconds that its cells may take; infinite without a limit.
        needed: seconds of the fewest cells that allow an answer.
        kept: seconds that the curve leaves to the final training; 0 if that does not fit.
    """

    methods: tuple[str, ...]
    largest: int
    allowed: float = math.inf
    needed: float = 0.0
    kept: float = 0.0

    @property
    def fits(self) -> bool:
        """The fewest cells that allow an answer fit into the time."""
        return self.needed <= self.allowed


def plan_without_limit(methods: Sequence[str], n_rows: int, n_classes: int) -> CurvePlan | None:
    """Return the curve up to so many rows; None where they are too few for one."""
    sizes = list_doubling_sizes(n_rows, n_classes=n_classes)
    return CurvePlan(methods=tuple(methods), largest=n_rows) if len(sizes) >= MIN_SIZES else None


def find_fewest_rows(n_rows: int, n_classes: int) -> int:
    """Return the fewest rows, from so many on, of which there is a learning curve."""
    while len(list_doubling_sizes(n_rows, n_classes=n_classes)) < MIN_SIZES:
        n_rows += 1
    return n_rows


def fit_into_time(
    whole: CurvePlan, experiment: Experiment, *, seconds_left: float, seeds: int, workers: int | str | None
) -> CurvePlan:
    """Return the largest curve of which an answer fits into the time.

    A few steps are timed. The final training, beside one on random rows, keeps the time that it
    takes, but no more than half of what is left. First the method is left to the final training,
    then the largest size is halved. Where nothing fits, the smallest curve is returned.

    Args:
        whole: the curve without a limit.
        experiment: of the call.
        seconds_left: until the limit.
        seeds: runs at each size, at most.
        workers: cells that run at once.
    """
    n_workers = count_workers(workers, experiment.settings.device)
    alone = measure_experiment(experiment)
    beside = alone if n_workers == 1 else measure_experiment(experiment, n_workers=n_workers)
    # what the training measures of the untouched model beside what the curve has measured
    untouched, more = experiment.untouched, tuple(k for k in experiment.untouched.prompts if k)
    own = replace(untouched, shots=more) if more else replace(untouched, base="none")
    training = 2 * _sum_seconds(experiment, alone, [whole.largest])
    training = RESERVE * (training + plan_base(replace(experiment, untouched=own), alone).seconds)
    # general rows are measured by the training alone
    beside, plain = (replace(cost, general_seconds=0.0) for cost in (beside, alone))
    most = (1 - CURVE_SHARE) * seconds_left
    kept = training if training <= most else 0.0
    plan = whole
    for methods, largest in _list_smaller(whole, len(experiment.labels)):
        sizes = list_doubling_sizes(largest, n_classes=len(experiment.labels))
        cells = [size for size, _ in list_first_cells(sizes, seeds)[:MIN_CELLS]] * len(methods)
        # after the curve, whose limit is of its cells
        base = plan_base(experiment, plain, n_subsets=len(methods) * len(sizes)).seconds
        allowed = max(0.0, seconds_left - min(training, most) - base)
        needed = _sum_seconds(experiment, beside, cells) / min(n_workers, len(cells))
        plan = CurvePlan(methods=methods, largest=largest, allowed=allowed, needed=needed, kept=kept)
        if plan.fits:
            break
    return plan


def _sum_seconds(experiment: Experiment, cost: RunCost, sizes: Sequence[int]) -> float:
    return plan_runs("curve", experiment, cost, sizes).seconds


def _list_smaller(whole: CurvePlan, n_classes: int) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield methods and largest size of ever smaller curves."""
    yield whole.methods, whole.largest
    if len(whole.methods) > 1:
        yield (BASELINE,), whole.largest
    largest = whole.largest // 2
    while len(list_doubling_sizes(largest, n_classes=n_classes)) >= MIN_SIZES:
        yield (BASELINE,), largest
        largest //= 2
