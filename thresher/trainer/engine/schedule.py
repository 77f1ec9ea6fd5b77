"""Learning-rate schedules, as pure functions of the step."""

from __future__ import annotations

import math


def compute_rate_share(step: int, n_steps: int, *, schedule: str, warmup_share: float) -> float:
    """Return the share of the peak rate at a step.

    The rate rises linearly over the first `warmup_share` of the steps, is 1 at the end of them, and
    falls to 0 just after the last step: no step is spent at rate 0.

    Args:
        step: counted from 0.
        n_steps: of the run.
        schedule: "cosine", "linear" or "constant".
        warmup_share: 0..1.
    """
    n_warmup = math.ceil(warmup_share * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    if schedule == "constant":
        return 1.0
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
