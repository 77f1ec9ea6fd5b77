"""The second factor of a learning curve: the rank of the adapter, or the size of the base model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from thresher.errors import InputError
from thresher.evaluation.curves.curve_fit import CurveFit
from thresher.evaluation.curves.decline import LEAST_RUNS, find_clear, make_interval
from thresher.evaluation.curves.error_scale import ErrorScale
from thresher.evaluation.curves.interval import Interval
from thresher.evaluation.curves.joint_law import JointAnswer, fit_joint_law
from thresher.experiments.experiment import Experiment
from thresher.experiments.settings import BASELINE, CurveSettings
from thresher.numeric.arrays import Float64
from thresher.trainer.settings import TrainSettings

POINTS = 100
SURE = 0.8  # probability from which one of the two is named
MOST_MISFIT = 2.0  # by which the joint law may miss the points, in their standard errors


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method at one value of the second factor.

    Attributes:
        method: that chooses the rows.
        factor: "rank" or "model".
        value: as it was given: 16, or the name of a model.
        amount: the rank, or the number of the model's parameters.
        settings: of the training, or None for those of the experiment.
        model: base model, or None for that of the experiment.
        identity: of the model, as the cells know it.
    """

    method: str
    factor: str
    value: str
    amount: float
    settings: TrainSettings | None = None
    model: str | Path | None = None
    identity: Any = None

    @property
    def label(self) -> str:
        """The name of its curve."""
        return f"{self.method}, {self.factor} {self.value}"

    def to_json(self) -> dict[str, Any]:
        """Return what determines it, as JSON values."""
        values = asdict(self) | {"model": None if self.model is None else str(self.model)}
        return values | {"settings": None if self.settings is None else self.settings.to_json()}


def list_variants(settings: CurveSettings, experiment: Experiment, methods: Sequence[str]) -> list[Variant]:
    """Return the variants of a curve, by method and rising factor; none where no factor is asked.

    Raises:
        InputError: there is only one value, or a model cannot learn these rows.
        NotFoundError: there is no such model.
    """
    values: list[dict[str, Any]]
    if settings.ranks:
        values = [
            {"factor": "rank", "value": str(rank), "amount": float(rank), "settings": _set_rank(experiment, rank)}
            for rank in sorted(set(settings.ranks))
        ]
    else:
        values = sorted(
            (_describe_model(experiment, name) for name in settings.models or ()), key=lambda v: v["amount"]
        )
    if len(values) == 1:
        raise InputError(f"curve: a second factor needs at least 2 values, got {values[0]['value']} alone; give more")
    return [Variant(method=method, **value) for method in methods for value in values]


def _set_rank(experiment: Experiment, rank: int) -> TrainSettings:
    return replace(experiment.settings, lora_rank=rank)


def _describe_model(experiment: Experiment, name: str) -> dict[str, Any]:
    context = replace(experiment, model=name).build_context(experiment.pool.take(np.arange(1)), seed=0)
    return {
        "factor": "model",
        "value": name,
        "amount": float(count_parameters(context.base.folder)),
        "model": name,
        "identity": context.identity()["model"],
    }


def count_parameters(folder: Path) -> int:
    """Return the parameters of a model, from its configuration alone."""
    import torch
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"):
        return int(AutoModel.from_config(AutoConfig.from_pretrained(folder)).num_parameters())


def compare_factors(
    variants: Sequence[Variant],
    fits: Mapping[str, CurveFit],
    estimate_covariance: Callable[..., Float64],
) -> dict[str, Any] | None:
    """Return whether more rows or more of the factor are expected to bring more, by random rows.

    Args:
        variants: of the curve.
        fits: by label.
        estimate_covariance: (m, m) of points, each a label and a size, over the test rows that all
            share, relative to the last one: models differ in the test rows that they are good at.

    Returns:
        JSON values, or None where fewer than two variants of random rows have a fit, or where
        there are fewer than three sizes.
    """
    own = [variant for variant in variants if variant.method == BASELINE and variant.label in fits]
    if len(own) < 2:
        return None
    amounts = np.concatenate([np.full(len(fits[each.label].sizes), each.amount) for each in own])
    sizes, errors = (np.concatenate([getattr(fits[each.label], name) for each in own]) for name in ("sizes", "errors"))
    if len(np.unique(sizes)) < 3:
        return None
    between_seeds = np.concatenate([fits[each.label].seed_sd ** 2 / fits[each.label].n_seeds for each in own])
    points = [(each.label, int(size)) for each in own for size in fits[each.label].sizes]
    joint = fit_joint_law(amounts, sizes, errors, np.diag(between_seeds) + estimate_covariance(points))
    largest, rows = own[-1], int(sizes.max())
    answer = joint.compare(largest.amount, rows)
    is_misfit, worse = joint.misfit > MOST_MISFIT, _find_worse(own, fits, estimate_covariance)
    ahead = _find_ahead(own, fits, estimate_covariance)
    exponents = {name: float(np.median(getattr(joint, name))) for name in ("alpha", "beta")}
    return {
        "factor": largest.factor,
        "values": {each.value: each.amount for each in own},
        "at": {"rows": rows, "value": largest.value},
        **answer.to_json(),
        **exponents,
        "misfit": joint.misfit,
        "is_misfit": bool(is_misfit),
        "worse": None if worse is None else {"than": worse.than, "rows": worse.rows, **worse.by.to_json()},
        "ahead": None if ahead is None else ahead.to_json(),
        "answer": describe_factors(
            answer, largest, rows=rows, scale=fits[largest.label].scale, is_misfit=is_misfit, worse=worse, ahead=ahead
        ),
    }


