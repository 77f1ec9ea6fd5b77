"""`thresher base rank | sources | transfer`: which base model, and which other data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.cli import experiment_options as shared
from thresher.cli.command import App
from thresher.cli.next_steps import suggest_after_ranking, suggest_after_sources, suggest_after_transfer
from thresher.cli.with_options import with_options
from thresher.experiments.bases.settings import BaseRankSettings
from thresher.experiments.bases.source_settings import SourceRankSettings
from thresher.experiments.bases.transfer_settings import TransferSettings
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.experiments.bases.rank import BaseRanking
    from thresher.experiments.bases.sources import SourceRanking
    from thresher.experiments.bases.transfer import Transfer

base_app = App(help="Rank base models and other data sets before any long training.", no_args_is_help=True)
EvalShare = Annotated[
    str, typer.Option("--eval", help="Rows to measure on, or a share of the pool to hold out (such as 10%).")
]


@base_app.command()
@with_options(
    BaseRankSettings, shared.RowSettings, shared.OutputSettings, name="base rank", defaults={"workers": "auto"}
)
def rank(
    settings: BaseRankSettings,
    read: shared.RowSettings,
    output: shared.OutputSettings,
    pool: shared.Pool = None,
    eval_rows: EvalShare = "20%",
) -> None:
    """Rank base models on your rows before any training; --confirm trains the best ones.

    [bold]Example:[/bold] thresher base rank train.csv --models minilm,static,smollm2 --confirm 2
    --out bases
    """
    from thresher.experiments.bases.rank import rank_bases
    from thresher.experiments.design.more_plans import plan_rank

    command = shared.ExperimentCommand(run=rank_bases, summarize=summarize_ranking, plan=plan_rank)
    shared.run_experiment(command, pool, eval_rows, settings, read=read, output=output)


def summarize_ranking(result: BaseRanking) -> str:
    """Return the answer, and a line for each model."""
    content, table = result.content, result.table
    is_labels = content["score"] == "brier"
    names = (
        ["brier", "regression", "neighbors", "evidence", "h_score"] if is_labels else _list_answer_scores(table.columns)
    )
    width = max(len("model"), *(len(name) for name in table["model"]))
    heads = " ".join(f"{name:>{max(10, len(name))}}" for name in names)
    lines = [content["answer"], f"{'model':<{width}} {'rank':>9} {heads} {'ms/row':>7} {'weights':>8} license"]
    for line in table.iter_rows(named=True):
        place = f"{line['rank']} [{line['low']}, {line['high']}]"
        values = " ".join(f"{_format(line[name]):>{max(10, len(name))}}" for name in names)
        size = "" if line["bytes"] is None else f"{line['bytes'] / 1e6:,.0f} MB"
        speed = "" if line["ms_per_row"] is None else f"{line['ms_per_row']:.1f}"
        lines.append(f"{line['model']:<{width}} {place:>9} {values} {speed:>7} {size:>8} {line['license']}")
    what = "Brier score of a cross-fitted regression" if is_labels else "bits per byte of the answers"
    lines.append(
        f"ranked by the {what} (lower is better), on {content['rows']:,} rows; 95 % intervals of the ranks over rows"
    )
    if content.get("rows_note"):
        lines.append(content["rows_note"])
    firsts = sorted(set(content["agreement"].values()))
    if len(firsts) > 1:
        named = ", ".join(f"{score} {model}" for score, model in content["agreement"].items())
        lines.append(f"the scores do not agree on the best model: {named}")
    left_out = (content["confirmed"] or {}).get("left_out", ())
    if left_out:
        lines.append(f"not trained, because they take no adapter: {', '.join(left_out)}")
    lines += shared.describe_test_rows(result.manifest.content)
    if result.path is not None:
        lines.append(shared.list_files(result.path))
    lines += suggest_after_ranking(result)
    return join_lines(lines)


def _list_answer_scores(columns: list[str]) -> list[str]:
    known = ("bits_per_byte_", "exact_match_", "rouge_l_", "chrf_")
    return [name for name in columns if name.startswith(known)]


def _format(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"


@base_app.command()
@with_options(
    SourceRankSettings, shared.RowSettings, shared.OutputSettings, name="base sources", defaults={"workers": "auto"}
)
def sources(
    settings: SourceRankSettings,
    read: shared.RowSettings,
    output: shared.OutputSettings,
    pool: shared.Pool = None,
    eval_rows: EvalShare = "20%",
) -> None:
    """Say which other data sets help: by distance, and by training with and without them.

    [bold]Example:[/bold] thresher base sources mine.jsonl --candidate other.jsonl --candidate
    third.csv --out sources
    """
    from thresher.experiments.bases.sources import rank_sources
    from thresher.experiments.design.more_plans import plan_sources

    command = shared.ExperimentCommand(run=rank_sources, summarize=summarize_sources, plan=plan_sources)
    shared.run_experiment(command, pool, eval_rows, settings, read=read, output=output)


def summarize_sources(result: SourceRanking) -> str:
    """Return the answer, a line for each candidate, and one for each mix."""
    content = result.content
    width = max(len("candidate"), *(len(each["name"]) for each in content["candidates"]))
    lines = [
        content["answer"],
        f"{'candidate':<{width}} {'rows':>8} {'distance':>9} {'similarity':>10} {'leaks':>6} {'repeats':>8} conflicts",
    ]
    for each in content["candidates"]:
        distance = "-" if each["distance"] is None else f"{each['distance']:.3f}"
        conflicts = "-" if each["conflicts"] is None else f"{each['conflicts']:.0%} ({each['n_conflicts']:,} rows)"
        lines.append(
            f"{each['name']:<{width}} {each['n_rows']:>8,} {distance:>9} {each['similarity']:>10.3f} "
            f"{each['leaks']:>6.1%} {each['repeats']:>8.1%} {conflicts}"
        )
    lines.append(content["about_distance"])
    lines += [
        f"{each['arm']}: {content['metric']} {each['value']:.4f}, alone {each['against_value']:.4f}: {each['sentence']}"
        for each in content["verdicts"]
    ]
    if content["verdicts"]:
        lines.append(
            f"{content['train_rows']:,} own rows in each mix; 95 % intervals over test rows and seeds; verdicts after "
            f"Holm's correction for their number"
        )
    lines += shared.describe_test_rows(result.manifest.content)
    if result.path is not None:
        lines.append(shared.list_files(result.path))
    lines += suggest_after_sources(result)
    return join_lines(lines)


@base_app.command()
@with_options(
    TransferSettings, shared.RowSettings, shared.OutputSettings, name="base transfer", defaults={"workers": "auto"}
)
def transfer(
    eval_rows: shared.Eval,
    settings: TransferSettings,
    read: shared.RowSettings,
    output: shared.OutputSettings,
    pool: shared.Pool = None,
) -> None:
    """Say whether verdicts on small models hold on larger ones: `compare` on a ladder of models.

    [bold]Example:[/bold] thresher base transfer train.jsonl --eval test.jsonl --models tiny,smollm2
    --methods difficulty,facility-location --out transfer
    """
    from thresher.experiments.bases.transfer import transfer as run_ladder
    from thresher.experiments.design.more_plans import plan_transfer

    command = shared.ExperimentCommand(run=run_ladder, summarize=summarize_transfer, plan=plan_transfer)
    shared.run_experiment(command, pool, eval_rows, settings, read=read, output=output)


def summarize_transfer(result: Transfer) -> str:
    """Return the answer, every method on every model, and how far neighbors agree."""
    from thresher.evaluation.metric import Unit

    content = result.content
    names = [each["name"] for each in content["models"]]
    lines = [content["answer"], f"models, by size: {', '.join(names)}"]
    unit = Unit(**content["unit"])
    for each in content["methods"]:
        effects = ", ".join(unit.format_number(effect["value"], is_signed=True) for effect in each["effects"])
        lines.append(f"{each['method']}, {each['n_rows']:,} rows: {effects} {unit.name}; {each['sentence']}")
    for step in content["steps"]:
        correlation = step["correlation"]
        order = "" if correlation is None else f"rank correlation of effects {correlation:.2f} "
        order += "" if correlation is None else f"[{step['low']:.2f}, {step['high']:.2f}], "
        held = f"{step['held']} of {step['verdicts']} verdicts held" if step["verdicts"] else "no clear verdict to hold"
        lines.append(
            f"{step['from']} to {step['to']}: {order}{held}, the best of {step['n']} is the same with a probability of "
            f"{step['same_first']:.0%}"
        )
    for line in content["rows"]:
        correlation = line["rank_correlation"]
        scores = "" if correlation is None else f", rank correlation of scores {correlation:.2f}"
        lines.append(
            f"{line['method']} chooses {line['same_rows']:.0%} of the rows on {line['to']} that it chooses on "
            f"{line['from']} (by chance {line['by_chance']:.0%}){scores}"
        )
    lines.append("effects are differences from random rows, positive is better; expected effects have 80 % intervals")
    lines += shared.describe_test_rows(result.manifest.content)
    if result.path is not None:
        lines.append(shared.list_files(result.path))
    lines += suggest_after_transfer(result)
    return join_lines(lines)
