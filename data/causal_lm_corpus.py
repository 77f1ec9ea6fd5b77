"""The text that the embedded language model learns from: sources, held-out parts, forms, windows.

Sources are files of public data sets in one folder (`gsm8k/`, `wikisql/`, `t0/`) and the product
generator of `make_products.py` with seeds of its own. 2 % of each source are held out by a hash of
their content; rows of the training part that share a run of words with a held-out row are dropped,
so that bits per byte tell of new text.

Half of this file is about forms: a document is either turns of a conversation, rendered as the chat
template renders them, or plain text. The attribute task of `data/products` (a listing in, its
brand, colour, material or size out) is in none of them: it is what `benchmarks/causal_lm.py`
teaches afterwards.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import make_products
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
ROLES = ("system", "user", "assistant", "tool")
SPECIAL = (PAD, BOS, END, *(f"<|{role}|>" for role in ROLES))

HELD_OUT_OF = 50  # one row in so many is held out
RUN = 12  # words in a row that a training row must not share with a held-out row ...
BOILERPLATE = 40  # ... unless more rows than this share it: then it is the wording of a template
# Per data set of T0, so that two data sets of very long texts do not make half of it.
MAX_T0_BYTES = 2_500_000
N_PRODUCTS = 45_000
N_HELD_OUT_PRODUCTS = 500
PRODUCT_SEED, HELD_OUT_PRODUCT_SEED = 4_001, 4_002  # never the seed of data/products
REPEATS = {"gsm8k": 4, "wikisql": 2, "t0": 2, "products": 1}
SHARE_PLAIN = 0.15  # documents without turns
SHARE_SYSTEM = 0.15  # conversations that open with a system turn
SHARE_TWO = 0.1  # conversations of two questions
WINDOWS = (256, 512, 1024)  # tokens; a document goes to the shortest that holds it
CUT = 512  # tokens of the pieces of a long document
# One in so many documents above CUT stays whole if the longest window holds it: they are slow.
WHOLE_OF = 3

SYSTEM = {
    "gsm8k": ("You solve problems step by step.", "Think step by step; end with #### and the number."),
    "wikisql": ("You turn questions into SQL.", "Answer with one SQL query."),
    "t0": ("You are a helpful assistant.", "Answer briefly."),
    "products": ("You work for a marketplace.", "You know products well."),
}


@dataclass(frozen=True, kw_only=True)
class Document:
    """One exchange of a source.

    Attributes:
        source: name of the source.
        turns: (role, content) in order; one turn of role "text" is plain text.
    """

    source: str
    turns: tuple[tuple[str, str], ...]

    @property
    def plain(self) -> str:
        """The contents, one per line."""
        return "\n".join(content for _, content in self.turns)


def exchange(source: str, prompt: str, answer: str) -> Document:
    """Return a question with its answer."""
    return Document(source=source, turns=(("user", prompt.strip()), ("assistant", answer.strip())))


def is_held_out(key: str) -> bool:
    """Tell whether the row of that key is held out."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % HELD_OUT_OF == 0


# -- sources: (key that decides what is held out, document)
# ----------------------------------------------------------

Keyed = Iterator[tuple[str, Document]]


