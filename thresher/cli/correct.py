"""`thresher correct`: replace answers by better ones of a fine-tuned model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from thresher.cli import options
from thresher.cli.next_steps import suggest_training
from thresher.cli.output import print_block, print_json_text, print_plan
from thresher.cli.with_options import with_options
from thresher.curation.correction.settings import CorrectSettings
from thresher.dataset.settings import PoolSettings
from thresher.models.settings import ModelSettings
from thresher.numeric.units import format_count
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.curation.correction.correct import Corrected


@with_options(CorrectSettings, ModelSettings, PoolSettings)
def correct(
    correction: CorrectSettings,
    models: ModelSettings,
    read: PoolSettings,
    pool: options.Pool = None,
    out: options.Out = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Replace answers where a judge is confident that a fine-tuned model's answer is better.

    [bold]Example:[/bold] thresher correct pool.jsonl --model adapter --out corrected
    """
    from thresher.cli.progress import progress_display
    from thresher.curation.correction.correct import correct as correct_rows
    from thresher.curation.correction.plan import plan_correction

    out = out if dry_run else options.require_out(out)
    rows = options.read_and_report(pool, read, quiet=quiet)
    if out is None or dry_run:
        print_plan(plan_correction(rows, **vars(correction), **vars(models)), as_json=as_json)
        return
    with progress_display(quiet=quiet) as show:
        corrected = correct_rows(rows, out=out, force=force, on_progress=show, **vars(correction), **vars(models))
    if as_json:
        print_json_text(corrected.manifest.to_json().decode())
    if not quiet:
        print_block(format_summary(corrected, out, options.describe_schema(rows)), err=True)


def format_summary(corrected: Corrected, out: Path, read_as: str | None) -> str:
    """Return what happened, in a few lines."""
    content = corrected.manifest.content
    counts = content["counts"]
    lines = [f"{format_count(counts['read'], 'row')} read ({read_as}), {counts['rejected']:,} rejected as unusable"]
    lines += options.format_rejected(counts["rejected_by_reason"])
    abstain = content.get("abstain")
    if abstain is None:
        lines.append(f"{content['model']['name']} wrote, {content['judge']['name']} judged, eta {content['eta']:g}")
    else:
        asked = f"{content['model']['name']} answered each prompt {abstain['n_samples']} times"
        lines.append(f"{asked}; where it does not know, the row now says '{abstain['refusal']}'")
    lines += [f"  {n:,} {decision}" for decision, n in counts["decisions"].items() if n or abstain is None]
    lines += [f"  {note}" for note in content["notes"]]
    lines.append(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    lines += options.reading_notes(content.get("reading_notes", ()))
    lines.append(suggest_training(out))
    return join_lines(lines)
