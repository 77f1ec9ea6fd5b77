"""Adapters of several data sets as one: their mean, TIES and DARE as peft has them, or RegMean.

The update of each layer is the product of two matrices; TIES and DARE trim and weigh its entries,
so it is multiplied out, merged by peft's functions, and taken apart again by its singular values,
at the sum of the ranks. What else there is, such as a classifier's head, is averaged, and so are
the updates of embeddings by RegMean, which read no vectors.

RegMean (Jin et al. 2023, arXiv:2212.09849) gives each layer the outputs that the adapters gave it
on their own rows, as far as one matrix can: with the second moments G_i of what a layer reads of
the rows of adapter i, the least squares solution is sum_i D_i G_i (sum_i G_i)^-1 for the updates
D_i = s_i B_i A_i. It is exact at the sum of the ranks: [s_1 B_1, ...] [A_1 G_1 G^-1; ...].
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import load_file, save_file

from thresher.artifacts.disk_errors import writing_safetensors
from thresher.trainer.engine.adapters.kinds import Way
from thresher.trainer.engine.average_adapters import (
    CONFIG,
    DOWN,
    UP,
    WEIGHTS,
    average_adapters,
    compute_scale,
    find_pairs,
)

WAYS: tuple[Way, ...] = get_args(Way)
ALPHA = 0.9  # of RegMean: what moments between two inputs count, as in its paper


def merge_adapters(
    folders: Sequence[Path],
    out: Path,
    *,
    way: Way,
    density: float,
    seed: int = 0,
    moments: Sequence[Mapping[str, torch.Tensor]] | None = None,
) -> None:
    """Write a peft folder that merges several adapters of one base.

    Args:
        folders: peft folders, at least one.
        out: folder to make.
        way: "mean" of the updates, exactly; "ties" (Yadav et al. 2023, arXiv:2306.01708): the
            largest entries, and of those the ones of the sign that weighs more; "dare" (Yu et al.
            2024, arXiv:2311.03099): random entries, scaled up, then the same signs; "regmean".
        density: share of the entries that ties and dare keep.
        seed: of the random entries.
        moments: of regmean: of each adapter, the second moments of what each layer reads of its
            rows, (n_in, n_in), by the name of the layer.

    Raises:
        InputError: the adapters are of different bases or layers, or of a kind without a mean.
    """
    average_adapters(folders, out)
    if way == "mean" or len(folders) == 1:
        return
    if way == "regmean":
        if moments is None:
            raise AssertionError("regmean needs what the layers read")
        _merge_by_regression(folders, out, moments)
        return
    from peft.utils.merge_utils import dare_ties, ties

    merge = ties if way == "ties" else dare_ties
    configs = [json.loads((folder / CONFIG).read_bytes()) for folder in folders]
    weights = [load_file(folder / WEIGHTS) for folder in folders]
    merged = load_file(out / WEIGHTS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, down in find_pairs(merged):
            updates = [
                compute_scale(config) * (each[name].float() @ each[down].float())
                for config, each in zip(configs, weights, strict=True)
            ]
            update = merge(updates, torch.ones(len(updates)), density)
            u, s, v = torch.linalg.svd(update, full_matrices=False)
            rank = merged[down].shape[0]
            u, s, v = u[:, :rank], s[:rank].sqrt(), v[:rank]
            # of layers smaller than the sum of the ranks, the rest is zero
            merged[name] = torch.zeros_like(merged[name])
            merged[name][:, : len(s)] = (u * s).to(merged[name].dtype)
            merged[down] = torch.zeros_like(merged[down])
            merged[down][: len(s)] = (s[:, None] * v).to(merged[down].dtype)
    with writing_safetensors(out):
        save_file({name: each.contiguous() for name, each in merged.items()}, out / WEIGHTS, metadata={"format": "pt"})


def _merge_by_regression(folders: Sequence[Path], out: Path, moments: Sequence[Mapping[str, torch.Tensor]]) -> None:
    """Replace the mean of adapters in a folder by their least squares solution.

    The mean holds all A_i one below the other, and s_i B_i / m side by side.
    """
    merged = load_file(out / WEIGHTS)
    ranks = [int(json.loads((folder / CONFIG).read_bytes())["r"]) for folder in folders]
    for up in [name for name in merged if name.endswith(UP)]:
        down = up.removesuffix(UP) + DOWN
        grams = [_shrink(_find_moments(own, up.removesuffix(UP))) for own in moments]
        total = torch.stack(grams).sum(0)
        total += (
            torch.eye(len(total), dtype=total.dtype)
            * total.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
            * 1e-6
        )
        parts = merged[down].double().split(ranks)
        solved = [torch.linalg.solve(total, gram @ part.T).T for gram, part in zip(grams, parts, strict=True)]
        merged[down] = torch.cat(solved).to(merged[down].dtype)
        merged[up] = merged[up] * len(folders)
    with writing_safetensors(out):
        save_file({name: each.contiguous() for name, each in merged.items()}, out / WEIGHTS, metadata={"format": "pt"})


def _shrink(moments: torch.Tensor) -> torch.Tensor:
    """Return moments whose entries beside the diagonal count less, in doubles.

    They are sums over tokens, as in the paper: longer rows or larger inputs count more.
    """
    exact = moments.double()
    return ALPHA * exact + (1 - ALPHA) * torch.diag(exact.diagonal())


def _find_moments(moments: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """Return those of a layer, whose name in the model may have more in front."""
    return next(value for own, value in moments.items() if f".{own}".endswith(f".{name}"))
