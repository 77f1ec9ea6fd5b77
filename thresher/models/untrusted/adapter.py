"""adapter_config.json: kinds and sizes that its weights have, and patterns that end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from thresher.errors import InputError
from thresher.models.untrusted.client import LimitError, ask
from thresher.models.untrusted.folder import ModelFiles

SECONDS, MEGABYTES = 5, 256
FEW = 65_536
LARGEST = 10**6
# kinds that add tokens or load others: what they need is made before it can be refused
NO_LAYERS = {
    *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT", "XLORA"),
    *("CARTRIDGE", "TINYLORA_PROMPT"),
}
SEEDS = re.compile(r"seed|key|revision")
MAX_ITERATIONS = 64


def check_adapter_config(config: dict[str, Any], files: ModelFiles) -> None:
    """Refuse a configuration that no adapter with these weights has.

    Raises:
        InputError: it is of a kind that changes no layers, a size is larger than its weights, or it
            names code.
    """
    owner = files.owner
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind.upper() in NO_LAYERS:
        raise InputError(
            f"{owner}: an adapter must change layers (LoRA and its kin), got one that adds prompt tokens or other "
            f"adapters (peft_type {repr(kind)[:40]}); merge or choose another"
        )
    widest = files.weights.widest if kind.upper() == "LORA" and files.weights.shapes else FEW
    ranks = config.get("rank_pattern")
    for name, rank in [("r", config.get("r")), *(ranks.items() if isinstance(ranks, dict) else ())]:
        if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank <= widest):
            raise InputError(
                f"{owner}: the rank '{name[:40]}' of adapter_config.json must be from 0 to {widest}, as its weights "
                f"have it, got {repr(rank)[:40]}; get another copy of the adapter"
            )
    for name, value in _walk(config):
        is_size = isinstance(value, int) and not isinstance(value, bool) and not SEEDS.search(name)
        if is_size and abs(value) > LARGEST:
            raise InputError(
                f"{owner}: {name[:40]} of adapter_config.json must be at most {LARGEST}, got {str(value)[:40]}; "
                f"get another copy of the adapter"
            )
    _refuse_code(config, owner)
    _check_initialization(config, owner)


def _walk(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, name)
    else:
        yield name, value


def _refuse_code(config: dict[str, Any], owner: str) -> None:
    library = (config.get("auto_mapping") or {}).get("parent_library", "transformers")
    is_known = isinstance(library, str) and library.partition(".")[0] == "transformers"
    for name, is_bad in (
        ("megatron_config", config.get("megatron_config")),
        ("auto_mapping", not is_known),
        ("auto_map", config.get("auto_map")),
    ):
        if is_bad:
            raise InputError(
                f"{owner}: adapter_config.json must not name code, which is never run for a model, got {name} "
                f"{repr(config[name])[:80]}; remove it"
            )


def _check_initialization(config: dict[str, Any], owner: str) -> None:
    """Refuse beginnings of LoRA that take long; its weights replace most of them."""
    begin = config.get("init_lora_weights", True)
    n_iterations = re.fullmatch(r"pissa_niter_(\d+)", begin) if isinstance(begin, str) else None
    if n_iterations and (len(n_iterations[1]) > 3 or int(n_iterations[1]) > MAX_ITERATIONS):
        raise InputError(
            f"{owner}: init_lora_weights of adapter_config.json must take at most {MAX_ITERATIONS} iterations, got "
            f"'{begin[:40]}'; get another copy of the adapter"
        )
    if isinstance(begin, str) and begin.lower() in {"loftq", "eva", "corda", "lora_ga"}:
        raise InputError(
            f"{owner}: init_lora_weights of adapter_config.json must be one that needs no data, got '{begin}'; save "
            f"the adapter after its training, or set it to true"
        )
    replication = config.get("layer_replication")
    if replication:
        raise InputError(
            f"{owner}: layer_replication of adapter_config.json makes more layers than the base has, which is not "
            f"supported, got {repr(replication)[:80]}; merge the adapter into its base"
        )


def check_patterns(config: dict[str, Any], names: Iterable[str], *, owner: str) -> None:
    """Match every pattern of an adapter with the names of all modules, within a limit of time.

    Args:
        config: of the adapter.
        names: of the base model's modules.
        owner: whose it is, for messages.

    Raises:
        InputError: a pattern takes too long, or is none.
    """
    patterns = list(_list_patterns(config))
    if not patterns:
        return
    try:
        answer = ask("match", seconds=SECONDS, megabytes=MEGABYTES, patterns=patterns, names=list(names))
    except LimitError as error:
        raise InputError(
            f"{owner}: the patterns of adapter_config.json must find its layers within {SECONDS} s, and that {error}; "
            f"name the layers in a list"
        ) from None
    if "error" in answer:
        raise InputError(
            f"{owner}: the patterns of adapter_config.json must be regular expressions, got '{answer['message'][:100]}'"
            f"; name the layers in a list"
        )


def _list_patterns(config: dict[str, Any]) -> Iterator[str]:
    """Yield what peft matches with names, as it writes it around what the configuration says."""
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config.get(key), str):
            yield config[key]
    saved = config.get("modules_to_save")
    for name in saved if isinstance(saved, list) else ():
        yield rf"(^|.*\.){name}($|\..*)"
    patterns = config.get("layers_pattern")
    for name in [patterns] if isinstance(patterns, str) else patterns or ():
        yield rf"(?:^|.*?\.){name}\.(?P<idx>\d+)\."
    for key in ("rank_pattern", "alpha_pattern"):
        ranks = config.get(key)
        for name in ranks if isinstance(ranks, dict) else ():
            yield rf"(.*\.)?({name})$"
