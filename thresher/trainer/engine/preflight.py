"""Trials before training: does a model run with its adapter, keep rows apart, ignore padding?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from thresher.errors import InputError, SettingsError
from thresher.models.causal_lm.base_model import BaseModel, first_line
from thresher.models.precision import same_logits
from thresher.trainer.engine.batches import Collate, pack_rows, pad_rows
from thresher.trainer.engine.tokenization import Example

LENGTHS = (9, 6)  # of the rows that are tried; the longer one comes first in a pack
# Share of the largest logit by which padding may change one: rounding of 16 bits, edges of
# convolutions.
PADDING_SHARE = 0.05
FAILURES = (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)


def try_language_model(model: Any, *, base: BaseModel, device: Any, is_packed: bool) -> None:
    """Run a language model with its adapter on two short rows, alone and, if packed, together.

    Some layers cannot be adapted though they look as if they could, and some models carry a state
    from row to row or know no mask of pairs of tokens: their configurations do not tell.

    Args:
        model: with its adapter; it is left in evaluation mode.
        base: for messages.
        device: where the model lies.
        is_packed: rows will be packed.

    Raises:
        InputError: the model does not run with the adapter.
        SettingsError: packed rows are not read as they are alone.
    """
    n = int(model.config.get_text_config().vocab_size)
    ids = [
        [(7 * place + 3) % n for place in range(start, start + length)]
        for start, length in zip((0, 20), LENGTHS, strict=True)
    ]
    rows = [Example("", row, row) for row in ids]
    model.eval()
    with torch.inference_mode():
        try:
            alone = [model(**pad_rows([row], pad_id=0).to_device(device).inputs).logits[0] for row in rows]
        except FAILURES as error:
            raise InputError(
                f"model '{base.name}': does not run with LoRA on its layers ({first_line(error)}); "
                f"name others as lora_targets"
            ) from None
        if is_packed:
            _require_apart(model, rows, torch.cat(alone), device)


def try_classifier(model: Any, rows: Sequence[Example], *, base: BaseModel, collate: Collate, device: Any) -> None:
    """Run a classifier with its adapter on the shortest row, alone and padded to the longest.

    Some encoders (XLNet) classify by the last token, and are made for padding on the left.

    Args:
        model: with its adapter; it is left in evaluation mode.
        rows: of the training.
        base: for messages.
        collate: rows -> tensors.
        device: where the model lies.

    Raises:
        InputError: the model does not run with the adapter, or its answers depend on padding.
    """
    short, long = (choose(rows, key=lambda row: len(row.input_ids)) for choose in (min, max))
    model.eval()
    with torch.inference_mode():
        try:
            batches = (collate(each).to_device(device) for each in ([short], [short, long]))
            alone, padded = (model(**batch.inputs).logits[0] for batch in batches)
        except FAILURES as error:
            raise InputError(
                f"model '{base.name}': does not classify with LoRA on its layers ({first_line(error)}); choose another"
            ) from None
    if (alone - padded).abs().max() > PADDING_SHARE * alone.abs().max():
        raise InputError(
            f"model '{base.name}': classification needs an encoder whose answer does not depend on padding, and that "
            f"of '{model.config.model_type}' does; choose another"
        )


def _require_apart(model: Any, rows: list[Example], alone: torch.Tensor, device: Any) -> None:
    try:
        batch = pack_rows(rows, pad_id=0, max_length=sum(LENGTHS), dtype=model.dtype).to_device(device)
        packed = model(**batch.inputs).logits[0]
        reason = "rows see one another there"
        is_apart = same_logits(alone.float(), packed.float(), itemsize=model.dtype.itemsize)
    except FAILURES as error:
        reason, is_apart = first_line(error), False
    if not is_apart:
        raise SettingsError(
            f"train: packing needs a model that keeps rows apart, got {model.config.model_type} ({reason}); "
            f"leave it out"
        )
