"""`thresher curate run | check | history | show | diff`: jobs that a scheduler runs."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from thresher.artifacts.hub_push import check_push
from thresher.artifacts.remote.places import name_addresses
from thresher.cli import leaving, options
from thresher.cli.curate import curate_app
from thresher.cli.next_steps import suggest_report
from thresher.cli.output import print_block, print_json, print_line
from thresher.printable import escape_json, join_lines

if TYPE_CHECKING:
    from thresher.jobs.events import Event
    from thresher.jobs.run import RunResult

JobFile = Annotated[Path, typer.Argument(help="The job file.")]
JobOption = Annotated[Path, typer.Option("--job", help="The job file, or the output folder.")]
RunName = Annotated[str, typer.Argument(help="Number of a run, a version such as v12, or latest.")]


def run(
    job: JobFile,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what a run would do; publish nothing.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Evaluate every row of the sources again.")] = False,
    since: Annotated[
        str | None, typer.Option(help="Skip files that were last modified before this time (UTC, or with a zone).")
    ] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Publish even when a gate fails.")] = False,
    push_to_hub: options.PushToHub = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="One JSON object per line on stderr.")] = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Add new rows from the sources, and write the next snapshot.

    Exit codes: 0 done, 3 nothing new, 2 job file, source or disk, 4 a drift or quality gate, 75
    another run is at work, 1 internal error.

    [bold]Example:[/bold] thresher curate run job.toml --log-json
    """
    from thresher.jobs.run import run_job

    on_event = None if quiet and not log_json else _make_listener(log_json=log_json)

    def announce(result: RunResult) -> None:
        with _tolerate_closed(sys.stdout):
            if as_json:
                print_json(_describe_result(result))
                sys.stdout.flush()
        with _tolerate_closed(sys.stderr):
            if log_json and not as_json:
                log_line("info", "end", result.outcome, {"exit_code": result.exit_code, "version": result.version})
            elif not quiet and not as_json:
                print_block(_summarize(result), err=True)
        leaving.hold_signals()  # from here on, the exit code is the last word

    check_push(push_to_hub)
    result = run_job(job, dry_run=dry_run, full=full, since=since, accept=accept, on_event=on_event, announce=announce)
    if result.outcome in ("done", "nothing-new") and not dry_run:
        options.publish(result.snapshot, push_to_hub, quiet=quiet or as_json or log_json)
    raise typer.Exit(result.exit_code)


def check(job: JobFile, as_json: options.AsJson = False) -> None:
    """Check a job file, and show what a run would read; no row is read and nothing is written."""
    from thresher.jobs.inspection import check_job

    summary = check_job(job)
    if as_json:
        print_json(summary)
        return
    print_line(f"{job}: fine; {_count_files(summary['files_new'])}, {summary['files_known']:,} known")
    _print_lines(f"{source['name']}: {source['what']}" for source in summary["sources"])
    print_line(f"  steps: {', '.join(summary['steps']) or 'none but one row per content'}")
    print_line(f"  output: {summary['output']}, newest snapshot {summary['latest'] or 'none'}")
    _print_lines(f"note: {note}" for note in summary["notes"])


def history(
    job: JobOption = Path("job.toml"),
    limit: Annotated[int, typer.Option(help="Runs to show, newest first.", min=1)] = 20,
    as_json: options.AsJson = False,
) -> None:
    """List the runs of a job, newest first."""
    from thresher.jobs.inspection import list_runs

    runs = list_runs(job, limit=limit)
    if as_json:
        print_json([dataclasses.asdict(one) for one in runs])
        return
    if not runs:
        print_line("no runs yet")
    for one in runs:
        counts = one.report.get("counts", {})
        seconds = "" if one.seconds is None else f"{one.seconds:.1f} s"
        version = f"v{one.version:06d}" if one.version else "-"
        rows = f"{counts['rows']:,} rows, {counts['entered']:,} new" if "rows" in counts else one.message or ""
        print_line(f"{one.number:>5}  {one.started}  {one.outcome:<12} {version:<8} {seconds:>9}  {rows}")


def show(run: RunName, job: JobOption = Path("job.toml"), as_json: options.AsJson = False) -> None:
    """Show one run: rows in and out with reasons, drift, anomalies."""
    from thresher.jobs.inspection import find_run

    entry = find_run(job, run)
    if as_json:
        print_json(dataclasses.asdict(entry))
        return
    version = f"snapshot v{entry.version:06d}" if entry.version else "no snapshot"
    print_line(f"run {entry.number} at {entry.started}: {entry.outcome}, {version}")
    report = _format_report(entry.report, is_published=entry.outcome != "gate")
    _print_lines([*([entry.message] if entry.message else []), *report])


