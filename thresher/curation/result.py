"""Curated: the rows that the rules kept, and every other row with its rule and reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic, write_ndjson, write_parquet
from thresher.artifacts.manifest import Manifest
from thresher.curation.pipeline import CurationResult
from thresher.printable import escape_html, join_lines

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from thresher.dataset import Dataset

STEM = "rows"
DROPPED, FINDINGS, CLUSTERS, MASKED = "dropped.parquet", "findings.parquet", "clusters.parquet", "masked.jsonl"
REJECTED = "rejected.jsonl"


@dataclass(frozen=True, kw_only=True)
class Curated:
    """Kept rows and dropped rows of one pool, with the manifest of how they came to be.

    Attributes:
        pool: the rows that were judged, (n,).
        dataset: the kept rows, in the order of the pool, with masked texts where a rule masks.
        result: what the rules said.
        manifest: what ran, with which settings, counts by rule and reason.
    """

    pool: Dataset
    dataset: Dataset
    result: CurationResult
    manifest: Manifest

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The kept rows, each with all of the user's own columns."""
        return self.dataset.rows(np.arange(len(self)))

    @property
    def dropped(self) -> pl.DataFrame:
        """One row per dropped row, in the order of the pool.

        Columns: `row_id`, `file`, `line`, `rule`, `reason`, `explanation`, `duplicate_of`,
        `duplicate_in`, `similarity`, `cluster`, `preview_rows`.
        """
        return self.result.dropped.drop("position")

    @property
    def findings(self) -> pl.DataFrame:
        """One row per finding on a row that was not dropped for it."""
        return self.result.findings.drop("position")

    @property
    def clusters(self) -> pl.DataFrame:
        """One row per member of a group of duplicates, the kept one first."""
        return self.result.clusters

    def __len__(self) -> int:
        """Return the number of kept rows."""
        return len(self.dataset)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the kept rows, each with all of the user's own columns."""
        return iter(self.dataset)

    def head(self, n: int = 5) -> pl.DataFrame:
        """Return the user's own columns of the first kept rows."""
        return self.dataset.head(n)

    def to_polars(self) -> pl.DataFrame:
        """Return the kept rows as a polars table of the user's own columns."""
        return self.dataset.to_polars()

    def to_pandas(self) -> pd.DataFrame:
        """Return the kept rows as a pandas table of the user's own columns."""
        return self.dataset.to_pandas()

    def to_datasets(self) -> datasets.Dataset:
        """Return the kept rows as a Hugging Face `datasets.Dataset`."""
        return self.dataset.to_datasets()

    def to_dataset(self) -> datasets.Dataset:
        """Return the kept rows as a Hugging Face `datasets.Dataset`: `to_datasets`, as it was."""
        return self.dataset.to_datasets()

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the folder, whole or not at all, and return its path.

        Files: `rows.*` (the kept rows in the user's format), `dropped.parquet`, `findings.parquet`,
        `clusters.parquet`, `masked.jsonl` (the originals of masked rows, if there are any),
        `rejected.jsonl`, `manifest.json`.
        """
        with OutputFolder(folder, identity=self.manifest.identity, force=force) as out:
            if not out.is_done:
                out.publish_files(self.write_files)
            return out.path

    def write_files(self, folder: Path) -> None:
        """Write the files into an existing folder, the manifest last."""
        self.dataset.write(np.arange(len(self)), folder, STEM)
        write_parquet(self.dropped, folder / DROPPED)
        write_parquet(self.findings, folder / FINDINGS)
        write_parquet(self.clusters, folder / CLUSTERS)
        if self.result.masked:
            _write_originals(self.pool, self.result, folder / MASKED)
        write_ndjson(self.pool.rejected, folder / REJECTED)
        write_atomic(folder / MANIFEST, self.manifest.to_json())

    def _summary(self) -> list[tuple[str, str]]:
        counts = self.manifest.content["counts"]
        lines = [("kept", f"{counts['kept']:,} of {counts['usable']:,} rows")]
        lines += [(rule, f"{n:,} rows dropped") for rule, n in counts["dropped_by_rule"].items()]
        lines += [("masked", f"{counts['masked']:,} rows")] if counts["masked"] else []
        return [*lines, ("rejected", f"{counts['rejected']:,} rows that could not be used")]

    def __repr__(self) -> str:
        """Return the counts, one line each."""
        width = max(len(name) for name, _ in self._summary()) + 2
        return join_lines(["Curated", *(f"  {name:<{width}}{text}" for name, text in self._summary())])

    def _repr_html_(self) -> str:
        """Return the counts and the first dropped rows as HTML; all text is escaped."""
        head = "".join(
            f"<tr><th>{escape_html(name)}</th><td>{escape_html(text)}</td></tr>" for name, text in self._summary()
        )
        dropped = "".join(
            "<tr>"
            + "".join(f"<td style='text-align:left'>{escape_html(str(cell)[:160])}</td>" for cell in row)
            + "</tr>"
            for row in self.dropped.head(5).select("rule", "explanation", "preview").iter_rows()
        )
        return f"<table>{head}</table><b>Dropped</b><table>{dropped}</table>"


def _write_originals(pool: Dataset, result: CurationResult, path: Path) -> None:
    at = sorted(result.masked)
    ids = pool.frame["row_id"].gather(at).to_list()
    with open(path, "wb") as file:
        for position, row_id, original in zip(at, ids, pool.rows(at), strict=True):
            rules = [rule.name for rule in result.masked[position]]
            entry = {"row_id": row_id, "rules": rules, "original": original}
            file.write(orjson.dumps(entry, default=str, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS))
