"""The general set: rows that are not of the task, by which it is seen what training cost.

Losses are counted in bits per byte of what is read, which does not depend on the tokenizer. The
embedded set was written for this project (`general/README.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import polars as pl

from thresher.dataset import Dataset
from thresher.errors import InputError
from thresher.evaluation.outcomes import Evaluator
from thresher.models.causal_lm.chat_template import prepare_template, render_prompt, start_tokens
from thresher.trainer.context import RunContext, content_hash
from thresher.trainer.engine.processes import gather_results, take_share
from thresher.trainer.engine.tokenization import Examples, require_rows, tokenize
from thresher.trainer.settings import Task

ANSWERED = 40  # questions that are answered, evenly spread over the set
NEW_TOKENS = 24  # of an answer
NO_SOURCE = "rows"


@dataclass(frozen=True)
class GeneralRows:
    """Rows of one kind, ready for the model.

    Attributes:
        rows: all of them.
        examples: those that the model reads whole.
        tokenizer: of the model, with a chat template for questions.
        source: of each usable row.
    """

    rows: Dataset
    examples: Examples
    tokenizer: Any
    source: list[str]

    def thin(self, every: int) -> GeneralRows:
        """Return the first of each so many rows."""
        examples = self.examples
        few = replace(examples, rows=examples.rows[::every], position=examples.position[::every])
        return replace(self, examples=few, source=self.source[::every])


@dataclass(frozen=True)
class GeneralSet:
    """A general set, ready for the model.

    Attributes:
        name: for people: "embedded", or the file.
        parts: of one kind each.
        fingerprint: of the content.
        n_left_out: rows that the model cannot read whole, or that have nothing to measure.
        prompts: row id and tokens of the questions that are answered.
    """

    name: str
    parts: Sequence[GeneralRows]
    fingerprint: str
    n_left_out: int
    prompts: Sequence[tuple[str, list[int]]] = field(default_factory=tuple)

    def measure(self, context: RunContext, model: Any) -> pl.DataFrame:
        """Return `row_id`, `source`, `loss` (nats, summed) and `n_bytes` of each row.

        The loss is of the answer and its end where there is a question, else of the whole text.

        Args:
            context: device and processes.
            model: causal language model in evaluation mode.
        """
        tables = []
        for part in self.parts:
            with context.accelerator.autocast():
                losses = _build_evaluator(context, part.tokenizer).compute_losses(model, part.examples.rows)
            usable = part.rows.frame[part.examples.position]
            tables.append(
                pl.DataFrame(
                    {
                        "row_id": usable["row_id"],
                        "source": part.source,
                        "loss": pl.Series([total for total, _ in losses], dtype=pl.Float64),
                        "n_bytes": usable["response"].str.len_bytes().cast(pl.Int64),
                    }
                )
            )
        return pl.concat(tables)

    def sample(self, n: int) -> tuple[GeneralSet, float]:
        """Return about n of the rows, evenly spread, and the share of all tokens that they have."""
        whole = [len(row.input_ids) for part in self.parts for row in part.examples.rows]
        every = max(1, len(whole) // n)
        parts = [part.thin(every) for part in self.parts]
        kept = sum(len(row.input_ids) for part in parts for row in part.examples.rows)
        return replace(self, parts=parts), kept / sum(whole)

    def answer(self, context: RunContext, model: Any) -> pl.DataFrame:
        """Return `row_id`, `prompt`, `response` and `prediction` of some of the questions."""
        answers: list[str] = []
        if self.prompts:
            part = next(part for part in self.parts if part.rows.kind == "sft")
            with context.accelerator.autocast():
                answers = _build_evaluator(context, part.tokenizer).generate_answers(
                    model, [ids for _, ids in self.prompts], max_new_tokens=NEW_TOKENS, ends=frozenset()
                )
        known = {row["row_id"]: row for part in self.parts for row in part.rows.frame.iter_rows(named=True)}
        ids = [row_id for row_id, _ in self.prompts]
        return pl.DataFrame(
            {
                "row_id": pl.Series(ids, dtype=pl.String),
                "prompt": pl.Series([known[row_id]["prompt"] for row_id in ids], dtype=pl.String),
                "response": pl.Series([known[row_id]["response"] for row_id in ids], dtype=pl.String),
                "prediction": pl.Series(answers, dtype=pl.String),
            }
        )


def prepare_general(context: RunContext, *, has_answers: bool) -> GeneralSet | None:
    """Load and tokenize the general set that a call names; None where it measures none.

    Args:
        context: of the call.
        has_answers: whether some of its questions are answered, too.

    Raises:
        InputError: the rows are texts with labels, or none can be read.
    """
    datasets = context.general_rows
    if not datasets:
        return None
    parts = [_tokenize(context, rows) for rows in datasets]
    return GeneralSet(
        name="embedded" if context.untouched.general == "auto" else str(context.untouched.general),
        parts=parts,
        fingerprint="-".join(content_hash(rows) for rows in datasets),
        n_left_out=sum(len(part.rows) - len(part.examples) for part in parts),
        prompts=_choose_prompts(context, parts) if has_answers and context.settings.eval_generations else (),
    )


def _tokenize(context: RunContext, rows: Dataset) -> GeneralRows:
    if rows.kind == "classification":
        raise InputError(
            f"general: {context.untouched.general} must hold texts, or questions with answers, found texts with labels"
        )
    tokenizer = deepcopy(context.tokenizer)  # the adapter's own is left as it is
    if rows.kind == "sft":
        prepare_template(tokenizer)
    max_length = int(context.base.max_positions or context.settings.max_length or 0)
    task: Task = "sft" if rows.kind == "sft" else "text"
    examples = tokenize(rows, tokenizer, task=task, max_length=max_length, loss_on="last-assistant")
    require_rows(examples, "general", n_vocabulary=context.base.n_vocabulary)
    is_whole = [len(example.input_ids) < max_length for example in examples.rows]
    kept = [i for i, whole in enumerate(is_whole) if whole]
    whole = Examples(
        max_length,
        rows=[examples.rows[i] for i in kept],
        position=[examples.position[i] for i in kept],
        left_out=examples.left_out,
    )
    require_rows(whole, "general")
    source = rows.column("source").cast(pl.String).to_list() if "source" in rows.column_names else None
    names = [NO_SOURCE if source is None else source[position] or NO_SOURCE for position in whole.position]
    return GeneralRows(rows, whole, tokenizer, names)


def _choose_prompts(context: RunContext, parts: Sequence[GeneralRows]) -> list[tuple[str, list[int]]]:
    """Return (row id, tokens of the prompt) of the questions that are answered."""
    chosen = []
    for part in parts:
        if part.rows.kind != "sft":
            continue
        every = max(1, -(-len(part.examples) // ANSWERED))
        positions = part.examples.position[::every]
        for position, each in zip(positions, part.rows.messages(positions), strict=True):
            text = render_prompt(part.tokenizer, each.messages, each.tools)
            ids = part.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            tokens = [*start_tokens(part.tokenizer, ids, is_asked=False), *ids]
            if len(tokens) + NEW_TOKENS <= (context.base.max_positions or 1 << 30):
                chosen.append((part.rows.frame["row_id"][position], tokens))
    return chosen


def _build_evaluator(context: RunContext, tokenizer: Any) -> Evaluator:
    accelerator = context.accelerator
    return Evaluator(
        tokenizer=tokenizer,
        device=accelerator.device,
        share=partial(take_share, accelerator=accelerator),
        gather=partial(gather_results, accelerator=accelerator),
    )
