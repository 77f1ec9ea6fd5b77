"""Which base model to train? An order before any training, and a verdict after it on demand.

OUT/bases.parquet   one line per model: its scores, rank, license, size, time per row
OUT/bases.json      the order, what cannot be told apart, and the verdict of --confirm
OUT/cells.csv       the runs of --confirm
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
from thresher.dataset import Dataset
from thresher.errors import InputError
from thresher.experiments.bases.answers import AnswerScores, score_answers
from thresher.experiments.bases.candidates import Candidate, read_vectors
from thresher.experiments.bases.labels import LabelScores, choose_label_rows, score_labels
from thresher.experiments.bases.ranking import Rank, describe_order, rank_models
from thresher.experiments.bases.settings import BaseRankOptions, BaseRankSettings
from thresher.experiments.cells.arms import ArmRunner
from thresher.experiments.cells.cell import Cell
from thresher.experiments.experiment import Experiment, load_experiment
from thresher.experiments.result_folder import RunClock, TableResult, read_result, run_in_folder
from thresher.experiments.tables import describe_experiment, describe_inputs, describe_places
from thresher.numeric.units import format_count
from thresher.progress import OnProgress, Progress
from thresher.trainer.context import load_rows
from thresher.validation import build_settings, document_options

KIND, RECIPE = "bases", 4  # raise it when the same call gives other numbers
BASES, RESULT, CELLS = "bases.parquet", "bases.json", "cells.csv"


@dataclass(frozen=True, kw_only=True, repr=False)
class BaseRanking(TableResult):
    """Base models, from best to worst; `table` has one line per model, as `bases.parquet`."""

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the answer, and the models in their order."""
        return [("answer", self.content["answer"]), ("order", ", ".join(self.table["model"]))]


@document_options(BaseRankSettings)
def rank_bases(
    pool: Any,
    *,
    eval: Any = "20%",  # noqa: A002 - the name of the command's option
    on_progress: OnProgress | None = None,
    **options: Unpack[BaseRankOptions],
) -> BaseRanking:
    """Rank base models for rows before any of them is trained.

    On labeled rows, each model reads up to `rows` of the pool once, and a cross-fitted regression
    on its vectors names the labels; H-score, evidence and leave-one-out neighbors stand beside it.
    On instruction rows and texts, each model reads the held-out rows, with and without rows of the
    pool in its prompt, and is ranked by the bits per byte of the answers.

    Args:
        pool: rows to train on, anything `load` accepts.
        eval: rows to measure on, or a share of the pool to hold out.
        on_progress: listener.
        options: fields of `BaseRankSettings`; `models` is required.

    Raises:
        InputError: rows or models do not fit.
        NotFoundError: there is no such model.
        SettingsError: a setting has an illegal value.
        OutputError: `out` holds something else.
    """
    settings: BaseRankSettings = build_settings(BaseRankSettings, "base rank", options)
    rows = load_rows(pool)
    settings = settings.choose_shots(rows.kind)
    names = list(dict.fromkeys(settings.models))
    candidates = [Candidate.find(name, rows.kind) for name in names]
    require_trainable(candidates, settings.confirm)
    for each in candidates:
        if each.vectors is not None:
            read_vectors(each.vectors, len(rows))  # refused, if at all, before any model reads
    first = candidates[0].model if rows.kind != "classification" else None
    experiment = load_experiment(rows, eval=eval, settings=replace(settings, model=first), on_progress=on_progress)
    return _Ranker(settings, experiment, rows, candidates, on_progress).write()


def require_trainable(candidates: Sequence[Candidate], confirm: int) -> list[Candidate]:
    """Return the models that can be trained.

    Raises:
        InputError: they are fewer than are to be confirmed.
    """
    trainable = [each for each in candidates if each.can_be_trained]
    if confirm > len(trainable):
        raise InputError(
            f"base rank: confirm trains {confirm} models, and {len(trainable)} of those that are named can be "
            f"trained; name more of them, or confirm fewer"
        )
    return trainable


