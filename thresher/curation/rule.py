"""The contract of rules: what a rule is given, what it answers, and how it is found by its name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl

from thresher.curation.verdict import Verdict
from thresher.features.requirements import Method
from thresher.plugins import Registry

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.features import Features

EXISTING, EVAL = "existing", "eval"
ROLES = {EXISTING: "rows you already have", EVAL: "rows to evaluate on"}  # rows beside the pool


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one role, with the features that the rule asked for.

    Attributes:
        dataset: n rows.
        features: of these rows, in the same order.
    """

    dataset: Dataset
    features: Features

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.dataset)

    @property
    def row_id(self) -> pl.Series:
        """Names of the rows, (n,) string."""
        return self.dataset.frame["row_id"]


class Rule(Method):
    """Base of every rule: a name and a pure `check`, and members with defaults.

    `check` reads nothing but its arguments: the same rows, features and generator give the same
    verdict. Rows of a role are given only to rules whose requirements name it, and only where the
    caller has some: "existing" (rows kept earlier: a rule drops none of them, and a row that
    repeats one is dropped in favor of it) and "eval" (rows to evaluate on).
    """

    is_private: ClassVar[bool] = False
    """The tables of the result show no text of the rows that the rule finds."""

    @property
    def precedes(self) -> Mapping[str, str]:
        """Name of a rule -> why that one should come after this one; another order is reported."""
        return {}

    @abstractmethod
    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Judge every row of the pool.

        Args:
            pool: n rows, at least one, in the order of the user's files.
            existing: rows kept earlier, or None.
            eval: rows to evaluate on, or None.
            rng: the only source of randomness.
        """

    def describe_plan(self, pool: Dataset, existing: Dataset | None) -> str | None:
        """Say in a sentence what `check` is about to do, before it is done; None for nothing.

        Args:
            pool: n rows.
            existing: rows kept earlier, or None.

        Raises:
            InputError: it does not fit into the memory of this machine.
        """
        return None

    def mask(self, texts: pl.Series) -> pl.Series:
        """Return (n,) masked texts, for a rule whose verdicts mark rows as masked.

        Raises:
            AssertionError: the rule marks rows and has no mask.
        """
        raise AssertionError(f"rule '{self.name}' masks {len(texts)} texts and does not say how")


RULES = Registry("thresher.curation", "rule", Rule)  # type: ignore[type-abstract]
available, load_class, create = RULES.available, RULES.load, RULES.create


def check_order(rules: Sequence[Rule]) -> list[str]:
    """Return a sentence for each rule that comes before one it should come after."""
    return [
        f"{later.name} comes after {earlier.name}, and should come before it: {later.precedes[earlier.name]}"
        for number, later in enumerate(rules)
        for earlier in rules[:number]
        if earlier.name in later.precedes
    ]
