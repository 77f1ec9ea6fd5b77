"""How fast the embedded encoders are, and how near to what the machine can do.

    python benchmarks/encoders.py [--rows 20000] [--minilm-rows 1024] [--runs 3] [--threads 1]

Rows are product listings of about 60 tokens. The static encoder is compared with model2vec on the
same files, and its time is split into finding tokens and adding vectors. MiniLM is compared with
the time of nothing but its own matrix products: every product of its layers (projections,
feed-forward, attention scores and their weighted sums), on arrays of the very shapes of its
batches, by the same library with the same number of threads; then its time is split by operation
(the profiler of torch), and it is run in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine
from million import generated_rows

from thresher.features.length import count_batches
from thresher.models.encoders.load import load_encoder
from thresher.models.encoders.static import FOLDER, StaticEncoder
from thresher.models.encoders.wordpiece import WordPieces

TOKENIZER = FOLDER / "tokenizer.json"


def generate_texts(n: int) -> pl.Series:
    """Return n texts as `Dataset.texts` gives them."""
    return pl.Series("text", [f"{row['prompt']}\n{row['completion']}" for row in generated_rows(n)])


def timed(run: Callable[[], object], n_runs: int) -> list[float]:
    """Return the seconds of each run, after one that does not count."""
    run()
    seconds = []
    for _ in range(n_runs):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return seconds


def rate(n: int, seconds: list[float]) -> dict[str, object]:
    return {
        "rows_per_second": round(n / statistics.median(seconds)),
        "seconds": [round(value, 3) for value in seconds],
    }


def static(texts: pl.Series, n_runs: int) -> dict[str, object]:
    """Measure the static encoder, its first half, and model2vec on the same files."""
    from model2vec import StaticModel

    encoder, pieces = StaticEncoder(), WordPieces(TOKENIZER)
    peer = StaticModel.from_pretrained(FOLDER, force_download=False, max_length=None)
    strings = texts.to_list()
    vectors = encoder.encode(texts)
    expected = peer.encode(strings, use_multiprocessing=False)
    n = len(texts)
    return {
        "largest_difference_to_model2vec": float(np.abs(vectors - expected).max()),
        "thresher": rate(n, timed(lambda: encoder.encode(texts), n_runs)),
        "thresher, tokens alone": rate(n, timed(lambda: list(pieces.encode_batches(texts)), n_runs)),
        "model2vec": rate(n, timed(lambda: peer.encode(strings, use_multiprocessing=False), n_runs)),
    }


def count_products(encoder: object, texts: pl.Series) -> Counter[tuple[int, ...]]:
    """Encode once; return how often each shape (batch, rows, inner, columns) was multiplied."""
    import torch

    model = encoder._model
    config = model[0].auto_model.config
    head = config.hidden_size // config.num_attention_heads
    shapes: Counter[tuple[int, ...]] = Counter()

    def of_linear(layer: object, inputs: tuple[object, ...], _output: object) -> None:
        x = inputs[0]
        shapes[1, x.numel() // x.shape[-1], layer.in_features, layer.out_features] += 1

    def of_attention(_layer: object, inputs: tuple[object, ...], _output: object) -> None:
        n_rows, n_tokens = inputs[0].shape[:2]
        n_heads = config.num_attention_heads
        shapes[n_rows * n_heads, n_tokens, head, n_tokens] += 1
        shapes[n_rows * n_heads, n_tokens, n_tokens, head] += 1

    handles = [
        module.register_forward_hook(of_linear) for module in model.modules() if isinstance(module, torch.nn.Linear)
    ]
    handles += [layer.attention.self.register_forward_hook(of_attention) for layer in model[0].auto_model.encoder.layer]
    encoder.encode(texts)
    for handle in handles:
        handle.remove()
    return shapes


def multiply_all(shapes: Counter[tuple[int, ...]]) -> Callable[[], None]:
    """Return a function that computes products of these shapes and nothing else."""
    import torch

    def run() -> None:
        for x, y, n_times, out in arrays:
            for _ in range(n_times):
                if x.ndim == 2:
                    torch.nn.functional.linear(x, y)
                else:
                    torch.bmm(x, y, out=out)

    arrays = []
    for (n_batch, rows, inner, columns), n_times in shapes.items():
        if n_batch == 1:
            arrays.append((torch.rand(rows, inner), torch.rand(columns, inner), n_times, None))
        else:
            x, y = torch.rand(n_batch, rows, inner), torch.rand(n_batch, inner, columns)
            arrays.append((x, y, n_times, torch.empty(n_batch, rows, columns)))
    return torch.inference_mode()(run)


def minilm(texts: pl.Series, n_runs: int) -> dict[str, object]:
    """Measure MiniLM and the matrix products that it cannot do without."""
    encoder = load_encoder("minilm", device="cpu")
    shapes = count_products(encoder, texts)
    n_flop = sum(2 * times * int(np.prod(shape)) for shape, times in shapes.items())
    whole, least = timed(lambda: encoder.encode(texts), n_runs), timed(multiply_all(shapes), n_runs)
    return {
        "whole": rate(len(texts), whole),
        "products alone": rate(len(texts), least),
        "gflop_per_row": round(n_flop / len(texts) / 1e9, 3),
        "gflop_per_second_of_products": round(n_flop / statistics.median(least) / 1e9, 1),
        "share_of_limit": round(statistics.median(least) / statistics.median(whole), 3),
        "share_of_time": by_operation(encoder, texts),
        "bfloat16": in_bfloat16(texts, n_runs),
    }


def by_operation(encoder: object, texts: pl.Series, n_largest: int = 6) -> dict[str, float]:
    """Return the operations that take most of the time, as shares of the whole."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        encoder.encode(texts)
    spent = Counter({event.key: event.self_cpu_time_total for event in profile.key_averages()})
    whole = sum(spent.values())
    return {name: round(time / whole, 3) for name, time in spent.most_common(n_largest)}


def in_bfloat16(texts: pl.Series, n_runs: int) -> dict[str, object]:
    """Measure MiniLM in bfloat16, and how far its vectors are from those in float32."""
    exact, rounded = (load_encoder("minilm", device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    cosine = (exact.encode(texts) * rounded.encode(texts)).sum(axis=1)
    return {
        **rate(len(texts), timed(lambda: rounded.encode(texts), n_runs)),
        "least_cosine_to_float32": round(float(cosine.min()), 5),
        "mean_cosine_to_float32": round(float(cosine.mean()), 5),
    }


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--minilm-rows", type=int, default=1_024)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "encoders.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    texts = generate_texts(options.rows)
    n_tokens = sum(int(batch.values.sum()) for batch in count_batches(TOKENIZER, texts))
    content = {
        "command": "python benchmarks/encoders.py " + " ".join(sys.argv[1:]),
        "rows": options.rows,
        "tokens_per_row": round(n_tokens / options.rows, 1),
        "threads": options.threads,
        "static": static(texts, options.runs),
        "minilm": minilm(texts[: options.minilm_rows], options.runs),
        "machine": machine("torch", "transformers", "sentence-transformers", "model2vec", "tokenizers", "numba"),
    }
    print(json.dumps(content, indent=2))
    options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
