"""Which other data set helps? Nearness first, then cells with it and without it.

    OUT/sources.parquet   one line per candidate: how near it lies, leaks, conflicts, the verdict
    OUT/sources.json      the answer, and the verdicts on every mix
    OUT/cells.csv         the runs

Nearness does not see answers: a copy with shuffled labels is as near as the copy. So nothing is
advised that was not trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic, write_csv, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest, digest
from thresher.artifacts.seal import encode_record
from thresher.artifacts.stored import read_table
from thresher.dataset import Dataset, Source, load
from thresher.dataset.mixture.join import join_datasets
from thresher.dataset.own_text.matching import match_rows
from thresher.errors import InputError
from thresher.evaluation.effect import LEVEL
from thresher.experiments.bases.closeness import Closeness, OwnRows, describe_distance
from thresher.experiments.bases.source_settings import SourceRankOptions, SourceRankSettings
from thresher.experiments.bases.starts import train_starts
from thresher.experiments.cells.arms import ArmRunner
from thresher.experiments.cells.cell import Cell
from thresher.experiments.experiment import Experiment, load_experiment
from thresher.experiments.result_folder import RunClock, TableResult, read_result, run_in_folder
from thresher.experiments.tables import describe_experiment, describe_inputs, describe_places
from thresher.features.context import make_context
from thresher.numeric.arrays import Int64
from thresher.progress import OnProgress, Progress
from thresher.trainer.context import NOTHING, content_hash
from thresher.trainer.weights import hash_weights
from thresher.validation import build_settings, document_options

KIND, RECIPE = "sources", 3  # raise it when the same call gives other numbers
SOURCES, RESULT, CELLS = "sources.parquet", "sources.json", "cells.csv"
ALONE = "own rows alone"


@dataclass(frozen=True, kw_only=True, repr=False)
class SourceRanking(TableResult):
    """Other data sets, the nearest first, and whether they help; `table` has a line for each."""

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the answer, and the verdict on each mix."""
        verdicts = [(each["arm"], each["sentence"]) for each in self.content["verdicts"]]
        return [("answer", self.content["answer"]), *verdicts]


@document_options(SourceRankSettings)
def rank_sources(
    pool: Any,
    *,
    eval: Any = "20%",  # noqa: A002 - the name of the command's option
    on_progress: OnProgress | None = None,
    **options: Unpack[SourceRankOptions],
) -> SourceRanking:
    """Say which other data sets help with your own rows.

    Candidates are ordered by the optimal transport distance of their embeddings to one's own; rows
    that ask what a test row asks are taken out of them. Then the nearest ones are mixed in at each
    share, and every mix is compared with one's own rows alone, row by row.

    Args:
        pool: one's own rows, anything `load` accepts.
        eval: rows to measure on, or a share of the pool to hold out.
        on_progress: listener.
        options: fields of `SourceRankSettings`; `candidates` is required.

    Raises:
        InputError: rows of a candidate are of another kind, or do not fit.
        SettingsError: a setting has an illegal value.
        OutputError: `out` holds something else.
    """
    settings: SourceRankSettings = build_settings(SourceRankSettings, "base sources", options)
    own = load_experiment(pool, eval=eval, settings=settings, on_progress=on_progress)
    candidates = load_candidates(settings.candidates, own)
    return _SourceRanker(settings, own, candidates, on_progress).write()


def load_candidates(named: Sequence[Any], own: Experiment) -> dict[str, Dataset]:
    """Load the candidates, by name.

    Raises:
        InputError: two have the same name, or one has rows of another kind.
    """
    candidates: dict[str, Dataset] = {}
    for number, each in enumerate(named, start=1):
        rows = each if isinstance(each, Dataset) else load(each)
        name = ", ".join(dict.fromkeys(Path(source.path).name for source in rows.sources)) or f"candidate {number}"
        name = each.label if isinstance(each, Source) else name
        if rows.kind != own.pool.kind:
            raise InputError(
                f"candidate {name}: must hold rows of the kind of your own ({own.pool.kind}), found {rows.kind}; name "
                f"its columns, as in '{name}:prompt=COLUMN,response=COLUMN'"
            )
        while name in candidates:
            name += "'"
        candidates[name] = rows
    return candidates


