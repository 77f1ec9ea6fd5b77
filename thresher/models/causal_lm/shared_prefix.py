"""Log-probabilities of many rows behind few prefixes: each prefix is read once and cached."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thresher.errors import InputError, first_three
from thresher.models.causal_lm.likelihood import Scored, TokenRow, padded, predictions, score_rows
from thresher.models.token_batches import token_batches

if TYPE_CHECKING:
    import torch

    from thresher.models.causal_lm.language_model import LanguageModel

Ids = NDArray[np.int32]
# a cached token costs memory but no pass: a batch may hold this many times as many of them
CACHED_PER_READ = 4


def score_pairs(
    lm: LanguageModel,
    prefixes: Sequence[Ids],
    rows: Sequence[TokenRow],
    pairs: NDArray[np.int64],
    *,
    batch_tokens: int,
) -> Iterator[Scored]:
    """Yield log p(token | prefix, tokens before it in the row) of scored tokens, batch by batch.

    What is read is the prefix's token ids followed by the row's: nothing is tokenized here, so the
    boundary is where the caller put it. Cost: one pass over each prefix that occurs, and for each
    pair one over the row and one token more; without the cache every prefix is read once per pair.
    A batch holds the keys and values of its prefixes once per row. Models that cannot keep prefixes
    (`can_cache_prefixes`) read all pairs at full length.

    Args:
        lm: the model.
        prefixes: (m,) token ids, at least one token each; the first is the start of the text.
        rows: (n,) rows; the first token of a row may be scored.
        pairs: (p, 2) positions of a prefix and of a row.
        batch_tokens: tokens in one forward pass, padding included and cached prefixes not.

    Raises:
        InputError: a prefix is empty, or a prefix and a row together are longer than the model
            reads.
    """
    _check(lm, prefixes, rows, pairs)
    if not len(pairs):
        return
    if not can_cache_prefixes(lm):
        yield from score_rows(lm, [prepend_prefix(prefixes[p], rows[r]) for p, r in pairs], batch_tokens=batch_tokens)
        return
    used, prefix_of = np.unique(pairs[:, 0], return_inverse=True)
    # pairs in the order of their prefixes: those of used prefix g are by_prefix[begin[g]:begin[g +
    # 1]]
    by_prefix = np.argsort(prefix_of, kind="stable")
    begin = np.searchsorted(prefix_of[by_prefix], np.arange(len(used) + 1))
    n_prefix = np.array([len(prefixes[p]) for p in used], dtype=np.int64)
    # what is read are the rows behind them, and those are put into batches of their own
    for group in token_batches(n_prefix, lm.limit_batch_tokens(batch_tokens), max_padding=1):
        members = np.concatenate([by_prefix[begin[g] : begin[g + 1]] for g in group])
        # of each pair's prefix in the group
        slot = np.repeat(np.arange(len(group)), begin[group + 1] - begin[group])
        cached = _CachedPrefixes(lm, [prefixes[used[g]] for g in group])
        for positions, log_probs in _score_after_prefixes(
            cached, [rows[r] for r in pairs[members, 1]], slot, batch_tokens
        ):
            yield Scored(members[positions], log_probs)


def prepend_prefix(prefix: Ids, row: TokenRow) -> TokenRow:
    """Return the row behind its prefix as one row."""
    is_scored = np.concatenate([np.zeros(len(prefix), dtype=np.bool_), row.is_scored])
    return TokenRow(np.concatenate([prefix, row.ids]), is_scored)


def has_plain_cache(lm: LanguageModel) -> bool:
    """Tell whether every layer caches all keys and values, and the caller may set positions."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    is_plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=lm.model.config).layers)
    return is_plain and {"position_ids", "past_key_values"} <= inspect.signature(lm.body.forward).parameters.keys()


def can_cache_prefixes(lm: LanguageModel) -> bool:
    """Tell whether a prefix's keys and values can stand for it; a probe has the last word."""
    if not has_plain_cache(lm):
        return False
    prefixes = [np.arange(n, dtype=np.int32) % lm.n_vocabulary for n in (3, 9)]
    row = TokenRow(np.array([2, 5, 1], dtype=np.int32) % lm.n_vocabulary, np.ones(3, dtype=np.bool_))
    n_tokens = lm.n_tokens
    whole = _stack(score_rows(lm, [prepend_prefix(prefix, row) for prefix in prefixes], batch_tokens=64))
    behind = _stack(_score_after_prefixes(_CachedPrefixes(lm, prefixes), [row, row], np.arange(2), 64))
    lm.n_tokens = n_tokens
    return bool(np.allclose(whole, behind, atol=1e-4 if lm.dtype == "float32" else 5e-2))


def _stack(batches: Iterator[Scored]) -> NDArray[np.float32]:
    by_row = {int(i): each for positions, log_probs in batches for i, each in zip(positions, log_probs, strict=True)}
    return np.stack([by_row[i] for i in sorted(by_row)])


