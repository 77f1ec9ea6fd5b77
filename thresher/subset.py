"""Subset: the kept rows, and every other row with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.budget import Budget, Quota
from thresher.errors import InputError, ManifestError
from thresher.manifest import Manifest
from thresher.output import MANIFEST, OutputFolder, write_whole
from thresher.scores import Scores

if TYPE_CHECKING:
    import datasets

    from thresher.dataset import Dataset

REASONS = {
    "covered": "a kept row stands for it",
    "over-budget": "ranked after the last row that fits the budget",
    "over-quota": "its group has its quota of rows",
    "below-threshold": "its score is not above the threshold",
    "excluded": "the method gives it no place",
}


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Which rows of a ranking are kept.

    Attributes:
        kept: (k,) positions, best first.
        reason: (n,) index into REASONS for each dropped row, -1 for a kept one.
    """

    kept: NDArray[np.int64]
    reason: NDArray[np.int8]


def cut(
    scores: Scores,
    budget: Budget,
    *,
    lengths: NDArray[np.int64] | None = None,
    quota: Quota | None = None,
    codes: NDArray[np.int64] | None = None,
    names: list[str] | None = None,
) -> Cut:
    """Cut a ranking to a budget. A larger budget keeps the same rows and more.

    Args:
        scores: of n rows.
        budget: how much to keep. Tokens: rows are kept in order of rank until the next one would not fit.
        lengths: (n,) tokens of each row, for a budget in tokens.
        quota: wanted proportions of the values of a column.
        codes: (n,) group of each row, for a quota.
        names: the value behind each code, for a quota.

    Raises:
        InputError: the budget does not fit the pool.
    """
    n, ranking = len(scores), scores.ranking()
    if not len(ranking) and scores.excluded is not None:
        why = scores.excluded.value_counts().sort("count", descending=True)
        raise InputError(f"{scores.by}: at least one row must be left, but all {n} are excluded ({why.row(0)[0]})")
    by_score = ranking
    if quota is not None:
        if codes is None or names is None:
            raise AssertionError("a quota needs codes and names")
        ranking = quota.reorder(by_score, codes, names)
        if not len(ranking):
            raise InputError(f"quota: {quota} allows no row of the {n} in the pool; raise a limit")
    if budget.unit == "threshold":
        kept = ranking[scores.value[ranking] > budget.amount]
        if not len(kept):
            best = f"the highest is {scores.value.max():.4g}"
            raise InputError(f"budget: {budget} keeps no row of the {n} scored by {scores.by}; {best}")
    elif budget.unit == "tokens":
        if lengths is None:
            raise AssertionError("a budget in tokens needs the lengths")
        budget.n_rows(n, lengths)
        kept = ranking[: int(np.searchsorted(np.cumsum(lengths[ranking]), budget.amount, side="right"))]
        if not len(kept):
            raise InputError(
                f"budget: must hold at least the first row of the ranking ({int(lengths[ranking[0]])} tokens), "
                f"got {budget.amount:.0f} tokens; choose more"
            )
    else:
        kept = ranking[: budget.n_rows(n)]
    passed_over = np.empty(0, np.int64) if quota is None else _passed_over(scores, by_score, ranking, kept, budget)
    return Cut(kept=kept, reason=_reasons(scores, kept, passed_over, threshold=budget.unit == "threshold"))


def _passed_over(
    scores: Scores, by_score: NDArray[np.int64], allowed: NDArray[np.int64], kept: NDArray[np.int64], budget: Budget
) -> NDArray[np.int64]:
    """Return the rows that the budget alone would not have dropped, but a quota did (kept rows may be among them).

    Args:
        scores: of n rows.
        by_score: (m,) positions of the ranked rows, best first.
        allowed: (<= m,) those that the quota allows, in its order.
        kept: positions of the kept rows.
        budget: a threshold drops the rows below it; another budget, when it is used up, those behind the last kept row.
    """
    if budget.unit == "threshold":
        return by_score[scores.value[by_score] > budget.amount]
    if len(kept) == len(allowed):
        return by_score
    return by_score[: int(np.flatnonzero(np.isin(by_score, kept))[-1])]


