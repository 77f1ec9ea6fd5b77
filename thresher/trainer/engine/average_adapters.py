"""The mean of several adapters of one base model, as one adapter.

The mean of low-rank updates is itself a low-rank update, whose rank is at most the sum of theirs:
sum_i w s_i B_i A_i = [w s_1 B_1, w s_2 B_2, ...] [A_1; A_2; ...] with w = 1 / m and s_i the scale
of adapter i. Averaging the A_i and the B_i apart would give other products. Layers that were
trained whole, such as a classifier's head, are averaged weight by weight (as in "model soups",
Wortsman et al. 2022, arXiv:2203.05482).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from thresher.artifacts.disk_errors import writing_safetensors
from thresher.artifacts.folder import write_atomic
from thresher.errors import InputError
from thresher.trainer.engine.pooled_classifier import HEAD_CONFIG, HEAD_WEIGHTS, has_head, read_head_config

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SAME = ("base_model_name_or_path", "revision", "task_type", "peft_type", "target_modules", "modules_to_save")
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
# of an embedding, whose update is the transpose of the same product
PAIRS = {UP: DOWN, ".lora_embedding_B": ".lora_embedding_A"}


def average_adapters(folders: Sequence[Path], out: Path) -> None:
    """Write a peft folder that computes exactly the mean of the updates of several adapters.

    Args:
        folders: peft folders of adapters on one base, at least one.
        out: folder to make.

    Raises:
        InputError: the adapters are of different bases or layers, or of a kind whose mean is no
            adapter.
    """
    require_mergeable(folders, caller="average_adapters")
    configs = [json.loads((folder / CONFIG).read_bytes()) for folder in folders]
    weights = [load_file(folder / WEIGHTS) for folder in folders]
    share = 1 / len(folders)
    merged: dict[str, torch.Tensor] = {}
    for name in weights[0]:
        tensors = [each[name] for each in weights]
        if name.endswith(tuple(PAIRS.values())):
            merged[name] = torch.cat(tensors, dim=0)  # (sum of ranks, n_in)
        elif name.endswith(tuple(PAIRS)):
            scaled = [share * compute_scale(config) * tensor for config, tensor in zip(configs, tensors, strict=True)]
            merged[name] = torch.cat(scaled, dim=1)  # (n_out, sum of ranks)
        else:
            merged[name] = torch.stack([tensor.float() for tensor in tensors]).mean(0).to(tensors[0].dtype)
    rank = sum(int(config["r"]) for config in configs)
    # the scales are in the matrices now
    config = {**configs[0], "r": rank, "lora_alpha": rank, "use_rslora": False}
    out.mkdir(parents=True)
    whole = {name: tensor.contiguous() for name, tensor in merged.items()}
    with writing_safetensors(out):
        save_file(whole, out / WEIGHTS, metadata={"format": "pt"})
    write_atomic(out / CONFIG, json.dumps(config, indent=2, sort_keys=True).encode() + b"\n")
    if has_head(folders[0]):
        heads = [load_file(folder / HEAD_WEIGHTS) for folder in folders]
        mean = {name: torch.stack([head[name] for head in heads]).mean(0) for name in heads[0]}
        save_file(mean, out / HEAD_WEIGHTS, metadata={"format": "pt"})
        write_atomic(out / HEAD_CONFIG, (folders[0] / HEAD_CONFIG).read_bytes())


def find_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names of the matrices of each layer, up and down, whose product is its update."""
    known = list(names)
    return [(name, name.removesuffix(up) + down) for up, down in PAIRS.items() for name in known if name.endswith(up)]


def compute_scale(config: Mapping[str, Any]) -> float:
    """Return what the product of the two matrices is multiplied by."""
    rank = int(config["r"])
    return float(config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def require_mergeable(folders: Sequence[Path], *, caller: str) -> None:
    """Refuse adapters that have no common mean.

    Args:
        folders: peft folders of adapters.
        caller: what the messages start with.

    Raises:
        InputError: as for `average_adapters`.
    """
    if not folders:
        raise InputError(f"{caller}: needs at least one adapter, got none")
    configs = [json.loads((folder / CONFIG).read_bytes()) for folder in folders]
    _require_alike(folders, configs, caller)
    _require_same_layers(folders, caller)
    _require_same_heads(folders, caller)


def _require_same_layers(folders: Sequence[Path], caller: str) -> None:
    """Refuse adapters of other layers: the target modules may be the same names in some of them."""
    names = []
    for folder in folders:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            names.append(set(file.keys()))
        if names[-1] != names[0]:
            raise InputError(
                f"{caller}: all adapters must have the same layers, got {len(names[0]):,} matrices in "
                f"{folders[0].name} and {len(names[-1]):,} in {folder.name}; train them with the same --lora-layers"
            )


def _require_alike(folders: Sequence[Path], configs: Sequence[Mapping[str, Any]], caller: str) -> None:
    for folder, config in zip(folders, configs, strict=True):
        for name in SAME:
            if _sort_lists(config.get(name)) != _sort_lists(configs[0].get(name)):
                raise InputError(
                    f"{caller}: all adapters must have the same {name}, got {configs[0].get(name)} in "
                    f"{folders[0].name} and {config.get(name)} in {folder.name}; average adapters of one base"
                )
        if config.get("use_dora") or config.get("rank_pattern") or config.get("alpha_pattern"):
            raise InputError(
                f"{caller}: needs plain low-rank adapters, found one with DoRA or ranks per layer in "
                f"{folder.name}; train it without them"
            )


def _require_same_heads(folders: Sequence[Path], caller: str) -> None:
    heads = [read_head_config(folder) if has_head(folder) else None for folder in folders]
    for folder, head in zip(folders, heads, strict=True):
        if head != heads[0]:
            raise InputError(
                f"{caller}: all adapters must have heads of the same pooling and labels, got others in "
                f"{folders[0].name} and {folder.name}; train them alike"
            )


def _sort_lists(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value
