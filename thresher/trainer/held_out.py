"""Held-out rows: tokenized once for all runs of a call, and measured during and after each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import polars as pl

from thresher.dataset import Dataset
from thresher.evaluation.estimate import Estimate, mean, ratio
from thresher.evaluation.lm_eval_task import open_lm_eval_task, put_values, score_documents
from thresher.evaluation.outcomes import Evaluator, classification_outcomes, language_outcomes
from thresher.models.causal_lm.chat_template import render_prompt, start_tokens
from thresher.models.causal_lm.turn_markers import find_markers
from thresher.trainer.context import RunContext
from thresher.trainer.engine.processes import gather_results, take_share
from thresher.trainer.engine.tokenization import Examples, find_end_tokens, require_rows, truncate_prompt
from thresher.trainer.split import choose_answered


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The held-out rows of a call, ready for the model.

    Attributes:
        context: model and settings.
        rows: all of them.
        examples: the usable ones.
        prompts: tokens before the answer, by place in `examples`, of the rows that are answered.
        n_prompts_cut: how many of them have lost their beginning, to leave room for an answer.
        end_tokens: tokens that end an answer in these rows.
    """

    context: RunContext
    rows: Dataset
    examples: Examples
    prompts: Mapping[int, list[int]]
    n_prompts_cut: int
    end_tokens: frozenset[int]

    @cached_property
    def _evaluator(self) -> Evaluator:
        accelerator = self.context.accelerator
        return Evaluator(
            tokenizer=self.context.tokenizer,
            device=accelerator.device,
            share=partial(take_share, accelerator=accelerator),
            gather=partial(gather_results, accelerator=accelerator),
        )

    def counts(self) -> dict[str, Any]:
        """Return what became of the rows, as JSON values."""
        counts: dict[str, Any] = {
            "rows": len(self.examples),
            "rows_left_out": len(self.rows) - len(self.examples),
            "rows_truncated": self.examples.n_truncated,
            "tokens_cut": self.examples.n_tokens_cut,
        }
        counts |= {"prompts_cut": self.n_prompts_cut} if self.prompts else {}
        return counts | ({"rows_with_markers": dict(self.examples.notes)} if self.examples.notes else {})

    def measure_loss(self, model: Any) -> Estimate:
        """Return the held-out loss of a model in training, equal on all processes."""
        accelerator, rows = self.context.accelerator, self.examples.rows
        bare = accelerator.unwrap_model(model)
        with accelerator.autocast():
            if self.context.task == "classification":
                losses = np.array([loss for _, _, loss in self._evaluator.predict_classes(bare, rows)])
                return mean(losses[~np.isnan(losses)])
            pairs = self._evaluator.compute_losses(bare, rows)
            return ratio([total for total, _ in pairs], [count for _, count in pairs])

    def measure_row_losses(self, model: Any) -> pl.DataFrame:
        """Return `row_id`, `loss` (summed) and `n_tokens` of each row of a language model."""
        with self.context.accelerator.autocast():
            losses = self._evaluator.compute_losses(model, self.examples.rows)
        return pl.DataFrame(
            {
                "row_id": self.rows.frame["row_id"][self.examples.position],
                "loss": pl.Series([total for total, _ in losses], dtype=pl.Float64),
                "n_tokens": pl.Series([count for _, count in losses], dtype=pl.Int64),
            }
        )

    def measure_all(self, model: Any) -> pl.DataFrame:
        """Return what `measure` does, and the documents of an lm-eval task, where one is set.

        Every process answers all of them.
        """
        outcomes, settings = self.measure(model), self.context.settings
        if settings.metric is None:
            return outcomes
        with self.context.accelerator.autocast():
            values = score_documents(settings.metric, model, self.context.tokenizer, limit=settings.metric_limit)
        return put_values(outcomes, open_lm_eval_task(settings.metric).column, values)

    def measure(self, model: Any) -> pl.DataFrame:
        """Return the outcome of each usable row, one row each, equal on all processes."""
        context = self.context
        usable = self.rows.frame[self.examples.position]
        row_id, response = usable["row_id"].to_list(), usable["response"].to_list()
        if context.task == "sft":  # what ends an answer is no part of it
            response = [find_markers(context.tokenizer).strip_end(text) for text in response]
        with context.accelerator.autocast():
            if context.task == "classification":
                return classification_outcomes(
                    self._evaluator,
                    model,
                    self.examples.rows,
                    row_id=row_id,
                    truth=response,
                    classes=context.labels,
                )
            return language_outcomes(
                self._evaluator,
                model,
                self.examples.rows,
                row_id=row_id,
                references=response,
                prompts=self.prompts,
                max_new_tokens=context.settings.max_new_tokens,
                ends=self.end_tokens,
            )


def tokenize_held_out(context: RunContext, rows: Dataset) -> Examples:
    """Return the usable ones of held-out rows, and why the others are not.

    Labels that the model does not know get codes beyond its classes.
    """
    unknown = set(rows.frame["response"].unique()) - set(context.labels) if context.labels else set()
    return context.tokenize(rows, [*context.labels, *sorted(unknown)])


def prepare_held_out(context: RunContext) -> HeldOut | None:
    """Tokenize the held-out rows of a call, if there are any.

    Labels that the model does not know get codes beyond its classes, and count as wrong.

    Raises:
        InputError: none of them can be measured.
    """
    rows, settings, tokenizer = context.split.held_out, context.settings, context.tokenizer
    if rows is None:
        return None
    examples = tokenize_held_out(context, rows)
    require_rows(examples, "eval", n_vocabulary=context.base.n_vocabulary)
    prompts: dict[int, list[int]] = {}
    n_prompts_cut = 0
    if context.task == "sft" and settings.eval_generations:
        # among all rows: models differ in those that they cannot use, and must answer the same ones
        chosen = set(choose_answered(rows.frame["row_id"], settings.eval_generations))
        asked = [place for place, position in enumerate(examples.position) if position in chosen]
        texts = [
            render_prompt(tokenizer, each.messages, each.tools, special_tokens=settings.special_tokens)
            for each in rows.messages([examples.position[place] for place in asked])
        ]
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        room = (context.base.max_positions or 1 << 30) - settings.max_new_tokens
        whole = [[*start_tokens(tokenizer, ids, is_asked=False), *ids] for ids in encoded]
        cut = [truncate_prompt(ids, room, bos=tokenizer.bos_token_id) for ids in whole]
        prompts = dict(zip(asked, cut, strict=True))
        n_prompts_cut = sum(len(ids) > room for ids in whole)
    return HeldOut(
        context=context,
        rows=rows,
        examples=examples,
        prompts=prompts,
        n_prompts_cut=n_prompts_cut,
        end_tokens=find_end_tokens(examples, tokenizer),
    )
