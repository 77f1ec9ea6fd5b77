"""How the embedded language model is trained: packed windows, optimizers, and a run that resumes.

Weights are kept in float32, matrix products run in bfloat16 (an AMX core does those eight times
faster). Hidden matrices are updated by Muon (Jordan 2024, kellerjordan.github.io/posts/muon; step
sizes as in Liu et al. 2025, arXiv:2502.16982), the rest by AdamW. The rate is warmed up, constant,
then falls linearly to zero.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from causal_lm_corpus import Packed
from torch.nn.functional import cross_entropy, linear
from transformers import LlamaForCausalLM

SEED = 20_261_121
IGNORED = -100
N_MEASURED = 7  # batches: the loss on the way is a sign, bits per byte are measured afterwards
Loss = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the weights are learned.

    Attributes:
        steps: optimizer steps.
        batch_tokens: tokens of one forward pass, in windows of one length.
        accumulation: forward passes per step.
        muon_rate: peak rate of the hidden matrices, on the scale of AdamW.
        adam_rate: peak rate of the embedding and the norms.
        warmup_steps: steps of rising rate.
        decay_share: last share of the steps, in which the rate falls to zero.
    """

    steps: int = 1_100
    batch_tokens: int = 4_096
    accumulation: int = 4
    muon_rate: float = 4e-3
    adam_rate: float = 4e-3
    warmup_steps: int = 40
    decay_share: float = 0.6
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0

    def rate_share(self, step: int) -> float:
        """Return the share of the peak rate at a step."""
        left = (self.steps - step) / (self.decay_share * self.steps)
        return min((step + 1) / self.warmup_steps, left, 1.0)

    def is_continuation(self, other: Recipe, step: int) -> bool:
        """Tell whether another recipe has the same first steps; the number of steps may differ."""
        same = replace(other, steps=self.steps) == self
        return same and all(self.rate_share(done) == other.rate_share(done) for done in range(step))


def masked_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scaling: float, **_: Any
) -> tuple[torch.Tensor, None]:
    """Attend with two matrix products and a fused softmax.

    On a CPU the backward pass of torch's own attention takes three times as long. The mask, (b, 1,
    t, t) and added to the scores, comes from `loss_sum` by way of the model.
    """
    scores = torch.matmul(query * scaling, key.transpose(2, 3)).float() + mask  # (b, heads, t, t)
    return torch.matmul(scores.softmax(-1).to(value.dtype), value).transpose(1, 2).contiguous(), None


def loss_sum(model: Any, tokens: torch.Tensor, document: torch.Tensor) -> torch.Tensor:
    """Return the summed loss, in nats, of every token that has one of its own document before it.

    Args:
        model: with the attention above.
        tokens: (b, t) int64.
        document: (b, t) int64, -1 for padding; a token sees its own document alone.
    """
    t = tokens.shape[1]
    sees = (document[:, :, None] == document[:, None, :]) & torch.ones(t, t, dtype=torch.bool).tril()
    # a token sees itself: no row of the mask is empty
    mask = torch.zeros(sees.shape).masked_fill(~sees, float("-inf"))[:, None]
    hidden = model.model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    is_learned = (document[:, 1:] == document[:, :-1]) & (document[:, 1:] >= 0)
    target = torch.where(is_learned, tokens[:, 1:], IGNORED)
    logits = linear(hidden, model.lm_head.weight).flatten(0, 1).float()
    return cross_entropy(logits, target.flatten(), ignore_index=IGNORED, reduction="sum")


def n_learned(document: np.ndarray[Any, Any]) -> int:
    """Return how many tokens `loss_sum` adds up."""
    return int(((document[:, 1:] == document[:, :-1]) & (document[:, 1:] >= 0)).sum())


def optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the hidden matrices and AdamW for the rest."""
    hidden = [parameter for name, parameter in model.model.named_parameters() if name.endswith("proj.weight")]
    chosen = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    muon = torch.optim.Muon(
        hidden, lr=recipe.muon_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(rest, lr=recipe.adam_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [muon, adam]


class Batches:
    """All forward passes of a run, in a random order that depends on the seed alone."""

    def __init__(self, packed: dict[int, Packed], batch_tokens: int) -> None:
        self._packed = packed
        self._batch_tokens = batch_tokens
        self._rows = {
            window: np.random.default_rng([SEED, window]).permutation(len(part.tokens))
            for window, part in packed.items()
        }
        self._all = [
            (window, start)
            for window, part in packed.items()
            for start in range(0, len(part.tokens) - self.size(window) + 1, self.size(window))
        ]

    def __len__(self) -> int:
        """Return the number of forward passes in one pass over the windows."""
        return len(self._all)

    def size(self, window: int) -> int:
        """Return the rows of a batch."""
        return self._batch_tokens // window

    def __getitem__(self, number: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return tokens and documents of a forward pass."""
        turn, at = divmod(number, len(self._all))
        window, start = self._all[np.random.default_rng([SEED, turn]).permutation(len(self._all))[at]]
        rows = self._rows[window][start : start + self.size(window)]
        part = self._packed[window]
        return part.tokens[rows].astype(np.int64), part.document[rows].astype(np.int64)


def gradient(model: Any, loss: Loss, batches: Batches, recipe: Recipe, step: int) -> tuple[float, int]:
    """Compute the gradient of one step in the model; return the mean loss and the tokens."""
    parts = [batches[step * recipe.accumulation + piece] for piece in range(recipe.accumulation)]
    n = sum(n_learned(document) for _, document in parts)
    total = 0.0
    for tokens, document in parts:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(model, torch.from_numpy(tokens), torch.from_numpy(document))
        (value / n).backward()
        total += value.item()
    return total / n, n


@torch.no_grad()
def held_out_loss(model: Any, loss: Loss, packed: dict[int, Packed], batch_tokens: int) -> float:
    """Return the mean loss, nats per token, over the first N_MEASURED batches of each length."""
    total, n = 0.0, 0
    for window, part in packed.items():
        size = batch_tokens // window
        for start in range(0, len(part.tokens) - size + 1, size)[:N_MEASURED]:
            tokens, document = (a[start : start + size].astype(np.int64) for a in (part.tokens, part.document))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                total += loss(model, torch.from_numpy(tokens), torch.from_numpy(document)).item()
            n += n_learned(document)
    return total / n


class Run:
    """A pre-training run: model, optimizers and log, saved to a checkpoint and taken up from it."""

    def __init__(self, model: LlamaForCausalLM, recipe: Recipe, work: Path) -> None:
        self.model = model
        self.recipe = recipe
        self.optimizers = optimizers(model, recipe)
        self.log: list[dict[str, Any]] = []  # one entry per step that was taken
        self._checkpoint = work / "checkpoint.pt"
        self._began = time.perf_counter()
        if self._checkpoint.exists():
            self._load()

    @property
    def seconds(self) -> float:
        """Time of training, over all starts."""
        return time.perf_counter() - self._began

    def _load(self) -> None:
        state = torch.load(self._checkpoint, weights_only=True)
        if not self.recipe.is_continuation(Recipe(**state["recipe"]), len(state["log"])):
            sys.exit(f"{self._checkpoint}: must be of the same recipe, got {state['recipe']}; choose another --work")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.log = state["log"]
        self._began -= state["seconds"]
        print(f"continuing after step {len(self.log)}", file=sys.stderr)

    def save(self) -> None:
        """Write the checkpoint; a kill while it is written leaves the one before."""
        partial = self._checkpoint.with_suffix(".tmp")
        state = {
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "log": self.log,
            "seconds": self.seconds,
        }
        torch.save(state, partial)
        partial.replace(self._checkpoint)

    def step(self, loss: Loss, batches: Batches) -> None:
        """Take the next step and write it to the log."""
        share = self.recipe.rate_share(len(self.log))
        for optimizer, peak in zip(self.optimizers, (self.recipe.muon_rate, self.recipe.adam_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
        mean, n = gradient(self.model, loss, batches, self.recipe, len(self.log))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        n += self.log[-1]["tokens"] if self.log else 0
        entry = {"step": len(self.log) + 1, "tokens": n, "rate": round(share, 5), "train_loss": round(mean, 4)}
        self.log.append({**entry, "held_out_loss": None, "seconds": round(self.seconds, 1)})
