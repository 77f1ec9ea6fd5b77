"""Does confidence find wrong answers and wrong labels? Area under the ROC curve, with intervals.

    python benchmarks/confidence.py --data FOLDER --questions 300      # the folder with noise/

Answers: of so many questions of `gsm8k_solutions_correctness.jsonl`, the four solutions that models
wrote, right or wrong (the human ones are all right and differ in style, so they are left out).
Scores are `confidence` and its two parts, the loss and the length of the solution, all by the
toy language model `tiny` or by `--model`. Beside the area: the share of pairs of a right and a
wrong solution of one question that a score ranks right, where the question cannot help. Intervals
come from 1,000 bootstrap samples of the questions.

Labels: the AG News and ChemProt files with a rule's label and the true one. `confidence` is then
the cross-fitted probability of the given label; beside it logistic regression on the same
embeddings and on TF-IDF (5 folds) and the disagreement of 10 neighbors, on the same rows.
Intervals come from bootstrap samples of the rows.

0.5 is chance for all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from machine import machine
from numpy.typing import NDArray
from scipy.stats import rankdata

import thresher as th
from thresher.features import FeatureContext, compute, make_context
from thresher.features.settings import ConfidenceSettings

RESULT = Path(__file__).parent / "results" / "confidence.json"
SOLUTIONS = "gsm8k_solutions_correctness.jsonl"
LABELS = ("noise_agnews_weak.jsonl", "noise_chemprot_weak.jsonl")
N_BOOTSTRAP = 1000
Score = NDArray[np.float64]


def area(score: Score, is_right: NDArray[np.bool_]) -> float:
    """Return the probability that a right row has a higher score than a wrong one."""
    n_right, n_wrong = int(is_right.sum()), int((~is_right).sum())
    if not n_right or not n_wrong:
        return float("nan")
    return float((rankdata(score)[is_right].sum() - n_right * (n_right + 1) / 2) / (n_right * n_wrong))


def rank_within_groups(score: Score, is_right: NDArray[np.bool_], group: NDArray[np.int64]) -> tuple[Score, Score]:
    """Return pairs of a right and a wrong row per group: those ranked right, and all of them."""
    won, had = np.zeros(group.max() + 1), np.zeros(group.max() + 1)
    for g in range(len(had)):
        right, wrong = score[(group == g) & is_right], score[(group == g) & ~is_right]
        had[g] = len(right) * len(wrong)
        above = right[:, None] - wrong
        won[g] = (above > 0).sum() + 0.5 * (above == 0).sum()
    return won, had


def with_interval(score: Score, is_right: NDArray[np.bool_], group: NDArray[np.int64]) -> dict[str, object]:
    """Return area and pairs with intervals over samples of the groups; rows need a score."""
    fine = np.isfinite(score)
    score, is_right, group = score[fine], is_right[fine], np.unique(group[fine], return_inverse=True)[1]
    members = [np.flatnonzero(group == g) for g in range(group.max() + 1)]
    won, had = rank_within_groups(score, is_right, group)
    rng = np.random.default_rng(0)
    areas, shares = [], []
    for _ in range(N_BOOTSTRAP):
        chosen = rng.integers(len(members), size=len(members))
        rows = np.concatenate([members[g] for g in chosen])
        areas.append(area(score[rows], is_right[rows]))
        shares.append(won[chosen].sum() / max(had[chosen].sum(), 1))
    result: dict[str, object] = {"auroc": _interval(area(score, is_right), areas), "n": len(score)}
    if had.sum():
        result["pairs"] = _interval(float(won.sum() / had.sum()), shares)
    return result


def _interval(value: float, resampled: list[float]) -> dict[str, float]:
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return {"value": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def solutions(path: Path, n_questions: int, context: FeatureContext) -> dict[str, object]:
    """Return what is found on right and wrong solutions."""
    lines = [json.loads(line) for line in path.open()]
    chosen = np.random.default_rng(0).permutation(sorted({line["id"] for line in lines}))[:n_questions]
    lines = [line for line in lines if line["id"] in set(chosen.tolist()) and line["model"] != "human"]
    pool = th.load([{"prompt": line["question"], "completion": line["response"]} for line in lines])
    began = time.monotonic()
    likelihood = compute(pool, {"loss", "n_response_tokens"}, context)
    seconds = {"loss": time.monotonic() - began}
    scores = {
        "length (short is right)": -likelihood["n_response_tokens"].astype(float),
        "loss (low is right)": -likelihood["loss"],
    }
    for name, beta in (("self-reflection alone", 0.0), ("consistency alone", 1.0), ("confidence", None)):
        settings = ConfidenceSettings() if beta is None else ConfidenceSettings(beta=beta)
        began = time.monotonic()
        scores[name] = compute(pool, {"confidence"}, _set_confidence(context, settings))["confidence"]
        seconds[name] = time.monotonic() - began
    is_right = np.array([line["correct"] for line in lines])
    group = np.array([line["id"] for line in lines])
    return {
        "questions": len(chosen),
        "rows": len(lines),
        "share_right": round(float(is_right.mean()), 4),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "scores": {name: with_interval(score, is_right, group) for name, score in scores.items()},
        "rank_correlation_with_length": {
            name: round(_rank_correlation(score, likelihood["n_response_tokens"]), 3) for name, score in scores.items()
        },
    }


def _rank_correlation(score: Score, length: NDArray[np.int64]) -> float:
    fine = np.isfinite(score)
    return float(np.corrcoef(rankdata(score[fine]), rankdata(length[fine]))[0, 1])


def _set_confidence(context: FeatureContext, settings: ConfidenceSettings) -> FeatureContext:
    from dataclasses import replace

    return replace(context, confidence=settings)


def labels(path: Path, n_rows: int | None, context: FeatureContext) -> dict[str, object]:
    """Return what is found on right and wrong labels."""
    lines = [json.loads(line) for line in path.open()]
    if n_rows is not None and n_rows < len(lines):
        lines = [lines[i] for i in np.sort(np.random.default_rng(0).permutation(len(lines))[:n_rows])]
    pool = th.load([{"text": line["text"], "label": str(line["given"])} for line in lines])
    label = np.array([str(line["given"]) for line in lines])
    is_right = np.array([line["given"] == line["true"] for line in lines])
    scores = {"confidence": compute(pool, {"confidence"}, context)["confidence"], **_baselines(pool, label, context)}
    group = np.arange(len(lines))
    return {
        "rows": len(lines),
        "classes": len(set(label)),
        "share_right": round(float(is_right.mean()), 4),
        "scores": {name: with_interval(score, is_right, group) for name, score in scores.items()},
    }


def _baselines(pool: th.Dataset, label: NDArray[np.str_], context: FeatureContext) -> dict[str, Score]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import NearestNeighbors

    x = compute(pool, {"embedding"}, context)["embedding"]
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2).fit_transform(pool.texts().to_list())
    codes = np.unique(label, return_inverse=True)[1]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)

    def own(views: object) -> Score:
        p = cross_val_predict(LogisticRegression(max_iter=1000), views, codes, cv=folds, method="predict_proba")
        return np.asarray(p[np.arange(len(codes)), codes])

    near = NearestNeighbors(n_neighbors=11, metric="cosine").fit(x).kneighbors(x, return_distance=False)[:, 1:]
    return {
        "logistic regression, embeddings": own(x),
        "logistic regression, TF-IDF": own(words),
        "10 neighbors": (codes[near] == codes[:, None]).mean(axis=1),
    }


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--rows", type=int, default=None, help="of each file with labels; not set: all")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--encoder", default="static")
    parser.add_argument("--device", default=None)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    context = make_context(model=options.model, encoder=options.encoder, device=options.device)
    folder = options.data / "noise" if (options.data / "noise").is_dir() else options.data
    files: dict[str, dict[str, object]] = {SOLUTIONS: solutions(folder / SOLUTIONS, options.questions, context)}
    for name in LABELS:
        files[name] = labels(folder / name, options.rows, context)
    for name, about in files.items():
        print(name, {key: value for key, value in about.items() if key != "scores"})
        for score, values in about["scores"].items():  # type: ignore[attr-defined]
            shown = (
                f"{what} {v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}]"
                for what, v in values.items()
                if what != "n"
            )
            print(f"  {score:32}", *shown, f"n {values['n']:,}")
    result = {
        "model": options.model,
        "encoder": options.encoder,
        "files": files,
        "machine": machine("torch"),
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
