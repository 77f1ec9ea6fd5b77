"""The page of a subset: what was kept, what was dropped and why, and where both lie in the pool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.features import column_values
from thresher.numeric.arrays import Float64
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Bars, Chart, LegendEntry, linear_axis
from thresher.reporting.page import (
    Block,
    Example,
    Examples,
    Figure,
    Notice,
    Page,
    Paragraph,
    Section,
    Share,
    ShareBars,
    Table,
    Tile,
)
from thresher.reporting.pages.experiment_tables import build_footer
from thresher.reporting.pages.figures.pilot import build_pilot, build_trained_pilot
from thresher.reporting.pages.reproduce import build_reproduction
from thresher.reporting.pages.rows.pool_map import Choice, build_pool_map
from thresher.reporting.pages.rows.subset_rows import (
    N_EXAMPLES,
    TEXT,
    SubsetFolder,
    build_balance,
    build_examples,
    build_pairs,
    list_group_columns,
    read_subset_folder,
)
from thresher.subset.cut import REASONS

N_BINS = 30
MAX_REJECTED = 12  # reasons
TONES = {"kept": "blue", "dropped": "gray"}


def build_subset_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `select` wrote."""
    subset = read_subset_folder(folder, manifest)
    content, counts = subset.content, subset.content["counts"]
    kept, usable, seconds = counts["kept"], counts["usable"], content["run"]["seconds"]
    names = ", ".join(source["name"] for source in content["inputs"][:3])
    return Page(
        kind="subset",
        title=f"{content['method']} on {names or 'the pool'}",
        answer=_write_answer(subset),
        more=_write_remarks(content),
        tiles=(
            Tile("Kept", fmt.count(kept), f"{fmt.share(kept, usable)} of {fmt.rows(usable)}"),
            Tile("Dropped", fmt.count(counts["dropped"]), fmt.share(counts["dropped"], usable)),
            Tile("Rejected", fmt.count(counts["rejected"]), f"of {fmt.rows(counts['read'])} read"),
            Tile("Time", fmt.seconds(seconds["total"]), f"selection {fmt.seconds(seconds['selection'])}"),
        ),
        sections=[
            Section("How training runs chose the method", build_trained_pilot(content.get("trained_pilot"))),
            Section("How the method was chosen", build_pilot(content["pilot"]) if "pilot" in content else ()),
            Section("What was kept, and what was dropped", build_pairs(subset)),
            Section("Effect of the selection", _build_balances(subset)),
            Section("Map of the pool", _build_map(subset)),
            Section("Scores", _build_scores(subset)),
            Section("What was dropped, and why", _build_dropped(subset)),
            Section("Rejected rows", _build_rejected(subset) if counts["rejected"] else ()),
            Section("Cost", _build_cost(content)),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _write_answer(subset: SubsetFolder) -> str:
    content, counts = subset.content, subset.content["counts"]
    kept, share = fmt.count(counts["kept"]), fmt.share(counts["kept"], counts["usable"])
    text = f"{content['method']} keeps {kept} of {fmt.rows(counts['usable'])} ({share})"
    reasons = counts["dropped_by_reason"]
    if not reasons:
        return f"{text}; nothing is dropped."
    reason, number = next(iter(reasons.items()))
    whom = f"{fmt.count(number)} of {fmt.count(counts['dropped'])} dropped rows"
    if len(reasons) == 1:
        whom = "every dropped row"
    why = {
        "covered": f"a kept row represents {whom}",
        "over-budget": f"{whom} ranked behind the last one that fits the budget",
        "over-quota": f"{whom} came after the group's quota was full",
        "below-threshold": f"{whom} scored below the threshold",
    }.get(reason, f"{whom}: {reason}")
    median = subset.dropped["similarity"].median()
    near = f" (median cosine {median:.2f})" if reason == "covered" and isinstance(median, float) else ""
    return f"{text}; {why}{near}."


def _write_remarks(content: Mapping[str, Any]) -> list[str]:
    guarantee = content["notes"].get("guarantee")
    advice = "Run thresher train to compare training on this subset with the same number of random rows."
    short = [f"Fewer rows than requested: {content['shortfall']}."] if "shortfall" in content else []
    if not guarantee:
        return [*short, advice]
    return [*short, f"Objective {fmt.significant(content['objective'] or 0)}, {guarantee}.", advice]


def _build_map(subset: SubsetFolder) -> list[Block]:
    pool = subset.pool.rows
    if pool is None:
        return [Notice(f"There is no map. {subset.pool.missing}")]
    embedding = subset.content["features"].get("embedding")
    title = f"{subset.content['method']}, {fmt.rows(len(subset.kept))}"
    columns = {name: column_values(pool, name) for name in list_group_columns(pool)}
    if len(subset.content["counts"]["dropped_by_reason"]) > 1:
        known = dict(zip(subset.dropped["row_id"], subset.dropped["reason"], strict=True))
        columns["reason"] = pl.Series("reason", [known.get(name, "kept") for name in pool.frame["row_id"]])
    return [build_pool_map(pool, [Choice(title, subset.kept)], embedding, columns)]


def _build_balances(subset: SubsetFolder) -> list[Block]:
    pool = subset.pool.rows
    return [] if pool is None else [build_balance(pool, subset.kept, column) for column in list_group_columns(pool)]


def _build_scores(subset: SubsetFolder) -> list[Block]:
    """Return the histogram of scores, or of similarity to kept rows if the method only ranks."""
    value = subset.scores["value"].to_numpy()
    is_kept = subset.scores["position"].is_not_null().to_numpy()
    is_scored = np.isfinite(value)
    if not _is_ranking(value):
        n_unscored = int((~is_scored).sum())
        note = f" {fmt.rows(n_unscored)} without a score are left out." if n_unscored else ""
        sides = {"kept": value[is_kept & is_scored], "dropped": value[~is_kept & is_scored]}
        caption = f"Higher scores are kept first.{note}"
        return [_build_histogram("Scores of kept and dropped rows", caption, "score", sides)]
    text = f"{subset.content['method']} ranks rows one by one; a score is only the position in this ranking."
    similarity = subset.dropped["similarity"].drop_nulls().to_numpy().astype(np.float64)
    if not len(similarity):
        return [Paragraph(text)]
    title = "Similarity of dropped rows to the kept row that represents them"
    caption = "Cosine of the embeddings: 1 is the same text, low values are rows that the subset barely covers."
    return [
        Paragraph(f"{text} The figure shows how close each dropped row is to the kept row that represents it."),
        _build_histogram(title, caption, "cosine with the kept row", {"dropped": similarity}),
    ]


def _is_ranking(value: Float64) -> bool:
    """Tell whether the scores are 0, -1, -2, ... of a greedy method."""
    finite = np.sort(-value[np.isfinite(value)])
    return bool(len(finite)) and bool((finite == np.arange(len(finite))).all())


def _build_histogram(title: str, caption: str, label: str, sides: Mapping[str, Float64]) -> Figure:
    values = np.concatenate(list(sides.values()))
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, N_BINS + 1)
    counts = {name: np.histogram(values, edges)[0] for name, values in sides.items()}
    chart = Chart(
        x=linear_axis(label, low, high, n_ticks=7, pad=0.0),
        y=linear_axis("rows", 0, max(int(heights.max()) for heights in counts.values()), is_from_zero=True),
        marks=[
            Bars(tone=TONES[name], edges=edges.tolist(), heights=heights.tolist(), is_outline=name == "kept")
            for name, heights in sorted(counts.items())
        ],
        legend=[
            LegendEntry(f"{name} ({fmt.rows(int(n.sum()))})", TONES[name], "step" if name == "kept" else "bar")
            for name, n in counts.items()
        ]
        if len(sides) > 1
        else (),
    )
    medians = ", ".join(
        f"median of {name} rows {fmt.significant(float(np.median(v)), 3)}" for name, v in sides.items() if len(v)
    )
    cells = [
        (fmt.significant(start, 3), fmt.significant(end, 3), *map(fmt.count, heights))
        for start, end, *heights in zip(edges[:-1], edges[1:], *(n.tolist() for n in counts.values()), strict=True)
    ]
    return Figure(
        name="scores",
        title=title,
        caption=caption,
        alt=f"Histogram of {label}: {medians}.",
        charts=(chart,),
        table=Table(
            caption="Rows in each bin", columns=("from", "to", *counts), rows=cells, numeric=range(2 + len(counts))
        ),
    )


def _build_dropped(subset: SubsetFolder) -> list[Block]:
    counts = subset.content["counts"]
    reasons = counts["dropped_by_reason"]
    if not reasons:
        return [Paragraph("No row was dropped.")]
    largest, usable = max(reasons.values()), counts["usable"]
    shares = [
        Share(f"{reason}: {REASONS.get(reason, '')}", n / largest, f"{fmt.count(n)} ({fmt.share(n, usable)})", "gray")
        for reason, n in reasons.items()
    ]
    bars = ShareBars("Dropped rows by reason", ("reason", "rows"), shares)
    return [bars, *(build_examples(subset, reason) for reason in reasons)]


def _build_rejected(subset: SubsetFolder) -> list[Block]:
    reasons = subset.content["counts"]["rejected_by_reason"]
    largest = max(reasons.values())
    shares = [
        Share(fmt.truncate(reason, 120), n / largest, fmt.count(n), "gray")
        for reason, n in list(reasons.items())[:MAX_REJECTED]
    ]
    examples = [
        Example(text=fmt.truncate(preview or "", TEXT), reason=reason, place=f"{Path(file).name}, line {line:,}")
        for file, line, reason, preview in subset.rejected.head(N_EXAMPLES).iter_rows()
    ]
    bars = ShareBars("Rejected rows by reason", ("reason", "rows"), shares)
    return [bars, Examples("The first of them", "", examples)]


def _build_cost(content: Mapping[str, Any]) -> list[Block]:
    steps = {
        "features": "computing features",
        "selection": "selection",
        "total": "in total, including reading and writing",
    }
    cells = [(name, fmt.seconds(content["run"]["seconds"][key])) for key, name in steps.items()]
    blocks: list[Block] = [Table(caption="Time", columns=("step", "time"), rows=cells, numeric=(1,))]
    embedding = content["features"].get("embedding")
    if embedding:
        blocks.append(Paragraph(f"Embeddings by {embedding['encoder']}; cached ones are reused."))
    return blocks