@dataclass(frozen=True)
class _Ranker:
    """What one call ranks.

    Attributes:
        settings: of the call.
        experiment: rows to learn from and to measure on.
        given: the pool as it was given.
        candidates: models.
        on_progress: listener.
    """

    settings: BaseRankSettings
    experiment: Experiment
    given: Dataset
    candidates: Sequence[Candidate]
    on_progress: OnProgress | None

    def write(self) -> BaseRanking:
        """Rank, or read what an earlier call has ranked."""
        clock, asked = RunClock(), self._describe_question()
        identity = digest({"recipe": RECIPE, "asked": asked, "experiment": describe_experiment(self.experiment)})

        def run(_: Path | None) -> BaseRanking:
            table, content, cells = self._rank()
            manifest = self._build_manifest(identity, asked, clock, is_complete=not content["unfinished"])
            ranking = BaseRanking(table=table, content=content, path=None, manifest=manifest)
            made.append(cells)
            return ranking

        def write(ranking: BaseRanking, folder: Path) -> None:
            write_parquet(ranking.table, folder / BASES)
            write_csv(made[0], folder / CELLS)
            write_atomic(folder / RESULT, encode_record(ranking.content))
            write_atomic(folder / MANIFEST, ranking.manifest.to_json())

        made: list[pl.DataFrame] = []
        return run_in_folder(identity, self.settings, run=run, write=write, read=read_ranking)

    def _describe_question(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "models": [each.name for each in self.candidates],
            "fingerprints": {each.name: each.fingerprint for each in self.candidates},
            "rows": settings.rows,
            "layers": settings.layers,
            "shots": list(settings.shots),
            "confirm": settings.confirm,
            "train_rows": settings.train_rows,
            "seeds": settings.seeds,
        }

    def _build_manifest(self, identity: str, asked: dict[str, Any], clock: RunClock, *, is_complete: bool) -> Manifest:
        described = describe_experiment(self.experiment)
        return Manifest(
            {
                "format": FORMAT,
                "kind": KIND,
                "identity": identity,
                "is_complete": is_complete,
                **{name: value for name, value in described.items() if name not in ("model", "untouched")},
                "asked": {name: value for name, value in asked.items() if name != "fingerprints"},
                "fingerprints": asked["fingerprints"],
                **describe_inputs(self.experiment),
                "run": {**clock.to_json(), **describe_places(self.experiment)},
            }
        )

    def _rank(self) -> tuple[pl.DataFrame, dict[str, Any], pl.DataFrame]:
        """Return the table of models, the content of `bases.json`, and the cells of --confirm."""
        is_labels = self.experiment.pool.kind == "classification"
        lines, ranks, about = self._rank_by_labels() if is_labels else self._rank_by_answers()
        by_name = {each.name: each for each in self.candidates}
        table = pl.DataFrame(
            [
                {"model": rank.name, **rank.to_json(), **lines[rank.name], **by_name[rank.name].describe()}
                for rank in ranks
            ]
        ).drop("name")
        with ArmRunner.open(self.settings, self.on_progress) as runner:
            confirmed = self._confirm(runner, ranks)
        score = str(about["score"]).replace("_", " ")
        answer = f"{describe_order(ranks)} ({score} of {format_count(about['rows'], 'row')})"
        return (
            table,
            {
                "answer": answer if confirmed is None else f"{answer}; {confirmed['answer']}",
                "task": self.experiment.pool.kind,
                **about,
                "ranks": [rank.to_json() for rank in ranks],
                "agreement": _name_firsts(table, about["score"]),
                "confirmed": confirmed,
                "unfinished": runner.list_unfinished(),
            },
            runner.build_table(),
        )

    def _rank_by_labels(self) -> tuple[dict[str, dict[str, Any]], list[Rank], dict[str, Any]]:
        sample = choose_label_rows(self.experiment, self.given, self.settings.rows)
        self._tell_plan(f"read {format_count(len(sample.rows), 'row')} with each, and predict their labels")
        scores: dict[str, LabelScores] = {}
        for candidate in self.candidates:
            scores[candidate.name] = score_labels(candidate, self.experiment, sample, self.settings.layers)
            shown = f"a regression on its vectors names {scores[candidate.name].scores['regression']:.1%} of labels"
            self._tell(len(scores), f"{candidate.name}: {shown}")
        brier = np.stack([each.brier for each in scores.values()])
        ranks = rank_models(list(scores), brier, is_higher_better=False)
        lines = {name: {**each.scores, "ms_per_row": each.ms_per_row} for name, each in scores.items()}
        return lines, ranks, {"score": "brier", "rows": len(sample.rows)}

    def _rank_by_answers(self) -> tuple[dict[str, dict[str, Any]], list[Rank], dict[str, Any]]:
        experiment = self.experiment
        test = experiment.test
        if len(test) > self.settings.rows:
            chosen = np.random.default_rng(0).permutation(len(test))[: self.settings.rows]
            experiment = replace(experiment, test=test.take(np.sort(chosen)))
        self._tell_plan(f"measure each on {format_count(len(experiment.test), 'row')} with answers")
        scores: dict[str, AnswerScores] = {}
        for candidate in self.candidates:
            scores[candidate.name] = score_answers(candidate, experiment)
            own = scores[candidate.name]
            shown = f"{own.scores['bits_per_byte']:.3f} bits per byte of the answers of its"
            self._tell(len(scores), f"{candidate.name}: {shown} {format_count(len(own.row_ids), 'row')}")
        # rows that every model can read, so that all are ranked on the same ones
        shared = sorted(set.intersection(*[set(each.row_ids) for each in scores.values()]))
        if len(shared) < 2:
            raise InputError("base rank: at least 2 rows must be readable by all models, found fewer; raise --rows")
        n_rows = len(experiment.test)
        left_out = {name: n_rows - len(each.row_ids) for name, each in scores.items()}
        scores = {name: each.take(shared) for name, each in scores.items()}
        bits = np.stack([each.bits for each in scores.values()])
        ranks = rank_models(list(scores), bits, next(iter(scores.values())).n_bytes, is_higher_better=False)
        lines = {name: {**each.scores, "ms_per_row": each.ms_per_row} for name, each in scores.items()}
        about = {"score": "bits_per_byte", "rows": len(shared), "rows_left_out": left_out}
        return lines, ranks, {**about, "rows_note": _describe_left_out(left_out, n_rows - len(shared), n_rows)}

    def _tell_plan(self, what: str) -> None:
        n, trained = len(self.candidates), self.settings.confirm
        then = f", then train the best {trained}" if trained else ""
        self._tell(0, f"plan: {format_count(n, 'model')}: {what}{then}")

    def _tell(self, n_done: int, note: str) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(stage="models", done=n_done, total=len(self.candidates), note=note))

    def _confirm(self, runner: ArmRunner, ranks: Sequence[Rank]) -> dict[str, Any] | None:
        """Train the first models that can be trained, and compare each with the first of them."""
        if not self.settings.confirm:
            return None
        by_name = {each.name: each for each in self.candidates}
        names = [rank.name for rank in ranks if by_name[rank.name].can_be_trained][: self.settings.confirm]
        n_rows = min(self.settings.train_rows, len(self.experiment.pool))
        cells = [
            Cell(method=name, n_rows=n_rows, seed=seed, rows=self._sample(n_rows, seed), model=by_name[name].model)
            for seed in range(self.settings.seeds)
            for name in names
        ]
        runner.run(self.experiment, cells, stage="cells")
        runner.require_results("base rank")
        verdicts = runner.compare([(names[0], other) for other in names[1:]])
        return {
            "metric": self.experiment.metric.name,
            "train_rows": n_rows,
            "seeds": self.settings.seeds,
            "verdicts": verdicts,
            "left_out": [rank.name for rank in ranks if not by_name[rank.name].can_be_trained],
            "answer": "; ".join(
                f"trained on {format_count(n_rows, 'row')}, {each['arm']} against {each['against']}: {each['sentence']}"
                f" ({format_count(len(self.experiment.test), 'test row')}, {format_count(self.settings.seeds, 'seed')})"
                for each in verdicts
            )
            or "the runs that were to confirm it failed; cells.csv has the reasons",
        }

    def _sample(self, n_rows: int, seed: int) -> Any:
        return np.random.default_rng([seed, 1]).permutation(len(self.experiment.pool))[:n_rows]


