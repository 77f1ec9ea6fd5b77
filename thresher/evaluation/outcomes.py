"""The table of outcomes, one line per held-out row: truth, the model's answer, and its loss."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from thresher.evaluation.generation import score_answers
from thresher.evaluation.run import Row, classify, generate, token_losses


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Runs a model over held-out rows, on one process or several.

    Attributes:
        tokenizer: of the model.
        device: that holds the model.
        share: items -> those that this process evaluates.
        gather: results of this process -> results of all items, in their order.
    """

    tokenizer: Any
    device: Any
    share: Callable[[Sequence[Any]], list[Any]]
    gather: Callable[[list[Any]], list[Any]]

    def predict_classes(self, model: Any, rows: Sequence[Row]) -> list[tuple[int, float, float]]:
        """Return predicted class, its probability, and the loss of the true class, of each row."""
        guesses = classify(model, self.share(rows), pad_id=self.tokenizer.pad_token_id, device=self.device)
        columns = guesses.predicted.tolist(), guesses.confidence.tolist(), guesses.loss.tolist()
        return self.gather(list(zip(*columns, strict=True)))

    def compute_losses(self, model: Any, rows: Sequence[Row]) -> list[tuple[float, int]]:
        """Return the summed loss and the number of tokens of each row."""
        losses = token_losses(model, self.share(rows), pad_id=self.tokenizer.pad_token_id, device=self.device)
        return self.gather(list(zip(losses.total.tolist(), losses.n_tokens.tolist(), strict=True)))

    def generate_answers(
        self, model: Any, prompts: Sequence[list[int]], *, max_new_tokens: int, ends: Collection[int]
    ) -> list[str]:
        """Return a greedy answer to each prompt."""
        own, device = self.share(prompts), self.device
        return self.gather(
            generate(model, own, self.tokenizer, max_new_tokens=max_new_tokens, device=device, ends=ends)
        )


def classification_outcomes(
    evaluator: Evaluator,
    model: Any,
    rows: Sequence[Row],
    *,
    row_id: Sequence[str],
    truth: Sequence[str],
    classes: Sequence[str],
) -> pl.DataFrame:
    """Return `row_id`, `label`, `prediction`, `confidence`, `correct` and `loss`.

    The loss is null for a label that the model lacks.
    """
    guesses = evaluator.predict_classes(model, rows)
    prediction = [classes[code] for code, _, _ in guesses]
    return pl.DataFrame(
        {
            "row_id": pl.Series(row_id, dtype=pl.String),
            "label": pl.Series(truth, dtype=pl.String),
            "prediction": pl.Series(prediction, dtype=pl.String),
            "confidence": [confidence for _, confidence, _ in guesses],
            "correct": [guess == label for guess, label in zip(prediction, truth, strict=True)],
            "loss": pl.Series([loss for _, _, loss in guesses], dtype=pl.Float64).fill_nan(None),
        }
    )


def language_outcomes(
    evaluator: Evaluator,
    model: Any,
    rows: Sequence[Row],
    *,
    row_id: Sequence[str],
    references: Sequence[str],
    prompts: Mapping[int, list[int]],
    max_new_tokens: int,
    ends: Collection[int],
) -> pl.DataFrame:
    """Return `row_id`, `response`, `loss` (summed), `n_tokens`, and answers with their scores.

    Args:
        evaluator: runs the model.
        model: causal language model in evaluation mode.
        rows: tokens and labels of each row.
        row_id: of the rows.
        references: the response of each row.
        prompts: tokens before the response by place in `rows`: these get answers, the others nulls.
        max_new_tokens: limit of an answer.
        ends: special tokens that end an answer.
    """
    losses = evaluator.compute_losses(model, rows)
    asked = sorted(prompts)
    tokens = [prompts[place] for place in asked]
    answers = evaluator.generate_answers(model, tokens, max_new_tokens=max_new_tokens, ends=ends) if asked else []
    scores = score_answers(answers, [references[place] for place in asked])

    def spread(values: Iterable[Any]) -> list[Any]:
        by_place = dict(zip(asked, values, strict=True))
        return [by_place.get(place) for place in range(len(rows))]

    return pl.DataFrame(
        {
            "row_id": pl.Series(row_id, dtype=pl.String),
            "response": pl.Series(references, dtype=pl.String),
            "loss": pl.Series([total for total, _ in losses], dtype=pl.Float64),
            "n_tokens": pl.Series([count for _, count in losses], dtype=pl.Int64),
            "prediction": pl.Series(spread(answers), dtype=pl.String),
            "exact_match": pl.Series(spread(scores.exact_match), dtype=pl.Boolean),
            "rouge_l": pl.Series(spread(scores.rouge_l), dtype=pl.Float64),
            "chrf": pl.Series(spread(scores.chrf), dtype=pl.Float64),
        }
    )
