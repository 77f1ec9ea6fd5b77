"""How the rows of a run are distributed, and how far that moved since the previous one."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from thresher.jobs.drift.distributions import (
    Counts,
    Drift,
    count_lengths,
    count_top_values,
    count_topics,
    fit_topic_centroids,
    measure_drifts,
)
from thresher.jobs.drift.gates import Alarm, check_drift
from thresher.jobs.events import EventLog
from thresher.jobs.job_file import Job
from thresher.jobs.snapshots.read import TOPICS, read_bytes
from thresher.jobs.snapshots.seen_ids import mask_known, pack_row_ids
from thresher.jobs.snapshots.table import SOURCE
from thresher.jobs.state import PreviousSnapshot, UpdateInputs
from thresher.jobs.update.choose import Choice
from thresher.jobs.update.curate import Candidates
from thresher.numeric.arrays import Float32

Models = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """How the rows are distributed, and how far that moved.

    Attributes:
        topics: (n_topics, d) centroids by which rows are counted; None when there are none.
        distributions: of the new rows ("incoming") and of the next snapshot's ("snapshot").
        drifts: against those of the previous snapshot.
        alarms: drifts beyond their limits.
    """

    topics: Float32 | None
    distributions: dict[str, dict[str, Counts]]
    drifts: list[Drift]
    alarms: list[Alarm]


def measure_drift(
    job: Job, inputs: UpdateInputs, candidates: Candidates, choice: Choice, models: Models, log: EventLog
) -> DriftReport:
    """Count the rows of a run, and compare with the previous snapshot's, of the same `models`."""
    previous = inputs.plan.previous
    embedding = None if candidates.embedding is None else candidates.embedding[choice.positions]
    topics = _load_topics(job, previous, embedding, models)
    is_same = topics is not None
    if topics is None and job.settings.gates.n_topics and embedding is not None and len(embedding):
        rng = np.random.default_rng(job.settings.seed)
        topics = fit_topic_centroids(embedding, job.settings.gates.n_topics, rng)
    distributions = {
        "incoming": _count_new(job, inputs, candidates, topics),
        "snapshot": _count_kept(job, candidates, choice, topics, embedding),
    }
    if not any(distributions["incoming"].get("lengths", {}).values()) and previous.distributions is not None:
        # Without new rows, the distribution of the last ones stays, for the next comparison.
        last = previous.distributions["incoming"].items()
        distributions["incoming"] = {name: dict(counts) for name, counts in last if is_same or name != "topics"}
    drifts = measure_drifts(previous.distributions, distributions, same_topics=is_same)
    limits = job.settings.gates.labels
    if (limits.warn, limits.fail) != (None, None) and not distributions["snapshot"].get("labels"):
        log.note("gate", "labels: the rows have none, so their drift is not measured")
    alarms = check_drift(job.settings.gates, drifts)
    return DriftReport(topics=topics, distributions=distributions, drifts=drifts, alarms=alarms)


def _load_topics(job: Job, previous: PreviousSnapshot, embedding: Float32 | None, models: Models) -> Float32 | None:
    """Return the centroids of the previous snapshot, unless another encoder made them."""
    if previous.snapshot is None or embedding is None or not len(embedding):
        return None
    content = previous.snapshot.manifest.content
    before, now = (features.get("embedding", {}).get("fingerprint") for features in (content["features"], models))
    if TOPICS not in content["hashes"] or content["n_topics"] != job.settings.gates.n_topics or before != now:
        return None
    topics: Float32 = np.load(io.BytesIO(read_bytes(previous.snapshot, TOPICS)), allow_pickle=False)
    return topics if topics.shape[1] == embedding.shape[1] else None


def _count_new(job: Job, inputs: UpdateInputs, candidates: Candidates, topics: Float32 | None) -> dict[str, Counts]:
    """Count the rows that no run has evaluated before; a full run sees others, too."""
    rows = inputs.incoming.rows
    if rows is None:
        return {}
    is_new = ~mask_known(pack_row_ids(rows.frame["row_id"]), inputs.known)
    column = job.settings.gates.source_column
    sources = inputs.incoming.sources if column is None else rows.column(column).cast(pl.String).fill_null("")
    counts = {
        "lengths": count_lengths(candidates.incoming_lengths[is_new]),
        "sources": count_top_values(sources.alias("source").filter(is_new)),
    }
    if rows.kind == "classification":
        counts["labels"] = count_top_values(rows.frame["response"].filter(is_new))
    if topics is not None and candidates.incoming_embedding is not None:
        counts["topics"] = count_topics(candidates.incoming_embedding[is_new], topics)
    return counts


def _count_kept(
    job: Job, candidates: Candidates, choice: Choice, topics: Float32 | None, embedding: Float32 | None
) -> dict[str, Counts]:
    """Count the rows of the next snapshot."""
    column, table = job.settings.gates.source_column, choice.table
    name = SOURCE if column is None or column not in table.column_names else column
    sources = table[name].to_pylist() if table.num_rows else []
    counts = {
        "lengths": count_lengths(candidates.lengths[choice.positions]),
        "sources": count_top_values(
            pl.Series("source", ["" if one is None else str(one) for one in sources], dtype=pl.String)
        ),
    }
    rows = candidates.incoming.rows
    if rows is not None and rows.kind == "classification":
        label = rows.schema.columns["label"][0]
        labels = table[label].to_pylist() if label in table.column_names else []
        counts["labels"] = count_top_values(pl.Series("label", [str(one) for one in labels], dtype=pl.String))
    if topics is not None and embedding is not None:
        counts["topics"] = count_topics(embedding, topics)
    return counts
