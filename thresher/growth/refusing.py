"""What is refused of every way of growing: copies of rows, copies of held-out rows, bad rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from thresher.curation.correction.replace_answer import set_answer, set_prompt
from thresher.curation.pipeline import apply_rules
from thresher.curation.rule import create
from thresher.dataset import load
from thresher.dataset.rejection import NoRowsError
from thresher.growth.candidate import Candidate

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.features.context import FeatureContext

UNUSABLE = "unusable"
_NAME = re.compile(  # of a column: id, row_id, rowId, example-index, but not valid or monkey
    r"(?:(?:^|[^A-Za-z])(?i:id|uid|uuid|guid|idx|index|key|hash)|(?<=[a-z])(?:Id|ID|Uuid|UUID|Key))$"
)
COPIES = ("exact-duplicates", "near-duplicates")
LEAKS = "contamination"
Reasons = dict[int, tuple[str, str]]  # by number of a candidate: reason and explanation


def build_rows(pool: Dataset, candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return candidates as rows with the user's own columns, those of the seed but for the texts.

    Columns that name the rows (`find_names`) get a number behind the seed's name, one that no row
    of the pool has, as rows of an earlier round may.
    """
    originals = pool.rows(np.array([each.seed for each in candidates], dtype=np.int64)) if candidates else []
    rows = []
    counts: dict[int, int] = {}
    taken = {column: set(pool.column(column).cast(pl.String)) for column in find_names(pool)}
    for each, row in zip(candidates, originals, strict=True):
        if each.prompt is not None:
            row = set_prompt(row, pool.schema, each.prompt)
        if each.response is not None:
            row = set_answer(row, pool.schema, each.response)
        if taken and each.answer_from != "gold":  # that row is the user's
            number = counts.get(each.seed, 0) + 1
            while any(f"{row[column]}-grown-{number}" in names for column, names in taken.items()):
                number += 1  # in an earlier round
            counts[each.seed] = number
            row = {**row, **{column: f"{row[column]}-grown-{number}" for column in taken}}
        rows.append(dict(row))
    return rows


def find_names(pool: Dataset) -> list[str]:
    """Return the columns that name the rows: that of the ids, or those that look like one.

    Without an id column these are columns called id, uuid, ... (or that end so) of texts or whole
    numbers, no two alike and none missing: a copy of such a name would name two rows.
    """
    if pool.id_column is not None:
        return [pool.id_column]
    read = {name for names in pool.schema.columns.values() for name in names}
    named = [name for name in pool.column_names if name not in read and _NAME.search(name)]
    return [name for name in named if _is_unique(pool.column(name))]


def _is_unique(values: pl.Series) -> bool:
    is_name = values.dtype == pl.String or values.dtype.is_integer()
    return is_name and not values.has_nulls() and values.n_unique() == len(values) > 1


def refuse_copies(
    pool: Dataset, candidates: Sequence[Candidate], *, held_out: Dataset | None, context: FeatureContext
) -> list[Candidate]:
    """Return the candidates, refused where the rules of curation find a copy or a leak.

    A new prompt may be near to no prompt of the pool and to no other new one; a row with the seed's
    own prompt is near to the seed by nature, and its way compares the answers. Rows of either kind
    may not be near to a held-out row. What the user has is judged by nobody.
    """
    judged = list(candidates)
    _refuse(judged, lambda own: _find_unusable(pool, own, held_out, context), is_new_prompt=False)
    _refuse(judged, lambda own: _find_near_prompts(pool, own, context), is_new_prompt=True)
    return judged


def _refuse(judged: list[Candidate], find: Callable[[list[Candidate]], Reasons], *, is_new_prompt: bool) -> None:
    """Refuse, in place, the open candidates that something is found of."""
    places = [
        place
        for place, each in enumerate(judged)
        if each.reason is None and each.answer_from != "gold" and (each.prompt is not None or not is_new_prompt)
    ]
    if places:
        for at, (reason, explanation) in find([judged[place] for place in places]).items():
            judged[places[at]] = judged[places[at]].refuse(reason, explanation)


def _find_unusable(
    pool: Dataset, candidates: Sequence[Candidate], held_out: Dataset | None, context: FeatureContext
) -> Reasons:
    """Return, by number of a candidate, why it is no row, or which held-out row it repeats."""
    number = "thresher_candidate"
    rows = [{**row, number: str(place)} for place, row in enumerate(build_rows(pool, candidates))]
    try:
        dataset = load(rows, schema=pool.schema)
    except NoRowsError as error:
        return _explain_rejected(error.rejected)
    reasons = _explain_rejected(dataset.rejected)
    if held_out is not None:
        result = apply_rules(dataset, [create(LEAKS)], eval=held_out, context=context)
        places = [int(place) for place in dataset.column(number)]
        reasons |= _explain_dropped(result.dropped, places)
    return reasons


def _find_near_prompts(pool: Dataset, candidates: Sequence[Candidate], context: FeatureContext) -> Reasons:
    """Return, by number of a candidate, which prompt of the pool or other new one it repeats."""
    prompts = load([{"text": each.prompt} for each in candidates], schema="text")
    known = load([{"text": prompt} for prompt in pool.frame["prompt"]], schema="text")
    result = apply_rules(prompts, [create(rule) for rule in COPIES], existing=known, context=context)
    return _explain_dropped(result.dropped, range(len(candidates)))


def _explain_dropped(dropped: pl.DataFrame, places: Sequence[int]) -> Reasons:
    columns = dropped.select("position", "reason", "explanation")
    return {places[position]: (reason, why) for position, reason, why in columns.iter_rows()}


def _explain_rejected(rejected: pl.DataFrame) -> Reasons:
    """Return, by number of a row, why it cannot be read; lines are counted from 1."""
    return {line - 1: (UNUSABLE, reason) for line, reason in rejected.select("line", "reason").iter_rows()}
