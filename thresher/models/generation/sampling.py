"""Answers sampled from a model: which of them are asked for, and the random numbers behind each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from thresher.models.generation.decoding import Decoding
from thresher.numeric.arrays import Int64

if TYPE_CHECKING:
    import torch


def sample_uniforms(conversation: str, decoding: Decoding, samples: Iterable[int]) -> NDArray[np.float64]:
    """Return the random numbers behind sampled answers: (k, max_new_tokens) in 0..1.

    Those of a sample depend on the seed, the conversation and the sample's place alone, so that
    more samples or longer answers leave what was there unchanged.
    """
    seeds = [xxhash.xxh3_128_intdigest(f"{decoding.seed}\0{i}\0{conversation}".encode()) for i in samples]
    return np.stack([np.random.default_rng(seed).random(decoding.max_new_tokens) for seed in seeds])


@dataclass(frozen=True)
class SampleRequests:
    """Answers that are asked for, each under a key of its own, so that each is cached by itself.

    Attributes:
        keys: (n * k,) digest of a conversation and the answer's place among its k samples.
        conversation: (n * k,) int64 number of the conversation, by its length and place.
        size: (n * k,) int64 bytes of the conversation.
    """

    keys: list[str]
    conversation: Int64
    size: Int64
    _by_digest: dict[str, str]

    @classmethod
    def create(cls, conversations: Sequence[str], n_samples: int) -> SampleRequests:
        """Ask for so many answers of each conversation."""
        digests = [xxhash.xxh3_128_hexdigest(conversation.encode()) for conversation in conversations]
        size = np.array([len(conversation) for conversation in conversations], dtype=np.int64)
        # numbered by length, so that an estimate that takes some of them, evenly spread, takes
        # every length
        number = np.empty(len(conversations), dtype=np.int64)
        number[np.argsort(size, kind="stable")] = np.arange(len(conversations))
        return cls(
            keys=[f"{digest}-{sample}" for digest in digests for sample in range(n_samples)],
            conversation=np.repeat(number, n_samples),
            size=np.repeat(size, n_samples),
            _by_digest=dict(zip(digests, conversations, strict=True)),
        )

    def group_by_conversation(self, keys: pl.Series) -> dict[str, list[tuple[int, int]]]:
        """Return the conversations behind keys, with positions in `keys` and sample numbers."""
        groups: dict[str, list[tuple[int, int]]] = {}
        for position, key in enumerate(keys.to_list()):
            digest, _, sample = key.partition("-")
            groups.setdefault(self._by_digest[digest], []).append((position, int(sample)))
        return groups


class InverseTransform:
    """Leaves one token possible in each row: where summed probabilities pass its random number."""

    def __init__(self, uniforms: torch.Tensor, decoding: Decoding) -> None:
        self._uniforms = uniforms  # (b, steps)
        self._decoding = decoding
        self._step = 0

    def __call__(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return (b, vocabulary) logits that leave one token."""
        import torch

        # (b, vocabulary)
        p = (scores.to(self._uniforms.dtype) / self._decoding.temperature).softmax(dim=-1)
        if self._decoding.top_p < 1:
            best, order = p.sort(dim=-1, descending=True)
            # probability of all likelier tokens: a token is out once these alone reach top_p
            before = best.cumsum(dim=-1) - best
            p = p.masked_fill((before >= self._decoding.top_p).gather(-1, order.argsort(dim=-1)), 0.0)
        running = p.cumsum(dim=-1)
        # the last sum is 1 but for rounding
        threshold = self._uniforms[:, self._step, None] * running[:, -1:]
        self._step += 1
        token = torch.searchsorted(running, threshold, right=True).clamp(max=p.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)
