"""Conflicts: one prompt, answers that contradict one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import polars as pl

from thresher.curation.rule import EXISTING, Rows, Rule
from thresher.curation.similarity.duplicate_groups import DUPLICATES
from thresher.curation.similarity.tool_calls import describe_calls
from thresher.curation.verdict import Verdict
from thresher.dataset.normalize import normalize_texts
from thresher.errors import InputError
from thresher.features.requirements import Requirements
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class Conflicts(Rule):
    """Drop rows with the same prompt and contradicting answers: no model can learn both.

    Of classification data, two labels on one text contradict each other. Of other data two
    different answers do, if both are short (`max_words`): a question that has one answer gets one.
    Long answers to one prompt may differ and all be right, and are not judged. Prompts and answers
    are normalized before they are compared; the tools, and the calls before the answer, are part of
    the prompt.

    Cost: linear in the length of the texts. Existing rows: none is dropped; a row that contradicts
    one is, whatever `keep` says. Ties: where no answer has more than half of the rows, "majority"
    drops them all. Rules for duplicates leave one row of each answer, and so nothing to count: put
    them after this one. Fails: short answers to open requests ("name a color") differ and are
    right; report only, or lower `max_words`.

    Attributes:
        keep: "majority": rows with the answer that more than half of the rows of a prompt give
            stay; "none": all go; "first": rows with the answer of the first row stay.
        max_words: longest answer of a prompt, in words, up to which different answers contradict
            each other; labels always do.
    """

    name: ClassVar[str] = "conflicts"
    requirements: ClassVar[Requirements] = Requirements(side_features={EXISTING: frozenset()})
    precedes: ClassVar[Mapping[str, str]] = dict.fromkeys(
        DUPLICATES, "a duplicate rule keeps one row per answer, so there is no majority"
    )

    keep: Literal["majority", "none", "first"] = "majority"
    max_words: int = option(12, ge=1)

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop the rows of contradicting answers.

        Raises:
            InputError: the rows are text alone.
        """
        if pool.dataset.kind == "text":
            raise InputError(f"{self.name}: rows need a prompt and a response, found rows of text; leave out the rule")
        is_label = pool.dataset.kind == "classification"
        answers = [
            _read_answers(rows, is_existing=rows is existing, is_label=is_label) for rows in (existing, pool) if rows
        ]
        groups = pl.concat(answers)
        is_repeated = groups["prompt"].is_duplicated().to_numpy()
        sides = [rows.dataset for rows in (existing, pool) if rows]
        # with other tools it is another prompt
        calls = describe_calls(sides, is_repeated, is_prompt=True)
        groups = groups.with_columns(prompt=pl.col("prompt") + pl.lit("\0") + calls).with_row_index("at")
        count = pl.len().over("prompt", "answer")  # rows that give this answer to this prompt
        first = pl.col("at") == pl.col("at").min().over("prompt")
        groups = groups.with_columns(
            n=pl.len().over("prompt"),
            n_same=count,
            n_answers=pl.col("answer").n_unique().over("prompt"),
            most=count.max().over("prompt"),
            longest=pl.col("words").max().over("prompt"),
            of_first=pl.col("answer").filter(first).first().over("prompt"),
            of_existing=pl.col("answer").filter("is_existing").first().over("prompt"),
        ).filter(~pl.col("is_existing"))
        is_short = pl.lit(value=True) if is_label else pl.col("longest") <= self.max_words
        is_conflict = (pl.col("n_answers") > 1) & is_short
        is_kept = (
            pl.when(pl.col("of_existing").is_not_null())
            .then(pl.col("answer") == pl.col("of_existing"))
            .otherwise(self._is_kept())
        )
        is_dropped = is_conflict & ~is_kept
        others = pl.when(pl.col("n_answers") == 2).then(pl.lit("have another")).otherwise(pl.lit("have several others"))
        sentence = pl.format(
            "{} of the {} rows with this prompt have this answer, the others {}", "n_same", "n", others
        )
        verdict = groups.select(
            reason=pl.when(is_dropped).then(pl.lit("conflict")),
            explanation=pl.when(is_dropped).then(sentence),
            cluster=pl.when(is_conflict).then(pl.col("row_id").first().over("prompt")),
        )
        n_long = groups.select(((pl.col("n_answers") > 1) & ~is_short).sum()).item()
        return Verdict.from_frame(verdict, notes={"rows_with_long_answers_not_judged": int(n_long)})

    def _is_kept(self) -> pl.Expr:
        """Return which rows of a contradiction stay."""
        if self.keep == "none":
            return pl.lit(value=False)
        if self.keep == "first":
            return pl.col("answer") == pl.col("of_first")
        return (pl.col("n_same") == pl.col("most")) & (pl.col("n_same") * 2 > pl.col("n"))


def _read_answers(rows: Rows, *, is_existing: bool, is_label: bool) -> pl.DataFrame:
    frame = rows.dataset.frame
    return pl.DataFrame(
        {
            "row_id": frame["row_id"],
            "prompt": normalize_texts(frame["prompt"]),
            "answer": frame["response"] if is_label else normalize_texts(frame["response"]),
            "words": frame["response"].str.count_matches(r"\S+"),
            "is_existing": pl.Series([is_existing]).new_from_index(0, len(frame)),
        }
    )
