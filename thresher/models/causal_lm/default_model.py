"""Which language model runs where none is named, and the short names of those that come along."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

from thresher.errors import NotFoundError
from thresher.models.causal_lm.base_model import find_base, is_in_hub_cache
from thresher.models.causal_lm.embedded import EMBEDDED_NAME, SMOLLM2_NAME
from thresher.models.causal_lm.smollm2 import INSTALL, has_smollm2, is_unpacked

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
OnNote = Callable[[str], None]


def choose_model(on_note: OnNote | None = None) -> str:
    """Return the name of the language model that runs where none is named.

    SmolLM2-135M-Instruct from the package that carries it, or from the local cache of the Hub, or
    from the Hub; where none of them has it, the embedded toy.

    Args:
        on_note: told before something is downloaded, and that the toy runs; None warns.
    """
    tell = on_note or (lambda note: warnings.warn(note, stacklevel=3))
    if has_smollm2():
        if not is_unpacked():
            tell("model: none was named, so SmolLM2-135M-Instruct is used; it is unpacked into the cache once (270 MB)")
        return SMOLLM2_NAME
    if is_in_hub_cache(HUB_NAME):
        return HUB_NAME
    if not _is_offline() and not _find_problem.cache_info().currsize:
        tell(f"model: none was named, so {HUB_NAME} (270 MB) is downloaded from the Hub once")
    problem = _find_problem()
    if problem is None:
        return HUB_NAME
    tell(
        f"model: none was named, and SmolLM2-135M-Instruct is neither installed nor can it be fetched ({problem}); the "
        f"toy {EMBEDDED_NAME} of 5 million weights runs, whose scores mean little: install the model with '{INSTALL}', "
        f"or name one with --model"
    )
    return EMBEDDED_NAME


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@cache  # the network is tried once per process
def _find_problem() -> str | None:
    """Fetch the model, and return what kept it from coming, if anything."""
    if _is_offline():
        return "HF_HUB_OFFLINE is set"
    try:
        find_base(HUB_NAME)
    except NotFoundError as error:
        return str(error)
    return None
