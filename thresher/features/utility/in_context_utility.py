"""How much a row helps a language model with another one when it stands in the prompt as an example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from thresher.cache.batch import Batch
from thresher.cache.by_text import compute_cached
from thresher.cache.dry_run import StageCost
from thresher.cache.fingerprint import combine_fingerprints
from thresher.errors import InputError
from thresher.features.context import FeatureContext
from thresher.features.cost import merged, run_rehearsal
from thresher.features.embedding import Embedding
from thresher.features.registry import FeatureProvider, FeatureValues
from thresher.features.utility.example_pairs import RECIPE as TRIED
from thresher.features.utility.example_pairs import Shares, best_tried, first_tried
from thresher.models.causal_lm.chat_template import mark_tokens
from thresher.models.causal_lm.language_model import LanguageModel, language_model
from thresher.models.causal_lm.likelihood import TokenRow
from thresher.models.causal_lm.shared_prefix import score_pairs
from thresher.models.causal_lm.tokenized_rows import CUT_AWAY, DEFAULT_MAX_LENGTH, NO_TOKEN, PROBLEMS
from thresher.models.token_batches import BATCH_TOKENS
from thresher.progress import Progress

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
GROUP_PAIRS = 64  # of one example, that a rehearsal takes together
DIGEST = 32  # characters of a row's key


class InContextUtility(FeatureProvider):
    """Utility of examples for each row: distance of the model from the response without the example, minus with it.

    The distance is that between the response's tokens and the model's probabilities of them under
    teacher forcing, sqrt(mean over tokens of (1 - p)^2), 0 to 1, as in DELIFT (Agarwal et al. 2025,
    arXiv:2411.04425). Above 0: the example helps. An entry depends on the row and on the examples
    that were tried: unlike other features, a row's value changes with the other rows.

    Each row is tried with itself and `n_examples` other rows, or with so many of
    `context.examples`: its nearest ones by embedding, some that are drawn, and those that then have
    helped most (`Shares`). The example stands first, so that its keys and values are computed once
    for all rows it is tried with. Of the longest input, half is for the example and half for the
    row.
    """

    name: ClassVar[str] = NAME
    passes: ClassVar[str] = (
        "the language model reads n rows alone and n (m + 1) rows behind an example, m examples "
        "for each row; each example is read once, the m / 2 best ones twice; the encoder reads n texts"
    )
    is_pairwise: ClassVar[bool] = True

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the models, how many examples are tried, and the fingerprint of the model that is asked."""
        lm = _language_model(context)
        return {
            "model": lm.name,
            "max_length": str(_max_length(lm, context)),
            "n_examples": "all" if context.n_examples is None else str(context.n_examples),
            "tried": TRIED,
            "dtype": lm.dtype,
            "fingerprint": _fingerprint(lm, context),
            **{f"neighbors_{key}": value for key, value in Embedding().describe(context).items()},
        }

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n, m) of IN_CONTEXT_UTILITY: the examples that were tried, the row itself first, and their utility.

        A row without a scored token has NaN throughout, and its reason.

        Raises:
            InputError: the rows are plain text, which has no prompt to put an example before.
        """
        examples = dataset if context.examples is None else context.examples
        if "text" in (dataset.kind, examples.kind):
            raise InputError(f"{NAME}: rows need a prompt and a response, found plain text")
        context = context.resolved(len(dataset))
        self._lm = lm = _language_model(context)  # kept, so that the features computed after this one share it
        limit = _max_length(lm, context) // 2
        pool = _Queries.of(dataset, lm, limit)
        asked = _Asked(lm, pool, examples, limit, context)
        tried, utility = _tried(dataset, asked, context)  # (n, m) each
        n, m = tried.shape
        is_fine = pool.problem == 0
        values = np.empty((n, m), IN_CONTEXT_UTILITY)
        values["example"], values["utility"] = tried, utility
        notes = {
            "rows": n,
            "rows_missing": int((~is_fine).sum()),
            "rows_truncated": int(pool.is_cut[is_fine].sum()),
            "examples_truncated": len(asked.cut_examples),
            "pairs": int(is_fine.sum()) * m,
        }
        for note in (*lm.notes(), *_sentences(notes, limit)):
            if context.on_progress is not None:
                context.on_progress(Progress(stage=self.name, done=n, total=n, note=note))
        missing = pl.Series("missing", [PROBLEMS[code] or None for code in pool.problem], dtype=pl.String)
        return FeatureValues(values=values, missing=missing, notes=notes)

    def estimate_cost(self, dataset: Dataset, context: FeatureContext) -> list[StageCost]:
        """Return what it will take: rows alone and both rounds of examples as one step."""
        stages = run_rehearsal(self, dataset, context)
        own = [stage for stage in stages if stage.stage == self.name]
        return [*(stage for stage in stages if stage.stage != self.name), merged(self.name, own)]


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
    problem: NDArray[np.int64]
    is_cut: NDArray[np.bool_]
    digests: list[str]

    @classmethod
    def of(cls, dataset: Dataset, lm: LanguageModel, limit: int) -> _Queries:
        prompts, responses = (dataset.frame[name].to_list() for name in ("prompt", "response"))
        rows, problem, is_cut = [], [], []
        heads = [f"{QUERY}{prompt}\n" for prompt in prompts]
        texts = [head + response for head, response in zip(heads, responses, strict=True)]
        for head, text, (ids, offsets) in zip(heads, texts, _tokenized(lm, texts), strict=True):
            is_scored = np.array(mark_tokens([(len(head), len(text))], offsets), dtype=np.bool_)
            rows.append(TokenRow(np.array(ids[:limit], dtype=np.int32), is_scored[:limit]))
            problem.append(0 if rows[-1].is_scored.any() else CUT_AWAY if is_scored.any() else NO_TOKEN)
            is_cut.append(bool(is_scored[limit:].any()))
        return cls(rows, np.array(problem, dtype=np.int64), np.array(is_cut, dtype=np.bool_), _digests(dataset))


class _Asked:
    """The utility of pairs of a row and an example; distances are computed once and kept in the cache.

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

    def utility(self, tried: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (n, m) utility of examples (n, m) for each row, NaN for rows without a scored token."""
        n, m = tried.shape
        fine = np.flatnonzero(self.pool.problem == 0)
        pairs = np.stack([np.repeat(fine, m), tried[fine].reshape(-1)], axis=1)
        found = np.full((n, m), np.nan)
        found[fine] = self._alone[:, None] - self._distances(pairs).reshape(-1, m)
        return found

    @cached_property
    def _alone(self) -> NDArray[np.float64]:
        """Distances without an example, of the rows that have one."""
        fine = np.flatnonzero(self.pool.problem == 0)
        return self._distances(np.stack([fine, np.full(len(fine), -1)], axis=1))

    def _distances(self, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (p,) float64 of pairs (p, 2) of a row and an example, -1 for none."""
        context = self._context
        used = np.unique(pairs[:, 1])
        prefixes = self._prefixes(used[used >= 0])
        row_of = {digest: row for row, digest in enumerate(self.pool.digests)}
        slot_of = {self.digests[example]: slot for slot, example in enumerate(used[used >= 0], start=1)}
        keys = [self.pool.digests[row] + (self.digests[example] if example >= 0 else "") for row, example in pairs]

        def batches(texts: pl.Series) -> Iterator[Batch]:
            keys = texts.to_list()
            asked = [(slot_of[key[DIGEST:]] if len(key) > DIGEST else 0, row_of[key[:DIGEST]]) for key in keys]
            at = np.array(asked, dtype=np.int64)
            budget = context.models.batch_tokens or BATCH_TOKENS  # what is kept of prefixes takes memory too
            for found in score_pairs(self._lm, prefixes, self.pool.rows, at, batch_tokens=budget):
                yield Batch(found.positions, np.array([distance(each) for each in found.log_probs]))

        partition = None
        if context.cache is not None:
            partition = context.cache.partition(STORED_AS, self._lm.name, _fingerprint(self._lm, context))
        texts = pl.Series("pair", keys, dtype=pl.String)
        values = compute_cached(
            texts,
            batches,
            feature=NAME,
            partition=partition,
            on_progress=context.on_progress,
            together=_groups(pairs[:, 1]),  # an example is read once for all rows it is tried with
        )
        return np.zeros(0) if values is None else values

    def _prefixes(self, examples: NDArray[np.int64]) -> list[NDArray[np.int32]]:
        """Return what stands before a query: nothing but the instruction, then each of the examples."""
        frame = self.examples.frame[examples]
        bodies = [f"{GUIDED}{x}\n{y}" for x, y in zip(frame["prompt"], frame["response"], strict=True)]
        (end, _), *tokens = _tokenized(self._lm, [BREAK, ALONE, *bodies])
        room = self._limit - 1 - len(end)
        is_cut = np.array([len(ids) > room for ids, _ in tokens[1:]], dtype=np.bool_)
        self.cut_examples |= set(examples[is_cut].tolist())
        return [np.array([self._lm.start_id, *ids[:room], *end], dtype=np.int32) for ids, _ in tokens]


def _groups(examples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return groups of pairs of the same example, of GROUP_PAIRS at most: (p,) int64."""
    order = np.argsort(examples, kind="stable")
    starts = np.searchsorted(examples[order], examples)
    place = np.empty(len(examples), dtype=np.int64)
    place[order] = np.arange(len(examples))
    return np.unique(np.stack([examples, (place - starts) // GROUP_PAIRS], axis=1), axis=0, return_inverse=True)[1]


def distance(log_probs: NDArray[np.float32]) -> float:
    """Return how far the model is from a response: sqrt(mean over its tokens of (1 - p)^2), 0 to 1."""
    return float(np.sqrt(np.mean((1 - np.exp(log_probs.astype(np.float64))) ** 2)))


def _tried(dataset: Dataset, asked: _Asked, context: FeatureContext) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the examples each row is tried with, (n, m), itself first if it is one of them, and their utility."""
    is_own, q = asked.examples is dataset, len(asked.examples)
    m = q if context.n_examples is None else min(context.n_examples + is_own, q)
    if m == q:
        every = np.tile(np.arange(q), (len(dataset), 1))
        tried = np.argsort(every != np.arange(q)[:, None], axis=1, kind="stable") if is_own else every
        return tried, asked.utility(tried)
    provider, shares = Embedding(), Shares.of(m - is_own)
    x = provider.compute(dataset, context)
    names = asked.pool.digests, asked.digests
    tried = first_tried(x, x if is_own else provider.compute(asked.examples, context), shares, names)
    utility = asked.utility(tried)
    if shares.best:
        best = best_tried(tried, utility, q, shares.best)
        tried, utility = np.concatenate([tried, best], axis=1), np.concatenate([utility, asked.utility(best)], axis=1)
    return tried, utility


def _tokenized(lm: LanguageModel, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
    encoded = lm.tokenizer(
        list(texts),
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # its warning about long texts: they are cut and counted here
    )
    return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))


def _digests(dataset: Dataset) -> list[str]:
    rows = zip(dataset.frame["prompt"], dataset.frame["response"], strict=True)
    return [xxhash.xxh3_128_hexdigest(f"{len(prompt)}\0{prompt}{response}".encode()) for prompt, response in rows]


def _language_model(context: FeatureContext) -> LanguageModel:
    return language_model(context.models.model, device=context.models.device, dtype=context.models.dtype)


def _max_length(lm: LanguageModel, context: FeatureContext) -> int:
    limits = (context.models.max_length or DEFAULT_MAX_LENGTH, lm.max_positions)
    return min(limit for limit in limits if limit is not None)


def _fingerprint(lm: LanguageModel, context: FeatureContext) -> str:
    return combine_fingerprints(lm.fingerprint, f"{RECIPE}-{_max_length(lm, context)}")


def _sentences(notes: dict[str, int], limit: int) -> Iterator[str]:
    """Yield what the user should know of rows that were cut or have no value."""
    if notes["rows_truncated"]:
        yield f"{NAME}: {notes['rows_truncated']:,} responses end behind the {limit:,} tokens of a row and were cut"
    if notes["examples_truncated"]:
        yield f"{NAME}: {notes['examples_truncated']:,} examples are longer than {limit:,} tokens and were cut"
    if notes["rows_missing"]:
        yield f"{NAME}: {notes['rows_missing']:,} of {notes['rows']:,} rows have no value"
