"""Does `base rank` put base models into their true order where rows are fewer than dimensions?

    python benchmarks/base_rank.py --banking /path/to/banking77/train.csv

Draws of 150 rows of ten intents (the first by name) of Banking77, and the vectors of MiniLM (384
dimensions), the static encoder (256), the embedded language model (256) and noise (768). The true
order is that of a cross-fitted regression on all rows of the ten intents. Counted are the draws in
which each score gives that order, in which it puts noise last, and how often two models that differ
are called tied or wrongly ordered by the ranks of the command. Beside it stands LogME as three
published codes have it, which sum log(a + b s) over min(n, d) values and log(a) over d.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl

import thresher as th
from thresher.experiments.bases.candidates import Candidate
from thresher.experiments.bases.labels import LabelRows, _read
from thresher.experiments.bases.ranking import rank_models
from thresher.experiments.experiment import prepare_experiment
from thresher.features.labels.folds import stratified_folds
from thresher.numeric.transferability import (
    Spectrum,
    compute_evidence,
    compute_h_score,
    count_neighbor_hits,
    cross_fit_regression,
    one_hot,
)
from thresher.trainer.settings import TrainSettings

MODELS = ("minilm", "static", "tiny")
RESULT = Path(__file__).parent / "results" / "base_rank.json"


def read_intents(path: Path, n_intents: int) -> pl.DataFrame:
    """Return the rows of the first intents by name, each text once."""
    rows = pl.read_csv(path).unique("text", maintain_order=True)
    names = sorted(rows["category"].unique().to_list())[:n_intents]
    return rows.filter(pl.col("category").is_in(names))


def read_vectors(rows: pl.DataFrame) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the vectors of each model, and the classes."""
    data = th.load([{"text": text, "label": label} for text, label in rows.select("text", "category").iter_rows()])
    experiment = prepare_experiment(data, eval="1%", model=None, settings=TrainSettings(), metric=None)
    pool = experiment.pool
    codes = np.unique(pool.frame["response"].to_numpy().astype(str), return_inverse=True)[1]
    place = np.arange(len(pool))
    sample = LabelRows(rows=pool, codes=codes, fold=stratified_folds(codes, 5), place=place, n_given=len(pool))
    vectors = {name: _read(Candidate.find(name, "classification"), experiment, sample, "last")[0] for name in MODELS}
    vectors["noise"] = np.random.default_rng(0).standard_normal((len(pool), 768))
    return vectors, codes


def published_logme(x: np.ndarray, codes: np.ndarray) -> float:
    """Return LogME by the fixed point of the published codes, with their sums."""
    n, d = x.shape
    spectrum = Spectrum.decompose(x)
    power, values = spectrum.values**2, []
    for y in one_hot(codes, int(codes.max()) + 1).T:
        along = (spectrum.left.T @ y) ** 2
        rest, a, b = float((y**2).sum() - along.sum()), 1.0, 1.0
        for _ in range(100):
            gamma = float((b * power / (a + b * power)).sum())
            mean = float((b**2 * power * along / (a + b * power) ** 2).sum())
            error = float((along / (1 + b / a * power) ** 2).sum()) + rest
            a, b = gamma / (mean + 1e-5), (n - gamma) / (error + 1e-5)
        log = d / 2 * np.log(a) + n / 2 * np.log(b) - np.log(a + b * power).sum() / 2
        values.append((log - b / 2 * error - a / 2 * mean - n / 2 * np.log(2 * np.pi)) / n)
    return float(np.mean(values))


def score(x: np.ndarray, codes: np.ndarray, fold: np.ndarray) -> dict[str, float]:
    """Return every score of one model; higher is better."""
    hits, distance = cross_fit_regression(x, codes, fold)
    return {
        "regression": float(hits.mean()),
        "brier": -float(distance.mean()),
        "neighbors": float(count_neighbor_hits(x, codes).mean()),
        "evidence": compute_evidence(x, codes),
        "h_score": compute_h_score(x, codes),
        "published_logme": published_logme(x, codes),
    }


def main() -> None:
    """Draw, score, count, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--banking", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--rows", type=int, default=150)
    asked = parser.parse_args()
    vectors, codes = read_vectors(read_intents(asked.banking, 10))
    names = list(vectors)
    whole = {name: score(x, codes, stratified_folds(codes, 5)) for name, x in vectors.items()}
    truth = sorted(names, key=lambda name: -whole[name]["regression"])
    right, last, wrong, tied = Counter[str](), Counter[str](), 0, Counter[str]()
    for draw in range(asked.draws):
        rows = np.random.default_rng(draw).permutation(len(codes))[: asked.rows]
        fold = stratified_folds(codes[rows], 5)
        scores = {name: score(x[rows], codes[rows], fold) for name, x in vectors.items()}
        for key in scores["noise"]:
            order = sorted(names, key=lambda name: -scores[name][key])
            right[key] += order == truth
            last[key] += order[-1] == "noise"
        distance = np.stack([cross_fit_regression(vectors[name][rows], codes[rows], fold)[1] for name in names])
        ranks = rank_models(names, distance, is_higher_better=False)
        wrong += ranks[0].name != truth[0] and not any(each.is_tied and each.name == truth[0] for each in ranks)
        tied.update(each.name for each in ranks if each.is_tied)
    result = {
        "rows": asked.rows,
        "draws": asked.draws,
        "all_rows": len(codes),
        "true_order": truth,
        "whole": whole,
        "draws_in_true_order": dict(right),
        "draws_with_noise_last": dict(last),
        "draws_whose_first_is_wrong_and_not_tied": wrong,
        "draws_tied_with_the_first": dict(tied),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
