"""`thresher curate run | check | history | show | diff`: jobs that a scheduler runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from thresher.cli import options

if TYPE_CHECKING:
    from thresher.jobs.events import Event
    from thresher.jobs.history import HistoryEntry
    from thresher.jobs.run import RunResult

JobFile = Annotated[Path, typer.Argument(help="The job file.")]
Where = Annotated[Path, typer.Option("--job", help="The job file, or the output folder.")]


def run(
    job: JobFile,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and write nothing.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Judge every row of the sources anew.")] = False,
    since: Annotated[
        str | None, typer.Option(help="Pass over files that changed last before this time (UTC, or with a zone).")
    ] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Publish even when a gate fails.")] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="One JSON object per line on stderr.")] = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Make the next snapshot from what is new at the sources.

    Exit codes: 0 done, 3 nothing new, 2 the user's error, 4 a drift or quality gate, 75 another run
    is at work, 1 ours.

    [bold]Example:[/bold] thresher curate run job.toml --log-json
    """
    from thresher.jobs.run import run_job

    tell = _teller(log_json=log_json, quiet=quiet)
    result = run_job(job, dry_run=dry_run, full=full, since=since, accept=accept, on_event=tell)
    with _leaving(sys.stdout):
        if as_json:
            _print_json(_told(result))
            sys.stdout.flush()
    with _leaving(sys.stderr):
        if log_json and not as_json:
            log_line("info", "end", result.outcome, {"exit_code": result.exit_code, "version": result.version})
        elif not quiet and not as_json:
            typer.echo(summary(result), err=True)
    raise typer.Exit(result.exit_code)


def check(job: JobFile, as_json: options.AsJson = False) -> None:
    """Check a job file whole, and say what a run would read; no row is read and nothing is written."""
    from thresher.jobs.inspection import check_job

    found = check_job(job)
    if as_json:
        _print_json(found)
        return
    typer.echo(f"{job}: fine; {found['files_new']:,} new files, {found['files_known']:,} known")
    for source in found["sources"]:
        typer.echo(f"  {source['name']}: {source['what']}")
    typer.echo(f"  steps: {', '.join(found['steps']) or 'none but one row per content'}")
    typer.echo(f"  output: {found['output']}, newest snapshot {found['latest'] or 'none'}")
    for note in found["notes"]:
        typer.echo(f"  note: {note}")


def history(
    job: Where = Path("job.toml"),
    limit: Annotated[int, typer.Option(help="Runs to show, newest first.", min=1)] = 20,
    as_json: options.AsJson = False,
) -> None:
    """List the runs of a job, newest first."""
    from thresher.jobs.inspection import list_runs

    runs = list_runs(job, limit=limit)
    if as_json:
        _print_json([_run_json(one) for one in runs])
        return
    if not runs:
        typer.echo("no runs yet")
    for one in runs:
        counts = one.report.get("counts", {})
        seconds = "" if one.seconds is None else f"{one.seconds:.1f} s"
        made = f"v{one.version:06d}" if one.version else "-"
        rows = f"{counts['rows']:,} rows, {counts['entered']:,} new" if "rows" in counts else ""
        typer.echo(
            f"{one.number:>5}  {one.started}  {one.outcome:<12} {made:<8} {seconds:>9}  {rows or one.message or ''}"
        )


def show(
    run: Annotated[str, typer.Argument(help="Number of a run, a version such as v12, or latest.")],
    job: Where = Path("job.toml"),
    as_json: options.AsJson = False,
) -> None:
    """Tell all about one run: rows in and out and why, drift, what was odd."""
    from thresher.jobs.inspection import find_run

    found = find_run(job, run)
    if as_json:
        _print_json(_run_json(found))
        return
    made = f"snapshot v{found.version:06d}" if found.version else "no snapshot"
    typer.echo(f"run {found.number} at {found.started}: {found.outcome}, {made}")
    if found.message:
        typer.echo(f"  {found.message}")
    for line in report_lines(found.report):
        typer.echo(f"  {line}")


def diff(
    before: Annotated[str, typer.Argument(help="Number of a run, a version, or latest.")],
    after: Annotated[str, typer.Argument(help="Number of a run, a version, or latest.")],
    job: Where = Path("job.toml"),
    as_json: options.AsJson = False,
) -> None:
    """Compare the snapshots of two runs: rows that entered and left, by source, and how far they drifted."""
    from thresher.jobs.inspection import compare_snapshots

    found = compare_snapshots(job, before, after)
    if as_json:
        _print_json(found)
        return
    typer.echo(
        f"v{found['before']:06d} -> v{found['after']:06d}: {found['rows_before']:,} rows -> {found['rows_after']:,}; "
        f"{found['entered']:,} entered, {found['left']:,} left, {found['stayed']:,} stayed"
    )
    for name, n in found["entered_by_source"].items():
        typer.echo(f"  in   {name}: {n:,}")
    for name, n in found["left_by_source"].items():
        typer.echo(f"  out  {name}: {n:,}")
    for line in _drift_lines(found["drift"]):
        typer.echo(f"  {line}")


