"""What a run starts from: the previous snapshot, the plan, and the rows that it read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from thresher.artifacts.folder import MANIFEST
from thresher.dataset import Dataset, Schema
from thresher.dataset.provenance import schema_from_json
from thresher.errors import ManifestError
from thresher.jobs.drift.distributions import Distributions
from thresher.jobs.snapshots.folder import Snapshot
from thresher.jobs.snapshots.read import DISTRIBUTIONS, SOURCES, Pool, read_json
from thresher.jobs.snapshots.seen_ids import PackedIds, pack_row_ids
from thresher.jobs.sources.batches import Incoming
from thresher.jobs.sources.scan import HashCache, Scan

_KEYS = ("job", "basis", "seen", "encoder", "n_topics", "schema", "features", "counts", "files", "hashes", "versions")


@dataclass(frozen=True, kw_only=True)
class PreviousSnapshot:
    """The newest snapshot; all fields are empty before the first run.

    Attributes:
        snapshot: its folder and manifest.
        schema: of its rows.
        ledger: files it was made from.
        segments: of the rows that were ever evaluated.
        distributions: of its rows.
        encoder: that its run chose.
    """

    snapshot: Snapshot | None = None
    schema: Schema | None = None
    ledger: list[dict[str, Any]] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    distributions: Distributions | None = None
    encoder: str | None = None

    @staticmethod
    def read(snapshot: Snapshot | None) -> PreviousSnapshot:
        """Read the state that a snapshot holds.

        Raises:
            ManifestError: its manifest lacks a part.
        """
        if snapshot is None:
            return PreviousSnapshot()
        content = snapshot.manifest.content
        missing = [name for name in _KEYS if name not in content]
        if missing:
            raise ManifestError(
                f"{snapshot.path / MANIFEST}: must have '{missing[0]}', found none; point 'latest' to another snapshot"
            )
        return PreviousSnapshot(
            snapshot=snapshot,
            schema=schema_from_json(content["schema"]),
            ledger=read_json(snapshot, SOURCES),
            segments=content["seen"],
            distributions=read_json(snapshot, DISTRIBUTIONS),
            encoder=content["encoder"],
        )

    def list_known_hashes(self, cache: HashCache) -> set[str]:
        """Return the sha256 of files that need not be read again: all of their rows are known."""
        versions = {int(entry["version"]) for entry in self.segments}
        return {str(entry["sha256"]) for entry in self.ledger} | cache.list_exhausted(versions)


@dataclass(frozen=True, kw_only=True)
class UpdatePlan:
    """What is known before any source is looked at.

    Attributes:
        previous: the newest snapshot.
        eval_rows: rows to evaluate on, which must not enter.
        config_fingerprint: hash of everything besides the rows that decides which rows stay.
        is_full: every row is evaluated again.
    """

    previous: PreviousSnapshot
    eval_rows: Dataset | None
    config_fingerprint: str
    is_full: bool


@dataclass(frozen=True, kw_only=True)
class UpdateInputs:
    """The rows that a run decides on.

    Attributes:
        plan: what the run knew before.
        scan: files at the sources.
        incoming: new rows; in a full run, rows of the previous snapshot may be among them.
        old: all rows of the previous snapshot; None when there are none.
        pool: old rows that the new ones join; None when there are none.
        known: sorted ids of the rows that were evaluated before, also where a full run evaluates
            them again.
        version: of the next snapshot.
    """

    plan: UpdatePlan
    scan: Scan
    incoming: Incoming
    old: Pool | None
    pool: Pool | None
    known: PackedIds
    version: int

    @property
    def n_new(self) -> int:
        """Rows that the rules will see."""
        return 0 if self.incoming.rows is None else len(self.incoming.rows)

    @property
    def n_candidates(self) -> int:
        """Rows that may be in the next snapshot."""
        return self.n_new + (0 if self.pool is None else len(self.pool.rows))

    @property
    def has_nothing_new(self) -> bool:
        """Whether the next snapshot would be the previous one."""
        return not self.n_new and not (self.plan.is_full and self.pool is not None)

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """Files of the next snapshot, each with its newest content."""
        entries = [*([] if self.plan.is_full else self.plan.previous.ledger), *self.incoming.ledger]
        by_file = {(entry["source"], entry["name"]): entry for entry in entries}
        return [by_file[key] for key in sorted(by_file)]

    @property
    def fresh_ids(self) -> PackedIds:
        """Rows evaluated for the first time, or, in a full run, all that are known after it."""
        kept = self.pool.rows if self.plan.is_full and self.pool is not None else None
        ids = [pack_row_ids(rows.frame["row_id"]) for rows in (self.incoming.rows, kept) if rows is not None]
        return np.unique(np.concatenate([np.zeros(0, "S16"), *ids]))

    @property
    def schema(self) -> Schema:
        """Schema of the rows."""
        if self.plan.previous.schema is not None:
            return self.plan.previous.schema
        if self.incoming.rows is None:
            raise AssertionError("a first run without rows")
        return replace(self.incoming.rows.schema, id_column=None)
