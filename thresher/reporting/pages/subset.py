"""The page of a subset: what was kept, what was dropped and why, and where both lie in the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.artifacts.manifest import Manifest
from thresher.dataset import Dataset
from thresher.reporting.charts.chart import Bars, Chart, LegendEntry, linear_axis
from thresher.reporting.files import read_table
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
from thresher.reporting.pages.pool import Pool, read_pool
from thresher.reporting.pages.pool_map import Choice, balance, pool_map
from thresher.reporting.pages.reproduce import reproduce
from thresher.reporting.wording import count, cut, rows, seconds, share, significant
from thresher.subset.cut import REASONS
from thresher.subset.subset import table_files

N_EXAMPLES = 5  # of each reason
N_BINS = 30
MAX_GROUPS = 25  # of a column, in the table of the balance
TEXT = 320  # letters of an example
DROPPED = ("row_id", "file", "line", "reason", "explanation", "value", "rank", "covered_by", "similarity", "preview")


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What lies in the folder."""

    content: Mapping[str, Any]
    scores: pl.DataFrame
    dropped: pl.DataFrame
    rejected: pl.DataFrame
    pool: Pool
    kept: NDArray[np.int64]  # positions in the pool; empty when the pool is gone


def subset_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `select` wrote."""
    found = _read(folder, manifest)
    content, counts = found.content, found.content["counts"]
    kept, usable = counts["kept"], counts["usable"]
    spent = content["run"]["seconds"]
    sections = [
        Section("Where the kept rows lie", tuple(_map(found))),
        Section("Scores", tuple(_scores(found))),
        Section("What was dropped, and why", tuple(_dropped(found))),
    ]
    if counts["rejected"]:
        sections.append(Section("Rows that could not be used", tuple(_rejected(found))))
    sections += [Section("Cost", tuple(_cost(found))), reproduce(manifest, folder)]
    return Page(
        kind="subset",
        title=f"{content['method']} on {', '.join(source['name'] for source in content['inputs'][:3]) or 'the pool'}",
        answer=_answer(found),
        more=tuple(_more(content)),
        tiles=(
            Tile("Kept", count(kept), f"{share(kept, usable)} of {rows(usable)}"),
            Tile("Dropped", count(counts["dropped"]), share(counts["dropped"], usable)),
            Tile("Could not be used", count(counts["rejected"]), f"of {rows(counts['read'])} read"),
            Tile("Time", seconds(spent["total"]), f"of it {seconds(spent['selection'])} to choose"),
        ),
        sections=tuple(section for section in sections if section.blocks),
        footer={"Made": content["run"]["created"], "thresher": content["versions"].get("thresher", "")},
    )


def _read(folder: Path, manifest: Manifest) -> _Found:
    scores = _table(folder, "scores.parquet", ("row_id", "value", "rank", "position"))
    dropped = _table(folder, "dropped.parquet", DROPPED)
    schema = {"file": pl.String, "line": pl.UInt64, "reason": pl.String, "preview": pl.String}
    paths = [path for path in table_files(folder, "rejected.jsonl") if path.stat().st_size]
    rejected = pl.concat([pl.DataFrame(schema=schema), *(pl.read_ndjson(path, schema=schema) for path in paths)])
    pool = read_pool(manifest.content, row_ids=scores["row_id"])
    kept_ids = scores.filter(pl.col("position").is_not_null())["row_id"]
    kept = pool.positions(kept_ids) if pool.rows is not None else np.empty(0, np.int64)
    return _Found(
        content=manifest.content, scores=scores, dropped=dropped, rejected=rejected, pool=pool, kept=np.sort(kept)
    )


def _table(folder: Path, name: str, columns: Sequence[str]) -> pl.DataFrame:
    """Return a table, which is one file or one for each shard of the pool."""
    return pl.concat([read_table(path, columns) for path in table_files(folder, name) or [folder / name]])


def _answer(found: _Found) -> str:
    content, counts = found.content, found.content["counts"]
    text = f"{content['method']} keeps {count(counts['kept'])} of {rows(counts['usable'])}"
    text += f" ({share(counts['kept'], counts['usable'])})"
    reasons = counts["dropped_by_reason"]
    if not reasons:
        return f"{text}; nothing is dropped."
    reason, number = next(iter(reasons.items()))
    whom = "every dropped row" if len(reasons) == 1 else f"{count(number)} of {count(counts['dropped'])} dropped rows"
    why = {
        "covered": f"a kept row stands for {whom}",
        "over-budget": f"{whom} ranked behind the last one that fits the budget",
        "over-quota": f"{whom} came after the quota of the group was full",
        "below-threshold": f"{whom} scored below the threshold",
    }.get(reason, f"{whom}: {reason}")
    median = found.dropped["similarity"].median()
    near = f" (median cosine {median:.2f})" if reason == "covered" and isinstance(median, float) else ""
    return f"{text}; {why}{near}."


def _more(content: Mapping[str, Any]) -> list[str]:
    sentences = []
    guarantee = content["notes"].get("guarantee")
    if guarantee:
        sentences.append(f"Objective {significant(content['objective'] or 0)}, {guarantee}.")
    sentences.append("A choice is worth what it does for a model: thresher train compares it with as many random rows.")
    return sentences


def _map(found: _Found) -> list[Block]:
    if found.pool.rows is None:
        return [Notice(f"There is no map. {found.pool.missing}")]
    pool = found.pool.rows
    embedding = found.content["features"].get("embedding")
    title = f"{found.content['method']}, {rows(len(found.kept))}"
    blocks: list[Block] = [pool_map(pool, [Choice(title, found.kept)], embedding)]
    if pool.kind == "classification":
        blocks.append(_balance(pool, found.kept, "label"))
    if "source" in pool.column_names:
        blocks.append(_balance(pool, found.kept, "source"))
    return blocks


def _balance(pool: Dataset, kept: NDArray[np.int64], column: str) -> Table:
    table = balance(pool, kept, column)
    cells = [
        (cut(group, 60) or "(none)", count(n), count(k), share(k, n), f"{share(n, len(pool))} → {share(k, len(kept))}")
        for group, n, k in table.head(MAX_GROUPS).iter_rows()
    ]
    more = f", the {MAX_GROUPS} largest of {len(table):,}" if len(table) > MAX_GROUPS else ""
    return Table(
        caption=f"What the choice does to each {column}{more}",
        columns=(column, "pool", "kept", "share kept", "part of the whole"),
        rows=tuple(cells),
        numeric=frozenset({1, 2, 3, 4}),
        is_folded=True,
    )


def _scores(found: _Found) -> list[Block]:
    """Return the histogram of the scores; of a method that only ranks, of how well kept rows stand for dropped ones."""
    value = found.scores["value"].to_numpy()
    is_kept = found.scores["position"].is_not_null().to_numpy()
    is_scored = np.isfinite(value)
    similarity = found.dropped["similarity"].drop_nulls().to_numpy().astype(np.float64)
    if not _is_ranking(value):
        note = f" {rows(int((~is_scored).sum()))} without a score are left out." if not is_scored.all() else ""
        return [
            _histogram(
                "Scores of kept and dropped rows",
                f"Higher scores are kept first.{note}",
                "score",
                {"kept": value[is_kept & is_scored], "dropped": value[~is_kept & is_scored]},
            )
        ]
    text = f"{found.content['method']} ranks rows one after the other; the score is the rank, and says no more."
    if not len(similarity):
        return [Paragraph(text)]
    return [
        Paragraph(f"{text} What can be seen is how near each dropped row lies to the kept row that stands for it."),
        _histogram(
            "How near dropped rows lie to the kept row that stands for them",
            "Cosine of the embeddings: 1 is the same text, low values are rows that the subset hardly covers.",
            "cosine with the kept row",
            {"dropped": similarity},
        ),
    ]


def _is_ranking(value: NDArray[np.float64]) -> bool:
    """Tell whether the scores are 0, -1, -2, ... of a greedy method."""
    finite = np.sort(-value[np.isfinite(value)])
    return bool(len(finite)) and bool((finite == np.arange(len(finite))).all())


def _histogram(title: str, caption: str, label: str, sides: Mapping[str, NDArray[np.float64]]) -> Figure:
    every = np.concatenate(list(sides.values()))
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, N_BINS + 1)
    counts = {name: np.histogram(values, edges)[0] for name, values in sides.items()}
    tones = {"kept": "blue", "dropped": "grey"}
    marks = tuple(
        Bars(tone=tones[name], edges=edges.tolist(), heights=heights.tolist(), is_outline=name == "kept")
        for name, heights in sorted(counts.items())
    )
    top = max(int(heights.max()) for heights in counts.values())
    chart = Chart(
        x=linear_axis(label, low, high, n_ticks=7, pad=0.0),
        y=linear_axis("rows", 0, top, is_from_zero=True),
        marks=marks,
        legend=tuple(
            LegendEntry(f"{name} ({rows(int(counts[name].sum()))})", tones[name], "step" if name == "kept" else "bar")
            for name in counts
        )
        if len(sides) > 1
        else (),
    )
    medians = ", ".join(
        f"median of {name} rows {significant(float(np.median(v)), 3)}" for name, v in sides.items() if len(v)
    )
    return Figure(
        name="scores",
        title=title,
        caption=caption,
        alt=f"Histogram of {label}: {medians}.",
        charts=(chart,),
        table=Table(
            caption="Rows in each bin",
            columns=("from", "to", *counts),
            rows=tuple(
                (significant(a, 3), significant(b, 3), *(count(int(heights[i])) for heights in counts.values()))
                for i, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True))
            ),
            numeric=frozenset(range(2 + len(counts))),
        ),
    )


def _dropped(found: _Found) -> list[Block]:
    counts = found.content["counts"]
    reasons = counts["dropped_by_reason"]
    if not reasons:
        return [Paragraph("No row was dropped.")]
    largest = max(reasons.values())
    bars = ShareBars(
        "Dropped rows by reason",
        ("reason", "rows"),
        tuple(
            Share(
                f"{reason}: {REASONS.get(reason, '')}",
                n / largest,
                f"{count(n)} ({share(n, counts['usable'])})",
                "grey",
            )
            for reason, n in reasons.items()
        ),
    )
    return [bars, *(_examples(found, reason) for reason in reasons)]


def _examples(found: _Found, reason: str) -> Examples:
    """Return a few dropped rows: the most and the least alike, or those that missed the budget least."""
    table = found.dropped.filter(pl.col("reason") == reason)
    if reason == "covered" and table["similarity"].is_not_null().any():
        ordered = table.sort("similarity", "row_id", descending=[True, False], nulls_last=True)
        half = (N_EXAMPLES + 1) // 2
        chosen = (
            ordered if len(ordered) <= N_EXAMPLES else pl.concat([ordered.head(half), ordered.tail(N_EXAMPLES - half)])
        )
        note = "The pairs that are most alike, and the rows that the subset covers least."
    else:
        chosen = table.sort("rank", "row_id", nulls_last=True).head(N_EXAMPLES)
        note = "Those that came nearest to being kept."
    beside = _texts(found, chosen["covered_by"])
    own = _texts(found, chosen["row_id"])
    examples = [
        Example(
            text=cut(text if text is not None else row["preview"] or "", TEXT),
            reason=_explained(row, other),
            beside=None if other is None else cut(other, TEXT),
            place=f"{Path(row['file']).name}, line {row['line']:,}",
        )
        for row, text, other in zip(chosen.iter_rows(named=True), own, beside, strict=True)
    ]
    return Examples(f"{reason}: {rows(len(table))}", note if len(table) > N_EXAMPLES else "", tuple(examples))


def _explained(row: Mapping[str, Any], beside: str | None) -> str:
    if beside is not None and row["similarity"] is not None:
        return f"cosine {row['similarity']:.3f} with the kept row"
    return str(row["explanation"])


def _texts(found: _Found, row_ids: pl.Series) -> list[str | None]:
    """Return the texts of rows of the pool, None where there is no such row or the pool is gone."""
    if found.pool.rows is None:
        return [None] * len(row_ids)
    at = found.pool.positions(row_ids)
    texts = found.pool.rows.take(np.maximum(at, 0)).texts().to_list()
    return [text if place >= 0 else None for text, place in zip(texts, at, strict=True)]


def _rejected(found: _Found) -> list[Block]:
    reasons = found.content["counts"]["rejected_by_reason"]
    largest = max(reasons.values())
    shares = [Share(cut(reason, 120), n / largest, count(n), "grey") for reason, n in list(reasons.items())[:12]]
    examples = [
        Example(text=cut(preview or "", TEXT), reason=reason, place=f"{Path(file).name}, line {line:,}")
        for file, line, reason, preview in found.rejected.head(N_EXAMPLES).iter_rows()
    ]
    return [
        ShareBars("Rows set aside by reason", ("reason", "rows"), tuple(shares)),
        Examples("The first of them", "", tuple(examples)),
    ]


def _cost(found: _Found) -> list[Block]:
    spent = found.content["run"]["seconds"]
    pairs = [
        ("computing features", spent["features"]),
        ("choosing rows", spent["selection"]),
        ("everything, reading and writing included", spent["total"]),
    ]
    embedding = found.content["features"].get("embedding")
    blocks: list[Block] = [
        Table(
            caption="Time",
            columns=("step", "time"),
            rows=tuple((name, seconds(value)) for name, value in pairs),
            numeric=frozenset({1}),
        )
    ]
    if embedding:
        blocks.append(
            Paragraph(f"Embeddings by {embedding['encoder']}; those that the cache has are not computed again.")
        )
    return blocks
