"""A map of the pool: rows that mean the same lie together, and one sees which are kept and which are dropped.

Only a sample is shown, so that the page stays small and quick at any number of rows. Its embeddings
come from the cache where `select` left them, or else from the embedded static encoder. They are
laid out by t-SNE (van der Maaten and Hinton 2008; Barnes-Hut, van der Maaten 2014), started from
the principal components, so that the large structure is that of the data and the same rows give the
same map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.cache.keys import text_keys
from thresher.dataset import Dataset
from thresher.features import FeatureCache, column_values, compute, make_context
from thresher.reporting.page import MapPanel, PoolMap, Table
from thresher.reporting.rendering import MAP_HEIGHT, MAP_WIDTH
from thresher.reporting.wording import count, cut

BACKGROUND = 1_400  # rows drawn from the whole pool
KEPT = 600  # kept rows drawn besides, over all panels together
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
    kept: NDArray[np.int64]


def pool_map(pool: Dataset, choices: list[Choice], embedding: Mapping[str, str] | None) -> PoolMap:
    """Return the map of a pool with the kept and the dropped rows of each choice.

    Cost: about 5 s for the layout of 2,000 points, whatever the size of the pool.

    Args:
        pool: every row.
        choices: at least one.
        embedding: `encoder` and `fingerprint` of the embeddings that the choice was made with, or
            None.
    """
    sample = _sample(len(pool), choices)
    rows = pool.take(sample)
    vectors, encoder = _embeddings(rows, embedding)
    x, y = _placed(_layout(vectors))
    notes = _notes(rows)
    texts = [cut(" ".join(text.split()), TEXT) for text in rows.texts().str.slice(0, 4 * TEXT).to_list()]
    panels = [_panel(choice, sample, len(pool)) for choice in choices]
    return PoolMap(
        name="map",
        title="Map of the pool",
        caption=_caption(len(pool), len(sample), choices, encoder),
        alt=f"Scatter of {len(sample):,} rows by meaning, kept rows over dropped rows. " + _alt(panels),
        x=x.tolist(),
        y=y.tolist(),
        texts=texts,
        notes=notes,
        panels=tuple(panels),
        table=_table(panels[0], texts, notes),
    )


def _sample(n: int, choices: list[Choice]) -> NDArray[np.int64]:
    """Return (m,) positions: rows of the whole pool, and some of the kept rows of each choice."""
    rng = np.random.default_rng(SEED)
    parts = [np.sort(rng.permutation(n)[:BACKGROUND])]
    parts += [rng.permutation(np.sort(choice.kept))[: KEPT // len(choices)] for choice in choices]
    return np.unique(np.concatenate(parts))


def _embeddings(rows: Dataset, embedding: Mapping[str, str] | None) -> tuple[NDArray[np.float32], str]:
    """Return (m, d) vectors and who made them."""
    if embedding is not None:
        found = _cached(rows, embedding)
        if found is not None:
            return found, embedding["encoder"]
    context = make_context(encoder="static")
    return compute(rows, {"embedding"}, context)["embedding"], "the embedded static encoder"


def _cached(rows: Dataset, embedding: Mapping[str, str]) -> NDArray[np.float32] | None:
    """Return the vectors from the cache, or None when it has not all of them; no model is loaded."""
    keys, group = np.unique(text_keys(rows.texts().to_list()), return_inverse=True)
    partition = FeatureCache().partition("embedding", embedding["encoder"], embedding["fingerprint"])
    out: NDArray[np.float32] | None = None
    n_found = 0
    for positions, values in partition.read(keys, on_damage=lambda _: None):
        if out is None:
            out = np.zeros((len(keys), values.shape[1]), dtype=np.float32)
        out[positions] = values
        n_found += len(positions)
    return None if out is None or n_found < len(keys) else out[group]


def _layout(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (m, 2): t-SNE of the principal components; of few rows, the components themselves."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    n = len(vectors)
    with threadpool_limits(1):  # sums in one order: the same map on every run
        if n < 8:
            centred = vectors.astype(np.float64) - vectors.mean(axis=0)
            left, scale, _ = np.linalg.svd(centred, full_matrices=False)
            flat = np.zeros((n, 2))
            flat[:, : min(2, len(scale))] = (left * scale)[:, :2]
            return flat
        distinct, group = np.unique(vectors, axis=0, return_inverse=True)  # equal rows lie on one another
        if len(distinct) < 8:
            return _layout(distinct[:7])[group.ravel() % 7]
        components = min(COMPONENTS, *distinct.shape)
        x = PCA(components, svd_solver="full", random_state=SEED).fit_transform(distinct)
        perplexity = min(PERPLEXITY, (len(x) - 1) / 3)
        layout = TSNE(2, perplexity=perplexity, max_iter=ITERATIONS, init="pca", random_state=SEED, n_jobs=1)
        placed: NDArray[np.float64] = layout.fit_transform(x.astype(np.float32)).astype(np.float64)[group.ravel()]
        return placed


def _placed(layout: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return whole numbers in the drawing, the long side across."""
    spread = layout - layout.min(axis=0)
    if spread[:, 1].max() > spread[:, 0].max():
        spread = spread[:, ::-1]
    scale = np.where(spread.max(axis=0) > 0, spread.max(axis=0), 1.0)
    x, y = (spread / scale * [MAP_WIDTH, MAP_HEIGHT]).round().astype(np.int64).T
    return x, y


