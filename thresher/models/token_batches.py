"""Batches of rows of like length under a budget of tokens, and how large it may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thresher.models.device import free_bytes

if TYPE_CHECKING:
    import torch

BATCH_TOKENS = 16_384
MAX_BATCH_ROWS = 512  # or one in so many tokens of the budget:
TOKENS_PER_ROW = 32
GPU_SHARE = 0.5  # of its free memory, for the activations of one batch
MIN_GPU_TOKENS = 1_024
MAX_GPU_TOKENS = 131_072  # more keep no GPU busier
MAX_PADDING = 0.1  # of a batch
PASS_TOKENS = 32  # less padding costs less than another pass, which reads all weights again


def token_batches(
    tokens: NDArray[np.int64], budget: int, *, max_padding: float = MAX_PADDING
) -> Iterator[NDArray[np.int64]]:
    """Yield positions, longest first, in batches of at most `budget` padded tokens.

    Args:
        tokens: (n,) of each row.
        budget: of a batch; a longer row is a batch of its own.
        max_padding: share of a batch above which it ends before the next row, unless that is fewer
            than 32 tokens; 1 for no such limit.
    """
    order = np.argsort(-tokens, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(tokens[order[start]]), 1)
        size = min(max(budget // longest, 1), max(MAX_BATCH_ROWS, budget // TOKENS_PER_ROW))
        size = count_like_rows(tokens[order[start : start + size]], max_padding)
        yield order[start : start + size]
        start += size


def count_like_rows(tokens: NDArray[np.int64], max_padding: float = MAX_PADDING) -> int:
    """Return how many of some rows, longest first, a batch holds without much padding."""
    laid = np.maximum(tokens[0], 1) * np.arange(1, len(tokens) + 1)
    padding = laid - np.cumsum(tokens)
    # rows get shorter, so that the share of padding only grows
    return int(((padding <= max_padding * laid) | (padding < PASS_TOKENS)).sum())


def token_budget(device: torch.device, bytes_per_token: int) -> int:
    """Return the tokens of one forward pass by default: 16,384, and more where a GPU has room."""
    free = free_bytes(device)
    if free is None:
        return BATCH_TOKENS
    return min(max(int(GPU_SHARE * free / bytes_per_token), MIN_GPU_TOKENS), MAX_GPU_TOKENS)


def bytes_per_token(config: Any, bytes_per_number: int) -> int:
    """Return what a token's activations take in one layer at most, by a model's configuration.

    Eight vectors of the residual stream's width and four of the inner layer's are alive at once;
    attention is computed block by block.
    """
    width = int(config.hidden_size)
    inner = getattr(config, "intermediate_size", None) or 4 * width
    # some models have one for each layer
    widest = max(inner) if isinstance(inner, Sequence) else int(inner)
    return bytes_per_number * (8 * width + 4 * widest)
