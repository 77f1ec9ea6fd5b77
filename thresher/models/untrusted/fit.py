"""Whether a configuration fits the weights beside it, found without memory for the model."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from thresher.errors import InputError, first_three
from thresher.models.untrusted.weights import Weights, read_weights

PACKED = 8  # numbers of 4 bits in one of 32
SPARE = 1 << 26  # numbers beyond the weights: a new head, tables of positions


def check_size(folder: Path, kind: Any, *, owner: str, weights: Weights | None = None, **options: Any) -> None:
    """Refuse a configuration of a model that is much larger than its weights.

    transformers fills what the weights lack at random, and then compares.

    Args:
        folder: of the model.
        kind: class of transformers that is loaded, such as AutoModelForCausalLM.
        owner: whose folder it is, for messages.
        weights: of the model; None for those in the folder.
        options: for its configuration.

    Raises:
        InputError: it is much larger.
    """
    import torch
    from transformers import AutoConfig

    weights = read_weights(sorted(folder.glob("*.safetensors")), owner=owner) if weights is None else weights
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
    with torch.device("meta"):
        model = kind.from_config(config, trust_remote_code=False)
    n_numbers = sum(tensor.numel() for part in (model.parameters(), model.buffers()) for tensor in part)
    allowed = PACKED * weights.n_numbers + SPARE
    if n_numbers > allowed:
        raise InputError(
            f"{owner}: its configuration must fit its weights, which have {weights.n_numbers:,} numbers, "
            f"and it describes a model of {n_numbers:,}; get another copy of the model"
        )


def check_complete(folder: Path, kind: Any, *, owner: str, optional: Collection[str] = ()) -> None:
    """Refuse weights that are not whole: transformers draws at random what it does not find.

    Args:
        folder: of the model.
        kind: class of transformers that is loaded.
        owner: whose folder it is, for messages.
        optional: names of layers that may be missing.

    Raises:
        InputError: some are missing.
    """
    _, report = kind.from_pretrained(
        folder,
        device_map="meta",
        output_loading_info=True,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    refuse_missing(report["missing_keys"], owner=owner, optional=optional)


def refuse_missing(names: Iterable[str], *, owner: str, optional: Collection[str] = ()) -> None:
    """Refuse a model that lacks weights, but for those of optional layers.

    Raises:
        InputError: some are missing.
    """
    missing = sorted(name for name in names if not set(name.split(".")) & set(optional))
    if missing:
        raise InputError(
            f"{owner}: its weights must be complete, missing are {first_three(missing)}; take the whole checkpoint"
        )
