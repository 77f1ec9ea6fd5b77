"""The parts of a map: values that points are colored by, and words for what lies where."""

from __future__ import annotations

import numpy as np
import polars as pl

from thresher.numeric.arrays import Int64
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.palette import METHOD_TONES
from thresher.reporting.page import MapGroups, MapWords

MAX_PARTS = 12
POINTS_OF_A_PART = 60  # at least, on average
MIN_ROWS = 5  # of a part that must hold a word
MIN_LIFT = 3.0  # how many times as frequent a word must be in its part as elsewhere
N_WORDS = 2
MARGIN, LINE = 110, 28  # half of the room that words take, and a line, in units of the drawing
SEED = 0


def find_groups(name: str, values: pl.Series) -> MapGroups:
    """Return the values with a color of their own, the most frequent first, and the rest as one.

    Args:
        name: of the column.
        values: (n,) of each point.
    """
    texts = values.cast(pl.String).fill_null("(none)")
    counts = texts.value_counts(name="n").sort("n", texts.name, descending=[True, False])
    shown = counts[texts.name].head(len(METHOD_TONES)).to_list()
    place = {value: i for i, value in enumerate(shown)}
    names = [fmt.truncate(value, 40) or "(empty)" for value in shown]
    if len(counts) > len(shown):
        names.append(f"{len(counts) - len(shown):,} others")
    return MapGroups(name, names, [place.get(value, len(shown)) for value in texts])


def find_words(x: Int64, y: Int64, texts: list[str]) -> list[MapWords]:
    """Return the words of each part of the map: frequent in it, and rare elsewhere.

    Parts are clusters of the drawing (k-means). The score of a word is the share of the part's rows
    that hold it, times the logarithm of how many times as frequent it is there as elsewhere.

    Args:
        x: (n,) where the points are drawn, to the right.
        y: (n,) where they are drawn, downwards.
        texts: (n,) the rows.
    """
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import CountVectorizer

    n_parts = min(MAX_PARTS, len(texts) // POINTS_OF_A_PART)
    if n_parts < 2:
        return []
    places = np.column_stack([x, y]).astype(np.float64)
    part = KMeans(n_parts, n_init=4, random_state=SEED).fit_predict(places)
    counter = CountVectorizer(binary=True, stop_words="english", token_pattern=r"(?u)\b[^\W\d_]{3,20}\b")
    try:
        has = counter.fit_transform(texts).tocsr()
    except ValueError:  # no text holds a word
        return []
    words = counter.get_feature_names_out()
    found: list[MapWords] = []
    total = np.asarray(has.sum(axis=0)).ravel()
    for number in range(n_parts):
        is_inside = part == number
        inside = np.asarray(has[is_inside].sum(axis=0)).ravel()
        share = inside / is_inside.sum()
        elsewhere = (total - inside + 1.0) / (len(texts) - is_inside.sum() + 1.0)
        lift = np.maximum(share / elsewhere, 1.0)
        score = np.where((inside >= MIN_ROWS) & (lift > MIN_LIFT), share * np.log(lift), 0.0)
        best = [int(i) for i in np.argsort(-score, kind="stable")[:N_WORDS] if score[i] > 0]
        if best:
            across, down = np.median(places[is_inside], axis=0).round().astype(int).tolist()
            across = min(max(across, MARGIN), int(x.max()) - MARGIN)
            if all(abs(across - other.x) > 2 * MARGIN or abs(down - other.y) > LINE for other in found):
                found.append(MapWords(across, down, ", ".join(words[best])))
    return found
