"""What was chosen, as the pages of experiments show it."""

from pathlib import Path

import polars as pl

from thresher.dataset import load
from thresher.reporting import formatting as fmt
from thresher.reporting.pages import experiment_tables as tables
from thresher.reporting.pages.rows.pool import Pool


def test_the_map_shows_the_largest_choice_alone(color_rows, monkeypatch):
    pool = load(color_rows)
    ids = pool.frame["row_id"]
    monkeypatch.setattr(tables, "read_pool", lambda content, row_ids: Pool(rows=pool))
    monkeypatch.setattr(tables, "build_pool_map", lambda rows, choices, *rest: choices)
    parts = [
        pl.DataFrame({"row_id": ids.gather(rows), "n_rows": [len(rows)] * len(rows)}).with_columns(
            pl.lit("diverse").alias("method"), pl.lit(0).alias("seed"), rank=pl.int_range(1, len(rows) + 1)
        )
        for rows in ([1, 2, 3, 4, 5], [7, 8, 9])
    ]
    for picks, n in ((pl.concat(parts), 5), (pl.concat(parts).drop("n_rows"), 8)):
        experiment = tables.Experiment(
            folder=Path(),
            content={},
            cells=pl.DataFrame(),
            picks=picks,
            metric=fmt.describe_metric("accuracy", [0.5], is_higher_better=True, task=None),
            methods=("diverse",),
            tones={},
            shapes={},
        )
        [choice] = tables.build_maps(experiment)[0]
        assert choice.title == f"diverse: {n} rows, seed 0"
        assert choice.kept.tolist() == [1, 2, 3, 4, 5, *([] if n == 5 else [7, 8, 9])]
