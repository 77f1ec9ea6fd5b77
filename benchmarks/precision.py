"""Do scores in bfloat16 agree with those in float32, and how much sooner are they there?

    OMP_NUM_THREADS=1 python benchmarks/precision.py --data FOLDER [--rows 200] [--model smollm2]

FOLDER holds alpaca_9k, dolly_3k and gsm8k; the product listings are those of this repository. Of
`rows` rows drawn at random, each value is computed in both precisions in turns, nothing cached:

- agreement of scores: Spearman's rank correlation over the rows that both place, and the share of
  the same picks at 10 and 30 % (two random choices of 30 % share 30 %);
- the same for hidden states, by which `target-similarity` chooses: a row's cosine to the nearest of
  the first 20 rows;
- agreement of embeddings: the least cosine of a row's two vectors, and the share of the same picks
  of `facility-location`, `k-center` and `herding`;
- training: loss and gradient of one step of LoRA on the same 8 rows;
- seconds of the processor, which other work on the machine disturbs less than those of the clock.

It says at the end whether the processor multiplies bfloat16 natively: only then is it the default.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from machine import machine
from scipy.stats import spearmanr

import thresher as th
from thresher.features import compute, make_context
from thresher.models.precision import multiplies_bfloat16
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.batches import pad_rows
from thresher.trainer.engine.fit import build_model
from thresher.trainer.engine.losses import token_loss
from thresher.trainer.engine.tokenization import IGNORED

RESULT = Path(__file__).parent / "results" / "precision.json"
PRODUCTS = Path(__file__).parents[1] / "data" / "products" / "train.jsonl"
DTYPES = ("float32", "bfloat16")
SHARES = (0.1, 0.3)
PARTS = "embeddings,scores,hidden states,training"
STEP_ROWS = 8
SCORES = ("perplexity", "difficulty")
N_TARGET = 20
GEOMETRIC = ("facility-location", "k-center", "herding")


def sample(rows: th.Dataset, n: int) -> th.Dataset:
    """Return n rows, drawn at random."""
    return rows.take(np.sort(np.random.default_rng(0).permutation(len(rows))[:n]))


def share_of_picks(one: np.ndarray, other: np.ndarray, n: int) -> float:
    """Return the share of the n highest that two scores have in common."""
    picks = [set(np.argsort(-values, kind="stable")[:n].tolist()) for values in (one, other)]
    return len(picks[0] & picks[1]) / n


def compare_likelihoods(rows: th.Dataset, model: str) -> dict:
    """Return agreement and seconds of the losses of a language model."""
    seconds, values = {}, {}
    for dtype in DTYPES:
        context = make_context(model=model, device="cpu", dtype=dtype, cache=None)
        context.load_language_model().model  # noqa: B018 - loaded before the clock starts
        began = time.process_time()
        features = compute(rows, {"loss", "loss_unconditional"}, context)
        seconds[dtype] = round(time.process_time() - began, 2)
        loss, alone = (np.asarray(features[name]) for name in ("loss", "loss_unconditional"))
        values[dtype] = {"perplexity": loss, "difficulty": np.exp(loss - alone)}
    entry = {"seconds": seconds, "speedup": round(seconds["float32"] / seconds["bfloat16"], 2)}
    return entry | {name: compare_scores(*(values[dtype][name] for dtype in DTYPES)) for name in SCORES}


def compare_scores(exact: np.ndarray, rough: np.ndarray) -> dict:
    """Return how far two scores of the same rows agree, in order and in picks."""
    is_there = np.isfinite(exact) & np.isfinite(rough)
    exact, rough = exact[is_there], rough[is_there]
    n = {share: round(share * len(exact)) for share in SHARES}
    return {
        "rows": len(exact),
        "spearman": round(float(spearmanr(exact, rough).statistic), 5),
        "same_picks": {f"{share:.0%}": round(share_of_picks(exact, rough, n[share]), 4) for share in SHARES},
        "picks": {f"{share:.0%}": n[share] for share in SHARES},
        "largest_difference": round(float(np.abs(exact - rough).max()), 4),
    }


def compare_hidden_states(rows: th.Dataset, model: str) -> dict:
    """Return agreement and seconds of hidden states."""
    seconds, values = {}, {}
    for dtype in DTYPES:
        context = make_context(model=model, device="cpu", dtype=dtype, cache=None)
        context.load_language_model().model  # noqa: B018 - loaded before the clock starts
        began = time.process_time()
        states = np.asarray(compute(rows, {"hidden_state"}, context)["hidden_state"])
        seconds[dtype] = round(time.process_time() - began, 2)
        values[dtype] = (states[N_TARGET:] @ states[:N_TARGET].T).max(axis=1)
    return {"seconds": seconds, **compare_scores(*(values[dtype] for dtype in DTYPES))}


def compare_embeddings(rows: th.Dataset, encoder: str) -> dict:
    """Return agreement and seconds of an encoder's vectors, and of what is chosen by them."""
    seconds, vectors, picks = {}, {}, {}
    for dtype in DTYPES:
        context = make_context(encoder=encoder, device="cpu", dtype=dtype, cache=None)
        context.load_encoder().encode(["a text"])
        began = time.process_time()
        vectors[dtype] = np.asarray(compute(rows, {"embedding"}, context)["embedding"])
        seconds[dtype] = round(time.process_time() - began, 2)
        for method in GEOMETRIC:
            for share in SHARES:
                subset = th.select(rows, method, budget=share, encoder=encoder, device="cpu", dtype=dtype)
                picks[method, share, dtype] = set(subset.kept.tolist())
    exact, rough = (vectors[dtype] for dtype in DTYPES)
    same = {
        method: {
            f"{share:.0%}": len(picks[method, share, "float32"] & picks[method, share, "bfloat16"])
            / len(picks[method, share, "float32"])
            for share in SHARES
        }
        for method in GEOMETRIC
    }
    return {
        "seconds": seconds,
        "speedup": round(seconds["float32"] / seconds["bfloat16"], 2),
        "least_cosine": round(float((exact * rough).sum(1).min()), 5),
        "same_picks": same,
    }


