"""Do single methods beat random rows on labeled data? Twenty cells, redrawn pools, paired.

    python benchmarks/selection_labels.py --data PATH --work FOLDER    # resumable
    python benchmarks/selection_labels.py --work FOLDER --summary      # writes the result
    python benchmarks/selection_labels.py --markdown                   # for docs/selection.md

The data, pools, budgets and test rows are those of `auto.py`, and so is the judge: a logistic
regression on the frozen mean-pooled vectors of MiniLM, while methods choose with static embeddings
and those that read a language model read the toy `tiny`. Each method has its default settings but
for the few in `SETTINGS`. A cell is better or worse where the 95 % interval of its accuracy less
that of as many random rows, over pools and test rows, has no zero in it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import auto
import learner
import numpy as np
from machine import machine

import thresher as th
from thresher.selectors.pilot.student import rate_predictions

OF_ROWS = ("random", "prototypes", "stratified", "uncertainty-coverage", "facility-location", "delift", "k-center")
OF_ROWS += ("herding", "deft-ucs", "confidence", "graph-cut", "saturated-coverage", "feature-based", "max-coverage")
OF_MODELS = ("length", "perplexity", "difficulty", "quality-diversity", "novelty", "learnability")
SETTINGS = {
    "delift": {"kernel": "embedding"},
    "quality-diversity": {"quality": "loss", "prefer": "low"},
    "stratified": {"by": "label"},
}
RESULT = Path(__file__).parent / "results/selection_labels.json"


def choose(pool: th.Dataset, method: str, share: float, seed: int) -> th.Dataset:
    """Return what a method chooses, in the order of the pool."""
    options = {"settings": SETTINGS.get(method), "seed": seed, "order": "rank", "encoder": "static", "model": "tiny"}
    return pool.take(np.sort(th.select(pool, method, budget=round(share * len(pool)), **options).kept))


def run(options: argparse.Namespace) -> None:
    """Run what is missing, a file of accuracies by test row for each set, method and pool."""
    options.work.mkdir(parents=True, exist_ok=True)
    for name in auto.NAMES:
        rows, test = auto.load_task(name, options.data)
        at, x, held_out = auto.embed_all(name, rows, test, options.work)
        truth = test.frame["response"].to_numpy()
        for seed in range(options.draws):
            pool = auto.draw_pool(rows, seed)
            for method in options.methods:
                path = options.work / f"{name}-{method}-{seed}.json"
                if path.is_file():
                    continue
                began, said = time.process_time(), {}
                for share in auto.SHARES:
                    train = choose(pool, method, share, seed)
                    vectors = x[[at[row_id] for row_id in train.frame["row_id"]]]
                    said[share] = learner.run_probe(train, vectors, held_out)
                names, code = np.unique(np.concatenate([truth, *said.values()]), return_inverse=True)
                parts = dict(zip(("truth", *said), np.split(code.reshape(-1), 1 + len(said)), strict=True))
                grades = {share: rate_predictions(parts[share], parts["truth"]) for share in said}
                content = {
                    str(share): {metric: getattr(grade, metric).tolist() for metric in ("accuracy", "macro_f1")}
                    for share, grade in grades.items()
                }
                spent = round(time.process_time() - began, 1)
                print(name, method, seed, spent, f"{grades[0.1].accuracy.mean():.3f}", flush=True)
                path.with_suffix(".partial").write_text(json.dumps(content))
                path.with_suffix(".partial").replace(path)


def summarize(work: Path) -> dict:
    """Return the difference to random rows of each method, set and share."""
    entries = []
    for name in auto.NAMES:
        for method in (*OF_ROWS[1:], *OF_MODELS):
            seeds = [s for s in range(auto.SEEDS) if (work / f"{name}-{method}-{s}.json").is_file()]
            sides = [
                [json.loads((work / f"{name}-{m}-{s}.json").read_text()) for s in seeds] for m in (method, "random")
            ]
            for share in map(str, auto.SHARES if len(seeds) > 1 else ()):
                entry = {"set": name, "share": float(share), "method": method, "seeds": len(seeds)}
                for metric in ("accuracy", "macro_f1"):
                    ours, theirs = (np.array([cell[share][metric] for cell in side]) for side in sides)
                    entry[metric], entry[f"random_{metric}"] = float(ours.mean()), float(theirs.mean())
                    entry[f"{metric}_to_random"] = {k: float(v) for k, v in auto.estimate(ours, theirs).items()}
                entries.append(entry)
    return {"machine": machine("numpy", "scikit-learn"), "settings": SETTINGS, "entries": entries}


def format_markdown(content: dict) -> str:
    """Return a line for each method: mean difference by set, and in how many cells it is better."""
    titles = ("products", "Banking77", "AE-110k", "AG News", "ChemProt")
    lines = ["| method | " + " | ".join(titles) + " | accuracy: better, worse | macro-F1: better, worse |"]
    lines.append("|---|" + "---|" * (len(titles) + 2))
    drawn = []
    for method in dict.fromkeys(entry["method"] for entry in content["entries"]):
        mine = [entry for entry in content["entries"] if entry["method"] == method]
        shown, means = [], []
        for name in auto.NAMES:
            gaps = [100 * e["accuracy_to_random"]["value"] for e in mine if e["set"] == name]
            shown.append(f"{np.mean(gaps):+.1f}" if gaps else "")
            means += gaps
        for metric in ("accuracy", "macro_f1"):
            gaps = [e[f"{metric}_to_random"] for e in mine]
            better, worse = sum(d["low"] > 0 for d in gaps), sum(d["high"] < 0 for d in gaps)
            shown.append(f"{better}, {worse}" + ("" if len(gaps) == 20 else f" of {len(gaps)}"))
        drawn.append((-float(np.mean(means)), f"| `{method}` | " + " | ".join(shown) + " |"))
    return "\n".join([*lines, *(line for _, line in sorted(drawn))])


def main() -> None:
    """Run what is missing, summarize what is done, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--methods", type=lambda text: tuple(text.split(",")), default=(*OF_ROWS, *OF_MODELS))
    parser.add_argument("--draws", type=int, default=auto.SEEDS, help="pools of each set")
    parser.add_argument("--summary", action="store_true", help="write the result of what is there")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    if options.markdown:
        print(format_markdown(json.loads(RESULT.read_text())))
        return
    if not options.summary:
        run(options)
    RESULT.write_text(json.dumps(summarize(options.work), indent=1) + "\n")


if __name__ == "__main__":
    main()
