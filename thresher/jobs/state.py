"""What a run starts from, and what it comes to before anything is published."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thresher.artifacts.folder import MANIFEST
from thresher.dataset import Dataset, Schema
from thresher.errors import ManifestError
from thresher.jobs.drift.distributions import Profile
from thresher.jobs.drift.gates import Alarm
from thresher.jobs.snapshots.folder import Snapshot
from thresher.jobs.snapshots.read import DISTRIBUTIONS, SOURCES, Pool, read_json, read_schema
from thresher.jobs.snapshots.seen_ids import PackedIds, pack_row_ids
from thresher.jobs.sources.incoming import Incoming
from thresher.jobs.update.choose import Choice

_PARTS = ("job", "basis", "seen", "encoder", "n_topics", "schema", "features", "counts", "files", "hashes", "versions")


@dataclass(frozen=True, kw_only=True)
class PreviousSnapshot:
    """What a run starts from.

    Attributes:
        place: the newest snapshot, or None.
        schema: of its rows.
        ledger: files it was made from.
        segments: of the rows ever judged.
        profile: of its rows.
        encoder: that its run chose.
    """

    place: Snapshot | None
    schema: Schema | None
    ledger: list[dict[str, Any]]
    segments: list[dict[str, Any]]
    profile: Profile | None
    encoder: str | None

    @staticmethod
    def read(place: Snapshot | None) -> PreviousSnapshot:
        """Read the state in a snapshot.

        Raises:
            ManifestError: its manifest lacks a part.
        """
        if place is None:
            return PreviousSnapshot(place=None, schema=None, ledger=[], segments=[], profile=None, encoder=None)
        content = place.manifest.content
        missing = [name for name in _PARTS if name not in content]
        if missing:
            raise ManifestError(
                f"{place.path / MANIFEST}: must have '{missing[0]}', found none; point 'latest' to another snapshot"
            )
        return PreviousSnapshot(
            place=place,
            schema=read_schema(content["schema"]),
            ledger=read_json(place, SOURCES),
            segments=content["seen"],
            profile=read_json(place, DISTRIBUTIONS),
            encoder=content["encoder"],
        )


@dataclass(frozen=True, kw_only=True)
class UpdateInputs:
    """What a run has to decide on.

    Attributes:
        before: the snapshot before.
        incoming: new rows.
        pool: old rows that the new ones join; None when there are none.
        old: all rows of the snapshot before; None when there are none.
        known: sorted names of the rows that were ever judged before, also where a full run judges
            them anew.
        eval_rows: rows to evaluate on.
        basis: hash of what makes a row stay or go, besides the rows.
        version: of the next snapshot.
        is_full: everything is judged anew.
        counts: of files and rows read.
        alarms: of the rows read.
    """

    before: PreviousSnapshot
    incoming: Incoming
    pool: Pool | None
    old: Pool | None
    known: PackedIds
    eval_rows: Dataset | None
    basis: str
    version: int
    is_full: bool
    counts: dict[str, int]
    alarms: list[Alarm]

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """Of the next snapshot: an entry of an older content of the same place is replaced."""
        entries = [*([] if self.is_full else self.before.ledger), *self.incoming.ledger]
        by_place = {(entry["source"], entry["name"]): entry for entry in entries}
        return [by_place[place] for place in sorted(by_place)]

    @property
    def fresh_names(self) -> PackedIds:
        """Rows that are judged for the first time, or, in a full run, all that are known after it."""
        rows = [one for one in (self.incoming.rows, self.pool.rows if self.is_full and self.pool else None) if one]
        return np.unique(np.concatenate([np.zeros(0, "S16"), *(pack_row_ids(one.frame["row_id"]) for one in rows)]))

    @property
    def schema(self) -> Schema:
        """Of the rows."""
        if self.before.schema is not None:
            return self.before.schema
        if self.incoming.rows is None:
            raise AssertionError("a first run without rows")
        return replace(self.incoming.rows.schema, id_column=None)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to, before anything is published.

    Attributes:
        choice: the rows of the next snapshot; None when nothing is new.
        version: of the next snapshot.
        is_full: everything was judged anew.
        report: counts, churn, drift and alarms, in JSON values.
        alarms: values beyond their limits.
        incoming: the new rows.
        ledger: of the next snapshot.
        fresh_names: rows that are judged for the first time.
        content: of the next manifest, but for its files.
        topics: centroids of the next snapshot.
        profile: of the next snapshot.
        rows_schema: of the next snapshot.
    """

    choice: Choice | None
    version: int
    is_full: bool
    report: dict[str, Any]
    alarms: list[Alarm] = field(default_factory=list)
    incoming: Incoming | None = None
    ledger: list[dict[str, Any]] = field(default_factory=list)
    fresh_names: PackedIds | None = None
    content: dict[str, Any] = field(default_factory=dict)
    topics: NDArray[np.float32] | None = None
    profile: Profile = field(default_factory=dict)
    rows_schema: Schema | None = None
