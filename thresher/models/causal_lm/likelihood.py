"""Log-probabilities of tokens given what stands before them, in batches of rows of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thresher.errors import InputError
from thresher.models.async_copy import PendingTensor, prefetch_one, to_device_async
from thresher.models.token_batches import token_batches

if TYPE_CHECKING:
    from thresher.models.causal_lm.language_model import LanguageModel


@dataclass(frozen=True)
class TokenRow:
    """Tokens that a model reads, and those whose probability is asked for.

    Attributes:
        ids: (t,) int32.
        is_scored: (t,) bool. The first token of a text has nothing before it and must not be asked
            for, but for rows that stand behind a prefix.
    """

    ids: NDArray[np.int32]
    is_scored: NDArray[np.bool_]

    @property
    def n_read(self) -> int:
        """Tokens that must be read: all before the last one that is scored."""
        scored = np.flatnonzero(self.is_scored)
        return int(scored[-1]) if len(scored) else 0


class Scored(NamedTuple):
    """Log-probabilities of some of the rows.

    Attributes:
        positions: (b,) int64 into the rows that were given.
        log_probs: one (s,) float32 array per row, for its scored tokens in order.
    """

    positions: NDArray[np.int64]
    log_probs: list[NDArray[np.float32]]


def score_rows(lm: LanguageModel, rows: Sequence[TokenRow], *, batch_tokens: int | None) -> Iterator[Scored]:
    """Yield log p(token | all tokens before it in the row) of the scored tokens, batch by batch.

    Rows are padded on the right and read without a mask: causal attention never looks at what
    follows, so padding, batch size and order change a value by rounding only. The longest rows come
    first, so that too little memory shows at once; the other batches come in a mixed order, so that
    the time left can be told from the time spent. Cost: one pass over the tokens before each row's
    last scored one; logits at scored positions only.

    Args:
        lm: the model.
        rows: (n,) rows; one without scored tokens costs nothing and gets an empty array.
        batch_tokens: tokens in one forward pass, padding included; None for what the device has
            room for.
    """
    import torch

    n_read = np.array([row.n_read for row in rows], dtype=np.int64)
    empty = np.flatnonzero(n_read == 0)
    if len(empty):
        yield Scored(empty, [np.zeros(0, dtype=np.float32) for _ in empty])
    filled = np.flatnonzero(n_read)
    batches = list(token_batches(n_read[filled], lm.limit_batch_tokens(batch_tokens)))
    mixed = np.random.default_rng(0).permutation(np.arange(1, len(batches)))

    def start_log_probabilities() -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], PendingTensor]]:
        for batch in (*batches[:1], *(batches[i] for i in mixed)):
            chosen = filled[batch]
            ids = padded(lm, [rows[i].ids[: n_read[i]] for i in chosen])
            at, targets, n_scored = predictions([rows[i] for i in chosen], width=ids.shape[1], shift=1)
            there = [to_device_async(torch.from_numpy(each), lm.device) for each in (ids, at, targets)]
            yield chosen, n_scored, lm.start_log_probabilities({"input_ids": there[0]}, there[1], there[2])

    for chosen, n_scored, log_probs in prefetch_one(start_log_probabilities()):
        lm.n_tokens += int(n_read[chosen].sum())
        yield Scored(chosen, np.split(log_probs.array(), np.cumsum(n_scored)[:-1]))


def padded(lm: LanguageModel, rows: Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    """Return (b, w) int64 token ids, padded on the right with 0, which is never looked at.

    Raises:
        InputError: the tokenizer gave an id that the model has no embedding for; a GPU would be
            lost by it.
    """
    ids = np.zeros((len(rows), max(len(row) for row in rows)), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    highest = int(ids.max())
    if highest >= lm.n_vocabulary:
        raise InputError(
            f"model '{lm.name}': token ids must be below {lm.n_vocabulary:,}, the size of its vocabulary, and its "
            f"tokenizer gave {highest:,} ('{lm.tokenizer.convert_ids_to_tokens(highest)}'); tokens were added to it "
            f"that the weights do not have"
        )
    return ids


def predictions(
    rows: Sequence[TokenRow], *, width: int, shift: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return where the scored tokens of a batch are predicted.

    Args:
        rows: (b,) of the batch.
        width: tokens of each row in the batch.
        shift: 1 when the rows are read as they are, 0 when each stands behind one token more.

    Returns:
        (s,) positions into the flattened batch, (s,) target ids, (b,) number of them in each row;
        all int64.
    """
    scored = [np.flatnonzero(row.is_scored) for row in rows]
    at = np.concatenate([i * width + positions - shift for i, positions in enumerate(scored)])
    targets = np.concatenate([row.ids[positions] for row, positions in zip(rows, scored, strict=True)])
    return at.astype(np.int64), targets.astype(np.int64), np.array([len(positions) for positions in scored])
