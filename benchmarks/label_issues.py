"""How well wrong labels are found: by which form of trust, at what precision, and when not.

    OMP_NUM_THREADS=1 python benchmarks/label_issues.py --data DIR [--encoder static] [--draws 200]

DIR holds `noise/` with `noise_*_weak.jsonl`: rows with `text`, `given` and `true` labels, and
`banking77/`. For each weakly labeled file: area under the ROC curve for ranking wrong labels first,
with 95 % bootstrap intervals over rows, of the plain probability of the given label, of the same
divided by the label's share, and of `measure_trust`; precision and recall of `find_untrusted` (the
default of the rule `label-issues`) and of confident learning; and what training on the surest part
of the rows does: accuracy on held-out true labels of a logistic regression, against random rows of
the same number.

Planted: on 1,500 rows of each of eight sets, whose labels are taken for true, errors of 14 kinds at
random and 5 by a rule that the text shows. `behind` is by how much the trust is behind the better
of the two forms; `cannot_tell` whether the rule says so. The rule of the trust was chosen on other
draws of these errors on the same sets, so other sets can be worse.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import auto
import numpy as np
import polars as pl
from machine import machine
from planted_noise import AT_RANDOM, BY_RULE, Planter

import thresher as th
from thresher.features import compute, make_context
from thresher.features.labels.class_probability import class_names, given_classes
from thresher.features.labels.label_issues import find_label_issues
from thresher.features.labels.label_trust import divide_by_prior, find_untrusted, measure_trust
from thresher.features.labels.tellable import explain_cannot_tell
from thresher.numeric.vectors import unit_rows
from thresher.selectors.pilot.student import grade_student

RESULT = Path(__file__).parent / "results" / "label_issues.json"
N_PLANTED = 1_500
SHARES = (0.5, 0.7, 0.8, 0.9, 0.95)
N_SPLITS = 4
FIRST_DRAW = 200  # the rule was chosen on draws below it


def measure_area(score, is_wrong):
    """Return the area under the ROC curve; low scores mean wrong, unknown ones right."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(is_wrong, -np.nan_to_num(score, nan=1.0)))


