"""BERT's WordPiece tokens of many texts: each distinct word is tokenized once, then looked up.

WordPiece reads each word alone, so the tokens of a text are those of its words. A compiled scan
cuts texts into words as `BertNormalizer` and `BertPreTokenizer` do for ASCII and finds each in a
hash table; a word that is not there yet is tokenized by the `tokenizers` library itself. A stretch
between spaces that holds anything else (letters beyond ASCII, a character that may begin a special
token) goes to that library as a whole, and into the same table.

    texts --scan--> words of each text --table--> token ids
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray
from tokenizers import Tokenizer

from thresher.numeric.numba_jit import jit

BATCH_BYTES = 1 << 20  # of text: its words and tokens stay in the processor's cache
MAX_WORDS = 1 << 20  # a table of more is forgotten before the next batch
MAX_WORD_BYTES = 64 << 20
NONE, SPACE, PUNCTUATION, LETTER, FOREIGN = range(5)  # what a byte is to the scan
EMPTY_HASH = np.uint64(0xCBF29CE484222325)  # FNV-1a's, of no byte
LONG = -1  # stands for a word that is longer than the tokenizer reads


class TokenRuns(NamedTuple):
    """Tokens of some consecutive texts.

    Attributes:
        first: position of the first of the texts.
        start: (b + 1,) int64, text i has the tokens `start[i]:start[i + 1]`.
        ids: (m,) int32, unknown words included, special tokens not added.
    """

    first: int
    start: NDArray[np.int64]
    ids: NDArray[np.int32]


class WordPieces:
    """Reads texts as a BERT `tokenizer.json` does, without truncation and without added tokens.

    Cost: about 3 ns per byte, and the library's time for each distinct word. The table takes about
    30 bytes per distinct word and is bounded.

    Args:
        path: a tokenizer for which `reads` is true.
    """

    def __init__(self, path: Path) -> None:
        content = orjson.loads(path.read_bytes())
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        model, normalizer = content["model"], content["normalizer"]
        self.unknown: int = model["vocab"][model["unk_token"]]  # id of the token of unknown words
        self._longest: int = model["max_input_chars_per_word"]
        self._kind, self._lower = _byte_tables(
            is_lowercase=normalizer["lowercase"], special=[token["content"] for token in content["added_tokens"]]
        )
        self._table = _Table()
        self._piece_start = np.zeros(1, np.int64)  # word -> its tokens
        self._piece = np.empty(0, np.int32)

    @staticmethod
    def reads(path: Path) -> bool:
        """Tell whether a tokenizer is a WordPiece with BERT's rules, which this class knows."""
        content = orjson.loads(path.read_bytes())
        normalizer, cutter = content.get("normalizer") or {}, content.get("pre_tokenizer") or {}
        model = content.get("model") or {}
        special = [token["content"] for token in content.get("added_tokens", ())]
        return (
            normalizer.get("type") == "BertNormalizer"
            and normalizer.get("clean_text") is True
            and normalizer.get("strip_accents") in (None, normalizer.get("lowercase"))
            and cutter.get("type") == "BertPreTokenizer"
            and model.get("type") == "WordPiece"
            and model.get("unk_token") in model.get("vocab", ())
            and all(text.isascii() and text and not any(map(str.isspace, text)) for text in special)
            and not any(token["lstrip"] or token["rstrip"] for token in content.get("added_tokens", ()))
        )

    def encode_batches(self, texts: pl.Series) -> Iterator[TokenRuns]:
        """Yield the tokens of all texts, in order, about a megabyte of text at a time."""
        for first, text, end in _utf8_batches(texts):
            if len(self._table) > MAX_WORDS or self._table.n_bytes > MAX_WORD_BYTES:
                self._table = _Table()
                self._piece_start, self._piece = np.zeros(1, np.int64), np.empty(0, np.int32)
            words, word_end = self._table.scan(text, end, self._kind, self._lower, self._longest)
            self._learn()
            start = _token_starts(words, word_end, self._piece_start)
            ids = np.empty(start[-1], np.int32)
            _expand(words, self._piece_start, self._piece, self.unknown, ids)
            yield TokenRuns(first, start, ids)

    def _learn(self) -> None:
        """Ask the library for the tokens of the words that are in the table and have none yet."""
        fresh = self._table.list_words(len(self._piece_start) - 1)
        if not fresh:
            return
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(fresh, add_special_tokens=False)]
        ends = np.cumsum([len(ids) for ids in tokens]) + self._piece_start[-1]
        self._piece_start = np.concatenate([self._piece_start, ends])
        pieces = np.fromiter(itertools.chain.from_iterable(tokens), np.int32)
        self._piece = np.concatenate([self._piece, pieces])


