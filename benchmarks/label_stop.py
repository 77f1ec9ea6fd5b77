"""Other ways to say *stop*: rules on the gains that were told, and the law of the asked rows.

    python benchmarks/label_stop.py --work FOLDER    # the cells of label_ask.py; label_stop.json

`label ask` says stop where the expected gain of the next batch is below a point and the upper end
of its 80 % interval is below two. Here the same 20 replays (four sets, five draws) are read again
by other rules; and by another estimate: the law fitted to the accuracies that the asked rows had on
200 random test rows at each batch so far, in place of random parts of the labeled rows. The true
stop is that of `results/label_ask.json`. Counted is how often a stop comes within 15 % of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import machine

from thresher.errors import InputError
from thresher.evaluation.curves.curve_fit import fit_curve

HERE = Path(__file__).parent
SETS = ("banking77", "products", "agnews", "chemprot")
DELTA, N_JUDGES, FEWEST = 0.01, 200, 4
Rule = Callable[[list[dict]], bool]


def average(told: list[dict], n: int) -> float:
    """Return the mean of the last expected gains."""
    return float(np.mean([each["median"] for each in told[-n:]]))


RULES: dict[str, Rule] = {
    "median < d, high < 2 d (label ask)": lambda t: t[-1]["median"] < DELTA and t[-1]["high"] < 2 * DELTA,
    "median < d": lambda t: t[-1]["median"] < DELTA,
    "high < 1.5 d": lambda t: t[-1]["high"] < 1.5 * DELTA,
    "mean of 2 medians < d": lambda t: len(t) > 1 and average(t, 2) < DELTA,
    "mean of 3 medians < d": lambda t: len(t) > 1 and average(t, 3) < DELTA,
    "twice median < d": lambda t: len(t) > 1 and all(each["median"] < DELTA for each in t[-2:]),
}


def list_told(cell: dict, column: int) -> list[tuple[int, dict]]:
    """Return the gains that `label ask` told at each size."""
    return [(entry[0], entry[column]) for entry in cell["told"] if entry[column] is not None]


def list_own_law(cell: dict, sizes: list[int], batch: int, draw: int) -> list[tuple[int, dict]]:
    """Return the gains by the law of the asked rows' accuracies on 200 test rows, at each size."""
    hits = np.array([[int(c) for c in row] for row in cell["hits"]["auto"]], dtype=float)
    rows = np.random.default_rng([29, draw]).permutation(hits.shape[1])[:N_JUDGES]
    accuracy = hits[:, rows].mean(axis=1)
    told = []
    for k in range(FEWEST, len(sizes) + 1):
        error = float(np.sqrt(accuracy[k - 1] * (1 - accuracy[k - 1]) / N_JUDGES))
        try:
            fit = fit_curve(sizes[:k], [[v] for v in accuracy[:k]], is_higher_better=True, test_stderr=error, seed=0)
        except InputError:
            continue
        told.append((sizes[k - 1], fit.gain(sizes[k - 1], batch).to_json()))
    return told


def find_stop(told: list[tuple[int, dict]], rule: Rule) -> int | None:
    """Return the first size at which a rule says stop."""
    return next((size for i, (size, _) in enumerate(told) if rule([gain for _, gain in told[: i + 1]])), None)


def main() -> None:
    """Count, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    truth = json.loads((HERE / "results/label_ask.json").read_text())["sets"]
    result: dict = {"machine": machine(), "within_15_percent_of_20": {}, "said": {}}
    laws = {}
    for one in SETS:
        sizes = truth[one]["sizes"]
        for draw in range(5):
            cell = json.loads((given.work / f"{one}-{draw}.json").read_text())
            laws[one, draw] = list_own_law(cell, sizes, sizes[0], draw)
    for judge in ("labeled rows", "200 test rows", "law of the asked rows"):
        for name, rule in RULES.items():
            n_within, said = 0, {}
            for one in SETS:
                true, sizes = truth[one]["stop"][str(DELTA)]["true"], truth[one]["sizes"]
                cells = [json.loads((given.work / f"{one}-{draw}.json").read_text()) for draw in range(5)]
                if judge == "law of the asked rows":
                    told = [laws[one, draw] for draw in range(5)]
                else:
                    told = [list_told(cell, 1 if judge == "labeled rows" else 2) for cell in cells]
                said[one] = [find_stop(each, rule) for each in told]
                n_within += sum(at is not None and abs(at / true - 1) <= 0.15 for at in said[one])
            result["within_15_percent_of_20"].setdefault(judge, {})[name] = n_within
            result["said"].setdefault(judge, {})[name] = said
        print(judge, result["within_15_percent_of_20"][judge], flush=True)
    (HERE / "results/label_stop.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
