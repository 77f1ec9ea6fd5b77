"""Does what the demo says of how many rows agree with the score measured on the whole pool?

    make demo                                        # leaves out/demo/labels
    python benchmarks/demo_answer.py --advice out/demo/labels

Reads the advice that the first call of `make demo` wrote, trains on all rows of its clean pool with
each seed (four minutes each on a quiet core; finished ones are kept, and a killed run goes on), and
holds what was said against it: the score that was foretold for all rows where one was, and whether
few rows were called enough although the whole pool is better by more than the tolerance.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from machine import machine

import thresher as th
from thresher.experiments.experiment import load_experiment
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.settings import BASELINE, CurveSettings

DATA = Path(__file__).parent.parent / "data" / "products"


def measure_whole_pool(clean: th.Dataset, n_seeds: int) -> list[float]:
    """Return the score of training on all rows with each seed, as the demo trains."""
    settings = CurveSettings(settings=th.TrainSettings(min_steps=40), overlap="drop", base="none", workers=1)
    experiment = load_experiment(clean, eval=DATA / "test.jsonl", settings=settings, on_progress=show)
    with ExperimentRunner.open(experiment, settings, show) as runner:
        names = [(BASELINE, len(clean), seed) for seed in range(n_seeds)]
        values = runner.run(names, largest=len(clean))
        runner.require_results()
    return [float(values[name]) for name in names]


def show(event) -> None:
    """Print the notes."""
    if event.note:
        print(event.note, flush=True)


def judge(advice: dict, curve: dict | None, trained: float, whole: list[float], n_test: int) -> dict:
    """Return what was said, what is true, and whether they agree.

    The mean over seeds errs by its seeds, and by the test rows where it is compared with a score on
    other test rows; here they are the same, so that only the seeds count.
    """
    mean, foretold = float(np.mean(whole)), advice["rows"]["whole_pool"]
    said = None if curve is None else (curve["methods"].get(advice["method"]) or curve["methods"][BASELINE])["enough"]
    gap = mean - trained
    result = {
        "answer": next(each["answer"] for each in advice["answers"] if each["question"] == "How many?"),
        "rows": advice["rows"]["n"],
        "score_of_these_rows": trained,
        "whole_pool": {"rows": advice["pool"]["clean"], "values": whole, "mean": round(mean, 4)},
        "more_by_all_rows": round(gap, 4),
        "test_rows": n_test,
        "verdict": None if said is None else said["verdict"],
    }
    if foretold is not None and foretold["score"] is not None:
        result["foretold"] = foretold
        result["is_in_interval"] = bool(foretold["score"]["low"] <= mean <= foretold["score"]["high"])
    # the fault that this guards against: few rows called enough where all rows are far better
    is_wrong = said is not None and said["verdict"] == "enough"
    result["is_called_enough_and_far_worse"] = bool(is_wrong and gap > 2 * said["within"])
    return result


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--advice", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "demo_answer.json")
    options = parser.parse_args()
    folder, clean = options.advice, th.open(options.advice / "clean").dataset
    whole = measure_whole_pool(clean, options.seeds)
    saturation = folder / "curve" / "saturation.json"
    curve = json.loads(saturation.read_text()) if saturation.is_file() else None
    metrics = json.loads((folder / "adapter" / "metrics.json").read_text())
    held_out = metrics["held_out"]["accuracy"]
    result = judge(
        json.loads((folder / "advice.json").read_text()), curve, held_out["value"], whole, int(held_out["n"])
    )
    command = f"python benchmarks/demo_answer.py --advice out/demo/labels --seeds {options.seeds}"
    result |= {"command": command, "machine": machine("torch")}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
