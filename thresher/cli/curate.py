"""`thresher curate`: clean a pool once; what rules there are."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.cli import options
from thresher.cli.command import App
from thresher.cli.next_steps import suggest_selection
from thresher.cli.output import print_block, print_json, print_json_text, print_line, print_plan
from thresher.cli.with_options import with_options
from thresher.dataset.settings import READ_PANEL, EvalReadSettings, PoolSettings
from thresher.dataset.values.given_settings import GivenSettings
from thresher.errors import InputError
from thresher.models.settings import ModelSettings
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.curation.result import Curated

SideConfig = Annotated[str | None, typer.Option(help="Configuration of a Hub data set.", rich_help_panel=READ_PANEL)]
SideSplit = Annotated[str | None, typer.Option(help="Split of a Hub or saved data set.", rich_help_panel=READ_PANEL)]
curate_app = App(help="Clean a pool: duplicates, leaks, wrong labels, personal data.", no_args_is_help=True)


@curate_app.command()
@with_options(ModelSettings, GivenSettings, PoolSettings, EvalReadSettings)
def clean(
    models: ModelSettings,
    given: GivenSettings,
    read: PoolSettings,
    eval_read: EvalReadSettings,
    pool: options.Pool = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; required except with --dry-run.")] = None,
    rules: Annotated[
        str | None,
        typer.Option(help="Rules in order, separated by commas. Default: exact-duplicates,near-duplicates."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="RULE.NAME=VALUE: near-duplicates.threshold=0.8; repeatable."),
    ] = None,
    existing: Annotated[str | None, typer.Option(help="Rows you have; pool rows that repeat one are dropped.")] = None,
    eval: Annotated[str | None, typer.Option(help="Evaluation rows; pool rows that repeat one are dropped.")] = None,  # noqa: A002
    report: Annotated[str | None, typer.Option(help="Rules that only report their findings.")] = None,
    seed: options.Seed = 0,
    force: options.Force = False,
    existing_config: SideConfig = None,
    existing_split: SideSplit = None,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Drop rows that fail a rule, with the rule and reason for each dropped row.

    [bold]Example:[/bold] thresher curate clean pool.jsonl --eval test.jsonl --out cleaned
    """
    from thresher.cli.progress import progress_display
    from thresher.curation.curate import curate

    if out is None and not dry_run:
        raise InputError("out: the result needs a folder, got none; give --out, or --dry-run for an estimate")
    call: dict[str, Any] = {"rules": rules, "settings": parse_rule_settings(settings)}
    sides: dict[str, tuple[str | None, dict[str, Any]]] = {
        "existing": (existing, _take_given(config=existing_config, split=existing_split))
    }
    sides["eval"] = (eval, eval_read.given)
    for role, (source, own) in sides.items():
        options.check_side_settings(role, source, own)
    rows = given.attach(options.read_rows(pool, read))
    with progress_display(quiet=quiet) as show:
        call |= {"report": report or ()} | ({"models": models} if dry_run else {"seed": seed, **vars(models)})
        if out is None or dry_run:
            _print_plan(rows, call, has_eval=eval is not None, as_json=as_json, on_progress=show)
            return
        side = replace(options.get_side_settings(read), id_column=read.id_column)
        for role, (source, own) in sides.items():
            call[role] = options.read_side_rows(source, side, quiet=quiet, own=own, pool=pool)
        curated = curate(rows, out=out, force=force, strict=read.strict, on_progress=show, **call)
    _print_result(curated, out, options.describe_schema(rows), as_json=as_json, quiet=quiet)


def _take_given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _print_plan(rows: Any, call: dict[str, Any], *, has_eval: bool, as_json: bool, on_progress: Any) -> None:
    from thresher.curation.curate import plan_cleaning

    print_plan(plan_cleaning(rows, has_eval=has_eval, on_progress=on_progress, **call), as_json=as_json)


def _print_result(curated: Curated, out: Path, schema: str | None, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json_text(curated.manifest.to_json().decode())
    if not quiet:
        print_block(format_summary(curated, out, schema), err=True)


@curate_app.command("rules")
def list_rules(
    name: Annotated[str | None, typer.Argument(help="A rule to describe in full.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """List the rules, or describe one: what it drops, source, cost, settings, when it fails."""
    from thresher.curation.rule import available, load_class

    names = list(available()) if name is None else [name]
    classes = {each: load_class(each) for each in names}
    if as_json:
        rules = [_describe(each, cls) for each, cls in classes.items()]
        print_json(rules if name is None else rules[0])
    elif name is None:
        width = max(map(len, names))
        for each, cls in classes.items():
            print_line(f"{each:<{width}}  {_first_line(cls)}")
        print_block("\nthresher curate rules NAME describes one of them in full.")
    else:
        print_block(f"{name}\n\n{inspect.getdoc(classes[name])}\n")
        for setting, default in _list_defaults(classes[name]).items():
            value = "VALUE (no default)" if default is None else default
            print_line(f"  --set {name}.{setting}={value}")


def parse_rule_settings(pairs: list[str] | None) -> dict[str, dict[str, Any]]:
    """Return {"near-duplicates": {"threshold": "0.8"}} from ["near-duplicates.threshold=0.8"].

    Raises:
        InputError: a pair is not RULE.NAME=VALUE.
    """
    settings: dict[str, dict[str, Any]] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        rule, dot, setting = name.strip().partition(".")
        if not (equals and dot and rule and setting):
            raise InputError(
                f"--set: must be RULE.NAME=VALUE, got '{pair}'; for example --set near-duplicates.threshold=0.8"
            )
        settings.setdefault(rule, {})[setting.replace("-", "_")] = value.strip()
    return settings


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").splitlines()[0]


def _list_defaults(cls: type) -> dict[str, Any]:
    """Return the settings with their defaults as the command line writes them, or None."""
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        default = None if field.default is dataclasses.MISSING else field.default
        defaults[field.name] = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return defaults


def _describe(name: str, cls: type) -> dict[str, object]:
    return {"name": name, "summary": _first_line(cls), "text": inspect.getdoc(cls), "settings": _list_defaults(cls)}


def format_summary(curated: Curated, out: Path, schema: str | None) -> str:
    """Return what happened, in a few lines; `schema` says how the columns were read."""
    content = curated.manifest.content
    counts = content["counts"]
    lines = options.format_read(content, schema)
    for rule in content["rules"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in rule["dropped"].items())
        dropped = f"{sum(rule['dropped'].values()):,} of {rule['rows']:,} rows dropped"
        more = f" ({reasons})" if len(rule["dropped"]) > 1 else ""
        more += f", {rule['masked']:,} masked" if rule["masked"] else ""
        more += f", {rule['findings']:,} reported" if rule["findings"] and not rule["masked"] else ""
        lines.append(f"{rule['name']}: {dropped}{more}")
    lines.append(f"{counts['kept']:,} of {counts['usable']:,} rows kept, {counts['dropped']:,} dropped")
    if counts["orphaned"]:
        lines.append(
            f"  {counts['orphaned']:,} of them repeat a row that a later rule dropped; put duplicate rules last"
        )
    lines += [f"  note: {note}" for note in content["notes"]]
    lines.append(f"{content['run']['seconds']['total']:.1f} s")
    lines.append(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    lines += options.reading_notes(content.get("reading_notes", ()))
    lines.append(suggest_selection(out, "10%"))
    lines += [f"warning: {sentence}; look at dropped.parquet" for sentence in content["large_drops"]]
    return join_lines(lines)
