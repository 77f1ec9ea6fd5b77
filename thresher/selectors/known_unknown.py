"""Known or unknown: rows by how well a model knows their answers already."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from thresher.errors import SettingsError, did_you_mean
from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.features.settings import AnswerAccuracySettings
from thresher.numeric.arrays import Array
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores

GROUPS = ("highly-known", "maybe-known", "weakly-known", "unknown")
LEFT_OUT = "the model's knowledge of it is in the group '{}', which the setting order leaves out"


@dataclass(frozen=True, kw_only=True)
class KnownUnknown(AnswerAccuracySettings, Selector):
    """Keep rows by how well the model knows their short answers, group after group (SliCK).

    P0 is the share of prompts, each with other examples, whose likeliest answer is right, P1 that
    of drawn answers. highly-known: P0 = 1. maybe-known: 0 < P0 < 1. weakly-known: P0 = 0 and P1 >
    0. unknown: both 0. Right is the row's response word by word. Optimizes the number of picks from
    the groups in `order`, the first ones first.

    Source: Gekhman et al. 2024, arXiv:2405.05904: rows that a model maybe knows served it best;
    unknown ones are learned late and, once they are, make it invent more. Cost: n_prompts answers
    of each row, and n_prompts n_samples for rows with P0 = 0 alone, which makes the same groups as
    drawing for all; 10 prompts of 4 examples and 16 samples are the paper's. `--set n_prompts=3
    --set n_samples=4` is eleven times cheaper and coarser. Needs: `answer_accuracy`, from --model
    (a model, an adapter or the address of a server) or the default one. Ties: within a group to
    the lowest row; where ids are hashes that is as good as drawn. An empty pool is refused. Rows
    with longer responses than max_words, rows that the model cannot answer, and rows whose answer
    was cut at max_new_tokens while it was right are excluded with their reason. Fails: an answer in
    other words counts as wrong, so answers must have one form. What a model does not know it may
    still need: then add it to a store that is searched, or stop training early. A model that
    follows examples badly seems to know nothing.

    Attributes:
        order: groups to keep, the first ones first, divided by commas; rows of a group that is left
            out are excluded.
        n_prompts: prompts of each row.
        n_examples: examples in each.
        n_samples: answers drawn of each prompt.
        temperature: they are drawn at.
        max_words: of a response that counts as short.
        max_new_tokens: limit of each answer.
        by: column that a row and its examples share, such as a relation; default: any row can be an
            example.
        seed: of the examples and the draws.

    Differs: examples are of the same relation in the paper, here only with `by`.
    """

    name: ClassVar[str] = "known-unknown"
    ranks_only: ClassVar[bool] = True

    order: str = "maybe-known,highly-known,weakly-known,unknown"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: a setting has an illegal value.
        """
        super().__post_init__()
        for name in self._order:
            if name not in GROUPS or self._order.count(name) > 1:
                raise SettingsError(
                    f"{self.name}: order must hold {', '.join(GROUPS)}, each at most once, got {self.order!r}"
                    f"{did_you_mean(name, GROUPS) if name not in GROUPS else ''}"
                )

    @property
    def _order(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.order.split(","))

    @property
    def requirements(self) -> Requirements:
        """The knowledge, and how the model is asked for it."""
        settings = {field.name: getattr(self, field.name) for field in fields(AnswerAccuracySettings)}
        return Requirements(
            features={"answer_accuracy"}, feature_settings={"answer_accuracy": AnswerAccuracySettings(**settings)}
        )

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row whose group is in the order."""
        group = groups(features["answer_accuracy"])  # (n,) int64 into GROUPS, -1 for none
        worth = np.full(len(GROUPS) + 1, -np.inf)  # the last one is for rows without a group
        for place, name in enumerate(self._order):
            worth[GROUPS.index(name)] = -place
        value = worth[group]
        reasons = np.array([LEFT_OUT.format(name) for name in GROUPS] + [""])[group]
        excluded = features.missing_reasons("answer_accuracy", other=np.where(np.isinf(value), reasons, ""))
        counts = np.bincount(group[group >= 0], minlength=len(GROUPS))
        notes: dict[str, str | int | float] = {
            name.replace("-", "_"): int(n) for name, n in zip(GROUPS, counts, strict=True)
        }
        return Scores(row_id=features.row_id, value=value, by=self.name, excluded=excluded, notes=notes)


def groups(knowledge: Array) -> NDArray[np.int64]:
    """Return the place in GROUPS of each row, (n,); -1 for a row without a value.

    Args:
        knowledge: (n,) with the fields `likeliest` (P0) and `drawn` (P1, which counts only where P0
            is 0).
    """
    p0, p1 = knowledge["likeliest"], knowledge["drawn"]
    chosen = np.select([np.isnan(p0), p0 == 1, p0 > 0, p1 > 0], [-1, 0, 1, 2], default=3)
    return chosen.astype(np.int64)