def _reasons(
    scores: Scores, kept: NDArray[np.int64], passed_over: NDArray[np.int64], *, threshold: bool
) -> NDArray[np.int8]:
    code = {name: number for number, name in enumerate(REASONS)}
    reason = np.full(len(scores), code["below-threshold" if threshold else "over-budget"], dtype=np.int8)
    is_kept = np.zeros(len(scores), dtype=bool)
    is_kept[kept] = True
    if scores.covered_by is not None:
        covered = scores.covered_by >= 0
        covered[covered] = is_kept[scores.covered_by[covered]]
        reason[covered] = code["covered"]
    reason[passed_over] = code["over-quota"]
    if scores.excluded is not None:
        reason[scores.excluded.is_not_null().to_numpy()] = code["excluded"]
    reason[is_kept] = -1
    return reason


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Kept rows and dropped rows of one pool, with the manifest of how they came to be.

    Attributes:
        pool: the rows that were chosen from, (n,).
        scores: of the pool's rows, in the pool's order.
        kept: (k,) positions in the pool, in the order in which they are written.
        dropped: one row per dropped row: `row_id`, `file`, `line`, `reason`, `explanation`, `value`, `rank`,
            `covered_by`, `similarity`, `preview`.
        manifest: what ran, with which settings, counts by reason.
    """

    pool: Dataset
    scores: Scores
    kept: NDArray[np.int64]
    dropped: pl.DataFrame
    manifest: Manifest

    @property
    def dataset(self) -> Dataset:
        """The kept rows as a Dataset."""
        return self.pool.take(self.kept)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The kept rows, each with all of the user's own columns."""
        return self.pool.rows(self.kept)

    def __len__(self) -> int:
        """Return the number of kept rows."""
        return len(self.kept)

    def to_dataset(self) -> datasets.Dataset:
        """Return the kept rows as a Hugging Face `datasets.Dataset`.

        Raises:
            MissingExtraError: the package `datasets` is not installed.
        """
        from thresher.errors import MissingExtraError

        try:
            import datasets
        except ModuleNotFoundError:
            raise MissingExtraError("datasets", "Subset.to_dataset", "hub") from None
        return datasets.Dataset.from_list(self.rows)

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the subset folder, whole or not at all, and return its path.

        Files: `subset.*` (the user's rows in the user's format), `dropped.parquet`, `scores.parquet`,
        `rejected.jsonl` (rows that could not be used), `manifest.json`.

        Raises:
            OutputError: the folder holds something else and `force` is not set, or cannot be written.
        """
        with OutputFolder(folder, identity=self.manifest.identity, force=force) as out:
            if not out.is_done:
                self.write_into(out.work)
                out.publish()
            return out.path

    def write_into(self, folder: Path) -> None:
        """Write the files of a subset folder into an existing folder, the manifest last."""
        self.pool.write(self.kept, folder, "subset")
        _write_parquet(self.dropped, folder / "dropped.parquet")
        _write_parquet(self.score_table(), folder / "scores.parquet")
        (folder / "rejected.jsonl").write_text(self.pool.rejected.write_ndjson(), encoding="utf-8")
        write_whole(folder / MANIFEST, self.manifest.to_json())

    def score_table(self) -> pl.DataFrame:
        """Return one row per row of the pool.

        Columns: `row_id`, `value`, `rank` (1 = best, null = not ranked), `position` (in the subset from 0, null =
        dropped).
        """
        position = np.full(len(self.pool), -1, dtype=np.int64)
        position[self.kept] = np.arange(len(self.kept))
        return pl.DataFrame(
            {
                "row_id": self.pool.frame["row_id"],
                "value": self.scores.value,
                "rank": rank_column(self.scores),
                "position": pl.Series(position).replace(-1, None),
            }
        )

    def _summary(self) -> list[tuple[str, str]]:
        counts: Mapping[str, Any] = self.manifest.content["counts"]
        dropped = ", ".join(f"{n:,} {REASONS[reason]}" for reason, n in counts["dropped_by_reason"].items())
        return [
            ("method", str(self.manifest.content["method"])),
            ("kept", f"{counts['kept']:,} of {counts['usable']:,} rows (budget {self.manifest.content['budget']})"),
            ("dropped", f"{counts['dropped']:,} rows" + (f": {dropped}" if dropped else "")),
            ("rejected", f"{counts['rejected']:,} rows that could not be used"),
            ("seed", str(self.manifest.content["seed"])),
        ]

    def __repr__(self) -> str:
        """Return the counts, one line each."""
        return "Subset\n" + "\n".join(f"  {name:<9}{text}" for name, text in self._summary())

    def _repr_html_(self) -> str:
        """Return the counts and the first kept and dropped rows as HTML; all text is escaped."""
        head = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in self._summary()
        )
        first = self.pool.frame[self.kept[:5]].select(kept=pl.concat_str("prompt", pl.lit(" → "), "response"))
        lost = self.dropped.head(5).select("preview", "explanation")
        return f"<table>{head}</table><b>Kept</b>{_table(first)}<b>Dropped</b>{_table(lost)}"


def _write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write through pyarrow, whose OSError keeps the errno: polars hides a full disk in an error of its own."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(frame.to_arrow(), path)


def _table(frame: pl.DataFrame) -> str:
    """Return a frame as an HTML table with every cell escaped and cut to 160 characters."""
    head = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in frame.columns)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(str(cell)[:160])}</td>" for cell in row) + "</tr>"
        for row in frame.iter_rows()
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def read_subset(folder: str | Path, pool: Dataset) -> Subset:
    """Read a subset folder back.

    Args:
        folder: as written by `Subset.save` or `select(out=...)`.
        pool: the rows it was chosen from.

    Raises:
        ManifestError: the folder is no subset, or the pool is not the one it was chosen from.
    """
    manifest = _subset_manifest(folder)
    table = pl.read_parquet(Path(folder) / "scores.parquet")
    if not table["row_id"].equals(pool.frame["row_id"]):
        raise ManifestError(
            f"{folder}: was chosen from other rows than the {len(pool)} of the pool given; run select again"
        )
    scores = Scores(row_id=table["row_id"], value=table["value"].to_numpy(), by=str(manifest.content["method"]))
    position = table["position"].fill_null(-1).to_numpy()
    kept = np.flatnonzero(position >= 0)
    kept = kept[np.argsort(position[kept])]
    dropped = pl.read_parquet(Path(folder) / "dropped.parquet")
    return Subset(pool=pool, scores=scores, kept=kept, dropped=dropped, manifest=manifest)


def open_subset(folder: str | Path) -> Subset:
    """Read a subset folder together with the pool it was chosen from, at the place where it was then.

    Raises:
        ManifestError: the folder is no subset, or its pool is gone or has changed.
    """
    content = _subset_manifest(folder).content
    paths = [Path(path) for path in content["run"]["inputs"]]
    gone = [path for path in paths if not path.is_file()]
    if gone:
        raise ManifestError(
            f"{folder}: the pool that it was chosen from is not at {gone[0]} any more; name the pool with --control, "
            f"or train without a comparison with --control none"
        )
    pool = _load_as(paths, content)
    if pool.fingerprint != content["pool"]:
        raise ManifestError(
            f"{folder}: the pool at {paths[0]} has changed since these rows were chosen from it; run select again, "
            f"or train without a comparison with --control none"
        )
    return read_subset(folder, pool)


def read_subset_rows(folder: str | Path) -> Dataset:
    """Read the kept rows of a subset folder alone, without the pool they were chosen from.

    Raises:
        ManifestError: the folder is no subset.
    """
    content = _subset_manifest(folder).content
    return _load_as(sorted(Path(folder).glob("subset.*")), content)


def _subset_manifest(folder: str | Path) -> Manifest:
    manifest = Manifest.read(folder)
    if manifest.content.get("kind") != "subset":
        raise ManifestError(f"{folder}: must be a subset, found '{manifest.content.get('kind')}'")
    return manifest


def _load_as(paths: list[Path], content: Mapping[str, Any]) -> Dataset:
    """Load rows with the schema that a manifest tells."""
    from thresher.dataset import Schema, load

    columns = {role: tuple(names) for role, names in content["schema"]["columns"].items()}
    schema = Schema(name=content["schema"]["name"], kind=content["schema"]["kind"], columns=columns)
    return load(paths, schema=schema, id_column=content["id_column"])


def rank_column(scores: Scores) -> pl.Series:
    """Return the rank of each row, 1 = best, null where the method did not rank it."""
    ranking = scores.ranking()
    rank = np.zeros(len(scores), dtype=np.int64)
    rank[ranking] = np.arange(1, len(ranking) + 1)
    return pl.Series("rank", rank, dtype=pl.Int64).replace(0, None)


def dropped_table(pool: Dataset, scores: Scores, made: Cut, budget: Budget) -> pl.DataFrame:
    """Return one row per dropped row of the pool, with the reason as a name and as a sentence."""
    names = list(REASONS)
    ids = pool.frame["row_id"]
    dropped = np.flatnonzero(made.reason >= 0)
    covered_by = pl.Series("covered_by", [None], dtype=pl.String).new_from_index(0, len(dropped))
    similarity = pl.Series("similarity", [None], dtype=pl.Float32).new_from_index(0, len(dropped))
    if scores.covered_by is not None:
        position = scores.covered_by[dropped]
        is_covered = pl.Series((position >= 0) & (made.reason[dropped] == names.index("covered")))
        covered_by = ids.gather(np.maximum(position, 0)).zip_with(is_covered, covered_by)
        if scores.similarity is not None:
            similarity = pl.Series(scores.similarity[dropped]).zip_with(is_covered, similarity)
    table = pl.DataFrame(
        {
            "row_id": ids.gather(dropped),
            "file": pool.frame["file"].gather(dropped).cast(pl.String),
            "line": pool.frame["line"].gather(dropped),
            "reason": pl.Series(names).gather(made.reason[dropped].astype(np.int64)),
            "value": scores.value[dropped],
            "rank": rank_column(scores).gather(dropped),
            "covered_by": covered_by,
            "similarity": similarity,
            "preview": pool.frame["prompt"].gather(dropped).str.slice(0, 200),
        }
    )
    kept = len(made.kept)
    explanation = (
        pl.when(pl.col("reason") == "covered")
        .then(
            pl.format(
                "kept row {} stands for it{}",
                pl.col("covered_by"),
                pl.when(pl.col("similarity").is_null())
                .then(pl.lit(""))
                .otherwise(pl.format(" (cosine {})", pl.col("similarity").round(3))),
            )
        )
        .when(pl.col("reason") == "excluded")
        .then(pl.lit(None) if scores.excluded is None else scores.excluded.gather(dropped))
        .when(pl.col("reason") == "below-threshold")
        .then(pl.format(f"its score {{}} does not satisfy {budget}", pl.col("value").round(6)))
        .when(pl.col("reason") == "over-quota")
        .then(pl.format("ranked {}, and its group has its quota of rows", pl.col("rank")))
        .when(pl.col("rank").is_null())
        .then(pl.lit(f"not among the {kept} rows picked first"))
        .otherwise(pl.format(f"ranked {{}}, and {kept} rows fit the budget {budget}", pl.col("rank")))
    )
    return table.with_columns(explanation=explanation).select(
        "row_id", "file", "line", "reason", "explanation", "value", "rank", "covered_by", "similarity", "preview"
    )
