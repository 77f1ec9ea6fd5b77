"""Is the classifier worth judging with? Probes, the earlier default and the default, paired.

    python benchmarks/learner.py --data PATH --work FOLDER    # banking77, product_attributes, noise
    python benchmarks/learner.py --markdown                   # the tables of docs/train.md

Five data sets: Banking77 intents, which attribute a value of an AE-110k title is, the embedded
product listings, and AG News and ChemProt with the labels of rules (16 and 46 % wrong; their test
rows have the true labels). Each seed draws other training rows, of 100, 300 and 1,000; the test
rows stay. Arms, all on MiniLM and on the same rows:

- `probe mean`, `probe first token`: logistic regression on frozen vectors, the penalty
  cross-validated in the training rows, as the head's start;
- `earlier default`: first token through BERT's pooler, three epochs whatever the rows;
- `default`.

Accuracy and macro-F1 with the difference to `probe mean` and its 95 % interval: a bootstrap over
test rows and seeds together. Texts are cut at 64 tokens. Each run is a line in `FOLDER/runs.jsonl`,
so a killed benchmark goes on, and several processes may share the folder with `--part`.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import real_tasks
import torch
from machine import machine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

import thresher as th
from thresher.dataset import Dataset
from thresher.dataset.own_text.matching import match_rows
from thresher.models.encoders.minilm import minilm_folder
from thresher.trainer.engine.head import choose_penalty
from thresher.trainer.engine.pooling import Pooling
from thresher.trainer.settings import TrainSettings

SIZES = {100: 3, 300: 2, 1000: 2}  # rows -> seeds
N_TEST, MAX_LENGTH, N_RESAMPLES = 400, 64, 4000
POOLINGS = {"probe mean": Pooling(("mean",), is_normalized=True), "probe first token": Pooling(("cls",))}
TRAINED = {
    "earlier default": TrainSettings(pooling="head", epochs=3, max_length=MAX_LENGTH, save_every_s=3600),
    "default": TrainSettings(max_length=MAX_LENGTH, save_every_s=3600),
}
RESULT = Path(__file__).parent / "results/learner.json"


def load_noise(folder: Path, name: str) -> tuple[Dataset, Dataset]:
    """Return rows with the label of a rule, and test rows with the true one."""
    rows = pl.read_ndjson(folder / f"noise/noise_{name}_weak.jsonl").sample(fraction=1.0, shuffle=True, seed=0)
    test, pool = rows.head(2 * N_TEST), rows.tail(-2 * N_TEST)
    return tuple(
        th.load(part.select("text", pl.col(column).cast(pl.String).alias("label")))
        for part, column in ((pool, "given"), (test, "true"))
    )


def load_task(name: str, folder: Path) -> tuple[Dataset, Dataset]:
    """Return the pool and the test rows of a task, none of which is in the pool."""
    if name == "products":
        here = Path(__file__).parents[1] / "data/products"
        pool, test = (th.load(here / f"{part}.jsonl") for part in ("train", "test"))
    elif name in ("agnews", "chemprot"):
        pool, test = load_noise(folder, name)
    else:
        real_tasks.N_POOL, real_tasks.N_TEST = 3000, 2 * N_TEST
        pool, test, _ = real_tasks.TASKS[name](folder)
    test = test.take(np.random.default_rng(0).permutation(len(test))[:N_TEST])
    return pool.take(np.flatnonzero(match_rows(pool, test) < 0)), test


def embed(rows: Dataset, cache: Path | None = None) -> dict[str, np.ndarray]:
    """Return (n, d) frozen vectors of each probe, read once for all of them."""
    if cache is not None and cache.is_file():
        return dict(np.load(cache))
    from transformers import AutoModel, AutoTokenizer

    tokenizer, body = (kind.from_pretrained(minilm_folder()) for kind in (AutoTokenizer, AutoModel))
    texts = rows.frame["prompt"].to_list()
    vectors: dict[str, list[torch.Tensor]] = {arm: [] for arm in POOLINGS}
    with torch.inference_mode():
        for start in range(0, len(texts), 32):
            options = {"padding": True, "truncation": True, "max_length": MAX_LENGTH, "return_tensors": "pt"}
            batch = tokenizer(texts[start : start + 32], **options)
            states = body.eval()(**batch).last_hidden_state
            for arm, pooling in POOLINGS.items():
                vectors[arm].append(pooling.apply(states, batch["attention_mask"]))
    joined = {arm: torch.cat(parts).double().numpy() for arm, parts in vectors.items()}
    if cache is not None:
        np.savez(cache, **joined)
    return joined


def run_probe(train: Dataset, x: np.ndarray, held_out: np.ndarray) -> list[str]:
    """Return the predictions of logistic regression on standardized frozen vectors."""
    labels, code = np.unique(train.frame["response"].to_numpy(), return_inverse=True)
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, held_out = (x - mean) / std, (held_out - mean) / std
    with warnings.catch_warnings():  # few rows of many classes
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        probe = LogisticRegression(C=choose_penalty(x, code), max_iter=200, tol=1e-3).fit(x, code)
    return [str(labels[guess]) for guess in probe.predict(held_out)]


def run_lora(arm: str, train: Dataset, test: Dataset, seed: int) -> list[str]:
    """Return the predictions of an adapter, in the order of the test rows."""
    adapter = th.train(train, eval=test, control="none", settings=TRAINED[arm], seed=seed)
    table = pl.read_parquet(adapter.path / "predictions.parquet")
    said = dict(zip(table["row_id"], table["prediction"], strict=True))
    return [said[name] for name in test.frame["row_id"]]


def run(folder: Path, work: Path, part: tuple[int, int], arms: tuple[str, ...]) -> None:
    """Run what is missing of some arms: of the jobs in a fixed order, every n-th."""
    work.mkdir(parents=True, exist_ok=True)
    runs = work / "runs.jsonl"
    names = ("banking77", "ae110k-attributes", "products", "agnews", "chemprot")
    jobs = sorted((seed, n, name) for n, seeds in SIZES.items() for seed in range(seeds) for name in names)
    for seed, n, name in jobs[part[0] :: part[1]]:
        lines = [json.loads(line) for line in runs.read_text().splitlines()] if runs.is_file() else []
        done = {(line["task"], line["rows"], line["seed"], line["arm"]) for line in lines}
        missing = [arm for arm in arms if (name, n, seed, arm) not in done]
        if not missing:
            continue
        pool, test = load_task(name, folder)
        train = pool.take(np.sort(np.random.default_rng([1, seed]).permutation(len(pool))[:n]))
        for arm in missing:
            began = time.process_time()
            if arm in POOLINGS:
                x, held_out = embed(train, work / f"{name}-{seed}-{n}.npz"), embed(test, work / f"{name}-test.npz")
                said = run_probe(train, x[arm], held_out[arm])
            else:
                said = run_lora(arm, train, test, seed)
            line = {"task": name, "rows": n, "seed": seed, "arm": arm, "said": said}
            line |= {"truth": test.frame["response"].to_list(), "cpu_seconds": round(time.process_time() - began, 1)}
            with runs.open("a") as file:
                file.write(json.dumps(line) + "\n")
            accuracy = np.mean([a == b for a, b in zip(said, line["truth"], strict=True)])
            print(f"{name} {n} rows seed {seed} {arm}: {accuracy:.3f}, {line['cpu_seconds']} s", flush=True)


def measure(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Return accuracy and macro-F1."""
    return np.array([(truth == said).mean(), f1_score(truth, said, average="macro", zero_division=0)])


