"""A map of the pool: rows of similar meaning lie together, in the colors of kept and dropped rows.

A sample is shown with its texts, so that the page stays small and quick at any number of rows. Its
embeddings come from the cache that `select` filled, or else from the included static encoder. They
are laid out by t-SNE (van der Maaten and Hinton 2008; Barnes-Hut, van der Maaten 2014), initialized
from the principal components, so that the large structure is that of the data and the same rows
give the same map. Where the cache has the vectors of all rows, up to 100,000 are small dots beside
the rows of the sample that they resemble most (`small_dots.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import polars as pl

from thresher.dataset import Dataset
from thresher.features import column_values, compute, make_context
from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.reporting import formatting as fmt
from thresher.reporting.page import MapPanel, PoolMap, Table
from thresher.reporting.pages.rows.map_parts import find_groups, find_words
from thresher.reporting.pages.rows.small_dots import find_further, find_places, place_small_dots, read_cached
from thresher.reporting.rendering import MAP_HEIGHT, MAP_WIDTH

BACKGROUND = 1_400  # rows sampled from the whole pool
KEPT = 600  # kept rows sampled in addition, over all panels together
TEXT = 180  # letters of a row
PERPLEXITY = 30.0
ITERATIONS = 500
COMPONENTS = 50
IN_TABLE = 12  # rows of each side in the table behind the map
SEED = 0


@dataclass(frozen=True)
class Choice:
    """A choice to show: its name, and the (k,) positions of the kept rows in the pool."""

    title: str
    kept: Int64


def build_pool_map(
    pool: Dataset,
    choices: list[Choice],
    embedding: Mapping[str, str] | None,
    columns: Mapping[str, pl.Series] = MappingProxyType({}),
) -> PoolMap:
    """Return the map of a pool with the kept and the dropped rows of each choice.

    Cost: about 5 s for the layout of 2,000 points, for a pool of any size.

    Args:
        pool: every row.
        choices: at least one.
        embedding: `encoder` and `fingerprint` of the embeddings that the choice was made with, or
            None.
        columns: to color the rows by: name -> (n,) values.
    """
    sample = _sample_rows(len(pool), choices)
    rows = pool.take(sample)
    vectors, encoder = _load_embeddings(rows, embedding)
    x, y = _scale_to_drawing(_compute_layout(vectors))
    further = find_further(pool, sample, embedding) if len(choices) == 1 else None
    shown = sample if further is None else np.concatenate([sample, further.rows])
    notes = _read_labels(rows)
    texts = [fmt.truncate(" ".join(text.split()), TEXT) for text in rows.texts().str.slice(0, 4 * TEXT).to_list()]
    panels = [_build_panel(choice, sample, len(pool)) for choice in choices]
    groups = [find_groups(name, values.gather(shown)) for name, values in columns.items()]
    groups = [group for group in groups if len(group.values) > 1]
    return PoolMap(
        name="map",
        title="Rows with similar texts, close together",
        caption=_write_caption(len(pool), len(sample), len(shown), choices, encoder),
        alt=f"Scatter of {len(sample):,} rows by meaning, kept rows over dropped rows. " + _write_alt(panels),
        x=x.tolist(),
        y=y.tolist(),
        texts=texts,
        notes=notes,
        panels=panels,
        groups=[replace(group, of=group.of[: len(sample)]) for group in groups],
        words=find_words(x, y, texts),
        places=find_places(pool, shown),
        small=None
        if further is None
        else place_small_dots(further, vectors, x, y, choices[0].kept, [group.of[len(sample) :] for group in groups]),
        table=_build_table(panels[0], texts, notes),
    )


def _sample_rows(n: int, choices: list[Choice]) -> Int64:
    """Return (m,) positions: rows of the whole pool, and some of the kept rows of each choice."""
    rng = np.random.default_rng(SEED)
    parts = [np.sort(rng.permutation(n)[:BACKGROUND])]
    parts += [rng.permutation(np.sort(choice.kept))[: KEPT // len(choices)] for choice in choices]
    return np.unique(np.concatenate(parts))


def _load_embeddings(rows: Dataset, embedding: Mapping[str, str] | None) -> tuple[Float32, str]:
    """Return (m, d) vectors and the name of their encoder."""
    if embedding is not None:
        cached = read_cached(rows, embedding)
        if cached is not None:
            return cached, embedding["encoder"]
    context = make_context(encoder="static")
    return compute(rows, {"embedding"}, context)["embedding"], "the included static encoder"


def _compute_layout(vectors: Float32) -> Float64:
    """Return (m, 2): t-SNE of the principal components; for few rows, the components themselves."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    n = len(vectors)
    with threadpool_limits(1):  # sums in one order: the same map on every run
        if n < 8:
            centered = vectors.astype(np.float64) - vectors.mean(axis=0)
            left, scale, _ = np.linalg.svd(centered, full_matrices=False)
            flat = np.zeros((n, 2))
            flat[:, : min(2, len(scale))] = (left * scale)[:, :2]
            return flat
        distinct, group = np.unique(vectors, axis=0, return_inverse=True)  # equal rows: one point
        if len(distinct) < 8:
            return _compute_layout(distinct[:7])[group.ravel() % 7]
        components = min(COMPONENTS, *distinct.shape)
        x = PCA(components, svd_solver="full", random_state=SEED).fit_transform(distinct)
        perplexity = min(PERPLEXITY, (len(x) - 1) / 3)
        layout = TSNE(2, perplexity=perplexity, max_iter=ITERATIONS, init="pca", random_state=SEED, n_jobs=1)
        placed: Float64 = layout.fit_transform(x.astype(np.float32)).astype(np.float64)[group.ravel()]
        return placed


