"""Rankings that go further than they were asked to, kept, and cut to what another budget wants."""

from __future__ import annotations

import inspect
import json
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import polars as pl
import xxhash

from thresher.features.container import Features, current_name
from thresher.numeric.array_store import StoredArrays
from thresher.numeric.arrays import Array, Int64
from thresher.selectors.contract import Selector, check_scores, score_rows
from thresher.subset.cover_history import CoverHistory
from thresher.subset.scores import Scores, ranked

KEPT_ROWS = 2_000  # of so many rows a ranking takes less time than to keep it and read it back
VERSION = 1  # of how rows are ranked; raise it when other rankings come out


class Nested(NamedTuple):
    """A ranking, and what says how it was after fewer picks.

    Attributes:
        scores: as of `score`.
        trace: gives the history of its cover; called at most once.
    """

    scores: Scores
    trace: Callable[[], CoverHistory]


class NestedSelector(Selector):
    """A selector whose shorter rankings can be read off a longer one.

    What its scores say of n_ranked rows is what the first n_ranked picks of a longer ranking say:
    values, cover and objective, and of the notes those that are marks of the history. Other notes
    describe the whole ranking.
    """

    _extends_contract: ClassVar[bool] = True

    @abstractmethod
    def rank(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Nested:
        """Rank rows; arguments as in `score`."""

    def list_lengths(self, n_ranked: int, n_rows: int) -> list[int]:
        """Return the lengths, ascending, of which a kept ranking may be, for `n_ranked` rows.

        The first one is ranked where none is kept: a little further than asked where that costs
        little, so that more budgets find it.
        """
        del n_rows
        return [n_ranked]

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows; the others score -inf."""
        return self.rank(features, n_ranked=n_ranked, rng=rng).scores


def rank_rows(
    selector: Selector, features: Features, *, n_ranked: int, rng: np.random.Generator, plan: str | None
) -> Scores:
    """Return what `score_rows` does, from a kept ranking where there is one that goes as far.

    Args:
        selector: the method; one that is no `NestedSelector` scores as it always does.
        features: of n rows; its store keeps the ranking.
        n_ranked: rows to rank.
        rng: of the method.
        plan: what the method said it would do (`describe_plan`): it may depend on the machine.

    Raises:
        InputError: as `score_rows`.
    """
    n, code = features.n_rows, _hash_code(selector)
    if not isinstance(selector, NestedSelector) or n <= KEPT_ROWS or code is None or not 1 <= n_ranked <= n:
        return score_rows(selector, features, n_ranked=n_ranked, rng=rng)
    from thresher.selectors.neighbors import search

    lengths = selector.list_lengths(n_ranked, n)
    key: dict[str, Any] = {
        "what": "ranking",
        "version": [VERSION, search.VERSION],
        "method": selector.name,
        "code": code,
        "plan": plan,
        "settings": selector.settings(),
        "rng": json.dumps(rng.bit_generator.state),
        "products": features.products.name,
        "features": _hash_features(selector, features),
    }
    keys = [{**key, "n_ranked": length} for length in lengths]
    there = next((each for each in keys if features.store.has_arrays(each)), keys[0])

    def compute() -> StoredArrays:
        # what was there may be damaged: then it is ranked again, as far as its key says
        scores, trace = selector.rank(features, n_ranked=there["n_ranked"], rng=rng)
        return _store(check_scores(selector, scores, features), trace(), rng)

    stored = features.store.load_or_compute(there, compute)
    rng.bit_generator.state = json.loads(stored.facts["rng"])
    return _shorten(stored, features, n_ranked)


def _hash_code(selector: Selector) -> str | None:
    """Return a hash of where the method is written, None where that is no file."""
    try:
        return xxhash.xxh3_128_hexdigest(Path(inspect.getfile(type(selector))).read_bytes())
    except (OSError, TypeError):
        return None


def _hash_features(selector: Selector, features: Features) -> dict[str, str]:
    """Return hashes of all that the method may look at, by name."""
    needs = selector.requirements
    names = {current_name(name) for name in needs.features} | ({"weight"} if needs.takes_weights else set())
    hashes = {name: _hash_array(features[name]) for name in sorted(names) if name in features}
    hashes |= {f"context {name}": _hash_array(array) for name, array in sorted(features.context.items())}
    missing = {name: features.missing[name] for name in sorted(names) if name in features.missing}
    texts = {"rows": features.row_id, **{f"missing {name}": reasons for name, reasons in missing.items()}}
    return hashes | {
        name: xxhash.xxh3_128_hexdigest(json.dumps(text.to_list()).encode()) for name, text in texts.items()
    }


def _hash_array(array: Array) -> str:
    content = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(array).data)
    return f"{array.dtype.str} {array.shape} {content}"


def _store(scores: Scores, history: CoverHistory, rng: np.random.Generator) -> StoredArrays:
    arrays: dict[str, Array] = {"ranking": scores.ranking()}
    arrays |= {"start": history.start, "rank": history.rank, "similarity": history.similarity, "floor": history.floor}
    if history.group is not None:
        arrays["group"] = history.group
    arrays |= {f"mark {name}": ranks for name, ranks in history.marks.items()}
    if scores.objective is not None:
        arrays["objective"] = scores.objective
    facts: dict[str, Any] = {"notes": scores.notes, "rng": json.dumps(rng.bit_generator.state), "by": scores.by}
    if scores.excluded is not None:
        reasons = scores.excluded.drop_nulls().unique().sort().to_list()
        codes = scores.excluded.replace_strict(reasons, range(len(reasons)), default=None, return_dtype=pl.Int32)
        arrays["excluded"] = codes.fill_null(-1).to_numpy()
        facts["reasons"] = reasons
    return StoredArrays(arrays, facts)


def _shorten(stored: StoredArrays, features: Features, n_ranked: int) -> Scores:
    """Return the scores after `n_ranked` picks."""
    arrays, facts = stored.arrays, stored.facts
    ranking: Int64 = arrays["ranking"]
    n_picks = min(n_ranked, len(ranking))
    marks = {name.removeprefix("mark "): array for name, array in arrays.items() if name.startswith("mark ")}
    history = CoverHistory(
        start=arrays["start"],
        rank=arrays["rank"],
        similarity=arrays["similarity"],
        floor=arrays["floor"],
        group=arrays.get("group"),
        marks=marks,
    )
    covered_by, similarity = history.cover(ranking, n_picks)
    scores = Scores(
        row_id=features.row_id,
        value=ranked(features.n_rows, ranking[:n_picks]),
        by=facts["by"],
        covered_by=covered_by,
        similarity=similarity,
        notes=None if facts["notes"] is None else {**facts["notes"], **history.count_marks(n_picks)},
    )
    if "objective" in arrays:
        scores = replace(scores, objective=arrays["objective"][:n_picks])
    if "excluded" in arrays:
        reasons = pl.Series("excluded", [*facts["reasons"], None], dtype=pl.String)
        codes = arrays["excluded"].astype(np.int64)
        scores = replace(scores, excluded=reasons.gather(np.where(codes < 0, len(reasons) - 1, codes)))
    return scores
