"""Does selection help on answers? Every selector against random and length, GSM8K.

    python benchmarks/selection_helps.py --data PATH
    python benchmarks/selection_helps.py --markdown     # the tables of docs/selection.md

The toy language model `tiny` learns answers of GSM8K (loss per token). 1,000 rows are the pool, 200
the test set. For each method, budget and seed an adapter is trained on what the method chose, and
all are judged on the same test rows; the difference to random and to length is paired by seed and
row, with the interval and Holm's correction that `compare` uses (for the number of verdicts at
equal rows, or at equal tokens). Rows with labels have `selection_labels.py` and `auto.py`; they can
be run here too (`--sets banking77,ae110k-attributes`, MiniLM with LoRA).

Equal rows: 5, 10 and 30 % of the pool, as many optimizer steps for all. Equal tokens: rows until
the next would exceed 5, 10 and 30 % of the pool's tokens, as many epochs for all, so that all sides
read as much.

Finished cells are kept in the cache, so a killed run goes on. `perplexity`, `difficulty` and
`learnability` ask that toy, and `delift` compares embeddings. Methods that aim need a target and
are left out, and so is `confidence` of written answers, which has a benchmark of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import real_tasks
from machine import machine

import thresher as th
from thresher.evaluation.effect import adjust_p_values, describe_effect, estimate_effect
from thresher.evaluation.metric import find_unit
from thresher.experiments.cells.cell import Cell, Outcome
from thresher.experiments.experiment import load_experiment
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.settings import MethodExperimentSettings
from thresher.features import FeatureContext, compute
from thresher.selectors import available

N_POOL, N_TEST = 1000, 500
BASELINES = ("random", "length")
OF_ROWS = ("random", "length", "stratified", "k-center", "facility-location", "deft-ucs", "herding", "delift")
OF_COVER = ("graph-cut", "saturated-coverage", "feature-based", "max-coverage")
OF_MODELS = ("perplexity", "difficulty", "learnability", "quality-diversity", "novelty")
SETTINGS = {
    "delift": {"kernel": "embedding"},
    "quality-diversity": {"quality": "loss", "prefer": "low"},
    "stratified": {"by": "label"},
}
EQUAL = ("rows", "tokens")

Chosen = dict[tuple[str, str, int], Cell]  # by method, budget and seed


def task(name: str, folder: Path) -> tuple[th.Dataset, th.Dataset, dict]:
    """Return pool, test and options of a task."""
    pool, test, options = real_tasks.TASKS[name](folder)
    return pool.take(np.arange(min(N_POOL, len(pool)))), test.take(np.arange(min(N_TEST, len(test)))), options


def list_methods(pool: th.Dataset) -> list[str]:
    """Return the methods that fit the rows and are installed."""
    there = [name for name in (*OF_ROWS, *OF_COVER, *OF_MODELS) if name in available()]
    return there if pool.kind == "classification" else [name for name in there if name != "stratified"]


def choose_cells(runner: ExperimentRunner, methods: list[str], shares: list[float], seeds: int, equal: str) -> Chosen:
    """Return the cells: what each method picks for each budget and seed."""
    pool = runner.experiment.pool
    lengths = compute(pool, {"length"}, FeatureContext())["length"]
    cells: Chosen = {}
    for share in shares:
        budget = round(share * len(pool)) if equal == "rows" else f"{round(share * lengths.sum())}tok"
        for method in methods:
            is_fixed = False
            for seed in range(seeds):
                if seed == 0 or not is_fixed:
                    began = time.monotonic()
                    subset = th.select(
                        pool,
                        method,
                        budget=budget,
                        settings=SETTINGS.get(method),
                        seed=seed,
                        order="rank",
                        encoder="static",
                        model="tiny",
                    )
                    spent = time.monotonic() - began
                    is_fixed = not subset.manifest.content["depends_on_seed"]
                cells[method, f"{share:.0%}", seed] = Cell(
                    method=method, n_rows=len(subset), seed=seed, rows=subset.kept, select_seconds=round(spent, 3)
                )
    return cells


def run(runner: ExperimentRunner, cells: Chosen) -> dict[tuple[str, str, int], Outcome]:
    """Return what came of the cells; finished ones come from the cache."""
    names, outcomes = list(cells), {}
    for index, outcome in runner.worker_pool.run(runner.experiment, [cells[name] for name in names]):
        outcomes[names[index]] = outcome
        if outcome.reason is not None:
            print(f"  {names[index]} failed: {outcome.reason}", flush=True)
    return outcomes


def compare_groups(
    runner: ExperimentRunner, cells: Chosen, outcomes: dict[tuple[str, str, int], Outcome]
) -> list[dict]:
    """Return mean, rows and the paired differences to both baselines of each method and budget."""
    metric = runner.experiment.metric
    values: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    weights = None
    for (method, budget, seed), outcome in outcomes.items():
        if outcome.outcomes is not None:
            values.setdefault((method, budget), {})[seed] = metric.per_row(outcome.outcomes)
            weights = metric.weights(outcome.outcomes)
    asked = [(m, b, base) for m, b in values for base in BASELINES if m != base and (base, b) in values]
    effects = {}
    for method, budget, base in asked:
        ours, theirs = values[method, budget], values[base, budget]
        both = sorted(set(ours) & set(theirs))
        if len(both) >= 2:
            sides = (np.stack([side[seed] for seed in both]) for side in (ours, theirs))
            effects[method, budget, base] = estimate_effect(
                *sides, weights, is_higher_better=metric.is_higher_better, n_tests=len(asked)
            )
    adjusted = dict(zip(effects, adjust_p_values([effect.p for effect in effects.values()]), strict=True))
    rows = []
    for method, budget in values:
        mine = [cells[name] for name in cells if name[:2] == (method, budget)]
        scores = [metric.measure(outcomes[name].outcomes).value for name in outcomes if name[:2] == (method, budget)
                  and outcomes[name].outcomes is not None]  # fmt: skip
        against = {
            base: {
                **asdict(effects[method, budget, base]),
                "p_holm": adjusted[method, budget, base],
                "verdict": describe_effect(
                    effects[method, budget, base], adjusted[method, budget, base], find_unit(metric.name)
                ),
            }
            for base in BASELINES
            if (method, budget, base) in effects
        }
        rows.append(
            {
                "method": method,
                "budget": budget,
                "rows": float(np.mean([cell.n_rows for cell in mine])),
                "value": float(np.mean(scores)),
                "select_seconds": float(np.mean([cell.select_seconds for cell in mine])),
                "against": against,
            }
        )
    return rows


def measure(name: str, options: argparse.Namespace, equal: str) -> dict:
    """Return the verdicts of one task."""
    pool, test, settings = task(name, options.data)
    began = time.monotonic()
    asked = MethodExperimentSettings(
        settings=settings.get("settings", th.TrainSettings(eval_generations=0)),
        overlap="drop",
        method_settings=SETTINGS,
        encoder="static",
        workers=options.workers,
    )
    runner = ExperimentRunner.open(load_experiment(pool, eval=test, settings=asked), asked)
    with runner:
        methods = list_methods(pool) if options.methods is None else options.methods.split(",")
        shares = [float(part) / 100 for part in options.budgets.split(",")]
        cells = choose_cells(runner, methods, shares, options.seeds, equal)
        experiment, outcomes = runner.experiment, {}
        for share in shares:
            part = {key: cell for key, cell in cells.items() if key[1] == f"{share:.0%}"}
            if equal == "rows":
                runner.set_equal_steps(round(share * len(experiment.pool)))
            outcomes |= run(runner, part)
            print(
                f"  {name}, equal {equal}, {share:.0%}: {len(part)} cells, {time.monotonic() - began:.0f} s", flush=True
            )
        runner.experiment = replace(experiment)
        verdicts = compare_groups(runner, cells, outcomes)
    return {
        "metric": experiment.metric.name,
        "pool_rows": len(experiment.pool),
        "test_rows": len(experiment.test),
        "seeds": options.seeds,
        "options": {"budgets": options.budgets, "methods": options.methods},
        "date": machine()["date"],
        "train_seconds": round(sum(outcome.facts.get("train_seconds", 0) for outcome in outcomes.values()), 1),
        "failed": sum(outcome.reason is not None for outcome in outcomes.values()),
        "verdicts": verdicts,
    }


def table(result: dict) -> str:
    """Return the verdicts of one task as text."""
    lines = [f"  {'budget':<7}{'method':<20}{'rows':>7}{result['metric']:>10}  against random | against length"]
    for row in sorted(result["verdicts"], key=lambda row: (float(row["budget"][:-1]), row["method"])):
        verdicts = " | ".join(row["against"].get(base, {}).get("verdict", "-") for base in BASELINES)
        lines.append(f"  {row['budget']:<7}{row['method']:<20}{row['rows']:>7.0f}{row['value']:>10.4f}  {verdicts}")
    return "\n".join(lines)


def cell_text(row: dict, sign: int) -> str:
    """Return mean, difference to random with its interval (above 0: better), and verdict."""
    against = row["against"].get("random")
    if against is None:
        return f"{row['value']:.3f}"
    verdict = against["verdict"].split()[0]
    mark = f" **{verdict}**" if verdict in ("better", "worse") else ""
    low, high = sorted(sign * against[end] for end in ("low", "high"))
    return f"{row['value']:.3f}: {sign * against['value']:+.3f} [{low:+.3f}, {high:+.3f}]{mark}"


def markdown(result: dict) -> str:
    """Return a table for each task and way of being fair: methods by gain, budgets side by side."""
    lines = []
    for name, ways in result["tasks"].items():
        for equal, task_result in ways.items():
            rows = {(row["method"], row["budget"]): row for row in task_result["verdicts"]}
            budgets = sorted({budget for _, budget in rows}, key=lambda budget: int(budget[:-1]))
            sign = -1 if task_result["metric"] == "loss" else 1

            def gain(method: str) -> float:
                of = [rows[method, budget]["against"].get("random", {"value": 0.0}) for budget in budgets]  # noqa: B023
                return sum(each["value"] for each in of)

            methods = sorted({method for method, _ in rows}, key=lambda method: (method != "random", -gain(method)))
            lines += [f"#### {name}, equal {equal}: {task_result['metric']}", "", f"| method | {' | '.join(budgets)} |"]
            lines.append("|---" * (len(budgets) + 1) + "|")
            for method in methods:
                cells = [cell_text(rows[method, budget], sign) for budget in budgets]
                lines.append(f"| `{method}` | {' | '.join(cells)} |")
            lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run every task both ways, print the tables, and write the result after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--markdown", action="store_true", help="print the tables of --out, and measure nothing")
    parser.add_argument("--sets", default="gsm8k-sft", help=f"with commas: {', '.join(real_tasks.TASKS)}")
    parser.add_argument("--methods", help="with commas; not set: all that fit")
    parser.add_argument("--budgets", default="5,10,30", help="percent")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--equal", default=",".join(EQUAL))
    parser.add_argument("--add", action="store_true", help="to the tasks and ways that --out holds")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "selection_helps.json")
    options = parser.parse_args()
    if options.markdown:
        print(markdown(json.loads(options.out.read_text())))
        return
    if options.data is None:
        parser.error("--data is required")
    result = {
        "command": "python benchmarks/selection_helps.py --data PATH [options]",
        "machine": machine("torch", "transformers", "peft"),
        "tasks": {},
    }
    if options.out.exists() and options.add:
        result["tasks"] = json.loads(options.out.read_text())["tasks"]
    for name in options.sets.split(","):
        for equal in options.equal.split(","):
            measured = measure(name, options, equal)
            print(f"{name}, equal {equal}\n{table(measured)}", flush=True)
            result["tasks"].setdefault(name, {})[equal] = measured
            options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
