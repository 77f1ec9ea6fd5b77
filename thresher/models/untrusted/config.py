"""config.json: sizes that its weights can have, and nothing that is code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from thresher.errors import InputError
from thresher.models.untrusted.folder import SAFE, ModelFiles, is_plain_name

# Sizes of the model by their names: what there is one module of each, other counts, and widths of
# matrices.
LAYERS, EXPERTS = re.compile(r"layers?$"), re.compile(r"experts?$")
COUNT = re.compile(r"^(num|n)_|heads?$|depth$")
WIDTH = re.compile(r"(size|dim|rank|width|channels)$|^d_|^n_(inner|embd)$")
# ... and names that look like such and say how far or how long something reaches
REACH = re.compile(
    r"position|length|ctx|window|chunk|context|token|step|image|patch|beam|return|bucket|frame|sample|_max_layers"
)
LARGEST = {"reach": 10**9, "value": 2**63}
MOST_LAYERS, MOST_EXPERTS = 1000, 65_536  # the second of all layers together
FEW, WIDE = 128, 65_536  # which any model may have, whatever its weights
PACKED = 8  # numbers of 4 bits in one of 32
LABELS = ("id2label", "label2id")  # names that the model gives its outputs
REQUIRED_WHOLE = ("vocab_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "n_positions")


def check_config(config: dict[str, Any], files: ModelFiles) -> None:
    """Refuse a configuration that no model with these weights has.

    Sizes that its weights do not show would be made as modules, and filled at random, before anyone
    compares them with the weights.

    Raises:
        InputError: a size is negative, no whole number or larger than the weights allow, or the
            configuration names code or weights elsewhere.
    """
    owner, weights = files.owner, files.weights
    limits = {
        "layers": min(max(FEW, len(weights.shapes)), MOST_LAYERS),
        "experts": max(FEW, len(weights.shapes), *(shape[0] for shape in weights.shapes.values() if len(shape) == 3)),
        "count": max(FEW, len(weights.shapes), weights.widest),
        "width": max(WIDE, PACKED * weights.widest),
        **LARGEST,
    }
    for path, value in _walk(config):
        key = path.rpartition(".")[2]
        if key in REQUIRED_WHOLE and isinstance(value, str | float | bool):
            raise InputError(
                f"{owner}: {path} of config.json must be a whole number, got {repr(value)[:80]}; correct it"
            )
        if isinstance(value, int) and not isinstance(value, bool):
            kind = _classify(key)
            if value > limits[kind] or (value < -1 and kind != "value"):
                raise InputError(
                    f"{owner}: {path} of config.json must be from 0 to {limits[kind]}, as its weights have it, got "
                    f"{str(value)[:40]}; get another copy of the model"
                )
    if not isinstance(config.get("model_type"), str | None):
        raise InputError(
            f"{owner}: model_type of config.json must be a text, got {repr(config['model_type'])[:80]}; fix it"
        )
    _check_experts(config, owner)
    _refuse_code(config, owner)


def _check_experts(config: dict[str, Any], owner: str) -> None:
    """Refuse more modules than the experts of all layers together can be."""
    sizes = {path.rpartition(".")[2]: value for path, value in _walk(config) if isinstance(value, int)}
    n_layers = max((value for key, value in sizes.items() if _classify(key) == "layers"), default=1)
    n_experts = max((value for key, value in sizes.items() if _classify(key) == "experts"), default=1)
    if n_layers * n_experts > MOST_EXPERTS:
        raise InputError(
            f"{owner}: config.json must have at most {MOST_EXPERTS} experts in all layers, got {n_layers} layers of "
            f"{n_experts}; get another copy of the model"
        )


def _classify(key: str) -> str:
    if REACH.search(key):
        return "reach" if not key.endswith("_id") else "value"
    kinds = {"layers": LAYERS, "experts": EXPERTS, "count": COUNT, "width": WIDTH}
    return next((kind for kind, pattern in kinds.items() if pattern.search(key)), "value")


def _walk(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path of each value; lists share the path of their own. Depth is limited."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key in LABELS:
                continue
            yield from _walk(value, f"{path}.{key}" if path else str(key))
    elif isinstance(config, list):
        for value in config:
            yield from _walk(value, path)
    else:
        yield path, config


def _refuse_code(config: dict[str, Any], owner: str) -> None:
    """Refuse what would fetch code: kernels of the Hub are named as implementations."""
    for path, value in _walk(config):
        key = path.rpartition(".")[2]
        if "implementation" in path and isinstance(value, str) and ("/" in value or ":" in value):
            raise InputError(
                f"{owner}: {path} of config.json must be one of transformers, got {repr(value)[:80]}: code of "
                f"others is never run; remove it"
            )
        if key == "transformers_weights" and not (isinstance(value, str) and is_plain_name(value)):
            raise InputError(
                f"{owner}: {path} of config.json must name a file of its own folder that ends in {SAFE}, got "
                f"{repr(value)[:80]}; remove it"
            )
