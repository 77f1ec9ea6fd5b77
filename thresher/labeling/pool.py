"""What there is to label, and what is labeled: texts, labels and vectors, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from thresher.dataset import Dataset, load
from thresher.dataset.loading import load_unlabeled
from thresher.dataset.own_text.matching import match_rows
from thresher.dataset.settings import ReadSettings
from thresher.errors import InputError, first_three
from thresher.features import FeatureContext, compute, resolve_encoder
from thresher.labeling.choose import Known
from thresher.models.encoders.load import missing_for_minilm
from thresher.numeric.arrays import Float32, Int64
from thresher.numeric.units import format_count

LABEL = "label"
ANSWER_WORDS = 6  # words of a label, in the mean, from which labels are answers and not classes


@dataclass(frozen=True, kw_only=True)
class LabelingPool:
    """Rows without a label, beside those with one.

    Attributes:
        texts: all rows that were read, of kind "text".
        open_rows: (n,) positions in it of the rows without a label.
        text: (m,) of each labeled row, each text once.
        label: (m,) its label.
        label_column: where labels stand, and where new ones will.
        labeled_rows: the labeled rows with the user's own columns, repeats of a text included.
        n_conflicts: texts that were given several labels, which count as not labeled.
        given: the labeled rows that were given beside the pool, or None.
        n_leaked: texts that ask what a test row asks, and are not asked for.
    """

    texts: Dataset
    open_rows: Int64
    text: list[str]
    label: list[str]
    label_column: str
    labeled_rows: list[dict[str, Any]]
    n_conflicts: int
    given: Dataset | None
    n_leaked: int = 0

    @property
    def classes(self) -> list[str]:
        """The labels that occur, sorted; empty where they are answers in words."""
        n_words = sum(len(label.split()) for label in self.label)
        return [] if n_words > ANSWER_WORDS * len(self.label) else sorted(set(self.label))

    def describe(self) -> str:
        """Return how many rows there are, without a label and with one."""
        n_labels = f" ({format_count(len(self.classes), 'label')})" if self.classes else ""
        return (
            f"{format_count(self.texts.n_read, 'row')} read: {len(self.open_rows):,} without a label, "
            f"{len(self.labeled_rows):,} labeled{n_labels}"
        )

    def embed(self, context: FeatureContext) -> tuple[Float32, Known]:
        """Return the vectors of the rows without a label, and what is known of the others."""
        vectors = compute(self.texts, {"embedding"}, context)["embedding"]
        code = {name: i for i, name in enumerate(self.classes)}
        label = np.array([code[name] for name in self.label], dtype=np.int64) if code else None
        return vectors[self.open_rows], Known(embed_texts(self.text, context, vectors.shape[1]), label)


def separate_test_rows(rows: LabelingPool, test: Dataset) -> tuple[LabelingPool, Dataset]:
    """Return the pool without texts of test rows, and the test rows that are no labeled rows of it.

    Raises:
        InputError: no row is left to ask for, or none to judge by.
    """
    is_open = match_rows(rows.texts, test)[rows.open_rows] < 0
    if not is_open.any():
        raise InputError("label ask: rows without a label that --eval does not hold are required, found none")
    own = load([{"text": text} for text in rows.text]) if rows.text else None
    is_new = np.ones(len(test), np.bool_) if own is None else match_rows(test, own) < 0
    if not is_new.any():
        raise InputError(
            f"eval: rows that are not among the labeled ones are required, found none in {len(test):,}; "
            "draw them at random from the pool, label them, and keep them apart"
        )
    return replace(rows, open_rows=rows.open_rows[is_open], n_leaked=int((~is_open).sum())), test.take(
        np.flatnonzero(is_new)
    )


def embed_texts(texts: Sequence[str], context: FeatureContext, d: int) -> Float32:
    """Return the vectors of some texts, (m, d)."""
    if not texts:
        return np.zeros((0, d), np.float32)
    vectors: Float32 = compute(load([{"text": text} for text in texts]), {"embedding"}, context)["embedding"]
    return vectors


def choose_encoder(context: FeatureContext) -> FeatureContext:
    """Return a context with an encoder: MiniLM where it is installed.

    A label costs more than what a better encoder takes, so it is not the default of `select`.
    """
    if context.models.encoder is None and missing_for_minilm() is None:
        context = context.with_models(encoder="minilm")
    return context.with_models(encoder=resolve_encoder(context.models.encoder, device=context.models.device)).resolved()


def read_pool(pool: Any, labeled: Any, read: ReadSettings, label_column: str | None) -> LabelingPool:
    """Read the rows of a pool, and which of them have a label in it or among other rows.

    Args:
        pool: rows of text, anything `load` accepts; some may have a label.
        labeled: rows with labels, or None.
        read: how the pool is read.
        label_column: named by the user, or None.

    Raises:
        InputError: the rows cannot be read, or all have a label, or those with one have something
            else where labels will stand.
    """
    texts, own = load_unlabeled(pool, read)
    given = None if labeled is None else _load_labeled(labeled, read)
    parts = [rows for rows in (own, given) if rows is not None]
    column = label_column or next((_find_label_column(rows) for rows in reversed(parts)), LABEL)
    frame = pl.concat([_list_labels(rows, number) for number, rows in enumerate(parts)]) if parts else None
    if frame is None:
        known, n_conflicts = {}, 0
    else:
        by_text = frame.group_by("text", maintain_order=True).agg(
            pl.col("label").n_unique().alias("n"), pl.all().last()
        )
        n_conflicts = int((by_text["n"] > 1).sum())
        known = {row["text"]: row for row in by_text.filter(pl.col("n") == 1).iter_rows(named=True)}
    is_open = ~texts.frame["response"].is_in(list(known)).to_numpy()
    if not is_open.any():
        raise InputError(f"label ask: rows without a label are required, all {len(texts):,} have one; add rows")
    rows = [] if frame is None else [_name_label(parts[i], at, column) for i, at in _list_known_rows(frame, known)]
    return LabelingPool(
        texts=texts,
        open_rows=np.flatnonzero(is_open),
        text=list(known),
        label=[row["label"] for row in known.values()],
        label_column=column,
        labeled_rows=rows,
        n_conflicts=n_conflicts,
        given=given,
    )


def _list_known_rows(frame: pl.DataFrame, known: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return part and place of the labeled rows: of each text, those of the last part that has it.

    The labeled rows that are given hold those of the pool, where they were labeled from it before.
    """
    is_last = pl.col("part") == pl.col("part").max().over("text")
    kept = frame.filter(pl.col("text").is_in(list(known)) & is_last)
    return list(kept.select("part", "at").iter_rows())


