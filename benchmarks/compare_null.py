"""Are verdicts of `compare` right: equal methods called different, and true gains found?

    python benchmarks/compare_null.py               # about 15 minutes on one core
    python benchmarks/compare_null.py --rows-only --seed 19 --seeds 3 --cases drawn fixed
    python benchmarks/compare_null.py --theory      # seconds

Theory: mean squares of rows, seeds and residual are drawn from their chi-squared distributions, for
variances of seeds from none to forty times the rest; reported is the largest share of equal methods
that is called different, without and with the widening for few seeds (`find_widening`), 5,000
draws each. The widening follows from these distributions, and not from the rows below.

Real rows: 2,000 of the embedded product listings are the pool, 500 of its test set judge, anew in
each of 400 comparisons. Two methods that are equal choose 10 %: `drawn` anew with each seed, or
`fixed`, each by its own fixed order of all rows, as a method that does not draw. Each seed draws 80
% of the pool to choose from, as `compare` does, and the interval is widened by what the choices of
two seeds have in common; beside it, `fixed` without the widening, and from the whole pool with each
seed. The learner is a logistic regression on static embeddings by a few passes of stochastic
gradient descent, which has luck of its own.

Outcomes are simulated, because 200 comparisons of trained models would take weeks: each test row
has a difficulty, each run a level of its own and its own luck with each row (probit). Null: two
methods without a difference, 200 times. Power: a pilot of a few seeds asks `estimate_seeds_needed`
for a gain of two points; as many seeds are run on the same test rows with a planted gain of two
points, 200 times.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from machine import machine
from scipy import stats
from sklearn.linear_model import SGDClassifier

import thresher as th
from thresher.evaluation.effect import LEVEL, MUCH_SHARED, estimate_effect, estimate_seeds_needed, find_widening
from thresher.experiments.paired_runs import estimate_overlap
from thresher.features import FeatureContext, compute
from thresher.models.settings import ModelSettings
from thresher.numeric.vectors import unit_rows

GAIN = 0.02
SPREAD, LUCK = 1.0, 0.8  # of row difficulties, and of a run on a row
NULLS = [(rows, level) for rows in (300, 1000) for level in (0.0, 0.05, 0.2)]
N_POOL, N_CHOSEN, N_TEST, REDRAW = 2000, 200, 500, 0.8
CASES = {  # how the methods choose, share of the pool that each seed draws, whether it is corrected
    "drawn": (False, REDRAW, True),
    "fixed": (True, REDRAW, True),
    "fixed, not corrected": (True, REDRAW, False),
    "fixed, whole pool": (True, 1.0, False),
}
PILOTS = [(2, 1000, 0.05), (3, 1000, 0.05), (3, 2000, 0.1), (5, 2000, 0.1)]


def runs(rng: np.random.Generator, difficulty: np.ndarray, *, seeds: int, level: float, shift: float = 0.0):
    """Return which rows each run gets right: (seeds, rows)."""
    latent = difficulty + rng.normal(0, level, (seeds, 1)) + rng.normal(0, LUCK, (seeds, len(difficulty)))
    return (latent + shift > 0).astype(float)


def find_shift(gain: float) -> float:
    """Return the latent shift whose mean gain over rows is `gain`, by bisection on a sample."""
    rng = np.random.default_rng(0)
    latent = rng.normal(1, SPREAD, 400_000) + rng.normal(0, LUCK, 400_000)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if ((latent + middle > 0).mean() - (latent > 0).mean()) < gain else (low, middle)
    return low


def null(seeds: int, rows: int, level: float, repeats: int, seed: int) -> dict:
    """Return how often equal methods are called different."""
    rng, called, covered = np.random.default_rng([1, seed]), [], []
    for _ in range(repeats):
        difficulty = rng.normal(1, SPREAD, rows)
        sides = [runs(rng, difficulty, seeds=seeds, level=level) for _ in range(2)]
        effect = estimate_effect(*sides, is_higher_better=True)
        called.append(effect.p < LEVEL)
        covered.append(effect.low <= 0 <= effect.high)
    place = {"seeds": seeds, "test_rows": rows, "level_sd": level}
    return place | {"called_different": float(np.mean(called)), "interval_holds_zero": float(np.mean(covered))}


def worst_case(seeds: int, shared: float, n: int = 500, draws: int = 5_000) -> dict:
    """Return the largest share of false alarms over the variances of seeds, by theory."""
    rng = np.random.default_rng([4, seeds])
    rest = rng.chisquare((n - 1) * (seeds - 1), draws) / ((n - 1) * (seeds - 1))
    row, luck = rng.chisquare(n - 1, draws) / (n - 1), rng.chisquare(seeds - 1, draws) / (seeds - 1)
    counted = 1 + seeds * shared / (1 - shared)
    called = {"plain": [], "widened": []}
    widening = find_widening(1.0, 1.0, n_seeds=seeds, n=n, shared=shared)
    for ratio in np.geomspace(1, 40, 25):
        seen = ratio * luck
        seed = seen + np.maximum(seen - rest, 0) * (counted - 1)
        stderr = np.sqrt(np.maximum(np.maximum(row + seed - rest, row), seed))
        is_raised = (shared > MUCH_SHARED) & (seed < rest)
        part = np.where(is_raised, rest, seed)
        total = row + part - rest
        dof = total**2 / (row**2 / (n - 1) + part**2 / (seeds - 1) + rest**2 / ((n - 1) * (seeds - 1)))
        is_one = (total <= np.maximum(row, part)) & ~is_raised
        dof = np.where(is_one, np.where(row >= part, n - 1, seeds - 1), np.maximum(1, dof))
        reach = stats.t.ppf(1 - LEVEL / 2, dof) * stderr / np.sqrt(1 + (ratio - 1) * counted)
        called["plain"].append((2 * stats.norm.sf(reach)).mean())
        called["widened"].append((2 * stats.norm.sf(widening * reach)).mean())
    place = {"seeds": seeds, "shared": shared, "widening": widening}
    return place | {name: float(max(values)) for name, values in called.items()}


def tell_theory(out: Path) -> None:
    """Compute, print, and write the theory, and keep the rest."""
    result = json.loads(out.read_text())
    result["theory"] = [worst_case(seeds, shared) for seeds in (3, 4, 5) for shared in (0.0, 0.39, 0.78)]
    print(*result["theory"], sep="\n")
    out.write_text(json.dumps(result, indent=1) + "\n")


def load_rows() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return vectors and classes of the product listings: training rows, then test rows."""
    context = FeatureContext(models=ModelSettings(encoder="static")).resolved()
    parts, labels = [], []
    for part in ("train", "test"):
        rows = th.load(Path(__file__).parents[1] / f"data/products/{part}.jsonl")
        parts.append(unit_rows(compute(rows, {"embedding"}, context)["embedding"]))
        labels.append(rows.frame["response"].to_numpy().astype(str))
    code = np.unique(np.concatenate(labels), return_inverse=True)[1]
    return parts[0], code[: len(parts[0])], parts[1], code[len(parts[0]) :]


