"""Pass rate: rows that a model gets right sometimes, for training with verifiable rewards."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.features.settings import PassRateSettings
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores


@dataclass(frozen=True, kw_only=True)
class PassRate(PassRateSettings, Selector):
    """Rank rows by p (1 - p), p the share of a model's drawn answers that pass a check.

    Optimizes the sum over the picks of the variance of the reward, estimated without bias by c (n -
    c) / (n (n - 1)) for c right ones of n drawn answers. Training with verifiable rewards (GRPO and
    its kin) compares the answers of one prompt with each other: where all are right, or all wrong,
    they teach nothing, and the step is as large as the rewards differ.

    Source: the variance of a reward of 0 or 1; for dropping prompts whose answers are all right or
    all wrong Yu et al. 2025, arXiv:2503.14476 (DAPO), for preferring p near a half Foster and
    Foerster 2025, arXiv:2502.12272. Cost: n_samples answers of each row; each is kept, so that
    another check or more samples pay for none twice. Needs: `pass_rate`, from --model (a model, an
    adapter or the address of a server) or the default one. Ties: to the lowest row, and with few
    samples there are many. An empty pool is refused. A row in whose response the check finds
    nothing to compare, or whose answers were all cut before one was right, is excluded with its
    reason. Fails: rows that are
    always wrong come last although some would be learned later: draw again as the model gets
    better. A wrong reference that is guessed sometimes looks like a hard row. The check reads the
    final answer, not the way to it.

    `--budget 'score>0'` keeps the rows that are right sometimes, all others teach nothing now.

    Attributes:
        check: "auto" (by the form of each response), "exact", "number" (the final one), "choice",
            "json", "regex:PATTERN", or the name of a check of yours (`thresher.checks`).
        n_samples: answers drawn of each prompt.
        temperature: they are drawn at.
        max_new_tokens: limit of each; one that is cut counts as it stands.
        seed: of the draws.
    """

    name: ClassVar[str] = "pass-rate"

    @property
    def requirements(self) -> Requirements:
        """The pass rate, and how the model is asked and checked."""
        return Requirements(features={"pass_rate"}, feature_settings={"pass_rate": PassRateSettings(**asdict(self))})

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row that has a pass rate."""
        # (n,) each, NaN with a reason
        passed, drawn = (features["pass_rate"][field] for field in ("passed", "drawn"))
        is_known = np.isfinite(passed)
        value = np.full(len(passed), -np.inf)
        value[is_known] = (passed * (drawn - passed) / (drawn * (drawn - 1)))[is_known]
        return Scores(
            row_id=features.row_id,
            value=value,
            by=self.name,
            excluded=features.missing.get("pass_rate"),
            notes={
                "never_right": int((passed == 0).sum()),
                "sometimes_right": int(((passed > 0) & (passed < drawn)).sum()),
                "always_right": int((passed == drawn).sum()),
                "mean_pass_rate": round(float(np.mean(passed[is_known] / drawn[is_known])), 4) if is_known.any() else 0,
            },
        )
