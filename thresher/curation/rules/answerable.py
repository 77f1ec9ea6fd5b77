"""Answerable: synthetic rows whose question a model does not answer as they do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from thresher.checks import create_check
from thresher.curation.rule import Rows, Rule
from thresher.curation.verdict import Verdict
from thresher.features.requirements import Requirements
from thresher.features.settings import PassRateSettings
from thresher.validation import option

PASS_RATE = "pass_rate"


@dataclass(frozen=True, kw_only=True)
class Answerable(Rule):
    """Drop rows whose answer a model, asked the question again, gives too seldom (round trip).

    The model answers each prompt `n_samples` times, and a row stays when a share of at least
    `least` of them passes the check against its response. A row without such a share stays, with
    its reason as a finding. For rows that a model wrote, yours or anybody's.

    Source: consistency after a round trip, as Alberti et al. 2019, arXiv:1906.05416, keep synthetic
    questions. Cost: n_samples answers of each row, kept one by one. Needs: `pass_rate`, from
    --model or the default one; best not the model that wrote the rows. Fails: what only the writer
    knows is dropped, hard and right rows first; a mistake that writer and judge share stays.

    Attributes:
        least: smallest share of right answers that stays.
        answer_check: "auto" (by the form of each response), "exact", "number" (the final one),
            "choice", "json", "regex:PATTERN", or the name of a check of yours.
        n_samples: answers drawn of each prompt.
        temperature: they are drawn at.
        max_new_tokens: limit of each; one that is cut before it is right is not counted.
        seed: of the draws.
    """

    name: ClassVar[str] = "answerable"

    least: float = option(0.5, gt=0, le=1)
    answer_check: str = option("auto", ge=1)
    n_samples: int = option(8, ge=2)
    temperature: float = option(0.7, ge=1e-3, le=100)
    max_new_tokens: int = option(256, ge=1)
    seed: int = option(0, ge=0)

    def __post_init__(self) -> None:
        """Check the settings, and that there is such a check.

        Raises:
            SettingsError: a setting has an illegal value.
            NotFoundError: no check has this name.
        """
        super().__post_init__()
        create_check(self.answer_check)

    @property
    def requirements(self) -> Requirements:
        """The pass rate, and how the model is asked and checked."""
        settings = PassRateSettings(
            check=self.answer_check,
            n_samples=self.n_samples,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
        )
        return Requirements(features={PASS_RATE}, feature_settings={PASS_RATE: settings})

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row of a share below `least`."""
        # NaN with a reason
        passed, drawn = (pool.features[PASS_RATE][field] for field in ("passed", "drawn"))
        missing = pool.features.missing.get(PASS_RATE, [None] * len(passed))
        frame = pl.DataFrame({"passed": passed, "drawn": drawn, "missing": missing}).with_columns(
            pl.col("passed", "drawn").fill_nan(None), pl.col("missing").cast(pl.String)
        )
        # divided, as 11 of 20 is 0.55, and 0.55 * 20 more than 11
        is_low = pl.col("passed") / pl.col("drawn") < self.least
        counts = pl.format(
            "{} of {} sampled answers agree with its answer",
            *(pl.col(name).cast(pl.Int64) for name in ("passed", "drawn")),
        )
        parts = frame.select(
            reason=pl.when(is_low).then(pl.lit("not-answerable")),
            explanation=pl.when(is_low).then(counts).otherwise(pl.format("was not tried: {}", pl.col("missing"))),
        )
        return Verdict.from_frame(parts, notes={"without_answers": int(np.isnan(passed).sum())})
