"""What a model lost on rows that are not of its task: bits per byte after training minus before."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from thresher.evaluation.estimate import Estimate, ratio
from thresher.evaluation.gain import Gain, estimate_gain
from thresher.evaluation.metric import Metric
from thresher.numeric.units import format_count

# the loss of a row in nats over its bytes; higher after training is what was lost
BITS = Metric(name="loss", is_higher_better=True, column="loss", weight="n_bytes", scale=math.log(2))
MOST_LABELS = 200  # distinct answers that still look like labels
MOST_OF_ROWS = 0.2  # of distinct answers among the rows, if they are labels
COMMON = 0.5  # share of the answers that must have a form


@dataclass(frozen=True)
class Form:
    """The form that most answers of a task have.

    Attributes:
        name: in words, after "answers in the form of the task: ".
        matches: tells of an answer whether it has the form.
    """

    name: str
    matches: Callable[[str], bool]


def measure_bits(table: pl.DataFrame) -> Estimate:
    """Return the bits per byte over all rows of a table with `loss` (nats) and `n_bytes`."""
    return ratio(table["loss"].to_numpy() / math.log(2), table["n_bytes"].to_numpy())


def estimate_forgetting(after: Sequence[pl.DataFrame], before: pl.DataFrame) -> Gain | None:
    """Return the rise in bits per byte, paired by row and seed; positive is what was lost.

    Args:
        after: of each seed: `row_id`, `loss` (nats, summed), `n_bytes`.
        before: of the untouched model, on the same rows.
    """
    return estimate_gain(BITS, after, [before] * len(after))


def name_loss(lost: Gain, allowed: float) -> str:
    """Return "lost" beyond what is allowed, "kept" within it, or "cannot tell"."""
    return "lost" if lost.low > allowed else "kept" if lost.high <= allowed else "cannot tell"


def describe_loss(lost: Gain, allowed: float) -> str:
    """Return in one sentence what was lost on general rows, and whether it is allowed."""
    if lost.low == lost.high == 0:  # an adapter of scale 0
        return f"forgets nothing: no change on {format_count(lost.n, 'general row')}"
    moved, low, high = ("worse", lost.low, lost.high) if lost.value > 0 else ("better", -lost.high, -lost.low)
    size = f"{abs(lost.value):.4f} bits per byte [{low:+.4f}, {high:+.4f}]"
    answer = {
        "lost": f"forgets more than the allowed {allowed:g}",
        "kept": f"forgets no more than the allowed {allowed:g}",
        "cannot tell": f"may or may not forget more than the allowed {allowed:g}",
    }[name_loss(lost, allowed)]
    if lost.high <= 0:
        answer = "forgets nothing"
    return f"{answer}: {moved} by {size} on {format_count(lost.n, 'general row')}"


def find_form(responses: Sequence[str]) -> Form | None:
    """Return the form that most answers of a task share, or None where they are plain text.

    Known are JSON, answers that end in "#### ANSWER", and few short answers that come again and
    again, as labels do.
    """
    if not responses:
        return None
    needed = COMMON * len(responses)
    for name, matches in (("JSON", _is_json), ('a line "#### ..."', _has_hashes)):
        if sum(map(matches, responses)) >= needed:
            return Form(name, matches)
    labels = {response.strip().casefold() for response in responses}
    if 2 <= len(labels) <= min(MOST_LABELS, MOST_OF_ROWS * len(responses)):
        return Form(f"one of the {len(labels)} answers of the training rows", lambda text: _is_label(text, labels))
    return None


def _is_json(text: str) -> bool:
    if text.strip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _has_hashes(text: str) -> bool:
    return any(line.lstrip().startswith("####") for line in text.splitlines())


def _is_label(text: str, labels: set[str]) -> bool:
    return text.strip().casefold() in labels


def summarize_sources(after: pl.DataFrame, before: pl.DataFrame) -> list[dict[str, Any]]:
    """Return before, after and their difference for each source of the rows, most lost first."""
    lines = []
    for (source,), own in before.group_by("source", maintain_order=True):
        rows = after.filter(pl.col("source") == source)
        lost = estimate_forgetting([rows], own)
        if lost is not None:
            sides = {"before": measure_bits(own).value, "after": measure_bits(rows).value}
            lines.append({"source": str(source), "n": len(own), **sides, "lost": lost.to_json()})
    return sorted(lines, key=lambda line: -float(line["after"] - line["before"]))