@dataclass(frozen=True)
class _Mixture:
    """One's own rows and those of some candidates in one pool.

    Attributes:
        experiment: with that pool.
        places: positions of the rows of each in it; "" for one's own.
    """

    experiment: Experiment
    places: Mapping[str, Int64]

    @staticmethod
    def join(own: Experiment, candidates: Mapping[str, Dataset]) -> _Mixture:
        parts = [own.pool, *candidates.values()]
        joined = join_datasets(parts, ["your rows", *candidates])
        ends = np.cumsum([len(part.shards) for part in parts])
        part = np.searchsorted(ends, joined.shard, side="right")
        places = {name: np.flatnonzero(part == number) for number, name in enumerate(["", *candidates])}
        labels = tuple(sorted(joined.frame["response"].unique())) if own.labels else ()
        return _Mixture(replace(own, pool=joined, labels=labels), places)


@dataclass(frozen=True)
class _SourceRanker:
    """What one call compares."""

    settings: SourceRankSettings
    own: Experiment
    candidates: Mapping[str, Dataset]
    on_progress: OnProgress | None

    def write(self) -> SourceRanking:
        """Compare, or read what an earlier call has compared."""
        clock, asked = RunClock(), self._describe_question()
        contents = {name: content_hash(rows) for name, rows in self.candidates.items()}
        column = self.own.settings.weight
        weights = {} if column is None else {name: hash_weights(rows, column) for name, rows in self.candidates.items()}
        about = {"recipe": RECIPE, "asked": asked, "contents": contents, "experiment": describe_experiment(self.own)}
        identity = digest({**about, "candidate_weights": weights} if weights else about)
        tables: list[pl.DataFrame] = []

        def run(_: Path | None) -> SourceRanking:
            table, content, cells = self._compare()
            tables.append(cells)
            manifest = Manifest(
                {
                    "format": FORMAT,
                    "kind": KIND,
                    "identity": identity,
                    "is_complete": not content["unfinished"],
                    **describe_experiment(self.own),
                    "asked": {name: value for name, value in asked.items() if name != "candidates"},
                    "candidates": contents,
                    **describe_inputs(self.own),
                    "run": {**clock.to_json(), **describe_places(self.own), "candidate": self._list_places()},
                }
            )
            return SourceRanking(table=table, content=content, path=None, manifest=manifest)

        def write(ranking: SourceRanking, folder: Path) -> None:
            write_parquet(ranking.table, folder / SOURCES)
            write_csv(tables[0], folder / CELLS)
            write_atomic(folder / RESULT, encode_record(ranking.content))
            write_atomic(folder / MANIFEST, ranking.manifest.to_json())

        return run_in_folder(identity, self.settings, run=run, write=write, read=read_sources)

    def _list_places(self) -> list[str]:
        return [", ".join(source.path for source in rows.sources) for rows in self.candidates.values()]

    def _describe_question(self) -> dict[str, Any]:
        settings = self.settings
        names = ("rows", "confirm", "train_rows", "seeds", "equal")
        values = {name: getattr(settings, name) for name in names}
        encoder = make_context(encoder=settings.encoder, device=settings.device).resolved().models.encoder
        more = {"shares": list(settings.shares), "no_before": not settings.before}
        return {"candidates": list(self.candidates), "encoder": encoder, **values, **more}

    def _compare(self) -> tuple[pl.DataFrame, dict[str, Any], pl.DataFrame]:
        """Return the table of candidates, the content of `sources.json`, and the cells."""
        models = {"encoder": self.settings.encoder, "device": self.settings.device}
        self._tell(0, self._describe_plan())
        context = make_context(**models, on_progress=self.on_progress).resolved()
        own = OwnRows.embed(self.own.pool, self.own.test, context, self.settings.rows)
        near: list[Closeness] = []
        for name, rows in self.candidates.items():
            near.append(own.compare(name, rows))
            self._tell(len(near), f"{name}: {near[-1].describe()}")
        near.sort(key=lambda each: (each.distance is None, each.distance or 0.0, -each.similarity))
        with ArmRunner.open(self.settings, self.on_progress) as runner:
            verdicts = self._confirm(runner, [each.name for each in near][: self.settings.confirm])
            unfinished, cells = runner.list_unfinished(), runner.build_table()
        table = pl.DataFrame([{**each.to_json(), **_summarize(each.name, verdicts)} for each in near])
        content = {
            "answer": describe_sources(near, verdicts),
            "metric": self.own.metric.name,
            "task": self.own.pool.kind,
            "own_rows": len(self.own.pool),
            "own_distance": own.own_distance,
            "about_distance": describe_distance(near, own.own_distance),
            "candidates": [each.to_json() for each in near],
            "train_rows": self._count_own(),
            "verdicts": verdicts,
            "unfinished": unfinished,
        }
        return table, content, cells

    def _tell(self, n_done: int, note: str) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(stage="candidates", done=n_done, total=len(self.candidates), note=note))

    def _describe_plan(self) -> str:
        """Say what is done first, before any model is loaded."""
        settings, n = self.settings, min(self.settings.confirm, len(self.candidates))
        most = max(map(len, (self.own.pool, *self.candidates.values())))
        part = f" ({min(settings.rows, most):,} rows of each)" if settings.rows < most else ""
        them = "the other data set" if len(self.candidates) == 1 else f"{len(self.candidates)} other data sets"
        then = "train with it and without" if n == 1 else f"train with and without the {n} nearest"
        return f"plan: compare {them} with your rows{part}{f', then {then}' if n else ''}"

    def _count_own(self) -> int:
        return min(self.settings.train_rows, len(self.own.pool))

    def _confirm(self, runner: ArmRunner, names: Sequence[str]) -> list[dict[str, Any]]:
        """Train with each mix and without, and compare each mix with one's own rows alone."""
        if not names:
            return []
        clean = {name: self._drop_leaks(self.candidates[name]) for name in names}
        clean = {name: rows for name, rows in clean.items() if len(rows)}
        if not clean:
            return []
        mixture = _Mixture.join(self.own, clean)
        n_own, seeds = self._count_own(), range(self.settings.seeds)
        most = max((share for share in self.settings.shares), default=0.5)
        sizes = {(name, share): count_more(share, n_own, len(clean[name])) for name in clean for share in self._arms}
        steps = self._count_steps(n_own + max(sizes.values(), default=0))
        mixed = replace(mixture.experiment, n_equal_steps=steps)
        alone = replace(self.own, n_equal_steps=steps, labels=mixed.labels)  # one head
        draws = {(name, seed): _draw(mixture.places[name], len(clean[name]), seed) for name in clean for seed in seeds}
        own = {seed: _draw(mixture.places[""], n_own, seed) for seed in seeds}
        own_cells = [
            Cell(method=ALONE, n_rows=n_own, seed=seed, rows=_draw(np.arange(len(self.own.pool)), n_own, seed))
            for seed in seeds
        ]
        mixes = [
            Cell(method=name_mix(name, share), n_rows=n_own + n_more, seed=seed, rows=rows)
            for seed in seeds
            for (name, share), n_more in sizes.items()
            if share is not None
            for rows in [np.concatenate([own[seed], draws[name, seed][:n_more]])]
        ]
        runner.run(alone, own_cells, stage="own rows alone")
        runner.run(mixed, mixes, stage="mixes")
        if self.settings.before:
            first = {key: rows[: count_more(most, n_own, len(clean[key[0]]))] for key, rows in draws.items()}
            self._run_second(runner, mixture, first, own, steps)
        runner.require_results("base sources")
        verdicts = runner.compare([(name_mix(*arm), ALONE) for arm in sizes])
        about = {name_mix(*arm): arm for arm in sizes}
        return [
            {
                "candidate": about[each["arm"]][0],
                "share": about[each["arm"]][1],
                "n_rows": sizes[about[each["arm"]]],
                "verdict": name_verdict(each),
                **each,
            }
            for each in verdicts
        ]

    @property
    def _arms(self) -> list[float | None]:
        """The shares to mix in; None for the other data first."""
        return [*self.settings.shares, *([None] if self.settings.before else [])]

    def _split_steps(self, steps: int | None, n_first: int, n_own: int) -> tuple[int | None, int | None]:
        """Return the steps on other data and on one's own, at least 1: together those of a mix."""
        if steps is None:
            return None, None
        n = max(1, min(steps - 1, round(steps * n_first / (n_first + n_own))))
        return n, max(1, steps - n)

    def _run_second(
        self,
        runner: ArmRunner,
        mixture: _Mixture,
        first: Mapping[tuple[str, int], Int64],
        own: Mapping[int, Int64],
        steps: int | None,
    ) -> None:
        """Train on some rows of each candidate, and then on one's own.

        Args:
            runner: of the cells.
            mixture: of one's own rows and the candidates'.
            first: rows that are learned first, by candidate and seed.
            own: one's own rows, by seed.
            steps: of both trainings together; None for equal epochs.
        """
        n_steps = {key: self._split_steps(steps, len(rows), len(own[key[1]])) for key, rows in first.items()}
        n_first = {key: n for key, (n, _) in n_steps.items()}
        starts = train_starts(replace(mixture.experiment, untouched=NOTHING), first, n_first, self.on_progress)
        cells = dict[int | None, list[Cell]]()  # by their steps
        for (name, seed), start in starts.items():
            rows = own[seed]
            cell = Cell(method=name_mix(name, None), n_rows=len(rows), seed=seed, rows=rows, start_from=start)
            cells.setdefault(n_steps[name, seed][1], []).append(cell)
        for n, own_cells in cells.items():
            runner.run(replace(mixture.experiment, n_equal_steps=n), own_cells, stage="the other data first")

    def _drop_leaks(self, rows: Dataset) -> Dataset:
        return rows.take(np.flatnonzero(match_rows(rows, self.own.test) < 0))

    def _count_steps(self, n_rows: int) -> int | None:
        """Return the optimizer steps of every cell; None for equal epochs."""
        if self.settings.equal == "epochs":
            return None
        from thresher.trainer.engine.fit import count_steps

        context = self.own.build_context(self.own.pool.take(np.arange(1)), seed=0)
        return count_steps(n_rows, context.settings)


