"""Whether two texts contradict each other, as a natural-language-inference model sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import orjson
import polars as pl

from thresher.cache.batch import Batch
from thresher.cache.fingerprint import combine_fingerprints
from thresher.errors import InputError
from thresher.features.answers.sequence_classifier import SequenceClassifier
from thresher.models.precision import inference
from thresher.models.stages import Stage
from thresher.models.token_batches import BATCH_TOKENS, token_batches
from thresher.numeric.arrays import Float32, Float64

if TYPE_CHECKING:
    from thresher.features.context import FeatureContext

WINDOW_PAIRS = 4096  # pairs tokenized and sorted by length together
MAX_LENGTH = 512  # what such models were trained on
P, IS_CUT = range(2)  # columns of the cached (n, 2) float64


class Entailment(SequenceClassifier):
    """A sequence classifier with a label for contradiction, by folder or Hub id."""

    recipe: ClassVar[str] = "entailment-1"
    role: ClassVar[str] = "entailment model"

    @cached_property
    def contradiction(self) -> int:
        """Place of the label for contradiction.

        Raises:
            InputError: not exactly one label speaks of contradiction.
        """
        return self._find_label("contradiction", "contradict")

    @cached_property
    def entailment(self) -> int:
        """Place of the label for entailment.

        Raises:
            InputError: not exactly one label speaks of it.
        """
        return self._find_label("entailment", "entail")

    def _find_label(self, what: str, part: str) -> int:
        """Return the place of the one label that has a part, and no "not" or "non" before it."""
        config = json.loads((self._base.folder / "config.json").read_bytes())
        named = config.get("id2label")
        named = named if isinstance(named, dict) else {}
        labels = {int(code): str(label) for code, label in named.items() if str(code).isdecimal()}
        codes = [
            code
            for code, label in labels.items()
            if part in label.lower() and not label.lower().startswith(("not", "non"))
        ]
        if len(codes) != 1:
            raise InputError(
                f"entailment model '{self.name}': must have one label for {what}, found the labels "
                f"{', '.join(labels.values()) or 'none'}; choose a model for natural language inference"
            )
        return codes[0]

    def predict_entailments(self, pairs: Sequence[tuple[str, str]], *, stage: str, context: FeatureContext) -> Float64:
        """Return P(the second text follows from the first), (n,); long pairs are cut."""
        p, _ = self._predict(pairs, self.entailment, "follows", stage=stage, context=context)
        return p

    def predict_contradictions(
        self, pairs: Sequence[tuple[str, str]], *, stage: str, context: FeatureContext
    ) -> tuple[Float64, int]:
        """Return P(the second text contradicts the first), (n,) float64, and how many were cut.

        A pair is read as far as the model reads (512 tokens at most), the longer text is cut first.
        """
        return self._predict(pairs, self.contradiction, None, stage=stage, context=context)

    def _predict(
        self, pairs: Sequence[tuple[str, str]], label: int, what: str | None, *, stage: str, context: FeatureContext
    ) -> tuple[Float64, int]:
        """Return the probability of a label, (n,), and how many pairs were cut."""
        own = self.fingerprint if what is None else combine_fingerprints(self.fingerprint, what)
        stage_to_run = Stage(
            name=stage,
            texts=pl.Series("pair", [orjson.dumps(pair).decode() for pair in pairs], dtype=pl.String),
            compute=lambda texts: self._batches(texts, label, context.models.batch_tokens or BATCH_TOKENS),
            feature="entailment",
            model=self.name,
            fingerprint=own,
        )
        values = context.run_stage(stage_to_run)
        if values is None:
            return np.zeros(0), 0
        return np.ascontiguousarray(values[:, P]), int(values[:, IS_CUT].sum())

    def _batches(self, keys: pl.Series, label: int, batch_tokens: int) -> Iterator[Batch]:
        limit = min(limit for limit in (self._base.max_positions, MAX_LENGTH) if limit is not None)
        for start in range(0, len(keys), WINDOW_PAIRS):
            pairs = [orjson.loads(key) for key in keys[start : start + WINDOW_PAIRS].to_list()]
            firsts, seconds = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            whole = self._tokenizer(firsts, seconds, verbose=False)["input_ids"]
            n_tokens = np.array([len(ids) for ids in whole], dtype=np.int64)
            for batch in token_batches(np.minimum(n_tokens, limit), batch_tokens):
                p = self._forward([firsts[i] for i in batch], [seconds[i] for i in batch], limit)[:, label]
                yield Batch(start + batch, np.stack([p, n_tokens[batch] > limit], axis=1).astype(np.float64))

    def _forward(self, firsts: list[str], seconds: list[str], limit: int) -> Float32:
        inputs = self._tokenizer(
            firsts, seconds, truncation="longest_first", max_length=limit, padding=True, return_tensors="pt"
        ).to(self._model.device)
        with inference(f"entailment model '{self.name}': a batch of {tuple(inputs['input_ids'].shape)} tokens"):
            p: Float32 = self._model(**inputs).logits.float().softmax(dim=-1).cpu().numpy()
        return p
