"""How well cross-fitted self-confidence ranks wrong labels first, against the truth.

    OMP_NUM_THREADS=1 python benchmarks/label_issues.py --data DIR [--encoder static] [--draws 500]

DIR holds `noise_*_weak.jsonl`: rows with `text`, `given` and `true` labels. For each file and
each score: area under the ROC curve and under the precision-recall curve for finding the wrong
labels, with 95 % bootstrap intervals over rows. Scores are `self_confidence` as it is (plain and
normalized), each of its two classifiers alone, and other penalties C. Beside them what
`find_label_issues` names: how many, and how many of these are wrong. Chance is 0.5 for the ROC
curve and the share of wrong labels for the other: a score below it hides wrong labels.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from machine import machine

import thresher as th
from thresher.features import make_context
from thresher.features.labels.class_probability import _CrossFit, class_names, given_classes, normalize_confidence
from thresher.features.labels.cross_fit import PENALTY, predict_folds
from thresher.features.labels.label_issues import find_label_issues

RESULT = Path(__file__).parent / "results" / "label_issues.json"
PENALTIES = (0.1, 1.0, 10.0)
# 5-fold logistic regression on static embeddings, on TF-IDF, and disagreement of 10 neighbors
BASELINES = {
    "noise_agnews_weak.jsonl": (0.836, 0.802, 0.831),
    "noise_chemprot_weak.jsonl": (0.686, 0.695, 0.656),
}


def areas(score, is_wrong):
    """Return the areas under the ROC and the precision-recall curve; low scores mean wrong."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    return roc_auc_score(is_wrong, -score), average_precision_score(is_wrong, -score)


def with_intervals(score, is_wrong, n_draws):
    """Return both areas with their 95 % percentile intervals over resampled rows."""
    rng = np.random.default_rng(0)
    n = len(score)
    draws = np.array([areas(score[rows], is_wrong[rows]) for rows in (rng.integers(0, n, n) for _ in range(n_draws))])
    low, high = np.percentile(draws, [2.5, 97.5], axis=0).T.round(4).T.tolist()
    roc, pr = areas(score, is_wrong)
    return {
        "auroc": {"value": round(roc, 4), "low": low[0], "high": high[0]},
        "auprc": {"value": round(pr, 4), "low": low[1], "high": high[1]},
    }


def probabilities(work, views, penalty):
    """Return (n_texts, k) cross-fitted probabilities."""
    probability = np.zeros((work.rows.n_texts, work.rows.n_classes))
    for judged in predict_folds(work.rows, views, range(work.rows.n_folds), penalty=penalty):
        probability[judged.texts] = judged.probability
    return probability


def measure(path, encoder, n_draws):
    """Return the areas of each score on one file."""
    lines = [json.loads(line) for line in path.open()]
    pool = th.load([{"text": line["text"], "label": str(line["given"])} for line in lines])
    names, codes = class_names(pool), given_classes(pool)
    work = _CrossFit(pool, names, make_context(encoder=encoder).resolved())
    embedding, words = work._views
    text = work.text
    began = time.process_time()
    own = probabilities(work, [embedding, words], PENALTY)[text]
    seconds = time.process_time() - began
    at = np.arange(len(codes))
    scores = {
        "self_confidence": own[at, codes],
        "self_confidence, normalized": normalize_confidence(own, codes)[at, codes],
    }
    for label, views in (("embedding alone", [embedding]), ("words alone", [words]), ("both", [embedding, words])):
        for penalty in PENALTIES:
            if (label, penalty) != ("both", PENALTY):
                scores[f"{label}, C = {penalty:g}"] = probabilities(work, views, penalty)[text][at, codes]
    issues = find_label_issues(own, codes, names)
    is_wrong = np.array([line["given"] != line["true"] for line in lines])
    named = np.zeros(len(codes), dtype=bool)
    named[issues["row"].to_numpy()] = True
    truth = np.array([str(line["true"]) for line in lines])[issues["row"].to_numpy()]
    return {
        "rows": len(pool),
        "classes": len(names),
        "share_wrong": round(float(is_wrong.mean()), 4),
        "seconds_of_classifiers": round(seconds, 1),
        "baselines_auroc": dict(
            zip(("embedding", "tf-idf", "10 neighbors"), BASELINES.get(path.name, ()), strict=False)
        ),
        "scores": {name: with_intervals(score, is_wrong, n_draws) for name, score in scores.items()},
        "label_issues": {
            "named": int(named.sum()),
            "precision": round(float(is_wrong[named].mean()), 4),
            "recall": round(float(named[is_wrong].mean()), 4),
            "suggestion_is_true": round(float((issues["suggested"].to_numpy() == truth).mean()), 4),
        },
    }


def main():
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default="static")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    files = {
        path.name: measure(path, options.encoder, options.draws)
        for path in sorted(options.data.glob("noise_*_weak.jsonl"))
    }
    result = {"encoder": options.encoder, "draws": options.draws, "files": files, "machine": machine("scikit-learn")}
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    for name, entry in files.items():
        print(name, {key: value for key, value in entry.items() if key != "scores"})
        for score, area in entry["scores"].items():
            print(
                f"  {score:32}", *(f"{a} {v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for a, v in area.items())
            )


if __name__ == "__main__":
    main()
