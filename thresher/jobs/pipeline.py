"""A run of a job: from the snapshot before and the sources as they are now to the next snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.curation.pipeline import collect_settings
from thresher.dataset import Dataset, load
from thresher.errors import InputError, ManifestError
from thresher.features import FeatureContext, Progress, make_context
from thresher.jobs.drift.distributions import measure_drifts
from thresher.jobs.drift.gates import check_drift, check_quality, check_unusable
from thresher.jobs.drift_report import carry_distributions, fit_topics, measure_distributions
from thresher.jobs.events import Event, OnEvent
from thresher.jobs.job_file import Job
from thresher.jobs.snapshots.folder import JobFolder
from thresher.jobs.snapshots.read import CHANGES, DISTRIBUTIONS, SOURCES, Pool, describe_schema, read_pool
from thresher.jobs.snapshots.seen_ids import (
    delete_unlisted_segments,
    mask_known,
    pack_row_ids,
    read_segments,
    write_segment,
)
from thresher.jobs.snapshots.table import ROW_ID, WEIGHT
from thresher.jobs.snapshots.write import write_snapshot
from thresher.jobs.sources.addresses import Addresses
from thresher.jobs.sources.incoming import ATTEMPTS, Incoming, Reader, check_same_columns, find_changed_files, join
from thresher.jobs.sources.scan import HashCache, Scan, scan
from thresher.jobs.state import Outcome, PreviousSnapshot, UpdateInputs
from thresher.jobs.update.change_report import build_change_report, count_all, count_incoming, incoming_report
from thresher.jobs.update.choose import Choice, choose
from thresher.jobs.update.fingerprint import (
    compute_config_fingerprint,
    describe_config_change,
    describe_model_change,
    fingerprint_models,
)
from thresher.models.encoders.encoder import AUTO


class Run:
    """One attempt at a run.

    Args:
        job: the job.
        folder: of its output.
        full: judge everything anew.
        since: pass over files that changed last before it.
        addresses: for databases.
        on_event: told what happens.
    """

    def __init__(
        self,
        job: Job,
        folder: JobFolder,
        *,
        full: bool,
        since: datetime | None,
        addresses: Addresses,
        on_event: OnEvent,
    ) -> None:
        self._job = job
        self._folder = folder
        self._full = full
        self._since = since
        self._addresses = addresses
        self._on_event = on_event
        self._unsettled: set[str] = set()
        self.notes: list[str] = []

    def outcome(self, *, cache: HashCache) -> Outcome:
        """Work out the next snapshot; starts again when a source changes meanwhile.

        Raises:
            InputError: a source cannot be read.
        """
        for attempt in range(ATTEMPTS):
            self.notes.clear()
            made: list[Incoming] = []
            try:
                found = self._outcome(cache, made)
                changed = _changed(made)
                if not changed:
                    return found
                message = f"{changed[0]}: the file changed while it was being read"
            except InputError as error:
                changed, message = _changed(made), str(error)
                if not changed or attempt == ATTEMPTS - 1:
                    raise
            self._warn("changing", f"{message}; starting again")
            if attempt == ATTEMPTS - 2:  # it does not come to rest: the last attempt does without it
                self._unsettled |= set(changed)
        raise InputError(f"{changed[0]}: the file must not change all the time; run again")

    def _outcome(self, cache: HashCache, made: list[Incoming]) -> Outcome:
        job, before = self._job, PreviousSnapshot.read(self._folder.latest())
        check_same_columns(job, before.schema)
        eval_rows = self._eval_rows()
        basis = compute_config_fingerprint(job, eval_rows)
        is_full = self._full or self._is_other(before, basis)
        ledger = [] if is_full else before.ledger
        lineage = {int(entry["version"]) for entry in before.segments}
        hashes = {str(entry["sha256"]) for entry in ledger} | (set() if is_full else cache.spent(lineage))
        found = scan(job, before.ledger, known_hashes=hashes, since=self._since, cache=cache)
        for note in (*found.notes, *(f"{name} is left to the next run: {why}" for name, why in found.skipped)):
            self._warn("scan", note)
        self._tell_scan(found)
        reader = Reader(
            job, schema=before.schema, since=self._since, addresses=self._addresses, on_event=self._on_event
        )
        settled = [one for one in found.fresh if str(one.file.path) not in self._unsettled]
        waiting = [one.name for one in found.fresh if str(one.file.path) in self._unsettled]
        reader.skipped += [*found.skipped, *((name, "it kept changing while it was read") for name in waiting)]
        batches = [one for one in (reader.files(settled), *reader.others(hashes)) if one is not None]
        known, problems = read_segments(self._folder.seen, before.segments)
        for problem in problems:
            self._warn("seen", problem)
        old = None if before.place is None else read_pool(before.place)
        if old is not None:
            known = np.union1d(known, pack_row_ids(old.rows.frame["row_id"]))
        incoming = join(
            batches, known[:0] if is_full else known, skipped=reader.skipped, empty_files=reader.empty_files
        )
        made.append(incoming)
        if incoming.rows is not None and not is_full and self._has_other_models(before):
            made.clear()
            self.notes.clear()
            self._full = True
            return self._outcome(cache, made)
        pool = _still_unread(old, incoming) if is_full else old
        if is_full and pool is not None:
            self._warn(
                "full",
                f"{len(pool.rows):,} kept rows are at no source any more, or at one that is left to the next run: "
                "they stay, and are not judged anew",
            )
        version = self._folder.next_version()
        counts = count_incoming(found, incoming)
        if before.place is None and reader.schema is None:
            raise InputError(
                f"{job.path.name}: the sources must hold rows, found none; check the globs and folders in [[sources]]"
            )
        alarms = check_unusable(job.settings.gates, n_read=incoming.n_read, n_unusable=incoming.n_unusable)
        if incoming.rows is None and not (is_full and pool is not None):
            report = {"counts": counts, **incoming_report(incoming, alarms)}
            return Outcome(
                choice=None, version=version, is_full=is_full, report=report, alarms=alarms, incoming=incoming
            )
        return self._chosen(
            UpdateInputs(
                before=before,
                incoming=incoming,
                pool=pool,
                old=old,
                known=known,
                eval_rows=eval_rows,
                basis=basis,
                version=version,
                is_full=is_full,
                counts=counts,
                alarms=alarms,
            )
        )

    def _chosen(self, task: UpdateInputs) -> Outcome:
        job, before, incoming = self._job, task.before, task.incoming
        n_new = 0 if incoming.rows is None else len(incoming.rows)
        context = self._context(before.encoder).resolved(n_new + (0 if task.pool is None else len(task.pool.rows)))
        choice = choose(
            job,
            task.pool,
            incoming,
            old=task.old,
            eval_rows=task.eval_rows,
            context=context,
            version=task.version,
        )
        for note in () if choice.judgement is None else choice.judgement.notes:
            self._warn("rule", note)
        models = fingerprint_models(job, context)
        topics, same_topics = fit_topics(job, before, choice, models)
        profile = measure_distributions(job, choice, incoming, topics, task.known)
        if not any(profile["incoming"].get("lengths", {}).values()) and before.profile is not None:
            profile = profile | {"incoming": carry_distributions(before.profile["incoming"], same_topics=same_topics)}
        found = measure_drifts(before.profile, profile, same_topics=same_topics)
        alarms = check_drift(job.settings.gates, found) + check_quality(
            job.settings.gates,
            n_rows=choice.table.num_rows,
            n_new=n_new,
            n_dropped=0 if choice.judgement is None else choice.judgement.dropped.height,
        )
        alarms += task.alarms
        limits = job.settings.gates.labels
        if (limits.warn, limits.fail) != (None, None) and not profile["snapshot"].get("labels"):
            self._warn("gate", "labels: the rows have none, so that their drift is not measured")
        report = build_change_report(choice, incoming, count_all(task.counts, choice), found, alarms)
        return Outcome(
            choice=choice,
            version=task.version,
            is_full=task.is_full,
            report=report,
            alarms=alarms,
            incoming=incoming,
            ledger=task.ledger,
            fresh_names=task.fresh_names,
            content=self._content(task, choice, context, models, report),
            topics=topics,
            profile=profile,
            rows_schema=task.schema,
        )

    def write(self, outcome: Outcome, *, run: Mapping[str, Any]) -> Manifest:
        """Write the next snapshot into the work folder.

        Args:
            outcome: of `outcome`.
            run: what may differ between two runs of the same work.
        """
        if (
            outcome.choice is None
            or outcome.incoming is None
            or outcome.rows_schema is None
            or outcome.fresh_names is None
        ):
            raise AssertionError("nothing to write")
        latest = self._folder.latest()
        before = [] if outcome.is_full or latest is None else latest.manifest.content["seen"]
        with suppress(ManifestError):  # of an old snapshot: nobody knows what it lists
            places = [self._folder.open_snapshot(version) for version in self._folder.versions()]
            listed = [entry for place in places for entry in place.manifest.content["seen"]]
            delete_unlisted_segments(self._folder.seen, listed, before=outcome.version)
        segment = write_segment(self._folder.seen, outcome.version, outcome.fresh_names)
        work = self._folder.open_work(outcome.version)
        return write_snapshot(
            work,
            self._job,
            table=outcome.choice.table,
            dropped=outcome.choice.dropped,
            rejected=outcome.incoming.rejected,
            schema=outcome.rows_schema,
            topics=outcome.topics,
            documents={DISTRIBUTIONS: outcome.profile, CHANGES: outcome.report, SOURCES: outcome.ledger},
            content=outcome.content | {"seen": [*before, segment], "run": dict(run)},
        )

    def _eval_rows(self) -> Dataset | None:
        job = self._job
        if not job.settings.eval:
            return None
        paths = [job.pattern(one) for one in job.settings.eval]
        columns = job.settings.rows.columns
        return load(paths) if columns is None else load(paths, columns=columns)

    def _is_other(self, before: PreviousSnapshot, basis: str) -> bool:
        """Tell whether rows stay or go by something else than before, and say so."""
        if before.place is None:
            return False
        theirs = before.place.manifest.content["job"]
        if theirs != self._job.name:
            message = f"the newest snapshot was made by the job '{theirs}', and this is '{self._job.name}'"
            self._warn("job", f"{message}; two jobs must not share an output folder")
        return self._is_told(describe_config_change(before.place, basis))

    def _has_other_models(self, before: PreviousSnapshot) -> bool:
        """Tell whether the models behind the features are others under the same names, and say so."""
        if before.place is None:
            return False
        return self._is_told(describe_model_change(self._job, before.place, self._context(before.encoder)))

    def _is_told(self, what: str | None) -> bool:
        if what is not None and not self._full:
            self._tell("full", f"{what}: every row of the sources is judged anew")
        return what is not None

    def _context(self, encoder: str | None) -> FeatureContext:
        job, models = self._job, self._job.settings.features
        named = None if models.encoder == AUTO else job.model(models.encoder)
        return make_context(
            encoder=named or encoder,
            model=job.model(models.model),
            tokenizer=job.model(models.tokenizer),
            device=models.device,
            on_progress=self._progress,
        )

    def _progress(self, progress: Progress) -> None:
        if progress.note:
            self._warn("feature", progress.note)

    def _content(
        self,
        task: UpdateInputs,
        choice: Choice,
        context: FeatureContext,
        models: Mapping[str, Mapping[str, str]],
        report: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the manifest but for files, segments and the section `run`."""
        job, place = self._job, task.before.place
        parent = None if place is None else {"version": place.version, "identity": place.manifest.identity}
        asked = {
            "rules": [
                {"name": rule.name, "settings": collect_settings(rule), "report": rule.name in job.report}
                for rule in job.rules
            ],
            "select": job.settings.select.model_dump(mode="json"),
            "seed": job.settings.seed,
            "eval": None if task.eval_rows is None else task.eval_rows.fingerprint,
            "features": models,
        }
        return {
            "format": FORMAT,
            "kind": "snapshot",
            "identity": digest(
                {
                    "parent": parent,
                    "basis": task.basis,
                    "asked": asked,
                    "ledger": task.ledger,
                    "thresher": versions(()),
                    "full": task.is_full,
                }
            ),
            "version": task.version,
            "parent": parent,
            "job": job.name,
            "basis": task.basis,
            "is_full": task.is_full,
            **asked,
            "encoder": context.models.encoder,
            "n_topics": job.settings.gates.n_topics,
            "schema": describe_schema(task.schema),
            "counts": report["counts"],
            "weight": int(np.sum(choice.table[WEIGHT].to_numpy())) if choice.table.num_rows else 0,
            "objective": None if choice.objective is None else round(choice.objective, 6),
            "kept_rows": digest(choice.table[ROW_ID].to_pylist() if choice.table.num_rows else []),
            "versions": versions(("numpy", "polars", "pyarrow", "faiss-cpu", "numba", "rensa")),
        }

    def _tell_scan(self, found: Scan) -> None:
        fields = {
            "new": len(found.fresh),
            "known": len(found.known),
            "too_old": len(found.too_old),
            "gone": len(found.gone),
        }
        message = f"{len(found.fresh):,} new files, {len(found.known):,} known"
        message += f", {len(found.too_old):,} older than --since" if found.too_old else ""
        message += f", {len(found.gone):,} gone (their rows stay)" if found.gone else ""
        self._on_event(Event(name="scan", message=message, fields=fields))

    def _tell(self, name: str, message: str) -> None:
        self._on_event(Event(name=name, message=message))

    def _warn(self, name: str, message: str) -> None:
        message = self._addresses.redact(message)
        self.notes.append(message)
        self._on_event(Event(name=name, message=message, level="warning"))


def _changed(made: list[Incoming]) -> list[str]:
    """Return the files that changed since they were read."""
    return [path for one in made if one.rows is not None for path in find_changed_files(one.rows)]


def _still_unread(old: Pool | None, incoming: Incoming) -> Pool | None:
    """Return the old rows that no source holds any more: they stay, and stand for themselves again."""
    if old is None:
        return None
    ids = pack_row_ids(old.rows.frame["row_id"])
    here = np.zeros(0, ids.dtype) if incoming.rows is None else np.sort(pack_row_ids(incoming.rows.frame["row_id"]))
    at = np.flatnonzero(~mask_known(ids, here))
    if not len(at):
        return None
    return replace(old.take(at), weight=np.ones(len(at), np.int64))


def parse_time(text: str) -> datetime:
    """Return the time that a text such as "2026-11-20" or "2026-11-20T03:00:00+01:00" stands for; UTC without a zone.

    Raises:
        InputError: the text is no time.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"--since: must be a date or time such as 2026-11-20T03:00, got '{text}'") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