def learn(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, seed: int) -> np.ndarray:
    """Return the predictions of a learner that has luck of its own."""
    model = SGDClassifier(loss="log_loss", alpha=1e-4, max_iter=8, tol=None, random_state=seed)
    return model.fit(x, y).predict(test_x)


def null_of_rows(rows: tuple, repeats: int, seeds: int, first: int, names: list[str]) -> list[dict]:
    """Return how often equal methods on real rows are called different, by case."""
    all_x, all_y, all_test_x, all_test_y = rows
    cases = {case: CASES[case] for case in names}
    called, stderr = {case: [] for case in cases}, {case: [] for case in cases}
    for repeat in range(repeats):
        rng = np.random.default_rng([3 + first, repeat])  # 3: those on which the rule was set
        at, judges = rng.permutation(len(all_x))[:N_POOL], rng.permutation(len(all_test_x))[:N_TEST]
        x, y, test_x, test_y = all_x[at], all_y[at], all_test_x[judges], all_test_y[judges]
        orders = rng.random((2, N_POOL))  # of the methods that do not draw
        for case, (is_fixed, redraw, is_corrected) in cases.items():
            sides, choices = np.empty((2, seeds, N_TEST)), [[], []]
            for seed in range(seeds):
                pool = rng.permutation(N_POOL)[: round(redraw * N_POOL)]
                for side in range(2):
                    value = orders[side][pool] if is_fixed else rng.random(len(pool))
                    chosen = pool[np.argsort(value)[:N_CHOSEN]]
                    choices[side].append(chosen)
                    sides[side, seed] = learn(x[chosen], y[chosen], test_x, seed) == test_y
            shared = float(np.mean([estimate_overlap(each, N_POOL) for each in choices])) if is_corrected else 0.0
            effect = estimate_effect(*sides, is_higher_better=True, shared=shared)
            called[case].append(effect.p < LEVEL)
            stderr[case].append(effect.stderr)
    return [
        {
            "case": case,
            "seeds": seeds,
            "repeats": repeats,
            "called_different": float(np.mean(called[case])),
            "mean_stderr": float(np.mean(stderr[case])),
        }
        for case in cases
    ]


