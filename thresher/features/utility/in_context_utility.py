"""How much a row helps a language model with another when it is an example in the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from thresher.cache.batch import Batch
from thresher.cache.fingerprint import combine_fingerprints
from thresher.errors import InputError
from thresher.features.context import FeatureContext
from thresher.features.embedding import Embedding
from thresher.features.registry import FeatureProvider, FeatureValues, describe_missing
from thresher.features.utility.example_pairs import RECIPE as TRIED
from thresher.features.utility.example_pairs import ExampleCounts, best_tried, first_tried
from thresher.models.causal_lm.chat_template import mark_tokens
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.causal_lm.likelihood import TokenRow
from thresher.models.causal_lm.shared_prefix import score_pairs
from thresher.models.causal_lm.tokenized_rows import CUT_AWAY, NO_TOKEN, describe_problems, tokenize_with_offsets
from thresher.models.stages import Stage
from thresher.models.token_batches import BATCH_TOKENS
from thresher.numeric.arrays import Float64, Int64

if TYPE_CHECKING:
    from thresher.dataset import Dataset

NAME = "in_context_utility"
RECIPE = "utility-2"
STORED_AS = "utility"  # in the cache, from before a renaming
IN_CONTEXT_UTILITY = np.dtype([("example", np.int64), ("utility", np.float64)])

# The paper's prompts, but for the query, whose words are the same in both, so that exactly the same
# tokens are scored.
ALONE = "Instruction: Please generate a response to the following query."
GUIDED = (
    "Instruction:\nUse the following example as a guide to answer the query in the same format and style, "
    "providing a clear and concise response.\n\n\nExample:\n"
)
BREAK = "\n\n\n"
QUERY = "Query:\n"
GROUP_PAIRS = 64  # of one example, that an estimate takes together
DIGEST = 32  # characters of a row's key


class InContextUtility(FeatureProvider):
    """Utility of examples: distance of the model from the response without one, minus with it.

    The distance is that between the response's tokens and the model's probabilities of them under
    teacher forcing, sqrt(mean over tokens of (1 - p)^2), 0 to 1, as in DELIFT (Agarwal et al. 2025,
    arXiv:2411.04425). Above 0: the example helps. An entry depends on the row and on the examples
    that were tried: unlike other features, a row's value changes with the other rows.

    Each row is tried with itself and `n_examples` other rows, or with so many of
    `context.examples`: its nearest ones by embedding, some sampled ones, and those that then have
    helped most (`ExampleCounts`). The example stands first, so that its keys and values are
    computed once for all rows it is tried with. Of the longest input, half is for the example and
    half for the row.
    """

    name: ClassVar[str] = NAME
    passes: ClassVar[str] = (
        "the language model reads n rows alone and n (m + 1) rows behind an example, m examples "
        "for each row; each example is read once, the m / 2 best ones twice; the encoder reads n texts"
    )
    is_pairwise: ClassVar[bool] = True

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the models, how many examples are tried, and the fingerprint of the model."""
        lm = context.load_language_model()
        return {
            "model": lm.name,
            "max_length": str(lm.limit_length(context.models.max_length)),
            "n_examples": "all" if context.n_examples is None else str(context.n_examples),
            "tried": TRIED,
            "dtype": lm.dtype,
            "fingerprint": _fingerprint(lm, context),
            **{f"neighbors_{key}": value for key, value in Embedding().describe(context).items()},
        }

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n, m) of IN_CONTEXT_UTILITY: the examples tried, itself first, and utility.

        A row without a scored token has NaN throughout, and its reason.

        Raises:
            InputError: the rows are plain text, which has no prompt to put an example before.
        """
        examples = dataset if context.examples is None else context.examples
        if "text" in (dataset.kind, examples.kind):
            raise InputError(f"{NAME}: rows need a prompt and a response, found plain text")
        context = context.resolved()
        # referenced, so that features computed after this one share it
        self._lm = lm = context.load_language_model()
        limit = lm.limit_length(context.models.max_length) // 2
        pool = _Queries.from_rows(dataset, lm, limit)
        measured = _Pairs(lm, pool, examples, limit, context)
        tried, utility = _try_examples(dataset, measured, context)  # (n, m) each
        n, m = tried.shape
        is_fine = pool.problem == 0
        values = np.empty((n, m), IN_CONTEXT_UTILITY)
        values["example"], values["utility"] = tried, utility
        notes = {
            "rows": n,
            "rows_missing": int((~is_fine).sum()),
            "rows_truncated": int(pool.is_cut[is_fine].sum()),
            "examples_truncated": len(measured.cut_examples),
            "pairs": int(is_fine.sum()) * m,
        }
        context.report_notes(self.name, n, (*lm.notes(), *_sentences(notes, limit)))
        return FeatureValues(values=values, missing=describe_problems(pool.problem), notes=notes)


@dataclass(frozen=True)
class _Queries:
    """Rows as they stand behind an example.

    Attributes:
        rows: (n,) the query and its response, which is scored.
        problem: (n,) int64 into PROBLEMS.
        is_cut: (n,) bool, whether a part of the response is behind the limit.
        digests: (n,) what a row is known by in the cache.
    """

    rows: list[TokenRow]
    problem: Int64
    is_cut: NDArray[np.bool_]
    digests: list[str]

    @classmethod
    def from_rows(cls, dataset: Dataset, lm: LanguageModel, limit: int) -> _Queries:
        prompts, responses = (dataset.frame[name].to_list() for name in ("prompt", "response"))
        rows, problem, is_cut = [], [], []
        heads = [f"{QUERY}{prompt}\n" for prompt in prompts]
        texts = [head + response for head, response in zip(heads, responses, strict=True)]
        for head, text, (ids, offsets) in zip(heads, texts, tokenize_with_offsets(lm.tokenizer, texts), strict=True):
            is_scored = np.array(mark_tokens([(len(head), len(text))], offsets), dtype=np.bool_)
            rows.append(TokenRow(np.array(ids[:limit], dtype=np.int32), is_scored[:limit]))
            problem.append(0 if rows[-1].is_scored.any() else CUT_AWAY if is_scored.any() else NO_TOKEN)
            is_cut.append(bool(is_scored[limit:].any()))
        return cls(rows, np.array(problem, dtype=np.int64), np.array(is_cut, dtype=np.bool_), _digests(dataset))


class _Pairs:
    """The utility of pairs of a row and an example; distances are computed once and cached.

    Attributes:
        examples: that rows are tried with.
        digests: (q,) what an example is known by in the cache.
        cut_examples: of those that were tried, the ones longer than half of the longest input.
    """

    def __init__(
        self, lm: LanguageModel, pool: _Queries, examples: Dataset, limit: int, context: FeatureContext
    ) -> None:
        self.pool = pool
        self.examples = examples
        self.digests = _digests(examples)
        self.cut_examples: set[int] = set()
        self._lm = lm
        self._limit = limit
        self._context = context

    def measure_utility(self, tried: Int64) -> Float64:
        """Return (n, m) utility of examples (n, m), NaN for rows without a scored token."""
        n, m = tried.shape
        fine = np.flatnonzero(self.pool.problem == 0)
        pairs = np.stack([np.repeat(fine, m), tried[fine].reshape(-1)], axis=1)
        utility = np.full((n, m), np.nan)
        utility[fine] = self._distances_alone[:, None] - self._measure_distances(pairs).reshape(-1, m)
        return utility

    @cached_property
    def _distances_alone(self) -> Float64:
        """Distances without an example, of the rows that have one."""
        fine = np.flatnonzero(self.pool.problem == 0)
        return self._measure_distances(np.stack([fine, np.full(len(fine), -1)], axis=1))

    def _measure_distances(self, pairs: Int64) -> Float64:
        """Return (p,) float64 of pairs (p, 2) of a row and an example, -1 for none."""
        used = np.unique(pairs[:, 1])
        prefixes = self._tokenize_prefixes(used[used >= 0])
        # a key is the digest of the row, followed by that of the example where there is one
        row_of = {digest: row for row, digest in enumerate(self.pool.digests)}
        slot_of = {self.digests[example]: slot for slot, example in enumerate(used[used >= 0], start=1)}
        keys = [self.pool.digests[row] + (self.digests[example] if example >= 0 else "") for row, example in pairs]
        # stored keys and values of prefixes take memory too
        budget = self._context.models.batch_tokens or BATCH_TOKENS

        def batches(texts: pl.Series) -> Iterator[Batch]:
            # (b, 2): slot of the prefix, 0 for the instruction alone, and the row
            slots_and_rows = [
                (slot_of[key[DIGEST:]] if len(key) > DIGEST else 0, row_of[key[:DIGEST]]) for key in texts.to_list()
            ]
            at = np.array(slots_and_rows, dtype=np.int64)
            for scored in score_pairs(self._lm, prefixes, self.pool.rows, at, batch_tokens=budget):
                yield Batch(scored.positions, np.array([distance(each) for each in scored.log_probs]))

        stage = Stage(
            name=NAME,
            texts=pl.Series("pair", keys, dtype=pl.String),
            compute=batches,
            feature=STORED_AS,
            model=self._lm.name,
            fingerprint=_fingerprint(self._lm, self._context),
            # an example is read once for all rows it is tried with
            groups=_group_pairs(pairs[:, 1]),
        )
        values = self._context.run_stage(stage)
        return np.zeros(0) if values is None else values

    def _tokenize_prefixes(self, examples: Int64) -> list[NDArray[np.int32]]:
        """Return what stands before a query: the instruction alone, then each example."""
        frame = self.examples.frame[examples]
        bodies = [f"{GUIDED}{x}\n{y}" for x, y in zip(frame["prompt"], frame["response"], strict=True)]
        (end, _), *tokens = tokenize_with_offsets(self._lm.tokenizer, [BREAK, ALONE, *bodies])
        room = self._limit - 1 - len(end)
        is_cut = np.array([len(ids) > room for ids, _ in tokens[1:]], dtype=np.bool_)
        self.cut_examples |= set(examples[is_cut].tolist())
        return [np.array([self._lm.start_id, *ids[:room], *end], dtype=np.int32) for ids, _ in tokens]


def _group_pairs(examples: Int64) -> Int64:
    """Return groups of pairs of the same example, of GROUP_PAIRS at most: (p,) int64."""
    order = np.argsort(examples, kind="stable")
    # where the example's first pair stands in that order
    starts = np.searchsorted(examples[order], examples)
    place = np.empty(len(examples), dtype=np.int64)
    place[order] = np.arange(len(examples))
    return np.unique(np.stack([examples, (place - starts) // GROUP_PAIRS], axis=1), axis=0, return_inverse=True)[1]


def distance(log_probs: NDArray[np.float32]) -> float:
    """Return the model's distance from a response, 0 to 1: sqrt(mean of (1 - p)^2)."""
    return float(np.sqrt(np.mean((1 - np.exp(log_probs.astype(np.float64))) ** 2)))


