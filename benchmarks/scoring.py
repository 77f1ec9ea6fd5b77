"""Throughput of the scoring engine, against the official scripts and against a bare forward.

    OMP_NUM_THREADS=1 python benchmarks/scoring.py --data train.jsonl \
        [--rows 400] [--model FOLDER] [--repeats 3]

Both losses of each row (`loss`, `loss_unconditional`) are computed in several ways, in turns in one
process, with the weights loaded before any clock starts. Seconds are those of the processor, which
other work on the machine disturbs less than those of the clock; with one thread they are the same
on a quiet machine.

- thresher: `compute`, from the rows to the values, rendering and tokenizing included, no cache.
- cherry: what cherry_seletion/data_analysis.py of tianyi-lab/Cherry_LLM does for each row: the text
  before the response is tokenized on its own to find its length, two forwards of one row with all
  hidden states, a cache and full logits, and the loss of every token, prompt included, by a
  log-softmax of its own. On every fourth row; its rate counts.
- superfiltering: what code_ifd/data_analysis.py of tianyi-lab/Superfiltering does: the same without
  losses by token.
- bare: the model on as many tokens as thresher reads in each of the two passes, laid in full
  batches without padding, each row as long as gives the same attention work; of several batch sizes
  the fastest. "bare body" leaves out its head: no way to a likelihood, but the least that any of
  them must run.

Without --model it is the toy `tiny`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from machine import machine

import thresher as th
from thresher.features import compute, make_context
from thresher.features.likelihood.loss import load_row_tokenizer
from thresher.models.causal_lm.chat_template import render, render_prompt
from thresher.models.causal_lm.language_model import language_model
from thresher.models.causal_lm.tokenized_rows import row_texts, without_prompt

RESULT = Path(__file__).parent / "results" / "scoring.json"
BARE_TOKENS = (1024, 2048, 4096, 8192, 16_384)
LOOP_EVERY = 4


def token_losses(logits, ids):
    """Return the loss of every token but the first, one at a time."""
    by_token = []
    for i in range(1, ids.shape[1]):
        log_p = torch.nn.functional.log_softmax(logits[0, i - 1], dim=-1)
        by_token.append(torch.nn.functional.nll_loss(log_p[None], ids[0, i][None], reduction="none").item())
    return by_token


def loop(lm, conversations, *, by_token):
    """Return (n, 2) losses as the official scripts compute them, with BOS before both passes."""
    losses = []
    for conversation in conversations:
        prompt = render_prompt(lm.tokenizer, conversation.messages, None)
        rendered = render(lm.tokenizer, conversation.messages, None, loss_on="last-assistant")
        whole = rendered.text[: rendered.spans[-1][1]]
        start = lm.tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids.shape[1]
        ids = lm.tokenizer(whole, return_tensors="pt", add_special_tokens=False).input_ids
        labels = ids.clone()
        labels[0, :start] = -100
        alone = torch.cat([torch.tensor([[lm.start_id]]), ids[:, start:]], dim=1)
        with torch.no_grad():
            output = lm.model(ids, labels=labels, output_hidden_states=True)
            without = lm.model(alone, labels=alone.clone(), output_hidden_states=True)
        if by_token:
            token_losses(without.logits, alone)
            token_losses(output.logits, ids)
        losses.append((output.loss.item(), without.loss.item()))
    return np.array(losses)


def bare_batches(lengths, tokens, vocabulary):
    """Return full (b, w) batches with as many tokens as the rows, and as much work in attention."""
    n = int(lengths.sum())
    width = round(float((lengths**2).sum() / n))
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, vocabulary, (-(-n // width), width)))
    return n / ids.numel(), ids.split(max(1, tokens // width))


def run_bare(module, passes, tokens, vocabulary):
    """Return seconds for the tokens of all passes, but for the part-empty last row of a pass."""
    seconds = 0.0
    for lengths in passes:
        share, batches = bare_batches(lengths, tokens, vocabulary)
        began = time.process_time()
        with torch.inference_mode():
            for ids in batches:
                module(input_ids=ids, use_cache=False)
        seconds += (time.process_time() - began) * share
    return seconds


def lengths_read(lm, rows, context):
    """Return the tokens that each row costs in each of the two passes."""
    rows_read = [each.row for each in load_row_tokenizer(context).read(row_texts(rows).to_list())]
    alone = [without_prompt(row, lm.start_id) for row in rows_read]
    return [np.array([row.n_read for row in part], dtype=np.int64) for part in (rows_read, alone)]


def measure(rows, lm, context, repeats):
    """Return seconds of each way and repeat, and the largest difference of a loss to the loop."""
    passes = lengths_read(lm, rows, context)
    n_tokens = int(sum(lengths.sum() for lengths in passes))
    some = np.arange(0, len(rows), LOOP_EVERY)
    conversations = rows.messages(some)
    compute(rows.take(some), ["loss"], context)  # warm
    loop(lm, conversations[:5], by_token=True)
    best = min(BARE_TOKENS, key=lambda tokens: run_bare(lm.model, passes, tokens, lm.n_vocabulary))
    seconds = {name: [] for name in ("thresher", "cherry", "superfiltering", "bare", "bare body")}
    for _ in range(repeats):
        began = time.process_time()
        features = compute(rows, ["loss", "loss_unconditional"], context)
        seconds["thresher"].append(time.process_time() - began)
        seconds["bare"].append(run_bare(lm.model, passes, best, lm.n_vocabulary))
        seconds["bare body"].append(run_bare(lm.model.base_model, passes, best, lm.n_vocabulary))
        for name in ("cherry", "superfiltering"):
            began = time.process_time()
            expected = loop(lm, conversations, by_token=name == "cherry")
            seconds[name].append((time.process_time() - began) * len(rows) / len(some))
    ours = np.stack([features["loss"][some], features["loss_unconditional"][some]], axis=1)
    return {
        "rows": len(rows),
        "count_tokens_read": n_tokens,
        "bare_batch_tokens": best,
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "max_difference": float(np.nanmax(np.abs(ours - expected))),
        "rows_that_differ_by_more_than_1e-4": int((np.abs(ours - expected).max(axis=1) > 1e-4).sum()),
    }


def ratios(seconds, name, over="thresher"):
    """Return the median over repeats of one way's seconds over another's, and all of them."""
    each = [one / other for one, other in zip(seconds[name], seconds[over], strict=True)]
    return {"median": round(statistics.median(each), 3), "each": [round(value, 3) for value in each]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    pool = th.load(options.data)
    rows = pool.take(np.sort(np.random.default_rng(0).choice(len(pool), options.rows, replace=False)))
    chosen = {} if options.batch_tokens is None else {"batch_tokens": options.batch_tokens}
    context = make_context(model=options.model, device="cpu", cache=None, **chosen)
    lm = language_model(options.model, device="cpu")
    lm.model  # noqa: B018 - loaded before any clock starts, and shared by all ways
    result = measure(rows, lm, context, options.repeats)
    seconds = result["seconds"]
    bars = {
        "times cherry (bar: 5)": ratios(seconds, "cherry"),
        "times superfiltering (bar: 5)": ratios(seconds, "superfiltering"),
        "times cherry that the bare forward itself would be": ratios(seconds, "cherry", over="bare"),
        "share of the bare forward (bar: 0.8)": ratios(seconds, "bare"),
        "share of the bare forward of its body, which makes no logits": ratios(seconds, "bare body"),
    }
    content = {
        "command": "OMP_NUM_THREADS=1 python benchmarks/scoring.py",
        "data": Path(options.data).name,
        "model": Path(lm.name).name if Path(lm.name).is_dir() else lm.name,
        "fingerprint": lm.fingerprint,
        "batch_tokens": lm.limit_batch_tokens(context.models.batch_tokens),
        "threads": torch.get_num_threads(),
        **result,
        "ratios": bars,
        "machine": machine("torch", "transformers"),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=2) + "\n")
    for line in itertools.chain(seconds.items(), bars.items()):
        print(*line)


if __name__ == "__main__":
    main()