def gsm8k(folder: Path) -> Keyed:
    """Grade-school problems with worked solutions: the training file alone."""
    with (folder / "gsm8k" / "train.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            yield row["question"], exchange("gsm8k", row["question"], row["answer"])


def gsm8k_test(folder: Path) -> list[Document]:
    """Return the test file of GSM8K, which is never trained on."""
    with (folder / "gsm8k" / "test.jsonl").open(encoding="utf-8") as file:
        return [exchange("gsm8k-test", row["question"], row["answer"]) for row in map(json.loads, file)]


def wikisql(folder: Path) -> Keyed:
    """Training questions with their SQL; all wordings of a query are held out together."""
    for row in json.loads(bz2.decompress((folder / "wikisql" / "wikisql.json.bz2").read_bytes())):
        defaults = {variable["name"]: variable["example"] for variable in row["variables"]}
        for sentence in row["sentences"]:
            if sentence["question-split"] == "train":
                values = {name: sentence["variables"].get(name) or defaults[name] for name in defaults}
                question = with_values(sentence["text"], values)
                yield row["sql"][0], exchange("wikisql", question, with_values(tidy_sql(row["sql"][0]), values))


def tidy_sql(query: str) -> str:
    """Return a query without the alias of its only table: `SELECT notes FROM table`."""
    query = query.replace("TABLE AS TABLEalias0", "table").replace("TABLEalias0.", "").removesuffix(" ;")
    return re.sub(r"(\S+)_FIELD\b", lambda match: match[1].lower(), query)


def with_values(text: str, values: dict[str, str]) -> str:
    """Return the text with variable names replaced by values; some are inside words ("dvar0te")."""
    return re.sub(r"var\d+", lambda match: values.get(match[0], match[0]), text)


def t0(folder: Path) -> Keyed:
    """Prompts of many tasks; a data set is cut off at MAX_T0_BYTES, in the order of hashes."""
    with gzip.open(folder / "t0" / "t0_pool.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    used: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: hashlib.sha256(row["prompt"].encode()).digest()):
        answer = row["completion"].removesuffix("<|endoftext|>").strip()
        size = len(row["prompt"].encode()) + len(answer.encode())
        if answer and row["prompt"].strip() and used[row["dataset"]] + size <= MAX_T0_BYTES:
            used[row["dataset"]] += size
            yield row["prompt"], exchange("t0", row["prompt"], answer)


def products(n: int, seed: int) -> Iterator[Document]:
    """Product listings in four exchanges: name the category, write, tell again, name features."""
    rng = random.Random(seed)
    catalog = make_products.Catalog(rng)
    shipped = {
        json.loads(line)["text"]
        for name in ("train", "test")
        for line in (make_products.FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    }
    for row in make_products.clean_rows(n, catalog, rng, shipped):
        form = rng.choice((categorize, write_listing, tell_again, name_features))
        prompt, answer = form(row, catalog, rng)
        yield exchange("products", prompt, answer)


def categorize(row: Any, catalog: Any, rng: random.Random) -> tuple[str, str]:
    """Ask for the category of a listing."""
    question = rng.choice(("Which category is this?", "Name the category.", "What kind of product is it?"))
    return f"{row.text}\n\n{question}", row.label


def write_listing(row: Any, catalog: Any, rng: random.Random) -> tuple[str, str]:
    """Ask for a listing of a product whose attributes are given: the attribute task reversed."""
    known = [row.product.noun, *(value for _, value in row.product.attributes), *row.product.features]
    rng.shuffle(known)
    return f"Write a {row.source} listing with: {', '.join(known)}.", row.text


def tell_again(row: Any, catalog: Any, rng: random.Random) -> tuple[str, str]:
    """Ask for the listing in the style of another marketplace."""
    again = make_products.told_again(replace(row, text=""), catalog, rng)
    return f"{row.text}\n\nTell it again in the style of {again.source}.", again.text


def name_features(row: Any, catalog: Any, rng: random.Random) -> tuple[str, str]:
    """Ask for the features that the listing praises; never for its attributes."""
    return f"{row.text}\n\nName the features.", "; ".join(row.product.features)


# -- the split
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents to learn from and to measure on, by source, and what was dropped."""

    train: dict[str, list[Document]]
    held_out: dict[str, list[Document]]
    n_dropped: dict[str, int]


def read_corpus(folder: Path) -> Corpus:
    """Read all sources and split them."""
    train: dict[str, list[Document]] = {}
    held_out: dict[str, list[Document]] = {}
    for name, source in (("gsm8k", gsm8k), ("wikisql", wikisql), ("t0", t0)):
        for key, document in source(folder):
            (held_out if is_held_out(key) else train).setdefault(name, []).append(document)
    train["products"] = list(products(N_PRODUCTS, PRODUCT_SEED))
    held_out["products"] = list(products(N_HELD_OUT_PRODUCTS, HELD_OUT_PRODUCT_SEED))
    held_out["gsm8k-test"] = gsm8k_test(folder)
    kept = {name: without_shared_runs(documents, held_out[name]) for name, documents in train.items()}
    dropped = {name: len(train[name]) - len(kept[name]) for name in kept}
    return Corpus(train=kept, held_out=held_out, n_dropped=dropped)


def runs(document: Document) -> set[str]:
    """Return every run of RUN words."""
    words = document.plain.split()
    return {" ".join(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}


def without_shared_runs(train: list[Document], held_out: list[Document]) -> list[Document]:
    """Return the documents that share no run of words with held-out ones, but for boilerplate."""
    watched = set().union(*map(runs, held_out))
    shared = [runs(document) & watched for document in train]
    count = Counter(run for runs in shared for run in runs)
    return [
        document for document, runs in zip(train, shared, strict=True) if all(count[run] > BOILERPLATE for run in runs)
    ]


# -- forms and tokens
# --------------------------------------------------------------------------------------------------


def formed(document: Document, other: Document, rng: random.Random) -> Document:
    """Return a document as learned: plain, or turns, with a system turn or a second exchange."""
    if rng.random() < SHARE_PLAIN:
        return replace(document, turns=(("text", document.plain),))
    turns = document.turns
    if rng.random() < SHARE_TWO and len(document.plain) + len(other.plain) < 1_000:
        turns += other.turns
    if rng.random() < SHARE_SYSTEM:
        turns = (("system", rng.choice(SYSTEM[document.source])), *turns)
    return replace(document, turns=turns)


def learned_documents(corpus: Corpus, rng: random.Random) -> list[Document]:
    """Return what is learned, shuffled: each source REPEATS times, in a new form each time."""
    documents = [
        formed(document, rng.choice(pool), rng)
        for name, pool in corpus.train.items()
        for _ in range(REPEATS[name])
        for document in pool
    ]
    rng.shuffle(documents)
    return documents


def token_ids(document: Document, tokenizer: Tokenizer) -> list[int]:
    """Return the token ids, as the chat template gives them; plain text is between BOS and END."""
    special = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    ids = [special[BOS]]
    for role, content in document.turns:
        ids += [] if role == "text" else [special[f"<|{role}|>"]]
        ids += [*tokenizer.encode(content, add_special_tokens=False).ids, special[END]]
    return ids


def pieces(ids: list[int], longest: int) -> Iterator[list[int]]:
    """Return a document's ids, in pieces that begin with BOS if too long; the last has the END."""
    if len(ids) <= longest:
        yield ids
        return
    bos, body = ids[0], ids[1:]
    for start in range(0, len(body), CUT - 1):
        yield [bos, *body[start : start + CUT - 1]]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Windows of one length, filled with whole documents.

    Attributes:
        tokens: (n, window) int16 token ids, padded at the end.
        document: (n, window) int16, which document of its window a token belongs to, -1 for
            padding.
    """

    tokens: NDArray[np.int16]
    document: NDArray[np.int16]


N_OPEN = 24  # windows that are being filled at a time


def pack(documents: list[list[int]], window: int, pad_id: int, fillers: list[list[int]]) -> Packed:
    """Lay documents into windows, each into the open window that it fills best.

    Args:
        documents: token ids, none longer than the window.
        window: tokens.
        pad_id: of the padding token.
        fillers: short documents for what room is left; those that are used are taken off the end of
            the list.
    """
    closed: list[list[list[int]]] = []
    opened: list[list[list[int]]] = []
    room: list[int] = []
    for ids in documents:
        fitting = [(left, at) for at, left in enumerate(room) if left >= len(ids)]
        if fitting:
            at = min(fitting)[1]
            opened[at].append(ids)
            room[at] -= len(ids)
            continue
        if len(opened) == N_OPEN:
            fullest = room.index(min(room))
            closed.append(opened.pop(fullest))
            room.pop(fullest)
        opened.append([ids])
        room.append(window - len(ids))
    closed += opened
    tokens = np.full((len(closed), window), pad_id, dtype=np.int16)
    document = np.full((len(closed), window), -1, dtype=np.int16)
    for row, filling in enumerate(closed):
        add_short_documents(filling, window - sum(map(len, filling)), fillers)
        flat = [token for ids in filling for token in ids]
        tokens[row, : len(flat)] = flat
        document[row, : len(flat)] = np.repeat(np.arange(len(filling)), [len(ids) for ids in filling])
    return Packed(tokens=tokens, document=document)


def add_short_documents(filling: list[list[int]], room: int, fillers: list[list[int]]) -> None:
    """Move short documents into a window: of the last few, each time the longest that fits."""
    while fitting := [(len(ids), -at) for at, ids in enumerate(reversed(fillers[-N_OPEN:]), 1) if len(ids) <= room]:
        filling.append(fillers.pop(max(fitting)[1]))
        room -= len(filling[-1])


def pack_all(documents: Iterable[Document], tokenizer: Tokenizer) -> dict[int, Packed]:
    """Return windows by length; a document is in the shortest that holds it, or fills another."""
    by_window: dict[int, list[list[int]]] = {window: [] for window in WINDOWS}
    n_long = 0
    for document in documents:
        ids = token_ids(document, tokenizer)
        n_long += len(ids) > CUT
        for piece in pieces(ids, CUT if n_long % WHOLE_OF else WINDOWS[-1]):
            by_window[next(window for window in WINDOWS if len(piece) <= window)].append(piece)
    pad_id, short = tokenizer.token_to_id(PAD), by_window.pop(WINDOWS[0])
    packed = {window: pack(by_window[window], window, pad_id, short) for window in reversed(WINDOWS[1:])}
    packed[WINDOWS[0]] = pack(short, WINDOWS[0], pad_id, [])
    return {window: part for window, part in packed.items() if len(part.tokens)}