class _CachedPrefixes:
    """Keys and values of a few prefixes but for their last tokens, read again with each row."""

    def __init__(self, lm: LanguageModel, prefixes: Sequence[Ids]) -> None:
        import torch
        from transformers import DynamicCache

        self.lm = lm
        self.last = [prefix[-1:] for prefix in prefixes]
        self.n_cached = np.array([len(prefix) - 1 for prefix in prefixes], dtype=np.int64)
        # (m, heads, longest, d) keys and values, padded on the left
        self._layers: list[tuple[Any, Any]] = []
        if not self.n_cached.any():
            return
        ids = torch.from_numpy(padded(lm, [prefix[:-1] for prefix in prefixes])).to(lm.device)
        cache = DynamicCache(config=lm.model.config)
        nowhere = torch.zeros(0, dtype=torch.long, device=lm.device)
        lm.log_probabilities({"input_ids": ids, "past_key_values": cache}, nowhere, nowhere)
        lm.n_tokens += int(self.n_cached.sum())
        # The last token of each prefix comes to the end, next to the row: some models (GPT-Neo)
        # tell how far a token is by its place in the cache, not by its position.
        width = ids.shape[1]
        # (m, longest), negative where there is none
        place = np.arange(width) - (width - self.n_cached[:, None])
        at = torch.from_numpy(place % width).to(lm.device)[:, None, :, None]
        self._layers = [
            (_gather_positions(layer.keys, at), _gather_positions(layer.values, at)) for layer in cache.layers
        ]

    def inputs(self, slot: NDArray[np.int64], ids: NDArray[np.int64]) -> dict[str, Any]:
        """Return the model's inputs for ids (b, w), each row behind the prefix in its slot."""
        import torch
        from transformers import DynamicCache

        device = self.lm.device
        inputs: dict[str, Any] = {"input_ids": torch.from_numpy(ids).to(device)}
        n_cached = self.n_cached[slot]
        longest = int(n_cached.max())
        if not longest:
            return inputs
        of = torch.from_numpy(slot).to(device)
        cache = DynamicCache(config=self.lm.model.config)
        for number, (keys, values) in enumerate(self._layers):
            cache.update(keys[:, :, -longest:][of], values[:, :, -longest:][of], number)
        is_cached = np.arange(longest) >= longest - n_cached[:, None]
        mask = np.concatenate([is_cached, np.ones(ids.shape, dtype=np.bool_)], axis=1).astype(np.int64)
        position = n_cached[:, None] + np.arange(ids.shape[1])
        inputs["past_key_values"] = cache
        inputs["attention_mask"] = torch.from_numpy(mask).to(device)
        inputs["position_ids"] = torch.from_numpy(position).to(device)
        return inputs


def _gather_positions(each: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return each.gather(2, at.expand(-1, each.shape[1], -1, each.shape[3]))


def _score_after_prefixes(
    cached: _CachedPrefixes, rows: Sequence[TokenRow], slot: NDArray[np.int64], batch_tokens: int
) -> Iterator[Scored]:
    """Yield the scored tokens of rows, each behind the prefix in its slot: (k,) into `cached`."""
    import torch

    lm = cached.lm
    n_read = np.array([row.n_read + 1 if row.is_scored.any() else 0 for row in rows], dtype=np.int64)
    empty = np.flatnonzero(n_read == 0)
    if len(empty):
        yield Scored(empty, [np.zeros(0, dtype=np.float32) for _ in empty])
    filled = np.flatnonzero(n_read)
    cost = np.maximum(n_read, (cached.n_cached[slot] + n_read) // CACHED_PER_READ)
    for batch in token_batches(cost[filled], lm.limit_batch_tokens(batch_tokens)):
        chosen = filled[batch]
        members = [rows[i] for i in chosen]
        last = [cached.last[s] for s in slot[chosen]]
        n = n_read[chosen]
        ids = padded(lm, [np.concatenate([last[i], row.ids])[: n[i]] for i, row in enumerate(members)])
        at, targets, n_scored = predictions(members, width=ids.shape[1], shift=0)
        log_probs = lm.log_probabilities(
            cached.inputs(slot[chosen], ids),
            torch.from_numpy(at).to(lm.device),
            torch.from_numpy(targets).to(lm.device),
        )
        lm.n_tokens += int(n.sum())
        yield Scored(chosen, np.split(log_probs, np.cumsum(n_scored)[:-1]))


def _check(lm: LanguageModel, prefixes: Sequence[Ids], rows: Sequence[TokenRow], pairs: NDArray[np.int64]) -> None:
    n_prefix = np.array([len(prefix) for prefix in prefixes], dtype=np.int64)
    if not n_prefix[pairs[:, 0]].all():
        raise InputError("score_pairs: a prefix must have at least one token, got an empty one; give BOS")
    limit = lm.max_positions
    if limit is None:
        return
    n_read = np.array([row.n_read for row in rows], dtype=np.int64)
    too_long = np.flatnonzero(n_prefix[pairs[:, 0]] + n_read[pairs[:, 1]] > limit)
    if len(too_long):
        raise InputError(
            f"score_pairs: prefix and row together must be at most {limit} tokens, the longest input of '{lm.name}', "
            f"got {len(too_long)} longer pairs (first: {first_three(too_long.tolist())}); cut or leave them out"
        )
