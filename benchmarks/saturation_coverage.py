"""Do the 80 % intervals of "how many rows are enough" hold the truth in 80 of 100 simulated curves?

    python benchmarks/saturation_coverage.py     # 400 curves of each truth and noise

Sizes 50..3200, three seeds, one test set for all runs of a curve, as in use. Asked of each curve:
the fewest rows whose score is within one point of that of 3,200. A row is answered wrongly where a
normal variable falls below a threshold: 70 % of its variance belongs to the row, 10 % to row and
size together (what a size knows of a row stays known, so that near sizes agree), 20 % to the run.

`--adaptive 20` also runs the adaptive mode on 20 curves of each truth and noise (400 test rows, up
to five seeds): the share of the full grid's cost that its answer takes, and whether it is right.

`--outside` adds truths that none of the laws holds: learned in two phases (which led to the law
with a break, and set `CAUTION`, so it no longer judges these), two phases of which the first is an
S, an S alone, as much for every doubling with a sudden end, and no gain at all. Results are kept
truth by truth, and a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from curves_linear import N_SEEN, run_adaptive
from machine import machine
from scipy.stats import norm

from thresher.evaluation.curves.curve_fit import fit_curve
from thresher.evaluation.curves.enough import judge
from thresher.evaluation.curves.interval import summarize_samples
from thresher.evaluation.curves.row_noise import estimate_test_covariance
from thresher.experiments.settings import CurveSettings

SIZES = 50 * 2 ** np.arange(7.0)
N_SEEDS, WITHIN, N_SAMPLES = 3, 0.01, 400
# test rows, and spread between seeds
NOISES = {"quiet": (2000, 0.005), "usual": (500, 0.01), "loud": (300, 0.02)}
OF_ROW, OF_ROW_AND_SIZE, OF_RUN = 0.7, 0.1, 0.2
TRUTHS = {
    "power, exponent 0.5": lambda n: 0.08 + 1.2 * n**-0.5,
    "power, exponent 0.3": lambda n: 0.12 + 0.8 * n**-0.3,
    "rectified": lambda n: 0.10 + 12 / (40 + n**0.75),
    "exponential": lambda n: 0.12 + 0.25 * np.exp(-n / 300),
    "logarithmic": lambda n: 0.6 - 0.025 * np.log2(n / 50),
}
OUTSIDE = {
    "two phases": lambda n: 0.05 + 0.3 * n**-0.15 + 0.5 * np.exp(-n / 150),
    "two phases, the first an S": lambda n: 0.04 + 0.35 * n**-0.2 + 0.4 / (1 + (n / 250) ** 2),
    "S": lambda n: 0.1 + 0.4 / (1 + (n / 400) ** 2),
    "logarithmic, sudden end": lambda n: 0.2 + np.maximum(0, 0.05 * np.log2(900 / n)),
    "no gain": lambda n: 0.2 + 0 * n,
}


def find_truth(truth) -> float:
    """Return the fewest rows within the tolerance, by a scan of 8,000 sizes."""
    sizes = np.geomspace(SIZES[0], SIZES[-1], 8000)
    return float(sizes[np.flatnonzero(truth(sizes) - truth(SIZES[-1]) <= WITHIN)[0]])


def simulate(truth, n_test: int, seed_sd: float, rng: np.random.Generator, *, n_seeds: int = N_SEEDS) -> np.ndarray:
    """Return whether each run answers each row: (seeds, sizes, rows)."""
    chance = np.clip(rng.normal(truth(SIZES), seed_sd, (n_seeds, len(SIZES))), 0.001, 0.999)
    steps = rng.normal(size=(len(SIZES), n_test)) * np.sqrt(OF_ROW_AND_SIZE / (len(SIZES) - 1))
    shared = np.sqrt(OF_ROW) * rng.normal(size=n_test) + np.cumsum(steps, axis=0)
    values = shared + np.sqrt(OF_RUN) * rng.normal(size=(*chance.shape, n_test))
    steps_so_far = np.arange(1, len(SIZES) + 1) * OF_ROW_AND_SIZE / (len(SIZES) - 1)
    spread = np.sqrt(OF_ROW + OF_RUN + steps_so_far)
    return values >= norm.ppf(chance)[..., None] * spread[:, None]


def measure(truth, n_test: int, seed_sd: float, n_curves: int) -> dict:
    """Return how often the interval holds the truth, on which side it misses, and the verdicts."""
    rng, right, lines = np.random.default_rng(1), find_truth(truth), []
    for number in range(n_curves):
        correct = simulate(truth, n_test, seed_sd, rng).astype(float)
        by_size = [correct[:, place] for place in range(len(SIZES))]
        fit = fit_curve(
            [int(size) for size in SIZES],
            [list(runs.mean(axis=1)) for runs in by_size],
            is_higher_better=True,
            test_covariance=estimate_test_covariance(by_size),
            n_samples=N_SAMPLES,
            seed=number,
        )
        rows = summarize_samples(fit.sampled_enough_sizes(WITHIN, SIZES[-1]))
        lines.append((judge(fit, WITHIN, of=int(SIZES[-1])), np.floor(rows.low), rows.median, np.ceil(rows.high)))
    verdicts = np.array([line[0] for line in lines])
    low, median, high = (np.array([line[place] for line in lines]) for place in (1, 2, 3))
    return {
        "truth": round(right),
        "coverage": round(float(np.mean((low <= right) & (right <= high))), 3),
        "truth_above": round(float(np.mean(right > high)), 3),
        "truth_below": round(float(np.mean(right < low)), 3),
        "verdicts": {name: round(float(np.mean(verdicts == name)), 3) for name in ("enough", "all", "cannot tell")},
        "enough_and_twice_too_small": round(float(np.mean((verdicts == "enough") & (right > 2 * median))), 3),
        "all_and_half_is_enough": round(float(np.mean((verdicts == "all") & (right <= SIZES[-1] / 2))), 3),
    }


class SimulatedPool:
    """Runs that are simulated, in the place of a learner on a pool."""

    def __init__(self, correct: np.ndarray) -> None:
        """Take (seeds, sizes, rows)."""
        self.correct = correct

    def is_correct(self, n_rows: int, seed: int) -> np.ndarray:
        """Return whether a run answers each row."""
        return self.correct[seed, int(np.flatnonzero(n_rows == SIZES)[0])]


def measure_adaptive(truth, seed_sd: float, n_curves: int) -> dict:
    """Return what the adaptive mode spends of the grid's cost, and how right its answers are."""
    rng, right, answers = np.random.default_rng(2), find_truth(truth), []
    for _ in range(n_curves):
        correct = simulate(truth, N_SEEN, seed_sd, rng, n_seeds=CurveSettings().seeds)
        answers.append(run_adaptive(SimulatedPool(correct), int(SIZES[-1]), [int(size) for size in SIZES]))
    shares = [answer["cost_share"] for answer in answers]
    verdicts = [answer["verdict"] for answer in answers]
    return {
        "mean_cost_share": round(float(np.mean(shares)), 3),
        "largest_cost_share": max(shares),
        "coverage": round(float(np.mean([a["low"] <= right <= a["high"] for a in answers])), 3),
        "verdicts": {name: round(verdicts.count(name) / n_curves, 3) for name in ("enough", "all", "cannot tell")},
        "enough_and_twice_too_small": sum(a["verdict"] == "enough" and right > 2 * a["rows"] for a in answers),
    }


