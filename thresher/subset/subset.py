"""Subset: the kept rows, and every other row with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic, write_ndjson, write_parquet
from thresher.artifacts.local_path import expand_path
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.remote.fetch import localize
from thresher.artifacts.result import Excerpt
from thresher.artifacts.stored import read_table
from thresher.dataset.values.kept_rows import KeptRows
from thresher.errors import TEMPORARY, InputError, ManifestError, find_exit_code
from thresher.numeric.units import format_count
from thresher.subset.cut import REASONS, build_rank_column
from thresher.subset.looking import explain_row, plot_subset, resize
from thresher.subset.scores import Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from thresher.dataset import Dataset
    from thresher.subset.budget import Budget

SUBSET, PILOT = "subset", "pilot.json"
PILOTS = ("trained_pilot", "pilot")  # sections of the manifest that say how `auto` decided


@dataclass(frozen=True, kw_only=True, repr=False)
class Subset(KeptRows):
    """Kept and dropped rows of one pool, with the manifest that says how they were selected.

    Attributes:
        pool: the rows that were chosen from, (n,).
        scores: of the pool's rows, in the pool's order.
        kept: (k,) positions in the pool, in the order in which they are written.
        dropped: one row per dropped row: `row_id`, `file`, `line`, `reason`, `explanation`,
            `value`, `rank`, `covered_by`, `similarity`, `preview`.
        manifest: what ran, with which settings, counts by reason.
        path: of the folder, or None when none was asked for.
    """

    pool: Dataset
    scores: Scores
    kept: NDArray[np.int64]
    dropped: pl.DataFrame
    manifest: Manifest
    path: Path | None = None

    @property
    def dataset(self) -> Dataset:  # type: ignore[override] # read, never set
        """The kept rows as a Dataset."""
        return self.pool.take(self.kept)

    def explain(self, row: int | str) -> str:
        """Return in one sentence why a row of the pool was kept or dropped.

        Args:
            row: its number in the pool, from 0, or its id.

        Raises:
            InputError: the pool has not so many rows.
            NotFoundError: no row has this id.
        """
        return explain_row(self, row)

    def resize(self, budget: int | float | str | Budget) -> Subset:
        """Return the subset that the same ranking gives with another budget, at once.

        Raises:
            InputError: the budget needs rows that were not ranked, or is in tokens; or there is a
                quota.
        """
        kept, dropped, manifest = resize(self, budget)
        return replace(self, kept=kept, dropped=dropped, manifest=manifest, path=None)

    def plot(self) -> Figure:
        """Draw the kept rows beside the pool, by label or length, and the reasons of the drops.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        return plot_subset(self)

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the subset folder, whole or not at all, and return its path.

        Files: `subset.*` (the user's rows in the user's format), `dropped.parquet`,
        `scores.parquet`, `rejected.jsonl` (rows that could not be used), `pilot.json` (how `auto`
        decided), `manifest.json`.

        Raises:
            OutputError: the folder holds something else and `force` is not set, or cannot be
                written.
        """
        with OutputFolder(folder, identity=self.manifest.identity, force=force) as out:
            if not out.is_done:
                out.publish_files(self.write_files)
            return out.path

    def write_files(self, folder: Path) -> None:
        """Write the files of a subset folder into an existing folder, the manifest last."""
        self.pool.write(self.kept, folder, "subset")
        write_parquet(self.dropped, folder / "dropped.parquet")
        write_parquet(self.score_table(), folder / "scores.parquet")
        write_ndjson(self.pool.rejected, folder / "rejected.jsonl")
        if pilot := self.manifest.content.get("pilot"):
            write_atomic(folder / PILOT, orjson.dumps(pilot, option=orjson.OPT_INDENT_2))
        write_atomic(folder / MANIFEST, self.manifest.to_json())

    def score_table(self) -> pl.DataFrame:
        """Return one row per row of the pool.

        Columns: `row_id`, `value`, `rank` (1 = best, null = not ranked), `position` (in the subset
        from 0, null = dropped).
        """
        position = np.full(len(self.pool), -1, dtype=np.int64)
        position[self.kept] = np.arange(len(self.kept))
        return score_table(self.pool.frame["row_id"], self.scores.value, build_rank_column(self.scores), position)

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the method, and how many rows became what."""
        counts: Mapping[str, Any] = self.manifest.content["counts"]
        dropped = ", ".join(f"{n:,} {REASONS[reason]}" for reason, n in counts["dropped_by_reason"].items())
        return [
            ("method", str(self.manifest.content["method"])),
            *(("decision", why) for why in list_decisions(self.manifest.content)),
            ("kept", f"{counts['kept']:,} of {counts['usable']:,} rows (budget {self.manifest.content['budget']})"),
            ("dropped", format_count(counts["dropped"], "row") + (f": {dropped}" if dropped else "")),
            ("rejected", f"{format_count(counts['rejected'], 'row')} that could not be used"),
            ("seed", str(self.manifest.content["seed"])),
        ]

    def list_excerpts(self) -> list[Excerpt]:
        """Return the first kept and dropped rows."""
        first = self.pool.frame[self.kept[:5]].select(kept=pl.concat_str("prompt", pl.lit(" → "), "response"))
        lost = self.dropped.head(5).select("preview", "explanation")
        return [Excerpt("Kept", first.columns, first.rows()), Excerpt("Dropped", lost.columns, lost.rows())]