def compare(truth: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> dict:
    """Return the mean difference over seeds with its interval; predictions are (seeds, n)."""
    rng = np.random.default_rng(0)

    def difference(seeds: np.ndarray, rows: np.ndarray) -> np.ndarray:
        pairs = [measure(truth[rows], ours[s][rows]) - measure(truth[rows], theirs[s][rows]) for s in seeds]
        return np.mean(pairs, axis=0)

    n_seeds, n = ours.shape
    resampled = [difference(rng.integers(0, n_seeds, n_seeds), rng.integers(0, n, n)) for _ in range(N_RESAMPLES // 10)]
    value, ends = difference(np.arange(n_seeds), np.arange(n)), np.quantile(resampled, (0.025, 0.975), axis=0)
    return {
        name: {"value": value[i], "low": ends[0, i], "high": ends[1, i]} for i, name in enumerate(("accuracy", "f1"))
    }


def summarize(work: Path) -> dict:
    """Return means and paired differences of the runs that are there."""
    lines = [json.loads(line) for line in (work / "runs.jsonl").read_text().splitlines()]
    groups: dict[tuple[str, int], dict[str, dict[int, dict]]] = {}
    for line in lines:
        groups.setdefault((line["task"], line["rows"]), {}).setdefault(line["arm"], {})[line["seed"]] = line
    entries = []
    for (name, n), arms in sorted(groups.items()):
        seeds = sorted(set.intersection(*(set(runs) for runs in arms.values())))
        if not seeds or len(arms) < len(POOLINGS) + len(TRAINED):
            continue
        said = {arm: np.array([codes(runs[seed]["said"]) for seed in seeds]) for arm, runs in arms.items()}
        truth = codes(next(iter(arms.values()))[seeds[0]]["truth"])
        entry = {"task": name, "rows": n, "seeds": len(seeds), "test_rows": len(truth), "arms": {}}
        for arm, guesses in said.items():
            accuracy, f1 = np.mean([measure(truth, row) for row in guesses], axis=0)
            cpu = float(np.mean([arms[arm][seed]["cpu_seconds"] for seed in seeds]))
            entry["arms"][arm] = {"accuracy": accuracy, "f1": f1, "cpu_seconds": cpu}
            if arm != "probe mean":
                entry["arms"][arm]["to_probe_mean"] = compare(truth, guesses, said["probe mean"])
        entries.append(entry)
    return {"machine": machine("torch", "transformers", "peft"), "max_length": MAX_LENGTH, "entries": entries}


def codes(labels: list[str]) -> np.ndarray:
    """Return labels as an array."""
    return np.array(labels, dtype=object).astype(str)


def format_markdown(content: dict) -> str:
    """Return the table of the docs."""
    lines = [
        "| data, rows (draws) | probe, first token | probe, mean | earlier default | default | default less probe |",
        "|---|---|---|---|---|---|",
    ]
    for entry in content["entries"]:
        arms = entry["arms"]
        gap = arms["default"]["to_probe_mean"]["accuracy"]
        shown = [
            f"{arms[arm]['accuracy']:.3f}, {arms[arm]['f1']:.3f}"
            for arm in ("probe first token", "probe mean", "earlier default", "default")
        ]
        interval = f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
        name = f"{entry['task']}, {entry['rows']:,} ({entry['seeds']})"
        lines.append(" | ".join(["| " + name, *shown, interval]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run, or print the tables of the committed result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--part", default="0/1", help="i/n: every n-th job, from the i-th on")
    parser.add_argument("--arms", nargs="*", default=[*POOLINGS, *TRAINED])
    parser.add_argument("--summary", action="store_true", help="write the result of the runs that are there")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    if given.markdown:
        print(format_markdown(json.loads(RESULT.read_text())))
        return
    if not given.summary:
        first, step = (int(number) for number in given.part.split("/"))
        run(given.data, given.work, (first, step), tuple(given.arms))
    RESULT.write_text(json.dumps(summarize(given.work), indent=1) + "\n")


if __name__ == "__main__":
    main()
