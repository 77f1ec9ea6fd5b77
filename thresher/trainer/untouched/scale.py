"""Gain and forgetting from one knob: the adapter at a share of its strength.

The update of a LoRA layer is scaled by alpha / rank, so lambda times the update is an ordinary
adapter with lambda times the alpha (Wortsman et al. 2022, arXiv:2109.01903, interpolate all weights
in the same way; Xiao et al. 2023, arXiv:2311.13534). Lambda 0 is the base, lambda 1 the adapter as
it was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from thresher.evaluation.forgetting import BITS
from thresher.evaluation.gain import Gain, estimate_gain
from thresher.evaluation.metric import METRICS, Metric
from thresher.trainer.context import RunContext
from thresher.trainer.held_out import HeldOut
from thresher.trainer.untouched.general import GeneralSet

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class ScalePoint:
    """The adapter at a share of its strength.

    Attributes:
        scale: the share.
        loss: on the held-out rows, in nats per token.
        gain: over the untouched model, in nats per token, positive where the loss is lower.
        lost: on the general rows, in bits per byte.
    """

    scale: float
    loss: float
    gain: Gain
    lost: Gain

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"scale": self.scale, "loss": self.loss, "gain": self.gain.to_json(), "lost": self.lost.to_json()}


def set_scale(model: Any, scale: float) -> None:
    """Give the adapter a share of the strength it was trained with; 1 gives it back exactly."""
    from peft.tuners.lora.layer import LoraLayer

    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            for name in layer.scaling:
                layer.set_scale(name, scale)


def keep_scale(model: Any, scale: float) -> None:
    """Set the scale for good: the adapter is saved with so much of its alpha."""
    set_scale(model, scale)
    if scale != 1:
        for config in model.peft_config.values():
            config.lora_alpha = config.lora_alpha * scale


def measure_front(context: RunContext, held_out: HeldOut, general: GeneralSet, model: Any) -> list[ScalePoint]:
    """Measure the adapter at each scale; the model is left at scale 1.

    Args:
        context: of a language model.
        held_out: rows of the task.
        general: rows that are not of the task.
        model: with its adapter, in evaluation mode.
    """
    metric = METRICS["text"]["loss"]
    tables = []
    for scale in SCALES:
        set_scale(model, scale)
        tables.append((held_out.measure_row_losses(model), general.measure(context, model)))
    return [_compare(metric, scale, tables[0], table) for scale, table in zip(SCALES, tables, strict=True)]


def _compare(
    metric: Metric, scale: float, base: tuple[pl.DataFrame, pl.DataFrame], own: tuple[pl.DataFrame, pl.DataFrame]
) -> ScalePoint:
    gain, lost = estimate_gain(metric, [own[0]], [base[0]]), estimate_gain(BITS, [own[1]], [base[1]])
    if gain is None or lost is None:
        raise AssertionError("both sides have rows with a loss")
    return ScalePoint(scale, metric.measure(own[0]).value, gain, lost)


def choose_scale(front: Sequence[ScalePoint], allowed: float) -> float:
    """Return the scale of the largest gain whose forgetting stays within what is allowed.

    The upper end of its interval must; scale 0 forgets nothing. Of equal gains, the smaller scale.
    """
    fitting = [point for point in front if point.lost.high <= allowed]
    return max(fitting, key=lambda point: (point.gain.value, -point.scale)).scale if fitting else 0.0


def describe_no_gain(section: Mapping[str, Any] | None) -> str | None:
    """Return the verdict on an adapter that is saved at scale 0, or None."""
    if not section or not section["is_chosen"] or section["scale"] != 0:
        return None
    return (
        f"Training does not pay here: no strength of the adapter is better than the untouched model within the "
        f"allowed {section['allowed']:g} bits per byte of forgetting"
    )


def format_front(section: dict[str, Any] | None) -> list[str]:
    """Return the section `scale` of `metrics.json` in lines for a summary."""
    if not section:
        return []
    lines = ["scale of the adapter: loss on the held-out rows, and bits per byte lost on the general rows"]
    lines += [
        f"  {point['scale']:>4.2f}  {point['loss']:.4f}  {point['lost']['value']:+.4f} "
        f"[{point['lost']['low']:+.4f}, {point['lost']['high']:+.4f}]"
        for point in section["points"]
    ]
    if section["is_chosen"] and section["scale"] == 0:
        lines.append("saved at scale 0, which answers like the untouched model")
    elif section["is_chosen"]:
        lines.append(
            f"saved at scale {section['scale']:g}: the largest gain within the allowed {section['allowed']:g} bits per "
            f"byte; it was chosen on these same rows"
        )
    return lines