def _load_labeled(labeled: Any, read: ReadSettings) -> Dataset:
    """Load rows with labels; those of a text and a label, or of a prompt and its answer."""
    if isinstance(labeled, Dataset):
        rows = labeled
    else:
        columns = None if read.columns is None else {**read.columns, **_guess_label(labeled, read.columns)}
        rows = load(labeled, columns=columns)
    if rows.kind == "text":
        raise InputError(
            f"labeled: a column of labels is required, found {first_three(rows.column_names)}; name it with "
            "--map text=COLUMN,label=COLUMN"
        )
    return rows


def _guess_label(labeled: Any, columns: Any) -> dict[str, str]:
    """Return the label's column of rows that are read as the pool, where the pool's has none."""
    if "label" in columns:
        return {}
    from thresher.dataset.schema import LABELS

    names = load(labeled, columns=dict(columns)).column_names
    return {"label": next((name for name in LABELS if name in names), LABEL)}


def _find_label_column(rows: Dataset) -> str:
    return rows.schema.columns.get("label", rows.schema.columns.get("response", (LABEL,)))[0]


def _name_label(rows: Dataset, at: int, column: str) -> dict[str, Any]:
    """Return a labeled row with its label in the column in which new labels will stand.

    Raises:
        InputError: the row has another value in that column.
    """
    row, own = rows.rows([at])[0], _find_label_column(rows)
    if column != own and row.get(column) not in (None, ""):
        raise InputError(
            f"label ask: labels are written to the column '{column}', and labeled rows have their label in '{own}' and "
            f"something else in '{column}'; name another with --label-column"
        )
    return {column if name == own else name: value for name, value in row.items() if name == own or name != column}


def _list_labels(rows: Dataset, number: int) -> pl.DataFrame:
    return rows.frame.select(
        pl.col("prompt").alias("text"),
        pl.col("response").alias("label"),
        pl.lit(number).alias("part"),
        pl.int_range(pl.len()).alias("at"),
    )