def _notes(rows: Dataset) -> list[str]:
    if rows.kind != "classification":
        return [""] * len(rows)
    return [cut(label, 60) for label in column_values(rows, "label").to_list()]


def _panel(choice: Choice, sample: NDArray[np.int64], n: int) -> MapPanel:
    is_kept = np.zeros(n, dtype=bool)
    is_kept[choice.kept] = True
    shown = is_kept[sample]
    return MapPanel(choice.title, np.flatnonzero(shown).tolist(), np.flatnonzero(~shown).tolist())


def _caption(n: int, n_shown: int, choices: list[Choice], encoder: str) -> str:
    text = f"Each dot is a row; rows with similar texts lie together (t-SNE of embeddings by {encoder})."
    if n_shown < n:
        whose = "" if len(choices) == 1 else " of each panel"
        text += (
            f" Shown are {count(n_shown)} of {count(n)} rows: {count(min(n, BACKGROUND))} drawn at random from the "
            f"pool, and up to {count(KEPT // len(choices))} more kept rows{whose}, "
            f"so kept rows look denser than they are."
        )
    return f"{text} Distances between far groups mean little. Point at a dot, or move with the arrow keys, to read it."


def _alt(panels: list[MapPanel]) -> str:
    return " ".join(
        f"{panel.title}: {len(panel.kept):,} kept dots, {len(panel.dropped):,} dropped dots." for panel in panels
    )


def _table(panel: MapPanel, texts: list[str], notes: list[str]) -> Table:
    rows = [("kept", notes[i], texts[i]) for i in panel.kept[:IN_TABLE]]
    rows += [("dropped", notes[i], texts[i]) for i in panel.dropped[:IN_TABLE]]
    has_notes = any(note for _, note, _ in rows)
    columns = ("kept or dropped", "label", "row") if has_notes else ("kept or dropped", "row")
    cells = rows if has_notes else [(side, text) for side, _, text in rows]
    return Table(
        caption=f"Some of the rows on the map ({panel.title})",
        columns=columns,
        rows=tuple(cells),
        text=frozenset({len(columns) - 1}),
        is_folded=True,
    )


def balance(pool: Dataset, kept: NDArray[np.int64], column: str) -> pl.DataFrame:
    """Return, for each value of a column, the number of rows in the pool and among the kept ones."""
    values = column_values(pool, column)
    every = values.value_counts(name="pool").rename({column: "group"})
    chosen = values.gather(kept).value_counts(name="kept").rename({column: "group"})
    return (
        every.join(chosen, on="group", how="left")
        .with_columns(pl.col("kept").fill_null(0))
        .sort("pool", "group", descending=[True, False])
    )