class _Table:
    """Distinct words, numbered in order of appearance: an open hash table over their bytes."""

    def __init__(self) -> None:
        self._slot = np.full(1 << 16, -1, np.int32)  # hash -> word
        self._hash = np.empty(1 << 15, np.uint64)  # of each word
        self._end = np.zeros((1 << 15) + 1, np.int64)  # word w has the bytes end[w]:end[w + 1]
        self._bytes = np.empty(1 << 20, np.uint8)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def n_bytes(self) -> int:
        return int(self._end[self._n])

    def list_words(self, first: int) -> list[str]:
        """Return the words from a number on."""
        ends = self._end[first : self._n + 1].tolist()
        content = self._bytes[: self.n_bytes].tobytes()
        return [content[start:end].decode() for start, end in itertools.pairwise(ends)]

    def scan(
        self, text: NDArray[np.uint8], end: NDArray[np.int64], kind: Any, lower: Any, longest: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the numbers of the words of all texts, new ones entered, and where each text ends.

        Args:
            text: bytes of all texts.
            end: (b + 1,) text i has the bytes end[i]:end[i + 1].
            kind: (256,) what each byte is.
            lower: (256,) the byte that stands for it.
            longest: characters of the longest word that is looked up.
        """
        words = np.empty(len(text), np.int32)
        word_end = np.zeros(len(end), np.int64)
        at = 0
        while at < len(end) - 1:
            at, self._n = _scan(
                text, end, at, kind, lower, longest, self._slot, self._hash, self._end, self._bytes, self._n,
                words, word_end,
            )  # fmt: skip
            if at < len(end) - 1:
                self._grow(int(end[at + 1] - end[at]))
        return words[: word_end[-1]], word_end

    def _grow(self, n_bytes: int) -> None:
        """Make room for a text of so many bytes: at most as many words."""
        n_words = self._n + n_bytes
        if n_words > len(self._hash):
            size = 1 << int(2 * n_words - 1).bit_length()
            self._hash = _enlarged(self._hash, size // 2)
            self._end = _enlarged(self._end, size // 2 + 1)
            self._slot = np.full(size, -1, np.int32)
            _enter_all(self._slot, self._hash, self._n)
        if self.n_bytes + n_bytes > len(self._bytes):
            self._bytes = _enlarged(self._bytes, 2 * (self.n_bytes + n_bytes))


def _enlarged(array: NDArray[Any], size: int) -> NDArray[Any]:
    out = np.empty(size, array.dtype)
    out[: len(array)] = array
    return out


def _byte_tables(*, is_lowercase: bool, special: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return what each byte is, and the byte that stands for it."""
    kind = np.full(256, LETTER, np.uint8)
    kind[:32] = kind[127] = NONE  # control characters are left out
    kind[list(b"\t\n\r ")] = SPACE
    kind[[*range(33, 48), *range(58, 65), *range(91, 97), *range(123, 127)]] = PUNCTUATION
    kind[128:] = FOREIGN
    kind[[ord(text[0]) for text in special]] = FOREIGN
    lower = np.arange(256, dtype=np.uint8)
    if is_lowercase:
        lower[ord("A") : ord("Z") + 1] += 32
    return kind, lower


def _utf8_batches(texts: pl.Series) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.int64]]]:
    """Yield (first position, bytes, ends) of consecutive texts of about `BATCH_BYTES` together."""
    total = np.concatenate([[0], texts.str.len_bytes().cum_sum().to_numpy()]).astype(np.int64)
    first = 0
    while first < len(texts):
        stop = max(int(np.searchsorted(total, total[first] + BATCH_BYTES, "right")) - 1, first + 1)
        arrow = texts[first:stop].to_arrow(compat_level=pl.CompatLevel.oldest())
        _, offsets, content = arrow.buffers()
        ends = np.frombuffer(offsets, np.int64)[arrow.offset : arrow.offset + len(arrow) + 1]
        base = int(ends[0])
        text = np.frombuffer(content, np.uint8)[base : int(ends[-1])] if content is not None else np.empty(0, np.uint8)
        yield first, text, ends - base
        first = stop


