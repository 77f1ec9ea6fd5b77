"""`thresher train --experts K`: one adapter, or several on clusters of the rows?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from thresher.cli.next_steps import suggest_report
from thresher.cli.output import print_block, print_json, print_plan
from thresher.errors import InputError, SettingsError
from thresher.experiments.experts.settings import ExpertSettings
from thresher.numeric.units import format_count
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.experiments.experts.experts import Experts


def check_experts(asked: ExpertSettings, held_out: str | None, given: Mapping[str, Any]) -> None:
    """Refuse options of experts where none are asked for, and those that mean nothing for them.

    Args:
        asked: options of the experts.
        held_out: rows to measure on.
        given: options of `train` that mean nothing for experts; false or None where not given.

    Raises:
        InputError: there are no rows to measure on.
        SettingsError: options do not go together.
    """
    default, others = ExpertSettings(), [name for name, value in given.items() if value]
    own = [name for name in ("clusters", "common", "encoder") if getattr(asked, name) != getattr(default, name)]
    if asked.k is None and own:
        raise SettingsError(f"train: {', '.join(own)} divides rows among experts, got no number of them; give experts")
    if asked.k is not None and others:
        raise SettingsError(
            f"train: experts are trained and compared in one way, got {', '.join(others)}; leave it out"
        )
    if asked.k is not None and held_out is None:
        raise InputError("experts: adapters are compared on held-out rows, found none; give --eval")


def train_with_experts(
    rows: Any, asked: ExpertSettings, call: Mapping[str, Any], *, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """Train several adapters, and print how they do beside their controls.

    Args:
        rows: to train on.
        asked: options of the experts.
        call: `model`, `eval`, `settings`, `seeds`, `seed`, `out` and `force` of `train`.
        dry_run: print what it will take, and train nothing.
        as_json: print the content of `experts.json`.
        quiet: print nothing else.
    """
    from thresher.cli.progress import progress_display
    from thresher.experiments.design.more_plans import plan_experts
    from thresher.experiments.experts.experts import experts

    own = {name: call[name] for name in ("settings", "seeds", "seed", "out", "force") if name in call}
    options = vars(replace(asked, **own))
    if dry_run:
        print_plan(plan_experts(rows, eval=call["eval"], model=call["model"], **options), as_json=as_json)
        return
    with progress_display(quiet=quiet) as show:
        result = experts(rows, eval=call["eval"], model=call["model"], on_progress=show, **options)
    if as_json:
        print_json(dict(result.content))
    if not quiet:
        print_block(summarize(result), err=True)


def summarize(result: Experts) -> str:
    """Return verdicts, scores, and how rows and questions were divided."""
    content = result.content
    names = {"experts": format_count(content["k"], "expert"), "single": "one adapter", "random": "random clusters"}
    lines = [each["verdict"] for each in content["against"].values()]
    lines += [f"{names[name]}: {content['metric']} {score:.4f}" for name, score in content["scores"].items()]
    asked = content["settings"]["k"]
    if content["k"] < asked:
        lines.append(f"{asked} experts were asked for; the rows are so alike that they make {content['k']}")
    if content["rows"] is not None:
        lines.append(
            f"rows per expert: {', '.join(map(str, content['rows']))}; {content['agreement']:.0%} of them would"
        )
        lines[-1] += f" be routed there; held-out rows per expert: {', '.join(map(str, content['routed']))}"
    if result.path is not None:
        lines += [f"{result.path}: experts/, router.npy, experts.json", suggest_report(result.path)]
    return join_lines(lines)
