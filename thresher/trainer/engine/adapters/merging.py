"""Adapters of several data sets as one: their mean, or TIES and DARE as peft has them.

The update of each layer is the product of two matrices; TIES and DARE trim and weigh its entries,
so it is multiplied out, merged by peft's functions, and taken apart again by its singular values,
at the sum of the ranks. What else there is, such as a classifier's head, is averaged.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import load_file, save_file

from thresher.artifacts.disk_errors import writing_safetensors
from thresher.trainer.engine.average_adapters import CONFIG, DOWN, UP, WEIGHTS, average_adapters, compute_scale

Way = Literal["mean", "ties", "dare"]
WAYS: tuple[Way, ...] = get_args(Way)


def merge_adapters(folders: Sequence[Path], out: Path, *, way: Way, density: float, seed: int = 0) -> None:
    """Write a peft folder that merges several adapters of one base.

    Args:
        folders: peft folders, at least one.
        out: folder to make.
        way: "mean" of the updates, exactly; "ties" (Yadav et al. 2023, arXiv:2306.01708): the
            largest entries, and of those the ones of the sign that weighs more; "dare" (Yu et al.
            2024, arXiv:2311.03099): random entries, scaled up, then the same signs.
        density: share of the entries that ties and dare keep.
        seed: of the random entries.

    Raises:
        InputError: the adapters are of different bases or layers, or of a kind without a mean.
    """
    average_adapters(folders, out)
    if way == "mean" or len(folders) == 1:
        return
    from peft.utils.merge_utils import dare_ties, ties

    merge = ties if way == "ties" else dare_ties
    configs = [json.loads((folder / CONFIG).read_bytes()) for folder in folders]
    weights = [load_file(folder / WEIGHTS) for folder in folders]
    merged = load_file(out / WEIGHTS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name in [name for name in merged if name.endswith(UP)]:
            down = name.removesuffix(UP) + DOWN
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