def _try_examples(dataset: Dataset, pairs: _Pairs, context: FeatureContext) -> tuple[Int64, Float64]:
    """Return the examples each row is tried with, (n, m), itself first, and their utility."""
    is_own, q = pairs.examples is dataset, len(pairs.examples)
    m = q if context.n_examples is None else min(context.n_examples + is_own, q)
    if m == q:
        every = np.tile(np.arange(q), (len(dataset), 1))
        tried = np.argsort(every != np.arange(q)[:, None], axis=1, kind="stable") if is_own else every
        return tried, pairs.measure_utility(tried)
    embedding, counts = Embedding(), ExampleCounts.divide(m - is_own)
    x = embedding.compute(dataset, context)
    names = pairs.pool.digests, pairs.digests
    tried = first_tried(x, x if is_own else embedding.compute(pairs.examples, context), counts, names)
    utility = pairs.measure_utility(tried)
    if counts.best:
        best = best_tried(tried, utility, q, counts.best)
        utility = np.concatenate([utility, pairs.measure_utility(best)], axis=1)
        tried = np.concatenate([tried, best], axis=1)
    return tried, utility


def _digests(dataset: Dataset) -> list[str]:
    rows = zip(dataset.frame["prompt"], dataset.frame["response"], strict=True)
    return [xxhash.xxh3_128_hexdigest(f"{len(prompt)}\0{prompt}{response}".encode()) for prompt, response in rows]


def _fingerprint(lm: LanguageModel, context: FeatureContext) -> str:
    return combine_fingerprints(lm.fingerprint, f"{RECIPE}-{lm.limit_length(context.models.max_length)}")


def _sentences(notes: dict[str, int], limit: int) -> Iterator[str]:
    """Yield what the user should know of rows that were cut or have no value."""
    if notes["rows_truncated"]:
        yield f"{NAME}: {notes['rows_truncated']:,} responses exceed the {limit:,} tokens of a row and were truncated"
    if notes["examples_truncated"]:
        yield f"{NAME}: {notes['examples_truncated']:,} examples are longer than {limit:,} tokens and were cut"
    yield from describe_missing(NAME, notes)