def power(seeds: int, rows: int, level: float, repeats: int, seed: int) -> dict:
    """Return how often a gain of two points is found with as many seeds as a pilot asks for."""
    rng, shift, asked, is_found = np.random.default_rng([2, seed]), find_shift(GAIN), [], []
    for _ in range(repeats):
        difficulty = rng.normal(1, SPREAD, rows)
        pilot = [runs(rng, difficulty, seeds=seeds, level=level) for _ in range(2)]
        needed = estimate_seeds_needed(*pilot, gain=GAIN)
        asked.append(needed)
        if needed is not None:
            ours = runs(rng, difficulty, seeds=needed, level=level, shift=shift)
            effect = estimate_effect(ours, runs(rng, difficulty, seeds=needed, level=level), is_higher_better=True)
            is_found.append(effect.p < LEVEL and effect.value > 0)
    known = [needed for needed in asked if needed is not None]
    return {
        "pilot_seeds": seeds,
        "test_rows": rows,
        "level_sd": level,
        "seeds_asked_for": {"median": float(np.median(known)), "highest": max(known)},
        "said_to_be_out_of_reach": len(asked) - len(known),
        "found": float(np.mean(is_found)),
        "n": len(is_found),
    }


def main() -> None:
    """Simulate, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seeds", default="3,5", help="of the null")
    parser.add_argument("--null-only", action="store_true", help="print the null, and write nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "compare_null.json")
    parser.add_argument("--rows-only", action="store_true", help="measure real rows anew, and keep the rest")
    parser.add_argument("--theory", action="store_true", help="the theory alone, and keep the rest")
    parser.add_argument("--row-repeats", type=int, default=400, help="comparisons on real rows")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="on real rows")
    parser.add_argument("--seed", type=int, default=18, help="of all draws")
    options = parser.parse_args()
    if options.theory:
        tell_theory(options.out)
        return
    if options.rows_only:
        result = json.loads(options.out.read_text())
    else:
        result = {
            "command": f"python benchmarks/compare_null.py --repeats {options.repeats} --seed {options.seed}",
            "machine": machine(),
            "repeats": options.repeats,
            "level": LEVEL,
            "planted_gain": GAIN,
            "null": [
                null(int(seeds), *case, options.repeats, options.seed)
                for seeds in options.seeds.split(",")
                for case in NULLS
            ],
            "power": [] if options.null_only else [power(*case, options.repeats, options.seed) for case in PILOTS],
        }
    if not options.null_only:
        rows = load_rows()
        entries = [
            entry
            for seeds in options.seeds.split(",")
            for entry in null_of_rows(rows, options.row_repeats, int(seeds), options.seed, options.cases)
        ]
        entries = [{"seed": options.seed, **entry} for entry in entries]
        known = result.get("rows_widened", {}).get("entries", ())
        result["rows_widened"] = {
            "machine": machine("scikit-learn"),
            "entries": [entry for entry in known if entry["seed"] != options.seed] + entries,
        }
    for entry in [*result["null"], *result["power"], *result.get("rows_widened", {}).get("entries", ())]:
        print(entry, flush=True)
    if not options.null_only:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
