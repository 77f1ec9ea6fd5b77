"""How good is the toy language model `tiny`? Bits per byte, and a LoRA fine-tune on 500 rows.

    python benchmarks/causal_lm.py --data FOLDER [--only ...]   # FOLDER with gsm8k, wikisql and t0

Bits per byte, by source, on rows that nothing here was trained on (see `data/causal_lm_corpus.py`).
The language model scores the conversation form; the bits of its markers count, their bytes do not.
Beside it, on the same rows as plain text: gzip and xz on the held-out text alone and after all
training text (what it adds), and two 5-gram models with interpolated Kneser-Ney smoothing (Ney,
Essen & Kneser 1994, doi:10.1006/csla.1994.1001), over bytes and over the tokens of the language
model's own tokenizer, both counted on the training text.

The fine-tune is `thresher train` on product listings, in two forms of the attribute task: the one
that `data/products/README.md` names (a listing in, all attributes as JSON out), and a question for
one attribute. Neither form was in the text of the pre-training.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from machine import machine
from numpy.typing import NDArray
from tokenizers import Tokenizer

import thresher as th
from thresher.models.causal_lm.embedded import SHA256, causal_lm_folder

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "data"))  # the corpus is made by the scripts there

import causal_lm_corpus as corpus_text  # noqa: E402

OUT = ROOT / "benchmarks" / "results" / "causal_lm.json"
PRODUCTS = ROOT / "data" / "products"
ORDER = 5
N_TRAIN, N_TEST = 500, 500
QUESTIONS = {"brand": "Which brand?", "colour": "Which colour?", "material": "Which material?", "size": "Which size?"}
SETTINGS = th.TrainSettings(
    learning_rate=3e-3, epochs=8, lora_rank=16, max_length=512, eval_generations=N_TEST, max_new_tokens=64
)


# -- n-grams


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts of the n-grams of one order.

    Attributes:
        keys: (k,) uint64, sorted n-grams, `bits` bits per symbol, the last symbol lowest.
        counts: (k,) how often each occurs; below the highest order, after how many different
            symbols.
        contexts: (c,) uint64, sorted first n - 1 symbols.
        totals: (c,) sum of the counts that follow a context.
        n_kinds: (c,) number of different symbols that follow.
        discount: taken off each count: n1 / (n1 + 2 n2).
    """

    keys: NDArray[np.uint64]
    counts: NDArray[np.int64]
    contexts: NDArray[np.uint64]
    totals: NDArray[np.int64]
    n_kinds: NDArray[np.int64]
    discount: float


class KneserNey:
    """An n-gram model with interpolated Kneser-Ney smoothing; below the lowest, all is uniform.

    Cost: O(N log N) time and O(N) memory per order for N symbols.
    """

    def __init__(self, documents: Iterable[NDArray[np.uint16]], *, order: int, bits: int, n_symbols: int) -> None:
        if order * bits > 64:
            raise ValueError(f"an n-gram must fit into 64 bits, got {order} x {bits}")
        self._order, self._bits, self._n_symbols = order, bits, n_symbols
        keys, counts = np.unique(np.concatenate([self._keys(document) for document in documents]), return_counts=True)
        self._levels: list[Counts] = []  # from the highest order down
        for n in range(order, 0, -1):
            self._levels.append(count_order(keys, counts, bits))
            if n > 1:  # continuation counts: each n-gram counts once for its last n - 1 symbols
                keys, counts = np.unique(keys & np.uint64((1 << (n - 1) * bits) - 1), return_counts=True)

    def _keys(self, document: NDArray[np.uint16]) -> NDArray[np.uint64]:
        """Return the n-gram that ends at each symbol but the first, which pads it."""
        padded = np.concatenate([np.full(self._order - 2, document[0]), document]).astype(np.uint64)
        size = len(padded) - self._order + 1
        keys = np.zeros(size, dtype=np.uint64)
        for at in range(self._order):
            keys = (keys << np.uint64(self._bits)) | padded[at : at + size]
        return keys

    def bits(self, document: NDArray[np.uint16]) -> float:
        """Return -log2 of the probability of all symbols but the first."""
        keys = self._keys(document)
        probability = np.full(len(keys), 1 / self._n_symbols)
        for n in range(1, self._order + 1):
            probability = interpolate(self._levels[self._order - n], keys, n, self._bits, probability)
        return float(-np.log2(probability).sum())


