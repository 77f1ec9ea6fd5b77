"""Texts that a tuned model writes and its base does not: what an adapter learned, its rows gone.

Each token is drawn from p ~ p_tuned (p_tuned / p_base)^gamma among the tokens that the tuned model
finds plausible: of at least `cut` times the probability of its likeliest one. Source: contrastive
decoding (Li et al. 2023, arXiv:2210.15097), here of a tuned model against its base. Cost: two
forward passes per token. Fails: an adapter that learned little writes what its base writes; what it
writes resembles its rows, and is none of them for sure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from thresher.errors import InputError
from thresher.trainer.deployment.settings import ContrastSettings

if TYPE_CHECKING:
    import torch

    from thresher.models.causal_lm.language_model import LanguageModel
    from thresher.models.causal_lm.template_text import Message


def contrast_probabilities(tuned: torch.Tensor, base: torch.Tensor, *, gamma: float, cut: float) -> torch.Tensor:
    """Return what each next token is drawn with, (b, v) float64, rows sum to 1.

    Args:
        tuned: (b, v) logits of the tuned model.
        base: (b, v) of its base.
        gamma: how much the contrast counts; 0 draws from the tuned model.
        cut: share of the tuned model's largest probability below which no token is drawn.
    """
    import math

    after, before = (each.double().log_softmax(dim=-1) for each in (tuned, base))
    least = after.max(dim=-1, keepdim=True).values + (math.log(cut) if cut else -math.inf)
    scores = (after + gamma * (after - before)).masked_fill(after < least, -math.inf)
    probabilities: torch.Tensor = scores.softmax(dim=-1)
    return probabilities


def write_contrast(folder: Path, metrics: Mapping[str, Any], settings: ContrastSettings) -> pl.DataFrame:
    """Return texts of an adapter's model, the most telling first.

    Args:
        folder: of the adapter.
        metrics: content of its `metrics.json`.
        settings: of the call.

    Returns:
        (write, 3): `text`, `excess` (mean log p_tuned - log p_base of its tokens, in nats), and
        `tokens`.

    Raises:
        InputError: the adapter is a classifier's, which writes nothing.
        NotFoundError: its base is not there, or cannot be reached.
    """
    from thresher.models.causal_lm.language_model import language_model
    from thresher.trainer.deployment.predict import name_sides

    if metrics["task"] == "classification":
        raise InputError(f"novelty: a classifier writes no texts, got {folder}; give the adapter of a language model")
    names = name_sides(folder, metrics)
    sides = {side: language_model(name, device=settings.device, dtype=None) for side, name in names.items()}
    prompt = _build_prompt(sides["adapter"], settings.prompt, str(metrics["task"]))
    tokens, excess = _draw(sides, prompt, settings)
    tokenizer = sides["adapter"].tokenizer
    table = pl.DataFrame(
        {
            "text": [tokenizer.decode(own, skip_special_tokens=True).strip() for own in tokens],
            "excess": [float(np.mean(own)) if own else 0.0 for own in excess],
            "tokens": [len(own) for own in tokens],
        },
        schema={"text": pl.String, "excess": pl.Float64, "tokens": pl.Int64},
    )
    return table.sort("excess", descending=True, maintain_order=True)


def _build_prompt(lm: LanguageModel, text: str, task: str) -> list[int]:
    """Return the tokens that are written behind, at least one."""
    from thresher.models.causal_lm.chat_template import render_prompt, start_tokens

    if task == "sft":
        turns: list[Message] = [{"role": "user", "content": text}, {"role": "assistant", "content": ""}]
        ids = lm.tokenizer(render_prompt(lm.tokenizer, turns, None), add_special_tokens=False)["input_ids"]
        return [*start_tokens(lm.tokenizer, ids, is_asked=False), *ids]
    own = lm.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    ids = [*start_tokens(lm.tokenizer, own, is_asked=True), *own]
    return ids or [
        int(lm.tokenizer.bos_token_id if lm.tokenizer.bos_token_id is not None else lm.tokenizer.eos_token_id)
    ]


def _draw(
    sides: Mapping[str, LanguageModel], prompt: Sequence[int], settings: ContrastSettings
) -> tuple[list[list[int]], list[list[float]]]:
    """Return the tokens of each text, and the log-ratio of both models for each of them."""
    import torch

    from thresher.models.causal_lm.chat_template import turn_end_ids
    from thresher.models.precision import inference

    tuned, base = sides["adapter"], sides["base"]
    device, n = tuned.device, settings.write
    ends = {tuned.tokenizer.eos_token_id, tuned.tokenizer.pad_token_id, *turn_end_ids(tuned.tokenizer)}
    stops = {int(token) for token in ends if token is not None}
    generator = torch.Generator().manual_seed(settings.seed)
    ids = torch.tensor([list(prompt)] * n, device=device)
    tokens: list[list[int]] = [[] for _ in range(n)]
    excess: list[list[float]] = [[] for _ in range(n)]
    is_open = [True] * n
    with inference(f"{n} texts"):
        for _ in range(settings.max_new_tokens):
            after, before = (lm.model(input_ids=ids).logits[:, -1].cpu() for lm in (tuned, base))
            p = contrast_probabilities(after, before, gamma=settings.gamma, cut=settings.cut)
            drawn = torch.multinomial(p, 1, generator=generator)
            ratio = after.double().log_softmax(dim=-1) - before.double().log_softmax(dim=-1)
            for row, token in enumerate(drawn[:, 0].tolist()):
                is_open[row] = is_open[row] and token not in stops
                if is_open[row]:
                    tokens[row].append(token)
                    excess[row].append(float(ratio[row, token]))
            if not any(is_open):
                break
            ids = torch.cat([ids, drawn.to(device)], dim=1)
    return tokens, excess