def _describe_left_out(by_model: Mapping[str, int], n: int, n_rows: int) -> str | None:
    """Return how many rows no model is scored on, and who cannot read them; None without any."""
    if not n:
        return None
    whose = ", ".join(f"{name} {own:,}" for name, own in by_model.items() if own)
    return f"{n:,} of {format_count(n_rows, 'row')} left out, because a model cannot read them whole: {whose}"


def _name_firsts(table: pl.DataFrame, decisive: str) -> dict[str, str]:
    """Return which model each score puts first, in the words of the table."""
    higher = ("regression", "neighbors", "evidence", "h_score") if decisive == "brier" else ()
    lower = [name for name in table.columns if name == "brier" or name.startswith("bits_per_byte_")]
    signs = {**dict.fromkeys(lower, 1), **dict.fromkeys(higher, -1)}
    return {
        name: str(table.sort(sign * pl.col(name), maintain_order=True, nulls_last=True)["model"][0])
        for name, sign in signs.items()
    }


def read_ranking(path: str | Path) -> BaseRanking:
    """Read the folder of a ranking.

    Raises:
        ManifestError: the folder is not one that `base rank` wrote.
    """
    folder = Path(path)
    manifest, content = read_result(folder, KIND, "a ranking of base models", RESULT)
    return BaseRanking(table=read_table(folder / BASES), content=content, path=folder, manifest=manifest)
