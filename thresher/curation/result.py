"""Curated: the rows that the rules kept, and every other row with its rule and reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic, write_ndjson, write_parquet
from thresher.artifacts.json_text import encode_json
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.result import Excerpt, copy_result
from thresher.artifacts.stored import read_table
from thresher.curation.pipeline import CurationResult
from thresher.curation.rule import Rule
from thresher.dataset import Dataset
from thresher.dataset.mixture.reload import load_kept_rows
from thresher.dataset.values.kept_rows import KeptRows

KIND = "curated"
STEM = "rows"
DROPPED, FINDINGS, CLUSTERS, MASKED = "dropped.parquet", "findings.parquet", "clusters.parquet", "masked.jsonl"
REJECTED = "rejected.jsonl"


@dataclass(frozen=True, kw_only=True, repr=False)
class Curated(KeptRows):
    """Kept and dropped rows of one pool, with the manifest that says how they were selected.

    Attributes:
        dataset: the kept rows, in the order of the pool, with masked texts where a rule masks.
        dropped: one row per dropped row, in the order of the pool: `row_id`, `file`, `line`,
            `rule`, `reason`, `explanation`, `duplicate_of`, `duplicate_in`, `similarity`,
            `cluster`, `preview`.
        findings: one row per finding on a row that was not dropped for it.
        clusters: one row per member of a group of duplicates, the kept one first.
        manifest: what ran, with which settings, counts by rule and reason.
        path: of the folder, or None when none was asked for.
        pool: the rows that were judged, (n,); None where the folder was read back.
        masked: position in the pool -> the rules that mask the row's texts; None likewise.
    """

    dataset: Dataset
    dropped: pl.DataFrame
    findings: pl.DataFrame
    clusters: pl.DataFrame
    manifest: Manifest
    path: Path | None = None
    pool: Dataset | None = None
    masked: Mapping[int, tuple[Rule, ...]] | None = None

    @staticmethod
    def from_rules(pool: Dataset, result: CurationResult, manifest: Manifest) -> Curated:
        """Return what the rules say of a pool, with its manifest."""
        return Curated(
            dataset=result.rows,
            dropped=result.dropped.drop("position"),
            findings=result.findings.drop("position"),
            clusters=result.clusters,
            manifest=manifest,
            pool=pool,
            masked=result.masked,
        )

    @staticmethod
    def read(folder: str | Path) -> Curated:
        """Read a folder that `curate` wrote.

        Raises:
            ManifestError: the folder is not one, or is damaged.
        """
        path = Path(folder)
        manifest = Manifest.read_kind(path, KIND, "cleaned rows")
        return Curated(
            dataset=load_kept_rows(path, manifest.content),
            dropped=read_table(path / DROPPED),
            findings=read_table(path / FINDINGS),
            clusters=read_table(path / CLUSTERS),
            manifest=manifest,
            path=path,
        )

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the folder, whole or not at all, and return its path.

        Files: `rows.*` (the kept rows in the user's format), `dropped.parquet`, `findings.parquet`,
        `clusters.parquet`, `masked.jsonl` (the originals of masked rows, if there are any),
        `rejected.jsonl`, `manifest.json`.
        """
        if self.pool is None and self.path is not None:
            return copy_result(self.path, self.manifest, folder, force=force)
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
        if self.pool is not None:
            if self.masked:
                _write_originals(self.pool, self.masked, folder / MASKED)
            write_ndjson(self.pool.rejected, folder / REJECTED)
        write_atomic(folder / MANIFEST, self.manifest.to_json())

    def list_facts(self) -> list[tuple[str, str]]:
        """Return how many rows each rule dropped."""
        counts = self.manifest.content["counts"]
        lines = [("kept", f"{counts['kept']:,} of {counts['usable']:,} rows")]
        lines += [(rule, f"{n:,} rows dropped") for rule, n in counts["dropped_by_rule"].items()]
        lines += [("masked", f"{counts['masked']:,} rows")] if counts["masked"] else []
        return [*lines, ("rejected", f"{counts['rejected']:,} rows that could not be used")]

    def list_excerpts(self) -> list[Excerpt]:
        """Return the first dropped rows."""
        lost = self.dropped.head(5).select("rule", "explanation", "preview")
        return [Excerpt("Dropped", lost.columns, lost.rows())]


def _write_originals(pool: Dataset, masked: Mapping[int, tuple[Rule, ...]], path: Path) -> None:
    at = sorted(masked)
    ids = pool.frame["row_id"].gather(at).to_list()
    with open(path, "wb") as file:
        for position, row_id, original in zip(at, ids, pool.rows(at), strict=True):
            rules = [rule.name for rule in masked[position]]
            entry = {"row_id": row_id, "rules": rules, "original": original}
            file.write(encode_json(entry, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS))
