"""When to stop asking for labels: other rules than that of `label ask`, judged on new draws.

    python benchmarks/label_stop.py --data DIR --work FOLDER    # resumable, cell by cell
    python benchmarks/label_stop.py --work FOLDER --summary     # results/label_stop.json

The replays of `label_ask.py`: four sets, pools of 2,000 rows, batches of 50 labels (Banking77 100).
Draws 0 to 2 choose one rule of each family, draws 3 to 5 judge it. The true stop is the first size
at which the law of the mean accuracy of all six draws on about 1,000 test rows brings less than a
point with the next batch. A stop counts if it is within 15 % of that. Also told is how much a
batch less or more matters: the accuracy at the stop, less that at the true one.

Families: the mean rise of the accuracy on 200 random test rows over the last batches; the rise that
the classifier itself sees in the pool, sum over rows of p(its label now) - p(its label a batch
ago), with probabilities whose temperature is fitted to held-out labeled rows; and the share of the
pool whose label changed with the last batch (stabilizing predictions, Bloodgood and Vijay-Shanker
2009).
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
from label_ask import N_JUDGES, N_POOL, NAMES, Task, get_batch, list_sizes, replay
from machine import machine

from thresher.evaluation.curves.curve_fit import fit_curve
from thresher.numeric.vectors import unit_rows
from thresher.selectors.pilot.student import fit_student

RESULT = Path(__file__).parent / "results/label_stop.json"
DELTA, TUNE, JUDGE = 0.01, range(3), range(3, 6)
TEMPERATURES = np.exp(np.linspace(-1, 2.5, 36))


def get_logits(x: np.ndarray, y: np.ndarray, at: np.ndarray, k: int) -> np.ndarray:
    """Return the (n, k) logits of a student of some rows; unseen classes are far down."""
    logits = np.full((len(at), k), -30.0)
    model = fit_student(x, y)
    if model is None:
        logits[:, y[0]] = 0.0
        return logits
    values = model.decision_function(at)
    logits[:, model.classes_] = np.stack([-values / 2, values / 2], axis=1) if values.ndim == 1 else values
    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities of each row."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def fit_temperature(x: np.ndarray, y: np.ndarray, k: int, seed: list[int]) -> float:
    """Return the factor of the logits that fits left-out labels best."""
    order = np.random.default_rng(seed).permutation(len(y))
    logits = np.zeros((len(y), k))
    for fold in range(5):
        out = order[fold::5]
        rest = np.setdiff1d(order, out)
        logits[out] = get_logits(x[rest], y[rest], x[out], k)
    fits = [np.log(softmax(logits * t)[np.arange(len(y)), y]).clip(-8).mean() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmax(fits))])


def run_cell(task: Task, name: str, draw: int, cell: Path) -> None:
    """Replay one draw, and write down what each family of rules sees at each size."""
    rng = np.random.default_rng([3, draw])
    pool = np.sort(rng.permutation(len(task.y))[:N_POOL])
    sizes = list_sizes(name, is_long=True)
    order, _ = replay(task, pool, "auto", sizes, rng)
    k = int(task.y.max()) + 1
    x, judges = unit_rows(task.x), np.random.default_rng([29, draw]).permutation(len(task.test_y))[:N_JUDGES]
    entry: dict = {"set": name, "draw": draw, "accuracy": [], "judged": [], "rise": [], "changed": []}
    before = None
    for size in sizes:
        rows = order[:size]
        p = softmax(
            get_logits(x[rows], task.y[rows], x[pool], k) * fit_temperature(x[rows], task.y[rows], k, [draw, size])
        )
        hits = task.grade(rows)
        entry["accuracy"].append(round(float(hits.mean()), 5))
        entry["judged"].append(round(float(hits[judges].mean()), 5))
        now, at = p.argmax(axis=1), np.arange(len(pool))
        entry["rise"].append(None if before is None else round(float((p[at, now] - p[at, before]).mean()), 6))
        entry["changed"].append(None if before is None else round(float((now != before).mean()), 5))
        before = now
    cell.write_text(json.dumps(entry))
    print(f"{name} {draw}", flush=True)


def list_rules(cell: dict, sizes: list[int]) -> dict[str, dict[str, int | None]]:
    """Return, per family and rule, the size at which it says stop."""
    batch = sizes[0]
    stops: dict[str, dict[str, int | None]] = {}
    for family, values in (
        ("rise on 200 test rows", np.diff(cell["judged"], prepend=np.nan)),
        ("rise seen in the pool", cell["rise"]),
    ):
        known = [(size, float(v)) for size, v in zip(sizes, values, strict=True) if v is not None and np.isfinite(v)]
        for n, factor in itertools.product((1, 2, 3), (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)):
            means = [(known[i][0], np.mean([v for _, v in known[i - n + 1 : i + 1]])) for i in range(n - 1, len(known))]
            stops.setdefault(family, {})[f"mean of {n} < {factor} d"] = find_first(means, factor * DELTA)
    changed = [(size, v) for size, v in zip(sizes, cell["changed"], strict=True) if v is not None]
    for share in (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15):
        stops.setdefault("share of the pool that changed", {})[f"< {share}"] = find_first(changed, share)
    # beside every rule: a number of batches that is the same for all
    for number in range(1, 9):
        stops.setdefault("the same number of batches", {})[str(number)] = number * batch
    return stops


def find_first(values: list, below: float) -> int | None:
    """Return the first size whose value is below a limit."""
    return next((size for size, value in values if value < below), None)


def summarize(work: Path) -> dict:
    """Choose a rule per family on some draws, and judge it on the others."""
    cells = {(n, d): json.loads((work / f"{n}-{d}.json").read_text()) for n in NAMES for d in (*TUNE, *JUDGE)}
    true, accuracy = {}, {}
    for name in NAMES:
        sizes = list_sizes(name, is_long=True)
        curves = [cells[name, d]["accuracy"] for d in (*TUNE, *JUDGE)]
        fit = fit_curve(sizes, np.array(curves).T.tolist(), is_higher_better=True)
        true[name] = next(s for s in sizes if fit.gain(s, get_batch(name)).median < DELTA)
        accuracy[name] = dict(zip(sizes, np.mean(curves, axis=0), strict=True))
    stops = {key: list_rules(cell, list_sizes(key[0], is_long=True)) for key, cell in cells.items()}
    result: dict = {"machine": machine(), "delta": DELTA, "true": true, "families": {}}
    for family in next(iter(stops.values())):
        rules = list(next(iter(stops.values()))[family])
        counts = {rule: count_hits(stops, family, rule, true, TUNE) for rule in rules}
        best = max(rules, key=lambda rule: (counts[rule], -abs(rules.index(rule) - len(rules) / 2)))
        said = {n: [stops[n, d][family][best] for d in JUDGE] for n in NAMES}
        lost = [accuracy[n][s or max(accuracy[n])] - accuracy[n][true[n]] for n in NAMES for s in said[n]]
        result["families"][family] = {
            "rule": best,
            "within_15_percent_of_12_chosen_on": counts[best],
            "within_15_percent_of_12": count_hits(stops, family, best, true, JUDGE),
            "said": said,
            "accuracy_to_true_stop": {"mean": round(float(np.mean(lost)), 4), "lowest": round(float(np.min(lost)), 4)},
        }
    return result


def count_hits(stops: dict, family: str, rule: str, true: dict[str, int], draws: range) -> int:
    """Return how many stops are within 15 % of the true ones."""
    said = [(stops[n, d][family][rule], true[n]) for n in NAMES for d in draws]
    return sum(at is not None and abs(at / right - 1) <= 0.15 for at, right in said)


def main() -> None:
    """Run the cells that are missing, or summarize."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    if given.summary:
        result = summarize(given.work)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result["true"]))
        for family, entry in result["families"].items():
            print(family, {name: value for name, value in entry.items() if name != "said"})
        return
    given.work.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        missing = [d for d in (*TUNE, *JUDGE) if not (given.work / f"{name}-{d}.json").exists()]
        task = Task(name, given.data) if missing else None
        for draw in missing:
            run_cell(task, name, draw, given.work / f"{name}-{draw}.json")


if __name__ == "__main__":
    main()