def name_mix(name: str, share: float | None) -> str:
    """Return the name of an arm: "other.csv at 25 %", or "other.csv first"."""
    return f"{name} first" if share is None else f"{name} at {100 * share:g} %"


def count_more(share: float | None, n_own: int, available: int) -> int:
    """Return the rows of another data set that make up a share beside one's own."""
    return 0 if share is None else min(round(share / (1 - share) * n_own), available)


def name_verdict(verdict: Mapping[str, Any]) -> str:
    """Return "better", "worse" or "no difference"."""
    difference = verdict["difference"]
    if verdict["p_holm"] >= LEVEL or difference["low"] <= 0 <= difference["high"]:
        return "no difference"
    return "better" if difference["value"] > 0 else "worse"


def _draw(places: Int64, n: int, seed: int) -> Int64:
    """Return n random places; the same seed gives nested draws."""
    return np.asarray(np.random.default_rng([seed, 2]).permutation(places)[:n])


def _summarize(name: str, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the verdict on the best mix with a candidate, for its line in the table."""
    own = [each for each in verdicts if each["candidate"] == name]
    if not own:
        return {"verdict": None, "best_share": None, "gain": None}
    best = max(own, key=lambda each: each["difference"]["value"])
    return {"verdict": best["verdict"], "best_share": best["share"], "gain": best["difference"]["value"]}


def describe_sources(near: Sequence[Closeness], verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return which candidates help, and which ones harm."""
    if not verdicts:
        said = f"{near[0].name} is nearest; whether it helps is not known, as nothing was trained"
        return f"{said}: all of its rows ask what a test row asks" if near[0].leaks == 1 else said
    better = [each for each in verdicts if each["verdict"] == "better"]
    worse = [each for each in verdicts if each["verdict"] == "worse"]
    harm = "; ".join(f"{each['arm']} is {each['sentence']}" for each in worse)
    if not better:
        none = "no other data set clearly helps"
        return f"{none}; {harm}" if harm else none
    best = max(better, key=lambda each: each["difference"]["value"])
    how = "train on" if best["share"] is None else "mix in"
    helps = f"{how} {best['arm']}: {best['sentence']} than your own rows alone"
    return f"{helps}; {harm}" if harm else helps


def read_sources(path: str | Path) -> SourceRanking:
    """Read the folder of `base sources`.

    Raises:
        ManifestError: the folder is not one that `base sources` wrote.
    """
    folder = Path(path)
    manifest, content = read_result(folder, KIND, "a ranking of other data sets", RESULT)
    return SourceRanking(table=read_table(folder / SOURCES), content=content, path=folder, manifest=manifest)
