"""Which rows to label next: a ranking of vectors, of which each prefix answers a smaller batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.labeling.settings import By
from thresher.numeric.arrays import Bool, Float32, Float64, Int64
from thresher.numeric.vectors import distinct_rows, inverse_norms, unit_rows
from thresher.selectors.pilot.student import fit_student
from thresher.selectors.uncertainty_coverage import compute_margin_doubt

NEIGHBORS, MAX_KERNEL_GB = 64, 2.0  # as in `facility-location`
DOUBTFUL_SHARE = 0.5  # of the rows, from which `cover-doubt` picks


class NextRows(NamedTuple):
    """The rows to label next.

    Attributes:
        rows: (k,) positions among the unlabeled rows, the first ones first.
        stands_for: (k,) unlabeled rows that no other pick is nearer to, itself included.
        nearest: (k,) the labeled row most similar to each, -1 without any.
        similarity: (k,) their cosine.
        doubt: (n,) of each unlabeled row, 0..1; None where nothing is known of the classes.
        guess: (k, 2) the two likeliest classes of each pick; None likewise.
        probability: (k, 2) of these; None likewise.
    """

    rows: Int64
    stands_for: Int64
    nearest: Int64
    similarity: Float64
    doubt: Float64 | None
    guess: Int64 | None
    probability: Float64 | None


class Known(NamedTuple):
    """What is labeled so far.

    Attributes:
        vectors: (m, d) of the labeled rows.
        label: (m,) their classes, coded from 0; None where the answers are no classes.
    """

    vectors: Float32
    label: Int64 | None


def resolve_way(by: By, known: Known) -> By:
    """Return how rows are chosen: by coverage alone until a classifier can doubt."""
    has_classes = known.label is not None and len(np.unique(known.label)) > 1
    if by in ("auto", "cover-doubt", "doubt") and not has_classes:
        return "cover"
    return "cover-doubt" if by == "auto" else by


def choose_rows(
    vectors: Float32,
    known: Known,
    n_rows: int,
    *,
    by: By,
    rng: np.random.Generator,
    score: Float64 | None = None,
) -> NextRows:
    """Rank the unlabeled rows that are most worth a label.

    "cover-doubt" maximizes, by greedy picks, f(S) = sum over unlabeled rows i of u_i max(0, max
    over j in S and the labeled rows of cos(i, j)): facility location on top of what is labeled, in
    which a row counts with its doubt u_i = 1 - (p1 - p2), the margin between the two likeliest
    classes of a logistic regression on the labeled rows. Only rows of at least median doubt are
    picked, while there are some. "cover" counts all rows alike; "change" and "disagree" use `score`
    in place of the doubt. Rows whose doubt or score is 0 come last, as "cover" picks them.

    Args:
        vectors: (n, d) of the unlabeled rows.
        known: what is labeled.
        n_rows: to choose, at most n; of equal rows one is chosen while others are left.
        by: how, as `resolve_way` returns it.
        rng: of the neighbor search in large pools, and of random rows.
        score: (n,) of each row where `by` needs one, at least 0.

    Source: weighted coverage as in `uncertainty-coverage`, conditional on the labeled rows; see
    `benchmarks/label_ask.py` for how it was chosen. Ties: to the lowest row.
    """
    x = np.ascontiguousarray(vectors, dtype=np.float32)
    probability = _predict(x, known) if known.label is not None else None
    doubt = None if probability is None else compute_margin_doubt(probability)
    if by == "random":
        rows = _put_copies_last(x, rng.permutation(len(x)))[:n_rows]
    elif by == "doubt" and doubt is not None:
        rows = _put_copies_last(x, np.argsort(-doubt, kind="stable"))[:n_rows]
    else:
        worry = {"cover-doubt": doubt, "change": score, "disagree": score}.get(by)
        rows = _cover(x, known, n_rows, worry, rng)
    nearest, similarity = _find_nearest(x[rows], known)
    top = None if probability is None else np.argsort(-probability[rows], axis=1, kind="stable")[:, :2]
    return NextRows(
        rows=rows.astype(np.int64),
        stands_for=_count_represented(x, rows),
        nearest=nearest,
        similarity=similarity,
        doubt=doubt,
        guess=top,
        probability=None if probability is None or top is None else np.take_along_axis(probability[rows], top, axis=1),
    )


def _predict(x: Float32, known: Known) -> Float64 | None:
    """Return (n, k) probabilities of all classes by a regression on the labeled rows; or None."""
    if known.label is None:
        return None
    model = fit_student(unit_rows(known.vectors), known.label)
    if model is None:
        return None
    probability = np.zeros((len(x), int(known.label.max()) + 1))
    probability[:, model.classes_] = model.predict_proba(unit_rows(x))
    return probability


def _cover(x: Float32, known: Known, n_rows: int, doubt: Float64 | None, rng: np.random.Generator) -> Int64:
    """Return greedy picks of weighted coverage: the doubtful half first, where there is doubt.

    Rows without any come last, by coverage alone.
    """
    from thresher.selectors.submodular import greedy, kernels, pick_rules
    from thresher.selectors.submodular.memory import KernelSettings, plan_memory

    distinct = distinct_rows(x)
    first, n_distinct = distinct.first, len(distinct.first)
    own = x[first]
    scale = inverse_norms(own)
    floor = kernels.similarity_to_existing(own, scale, known.vectors)
    worry = np.ones(n_distinct) if doubt is None else doubt[first]
    plan = plan_memory(KernelSettings("label ask", "auto", NEIGHBORS, MAX_KERNEL_GB), *own.shape)
    kernel, _ = kernels.build_kernel(plan, own * scale.astype(np.float32)[:, None], rng)
    is_open, has_doubt = worry >= np.quantile(worry, 1 - DOUBTFUL_SHARE), worry > 0
    picked = np.zeros(0, np.int64)
    for weight, groups in ((worry, (is_open & has_doubt, ~is_open & has_doubt)), (np.ones(n_distinct), (~has_doubt,))):
        # what was picked by another weight counts as labeled
        covered = np.maximum(floor, kernels.similarity_to_existing(own, scale, own[picked]))
        cover = greedy.start_coverage(own, scale, (distinct.size * weight).astype(np.float32), covered)
        for candidates in groups:
            n_left = min(n_rows, n_distinct) - len(picked)
            if n_left > 0 and candidates.any():
                # whoever is no candidate now counts as taken, and is covered all the same
                cover.is_pick[:] = ~candidates
                rule = pick_rules.start_pick_rule("lazy", 0.5, rng, cover.is_pick)
                picks = kernels.pick_greedily(kernel, cover, min(n_left, int(candidates.sum())), rule).rows
                picked = np.concatenate([picked, _append_rest(picks, candidates, worry, n_left)])
    chosen = first[picked]
    return np.concatenate([chosen, _list_copies(len(x), chosen, n_rows - len(chosen))])


def _append_rest(picks: Int64, candidates: Bool, worry: Float64, n_most: int) -> Int64:
    """Return the picks and, where nothing more was gained, the most doubtful other candidates."""
    is_left = candidates.copy()
    is_left[picks] = False
    left = np.flatnonzero(is_left)
    rest = left[np.argsort(-worry[left], kind="stable")][: max(0, min(n_most, int(candidates.sum())) - len(picks))]
    return np.concatenate([picks, rest])


def _list_copies(n: int, chosen: Int64, n_more: int) -> Int64:
    """Return the lowest rows that are not chosen: copies, once every distinct row is."""
    is_left = np.ones(n, np.bool_)
    is_left[chosen] = False
    return np.flatnonzero(is_left)[: max(0, n_more)]


def _put_copies_last(x: Float32, order: Int64) -> Int64:
    """Return the same order, with copies of a row that came before behind all others."""
    is_copy = np.ones(len(x), np.bool_)
    is_copy[np.unique(distinct_rows(x).group[order], return_index=True)[1]] = False
    return np.concatenate([order[~is_copy], order[is_copy]])


def _count_represented(x: Float32, rows: Int64) -> Int64:
    """Return how many rows are nearest to each of the chosen ones, (k,)."""
    chosen = unit_rows(x[rows]).T
    counts = np.zeros(len(rows), np.int64)
    step = max(1, (1 << 22) // max(1, len(rows)))
    for start in range(0, len(x), step):
        counts += np.bincount((unit_rows(x[start : start + step]) @ chosen).argmax(axis=1), minlength=len(rows))
    return np.maximum(counts, 1)


def _find_nearest(x: Float32, known: Known) -> tuple[Int64, Float64]:
    """Return the most similar labeled row of each, and the cosine."""
    if not len(known.vectors):
        return np.full(len(x), -1), np.zeros(len(x))
    cosine = unit_rows(x) @ unit_rows(known.vectors).T
    nearest = cosine.argmax(axis=1).astype(np.int64)
    return nearest, cosine[np.arange(len(x)), nearest].astype(np.float64)
