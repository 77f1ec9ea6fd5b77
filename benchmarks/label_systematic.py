"""Do signs of systematic label errors tell when wrong labels cannot be found? Tried, and not used.

    python benchmarks/label_systematic.py --data DIR --lines FILE  # 2 minutes; resumes

On 1,000 rows of sets whose labels are taken for true, errors are planted at random and by rules
(`planted_noise.py`, draws from 400 on). For each: the area under the ROC curve of the trust, and
signs that need no truth. `concentration`: the largest share of a pair of given and other class in
the confident joint off its diagonal; `asymmetry`: the joint less its transpose, absolute, over its
sum; `predictable`: the area with which embeddings foretell, cross-validated, which labels are
contradicted. A sign would be of use if its values with an area below 0.65 lay apart from those with
an area above 0.75.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import label_issues
import numpy as np
from machine import machine
from planted_noise import BY_RULE, Planter

from thresher.features.labels.class_probability import given_classes
from thresher.features.labels.label_issues import confident_joint

SETS = ("products", "dolly categories", "chemprot", "ae110k attributes", "banking77, 30 classes")
KINDS = (
    "uniform 10",
    "uniform 30",
    "next class 20",
    "largest to second",
    "every second class",
    "likeliest other class",
    *BY_RULE,
)
N_ROWS, FIRST_DRAW = 1000, 400
SIGNS = ("concentration", "asymmetry", "predictable")
RESULT = Path(__file__).parent / "results/label_systematic.json"


def measure_signs(features, codes: np.ndarray) -> dict[str, float]:
    """Return the signs of one set of labels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    p = features["class_probability"].astype(float)
    joint = confident_joint(p, codes).astype(float)
    np.fill_diagonal(joint, 0)
    is_contradicted = p.argmax(axis=1) != codes
    foretold = cross_val_predict(
        LogisticRegression(max_iter=200), features["embedding"], is_contradicted, cv=3, method="predict_proba"
    )
    total = max(joint.sum(), 1.0)
    return {
        "concentration": float(joint.max() / total),
        "asymmetry": float(np.abs(joint - joint.T).sum() / total),
        "predictable": float(roc_auc_score(is_contradicted, foretold[:, 1])),
    }


def measure(name: str, rows, kind: str) -> dict:
    """Return area and signs of one kind of errors in one set."""
    texts = rows["text"].to_list()
    names, y = np.unique(rows["label"].to_numpy().astype(str), return_inverse=True)
    _, features = label_issues.read_features(texts, names[y].tolist(), "static")
    p = features["class_probability"].astype(float)
    own = p[np.arange(len(y)), y]
    p[np.arange(len(y)), y] = -1
    draw = FIRST_DRAW + KINDS.index(kind)
    planted = Planter(y, texts, features["embedding"], p.argmax(axis=1), p.max(axis=1) - own, draw).plant(kind)
    pool, changed = label_issues.read_features(texts, names[planted].tolist(), "static")
    codes = given_classes(pool)
    area = label_issues.measure_area(label_issues.score_forms(changed, codes)[0]["trust"], planted != y)
    return {"set": name, "kind": kind, "area": area, **measure_signs(changed, codes)}


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lines", type=Path, required=True, help="file that grows line by line")
    parser.add_argument("--summary", action="store_true", help="measure nothing more")
    options = parser.parse_args()
    known = [json.loads(line) for line in options.lines.read_text().splitlines()] if options.lines.is_file() else []
    sets = {} if options.summary else label_issues.read_sets(options.data)
    for name in SETS if sets else ():
        for kind in KINDS:
            if not any((line["set"], line["kind"]) == (name, kind) for line in known):
                known.append(measure(name, sets[name].head(N_ROWS), kind))
                with options.lines.open("a") as file:
                    file.write(json.dumps(known[-1]) + "\n")
    summary = {}
    for sign in SIGNS:
        hidden = [line[sign] for line in known if line["area"] < 0.65]
        found = [line[sign] for line in known if line["area"] > 0.75]
        summary[sign] = {"area below 0.65": [min(hidden), max(hidden)], "above 0.75": [min(found), max(found)]}
        summary[sign] |= {"n": [len(hidden), len(found)]}
    print(json.dumps(summary, indent=1))
    RESULT.write_text(json.dumps({"machine": machine("scikit-learn"), "summary": summary, "lines": known}) + "\n")


if __name__ == "__main__":
    main()