def _find_worse(
    own: Sequence[Variant],
    fits: Mapping[str, CurveFit],
    estimate_covariance: Callable[..., Float64],
) -> Worse | None:
    """Return by how much the largest value is worse than the smallest, at the largest common size.

    The joint law cannot say so, as its error never rises. None where it is not beyond doubt, by
    the test of `decline.py`: one run that diverged is no property of the model.
    """
    size = max(set(fits[own[0].label].sizes) & set(fits[own[-1].label].sizes), default=None)
    if size is None:
        return None
    better, other = (own[0], int(size)), (own[-1], int(size))
    by = _measure_lead(better, other, fits, estimate_covariance)
    return None if by is None else Worse(than=own[0].value, rows=int(size), by=by)


def _find_ahead(
    own: Sequence[Variant],
    fits: Mapping[str, CurveFit],
    estimate_covariance: Callable[..., Float64],
) -> Ahead | None:
    """Return whether one value with its fewest rows beats the other with the most of its rows.

    The largest value and the smallest are compared as they were measured, on the same test rows,
    at sizes with several runs: no law is needed where no number of rows that was tried makes up for
    the factor. None where it is not beyond doubt, or where a single run of more rows does make up.
    """
    for better, other in ((own[-1], own[0]), (own[0], own[-1])):
        fit, other_fit = fits[better.label], fits[other.label]
        repeated, most_repeated = np.flatnonzero(fit.n_seeds >= LEAST_RUNS), other_fit.n_seeds >= LEAST_RUNS
        if not len(repeated) or not most_repeated.any():
            continue
        first, last = int(repeated[0]), int(np.flatnonzero(most_repeated)[-1])
        fewest, most = int(fit.sizes[first]), int(other_fit.sizes[last])
        if fewest >= most or (other_fit.errors[last:] <= fit.errors[first]).any():
            continue
        by = _measure_lead((better, fewest), (other, most), fits, estimate_covariance)
        if by is not None:
            is_all = last == len(other_fit.sizes) - 1
            return Ahead(value=better.value, rows=fewest, than=other.value, of=most, is_all=is_all, by=by)
    return None


def _measure_lead(
    better: tuple[Variant, int],
    other: tuple[Variant, int],
    fits: Mapping[str, CurveFit],
    estimate_covariance: Callable[..., Float64],
) -> Interval | None:
    """Return by how much one point is better than another, or None where that is not beyond doubt.

    Args:
        better: a variant and one of its sizes.
        other: likewise.
        fits: by label.
        estimate_covariance: of points over test rows.
    """
    pairs = [
        (fits[each.label], int(np.flatnonzero(fits[each.label].sizes == size)[0])) for each, size in (better, other)
    ]
    if any(fit.n_seeds[i] < LEAST_RUNS for fit, i in pairs):
        return None
    of_rows = estimate_covariance([(each.label, size) for each, size in (better, other)], has_unseen=True)[0, 0]
    between_seeds = [float(fit.seed_sd[i] ** 2 / fit.n_seeds[i]) for fit, i in pairs]
    stderr = float(np.sqrt(of_rows + sum(between_seeds)))
    dof = _combine_dof(between_seeds, [fit.dof for fit, _ in pairs])
    (first, i), (second, j) = pairs
    value = float(second.errors[j] - first.errors[i])
    if value <= 0 or not find_clear(np.array([value]), np.array([stderr]), dof)[0]:
        return None
    return make_interval(value, stderr, dof)


