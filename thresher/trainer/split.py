"""Which rows are learned, which are held out, and which the random control is sampled from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.dataset import Dataset
from thresher.dataset.own_text.matching import describe_matches, match_rows
from thresher.errors import InputError, SettingsError
from thresher.trainer.settings import TrainSettings

_ANSWERED_SEED = 0
SAME = "same"  # a control of the same rows, each learned alike


@dataclass(frozen=True, kw_only=True)
class RowSplit:
    """The rows of a training run.

    Attributes:
        train: rows to learn from.
        held_out: rows to measure on, or None.
        control: rows that random ones are sampled from, or None.
        n_held_out: rows of the data that are not learned because they are sampled to be held out.
        leaked: ids of further rows of the data that are not learned because a held-out row asks the
            same.
        is_control_same: the control is the same rows, each of which is learned alike.
        leaks: where the first of them are, and the held-out rows that they repeat.
    """

    train: Dataset
    held_out: Dataset | None
    control: Dataset | None
    n_held_out: int = 0
    leaked: tuple[str, ...] = ()
    leaks: str = ""
    is_control_same: bool = False

    @property
    def n_leaked(self) -> int:
        """Rows that are not learned because a held-out row asks the same."""
        return len(self.leaked)

    def identify_answered(self, settings: TrainSettings) -> dict[str, Any]:
        """Return how the held-out rows that are answered are chosen, where not all of them are."""
        n_rows = 0 if self.held_out is None else len(self.held_out)
        return {"answered": "by hash"} if 0 < settings.eval_generations < n_rows else {}


def parse_share(value: Any) -> float | None:
    """Read "5%" or 0.05 as a share; return None for anything that is not one.

    Raises:
        InputError: it is a share outside 0..1.
    """
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            share = float(value.strip().removesuffix("%")) / 100
        except ValueError:
            return None
    elif isinstance(value, float):
        share = value
    else:
        return None
    if not 0 < share < 1:
        raise InputError(f"eval: a held-out share must be between 0% and 100%, got '{value}'")
    return share


def split_rows(
    data: Dataset,
    *,
    pool: Dataset | None,
    held_out: Dataset | float | None,
    seed: int,
    control: bool,
    is_apart: bool = False,
) -> RowSplit:
    """Divide rows, sorted by id, into training, held-out and control rows; none asks the same.

    A share is held out of the pool where one is known, so that the measure is of the pool and not
    of what was chosen.

    Args:
        data: rows to learn from.
        pool: where `data` was chosen from, or None.
        held_out: rows, or a share in 0..1 to sample, or None.
        seed: of the sample.
        control: whether random rows of the pool will be trained on.
        is_apart: the caller knows that no row asks what a held-out row asks. Of a part of the rows
            that cannot be told as well: which words are a template shows only in many rows.

    Raises:
        InputError: no row is left to learn from or to measure on.
    """
    data, pool = sort_by_id(data), None if pool is None else sort_by_id(pool)
    if held_out is None:
        return RowSplit(train=data, held_out=None, control=pool if control else None)
    n_held_out = 0
    is_held_out = np.zeros(len(data), dtype=bool)
    if isinstance(held_out, float):
        source = data if pool is None else pool
        held_out = source.take(np.flatnonzero(sample_by_hash(source.frame["row_id"], held_out, seed=seed)))
        is_held_out = data.frame["row_id"].is_in(held_out.frame["row_id"].implode()).to_numpy()
        n_held_out = int(is_held_out.sum())
    held_out = sort_by_id(held_out)
    if not len(held_out):
        raise InputError("eval: at least one held-out row is needed, found none")
    match = np.full(len(data), -1) if is_apart else match_rows(data, held_out)
    is_known = match >= 0
    train = data.take(np.flatnonzero(~(is_known | is_held_out)))
    if not len(train):
        every = "the only row is" if len(data) == 1 else f"all {len(data)} rows are"
        raise InputError(f"train: {every} among the held-out rows; give other rows to --eval")
    control_rows = None
    if control and pool is not None:
        control_rows = pool.take(np.flatnonzero(match_rows(pool, held_out) < 0))
        if len(control_rows) < len(train):
            raise InputError(
                f"control: needs {len(train)} random rows, found {len(control_rows)} in the pool that are not held "
                f"out; give a larger pool, or --control none"
            )
    return RowSplit(
        train=train,
        held_out=held_out,
        control=control_rows,
        n_held_out=n_held_out,
        leaked=tuple(data.frame["row_id"].filter(pl.Series(is_known & ~is_held_out))),
        leaks=describe_matches(data, held_out, np.where(is_held_out, -1, match)),
    )


def keep_same_control(split: RowSplit, settings: TrainSettings, control: Any) -> RowSplit:
    """Return the split with the training rows as the control, where that is asked for.

    Raises:
        InputError: there are no held-out rows.
        SettingsError: every row is learned alike already.
    """
    if not (isinstance(control, str) and control == SAME):
        return split
    if split.held_out is None:
        raise InputError("control: both trainings are compared on held-out rows, found none; give --eval")
    if settings.is_plain:
        raise SettingsError(
            "control: 'same' trains the same rows without weight, skip, mask_answer and tokens, and none of them is "
            "given; give one, or leave control out"
        )
    return replace(split, control=split.train, is_control_same=True)


def sample_by_hash(row_id: pl.Series, share: float, *, seed: int) -> NDArray[np.bool_]:
    """Sample a share of the rows by the hash of (seed, row id): (n,) bool.

    The rows with the lowest hashes are sampled, so the order of the file does not matter, and a few
    more rows in it change the sample little.
    """
    is_sampled = np.zeros(len(row_id), dtype=bool)
    is_sampled[order_by_hash(row_id, seed=seed)[: max(1, round(share * len(row_id)))]] = True
    return is_sampled


def order_by_hash(row_id: pl.Series, *, seed: int) -> list[int]:
    """Return the positions of rows by the rising hash of (seed, row id)."""
    keys = [hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest() for name in row_id]
    return sorted(range(len(keys)), key=lambda i: keys[i])


def choose_answered(row_id: pl.Series, n: int) -> list[int]:
    """Return the positions of the n held-out rows that are answered, in rising order.

    Those with the lowest hashes: ids often follow the order of the sources, so that the first rows
    could be of one source alone.
    """
    return sorted(order_by_hash(row_id, seed=_ANSWERED_SEED)[:n])


def sample_rows(pool: Dataset, n: int, *, seed: int) -> Dataset:
    """Sample n rows of the pool without repeats, whatever the order of the file."""
    order = pool.frame["row_id"].arg_sort().to_numpy()
    return pool.take(order[np.random.default_rng(seed).permutation(len(pool))[:n]])


def sort_by_id(rows: Dataset) -> Dataset:
    """Return the rows sorted by id, so that nothing depends on the order of the file."""
    return rows.take(rows.frame["row_id"].arg_sort().to_numpy())