def main() -> None:
    """Simulate, print, and write the result after each truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=int, default=400)
    parser.add_argument("--outside", action="store_true", help="also truths that no law holds")
    parser.add_argument("--adaptive", type=int, default=0, help="curves of each kind for the adaptive mode")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "saturation_coverage.json")
    options = parser.parse_args()
    result = json.loads(options.out.read_text()) if options.out.is_file() else {}
    if result.get("curves") != options.curves or "inside" not in result:
        result = {"curves": options.curves, "inside": {}, "outside": {}}
    words = f"--curves {options.curves}{' --outside' * options.outside}"
    words += f" --adaptive {options.adaptive}" if options.adaptive else ""
    result |= {
        "command": f"python benchmarks/saturation_coverage.py {words}",
        "machine": machine(),
        "nominal": 0.8,
        "standard_error_of_a_coverage_of_0.8": round(float(np.sqrt(0.16 / options.curves)), 3),
    }
    for part, truths in (("inside", TRUTHS), ("outside", OUTSIDE if options.outside else {})):
        for name, truth in truths.items():
            for noise, (n_test, seed_sd) in NOISES.items():
                key = f"{name}; {noise}: {n_test} test rows, seeds {seed_sd}"
                if key not in result[part]:
                    result[part][key] = measure(truth, n_test, seed_sd, options.curves)
                    options.out.write_text(json.dumps(result, indent=1) + "\n")
                    print(key, result[part][key], flush=True)
    if options.adaptive and result.get("adaptive_curves") != options.adaptive:
        result |= {"adaptive_curves": options.adaptive, "adaptive": {}}
    for name, truth in TRUTHS.items() if options.adaptive else ():
        for noise, (_, seed_sd) in NOISES.items():
            key = f"{name}; {noise}: {N_SEEN} test rows, seeds {seed_sd}"
            if key not in result["adaptive"]:
                result["adaptive"][key] = measure_adaptive(truth, seed_sd, options.adaptive)
                options.out.write_text(json.dumps(result, indent=1) + "\n")
                print(key, result["adaptive"][key], flush=True)


if __name__ == "__main__":
    main()
