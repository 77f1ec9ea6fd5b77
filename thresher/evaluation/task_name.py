"""How a metric names a task of the lm-evaluation-harness; imports nothing, as a help reads it."""

from __future__ import annotations

from typing import Any

PREFIX = "lm-eval:"


def names_lm_eval_task(metric: Any) -> bool:
    """Tell whether a metric is "lm-eval:TASK"."""
    return isinstance(metric, str) and metric.startswith(PREFIX)