def with_interval(score, is_wrong, n_draws):
    """Return the area with its 95 % percentile interval over resampled rows."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(score), len(score)) for _ in range(n_draws)]
    areas = [measure_area(score[rows], is_wrong[rows]) for rows in draws]
    low, high = np.percentile(areas, [2.5, 97.5])
    return {"value": round(measure_area(score, is_wrong), 4), "low": round(low, 4), "high": round(high, 4)}


def read_features(texts, labels, encoder):
    """Return the pool, its features, and the place of each of its rows among the texts."""
    pool = th.load([{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)])
    needs = {"embedding", "class_probability", "class_votes"}
    return pool, compute(pool, needs, make_context(encoder=encoder).resolved())


def score_forms(features, codes):
    """Return the three scores of the given labels."""
    p = features["class_probability"].astype(np.float64)
    rows = np.arange(len(codes))
    trust = measure_trust(p, codes)
    return {
        "plain": p[rows, codes],
        "prior-divided": divide_by_prior(p, codes)[rows, codes],
        "trust": trust.value,
    }, trust.form


def count_named(issues, is_wrong):
    """Return precision, its estimate and recall of the named rows."""
    named = np.zeros(len(is_wrong), bool)
    named[issues["row"].to_numpy()] = True
    return {
        "named": int(named.sum()),
        "precision": round(float(is_wrong[named].mean()), 4) if named.any() else None,
        "estimated_precision": round(float(issues["wrong"].mean()), 4) if named.any() and "wrong" in issues else None,
        "recall": round(float(named[is_wrong].mean()), 4),
    }


def keep_surest(features, score, given, true):
    """Return the gain in accuracy on true labels of training on the surest rows, not random."""
    x = unit_rows(features["embedding"])
    gains = {f"{share:.0%}": [] for share in SHARES}
    for split in range(N_SPLITS):
        rng = np.random.default_rng(split)
        order = rng.permutation(len(x))
        test, pool = order[: len(x) // 4], order[len(x) // 4 :][:4000]
        by_trust = pool[np.argsort(-np.nan_to_num(score[pool], nan=1.0), kind="stable")]
        for share in SHARES:
            n = round(share * len(pool))
            ours, control = (
                grade_student(x[rows], given[rows], x[test], true[test]).accuracy.mean()
                for rows in (by_trust[:n], rng.permutation(pool)[:n])
            )
            gains[f"{share:.0%}"].append(100 * (ours - control))
    return {
        share: {"points": round(float(np.mean(v)), 2), "se": round(float(np.std(v, ddof=1) / len(v) ** 0.5), 2)}
        for share, v in gains.items()
    }


def measure_weak(path, encoder, n_draws):
    """Return what is found on a file with weak labels."""
    lines = pl.read_ndjson(path).with_columns(pl.col("given", "true").cast(pl.String))
    pool, features = read_features(lines["text"], lines["given"], encoder)
    names, codes = class_names(pool), given_classes(pool)
    is_wrong = (lines["given"] != lines["true"]).to_numpy()
    scores, form = score_forms(features, codes)
    every = sorted({*names, *lines["true"].unique()})
    given, true = (np.searchsorted(every, lines[column].to_numpy()) for column in ("given", "true"))
    p = features["class_probability"]
    return {
        "rows": len(pool),
        "classes": len(names),
        "share_wrong": round(float(is_wrong.mean()), 4),
        "form": form,
        "auroc": {name: with_interval(score, is_wrong, n_draws) for name, score in scores.items()},
        "find_untrusted": count_named(find_untrusted(p, codes, names), is_wrong),
        "confident_learning": count_named(find_label_issues(p, codes, names), is_wrong),
        "cannot_tell": explain_cannot_tell(p, codes, features["class_votes"], codes),
        "surest_rows_against_random": keep_surest(features, scores["trust"], given, true),
    }


def read_sets(folder):
    """Return texts and true labels of each set, no text twice."""
    sets = {
        name: pl.read_ndjson(folder / "noise" / f"noise_{name}_weak.jsonl").select(
            "text", label=pl.col("true").cast(pl.String)
        )
        for name in ("agnews", "chemprot")
    }
    banking = pl.read_csv(folder / "banking77" / "train.csv").select("text", label="category")
    kept = np.random.default_rng(0).choice(sorted(set(banking["label"])), 12, replace=False)
    parts = [
        banking.filter(pl.col("label") == name).head(max(15, int(170 / (1 + i) ** 0.8))) for i, name in enumerate(kept)
    ]
    sets["banking77, 12 uneven classes"] = pl.concat(parts)
    sets["banking77, 30 classes"] = banking.filter(
        pl.col("label").is_in(
            np.random.default_rng(7).choice(sorted(set(banking["label"])), 30, replace=False).tolist()
        )
    )
    sets["products"] = pl.read_ndjson(Path(__file__).parents[1] / "data/products/train.jsonl").select("text", "label")
    dolly = pl.DataFrame(json.loads((folder / "dolly_3k/dolly_3k.json").read_text()))
    sets["dolly categories"] = dolly.select(text="instruction", label="category")
    with gzip.open(folder / "t0/t0_pool.jsonl.gz") as file:
        t0 = pl.read_ndjson(file.read())
    sets["t0 data sets"] = t0.select(text=pl.col("prompt").str.slice(0, 400), label="dataset")
    attributes = auto.load_task("ae110k-attributes", folder)[0].frame
    sets["ae110k attributes"] = attributes.select(text="prompt", label="response")
    return {
        name: rows.unique("text", maintain_order=True).sample(min(N_PLANTED, rows["text"].n_unique()), seed=1)
        for name, rows in sets.items()
    }


def measure_planted(rows, encoder):
    """Return one line per kind of planted errors."""
    texts = rows["text"].to_list()
    names, y = np.unique(rows["label"].to_numpy().astype(str), return_inverse=True)
    _, features = read_features(texts, names[y].tolist(), encoder)
    p = features["class_probability"].astype(np.float64)
    own = p[np.arange(len(y)), y]
    p[np.arange(len(y)), y] = -1
    results = []
    for number, kind in enumerate((*AT_RANDOM, *BY_RULE)):
        planter = Planter(y, texts, features["embedding"], p.argmax(axis=1), p.max(axis=1) - own, FIRST_DRAW + number)
        planted = planter.plant(kind)
        is_wrong = planted != y
        if not is_wrong.any() or len(np.unique(planted)) < 2:
            continue
        pool, changed = read_features(texts, names[planted].tolist(), encoder)
        codes = given_classes(pool)
        scores, form = score_forms(changed, codes)
        areas = {name: round(measure_area(score, is_wrong), 4) for name, score in scores.items()}
        probability = changed["class_probability"]
        results.append(
            {
                "kind": kind,
                "share_wrong": round(float(is_wrong.mean()), 3),
                "form": form,
                **areas,
                "behind": round(max(areas["plain"], areas["prior-divided"]) - areas["trust"], 4),
                "cannot_tell": explain_cannot_tell(probability, codes, changed["class_votes"], codes) is not None,
                **count_named(find_untrusted(probability, codes, class_names(pool)), is_wrong),
            }
        )
        print("  ", results[-1], flush=True)
    return results


def main():
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default="static")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    result = {"encoder": options.encoder, "draws": options.draws, "machine": machine("scikit-learn"), "weak": {}}
    for path in sorted((options.data / "noise").glob("noise_*_weak.jsonl")):
        result["weak"][path.name] = measure_weak(path, options.encoder, options.draws)
        print(path.name, json.dumps(result["weak"][path.name], indent=1), flush=True)
    result["planted"] = {}
    for name, rows in read_sets(options.data).items():
        print(name)
        result["planted"][name] = measure_planted(rows, options.encoder)
    lines = [line for lines in result["planted"].values() for line in lines]
    result["summary"] = summarize(lines)
    print(result["summary"])
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def summarize(lines):
    """Return how often the trust is behind the better form, and when it cannot tell."""
    random = [line for line in lines if not line["kind"].startswith("by rule")]
    return {
        "planted_at_random": len(random),
        "behind_by_more_than_0.01": sum(line["behind"] > 0.01 for line in random),
        "most_behind": max(line["behind"] for line in random),
        "cannot_tell_above_0.75": sum(line["cannot_tell"] and line["trust"] > 0.75 for line in lines),
        "by_rule_below_0.65": sum(line["kind"].startswith("by rule") and line["trust"] < 0.65 for line in lines),
        "of_these_cannot_tell": sum(
            line["kind"].startswith("by rule") and line["trust"] < 0.65 and line["cannot_tell"] for line in lines
        ),
    }


if __name__ == "__main__":
    main()
