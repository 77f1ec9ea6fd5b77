"""The vectors of held-out rows under an untouched encoder: read once for the probes of all runs.

    ROOT/base/v1/KEY/{vectors.npz, manifest.json}

Every run of a classifier starts from a probe of its own training rows, but the held-out rows and
the encoder that reads them are the same in all cells of an experiment. Their batches are, too, so
that a probe on vectors that were kept gives the very outcomes of one that reads the texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import torch

from thresher.artifacts.folder import MANIFEST, write_array, write_atomic
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.numeric.arrays import Float32
from thresher.trainer.context import PACKAGES, content_hash
from thresher.trainer.engine.pooled_classifier import PooledClassifier
from thresher.trainer.held_out import HeldOut
from thresher.trainer.untouched.base_cache import get_base_cache

RECIPE = 2  # raise it when what was kept before must not be used again
VECTORS = "vectors.npy"
SETTINGS = ("max_length", "precision", "pooling")  # what the vectors depend on besides the rows


def measure_probe(held_out: HeldOut, model: Any) -> pl.DataFrame:
    """Return the outcomes of a classifier that is still a probe of its untouched encoder.

    Args:
        held_out: of a classifier.
        model: before its first step, when the adapter changes nothing.
    """
    bare = held_out.context.accelerator.unwrap_model(model)
    if not _can_share(held_out, bare):
        return held_out.measure(bare)
    fresh: list[pl.DataFrame] = []

    def write(work: Path) -> None:
        batches: list[Float32] = []
        hook = bare.head.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].float().cpu().numpy()))
        try:
            fresh.append(held_out.measure(bare))
        finally:
            hook.remove()
        write_array(np.concatenate(batches), work / VECTORS)
        content = {"format": FORMAT, "kind": "base", "identity": key, "batches": [len(batch) for batch in batches]}
        write_atomic(work / MANIFEST, Manifest(content).to_json())

    key = _compute_key(held_out)
    folder = get_base_cache().make(key, write)
    if fresh:
        return fresh[0]
    ends = np.cumsum(Manifest.read(folder).content["batches"])[:-1]
    batches = np.split(np.load(folder / VECTORS, allow_pickle=False), ends)
    return held_out.measure(_KeptProbe(bare, batches))


def _can_share(held_out: HeldOut, model: Any) -> bool:
    """Tell whether the vectors are those of the base, whatever is trained, in one process."""
    context = held_out.context
    is_exact = not (context.settings.dora or context.settings.load_in_4bit)
    return is_exact and isinstance(model, PooledClassifier) and context.accelerator.num_processes == 1


def _compute_key(held_out: HeldOut) -> str:
    """Return the hash of everything that the vectors depend on."""
    context, settings = held_out.context, held_out.context.settings.to_json()
    return digest(
        {
            "recipe": RECIPE,
            "what": "vectors",
            "model": context.base.fingerprint,
            "held_out": content_hash(held_out.rows),
            "usable": digest(list(held_out.examples.position)),
            "settings": {name: settings.get(name) for name in SETTINGS},
            "device": context.accelerator.device.type,
            "versions": versions(PACKAGES),
        }
    )


class _KeptProbe:
    """A probe that is given the vectors of each batch of held-out rows, in the order of batches."""

    def __init__(self, model: PooledClassifier, batches: Sequence[Float32]) -> None:
        """Take the head of a model."""
        self.head, self.batches = model.head, self._move(batches)

    def _move(self, batches: Sequence[Float32]) -> Iterator[torch.Tensor]:
        for batch in batches:
            yield torch.from_numpy(batch).to(self.head.weight.device)

    def __call__(self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        """Return `logits` of the next batch."""
        del attention_mask
        vectors = next(self.batches)
        if len(vectors) != len(input_ids):
            raise AssertionError("the key of the cache says which rows there are, and so their batches")
        return SimpleNamespace(logits=self.head(vectors))
