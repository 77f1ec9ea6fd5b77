"""How the rows of a run are spread over lengths, sources, topics and labels."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.jobs.choosing import Choice
from thresher.jobs.incoming import Incoming
from thresher.jobs.job_file import Job
from thresher.jobs.pool import TOPICS, read_bytes
from thresher.jobs.profile import Profile, length_counts, topic_centroids, topic_counts, value_counts
from thresher.jobs.state import Before
from thresher.jobs.table import SOURCE


def topics_of(job: Job, before: Before, choice: Choice) -> tuple[NDArray[np.float32] | None, bool]:
    """Return the centroids of the snapshot before, or new ones where there are none that fit.

    Args:
        job: how many, and the seed.
        before: the snapshot before.
        choice: rows for new centroids.

    Returns:
        (k, d) centroids, or None when none are wanted; and whether they are those of the snapshot before.
    """
    n_topics = job.settings.gates.n_topics
    if not n_topics or choice.embedding is None or not len(choice.embedding):
        return None, False
    if before.place is not None and TOPICS in before.place.manifest.content["hashes"]:
        found: NDArray[np.float32] = np.load(io.BytesIO(read_bytes(before.place, TOPICS)), allow_pickle=False)
        asked = before.place.manifest.content["n_topics"]
        if asked == n_topics and found.shape[1] == choice.embedding.shape[1]:
            return found, True
    return topic_centroids(choice.embedding, n_topics, np.random.default_rng(job.settings.seed)), False


def profile_of(job: Job, choice: Choice, incoming: Incoming, topics: NDArray[np.float32] | None) -> Profile:
    """Return how the new rows and the rows of the next snapshot are spread."""
    kept = {"lengths": length_counts(choice.lengths), "sources": _sources_of_table(job, choice)}
    new: dict[str, dict[str, int]] = {"lengths": length_counts(choice.incoming_lengths)}
    if incoming.rows is not None:
        new["sources"] = value_counts(_sources_of(job, incoming).alias("source"))
        if incoming.rows.kind == "classification":
            new["labels"] = value_counts(incoming.rows.frame["response"])
            label = incoming.rows.schema.columns["label"][0]
            labels = choice.table[label].to_pylist() if label in choice.table.column_names else []
            kept["labels"] = value_counts(pl.Series("label", [str(one) for one in labels], dtype=pl.String))
    if topics is not None:
        if choice.embedding is not None:
            kept["topics"] = topic_counts(choice.embedding, topics)
        if choice.incoming_embedding is not None:
            new["topics"] = topic_counts(choice.incoming_embedding, topics)
    return {"incoming": new, "snapshot": kept}


def _sources_of(job: Job, incoming: Incoming) -> pl.Series:
    column = job.settings.gates.source_column
    if column is None or incoming.rows is None:
        return incoming.sources
    return incoming.rows.column(column).cast(pl.String).fill_null("")


def _sources_of_table(job: Job, choice: Choice) -> dict[str, int]:
    column = job.settings.gates.source_column
    name = SOURCE if column is None or column not in choice.table.column_names else column
    values = choice.table[name].to_pylist() if choice.table.num_rows else []
    return value_counts(pl.Series("source", ["" if one is None else str(one) for one in values], dtype=pl.String))
