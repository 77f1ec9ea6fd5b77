"""One run of a job, step by step: scan -> read -> curate -> choose -> report -> write the snapshot.

Each step takes one small dataclass and returns the next: `UpdatePlan`, `Scan`, `UpdateInputs`,
`Candidates`, `Choice`, `DriftReport`, `UpdateResult`. Nothing is written before `write_update`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from thresher.errors import InputError, ManifestError
from thresher.features import FeatureContext, Progress, make_context
from thresher.jobs.drift.gates import Alarm, check_quality, check_unusable
from thresher.jobs.drift_report import DriftReport, measure_drift
from thresher.jobs.events import EventLog
from thresher.jobs.job_file import Job
from thresher.jobs.snapshots.folder import JobFolder
from thresher.jobs.snapshots.read import CHANGES, DISTRIBUTIONS, SOURCES, Pool, name_classes, read_pool
from thresher.jobs.snapshots.seen_ids import (
    delete_unlisted_segments,
    mask_known,
    pack_row_ids,
    read_segments,
    write_segment,
)
from thresher.jobs.snapshots.write import write_snapshot
from thresher.jobs.sources.batches import Incoming, merge_batches
from thresher.jobs.sources.eval_rows import load_eval_rows
from thresher.jobs.sources.incoming import ATTEMPTS, SourceReader, find_changed_files
from thresher.jobs.sources.scan import HashCache, Scan, scan_sources
from thresher.jobs.sources.source_settings import check_same_columns
from thresher.jobs.state import PreviousSnapshot, UpdateInputs, UpdatePlan
from thresher.jobs.update.adapter_gate import NOT_TRAINED, check_adapter
from thresher.jobs.update.change_report import build_change_report, build_read_report
from thresher.jobs.update.choose import Choice, choose_rows
from thresher.jobs.update.curate import curate_rows
from thresher.jobs.update.fingerprint import (
    compute_config_fingerprint,
    describe_config_change,
    describe_model_change,
    fingerprint_models,
)
from thresher.jobs.update.manifest import build_manifest
from thresher.models.encoders.encoder import AUTO


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What every step of a run needs.

    Attributes:
        job: the job.
        folder: its output.
        log: hears what happens.
        cache: hashes of files.
        is_full: evaluate every row again.
        since: skip files that were last modified before it.
        is_training: check the adapter gate, where the job has one.
    """

    job: Job
    folder: JobFolder
    log: EventLog
    cache: HashCache
    is_full: bool
    since: datetime | None
    is_training: bool = True


@dataclass(frozen=True, kw_only=True)
class UpdateResult:
    """What a run came to, before anything is written.

    Attributes:
        inputs: what it read.
        report: counts, changes, drift and alarms, in JSON values.
        alarms: values beyond their limits.
        choice: rows of the next snapshot; this and the following are None when nothing is new.
        drift: how the rows are distributed, and how far that moved.
        manifest: of the next snapshot, without files, segments and the section `run`.
    """

    inputs: UpdateInputs
    report: dict[str, Any]
    alarms: list[Alarm]
    choice: Choice | None = None
    drift: DriftReport | None = None
    manifest: dict[str, Any] | None = None


def build_update(run: RunContext) -> UpdateResult:
    """Work out the next snapshot; start again when a source changes meanwhile.

    Raises:
        InputError: a source cannot be read, or keeps changing.
    """
    unsettled: set[str] = set()
    for attempt in range(ATTEMPTS):
        run.log.notes.clear()
        inputs = gather_inputs(run, unsettled)
        try:
            result = update(run, inputs)
            changed = find_changed_files(inputs.incoming.rows)
            if not changed:
                return result
            message = f"{changed[0]}: the file changed while it was being read"
        except InputError as error:
            changed, message = find_changed_files(inputs.incoming.rows), str(error)
            if not changed or attempt == ATTEMPTS - 1:
                raise
        run.log.note("changing", f"{message}; starting again")
        if attempt == ATTEMPTS - 2:  # it does not settle: the last attempt does without it
            unsettled |= set(changed)
    raise InputError(f"{changed[0]}: the file must not change during a run, it kept changing; run again")


