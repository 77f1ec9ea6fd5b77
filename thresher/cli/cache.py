"""`thresher cache`: what the feature cache holds, and making room."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from thresher.cli.command import App
from thresher.cli.output import print_json, print_line
from thresher.errors import InputError
from thresher.numeric.units import format_bytes

cache_app = App(help="Show the cache of computed features, or free space in it.", invoke_without_command=True)


@cache_app.callback()
def show(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False
) -> None:
    """Show the cache of computed features, or free space in it."""
    if context.invoked_subcommand is not None:
        return
    from thresher.features import FeatureCache
    from thresher.features.container import current_name

    cache = FeatureCache()
    entries = [replace(entry, feature=current_name(entry.feature)) for entry in cache.entries()]
    kinds = _measure_kinds()
    if as_json:
        import dataclasses

        content = {
            "root": str(cache.root),
            "entries": [dataclasses.asdict(entry) for entry in entries],
            **{name: {"n": n, "bytes": size} for name, (n, size, _) in kinds.items()},
        }
        print_json(content)
        return
    total = sum(entry.bytes for entry in entries)
    print_line(f"{cache.root}: {len(entries)} models, {format_bytes(total)} of at most {format_bytes(cache.max_bytes)}")
    width = max((len(entry.feature) for entry in entries), default=0)
    for entry in entries:
        print_line(
            f"  {entry.feature:<{width}} {entry.model:<28} {entry.n_rows:>12,} rows  {format_bytes(entry.bytes):>9}  "
            f"last used {entry.last_used:%Y-%m-%d %H:%M}"
        )
    for n, size, what in kinds.values():
        print_line(f"{n:,} {what}, {format_bytes(size)}")


def _measure_kinds() -> dict[str, tuple[int, int, str]]:
    """Return number, bytes and description of what the cache holds besides features, by name."""
    from thresher.artifacts.remote.copies import measure_copies
    from thresher.cache.array_folders import get_graph_cache
    from thresher.experiments.cells.cache import CellCache
    from thresher.jobs.update.adapter_gate import get_gate_cache
    from thresher.models.causal_lm.smollm2 import get_model_cache
    from thresher.selection.pool_adapters import get_adapter_cache
    from thresher.trainer.untouched.base_cache import get_base_cache

    return {
        "cells": (*CellCache().size(), "finished cells of experiments"),
        "trained": (*get_adapter_cache().size(), "adapters trained for methods"),
        "base": (*get_base_cache().size(), "measurements of untouched models"),
        "gates": (*get_gate_cache().size(), "adapters trained for job gates"),
        "models": (*get_model_cache().size(), "unpacked language models"),
        "graphs": (*get_graph_cache().size(), "neighbor graphs and rankings of pools"),
        "copies": (*measure_copies(), "copies of remote files"),
    }


@cache_app.command()
def prune(
    max_gb: Annotated[
        float | None, typer.Option(help="Keep at most this much, most recently used first.", min=0)
    ] = None,
    older_than_days: Annotated[
        float | None, typer.Option(help="Delete everything not used for this long.", min=0)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete everything.")] = False,
) -> None:
    """Delete cached features, cells, adapters, models, graphs and copies; rebuilt when needed.

    The limit holds for each of the eight.

    Raises:
        InputError: not exactly one of the options was given.
    """
    from thresher.artifacts.remote.copies import prune_copies
    from thresher.cache.array_folders import get_graph_cache
    from thresher.experiments.cells.cache import CellCache
    from thresher.features import FeatureCache
    from thresher.jobs.update.adapter_gate import get_gate_cache
    from thresher.models.causal_lm.smollm2 import get_model_cache
    from thresher.selection.pool_adapters import get_adapter_cache
    from thresher.trainer.untouched.base_cache import get_base_cache

    if sum((max_gb is not None, older_than_days is not None, everything)) != 1:
        raise InputError("cache prune: needs exactly one of --max-gb, --older-than-days and --all")
    max_bytes = 0 if everything else None if max_gb is None else int(max_gb * 1e9)
    freed = FeatureCache().prune(max_bytes=max_bytes, older_than_days=older_than_days)
    freed += CellCache().prune(max_bytes=max_bytes, older_than_days=older_than_days)
    freed += get_adapter_cache().prune(max_bytes=max_bytes, older_than_days=older_than_days)
    freed += get_base_cache().prune(max_bytes=max_bytes, older_than_days=older_than_days)
    freed += get_gate_cache().prune(max_bytes=max_bytes, older_than_days=older_than_days)
    freed += get_model_cache().prune(max_bytes=max_bytes, older_than_days=older_than_days)
    freed += get_graph_cache().prune(max_bytes=max_bytes, older_than_days=older_than_days)
    freed += prune_copies(max_bytes=max_bytes, older_than_days=older_than_days)
    print_line(f"freed {format_bytes(freed)}")
