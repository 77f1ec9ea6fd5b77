"""Language models on rows with answers: bits per byte and scores, before any training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from thresher.dataset.conversation import count_answer_bytes
from thresher.errors import InputError
from thresher.evaluation.forgetting import measure_bits
from thresher.evaluation.metric import METRICS
from thresher.experiments.bases.candidates import Candidate
from thresher.experiments.experiment import Experiment
from thresher.numeric.arrays import Float64
from thresher.trainer.context import RunContext
from thresher.trainer.events import TrainEvent
from thresher.trainer.untouched.row_zero import BaseOutcomes, measure_base


@dataclass(frozen=True, kw_only=True)
class AnswerScores:
    """What an untouched language model does on held-out rows.

    Attributes:
        kind: of the rows.
        tables: by rising number of rows in the prompt: outcomes and `n_bytes` of the rows that the
            model can read with any of them, in one order.
        ms_per_row: what reading a row took, over all prompts; None where it was kept from before.
    """

    kind: str
    tables: Mapping[int, pl.DataFrame]
    ms_per_row: float | None

    @property
    def _last(self) -> pl.DataFrame:
        return list(self.tables.values())[-1]

    @property
    def row_ids(self) -> list[str]:
        """Of the held-out rows that the model can read."""
        return self._last["row_id"].to_list()

    @property
    def bits(self) -> Float64:
        """Of each row's answers, with the most rows in the prompt: (n,)."""
        bits: Float64 = self._last["loss"].to_numpy() / np.log(2)
        return bits

    @property
    def n_bytes(self) -> Float64:
        """Of each row's answers: (n,)."""
        return self._last["n_bytes"].to_numpy().astype(np.float64)

    @property
    def scores(self) -> dict[str, float]:
        """Scores by name.

        `bits_per_byte` of the answers with the most rows in the prompt, and for each number of rows
        in the prompt `bits_per_byte_K` and, where answers were written, the metrics of them, as
        `exact_match_K`.
        """
        scores = {"bits_per_byte": measure_bits(self._last).value}
        for shots, table in self.tables.items():
            scores |= _score(table, shots, self.kind)
        return scores

    def take(self, row_ids: Sequence[str]) -> AnswerScores:
        """Return what it does on some of its rows, in their order."""
        return replace(self, tables={shots: _take(table, row_ids) for shots, table in self.tables.items()})


def _take(table: pl.DataFrame, row_ids: Sequence[str]) -> pl.DataFrame:
    chosen = pl.DataFrame({"row_id": row_ids}, schema={"row_id": pl.String})
    return chosen.join(table, on="row_id", how="left", maintain_order="left")


def score_answers(candidate: Candidate, experiment: Experiment) -> AnswerScores:
    """Measure a language model with each number of rows in its prompt.

    The loss of the turns that are learned counts their ends, and is divided by the bytes of their
    texts: so models with different tokenizers can be compared. A row that does not fit into
    `max_length` is left out, because its loss is that of a part of its bytes.

    Raises:
        InputError: the model cannot read the rows.
    """
    fresh: list[TrainEvent] = []
    context = replace(experiment, model=candidate.model).build_context(experiment.pool, seed=0)
    context = replace(context, on_event=fresh.append)
    started = time.monotonic()
    measured = measure_base(context)
    seconds = time.monotonic() - started
    n_bytes = _count_bytes(context)
    tables = [_add_bytes(each, n_bytes) for each in measured]
    readable = set.intersection(*[set(table["row_id"]) for table in tables])
    row_ids = [row_id for row_id in tables[-1]["row_id"] if row_id in readable]
    n_fresh = sum(event.kind == "note" for event in fresh)
    n_read = len(tables[-1]) * n_fresh
    return AnswerScores(
        kind=experiment.pool.kind,
        tables={each.shots: _take(table, row_ids) for each, table in zip(measured, tables, strict=True)},
        ms_per_row=1000 * seconds / n_read if n_fresh == len(measured) else None,
    )


def _count_bytes(context: RunContext) -> dict[str, int]:
    """Return the bytes of what is learned of each held-out row that the model reads whole."""
    rows = context.split.held_out
    assert rows is not None
    examples = context.tokenize(rows)
    place = [
        position
        for position, row in zip(examples.position, examples.rows, strict=True)
        if len(row.input_ids) < examples.max_length
    ]
    if not place:
        raise InputError(
            f"base rank: held-out rows of fewer than {examples.max_length:,} tokens are required, found none; "
            f"raise max_length"
        )
    whole = rows.take(place)
    if context.task != "sft":
        sizes = whole.frame["response"].str.len_bytes().to_list()
    else:
        only_last = context.settings.loss_on == "last-assistant"
        conversations = whole.messages(range(len(whole)))
        sizes = [count_answer_bytes(each, only_last=only_last) for each in conversations]
    return dict(zip(whole.frame["row_id"], sizes, strict=True))


def _add_bytes(measured: BaseOutcomes, n_bytes: Mapping[str, int]) -> pl.DataFrame:
    """Return the rows whose answers have a loss and a byte."""
    outcomes = measured.outcomes
    sizes = pl.Series("n_bytes", [n_bytes.get(row_id, 0) for row_id in outcomes["row_id"]], dtype=pl.Int64)
    table = outcomes.with_columns(sizes).filter(pl.col("loss").is_finite() & (pl.col("n_bytes") > 0))
    if not len(table):
        raise InputError("base rank: the answers of the held-out rows must have text, found none; check --eval")
    return table


def _score(table: pl.DataFrame, shots: int, kind: str) -> dict[str, Any]:
    scores = {f"bits_per_byte_{shots}": measure_bits(table).value}
    for name, metric in METRICS[kind].items():
        if name != "loss" and metric.column in table.columns and table[metric.column].null_count() < len(table):
            scores[f"{name}_{shots}"] = metric.measure(table).value
    return scores
