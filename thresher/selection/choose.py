"""From features to scores to a cut, the same wherever the features were computed."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.errors import InputError
from thresher.features.container import Features
from thresher.selection.request import Request
from thresher.selectors.nested import rank_rows
from thresher.subset.cut import Cut, cut, describe_shortfall
from thresher.subset.scores import Scores


class Choice(NamedTuple):
    """What was chosen, in the order of the files.

    Attributes:
        scores: of all rows.
        cut: kept rows and reasons.
        kept: (k,) positions of the kept rows, in the order in which they are written.
        depends_on_seed: whether another seed could have given another subset.
        shortfall: why fewer rows are kept than were asked for; None where enough are.
    """

    scores: Scores
    cut: Cut
    kept: NDArray[np.int64]
    depends_on_seed: bool
    shortfall: str | None


def choose(
    request: Request,
    features: Features,
    order: NDArray[np.int64],
    row_id: pl.Series,
    names: list[str] | None,
) -> Choice:
    """Score the rows and cut the ranking to the budget.

    Args:
        request: of the user.
        features: of the rows sorted by id, so that the result does not depend on the order of the
            files.
        order: (n,) position in the files of each of these rows.
        row_id: (n,) in the order of the files.
        names: of the values of the quota's column, sorted; None without a quota.

    Raises:
        InputError: the budget does not fit, or the request is strict and fewer rows would be kept.
    """
    lengths = features.get("length")
    rng = np.random.default_rng(request.seed)
    fresh_state = rng.bit_generator.state
    plan = request.selector.describe_plan(features)
    _announce_plan(request, features, plan)
    n_ranked = _count_ranked(request, lengths)
    scores = rank_rows(request.selector, features, n_ranked=n_ranked, rng=rng, plan=plan)
    depends_on_seed = bool(request.planned_adapters) or rng.bit_generator.state != fresh_state
    codes = None if request.quota is None else features[f"column:{request.quota.column}"]
    cut_rows = cut(scores, request.budget, lengths=lengths, quota=request.quota, codes=codes, names=names)
    shortfall = describe_shortfall(cut_rows, scores, request.budget, request.quota)
    if request.strict:
        refuse_shortfall(shortfall)
    cut_rows, scores = _reorder_cut(cut_rows, order), _reorder_scores(scores, order, row_id)
    kept = cut_rows.kept if request.order == "rank" else np.sort(cut_rows.kept)
    return Choice(scores, cut_rows, kept, depends_on_seed, shortfall)


def refuse_shortfall(shortfall: str | None) -> None:
    """Refuse a subset of fewer rows than were asked for.

    Raises:
        InputError: it has fewer.
    """
    if shortfall is not None:
        raise InputError(f"budget: {shortfall}; lower the budget, take another method, or leave out --strict")


def _count_ranked(request: Request, lengths: NDArray[np.int64] | None) -> int:
    """Return how far the ranking must go: a quota may skip any row, so it needs all of them."""
    return len(request.pool) if request.quota is not None else request.budget.n_rows(len(request.pool), lengths)


def _reorder_cut(cut: Cut, order: NDArray[np.int64]) -> Cut:
    reason = np.empty_like(cut.reason)
    reason[order] = cut.reason
    return Cut(kept=order[cut.kept], reason=reason)


def _reorder_scores(scores: Scores, order: NDArray[np.int64], row_id: pl.Series) -> Scores:
    """Return the scores with row i of the files at position i."""
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    covered_by = scores.covered_by
    if covered_by is not None:
        covered_by = np.where(covered_by >= 0, order[np.maximum(covered_by, 0)], covered_by)[back]
    return replace(
        scores,
        row_id=row_id,
        value=scores.value[back],
        covered_by=covered_by,
        similarity=None if scores.similarity is None else scores.similarity[back],
        excluded=None if scores.excluded is None else scores.excluded.gather(back),
    )


def _announce_plan(request: Request, features: Features, plan: str | None) -> None:
    """Say what the selector is about to do, where it can tell: method, memory and guarantee."""
    from thresher.progress import Progress

    if request.context.on_progress is not None and plan is not None:
        request.context.on_progress(Progress(stage="select", done=0, total=features.n_rows, note=plan))