@jit
def _enter_all(slot: Any, hashes: Any, n: int) -> None:
    """Enter the first n words into an empty table."""
    mask = np.uint64(len(slot) - 1)
    for word in range(n):
        at = hashes[word] & mask
        while slot[at] >= 0:
            at = (at + np.uint64(1)) & mask
        slot[at] = word


@jit
def _find(slot: Any, hashes: Any, ends: Any, content: Any, n: Any, length: Any, key: Any) -> Any:
    """Return the number of the word whose bytes lie behind the last one's; n where it was new."""
    mask = np.uint64(len(slot) - 1)
    begin = ends[n]
    at = key & mask
    while slot[at] >= 0:  # linear probing: an empty slot ends the search
        word = slot[at]
        if hashes[word] == key and ends[word + 1] - ends[word] == length:
            is_equal = True
            for i in range(length):
                if content[ends[word] + i] != content[begin + i]:
                    is_equal = False
                    break
            if is_equal:
                return word
        at = (at + np.uint64(1)) & mask
    slot[at] = n
    hashes[n] = key
    ends[n + 1] = begin + length
    return n


@jit
def _hashed(key: Any, byte: Any) -> Any:
    return (key ^ np.uint64(byte)) * np.uint64(0x100000001B3)  # FNV-1a


@jit
def _mixed(key: Any) -> Any:
    key ^= key >> np.uint64(32)
    key *= np.uint64(0xD6E8FEB86659FD93)
    return key ^ (key >> np.uint64(32))


@jit
def _scan(  # noqa: C901
    text: Any, end: Any, first: int, kind: Any, lower: Any, longest: int,
    slot: Any, hashes: Any, ends: Any, content: Any, n: int, words: Any, word_end: Any,
) -> Any:  # fmt: skip
    """Write the words of each text; return the first text without room, and the words known."""
    n_out = word_end[first]
    for t in range(first, len(end) - 1):
        n_text = end[t + 1] - end[t]
        if n + n_text > len(hashes) or ends[n] + n_text > len(content):
            return t, n
        i = end[t]
        while i < end[t + 1]:
            if kind[text[i]] == SPACE:
                i += 1
                continue
            # text[i:stop] is a stretch between spaces; with a foreign byte it is one word
            stop, is_foreign = i, False
            while stop < end[t + 1] and kind[text[stop]] != SPACE:
                is_foreign |= kind[text[stop]] == FOREIGN
                stop += 1
            # length and hash of the word so far, whose bytes lie behind the table's last
            length, key = 0, EMPTY_HASH
            while i < stop:
                c, what = (text[i], LETTER) if is_foreign else (lower[text[i]], kind[text[i]])
                if length and what == PUNCTUATION:  # the word before it ends here
                    word = LONG
                    if length <= longest:
                        word = _find(slot, hashes, ends, content, n, length, _mixed(key))
                        n += word == n
                    words[n_out] = word
                    n_out += 1
                    length, key = 0, EMPTY_HASH
                if what != NONE:  # control characters are left out
                    content[ends[n] + length] = c
                    key = _hashed(key, c)
                    length += 1
                i += 1
                if length and (what == PUNCTUATION or i == stop):  # a mark is a word of its own
                    word = LONG
                    if is_foreign or length <= longest:
                        word = _find(slot, hashes, ends, content, n, length, _mixed(key))
                        n += word == n
                    words[n_out] = word
                    n_out += 1
                    length, key = 0, EMPTY_HASH
        word_end[t + 1] = n_out
    return len(end) - 1, n


@jit
def _token_starts(words: Any, word_end: Any, piece_start: Any) -> Any:
    """Return where the tokens of each text start, and where the last ones end: (b + 1,)."""
    start = np.zeros(len(word_end), np.int64)
    for t in range(len(word_end) - 1):
        total = 0
        for m in range(word_end[t], word_end[t + 1]):
            word = words[m]
            total += 1 if word == LONG else piece_start[word + 1] - piece_start[word]
        start[t + 1] = start[t] + total
    return start


@jit
def _expand(words: Any, piece_start: Any, piece: Any, unknown: int, ids: Any) -> None:
    """Write the tokens of the words one after the other."""
    at = 0
    for word in words:
        if word == LONG:
            ids[at] = unknown
            at += 1
            continue
        for m in range(piece_start[word], piece_start[word + 1]):
            ids[at] = piece[m]
            at += 1
