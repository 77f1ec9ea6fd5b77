"""Do the 80 % intervals of the saturation point cover it in 80 of 100 simulated curves?

    python benchmarks/saturation_coverage.py     # 400 curves of each truth, 6 minutes on one core

Sizes 50..1600, three seeds, a test set of 500 rows, a spread of one point between seeds. Four
truths: two power laws, a rectified law (flat at first), and an exponential one that saturates
early. Asked of each curve: the saturation point at two deltas, the metric at four times the largest
size, and the asymptote. A saturation point that is "not identifiable" is covered when the truth
lies above its lower end.

The test set is simulated in two ways: sampled anew for each run (the errors of the points are then
independent), and, as thresher does it, one test set for all runs of a curve: a row is answered
wrongly where a normal variable falls below a threshold, and 80 % of that variable's variance
belongs to the row, the rest to the run (probit model). The points then err together, by the luck of
the test rows, which the fit gets as `test_stderr`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from machine import machine
from scipy.stats import norm

from thresher.evaluation.laws import N_PARAMETERS, fit_law
from thresher.evaluation.saturation import fit_curve

SIZES = np.array([50, 100, 200, 400, 800, 1600.0])
N_SEEDS, N_TEST, SEED_SD, FAR = 3, 500, 0.01, 6400
ROW_SHARE = 0.8  # of the variance that decides whether a row is answered wrongly
TRUTHS = {
    "power, exponent 0.5": lambda n: 0.08 + 1.2 * n**-0.5,
    "power, exponent 0.3": lambda n: 0.12 + 0.8 * n**-0.3,
    "rectified": lambda n: 0.10 + 12 / (40 + n**0.75),
    "exponential": lambda n: 0.12 + 0.25 * np.exp(-n / 300),
}

OUTSIDE = {  # of the four laws: as much for every doubling, without an end in sight
    "straight on a log scale, 2.5 points a doubling": lambda n: np.maximum(0.6 - 0.025 * np.log2(n / 50), 0.02),
}


def true_saturation(truth, delta: float) -> float:
    """Return the last size at which a doubling gains delta, by a scan of 400 sizes per doubling."""
    sizes = SIZES[0] * 2.0 ** (np.arange(0, 24 * 400) / 400)
    pays = np.flatnonzero(truth(sizes) - truth(2 * sizes) >= delta)
    return float(sizes[pays[-1]]) if len(pays) else float(SIZES[0])


def simulate(error: np.ndarray, rng: np.random.Generator, *, is_one_test_set: bool) -> np.ndarray:
    """Return the accuracies of runs whose chance of a wrong answer is `error`, of any shape."""
    error = np.clip(error, 0.001, 0.999)
    if not is_one_test_set:
        return 1 - rng.binomial(N_TEST, error) / N_TEST
    of_row = np.sqrt(ROW_SHARE) * rng.normal(size=N_TEST)
    of_run = np.sqrt(1 - ROW_SHARE) * rng.normal(size=(*error.shape, N_TEST))
    return 1 - (of_row + of_run < norm.ppf(error)[..., None]).mean(axis=-1)


def coverage(truth, n_curves: int, seed: int, *, is_one_test_set: bool) -> dict:
    """Return how often the intervals hold the truth, their widths, and the statuses."""
    rng = np.random.default_rng(seed)
    hits: dict[str, list[bool]] = {
        "saturation, delta 0.005": [],
        "saturation, delta 0.02": [],
        "metric": [],
        "asymptote": [],
    }
    statuses: dict[str, int] = {}
    widths, seconds = [], []
    for number in range(n_curves):
        error = rng.normal(truth(SIZES), SEED_SD, (N_SEEDS, len(SIZES)))
        values = simulate(error, rng, is_one_test_set=is_one_test_set)
        last = values[:, -1].mean()
        shared = float(np.sqrt(last * (1 - last) / N_TEST)) if is_one_test_set else 0.0
        began = time.perf_counter()
        fit = fit_curve(list(SIZES), list(values.T), is_higher_better=True, test_stderr=shared, seed=number)
        seconds.append(time.perf_counter() - began)
        for delta in (0.005, 0.02):
            saturation = fit.saturation(delta=delta)
            high = np.inf if saturation.high is None else saturation.high
            hits[f"saturation, delta {delta}"].append(saturation.low <= true_saturation(truth, delta) <= high)
            if delta == 0.02:
                statuses[saturation.status] = statuses.get(saturation.status, 0) + 1
        metric, asymptote = fit.predict(FAR), fit.asymptote()
        hits["metric"].append(metric.low <= 1 - truth(float(FAR)) <= metric.high)
        hits["asymptote"].append(asymptote.low <= 1 - truth(1e15) <= asymptote.high)
        widths.append(metric.high - metric.low)
    return {
        "coverage": {name: round(float(np.mean(covered)), 3) for name, covered in hits.items()},
        "true_saturation": {str(delta): round(true_saturation(truth, delta)) for delta in (0.005, 0.02)},
        "statuses_at_delta_0.02": statuses,
        "median_width_of_metric": round(float(np.median(widths)), 4),
        "seconds_per_curve_with_1000_draws": round(float(np.median(seconds)), 4),
    }


def fit_seconds() -> dict:
    """Return the time of one fit of each law."""
    y, seconds = 0.1 + 1.2 * SIZES**-0.5, {}
    for law in N_PARAMETERS:
        began = time.perf_counter()
        for _ in range(20):
            fit_law(law, SIZES, y[None], np.ones(len(SIZES)))
        seconds[law] = round((time.perf_counter() - began) / 20, 5)
    return seconds


def main() -> None:
    """Simulate, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=int, default=400)
    parser.add_argument("--outside", action="store_true", help="a truth that no law holds: print, and write nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "saturation_coverage.json")
    options = parser.parse_args()
    if options.outside:
        for name, truth in OUTSIDE.items():
            for is_one_test_set in (False, True):
                print(name, coverage(truth, options.curves, seed=0, is_one_test_set=is_one_test_set))
        return
    result = {
        "command": f"python benchmarks/saturation_coverage.py --curves {options.curves}",
        "machine": machine(),
        "nominal": 0.8,
        "curves": options.curves,
        "standard_error_of_a_coverage_of_0.8": round(float(np.sqrt(0.16 / options.curves)), 3),
        "seconds_per_fit": fit_seconds(),
    }
    for key, is_one in (("test set drawn anew", False), ("one test set", True)):
        result[key] = {
            name: coverage(truth, options.curves, 1, is_one_test_set=is_one) for name, truth in TRUTHS.items()
        }
        for name, entry in result[key].items():
            print(key, name, entry["coverage"], entry["statuses_at_delta_0.02"], flush=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