def gather_inputs(run: RunContext, unsettled: set[str]) -> UpdateInputs:
    """Plan, scan and read.

    Args:
        run: the run.
        unsettled: paths that kept changing, which are left to the next run.
    """
    plan = plan_update(run)
    notes = list(run.log.notes)
    inputs = read_inputs(run, plan, scan_files(run, plan), unsettled)
    if inputs.n_new and not plan.is_full and has_other_models(run, plan.previous):
        # Other models: every row is evaluated again, and notes of the first reading are void.
        run.log.notes[:] = notes
        plan = replace(plan, is_full=True)
        inputs = read_inputs(run, plan, scan_files(run, plan), unsettled)
    return inputs


def update(run: RunContext, inputs: UpdateInputs) -> UpdateResult:
    """Curate, choose and report."""
    alarms = check_unusable(
        run.job.settings.gates, n_read=inputs.incoming.n_read, n_unusable=inputs.incoming.n_unusable
    )
    if inputs.has_nothing_new:
        return UpdateResult(inputs=inputs, report=build_read_report(inputs, alarms), alarms=alarms)
    context = build_feature_context(run, inputs.plan.previous).resolved()
    models = fingerprint_models(run.job, context)
    candidates = curate_rows(run.job, inputs, context)
    for note in () if candidates.curation is None else candidates.curation.notes:
        run.log.note("rule", note)
    choice = choose_rows(run.job, inputs, candidates, context)
    drift = measure_drift(run.job, inputs, candidates, choice, models, run.log)
    quality = check_quality(
        run.job.settings.gates,
        n_rows=choice.table.num_rows,
        n_new=inputs.n_new,
        n_dropped=0 if candidates.curation is None else candidates.curation.dropped.height,
    )
    alarms = [*drift.alarms, *quality, *alarms]
    adapter = check_adapter(run.job, inputs, choice.table, run.log) if run.is_training else NOT_TRAINED
    alarms = [*alarms, *adapter.alarms]
    report = build_change_report(inputs, choice, drift.drifts, alarms)
    report |= {} if adapter.section is None else {"train": adapter.section}
    manifest = build_manifest(run.job, inputs, choice, context, models, report["counts"])
    return UpdateResult(inputs=inputs, report=report, alarms=alarms, choice=choice, drift=drift, manifest=manifest)


def plan_update(run: RunContext) -> UpdatePlan:
    """Read the previous snapshot, and decide whether every row is evaluated again."""
    job, previous = run.job, PreviousSnapshot.read(run.folder.latest())
    check_same_columns(job, previous.schema)
    eval_rows = load_eval_rows(job)
    fingerprint = compute_config_fingerprint(job, eval_rows)
    is_full = run.is_full
    if not is_full and previous.snapshot is not None:
        made_by = previous.snapshot.manifest.content["job"]
        if made_by != job.name:
            message = f"the newest snapshot was made by the job '{made_by}', and this is '{job.name}'"
            run.log.note("job", f"{message}; two jobs must not share an output folder")
        is_full = _announce_full(run, describe_config_change(previous.snapshot, fingerprint))
    return UpdatePlan(previous=previous, eval_rows=eval_rows, config_fingerprint=fingerprint, is_full=is_full)


def scan_files(run: RunContext, plan: UpdatePlan) -> Scan:
    """Find the files at the sources, and which of them are new."""
    hashes = set() if plan.is_full else plan.previous.list_known_hashes(run.cache)
    scan = scan_sources(run.job, plan.previous.ledger, known_hashes=hashes, since=run.since, cache=run.cache)
    for note in (*scan.notes, *(f"{name} was deferred to the next run: {why}" for name, why in scan.skipped)):
        run.log.note("scan", note)
    counts = {"new": len(scan.new_files), "known": len(scan.known_files)}
    counts |= {"too_old": len(scan.too_old), "gone": len(scan.gone)}
    message = f"{counts['new']:,} new file{'' if counts['new'] == 1 else 's'}, {counts['known']:,} known"
    message += f", {counts['too_old']:,} older than --since" if counts["too_old"] else ""
    message += f", {counts['gone']:,} gone (their rows are kept)" if counts["gone"] else ""
    run.log.send("scan", message, fields=counts)
    return scan


