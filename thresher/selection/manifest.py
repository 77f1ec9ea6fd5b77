"""The manifest of a subset: the request, its outcome, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.dataset.provenance import describe_rows, describe_run, list_source_paths
from thresher.dataset.rejection import count_values
from thresher.selection.request import Request
from thresher.subset.scores import Scores


class Outcome(NamedTuple):
    """What came out of a selection, as far as the manifest tells it.

    Attributes:
        kept: ids of the kept rows, in the order in which they are written.
        dropped_by_reason: dropped rows by the name of their reason, the most frequent first.
        excluded_by_reason: of those that the method gave no place, by its sentence.
        objective: of the kept rows, None where the method has none.
        notes: of the method.
        pilot: how the method was decided on; None where it was named.
        depends_on_seed: whether another seed could have given another subset.
        shortfall: why fewer rows are kept than were asked for; None where enough are.
        trained_pilot: how trainings decided on the method; None where there were none.
    """

    kept: pl.Series
    dropped_by_reason: Mapping[str, int]
    excluded_by_reason: Mapping[str, int]
    objective: float | None
    notes: Mapping[str, str | int | float]
    pilot: Mapping[str, Any] | None
    depends_on_seed: bool
    shortfall: str | None = None
    trained_pilot: Mapping[str, Any] | None = None


def summarize_outcome(
    scores: Scores, kept: pl.Series, verdicts: pl.DataFrame, *, depends_on_seed: bool, shortfall: str | None
) -> Outcome:
    """Return what came out of scores that were cut.

    Args:
        scores: of all rows.
        kept: ids, as in `Outcome`.
        verdicts: of `build_verdict_table`.
        depends_on_seed: as in `Outcome`.
        shortfall: as in `Outcome`.
    """
    objective = scores.objective
    return Outcome(
        kept=kept,
        dropped_by_reason=count_values(verdicts["reason"].drop_nulls()),
        excluded_by_reason=count_values(verdicts.filter(pl.col("reason") == "excluded")["excluded"]),
        objective=None if objective is None or not len(objective) else float(objective[-1]),
        notes=dict(scores.notes or {}),
        pilot=scores.pilot,
        depends_on_seed=depends_on_seed,
        shortfall=shortfall,
    )


def build_manifest(
    request: Request,
    identity: str,
    outcome: Outcome,
    feature_notes: Mapping[str, Mapping[str, int]],
    seconds: Mapping[str, float],
) -> Manifest:
    """Return the manifest.

    Args:
        request: of the user.
        identity: hash of everything that determines the result.
        outcome: what came out.
        feature_notes: by feature, such as the number of rows that were cut.
        seconds: spent on each part.
    """
    pool = request.pool
    content = {
        "format": FORMAT,
        "kind": "subset",
        "identity": identity,
        **request.settings(),
        **describe_rows(
            pool,
            {
                "kept": len(outcome.kept),
                "dropped": len(pool) - len(outcome.kept),
                "dropped_by_reason": dict(outcome.dropped_by_reason),
                "excluded_by_reason": dict(outcome.excluded_by_reason),
            },
            others=request.others,
        ),
        "depends_on_seed": outcome.depends_on_seed,
        "feature_notes": {name: dict(notes) for name, notes in feature_notes.items()},
        "objective": outcome.objective,
        "notes": dict(outcome.notes),
        **({} if outcome.pilot is None else {"pilot": dict(outcome.pilot)}),
        **({} if outcome.trained_pilot is None else {"trained_pilot": dict(outcome.trained_pilot)}),
        **({} if outcome.shortfall is None else {"shortfall": outcome.shortfall}),
        "kept_rows": digest(outcome.kept.to_list()),
        "versions": versions(),
        "run": {
            **describe_run(pool, seconds={name: round(value, 3) for name, value in seconds.items()}),
            **{role: list_source_paths(rows) for role, rows in request.others.items()},
        },
    }
    return Manifest(content)
