"""What a classifier is held against: the majority class, and a probe on the untouched vectors.

The probe is the start of every training run (`engine/head.py`): logistic regression from the
vectors of the untouched encoder, with the adapter's update still zero. So it costs one pass over
the held-out rows, and learns from the very rows that are then trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

PROBE = ("probe_prediction", "probe_correct", "probe_loss")  # beside the outcomes of a classifier
OWN = ("prediction", "correct", "loss")


def add_probe(outcomes: pl.DataFrame, probe: pl.DataFrame | None) -> pl.DataFrame:
    """Return the outcomes of a classifier with those of its probe beside them; null without one."""
    if probe is None:
        types = (pl.String, pl.Boolean, pl.Float64)
        return outcomes.with_columns(pl.lit(None, kind).alias(name) for name, kind in zip(PROBE, types, strict=True))
    return outcomes.with_columns(probe[own].alias(name) for own, name in zip(OWN, PROBE, strict=True))


def extract_probe(outcomes: pl.DataFrame) -> pl.DataFrame | None:
    """Return the outcomes of the probe alone, or None where there was none.

    There is none where the head is more than one linear layer, with a single label to learn, and in
    outcomes of earlier versions.
    """
    if PROBE[0] not in outcomes.columns or outcomes[PROBE[0]].null_count() == len(outcomes):
        return None
    columns = [pl.col(name).alias(own) for own, name in zip(OWN, PROBE, strict=True)]
    return outcomes.select("row_id", "label", *columns)


def predict_majority(outcomes: pl.DataFrame, learned: Sequence[str]) -> pl.DataFrame:
    """Return the outcomes of always naming the most frequent label that was learned.

    Its probabilities are the labels' shares among the learned rows, each counted once more than it
    occurs, so that none is zero.

    Args:
        outcomes: with `row_id` and `label` of the held-out rows.
        learned: label of each training row; of equal ones, the first by name wins.
    """
    names, counts = np.unique(np.asarray(learned, dtype=object).astype(str), return_counts=True)
    majority = str(names[int(np.argmax(counts))])
    share = dict(zip(names.tolist(), ((counts + 1) / (counts.sum() + len(counts))).tolist(), strict=True))
    loss = [-float(np.log(share[label])) if label in share else None for label in outcomes["label"]]
    return outcomes.select(
        "row_id",
        "label",
        pl.lit(majority).alias("prediction"),
        (pl.col("label") == majority).alias("correct"),
        pl.Series("loss", loss, dtype=pl.Float64),
    )
