"""How the rows of a run are spread over lengths, sources, topics and labels."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.jobs.drift.distributions import Counts, count_lengths, count_top_values, count_topics, fit_topic_centroids
from thresher.jobs.job_file import Job
from thresher.jobs.snapshots.read import TOPICS, read_bytes
from thresher.jobs.snapshots.seen_ids import PackedIds, mask_known, pack_row_ids
from thresher.jobs.snapshots.table import SOURCE
from thresher.jobs.sources.incoming import Incoming
from thresher.jobs.state import PreviousSnapshot
from thresher.jobs.update.choose import Choice


def fit_topics(
    job: Job, before: PreviousSnapshot, choice: Choice, models: Mapping[str, Mapping[str, str]]
) -> tuple[NDArray[np.float32] | None, bool]:
    """Return the centroids of the snapshot before, or new ones where there are none that fit.

    Args:
        job: how many, and the seed.
        before: the snapshot before.
        choice: rows for new centroids.
        models: behind the features of this run: the centroids of another encoder fit no embedding
            of this one.

    Returns:
        (k, d) centroids, or None when none are wanted; and whether they are those of the snapshot
        before.
    """
    n_topics = job.settings.gates.n_topics
    if not n_topics or choice.embedding is None or not len(choice.embedding):
        return None, False
    if before.place is not None and TOPICS in before.place.manifest.content["hashes"]:
        found: NDArray[np.float32] = np.load(io.BytesIO(read_bytes(before.place, TOPICS)), allow_pickle=False)
        content = before.place.manifest.content
        theirs, ours = (one.get("embedding", {}).get("fingerprint") for one in (content["features"], models))
        if content["n_topics"] == n_topics and theirs == ours and found.shape[1] == choice.embedding.shape[1]:
            return found, True
    return fit_topic_centroids(choice.embedding, n_topics, np.random.default_rng(job.settings.seed)), False


def measure_distributions(
    job: Job, choice: Choice, incoming: Incoming, topics: NDArray[np.float32] | None, known: PackedIds
) -> dict[str, dict[str, Counts]]:
    """Return how the new rows and the rows of the next snapshot are spread.

    Args:
        job: the column of the sources.
        choice: rows of the next snapshot.
        incoming: rows that are judged.
        topics: centroids, or None.
        known: sorted names of the rows that were judged before: a full run judges these too, but
            they are not new.
    """
    kept = {"lengths": count_lengths(choice.lengths), "sources": _sources_of_table(job, choice)}
    new: dict[str, Counts] = {}
    is_new = np.zeros(0, np.bool_)
    if incoming.rows is not None:
        is_new = ~mask_known(pack_row_ids(incoming.rows.frame["row_id"]), known)
        new["lengths"] = count_lengths(choice.incoming_lengths[is_new])
        new["sources"] = count_top_values(_sources_of(job, incoming).alias("source").filter(is_new))
        if incoming.rows.kind == "classification":
            new["labels"] = count_top_values(incoming.rows.frame["response"].filter(is_new))
            label = incoming.rows.schema.columns["label"][0]
            labels = choice.table[label].to_pylist() if label in choice.table.column_names else []
            kept["labels"] = count_top_values(pl.Series("label", [str(one) for one in labels], dtype=pl.String))
    if topics is not None:
        if choice.embedding is not None:
            kept["topics"] = count_topics(choice.embedding, topics)
        if choice.incoming_embedding is not None:
            new["topics"] = count_topics(choice.incoming_embedding[is_new], topics)
    return {"incoming": new, "snapshot": kept}


def carry_distributions(spread: Mapping[str, Counts], *, same_topics: bool) -> dict[str, Counts]:
    """Return the spread of the last new rows for a run that has none of its own, which the next one is compared with.

    Args:
        spread: of these rows.
        same_topics: they were counted by the centroids of this run.
    """
    return {measure: dict(counts) for measure, counts in spread.items() if same_topics or measure != "topics"}


def _sources_of(job: Job, incoming: Incoming) -> pl.Series:
    column = job.settings.gates.source_column
    if column is None or incoming.rows is None:
        return incoming.sources
    return incoming.rows.column(column).cast(pl.String).fill_null("")


def _sources_of_table(job: Job, choice: Choice) -> dict[str, int]:
    column = job.settings.gates.source_column
    name = SOURCE if column is None or column not in choice.table.column_names else column
    values = choice.table[name].to_pylist() if choice.table.num_rows else []
    return count_top_values(pl.Series("source", ["" if one is None else str(one) for one in values], dtype=pl.String))