def register(app: typer.Typer) -> None:
    """Add the verbs of jobs to the group `curate`."""
    for verb in (run, check, history, show, diff):
        app.command()(verb)


def summary(result: RunResult) -> str:
    """Return what happened, in a few lines."""
    would = "would be: " if result.is_dry else ""
    lines = [f"{would}{result.outcome} (exit {result.exit_code})", *report_lines(result.report)]
    if result.snapshot is not None:
        lines.append(str(result.snapshot))
    return "\n".join(lines)


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the report of a run in lines."""
    counts = report.get("counts", {})
    lines = []
    if "read" in counts:
        lines.append(
            f"{counts['read']:,} rows read from {counts['files_new']:,} new files: {counts['new']:,} new, "
            f"{counts['known']:,} known, {counts['repeated']:,} repeated, {counts['unusable']:,} unusable"
        )
    if "rows" in counts:
        lines.append(
            f"{counts['rows']:,} rows in the snapshot: {counts['entered']:,} entered, {counts['left']:,} left"
            + (f", {counts['masked']:,} masked" if counts["masked"] else "")
        )
    for one in report.get("out", []):
        what = f"{one['rule']}: {one['reason']}" if one["rule"] else f"{one['stage']}: {one['reason']}"
        lines.append(f"  out {one['rows']:,} {what}{' (was in the pool)' if one['was_kept'] else ''}")
    lines += [f"  unusable {n:,}: {reason}" for reason, n in report.get("unusable", {}).items()]
    lines += [f"  left to the next run: {one['name']}: {one['why']}" for one in report.get("skipped", [])]
    lines += [f"  {line}" for line in _drift_lines(report.get("drift", []))]
    lines += [
        f"  {one['level']}: {one['gate']} is {one['value']:.3g}, limit {one['limit']:g}"
        for one in report.get("alarms", [])
    ]
    lines += [f"  note: {note}" for note in report.get("notes", [])]
    for one in report.get("notified", []):
        whom = one.get("webhook") or one.get("prometheus")
        lines.append(f"  told {whom}: {one.get('error') or one.get('status') or 'written'}")
    return lines


def _drift_lines(drifts: list[dict[str, Any]]) -> list[str]:
    return [
        f"drift of {one['measure']} ({one['of']}): Jensen-Shannon {one['jensen_shannon']:.3f} "
        f"({one['chance']:.3f} by chance), PSI {one['psi']:.3f}"
        for one in drifts
    ]


def _teller(*, log_json: bool, quiet: bool) -> Callable[[Event], None] | None:
    if quiet and not log_json:
        return None

    def tell(event: Event) -> None:
        with _leaving(sys.stderr):
            if log_json:
                log_line(event.level, event.name, event.message, event.fields)
            else:
                typer.echo(f"{event.level}: {event.message}" if event.level != "info" else event.message, err=True)

    return tell


@contextmanager
def _leaving(stream: TextIO) -> Iterator[None]:
    """Go on without the reader of a stream who has left: a run, and what it exits with, is not a matter of its log."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python writes the rest when it ends


def log_line(level: str, name: str, message: str, fields: Mapping[str, Any]) -> None:
    """Write one line of the log, an object; an event cannot change the names that every line has."""
    from datetime import UTC, datetime

    import orjson

    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = {"time": now, "level": level, "event": name, "message": message}
    entry |= {key: value for key, value in fields.items() if key not in entry}
    sys.stderr.write(orjson.dumps(entry, default=str).decode() + "\n")


def _told(result: RunResult) -> dict[str, Any]:
    return {
        "outcome": result.outcome,
        "exit_code": result.exit_code,
        "snapshot": None if result.snapshot is None else str(result.snapshot),
        "version": result.version,
        "run": result.number,
        "is_dry": result.is_dry,
        "report": dict(result.report),
    }


def _run_json(run: HistoryEntry) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(run)


def _print_json(content: object) -> None:
    import orjson

    sys.stdout.write(orjson.dumps(content, default=str, option=orjson.OPT_INDENT_2).decode() + "\n")
