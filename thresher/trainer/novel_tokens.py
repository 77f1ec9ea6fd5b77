"""Tokens of answers that a model of good rows knows better than the base: what there is to learn.

Source: RHO-1 (Lin et al. 2024, arXiv:2404.07965): the loss of a token counts where the excess
log p_reference - log p_base is among the top share. There the tokens of a batch are ranked; here
those of all rows, once, before training. Cost: a pass of both models over the rows. Fails: where
the reference has learned other things than the rows teach.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from thresher.models.adapter_files import ADAPTER_CONFIG
from thresher.models.causal_lm.base_model import find_base
from thresher.models.chosen_logits import compute_chosen_logits
from thresher.models.token_batches import token_batches
from thresher.numeric.arrays import Float64
from thresher.trainer.engine.batches import CPU_PASS_TOKENS, pad_rows
from thresher.trainer.engine.fit import load_trained_model, load_untouched_model
from thresher.trainer.engine.row_choice.reference import find_reference
from thresher.trainer.engine.tokenization import IGNORED, Example, Examples

if TYPE_CHECKING:
    from thresher.trainer.context import RunContext

NOT_NOVEL = "no token of its answer is novel (--tokens novel)"


def keep_novel_tokens(context: RunContext, examples: Examples) -> Examples:
    """Return examples in which only the novel tokens of the answers are learned.

    Rows without any leave, and are counted.
    """
    settings = context.settings
    if settings.tokens == "all" or not examples.rows:
        return examples
    before = _measure_tokens(load_untouched_model(context), examples.rows, context)
    folder = find_reference(settings, context.base)
    if (folder / ADAPTER_CONFIG).is_file():
        reference = load_trained_model(context, folder)
    else:
        reference = load_untouched_model(replace(context, base=find_base(folder)))
    after = _measure_tokens(reference.to(context.accelerator.device), examples.rows, context)
    return choose_tokens(examples, after - before, settings.token_share)


def choose_tokens(examples: Examples, excess: Float64, share: float) -> Examples:
    """Return examples in which the tokens of the highest excess are learned, ties in order.

    Args:
        examples: m learned tokens in all.
        excess: (m,) of them, row by row.
        share: that is kept, at least one.
    """
    n_kept = max(1, round(share * len(excess)))
    is_kept = np.zeros(len(excess), np.bool_)
    is_kept[np.argsort(-excess, kind="stable")[:n_kept]] = True
    rows, position, start = [], [], 0
    for row, at in zip(examples.rows, examples.position, strict=True):
        own = is_kept[start : start + row.n_learned]
        start += row.n_learned
        if own.any():
            rows.append(replace(row, labels=_keep_labels(row.labels, own.tolist())))
            position.append(at)
    n_lost = len(examples) - len(rows)
    left_out = examples.left_out + Counter({NOT_NOVEL: n_lost} if n_lost else {})
    return replace(examples, rows=rows, position=position, left_out=left_out)


def _keep_labels(labels: Sequence[int], is_kept: Sequence[bool]) -> list[int]:
    """Return the labels of a row of which some predictions are learned no more."""
    kept = iter(is_kept)
    learned = [label if label != IGNORED and next(kept) else IGNORED for label in labels[1:]]
    return [labels[0], *learned]  # nothing predicts the first token


@torch.no_grad()
def _measure_tokens(model: Any, rows: Sequence[Example], context: RunContext) -> Float64:
    """Return log p of each learned token, row by row, (m,)."""
    device, pad_id = context.accelerator.device, context.tokenizer.pad_token_id
    values: list[Float64] = [np.zeros(0)] * len(rows)
    lengths = np.array([len(row.input_ids) for row in rows], dtype=np.int64)
    for piece in token_batches(lengths, CPU_PASS_TOKENS):
        batch = pad_rows([rows[i] for i in piece], pad_id=pad_id).to_device(device)
        targets = batch.labels[:, 1:]
        is_learned = targets != IGNORED
        with context.accelerator.autocast():
            logits = compute_chosen_logits(model, batch.inputs, torch.nn.functional.pad(is_learned, (0, 1)))
        log_p = logits.float().log_softmax(dim=-1).gather(1, targets[is_learned][:, None])[:, 0]
        ends = is_learned.sum(dim=1).cumsum(dim=0).cpu().numpy()
        for i, own in zip(piece, np.split(log_p.double().cpu().numpy(), ends[:-1]), strict=True):
            values[i] = own
    return np.concatenate(values)