def read_inputs(run: RunContext, plan: UpdatePlan, scan: Scan, unsettled: set[str]) -> UpdateInputs:
    """Read the new rows and the pool that they join.

    Raises:
        InputError: a source cannot be read, or no source ever held a row.
    """
    previous = plan.previous
    reader = SourceReader(run.job, schema=previous.schema, since=run.since, log=run.log)
    batches = reader.read_all(scan, unsettled, ledger=[] if plan.is_full else previous.ledger)
    if reader.schema is None:
        raise InputError(
            f"{run.job.path.name}: the sources must hold rows, found none; check the globs and folders in [[sources]]"
        )
    known, problems = read_segments(run.folder.seen, previous.segments)
    for problem in problems:
        run.log.note("seen", problem)
    old = None if previous.snapshot is None else read_pool(previous.snapshot)
    if old is not None:
        old = name_classes(old, [shard for batch in batches for shard in batch.rows.shards])
    if old is not None:
        known = np.union1d(known, pack_row_ids(old.rows.frame["row_id"]))
    incoming = merge_batches(batches, known[:0] if plan.is_full else known, reader.skipped, reader.empty_files)
    pool = _find_unread(old, incoming) if plan.is_full else old
    if plan.is_full and pool is not None:
        run.log.note(
            "full",
            f"{len(pool.rows):,} kept rows are no longer in any source, or are in one that was deferred to the "
            f"next run: they are kept, and not evaluated again",
        )
    return UpdateInputs(
        plan=plan, scan=scan, incoming=incoming, old=old, pool=pool, known=known, version=run.folder.next_version()
    )


def has_other_models(run: RunContext, previous: PreviousSnapshot) -> bool:
    """Tell whether the models behind the features changed under the same names, and say so."""
    if previous.snapshot is None:
        return False
    context = build_feature_context(run, previous)
    return _announce_full(run, describe_model_change(run.job, previous.snapshot, context))


def build_feature_context(run: RunContext, previous: PreviousSnapshot) -> FeatureContext:
    """Return what features are computed with; by default, with the encoder of the first run."""
    job, models = run.job, run.job.settings.features
    encoder = None if models.encoder == AUTO else job.resolve_model(models.encoder)

    def log_progress(progress: Progress) -> None:
        if progress.note:
            run.log.note("feature", progress.note, "warning" if progress.is_warning else "info")

    return make_context(
        encoder=encoder or previous.encoder,
        model=job.resolve_model(models.model),
        tokenizer=job.resolve_model(models.tokenizer),
        device=models.device,
        on_progress=log_progress,
    )


def write_update(run: RunContext, result: UpdateResult, *, run_section: Mapping[str, Any]) -> None:
    """Write the next snapshot into the work folder; only `run_section` may differ in a rerun."""
    inputs, choice, drift = result.inputs, result.choice, result.drift
    if choice is None or drift is None or result.manifest is None:
        raise AssertionError("nothing to write")
    seen, version = run.folder.seen, inputs.version
    with suppress(ManifestError):  # of an old snapshot: nobody knows what it lists
        snapshots = [run.folder.open_snapshot(number) for number in run.folder.versions()]
        listed = [entry for snapshot in snapshots for entry in snapshot.manifest.content["seen"]]
        delete_unlisted_segments(seen, listed, before=version)
    segments = [] if inputs.plan.is_full else inputs.plan.previous.segments
    segment = write_segment(seen, version, inputs.fresh_ids)
    write_snapshot(
        run.folder.create_work(version),
        run.job,
        table=choice.table,
        dropped=choice.dropped,
        rejected=inputs.incoming.rejected,
        schema=inputs.schema,
        topics=drift.topics,
        documents={DISTRIBUTIONS: drift.distributions, CHANGES: result.report, SOURCES: inputs.ledger},
        content=result.manifest | {"seen": [*segments, segment], "run": dict(run_section)},
    )


def _announce_full(run: RunContext, change: str | None) -> bool:
    """Say why every row is evaluated again, where something changed; tell whether it did."""
    if change is not None:
        run.log.send("full", f"{change}: evaluating every row of the sources again")
    return change is not None


def _find_unread(old: Pool | None, incoming: Incoming) -> Pool | None:
    """Return the old rows that no source holds any more: they stay, each with weight 1 again."""
    if old is None:
        return None
    ids = pack_row_ids(old.rows.frame["row_id"])
    read = ids[:0] if incoming.rows is None else np.sort(pack_row_ids(incoming.rows.frame["row_id"]))
    unread = np.flatnonzero(~mask_known(ids, read))
    return replace(old.take(unread), weight=np.ones(len(unread), np.int64)) if len(unread) else None