def _combine_dof(variances: Sequence[float], dofs: Sequence[float]) -> float:
    """Return the degrees of freedom of a sum of variances (Welch and Satterthwaite)."""
    squares = sum(variance**2 / dof for variance, dof in zip(variances, dofs, strict=True))
    return sum(variances) ** 2 / squares if squares > 0 else min(dofs)


@dataclass(frozen=True, kw_only=True)
class Worse:
    """The largest value of the factor is worse than the smallest, as measured.

    Attributes:
        than: the smallest value.
        rows: size at which both were measured.
        by: difference of their errors, with its 80 % interval.
    """

    than: str
    rows: int
    by: Interval


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """One value of the factor beats another with far fewer rows, as measured.

    Attributes:
        value: the better one.
        rows: its fewest that were measured.
        than: the other value.
        of: the most rows of the other that were measured several times.
        is_all: these are the most it was measured with at all.
        by: difference of their errors, with its 80 % interval.
    """

    value: str
    rows: int
    than: str
    of: int
    is_all: bool
    by: Interval

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "value": self.value,
            "rows": self.rows,
            "than": self.than,
            "of": self.of,
            "is_all": self.is_all,
            **self.by.to_json(),
        }

    def describe(self, largest: Variant, scale: ErrorScale) -> str:
        """Return it as a sentence, which answers what was asked."""
        named = [f"rank {value}" if largest.factor == "rank" else value for value in (self.value, self.than)]
        is_larger = self.value == largest.value
        pays = (
            f"The larger {largest.factor} pays more than more rows"
            if is_larger
            else f"The larger {largest.factor} is worse here"
        )
        by, of = f"{_tell_gain(self.by, scale)} better", f"all {self.of:,}" if self.is_all else f"{self.of:,}"
        return f"{pays}: with {self.rows:,} rows, {named[0]} is {by} than {named[1]} with {of}."


def _tell_gain(gain: Any, scale: ErrorScale) -> str:
    """Return a difference with its interval, in points for rates."""
    times, digits, unit = (POINTS, 1, " points") if scale.is_rate else (1, 3, "")
    low, median, high = (f"{times * value:.{digits}f}" for value in (gain.low, gain.median, gain.high))
    return f"{median}{unit} [{low}, {high}]"


def describe_factors(
    answer: JointAnswer,
    largest: Variant,
    *,
    rows: int,
    scale: ErrorScale,
    is_misfit: bool,
    worse: Worse | None = None,
    ahead: Ahead | None = None,
) -> str:
    """Return the answer as a sentence.

    Args:
        answer: of the joint law.
        largest: variant, from which both would grow.
        rows: most rows that were measured.
        scale: of the errors.
        is_misfit: the law misses the points by much more than their errors.
        worse: the largest value is worse than the smallest, or None.
        ahead: one of them beats the other with fewer rows, or None; it comes before any law.
    """
    if ahead is not None:
        said = ahead.describe(largest, scale)
        if is_misfit or ahead.value != largest.value:
            return said
        return f"{said} {describe_factors(answer, largest, rows=rows, scale=scale, is_misfit=False)}"
    is_rank = largest.factor == "rank"
    gains, by = ("bring ", "") if scale.is_higher_better else ("lower the loss by ", "by ")

    named = "twice the rank" if is_rank else "a model of twice the size"
    p = answer.p_rows
    likely = "more than 99 %" if max(p, 1 - p) > 0.99 else f"{100 * max(p, 1 - p):.0f} %"
    if worse is not None:
        return (
            f"The larger {largest.factor} is worse here: with {worse.rows:,} rows, {largest.value} is "
            f"{_tell_gain(worse.by, scale)} worse than {worse.than}. "
            f"So {named} is not expected to bring more than twice the rows."
        )
    if is_misfit:
        return (
            f"Cannot tell whether twice the rows or {named} would bring more: the joint law of both misses the "
            f"points by more than their errors; compare the curves themselves."
        )
    if max(p, 1 - p) < SURE:
        better = f"Cannot tell whether twice the rows or {named} would bring more ({100 * p:.0f} % for the rows)"
    else:
        first, second = ("twice the rows", named) if p >= 0.5 else (named, "twice the rows")
        verb = "bring" if first == "twice the rows" else "brings"
        better = f"{first.capitalize()} {verb} more than {second}, with a probability of {likely}"
    return (
        f"{better}: from {rows:,} rows and {'rank ' if is_rank else ''}{largest.value}, the rows are expected to "
        f"{gains}{_tell_gain(answer.gain_of_rows, scale)}, the "
        f"{'rank' if is_rank else 'model'} {by}{_tell_gain(answer.gain_of_factor, scale)}."
    )
