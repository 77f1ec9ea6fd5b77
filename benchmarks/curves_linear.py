"""Real curves to 10,000 rows of a linear learner: are hidden sizes foretold, is enough right?

    python benchmarks/curves_linear.py --data PATH   # folder with banking77, noise, gsm8k, ...

A ridge classifier on static embeddings learns random rows; it is trained in a moment, so that the
truth can be measured: 12 seeds at fine sizes, judged on all test rows. The curve itself sees 400
test rows and three seeds (the adaptive mode up to five), as a user's would.

1. hidden sizes: the laws are fitted without the one, two or three largest sizes; is the mean score
   at the largest one in the 80 % interval, and on which side are the misses?
2. enough: is the true smallest size within one point of the pool in the 80 % interval?
3. adaptive: which share of the full grid's cost does the adaptive mode spend for its answer?

Sets: Banking77, AE-110k attributes, AG News (true labels), the product listings of this repository,
GSM8K (how many digits the answer has), and, as a check that nothing was tuned to these, handwritten
digits of scikit-learn and a made-up classification.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
from machine import machine
from real_tasks import attributes
from sklearn.datasets import load_digits, make_classification
from sklearn.linear_model import RidgeClassifier

from thresher.evaluation.curves.curve_fit import fit_curve
from thresher.evaluation.curves.enough import Tolerance, find_enough
from thresher.evaluation.curves.row_noise import estimate_test_covariance
from thresher.evaluation.metric import find_metric
from thresher.experiments.cells.cell import Outcome
from thresher.experiments.curve import CurveProgress
from thresher.experiments.learning_curve import run_cells
from thresher.experiments.planning import Cost, list_doubling_sizes
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.settings import CurveSettings
from thresher.models.encoders.load import load_encoder

N_SEEN, N_SEEDS, N_TRUTH_SEEDS, N_POOLS, WITHIN = 400, 3, 12, 8, 0.01


def read_sets(data: Path) -> dict[str, tuple[list[str] | np.ndarray, np.ndarray]]:
    """Return texts (or vectors) and labels of each set."""
    sets = {}
    table = pl.concat([pl.read_csv(data / "banking77" / f"{part}.csv") for part in ("train", "test")])
    sets["banking77"] = (table["text"].to_list(), table["category"].to_numpy())
    rows = pl.read_ndjson(data / "noise" / "noise_agnews_weak.jsonl")
    sets["agnews"] = (rows["text"].to_list(), rows["true"].cast(pl.String).to_numpy())
    products = Path(__file__).parent.parent / "data" / "products"
    rows = pl.concat([pl.read_ndjson(products / f"{part}.jsonl") for part in ("train", "test")], how="diagonal")
    sets["products"] = (rows["text"].to_list(), rows["label"].to_numpy())
    rows = pl.concat([pl.read_ndjson(data / "gsm8k" / f"{part}.jsonl") for part in ("train", "test")])
    digits = [str(len(answer.rsplit("####", 1)[1].strip())) for answer in rows["answer"]]
    sets["gsm8k-digits"] = (rows["question"].to_list(), np.array(digits))
    parts = [part.frame for part in attributes(data)[:2]]
    sets["ae110k-attributes"] = (
        [text for part in parts for text in part["prompt"]],
        np.concatenate([part["response"].to_numpy() for part in parts]),
    )
    x, y = load_digits(return_X_y=True)
    sets["digits"] = (x / 16, y.astype(str))
    x, y = make_classification(8000, 60, n_informative=30, n_classes=8, flip_y=0.1, random_state=0)
    sets["made-up"] = (x, y.astype(str))
    return sets


class LinearPool:
    """A pool of vectors with test rows, and the outcomes of a learner on any number of its rows."""

    def __init__(self, x: np.ndarray, y: np.ndarray, n_pool: int, number: int) -> None:
        """Draw pool and test rows."""
        order = np.random.default_rng(number).permutation(len(x))
        self.pool, self.test = order[:n_pool], order[n_pool:]
        self.x, self.y, self.number = x, y, number

    def is_correct(self, n_rows: int, seed: int) -> np.ndarray:
        """Return whether each test row is answered after learning so many random rows."""
        rows = np.random.default_rng([self.number, seed]).permutation(self.pool)[:n_rows]
        if len(set(self.y[rows])) < 2:
            return self.y[self.test] == self.y[rows][0]
        learner = RidgeClassifier(alpha=1.0).fit(self.x[rows], self.y[rows])
        return learner.predict(self.x[self.test]) == self.y[self.test]


class LinearRunner(ExperimentRunner):
    """Runs cells of a linear learner in place of a trainer."""

    def run(self, names, *, largest):
        """Run cells."""
        for name in names:
            if name not in self.outcomes:
                correct = self.worker_pool.is_correct(name[1], name[2])[:N_SEEN]
                table = pl.DataFrame({"row_id": [str(row) for row in range(len(correct))], "correct": correct})
                self.outcomes[name] = Outcome(key="", outcomes=table, facts={})
        return {name: self.estimate(name).value for name in names}

    def compute_cost(self):
        """Return the cost of three epochs."""
        return Cost(epochs=3, equal_rows=0, n_test=N_SEEN, least_rows=80 * 16)


def fit_seen(tables: dict[int, np.ndarray], sizes: list[int]):
    """Fit the laws to (seeds, rows) tables of some sizes."""
    values = [tables[size][:, :N_SEEN].astype(float) for size in sizes]
    return fit_curve(
        sizes,
        [list(table.mean(axis=1)) for table in values],
        is_higher_better=True,
        test_covariance=estimate_test_covariance(values),
    )


def foretell(tables: dict[int, np.ndarray], sizes: list[int]) -> list[dict]:
    """Return the predictions of the largest size from the smaller ones."""
    value, lines = float(tables[sizes[-1]][:, :N_SEEN].mean()), []
    for n_hidden in (1, 2, 3):
        fit = fit_seen(tables, sizes[:-n_hidden])
        errors = fit.sampled_errors([sizes[-1]])[:, 0]
        # what is compared is a mean of runs, on test rows that favor one size or the other
        rows = float(np.diag(fit.test_covariance)[-2:].max())
        noise = np.sqrt(fit.seed_sd[-1] ** 2 / N_SEEDS + rows)
        errors = errors + np.random.default_rng(0).normal(0, noise, len(errors))
        low, high = (round(float(end), 4) for end in np.quantile(1 - errors, [0.1, 0.9]))
        # spread evenly over 0..1 where predictions are right
        below = round(float(np.mean(1 - errors < value)), 3)
        lines.append({"hidden": n_hidden, "value": round(value, 4), "low": low, "high": high, "below": below})
    return lines


def find_truth(pool: LinearPool, sizes: list[int]) -> tuple[float, list[float]]:
    """Return the fewest rows within the tolerance, measured with many seeds on all test rows."""
    fine = sorted({*sizes, *(round(size * 2**0.5) for size in sizes[:-1])})
    means = np.array([np.mean([pool.is_correct(n, 100 + s).mean() for s in range(N_TRUTH_SEEDS)]) for n in fine])
    means = np.maximum.accumulate(means)
    bad = np.flatnonzero(means[-1] - means > WITHIN)
    if not len(bad):
        return float(fine[0]), means.tolist()
    i = bad[-1]
    share = (means[-1] - WITHIN - means[i]) / (means[i + 1] - means[i])
    return float(fine[i] * (fine[i + 1] / fine[i]) ** share), means.tolist()


def run_adaptive(pool: LinearPool, n_pool: int, sizes: list[int]) -> dict:
    """Return the answer and the cost of the adaptive mode."""
    metric = find_metric("accuracy", "classification")
    experiment = SimpleNamespace(metric=metric, pool=range(n_pool), test=range(N_SEEN), labels=())
    shared = {"rankings": None, "worker_pool": pool, "n_workers": 1, "engine": "local", "on_progress": None}
    runner = LinearRunner(experiment=experiment, **shared)
    progress = CurveProgress(settings=CurveSettings(), methods=("random",), sizes=tuple(sizes))
    run_cells(progress, runner)
    tables = {size: np.stack([t["correct"].to_numpy() for t in runner.list_tables("random", size)]) for size in sizes
              if runner.list_tables("random", size)}  # fmt: skip
    fit = fit_seen(tables, sorted(tables))
    answer = find_enough(fit, within=Tolerance(), n_pool=n_pool, n_test=N_SEEN)
    return {
        "verdict": answer.verdict,
        "rows": answer.rows,
        "low": answer.low,
        "high": answer.high,
        "cost_share": round(progress.cost / progress.full_cost, 3),
        "stopped": progress.stopped,
    }


def is_held(prediction: dict) -> bool:
    """Tell whether the measured value lies in the interval."""
    return prediction["low"] <= prediction["value"] <= prediction["high"]


def summarize_sets(curves: dict[str, dict]) -> dict[str, dict]:
    """Return the coverage of hidden sizes and its sides of misses, set by set."""
    sets = list(dict.fromkeys(key.split(",")[0] for key in curves))
    return {name: summarize([line for key, line in curves.items() if key.split(",")[0] == name]) for name in sets}


def summarize(lines: list[dict]) -> dict:
    """Return coverages, sides of misses, and shares of the cost.

    Predictions of one curve err together, so that the standard error is over curves.
    """
    hidden = [prediction for line in lines for prediction in line["hidden"]]
    answers = [line["adaptive"] | {"truth": line["truth"]} for line in lines]
    held = [is_held(prediction) for prediction in hidden]
    by_curve = [np.mean([is_held(prediction) for prediction in line["hidden"]]) for line in lines]
    in_interval = [a["low"] * 0.999 <= a["truth"] <= a["high"] * 1.001 for a in answers]
    return {
        "hidden": {
            "cases": len(hidden),
            "covered": round(float(np.mean(held)), 3),
            "stderr": round(float(np.std(by_curve) / np.sqrt(len(by_curve))), 3),
            "above": round(float(np.mean([p["value"] > p["high"] for p in hidden])), 3),
            "below": round(float(np.mean([p["value"] < p["low"] for p in hidden])), 3),
        },
        "enough": {
            "cases": len(answers),
            "covered": round(float(np.mean(in_interval)), 3),
            "truth_above": round(float(np.mean([a["truth"] > a["high"] * 1.001 for a in answers])), 3),
            "twice_too_small": sum(a["verdict"] == "enough" and a["truth"] > 2 * a["rows"] for a in answers),
            "verdicts": {v: sum(a["verdict"] == v for a in answers) for v in ("enough", "all", "cannot tell")},
        },
        "largest_cost_share": max(a["cost_share"] for a in answers),
        "mean_cost_share": round(float(np.mean([a["cost_share"] for a in answers])), 3),
    }


def main() -> None:
    """Run all sets, print, and write the result after each pool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "curves_linear.json")
    options = parser.parse_args()
    result = json.loads(options.out.read_text()) if options.out.is_file() else {"curves": {}}
    result |= {"command": "python benchmarks/curves_linear.py --data PATH", "machine": machine()}
    encoder = load_encoder("static")
    for name, (rows, labels) in read_sets(options.data).items():
        keys = [f"{name}, pool {number}" for number in range(N_POOLS)]
        if set(keys) <= set(result["curves"]):
            continue
        x = rows if isinstance(rows, np.ndarray) else np.asarray(encoder.encode(rows))
        n_pool = min(10_000, int(0.75 * len(x)))
        for number, key in enumerate(keys):
            pool, sizes = LinearPool(x, labels, n_pool, number), list_doubling_sizes(n_pool)
            tables = {size: np.stack([pool.is_correct(size, seed) for seed in range(N_SEEDS)]) for size in sizes}
            truth, means = find_truth(pool, sizes)
            line = {"sizes": sizes, "truth": round(truth), "truth_means": [round(mean, 4) for mean in means]}
            line |= {"hidden": foretell(tables, sizes), "adaptive": run_adaptive(pool, n_pool, sizes)}
            result["curves"][key] = line
            print(key, line, flush=True)
            result["summary"] = summarize(list(result["curves"].values()))
            result["sets"] = summarize_sets(result["curves"])
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(result["summary"])


if __name__ == "__main__":
    main()