def count_order(keys: NDArray[np.uint64], counts: NDArray[np.int64], bits: int) -> Counts:
    """Return the counts of an order with what its contexts sum up to."""
    contexts, first = np.unique(keys >> np.uint64(bits), return_index=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return Counts(
        keys=keys,
        counts=counts,
        contexts=contexts,
        totals=np.add.reduceat(counts, first),
        n_kinds=np.diff(np.append(first, len(keys))),
        discount=once / (once + 2 * twice) if once else 0.5,
    )


def interpolate(
    counts: Counts, keys: NDArray[np.uint64], n: int, bits: int, lower: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the probabilities of order n from those of order n - 1; unseen contexts keep those."""
    keys = keys & np.uint64((1 << n * bits) - 1)
    at, is_known = find_positions(counts.contexts, keys >> np.uint64(bits))
    seen, is_seen = find_positions(counts.keys, keys)
    count = np.where(is_seen, counts.counts[seen], 0)
    total = counts.totals[at]
    own = np.maximum(count - counts.discount, 0) / total
    return np.where(is_known, own + counts.discount * counts.n_kinds[at] / total * lower, lower)


def find_positions(table: NDArray[np.uint64], keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return where each key is in a sorted table, and whether it is."""
    at = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return at, table[at] == keys


# -- bits per byte


def as_bytes(document: corpus_text.Document) -> NDArray[np.uint16]:
    """Return the plain text as bytes between zeros, which occur in no document."""
    return np.frombuffer(b"\0" + document.plain.encode() + b"\0", dtype=np.uint8).astype(np.uint16)


def as_tokens(document: corpus_text.Document, tokenizer) -> NDArray[np.uint16]:
    """Return the tokens of the conversation form."""
    return np.array(corpus_text.token_ids(document, tokenizer), dtype=np.uint16)


def compute_model_bits(documents: list[corpus_text.Document], tokenizer) -> list[float]:
    """Return -log2 of the probability that the language model gives each conversation, in float32.

    What is beyond the longest input is scored in a further piece, which starts without context.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(causal_lm_folder(), dtype=torch.float32).eval()
    longest = model.config.max_position_embeddings
    bits = []
    for document in documents:
        ids = corpus_text.token_ids(document, tokenizer)
        total = 0.0
        for start in range(1, len(ids), longest - 1):
            piece = torch.tensor([[ids[0], *ids[start : start + longest - 1]]])
            with torch.inference_mode():
                logits = model(input_ids=piece).logits[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(logits, piece[0, 1:], reduction="sum")) / math.log(2)
        bits.append(total)
    return bits


class Compressors:
    """The bits that gzip and xz need for a text, alone and in addition to the training text."""

    def __init__(self, train: bytes) -> None:
        self._train = train
        self._gzip = len(gzip.compress(train, 9))
        self._xz = compute_xz_size(train)

    def bits(self, text: bytes) -> dict[str, int]:
        """Return the bits by compressor."""
        return {
            "gzip": 8 * len(gzip.compress(text, 9)),
            "gzip after the training text": 8 * (len(gzip.compress(self._train + text, 9)) - self._gzip),
            "xz": 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)),
            "xz after the training text": 8 * (compute_xz_size(self._train + text) - self._xz),
        }


def compute_xz_size(data: bytes) -> int:
    """Return the size under xz with a dictionary that holds all of it."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 27}]
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))


def join_texts(documents: Iterable[corpus_text.Document]) -> bytes:
    """Return the plain texts, one after the other."""
    return "\n".join(document.plain for document in documents).encode()


def measure_rate(bits: list[float], n_bytes: list[int]) -> dict[str, float]:
    """Return bits per byte with the standard error of a ratio over documents."""
    b, n = np.array(bits), np.array(n_bytes)
    value = b.sum() / n.sum()
    error = np.sqrt(len(b) / (len(b) - 1) * ((b - value * n) ** 2).sum()) / n.sum()
    return {"value": round(float(value), 4), "stderr": round(float(error), 4)}


