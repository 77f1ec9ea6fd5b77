"""What a selector declares: its name, what it needs, how it scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import polars as pl

from thresher.errors import InputError
from thresher.features.container import Features, current_name
from thresher.features.requirements import Method
from thresher.subset.scores import Scores


@dataclass(frozen=True, kw_only=True)
class PoolFacts:
    """What a selector may know of the pool before it names the features that it needs.

    Attributes:
        kind: of the rows, for example "classification".
        roles: of the rows that stand beside the pool, for example "target".
        read: gives the rows, with their texts as `prompt` and their labels as `response`; it is
            called only where a selector asks for one of the properties below.
    """

    kind: str
    roles: Set[str]
    read: Callable[[], pl.DataFrame]

    @cached_property
    def label_counts(self) -> list[int]:
        """How many rows each label has, the most frequent first; none for rows without labels."""
        if self.kind != "classification":
            return []
        return sorted(self.read()["response"].value_counts()["count"].to_list(), reverse=True)

    @cached_property
    def has_two_texts(self) -> bool:
        """Whether at least two texts differ."""
        return self.read()["prompt"].n_unique() > 1


class Selector(Method):
    """Base of every selector: a name and a pure `score`, and members with defaults.

    `score` reads nothing but its arguments: the same features and generator give the same bytes.
    """

    ranks_only: ClassVar[bool] = False
    """The values are ranks, with no meaning to a threshold."""

    takes_quota: ClassVar[bool] = True
    """Its ranking may be reordered by a quota."""

    @property
    def decides_by_budget(self) -> bool:
        """Another number of rows may be chosen by other means: the choices are not nested."""
        return False

    @abstractmethod
    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row.

        Args:
            features: what `requirements` asks for, of n rows sorted by their ids.
            n_ranked: how many rows the caller will look at, 1..n. A method that ranks greedily may
                stop there and give -inf to the others; a method that scores each row alone ignores
                it. The ranking for k is a prefix of the ranking for any larger number.
            rng: the only source of randomness.
        """

    def adapt(self, pool: PoolFacts) -> Selector:
        """Return the selector for such a pool: itself, unless what it needs depends on that."""
        del pool
        return self

    def describe_plan(self, features: Features) -> str | None:
        """Return one sentence on what `score` will do (method, memory, guarantee), or None."""
        del features
        return None

    def estimate_memory(self, n_rows: int, n_unique: int, n_dimensions: int) -> int:
        """Return the peak in bytes beyond the features themselves.

        Args:
            n_rows: of the pool.
            n_unique: of these, rows of different text.
            n_dimensions: of an embedding.

        Raises:
            InputError: it does not fit into memory.
        """
        del n_rows, n_unique, n_dimensions
        return 0


class FeatureKernelSelector(Selector):
    """A selector whose setting `kernel` names the feature by which it compares rows."""

    kernel: str

    def __post_init__(self) -> None:
        """Check the settings; the former name of a kernel is read as the present one.

        Raises:
            SettingsError: a setting has an illegal value.
        """
        object.__setattr__(self, "kernel", current_name(self.kernel))
        super().__post_init__()


def score_rows(selector: Selector, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
    """Return what a selector says of rows, after a check of `n_ranked` and of the scores.

    The arguments are those of `Selector.score`. A package of somebody else may be behind it, so its
    scores must name the rows that it was given, in their order.

    Raises:
        InputError: `n_ranked` is not in 1..n, or the scores are not those of these rows.
    """
    if not 1 <= n_ranked <= features.n_rows:
        raise InputError(f"{selector.name}: the number of rows to rank must be in 1..{features.n_rows}, got {n_ranked}")
    return check_scores(selector, selector.score(features, n_ranked=n_ranked, rng=rng), features)


def check_scores(selector: Selector, scores: Scores, features: Features) -> Scores:
    """Return what a selector said of rows, once it is clear that it speaks of these.

    Raises:
        InputError: the scores are not those of these rows.
    """
    if not isinstance(scores, Scores):
        raise InputError(
            f"{selector.name}: score must return Scores, got {type(scores).__name__}; correct the selector"
        )
    if not scores.row_id.equals(features.row_id):
        raise InputError(
            f"{selector.name}: the scores must be of the {features.n_rows} rows that were given, in their order, got "
            f"{_describe_difference(scores, features)}; correct the selector"
        )
    return scores


def _describe_difference(scores: Scores, features: Features) -> str:
    if len(scores) != features.n_rows:
        return f"{len(scores)}"
    is_permuted = scores.row_id.sort().equals(features.row_id.sort())
    return "the same rows in another order" if is_permuted else "other rows"
