"""What `soup` merges and measures on, checked before anything is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from thresher.dataset import Dataset
from thresher.dataset.own_text.matching import describe_matches, match_rows
from thresher.errors import InputError, SettingsError
from thresher.experiments.attribution.why import find_learned_rows, name_classifier
from thresher.experiments.soups.settings import SoupSettings
from thresher.numeric.units import format_count
from thresher.trainer.adapter import Adapter
from thresher.trainer.context import RunContext, content_hash, load_rows, resolve_run
from thresher.trainer.engine.adapters.kinds import LOW_RANK
from thresher.trainer.settings import TrainSettings
from thresher.trainer.split import sort_by_id


def load_call(
    adapters: Sequence[str | Path], dev: Any, eval_rows: Any, settings: SoupSettings
) -> tuple[list[Adapter], dict[str, RunContext], list[Dataset]]:
    """Load and check what `soup` was given; errors are those of it.

    Returns:
        The adapters, what measuring on the rows of "dev" and of "test" takes, and the rows that
        each adapter was trained on, where they are given.
    """
    trained = [Adapter.read(folder) for folder in adapters]
    _require_alike(trained)
    sides = {"dev": load_rows(dev), "test": load_rows(eval_rows)}
    if (match_rows(sides["test"], sides["dev"]) >= 0).any():
        raise InputError("soup: no dev row may be a test row, because the scores would be too good; give other rows")
    learned = _load_learned(trained, settings.data)
    for name, rows in sides.items():
        _refuse_learned(trained, learned, name, rows)
    contexts = {name: resolve_measuring(trained[0], rows, settings.device) for name, rows in sides.items()}
    return trained, contexts, learned


def _require_alike(trained: Sequence[Adapter]) -> None:
    """Refuse adapters that cannot be merged.

    Raises:
        InputError: there are fewer than two, or they differ in base, task or labels.
        SettingsError: one has no low-rank matrices.
    """
    if len(trained) < 2:
        raise InputError(f"soup: needs at least 2 adapters, got {len(trained)}; give more")
    for each in trained:
        kind = each.metrics["settings"].get("adapter", "lora")
        if kind not in LOW_RANK:
            raise SettingsError(
                f"soup: merges low-rank updates, got an adapter of kind '{kind}' in {each.path}; leave it out"
            )
        for name in ("model", "task", "labels"):
            ours, first = each.metrics[name], trained[0].metrics[name]
            if ours != first:
                raise InputError(
                    f"soup: all adapters must have the same {name}, got {_describe_trait(first, ours)} in "
                    f"{trained[0].path} and {_describe_trait(ours, first)} in {each.path}; leave one out"
                )
    seen: dict[str, Path] = {}
    for each in trained:
        if each.manifest.hash in seen:
            raise InputError(
                f"soup: needs different adapters, but {each.path} is the same as {seen[each.manifest.hash]}; leave "
                f"one out"
            )
        seen[each.manifest.hash] = each.path
    from thresher.trainer.engine.average_adapters import require_mergeable

    require_mergeable([each.path for each in trained], caller="soup")


def _describe_trait(ours: Any, other: Any) -> str:
    """Return what an adapter has and another one has not, in a few words."""
    if isinstance(ours, Mapping):  # a model: its name, or its weights where both have one name
        same_name = ours.get("name") == other.get("name")
        return f"{ours.get('name')} ({str(ours.get('fingerprint'))[:12]})" if same_name else str(ours.get("name"))
    if isinstance(ours, Sequence) and not isinstance(ours, str):
        extra = [value for value in ours if value not in other]
        named = ", ".join(f"'{value}'" for value in extra[:3])
        more = f" and {len(extra) - 3} more" if len(extra) > 3 else ""
        return f"{format_count(len(ours), 'label')}" + (f" (only there: {named}{more})" if extra else "")
    return str(ours)


def _refuse_learned(trained: Sequence[Adapter], learned: Sequence[Dataset], name: str, rows: Dataset) -> None:
    """Refuse rows to measure on that an adapter was trained on, as far as that is known.

    Raises:
        InputError: one was.
    """
    for number, each in enumerate(trained):
        data = each.manifest.content["data"]
        n = len(rows) if rows.fingerprint == data["fingerprint"] or content_hash(rows) == data["train"] else 0
        where = ""
        if not n and learned:
            match = match_rows(rows, learned[number])
            n, where = int((match >= 0).sum()), f" ({describe_matches(rows, learned[number], match)})"
        if n:
            raise InputError(
                f"soup: no {name} row may be one that an adapter was trained on, because its score would be too good; "
                f"found {n} of {format_count(len(rows), 'row')} that {each.path} was trained on{where}; take "
                f"{'it' if n == 1 else 'them'} out"
            )


def _load_learned(trained: Sequence[Adapter], data: Sequence[Any]) -> list[Dataset]:
    """Return the rows that each adapter was trained on; none where none are given.

    Raises:
        InputError: there are more or fewer than adapters, or they are others.
    """
    if data and len(data) != len(trained):
        raise InputError(
            f"soup: data must be given once for each of the {len(trained)} adapters, in the same order, got {len(data)}"
        )
    return [find_learned_rows(each, load_rows(rows)) for each, rows in zip(trained, data, strict=False)]


def resolve_measuring(trained: Adapter, rows: Dataset, device: str | None) -> RunContext:
    """Return what measuring on some rows takes, as the adapter was trained."""
    metrics = trained.metrics
    stored = {**metrics["settings"], "early_stopping_patience": None, "eval_every": None}
    stored |= {"metric": None, "metric_limit": None}
    context = resolve_run(
        rows,
        model=name_classifier(metrics) if metrics["task"] == "classification" else metrics["model"]["name"],
        settings=replace(TrainSettings.read(stored).plain, device=device),  # no weights here
        seed=0,
        task=metrics["task"],
        labels=metrics["labels"],
    )
    # nothing is learned: all rows are measured on
    return replace(context, split=replace(context.split, held_out=sort_by_id(rows)))