def measure_baselines(corpus: corpus_text.Corpus, tokenizer) -> dict[str, dict]:
    """Measure the compressors and the n-gram models on each source."""
    train = [document for part in corpus.train.values() for document in part]
    byte_model = KneserNey(map(as_bytes, train), order=ORDER, bits=8, n_symbols=256)
    as_ids = [as_tokens(document, tokenizer) for document in train]
    token_model = KneserNey(as_ids, order=ORDER, bits=12, n_symbols=tokenizer.get_vocab_size())
    compressors = Compressors(join_texts(train))
    results: dict[str, dict] = {}
    for name, documents in corpus.held_out.items():
        n_bytes = count_bytes(documents)
        results[name] = {
            "documents": len(documents),
            "bytes": sum(n_bytes),
            "5-gram of tokens": measure_rate([token_model.bits(as_tokens(d, tokenizer)) for d in documents], n_bytes),
            "5-gram of bytes": measure_rate([byte_model.bits(as_bytes(d)) for d in documents], n_bytes),
            **{key: round(bits / sum(n_bytes), 4) for key, bits in compressors.bits(join_texts(documents)).items()},
        }
        print(name, json.dumps(results[name]), flush=True)
    return results


def measure_model(corpus: corpus_text.Corpus, tokenizer) -> dict[str, dict]:
    """Measure the language model on each source."""
    results: dict[str, dict] = {}
    for name, documents in corpus.held_out.items():
        results[name] = measure_rate(compute_model_bits(documents, tokenizer), count_bytes(documents))
        print(name, json.dumps(results[name]), flush=True)
    return results


def count_bytes(documents: list[corpus_text.Document]) -> list[int]:
    """Return the bytes of each plain text."""
    return [len(document.plain.encode()) for document in documents]


# -- the attribute task


def read_listings(name: str) -> list[dict]:
    """Return the shipped listings."""
    return [json.loads(line) for line in (PRODUCTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def as_json_task(row: dict, rng: random.Random) -> dict:
    """Return the listing with all of its attributes."""
    return {"prompt": row["text"], "completion": row["attributes"]}


def as_question(row: dict, rng: random.Random) -> dict:
    """Return the listing with a question for one attribute that it tells."""
    name, value = rng.choice(sorted(json.loads(row["attributes"]).items()))
    return {"prompt": f"{row['text']}\n\n{QUESTIONS[name]}", "completion": value}


def get_exact_match(metrics: dict) -> dict:
    """Return exact match of the answers with n and standard error."""
    return {key: metrics["exact_match"][key] for key in ("value", "stderr", "n")}


def measure_attributes(form) -> dict:
    """Fine-tune on N_TRAIN rows and measure exact match on N_TEST others, before and after."""
    rng = random.Random(4)
    pool = [row for row in read_listings("train") if not row["planted"]]
    rows = [form(row, rng) for row in rng.sample(pool, N_TRAIN)]
    test = [form(row, rng) for row in rng.sample(read_listings("test"), N_TEST)]
    # a new adapter changes nothing
    untouched = replace(SETTINGS, epochs=None, max_steps=1, learning_rate=1e-12)
    results: dict = {}
    for name, settings in (("before", untouched), ("after", SETTINGS)):
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            adapter = th.train(rows, eval=test, out=Path(folder) / "adapter", settings=settings)
        results[name] = get_exact_match(adapter.metrics["held_out"])
        results[name]["seconds"] = round(time.perf_counter() - began)
    print(form.__name__, json.dumps(results), flush=True)
    return {**results, "example": test[0]}


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=["baselines", "model", "attributes"])
    options = parser.parse_args()
    parts = {options.only} if options.only else {"baselines", "model", "attributes"}
    results = json.loads(OUT.read_text()) if OUT.exists() else {}
    results |= {"machine": machine("torch", "transformers", "peft")}
    if parts & {"baselines", "model"}:
        corpus = corpus_text.read_corpus(options.data)
        tokenizer = Tokenizer.from_file(str(causal_lm_folder() / "tokenizer.json"))
        for name, measure in (("baselines", measure_baselines), ("model", measure_model)):
            if name in parts:
                results[f"bits_per_byte_of_{name}"] = measure(corpus, tokenizer)
    if "model" in parts:
        results["weights_sha256"] = SHA256
    if "attributes" in parts:
        results["attributes"] = {
            "settings": {"learning_rate": SETTINGS.learning_rate, "epochs": SETTINGS.epochs, "rows": N_TRAIN},
            "all as JSON": measure_attributes(as_json_task),
            "one by question": measure_attributes(as_question),
        }
    OUT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
