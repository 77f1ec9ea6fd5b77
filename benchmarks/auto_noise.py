"""Where labels are wrong, is the gain that `auto` reports on given labels there on true ones?

    python benchmarks/auto_noise.py --data PATH --work FOLDER    # about 5 s a race; resumes

Pools of 2,000 rows whose true labels are known: AG News and ChemProt with the labels of rules, and
AG News, ChemProt, the product listings and 12 uneven classes of Banking77 with errors planted at
random and by a rule (`planted_noise.py`), and clean. `auto` races as always, by the given labels.
Each student of the deciding splits is judged once more on the same held-out rows: on those whose
label is not doubtful, and by their true labels. Reported per kind of labels, in points of accuracy:
the mean effect of the nominee by each judge, the races it won, and how many of those winners are
worse than random rows by the true labels beyond doubt. Draws from 100 on; the rule of `auto` has
not seen them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import label_issues
import numpy as np
import polars as pl
from machine import machine
from planted_noise import Planter

from thresher.features import compute, make_context
from thresher.features.labels.label_issues import is_label_contradicted
from thresher.numeric.vectors import unit_rows
from thresher.selectors.pilot.arms import list_labeled_arms
from thresher.selectors.pilot.race import Race
from thresher.selectors.pilot.statistics import estimate_difference
from thresher.selectors.pilot.student import fit_student

SHARES, FIRST_DRAW, N_POOL = (0.05, 0.3), 100, 2000
SETS = ("agnews", "chemprot", "products", "banking77, 12 uneven classes")
KINDS = ("clean", "uniform 10", "uniform 30", "next class 20", "by rule: clusters", "by rule: a word")
RESULT = Path(__file__).parent / "results/auto_noise.json"


class JudgedRace(Race):
    """A race that keeps what its students predict."""

    def _judge(self, rows, split):
        grade = super()._judge(rows, split)
        model = fit_student(self._unit[rows], self._label[rows])
        said = self._label[rows][:1] if model is None else model.predict(self._unit[split.held_out])
        self.__dict__.setdefault("said", {})[id(grade.accuracy)] = np.broadcast_to(said, len(split.held_out)), grade
        return grade

    def _compare(self, grades, metric, level):
        self.grades = grades
        return super()._compare(grades, metric, level)


def read_weak(name: str, folder: Path, draw: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Return a pool of texts with the labels of a rule, and the true labels."""
    lines = pl.read_ndjson(folder / f"noise/noise_{name}_weak.jsonl").sample(N_POOL, shuffle=True, seed=draw)
    return lines.select("text", pl.col("given").cast(pl.String)), lines["true"].cast(pl.String).to_numpy()


def race(texts, given, true, share: float, draw: int) -> dict:
    """Return the nominee's effect by the given labels, on trusted rows, and by the true labels."""
    pool, features = label_issues.read_features(texts, given, "static")
    names, label = np.unique(given, return_inverse=True)
    code = {name: i for i, name in enumerate(names)}
    truth = np.array([code.get(name, -1) for name in true])
    features = replace(
        features, arrays={**features.arrays, "column:label": label, "embedding": unit_rows(features["embedding"])}
    )
    is_doubtful = is_label_contradicted(features["class_probability"], label)
    run = JudgedRace(
        features, list_labeled_arms(len(pool)), share=share, metric="accuracy", salt=draw, max_seconds=None
    )
    pilot = run.run(is_doubtful)
    line = {"share": share, "draw": draw, "chosen": pilot.chosen.name, "nominee": pilot.nominee}
    line["is_better"] = pilot.chosen.name != "random"
    line |= {"doubtful": float(is_doubtful.mean()), "wrong": float((truth != label).mean())}
    rows = [graded.held_out for graded in run.grades]
    for judge in ("given", "trusted", "true"):
        gaps, judged = [], []
        for graded in run.grades:
            kept = ~is_doubtful[graded.held_out] if judge == "trusted" else np.ones(len(graded.held_out), bool)
            wanted = (truth if judge == "true" else label)[graded.held_out]
            hits = [run.said[id(grade.accuracy)][0] == wanted for grade in (graded.ours, graded.control[0])]
            gaps.append((hits[0].astype(float) - hits[1])[kept])
            judged.append(graded.held_out[kept])
        line[judge] = estimate_difference(judged, gaps, 0.05)._asdict()
    assert len(rows) == line["given"]["n_splits"]
    return line


def list_jobs(sets: dict, folder: Path, draws: int):
    """Yield name, and a function that gives texts, given and true labels of a pool."""
    for draw in range(FIRST_DRAW, FIRST_DRAW + draws):
        for name in ("agnews", "chemprot"):

            def read(name=name, draw=draw):
                lines, true = read_weak(name, folder, draw)
                return lines["text"].to_list(), lines["given"].to_numpy(), true

            yield f"{name}, labels of rules", draw, read
        for name in SETS:
            for kind in KINDS:

                def plant(name=name, kind=kind, draw=draw):
                    rows = sets[name]
                    texts = rows["text"].to_list()
                    names, y = np.unique(rows["label"].to_numpy().astype(str), return_inverse=True)
                    x = compute(
                        label_issues.th.load(
                            [{"text": t, "label": str(names[c])} for t, c in zip(texts, y, strict=True)]
                        ),
                        {"embedding"},
                        make_context(encoder="static").resolved(),
                    )["embedding"]
                    planted = y if kind == "clean" else Planter(y, texts, x, y, y, draw).plant(kind)
                    return texts, names[planted], names[y]

                yield f"{name}, {kind}", draw, plant


def summarize(entries: list[dict]) -> list[dict]:
    """Return one line for each kind of labels."""
    kinds = {
        "labels of rules, AG News": lambda e: e["labels"].startswith("agnews, labels"),
        "labels of rules, ChemProt": lambda e: e["labels"].startswith("chemprot, labels"),
        "planted by a rule": lambda e: "by rule" in e["labels"],
        "planted at random": lambda e: "uniform" in e["labels"] or "next class" in e["labels"],
        "clean": lambda e: e["labels"].endswith("clean"),
    }
    lines = []
    for kind, belongs in kinds.items():
        mine = [entry for entry in entries if belongs(entry)]
        won = [entry for entry in mine if entry["is_better"]]
        line = {"labels": kind, "races": len(mine), "won": len(won)}
        line["wrong"] = float(np.mean([entry["wrong"] for entry in mine])) if mine else None
        for judge in ("given", "trusted", "true"):
            line[judge] = 100 * float(np.mean([entry[judge]["value"] for entry in won])) if won else None
        line["winners_worse_by_truth"] = sum(entry["true"]["high"] < 0 for entry in won)
        lines.append(line)
    return lines


def main() -> None:
    """Race, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--summary", action="store_true", help="run nothing more")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    sets = {} if options.summary else label_issues.read_sets(options.data)
    for name, draw, read in [] if options.summary else list_jobs(sets, options.data, options.draws):
        path = options.work / f"{name.replace(' ', '-').replace(':', '')}-{draw}.json"
        if path.is_file():
            continue
        texts, given, true = read()
        lines = [{"labels": name, **race(texts, given, true, share, draw)} for share in SHARES]
        path.write_text(json.dumps(lines) + "\n")
        print(json.dumps(lines), flush=True)
    entries = [line for path in sorted(options.work.glob("*.json")) for line in json.loads(path.read_text())]
    summary = summarize(entries)
    print(*map(json.dumps, summary), sep="\n")
    RESULT.write_text(json.dumps({"machine": machine("scikit-learn"), "summary": summary, "entries": entries}) + "\n")


if __name__ == "__main__":
    main()
