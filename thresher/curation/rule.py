"""The rule protocol: what a rule is given, what it answers, and how it is found by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import polars as pl

from thresher import plugins
from thresher.curation.verdict import Verdict

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.features import Features

GROUP = "thresher.curation"
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


@runtime_checkable
class Rule(Protocol):
    """Three members, no base class: a name, the features it needs, and a pure `check`.

    A rule is a frozen dataclass whose fields are its settings. `check` reads nothing but its
    arguments: the same rows, features and generator give the same verdict. More is said by optional
    attributes:

    - `accepts`: role -> features needed of the rows of that role. Roles are "existing" (rows kept
      earlier: a rule drops none of them, and a row that repeats one is dropped in favor of it) and
      "eval" (rows to evaluate on). A rule is given only the roles it accepts, and of those only the
      ones that the caller has.
    - `requires`: the roles without which the rule cannot run.
    - `feature_settings`: fields of `FeatureContext` that the rule sets.
    - `is_private = True`: the tables of the result show no text of the rows that the rule finds.
    - `precedes`: name of a rule -> why that one should come behind this one; another order is told.
    - `mask(texts)`: for a rule that marks rows as masked in its verdict: a row-wise function from
      (n,) texts to texts.
    """

    name: ClassVar[str]

    @property
    def needs(self) -> frozenset[str]:
        """Names of the features to compute of the pool before `check` is called."""

    def check(
        self,
        pool: Rows,
        *,
        existing: Rows | None,
        eval: Rows | None,
        rng: np.random.Generator,
    ) -> Verdict:
        """Judge every row of the pool.

        Args:
            pool: n rows, at least one, in the order of the user's files.
            existing: rows kept earlier, or None.
            eval: rows to evaluate on, or None.
            rng: the only source of randomness.
        """


def available() -> dict[str, EntryPoint]:
    """Return every rule that is installed, ours and plug-ins', by name."""
    return plugins.available(GROUP)


def load_class(name: str) -> Any:
    """Return the class behind a rule's name."""
    return plugins.load_class(GROUP, name, what="rule")


def create(name: str, settings: Mapping[str, Any] | None = None) -> Rule:
    """Build a rule from its name and its settings.

    Args:
        name: as in the entry point, for example "near-duplicates".
        settings: values of the rule's fields; strings are converted to the field's type.
    """
    rule: Rule = plugins.build(load_class(name), name, settings)
    return rule


def check_order(rules: Sequence[Rule]) -> list[str]:
    """Return a sentence for each rule that comes before one it should come behind."""
    return [
        f"{later.name} comes behind {earlier.name}, and should come before it: {why}"
        for number, later in enumerate(rules)
        for earlier in rules[:number]
        if (why := getattr(later, "precedes", {}).get(earlier.name)) is not None
    ]


def accepts(rule: Rule) -> Mapping[str, frozenset[str]]:
    """Return the features that a rule needs of rows beside the pool, by role."""
    found: Mapping[str, frozenset[str]] = getattr(rule, "accepts", {})
    return found