def compare_training(rows: th.Dataset, model: str) -> dict:
    """Return loss, gradient and seconds of a training step on the same rows in both precisions."""
    seconds, losses, gradients = {}, {}, {}
    for dtype, precision in zip(DTYPES, ("fp32", "bf16"), strict=True):
        context = resolve_run(rows, model=model, settings=th.TrainSettings(precision=precision, max_length=256), seed=0)
        adapted = build_model(context, seed=0).train()
        batch = pad_rows(context.tokenize(context.split.train).rows[:STEP_ROWS], pad_id=0)
        for _ in range(2):  # the first one warms up
            adapted.zero_grad()
            began = time.process_time()
            with context.accelerator.autocast():
                loss = token_loss(adapted, batch)
            loss.backward()
            seconds[dtype] = round(time.process_time() - began, 2)
        losses[dtype] = round(float(loss.detach()) / int((batch.labels[:, 1:] != IGNORED).sum()), 5)
        gradients[dtype] = torch.cat([each.grad.flatten() for each in adapted.parameters() if each.grad is not None])
    exact, rough = (gradients[dtype] for dtype in DTYPES)
    return {
        "tokens": int(batch.labels.numel()),
        "seconds": seconds,
        "speedup": round(seconds["float32"] / seconds["bfloat16"], 2),
        "loss": losses,
        "cosine_of_gradients": round(float(torch.nn.functional.cosine_similarity(exact, rough, dim=0)), 5),
    }


def main() -> None:
    """Measure, print, and write the result after each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--parts", default=PARTS, help="what is measured; the rest is kept")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    alpaca, dolly, gsm8k = (
        sample(th.load(options.data / path), options.rows)
        for path in ("alpaca_9k/random_9k.json", "dolly_3k/dolly_3k.json", "gsm8k/train.jsonl")
    )
    products = sample(th.load(PRODUCTS), 3 * options.rows)
    result = json.loads(options.out.read_text()) if options.out.is_file() else {}
    result |= {
        "command": f"OMP_NUM_THREADS=1 python benchmarks/precision.py --data FOLDER --rows {options.rows}",
        "machine": machine("torch", "transformers"),
        "model": options.model,
        "multiplies_bfloat16": multiplies_bfloat16(),
    }
    parts = {
        "embeddings, products": lambda: compare_embeddings(products, "minilm"),
        "embeddings, Alpaca": lambda: compare_embeddings(alpaca, "minilm"),
        "scores, Alpaca": lambda: compare_likelihoods(alpaca, options.model),
        "scores, Dolly": lambda: compare_likelihoods(dolly, options.model),
        "scores, GSM8K": lambda: compare_likelihoods(gsm8k, options.model),
        "hidden states, Alpaca": lambda: compare_hidden_states(alpaca, options.model),
        "training, Dolly": lambda: compare_training(dolly, options.model),
    }
    for name, measure in parts.items():
        if name.partition(",")[0] not in options.parts.split(","):
            continue
        result[name] = measure()
        print(name, json.dumps(result[name]), flush=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
