"""`thresher mix`: how much of each source?"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from thresher.cli import experiment_options as shared
from thresher.cli.next_steps import suggest_selection
from thresher.cli.with_options import with_options
from thresher.experiments.mixing.settings import MixSettings
from thresher.numeric.units import format_count
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.experiments.mixing.mix import Mix


@with_options(MixSettings, shared.RowSettings, shared.OutputSettings, defaults={"workers": "auto"})
def mix(
    eval_rows: shared.Eval,
    settings: MixSettings,
    read: shared.RowSettings,
    output: shared.OutputSettings,
    pool: shared.Pool = None,
) -> None:
    """Find the best shares of several sources, and what more rows from each would add.

    Trains on small mixes, fits a law over shares, and compares the best shares with equal ones.

    [bold]Example:[/bold] thresher mix --source a.jsonl --source b.jsonl --eval test.jsonl --out mix
    """
    from thresher.experiments.design.more_plans import plan_mix
    from thresher.experiments.mixing.mix import mix as find_mix

    command = shared.ExperimentCommand(run=find_mix, summarize=summarize, plan=plan_mix)
    shared.run_experiment(command, pool, eval_rows, settings, read=read, output=output)


def summarize(result: Mix) -> str:
    """Return the answer, a line for each source, and the quota that selects such a mix."""
    content = result.content
    width = max(len("source"), *(len(each["name"]) for each in content["sources"]))
    lines = [content["answer"], f"{'source':<{width}} {'rows':>8} {'share':>6} {'80 % region':>12}  further rows"]
    for each in content["sources"]:
        region = f"{100 * each['low']:.0f} to {100 * each['high']:.0f} %"
        more = "no further rows" if each["next"] is None else each["next"]["sentence"]
        lines.append(f"{each['name']:<{width}} {each['rows']:>8,} {each['share']:>6.0%} {region:>12}  {more}")
    lines.append(
        f"a law over {content['mixes']} mixes of up to {content['n_rows']:,} rows, {content['metric']}; the "
        f"region contains the best shares with a probability of 80 %, and is {content['share_of_mixes']:.0%} of "
        f"all mixes"
    )
    verdict = content["verdict"]
    if verdict is not None:
        values = f"{verdict['value']:.4f}, equal shares {verdict['against_value']:.4f}"
        asked = result.manifest.content
        on = f"{format_count(asked['test']['rows'], 'test row')}, {format_count(asked['asked']['seeds'], 'seed')}"
        lines.append(f"trained with the best shares: {content['metric']} {values} ({on}): {verdict['sentence']}")
    lines += content["forgetting"]
    lines += shared.describe_test_rows(result.manifest.content)
    if result.path is not None:
        lines.append(shared.list_files(result.path))
    if content["quota"] is not None:
        lines.append(suggest_selection("ROWS", "N", f"--method random --quota {shlex.quote(content['quota'])}"))
    return join_lines(lines)
