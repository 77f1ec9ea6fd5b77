"""Grown: the rows that a model wrote and that were kept, and every other one with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic, write_ndjson, write_parquet
from thresher.artifacts.json_text import encode_json
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.stored import read_json_lines, read_table
from thresher.growth.candidate import Candidate
from thresher.growth.refusing import build_rows
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.dataset import Dataset

KIND, ROWS, REFUSED, REJECTED = "grown", "rows.jsonl", "refused.parquet", "rejected.jsonl"
FROM, BY, ROUND, ANSWER_FROM = "grown_from", "grown_by", "round", "answer_from"
REFUSED_SCHEMA = {
    **{"grown_from": pl.String, "file": pl.String, "line": pl.UInt64},
    **dict.fromkeys(("reason", "explanation", "prompt", "response", "answer_from"), pl.String),
}


@dataclass(frozen=True, kw_only=True)
class Grown:
    """What was grown.

    Attributes:
        rows: the kept rows, in the order of their seeds, with the user's own columns and
            `grown_from` (id of the seed), `grown_by` (the writer) and `round`; of the way "own"
            also `answer_from`, and the seeds whose own answer stays.
        refused: one row per text that was refused: `grown_from`, `file`, `line`, `reason`,
            `explanation`, `prompt` and `response` (null where they are the seed's).
        pool: the rows that were grown from.
        manifest: what ran, counts by reason, answers that were asked for.
        path: of the folder, or None.
    """

    rows: list[dict[str, Any]]
    refused: pl.DataFrame
    pool: Dataset
    manifest: Manifest
    path: Path | None = None

    def __len__(self) -> int:
        """Return the number of kept rows."""
        return len(self.rows)

    def __repr__(self) -> str:
        """Return the counts, one line each."""
        counts = self.manifest.content["counts"]
        lines = [f"  {'kept':<20}{counts['kept']:,} rows of {counts['seeds']:,} seeds"]
        lines += [f"  {reason:<20}{n:,} refused" for reason, n in counts["refused_by_reason"].items()]
        return join_lines(["Grown", *lines])

    def write_files(self, folder: Path) -> None:
        """Write `rows.jsonl`, `refused.parquet`, `rejected.jsonl` and the manifest."""
        with open(folder / ROWS, "wb") as file:
            file.writelines(encode_json(row) + b"\n" for row in self.rows)
        write_parquet(self.refused, folder / REFUSED)
        write_ndjson(self.pool.rejected, folder / REJECTED)
        write_atomic(folder / MANIFEST, self.manifest.to_json())


def tabulate(
    pool: Dataset, candidates: Sequence[Candidate], *, writer: str, number: int
) -> tuple[list[dict[str, Any]], pl.DataFrame]:
    """Return the kept rows, and the table of the refused ones.

    Args:
        pool: the seeds are in.
        candidates: kept and refused, in the order of their seeds.
        writer: name of who wrote them.
        number: of the round.
    """
    kept = [each for each in candidates if each.reason is None]
    ids = pool.frame["row_id"]
    rows = [
        {**row, **_describe_origin(each, str(ids[each.seed]), writer, number)}
        for each, row in zip(kept, build_rows(pool, kept), strict=True)
    ]
    frame = pool.frame.select("row_id", pl.col("file").cast(pl.String), pl.col("line").cast(pl.UInt64))
    refused = [
        (*frame.row(each.seed), each.reason, each.explanation, each.prompt, each.response, each.answer_from)
        for each in candidates
        if each.reason is not None
    ]
    return rows, pl.DataFrame(refused, schema=REFUSED_SCHEMA, orient="row")


def _describe_origin(candidate: Candidate, row_id: str, writer: str, number: int) -> dict[str, Any]:
    if candidate.answer_from == "gold":  # nobody's but the user's
        return {FROM: None, BY: None, ROUND: None, ANSWER_FROM: "gold"}
    origin = {FROM: row_id, BY: writer, ROUND: number}
    return origin if candidate.answer_from is None else {**origin, ANSWER_FROM: candidate.answer_from}


def count_outcomes(candidates: Sequence[Candidate], n_seeds: int) -> dict[str, Any]:
    """Return how many seeds were asked, texts written, rows kept, and refused by reason."""
    reasons = Counter(each.reason for each in candidates if each.reason is not None)
    kept = [each for each in candidates if each.reason is None]
    counts: dict[str, Any] = {
        "seeds": n_seeds,
        "kept": len(kept),
        "seeds_with_rows": len({each.seed for each in kept}),
        "refused": sum(reasons.values()),
        "refused_by_reason": dict(sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))),
    }
    sources = Counter(each.answer_from for each in kept if each.answer_from is not None)
    return counts | ({"answer_from": dict(sources)} if sources else {})


def read_grown(folder: Path, pool: Dataset) -> Grown:
    """Read back the folder of `grow`.

    Args:
        folder: that it wrote.
        pool: the rows that were grown from.

    Raises:
        ManifestError: it is no such folder, or a file is damaged or missing.
    """
    manifest = Manifest.read_kind(folder, KIND, "a folder that 'grow' wrote")
    refused = read_table(folder / REFUSED)
    return Grown(rows=read_json_lines(folder / ROWS), refused=refused, pool=pool, manifest=manifest, path=folder)
