"""How an encoder's token states become one vector of a text: what it was trained for, and how.

The formulas and the names are those of sentence-transformers (`1_Pooling/config.json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from thresher.errors import InputError
from thresher.models.causal_lm.base_model import BaseModel
from thresher.models.untrusted.encoder import MODULES, read_modules
from thresher.models.untrusted.folder import read_json

# keys of pooling configurations that name no mode, in the order in which sentence-transformers
# joins the vectors
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
MODES = tuple(FLAGS.values())
AUTO, OWN_HEAD = "auto", "head"
# of encoders that were trained to fill in masked words (docs/train.md), and of decoders
ENCODER_FALLBACK, DECODER_FALLBACK = "mean", "lasttoken"
CONFIG = "config.json"


@dataclass(frozen=True)
class Pooling:
    """How token states become one vector.

    Attributes:
        modes: of MODES; the vectors of several are joined.
        is_normalized: the vector is divided by its norm, as models with a Normalize module do.
    """

    modes: tuple[str, ...]
    is_normalized: bool = False

    def apply(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (n, modes * d) float32 vectors of (n, t, d) states; (n, t) mask, 1 for tokens."""
        states, is_token = states.float(), mask[:, :, None].float()
        pooled = torch.cat([POOL[mode](states, is_token) for mode in self.modes], dim=-1)
        return torch.nn.functional.normalize(pooled, dim=-1) if self.is_normalized else pooled


def _take_first(states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
    return _take(states, is_token.argmax(dim=1))


def _take_last(states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
    return _take(states, states.shape[1] - 1 - is_token.flip(1).argmax(dim=1))


def _take(states: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return the states at one place per row: (n, t, d), (n, 1) -> (n, d)."""
    return states.gather(1, place[:, :, None].expand(-1, 1, states.shape[-1])).squeeze(1)


def _take_largest(states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
    return states.masked_fill(is_token == 0, float("-inf")).max(dim=1).values


def _average(states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
    return (states * is_token).sum(1) / is_token.sum(1).clamp(min=1)


def _average_by_root(states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
    return (states * is_token).sum(1) / is_token.sum(1).clamp(min=1).sqrt()


def _average_by_place(states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
    weight = is_token * is_token.cumsum(1)  # 1 for the first token, 2 for the next, 0 for padding
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1)


POOL = {
    "cls": _take_first,
    "max": _take_largest,
    "mean": _average,
    "mean_sqrt_len_tokens": _average_by_root,
    "weightedmean": _average_by_place,
    "lasttoken": _take_last,
}


def choose_pooling(base: BaseModel, asked: str = AUTO) -> Pooling | None:
    """Return the pooling that a classifier on this base reads, or None for the base's own head.

    "auto" is, in this order: the Pooling (and Normalize) of sentence-transformers' `modules.json`;
    the own head of a model whose configuration has `classifier_pooling` (ModernBERT) or that was
    trained to classify; the mean for encoders that were trained to fill in masked words; the last
    token for decoders; the own head of everything else.

    Args:
        base: found by `find_base`.
        asked: "auto", "head", or one of MODES.

    Raises:
        InputError: the files that say it are damaged or name a pooling that is not known.
    """
    if asked == OWN_HEAD:
        return None
    trained = _read_modules(base)
    if asked != AUTO:
        return Pooling((asked,), trained is not None and trained.is_normalized)
    if trained is not None:
        return trained
    fallback = _choose_fallback(read_json(base.folder / CONFIG, owner=f"model '{base.name}'"))
    return None if fallback is None else Pooling((fallback,))


def _choose_fallback(config: Mapping[str, Any]) -> str | None:
    """Return the pooling of a model whose publisher names none, or None for its own head."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    made_for, kind = config.get("architectures") or [""], config.get("model_type")
    is_classifier = "classifier_pooling" in config or str(made_for[0]).endswith("ForSequenceClassification")
    if is_classifier or config.get("is_encoder_decoder", False):
        return None
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder", False):
        return ENCODER_FALLBACK
    return DECODER_FALLBACK if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES else None


def _read_modules(base: BaseModel) -> Pooling | None:
    """Return the pooling of sentence-transformers' files, or None where they name none."""
    if not (base.folder / MODULES).is_file():
        return None
    owner = f"model '{base.name}'"
    modules = [(kind.rpartition(".")[2], path) for kind, path in read_modules(base.folder, owner=owner)]
    places = [path for kind, path in modules if kind == "Pooling"]
    if not places:
        return None
    path = base.folder / places[0] / CONFIG
    if not path.is_file():
        raise InputError(f"{owner}: {MODULES} names {places[0]}/{CONFIG}, found no such file; copy the model again")
    config = read_json(path, owner=owner)
    named = config.get("pooling_mode")
    if named is None:
        modes = tuple(mode for flag, mode in FLAGS.items() if config.get(flag)) or ("mean",)
    else:
        modes = tuple(map(str, named)) if isinstance(named, list) else (str(named),)
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise InputError(
            f"{owner}: the pooling in {places[0]}/{CONFIG} must be of {', '.join(MODES)}, got "
            f"'{(unknown or [''])[0][:80]}'; name one with --pooling"
        )
    return Pooling(modes, any(kind == "Normalize" for kind, _ in modules))