def list_decisions(content: Mapping[str, Any]) -> list[str]:
    """Return how `auto` decided on the method, in sentences; none where the method was named.

    Args:
        content: of a subset's manifest.
    """
    return [content[name]["why"] for name in PILOTS if content.get(name)]


def score_table(row_id: pl.Series, value: Any, rank: pl.Series, position: NDArray[np.int64]) -> pl.DataFrame:
    """Return the table of `Subset.score_table`; a position of -1 stands for a dropped row."""
    place = pl.Series(position).replace(-1, None)
    return pl.DataFrame({"row_id": row_id, "value": value, "rank": rank, "position": place})


def read_tables(folder: str | Path, stem: str) -> pl.DataFrame:
    """Read a table of a subset folder, which is one file or one for each shard of the pool.

    Raises:
        ManifestError: it is not there, or damaged.
    """
    paths = list_table_files(folder, f"{stem}.parquet")
    if not paths:
        raise ManifestError(f"{folder}: must hold {stem}.parquet, found none; run select again")
    return pl.concat([read_table(path) for path in paths])


def list_table_files(folder: str | Path, name: str) -> list[Path]:
    """Return the files of a table in a subset folder, in order: NAME, or one per shard."""
    stem, _, suffix = name.rpartition(".")
    return sorted([*Path(folder).glob(name), *Path(folder).glob(f"{stem}-*.{suffix}")])


def read_subset(folder: str | Path, pool: Dataset) -> Subset:
    """Read a subset folder back.

    Args:
        folder: as written by `Subset.save` or `select(out=...)`.
        pool: the rows it was chosen from.

    Raises:
        ManifestError: the folder is no subset, or the pool is not the one it was chosen from.
    """
    manifest = _subset_manifest(folder)
    scores, kept = parse_tables(folder, manifest)
    if not scores.row_id.equals(pool.frame["row_id"]):
        raise ManifestError(
            f"{folder}: was chosen from other rows than the {len(pool)} of the pool given; run select again"
        )
    dropped = read_tables(folder, "dropped")
    return Subset(pool=pool, scores=scores, kept=kept, dropped=dropped, manifest=manifest, path=Path(folder))


def parse_tables(folder: str | Path, manifest: Manifest) -> tuple[Scores, NDArray[np.int64]]:
    """Return the scores of all rows and the positions of the kept ones, from a subset folder."""
    table = read_tables(folder, "scores")
    scores = Scores(row_id=table["row_id"], value=table["value"].to_numpy(), by=str(manifest.content["method"]))
    position = table["position"].fill_null(-1).to_numpy()
    kept = np.flatnonzero(position >= 0)
    return scores, kept[np.argsort(position[kept])]


def open_subset(folder: str | Path) -> Subset:
    """Read a subset folder, and the pool it was chosen from at the path where it was then.

    Raises:
        ManifestError: the folder is no subset, or its pool is gone or has changed.
    """
    from thresher.dataset.mixture.reload import load_recorded

    folder = expand_path(localize(folder))
    content = _subset_manifest(folder).content
    paths = [_find_pool_file(path) for path in content["run"]["inputs"]]
    gone = [path for path in paths if not path.is_file()]
    if gone:
        raise ManifestError(
            f"{folder}: the pool that it was selected from is no longer at {gone[0]}; name the pool with "
            f"--control, or skip the comparison with --control none"
        )
    pool = load_recorded(paths, content["schema"], id_column=content["id_column"])
    if pool.fingerprint != content["pool"]:  # as where a cleaned part of the files was the pool
        pool = _take_recorded_rows(pool, read_tables(folder, "scores")["row_id"])
    if pool.fingerprint != content["pool"]:
        raise ManifestError(
            f"{folder}: the pool at {paths[0]} has changed since these rows were selected; run select again, or "
            f"skip the comparison with --control none"
        )
    return read_subset(folder, pool)


def _take_recorded_rows(rows: Dataset, row_id: pl.Series) -> Dataset:
    """Return the rows of these ids in this order; all rows where one of them is not there."""
    number = pl.int_range(pl.len()).over("row_id").alias("number")  # equal rows have equal ids
    there = rows.frame.select("row_id", number, at=pl.int_range(pl.len()))
    wanted = pl.DataFrame({"row_id": row_id}).with_columns(number)
    at = wanted.join(there, on=["row_id", "number"], how="left", maintain_order="left")["at"]
    return rows if at.null_count() else rows.take(at.to_numpy())


def _find_pool_file(recorded: str) -> Path:
    """Return where a file of a pool is, or a copy of what is at its address."""
    try:
        return Path(localize(recorded))
    except InputError as error:
        if find_exit_code(error) == TEMPORARY:
            raise
        return Path(recorded)


def read_subset_rows(folder: str | Path) -> Dataset:
    """Read the kept rows of a subset folder alone, without the pool they were chosen from.

    Raises:
        ManifestError: the folder is no subset, or damaged.
    """
    from thresher.dataset.mixture.reload import load_kept_rows

    folder = expand_path(localize(folder))
    return load_kept_rows(folder, _subset_manifest(folder).content)


def is_subset_folder(folder: str | Path) -> bool:
    """Tell whether rows are the folder of a subset, by its manifest; other folders are just rows.

    Raises:
        ManifestError: its manifest is damaged.
    """
    path = Path(localize(folder))
    return (path / MANIFEST).is_file() and Manifest.read(path).content.get("kind") == SUBSET


def _subset_manifest(folder: str | Path) -> Manifest:
    return Manifest.read_kind(folder, SUBSET, "a subset")
