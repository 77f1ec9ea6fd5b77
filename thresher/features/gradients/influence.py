"""`influence`: how far a step on a row alone would lower the loss of a target's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from thresher.cache.batch import Batch
from thresher.cache.fingerprint import combine_fingerprints
from thresher.errors import InputError
from thresher.features.compute import column_codes
from thresher.features.gradients.gradient import Gradient, Reading
from thresher.features.likelihood.loss import load_row_tokenizer
from thresher.features.registry import FeatureValues
from thresher.models.causal_lm.tokenized_rows import RowTokenizer, row_texts

if TYPE_CHECKING:
    import torch

    from thresher.dataset import Dataset
    from thresher.features.context import FeatureContext
    from thresher.features.gradients.per_example import RowGradients
    from thresher.features.settings import Precondition
    from thresher.models.causal_lm.likelihood import TokenRow


class Influence(Gradient):
    """Mean cosine of a row's step with the gradients of a target's rows, without a sketch.

    At each checkpoint the gradient of the row's mean loss goes through AdamW's moments or is
    divided by LoRA's small factors. Its cosines with the gradients of `context.examples`, averaged
    over the rows of each of their tasks (`gradient.by`), are averaged over the checkpoints by their
    learning rates (Xia et al. 2024, arXiv:2402.04333). Cosines of different rows differ by little,
    often by less than the error of a sketch; here they are exact. Held in memory are the weights of
    the adapter once for each task.
    """

    name: ClassVar[str] = "influence"
    passes: ClassVar[str] = "forward and backward over each of the n rows and of the target, at each checkpoint"
    is_pairwise: ClassVar[bool] = True
    _stored_as: ClassVar[str] = "influence"

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n, tasks) float32, NaN with its reason without a scored token.

        Raises:
            InputError: there are no rows of a target, or none has a scored token.
        """
        tokenizer = load_row_tokenizer(context)
        states, shares = self._read_states(context)
        tasks = _tokenize_tasks(context, tokenizer)
        texts = row_texts(dataset)
        out = np.zeros((len(dataset), len(tasks)), np.float32)
        for number, (state, share) in enumerate(zip(states, shares, strict=True)):
            reading = _Cosines(tasks)
            values = context.run_stage(self._make_stage(texts, context, state, number, tokenizer, reading))
            if values is not None:
                out += np.float32(share) * values
        return self._explain_missing(out, texts, tokenizer, context)

    def _describe_form(self, context: FeatureContext) -> dict[str, str]:
        return {} if context.gradient.by is None else {"by": context.gradient.by}

    def _count_bytes(self, context: FeatureContext) -> int:
        return 4 * (1 if context.examples is None else len(_find_tasks(context.examples, context)))


class _Cosines(Reading):
    """Cosines with the mean gradients of tasks, which are computed when the first row is."""

    def __init__(self, tasks: Mapping[str, Sequence[TokenRow]]) -> None:
        self.keys, self.dim, self.width, self.dtype = tuple(tasks), None, len(tasks), np.float32
        self._tasks = list(tasks.values())
        self._means: Mapping[str, torch.Tensor] = {}

    def read(
        self,
        gradients: RowGradients,
        rows: Sequence[TokenRow],
        batch_tokens: int,
        precondition: Precondition | None,
    ) -> Iterator[Batch]:
        """Yield (b, tasks) mean cosines."""
        if not self._means:
            self._means = gradients.compute_target_means(self._tasks, batch_tokens=batch_tokens)
        return gradients.compute_cosines(rows, self._means, batch_tokens=batch_tokens, precondition=precondition)


def _find_tasks(examples: Dataset, context: FeatureContext) -> list[np.ndarray]:
    """Return the positions of the rows of each task."""
    if context.gradient.by is None:
        return [np.arange(len(examples))]
    codes = column_codes(examples, context.gradient.by)
    return [np.flatnonzero(codes == code) for code in np.unique(codes)]


def _tokenize_tasks(context: FeatureContext, tokenizer: RowTokenizer) -> dict[str, list[TokenRow]]:
    """Return the rows of each task that have a scored token, under a hash of their texts.

    Raises:
        InputError: there is none.
    """
    if context.examples is None or not len(context.examples):
        raise InputError("influence: needs rows of a target, found none; give them as --target or --examples")
    texts = row_texts(context.examples)
    tasks: dict[str, list[TokenRow]] = {}
    for positions in _find_tasks(context.examples, context):
        own = sorted(texts.gather(positions).to_list())  # whatever their order
        rows = [each.row for each in tokenizer.tokenize(own) if not each.problem]
        if rows:
            tasks[combine_fingerprints(str(len(own)), *own)] = rows
    if not tasks:
        raise InputError(
            f"target: must hold rows with a token to score, found none among {len(texts):,}; give rows with responses"
        )
    return tasks
