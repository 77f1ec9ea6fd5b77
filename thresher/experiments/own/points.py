"""Own points: a table of scores that the user has measured, one line per run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.artifacts.local_path import expand_path
from thresher.errors import InputError
from thresher.evaluation.metric import RATES, names_loss
from thresher.experiments.tables import CELL_SCHEMA

_MOST_GRADE = 10.0  # judges grade up to 5 or 10
ONE_ARM = "rows"  # name of the curve where the table has only one
NAMES: dict[str, tuple[str, ...]] = {  # names of columns that need not be told, in lower case
    "rows": ("n_rows", "rows", "n", "size", "n_train", "train_size", "train_rows", "n_examples", "examples", "samples"),
    "seed": ("seed", "run", "repeat", "trial", "fold"),
    "arm": ("method", "arm", "selector", "variant", "model"),
    "score": ("value", "score", "metric_value"),
}
READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": lambda path: pl.read_csv(path, infer_schema_length=None),
    ".tsv": lambda path: pl.read_csv(path, separator="\t", infer_schema_length=None),
    ".parquet": pl.read_parquet,
    ".jsonl": pl.read_ndjson,
    ".ndjson": pl.read_ndjson,
    ".json": pl.read_json,
}


@dataclass(frozen=True, kw_only=True)
class Points:
    """Scores that were measured elsewhere.

    Attributes:
        cells: one line per run, with the columns of a curve's table of cells.
        metric: name of the score.
        is_higher_better: its direction.
        source: where they came from, for people.
        notes: how they were read, where that is a choice.
    """

    cells: pl.DataFrame
    metric: str
    is_higher_better: bool
    source: str
    notes: tuple[str, ...]


def parse_point_columns(text: Any) -> Mapping[str, str]:
    """Return {"rows": "n", "score": "f1"} from "rows=n,score=f1".

    Raises:
        InputError: it is not ROLE=COLUMN, or there is no such role.
    """
    if isinstance(text, Mapping):
        pairs = [(str(role), str(name)) for role, name in text.items()]
    else:
        pairs = [(role.strip(), name.strip()) for role, _, name in (pair.partition("=") for pair in text.split(","))]
    bad = [role for role, name in pairs if role not in NAMES or not name]
    if bad:
        raise InputError(
            f"curve: --point-columns must be ROLE=COLUMN with the roles {', '.join(NAMES)}, got {text!r}; "
            f"for example rows=n_train,score=f1"
        )
    return dict(pairs)


def read_points(source: Any, columns: Mapping[str, str] | None = None, *, lower_is_better: bool = False) -> Points:
    """Read scores that were measured elsewhere.

    Args:
        source: a table (.csv, .tsv, .parquet, .jsonl, .json), a polars or pandas frame, or a list
            of dicts; one line per run.
        columns: role (rows, score, seed, arm) -> column, where names do not tell.
        lower_is_better: the score is a loss; so it is anyway where its name says so.

    Raises:
        InputError: a column is missing or not clear, or its values do not fit.
    """
    table, place = _read_table(source)
    roles = _find_columns(table, dict(columns or {}), place)
    metric = roles["score"]
    if metric == "value" and "metric" in table.columns and table["metric"].n_unique() == 1:
        metric = str(table["metric"][0])  # a table of cells that this program wrote
    score = _read_numbers(table, roles["score"], place)
    notes: list[str] = []
    is_higher = not (lower_is_better or names_loss(metric))
    lowest, highest = _find_range(score)
    if is_higher and _is_percent(metric, lowest, highest):
        score = score / 100
        above, by = (_MOST_GRADE, "") if highest > _MOST_GRADE else (1, "by its name ")
        notes.append(f"{roles['score']} goes above {above:g}, so {by}it is read as percent")
    elif is_higher and (lowest < 0 or highest > 1):
        notes.append(
            f"{roles['score']} lies in {lowest:g}..{highest:g}, so its differences stay in its own units; more is "
            f"taken to be better (give --lower-is-better where it is a loss)"
        )
    elif is_higher and _fold(metric) not in {*RATES, *NAMES["score"]}:
        notes.append(f"more {roles['score']} is taken to be better (give --lower-is-better where it is a loss)")
    return Points(
        cells=_build_cells(table, roles, score, metric, place),
        metric=metric,
        is_higher_better=is_higher,
        source=place,
        notes=tuple(notes),
    )


def _find_range(score: Any) -> tuple[float, float]:
    known = score[np.isfinite(score)]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)


def _is_percent(metric: str, lowest: float, highest: float) -> bool:
    """Tell whether scores are shares in percent: above what grades go to, or by their name."""
    is_named = bool({"acc", "f1", "em", "percent"} & set(_fold(metric).split("_"))) or _fold(metric) in RATES
    return lowest >= 0 and highest <= 100 and (highest > _MOST_GRADE or (is_named and highest > 1))


def _read_table(source: Any) -> tuple[pl.DataFrame, str]:
    if isinstance(source, pl.DataFrame):
        return source, "the table"
    if not isinstance(source, str | Path):
        try:
            rows = source.to_dict("records") if hasattr(source, "to_dict") else list(source)
            return pl.DataFrame(rows, infer_schema_length=None), "the table"
        except (TypeError, ValueError, pl.exceptions.PolarsError):
            raise InputError(
                f"curve: points must be a file, a frame or a list of dicts, got {type(source).__name__}"
            ) from None
    path = expand_path(source)
    suffixes = ", ".join(READERS)
    if path.suffix.lower() not in READERS:
        raise InputError(f"curve: --from must be a table ({suffixes}), got {path}; write one line per run")
    if not path.is_file():
        raise InputError(f"curve: --from must be a file, found none at {path}; correct the path")
    try:
        return READERS[path.suffix.lower()](path), str(path)
    except (ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"curve: {path} must be a readable table, found '{first[:200]}'; correct the file") from None


def _find_columns(table: pl.DataFrame, given: dict[str, str], place: str) -> dict[str, str]:
    """Return role -> column; seed and arm may be left out."""
    named = ", ".join(table.columns) or "none"
    for role, name in given.items():
        if name not in table.columns:
            raise InputError(f"curve: {place}: there is no column '{name}' for the {role}, found {named}")
    roles = dict(given)
    for role in ("rows", "seed", "arm"):
        known = [name for name in table.columns if _fold(name) in NAMES[role] and name not in roles.values()]
        known.sort(key=lambda name: NAMES[role].index(_fold(name)))
        if role not in roles and known:
            roles[role] = known[0]
    if "score" not in roles:
        free = [name for name in table.columns if name not in roles.values()]
        numbers = [name for name in free if table[name].dtype.is_numeric()]
        # text as well, where no number has such a name: one "nan" or "65%" makes a column text
        named_so = [name for name in free if _fold(name) in NAMES["score"]]
        usual = [name for name in named_so if name in numbers] or named_so
        if len(usual or numbers) == 1:
            roles["score"] = (usual or numbers)[0]
    for role in ("rows", "score"):
        if role not in roles:
            raise InputError(
                f"curve: {place} must have a column with the {'number of rows' if role == 'rows' else 'score'}, and it "
                f"is not clear which of {named} that is; name it with --point-columns {role}=COLUMN"
            )
    return roles


def _fold(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _read_numbers(table: pl.DataFrame, name: str, place: str) -> Any:
    """Return a column as float64; what is missing is NaN."""
    column = table[name].cast(pl.Float64, strict=False)
    bad = table[name].filter(column.is_null() & table[name].is_not_null())
    if len(bad):
        raise InputError(f"curve: {place}, column {name}: must hold numbers, found {str(bad[0])[:40]!r}; correct it")
    return column.fill_null(float("nan")).to_numpy()


def _build_cells(table: pl.DataFrame, roles: Mapping[str, str], score: Any, metric: str, place: str) -> pl.DataFrame:
    """Return one line per run, sorted by arm, rows and seed."""
    if not len(table):
        raise InputError(f"curve: {place} must have one line per run, found none")
    sizes = _read_numbers(table, roles["rows"], place)
    if not (np.isfinite(sizes) & (sizes >= 1) & (sizes == np.round(sizes))).all():
        bad = next(size for size in sizes if not (np.isfinite(size) and size >= 1 and size == round(size)))
        raise InputError(
            f"curve: {place}, column {roles['rows']}: must hold whole numbers of rows from 1 on, found {bad:g}"
        )
    arm = table[roles["arm"]].cast(pl.String).fill_null("(none)") if "arm" in roles else [ONE_ARM] * len(table)
    cells = pl.DataFrame({"method": arm, "n_rows": sizes.astype(np.int64), "value": score}).with_columns(
        seed=_number_seeds(table[roles["seed"]]) if "seed" in roles else pl.int_range(pl.len()).over("method", "n_rows")
    )
    twice = cells.filter(pl.struct("method", "n_rows", "seed").is_duplicated())
    if len(twice):
        raise InputError(
            f"curve: {place}: each run needs a seed of its own, found two of {twice['n_rows'][0]:,} rows with one "
            f"({roles['seed']}); name the column that tells curves apart with --point-columns arm=COLUMN"
        )
    is_done = pl.col("value").is_finite()
    return (
        cells.with_columns(
            metric=pl.lit(metric),
            status=pl.when(is_done).then(pl.lit("done")).otherwise(pl.lit("failed")),
            reason=pl.when(is_done).then(None).otherwise(pl.lit("the table has no score")),
            value=pl.when(is_done).then("value"),
            **{name: pl.lit(None, CELL_SCHEMA[name]) for name in ("stderr", "n", "loss", "steps", "cell")},
        )
        .select("method", "n_rows", "seed", "metric", *CELL_SCHEMA, "status")
        .sort("method", "n_rows", "seed")
    )


def _number_seeds(column: pl.Series) -> pl.Series:
    """Return seeds as numbers: as they are, or numbered in the order of their names."""
    if column.dtype.is_integer() and not column.null_count():
        return column.cast(pl.Int64)
    return column.cast(pl.String).fill_null("").rank("dense").cast(pl.Int64) - 1