def _scale_to_drawing(layout: Float64) -> tuple[Int64, Int64]:
    """Return integer coordinates that fill the drawing, with the longer axis horizontal."""
    spread = layout - layout.min(axis=0)
    if spread[:, 1].max() > spread[:, 0].max():
        spread = spread[:, ::-1]
    scale = np.where(spread.max(axis=0) > 0, spread.max(axis=0), 1.0)
    x, y = (spread / scale * [MAP_WIDTH, MAP_HEIGHT]).round().astype(np.int64).T
    return x, y


def _read_labels(rows: Dataset) -> list[str]:
    if rows.kind != "classification":
        return [""] * len(rows)
    return [fmt.truncate(label, 60) for label in column_values(rows, "label").to_list()]


def _build_panel(choice: Choice, sample: Int64, n: int) -> MapPanel:
    is_kept = np.zeros(n, dtype=bool)
    is_kept[choice.kept] = True
    shown = is_kept[sample]
    return MapPanel(choice.title, np.flatnonzero(shown).tolist(), np.flatnonzero(~shown).tolist())


def _write_caption(n: int, n_sample: int, n_shown: int, choices: list[Choice], encoder: str) -> str:
    text = f"Each dot is a row; rows with similar texts are close together (t-SNE of embeddings by {encoder})."
    if n_sample < n_shown:
        which = "all" if n_shown == n else f"{fmt.count(n_shown)} of"
        text += (
            f" It shows {which} {fmt.count(n)} rows: {fmt.count(n_sample)} with their texts, the others as small dots "
            "next to the most similar of these."
        )
    elif n_shown < n:
        of_each = "" if len(choices) == 1 else " of each panel"
        background, kept = fmt.count(min(n, BACKGROUND)), fmt.count(KEPT // len(choices))
        text += (
            f" It shows {fmt.count(n_shown)} of {fmt.count(n)} rows: {background} sampled at random from the "
            f"pool, and up to {kept} more kept rows{of_each}, so kept rows look denser than they are."
        )
    return f"{text} Distances between far-apart groups mean little. Hover over a dot, or use arrow keys, to read."


def _write_alt(panels: list[MapPanel]) -> str:
    counts = [f"{panel.title}: {len(panel.kept):,} kept dots, {len(panel.dropped):,} dropped dots." for panel in panels]
    return " ".join(counts)


def _build_table(panel: MapPanel, texts: list[str], notes: list[str]) -> Table:
    sides = {"kept": panel.kept, "dropped": panel.dropped}
    cells: list[tuple[str, ...]] = [
        (side, notes[i], texts[i]) for side, positions in sides.items() for i in positions[:IN_TABLE]
    ]
    columns: tuple[str, ...] = ("kept or dropped", "label", "row")
    if not any(label for _, label, _ in cells):
        columns, cells = (columns[0], columns[2]), [(side, text) for side, _, text in cells]
    caption = f"Some of the rows on the map ({panel.title})"
    return Table(caption=caption, columns=columns, rows=cells, text=(len(columns) - 1,), is_folded=True)


def count_groups(pool: Dataset, kept: Int64, column: str) -> pl.DataFrame:
    """Return the number of rows in the pool and of kept rows, for each value of a column."""
    values = column_values(pool, column)
    every = values.value_counts(name="pool").rename({column: "group"})
    chosen = values.gather(kept).value_counts(name="kept").rename({column: "group"})
    return (
        every.join(chosen, on="group", how="left")
        .with_columns(pl.col("kept").fill_null(0))
        .sort("pool", "group", descending=[True, False])
    )
