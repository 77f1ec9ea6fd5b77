"""What kinds of adapters do around an optimizer step, and what of it a checkpoint must hold.

* LoRA+ (Hayou et al. 2024, arXiv:2402.12354): B learns with 16 times the rate of A.
* LoRA-FA (Zhang et al. 2023, arXiv:2308.03303): A stays as it is, and B's gradient g becomes
  g (A A^T)^-1 / s^2, which is the best approximation of the full gradient (as in peft).
* Half fine-tuning (Hui et al. 2024, arXiv:2404.18466), of LoRA: in each step a random half of the
  adapted layers stands still, moments and all; the next step moves exactly the others.
* AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): ranks fall to their budget by importance. peft
  keeps the importances in plain dictionaries, which no state_dict holds: without them in the
  checkpoint, a resumed run would prune otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from thresher.trainer.settings import TrainSettings

RATE_RATIO = 16.0  # of LoRA+
RIDGE = 1e-8
RATE = "rate_factor"  # key of a parameter group
IMPORTANCES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
RANKS = "ranks"
DOWN, UP = ".lora_A.", ".lora_B."


class Updates:
    """Nothing beside the optimizer's own step: plain LoRA."""

    def __init__(self, model: Any, parameters: Mapping[str, torch.nn.Parameter], *, seed: int) -> None:
        """Keep the model without wrappers, its trained parameters, and the seed of the run."""
        self.model, self.parameters, self.seed = model, parameters, seed

    def build_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups: each parameter once, in the order of the model."""
        return [{"params": list(self.parameters.values())}]

    def add_penalty(self) -> None:
        """Add the gradient of what is minimized beside the loss, before gradients are clipped."""

    def change_gradients(self, step: int) -> None:
        """Change the gradients of a step, counted from 0, after they are clipped."""

    def finish_step(self, step: int) -> None:
        """Act on a step, counted from 0, while its gradients are there."""

    def get_state(self) -> dict[str, torch.Tensor]:
        """Return what a resumed run needs, by name."""
        return {}

    def set_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up a state of `get_state`."""


class FasterUp(Updates):
    """LoRA+."""

    def build_groups(self) -> list[dict[str, Any]]:
        """Return two groups, the second one of all B."""
        up = [value for name, value in self.parameters.items() if UP in name]
        others = [value for name, value in self.parameters.items() if UP not in name]
        return [{"params": others}, {"params": up, RATE: RATE_RATIO}]


class FrozenDown(Updates):
    """LoRA-FA; the first matrices are frozen before the parameters are listed."""

    def change_gradients(self, step: int) -> None:
        """Project the gradient of each B by its A."""
        from peft.tuners.lora.layer import LoraLayer

        for layer in self.model.modules():
            if isinstance(layer, LoraLayer) and "default" in layer.lora_A:
                down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
                if up.grad is not None:
                    gram = down @ down.T + RIDGE * torch.eye(len(down), device=down.device)
                    up.grad = up.grad @ torch.linalg.pinv(gram.detach()) / layer.scaling["default"] ** 2


class HalfStanding(Updates):
    """Half fine-tuning of LoRA."""

    def list_standing(self, step: int) -> set[str]:
        """Return the layers that stand still in a step: steps 2k and 2k + 1 halve them together."""
        layers = sorted({name.rpartition(DOWN)[0] for name in self.parameters if DOWN in name})
        order = np.random.default_rng([self.seed, step // 2]).permutation(len(layers))
        half = order[: len(layers) // 2] if step % 2 == 0 else order[len(layers) // 2 :]
        return {layers[i] for i in half}

    def change_gradients(self, step: int) -> None:
        """Take the gradients of the standing layers away, so that the optimizer passes them by."""
        standing = self.list_standing(step)
        for name, value in self.parameters.items():
            if any(sign in name and name.partition(sign)[0] in standing for sign in (DOWN, UP, ".lora_magnitude")):
                value.grad = None


class FallingRanks(Updates):
    """AdaLoRA."""

    @property
    def _tuner(self) -> Any:
        return _get_peft(self.model).base_model

    def add_penalty(self) -> None:
        """Add the gradient of the mean distance of A A^T and B^T B from the identity.

        peft adds it to the loss that a model computes itself; ours is computed outside of it.
        """
        names = [name for name in self.parameters if DOWN in name or UP in name]
        values = [self.parameters[name] for name in names]
        total: Any = 0.0
        for name, value in zip(names, values, strict=True):
            gram = value @ value.T if DOWN in name else value.T @ value
            total = total + torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device))
        weight = self._tuner.peft_config["default"].orth_reg_weight / len(names)
        for value, gradient in zip(values, torch.autograd.grad(weight * total, values), strict=True):
            value.grad = gradient if value.grad is None else value.grad + gradient

    def finish_step(self, step: int) -> None:
        """Update the importances, and prune to the budget of the step."""
        self._tuner.update_and_allocate(step + 1)

    def get_state(self) -> dict[str, torch.Tensor]:
        """Return the importances, and which ranks are kept since the last pruning."""
        tuner = self._tuner
        state = {
            f"{kind}/{name}": tensor
            for kind in IMPORTANCES
            for name, tensor in getattr(tuner.rankallocator, kind).items()
        }
        ranks = tuner.peft_config["default"].rank_pattern or {}
        return state | {f"{RANKS}/{name}": torch.tensor(kept, dtype=torch.bool) for name, kept in ranks.items()}

    def set_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up importances and ranks."""
        tuner = self._tuner
        device = next(iter(self.parameters.values())).device
        tuner.rankallocator.reset_ipt()
        ranks: dict[str, list[bool]] = {}
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            if kind == RANKS:
                ranks[name] = tensor.tolist()
            else:
                getattr(tuner.rankallocator, kind)[name] = tensor.to(device)
        tuner.peft_config["default"].rank_pattern = ranks or None


KINDS: dict[str, type[Updates]] = {
    "loraplus": FasterUp,
    "lorafa": FrozenDown,
    "half": HalfStanding,
    "adalora": FallingRanks,
}


def freeze_parameters(model: Any, settings: TrainSettings) -> None:
    """Freeze what a kind does not train, before its parameters are listed."""
    if settings.adapter == "lorafa":
        for name, parameter in model.named_parameters():
            if DOWN in name:
                parameter.requires_grad_(False)


def build_updates(
    model: Any, parameters: Mapping[str, torch.nn.Parameter], settings: TrainSettings, *, seed: int
) -> Updates:
    """Return what the kind of adapter does around a step."""
    return KINDS.get(str(settings.adapter), Updates)(model, parameters, seed=seed)


def _get_peft(model: Any) -> Any:
    """Return the part of a model that is peft's: a pooled classifier has it inside."""
    return model if hasattr(model, "peft_config") else model.body