def diff(before: RunName, after: RunName, job: JobOption = Path("job.toml"), as_json: options.AsJson = False) -> None:
    """Compare the snapshots of two runs: rows added and removed, by source, and drift."""
    from thresher.jobs.inspection import compare_snapshots

    changes = compare_snapshots(job, before, after)
    if as_json:
        print_json(changes)
        return
    rows = f"{changes['rows_before']:,} rows -> {changes['rows_after']:,}"
    print_line(
        f"v{changes['before']:06d} -> v{changes['after']:06d}: {rows}; "
        f"{changes['entered']:,} added, {changes['left']:,} removed, {changes['stayed']:,} kept"
    )
    _print_lines(f"added   {name}: {n:,}" for name, n in changes["entered_by_source"].items())
    _print_lines(f"removed {name}: {n:,}" for name, n in changes["left_by_source"].items())
    _print_lines(_format_drift(changes["drift"]))


for verb in (run, check, history, show, diff):
    curate_app.command()(verb)


def _count_files(n: int) -> str:
    return "1 new file" if n == 1 else f"{n:,} new files"


def _summarize(result: RunResult) -> str:
    """Return what happened, in a few lines."""
    would = "would be: " if result.is_dry else ""
    head = "nothing published: a gate failed" if result.outcome == "gate" else result.outcome
    is_published = result.outcome != "gate" and not result.is_dry
    lines = [f"{would}{head} (exit {result.exit_code})", *_format_report(result.report, is_published=is_published)]
    if result.snapshot is None:
        return join_lines(lines)
    return join_lines([*lines, str(result.snapshot), *([] if result.is_dry else [suggest_report(result.snapshot)])])


def _format_report(report: Mapping[str, Any], *, is_published: bool = True) -> list[str]:
    """Return the report of a run in lines."""
    counts = report.get("counts", {})
    lines = []
    if "read" in counts:
        lines.append(
            f"{counts['read']:,} rows read from {_count_files(counts['files_new'])}: {counts['new']:,} new, "
            f"{counts['known']:,} known, {counts['repeated']:,} repeated, {counts['unusable']:,} unusable"
        )
    if "rows" in counts:
        masked = f", {counts['masked']:,} masked" if counts["masked"] else ""
        rows = f"{counts['rows']:,} rows {'in the snapshot' if is_published else 'would be in the snapshot'}"
        lines.append(f"{rows}: {counts['entered']:,} added, {counts['left']:,} removed{masked}")
    lines += [f"  {decision}" for decision in report.get("decisions", [])]
    for one in report.get("out", []):
        was_kept = " (was in the pool)" if one["was_kept"] else ""
        lines.append(f"  {one['rows']:,} dropped by {one['rule'] or one['stage']}: {one['reason']}{was_kept}")
    lines += [f"  unusable {n:,}: {reason}" for reason, n in report.get("unusable", {}).items()]
    lines += [f"  left to the next run: {one['name']}: {one['why']}" for one in report.get("skipped", [])]
    lines += [f"  {line}" for line in _format_drift(report.get("drift", []))]
    for one in report.get("alarms", []):
        what = f": {one['what']}" if "what" in one else f" is {one['value']:.3g}, limit {one['limit']:g}"
        lines.append(f"  {one['level']}: {one['gate']}{what}")
    lines += [f"  note: {note}" for note in report.get("notes", [])]
    for one in report.get("notified", []):
        target, answer = one.get("webhook") or one.get("prometheus"), one.get("error") or one.get("status")
        lines.append(f"  notified {target}: {answer or 'written'}")
    return lines


def _format_drift(drifts: list[dict[str, Any]]) -> list[str]:
    return [
        f"drift of {one['measure']} ({one['of']}): Jensen-Shannon {one['jensen_shannon']:.3f} "
        f"({one['chance']:.3f} by chance), PSI {one['psi']:.3f}"
        for one in drifts
    ]


def _make_listener(*, log_json: bool) -> Callable[[Event], None]:
    def print_event(event: Event) -> None:
        with _tolerate_closed(sys.stderr):
            if log_json:
                log_line(event.level, event.name, event.message, event.fields)
            else:
                print_line(f"{event.level}: {event.message}" if event.level != "info" else event.message, err=True)

    return print_event


@contextmanager
def _tolerate_closed(stream: TextIO) -> Iterator[None]:
    """Go on when the reader of a stream has left: it decides neither the run nor its exit code."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes at its end


def log_line(level: str, name: str, message: str, fields: Mapping[str, Any]) -> None:
    """Write one line of the log, an object; an event cannot change the keys of every line."""
    from datetime import UTC, datetime

    import orjson

    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = {"time": now, "level": level, "event": name, "message": message}
    entry |= {key: value for key, value in fields.items() if key not in entry}
    sys.stderr.write(escape_json(name_addresses(orjson.dumps(entry, default=str).decode())) + "\n")


def _describe_result(result: RunResult) -> dict[str, Any]:
    return {
        "outcome": result.outcome,
        "exit_code": result.exit_code,
        "snapshot": None if result.snapshot is None else str(result.snapshot),
        "version": result.version,
        "run": result.number,
        "is_dry": result.is_dry,
        "report": dict(result.report),
    }


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print_line(f"  {line}")
