"""How much of each source? Small mixes, a law over shares, and a verdict against equal shares.

OUT/mix.json    the best shares with their region, the value of further rows, the verdict
OUT/cells.csv   the runs
OUT/mixes.csv   shares, rows and score of each mix that the law was fitted to
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic, write_csv
from thresher.artifacts.manifest import FORMAT, Manifest, digest
from thresher.artifacts.seal import encode_record
from thresher.artifacts.stored import read_table
from thresher.dataset import load
from thresher.dataset.mixture.join import join_datasets
from thresher.dataset.own_text.matching import match_rows
from thresher.errors import InputError
from thresher.evaluation.forgetting import describe_loss
from thresher.evaluation.gain import Gain
from thresher.evaluation.metric import Unit, find_unit
from thresher.evaluation.mixture_law import BestShares, MixtureLaw, find_best_shares
from thresher.experiments.cells.arms import ArmRunner
from thresher.experiments.cells.cell import Cell
from thresher.experiments.design.column_hashes import hash_columns
from thresher.experiments.experiment import Experiment, load_experiment
from thresher.experiments.mixing.design import REPLAY, Sources, count_rows
from thresher.experiments.mixing.settings import MixOptions, MixSettings
from thresher.experiments.result_folder import RunClock, TableResult, read_result, run_in_folder
from thresher.experiments.tables import describe_experiment, describe_inputs, describe_places
from thresher.experiments.untouched.forgetting import estimate_lost, measure_untouched_losses
from thresher.numeric.arrays import Float64
from thresher.numeric.units import format_count
from thresher.progress import OnProgress, Progress
from thresher.subset.quota import Quota
from thresher.validation import build_settings, document_options

KIND, RECIPE = "mix", "mix-3"
RESULT, CELLS, MIXES = "mix.json", "cells.csv", "mixes.csv"
BEST, EQUAL = "best shares", "equal shares"
INTERVAL = (0.1, 0.9)  # of what further rows bring


@dataclass(frozen=True, kw_only=True, repr=False)
class Mix(TableResult):
    """The best shares of sources; `table` has one line per mix that the law was fitted to."""

    @property
    def shares(self) -> dict[str, float]:
        """The best share of each source."""
        return {each["name"]: each["share"] for each in self.content["sources"]}

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the answer, and what further rows of each source bring."""
        return [("answer", self.content["answer"]), *((each["name"], each["sentence"]) for each in self._next)]

    @property
    def _next(self) -> list[dict[str, Any]]:
        return [{"name": each["name"], **each["next"]} for each in self.content["sources"] if each["next"]]


@document_options(MixSettings)
def mix(
    pool: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    on_progress: OnProgress | None = None,
    **options: Unpack[MixOptions],
) -> Mix:
    """Find how much of each source to train on.

    Mixes that fill the space of shares are trained, and a law over shares is fitted to their
    scores; the best shares are then compared with equal shares, row by row.

    Args:
        pool: rows of several sources, anything `load` accepts.
        eval: rows to measure on, or a share of the pool to hold out.
        on_progress: listener.
        options: fields of `MixSettings`.

    Raises:
        IncompleteError: the machine ended too many runs.
        InputError: there are too few sources, or rows that do not fit.
        NotFoundError: there is no such column, metric or model.
        SettingsError: a setting has an illegal value.
        OutputError: `out` holds something else.
    """
    return _Mixer(*load_mix(pool, eval=eval, on_progress=on_progress, **options), on_progress).write()


def load_mix(
    pool: Any,
    *,
    eval: Any,  # noqa: A002 - as `mix`
    on_progress: OnProgress | None = None,
    **options: Unpack[MixOptions],
) -> tuple[MixSettings, Experiment, Sources]:
    """Load and check what `mix` was given; arguments and errors are those of it."""
    settings: MixSettings = build_settings(MixSettings, "mix", options)
    settings = replace(settings, metric=settings.metric or "loss")
    if settings.replay is not None and str(settings.general) == "none":
        settings = replace(settings, general="auto")
    experiment = load_experiment(pool, eval=eval, settings=settings, on_progress=on_progress)
    n_task = None
    if settings.replay is not None:
        n_task = len(experiment.pool)
        experiment = _add_replay(experiment, settings.replay, on_progress)
    return settings, experiment, Sources.read(experiment.pool, settings.by, settings.rows, n_task=n_task)


def _add_replay(experiment: Experiment, named: Any, on_progress: OnProgress | None) -> Experiment:
    """Return the experiment with the replay behind the rows of its pool.

    Raises:
        InputError: the rows are of another kind, of a classifier, or all of them are measured on.
    """
    if experiment.labels:
        raise InputError("replay: a classifier writes no text, so there is nothing to keep it from forgetting")
    rows = load(named)
    if rows.kind != experiment.pool.kind:
        raise InputError(f"replay: must hold rows of the pool's kind ({experiment.pool.kind}), found {rows.kind}")
    measured = [experiment.test, *experiment.build_context(experiment.pool.take(np.arange(1)), seed=0).general_rows]
    is_measured = np.any([match_rows(rows, each) >= 0 for each in measured], axis=0)
    rows = rows.take(np.flatnonzero(~is_measured))
    if not len(rows):
        raise InputError("replay: needs rows other than the test rows, found none; give others")
    if is_measured.any() and on_progress is not None:
        note = f"{format_count(int(is_measured.sum()), 'row')} of the replay left out, as test rows"
        on_progress(Progress(stage="replay", done=1, total=1, note=note))
    return replace(experiment, pool=join_datasets([experiment.pool, rows], ["the pool", REPLAY]))


@dataclass(frozen=True)
class _Mixer:
    """What one call mixes."""

    settings: MixSettings
    experiment: Experiment
    sources: Sources
    on_progress: OnProgress | None

    @property
    def sign(self) -> float:
        """1 where lower scores are better, else -1."""
        return -1.0 if self.experiment.metric.is_higher_better else 1.0

    def write(self) -> Mix:
        """Mix, or read what an earlier call has mixed."""
        clock, asked = RunClock(), self._describe_question()
        described = describe_experiment(self.experiment)
        identity = digest(
            {
                "recipe": RECIPE,
                "asked": asked,
                "columns": hash_columns(self.experiment.pool, [self.settings.by]),
                "experiment": described,
            }
        )
        cells: list[pl.DataFrame] = []

        def run(_: Path | None) -> Mix:
            with ArmRunner.open(self.settings, self.on_progress) as runner:
                mixes, content = self._mix(runner)
                cells.append(runner.build_table())
            manifest = Manifest(
                {
                    "format": FORMAT,
                    "kind": KIND,
                    "identity": identity,
                    "is_complete": not content["unfinished"],
                    **described,
                    "asked": asked,
                    **describe_inputs(self.experiment),
                    "run": {**clock.to_json(), **describe_places(self.experiment)},
                }
            )
            return Mix(table=mixes, content=content, path=None, manifest=manifest)

        def write(result: Mix, folder: Path) -> None:
            write_csv(result.table, folder / MIXES)
            write_csv(cells[0], folder / CELLS)
            write_atomic(folder / RESULT, encode_record(result.content))
            write_atomic(folder / MANIFEST, result.manifest.to_json())

        return run_in_folder(identity, self.settings, run=run, write=write, read=read_mix)

    def _describe_question(self) -> dict[str, Any]:
        names = ("by", "mixes", "next_rows", "seeds")
        replay = self.settings.replay
        return {
            **{name: getattr(self.settings, name) for name in names},
            "rows": self.sources.n_rows,
            "replay": str(replay) if isinstance(replay, str | Path) else None,
        }

    def _mix(self, runner: ArmRunner) -> tuple[pl.DataFrame, dict[str, Any]]:
        shares, sizes = self.sources.plan(self.settings.mixes)
        cells = [
            self._build_cell(f"mix {number + 1}", own, int(n), seed=number)
            for number, (own, n) in enumerate(zip(shares, sizes, strict=True))
        ]
        runner.run(self.experiment, cells, stage="mixes")
        runner.require_results("mix")
        before = measure_untouched_losses(self.experiment)
        mixes = self._build_mixes(runner, cells, shares, before)
        done = np.flatnonzero(mixes["value"].is_not_null().to_numpy())
        if len(done) < (least := self.sources.least_mixes):
            reasons = ", ".join(mixes["reason"].drop_nulls().to_list()[:1])
            raise InputError(
                f"mix: the law needs {least} mixes with a score, found {len(done)}, as runs failed ({reasons}); run it "
                f"again"
            )
        law = MixtureLaw(shares[done], sizes[done].astype(float), self.sign * mixes["value"].to_numpy()[done])
        cost = None
        if self.settings.replay is not None:
            cost = MixtureLaw(shares[done], sizes[done].astype(float), mixes["forgotten"].to_numpy()[done])
        best = find_best_shares(
            law,
            self.sources.n_rows,
            limits=self.sources.limits,
            cost=cost,
            allowed=self.settings.forget,
        )
        verdict = self._compare(runner, best.chosen, before)
        content = self._describe(law, best, cost, verdict)
        return mixes, {**content, "unfinished": runner.list_unfinished()}

    def _build_cell(self, name: str, shares: Float64, n_rows: int, *, seed: int) -> Cell:
        rows = self.sources.sample(shares, n_rows, seed=seed)
        return Cell(method=name, n_rows=len(rows), seed=seed, rows=rows)

    def _build_mixes(
        self, runner: ArmRunner, cells: list[Cell], shares: Float64, before: pl.DataFrame | None
    ) -> pl.DataFrame:
        """Return a line per mix: its shares, rows, score, and what it forgets."""
        lines = []
        for cell, own in zip(cells, shares, strict=True):
            outcome = runner.outcomes[cell.method, cell.seed]
            table, lost = outcome.outcomes, None
            if before is not None and "general_loss" in outcome.facts:
                lost = estimate_lost(before, [outcome.facts["general_loss"]])
            lines.append(
                {
                    "mix": cell.method,
                    **{f"share of {name}": float(s) for name, s in zip(self.sources.short_names, own, strict=True)},
                    "n_rows": cell.n_rows,
                    "value": None if table is None else self.experiment.metric.measure(table).value,
                    "forgotten": None if lost is None else lost.value,
                    "reason": outcome.reason,
                }
            )
        return pl.DataFrame(lines, schema_overrides={"value": pl.Float64, "forgotten": pl.Float64, "reason": pl.String})

    def _compare(self, runner: ArmRunner, best: Float64, before: pl.DataFrame | None) -> dict[str, Any] | None:
        """Train best and equal shares; None where they are the same or nothing is asked."""
        sources, n = self.sources, self.sources.n_rows
        equal = sources.equal_shares
        is_same = (count_rows(best, n, sources.counts) == count_rows(equal, n, sources.counts)).all()
        if is_same or not self.settings.seeds:
            return None
        seeds = range(1000, 1000 + self.settings.seeds)  # none of them drew the mixes of the law
        arms = ((BEST, best), (EQUAL, equal))
        cells = [self._build_cell(name, shares, n, seed=seed) for seed in seeds for name, shares in arms]
        runner.run(self.experiment, cells, stage="best and equal shares")
        verdicts = runner.compare([(BEST, EQUAL)])
        if not verdicts:
            return None
        lost = {}
        for name, _ in arms:
            facts = [runner.outcomes[name, seed].facts for seed in seeds if (name, seed) in runner.outcomes]
            losses = [each["general_loss"] for each in facts if "general_loss" in each]
            gain = estimate_lost(before, losses) if before is not None and losses else None
            lost[name] = None if gain is None else _tell_loss(gain, self.settings.forget)
        return {**verdicts[0], "forgotten": lost}

    def _describe(
        self, law: MixtureLaw, best: BestShares, cost: MixtureLaw | None, verdict: dict[str, Any] | None
    ) -> dict[str, Any]:
        sources, metric = self.sources, self.experiment.metric
        unit = find_unit(metric.name, is_higher_better=metric.is_higher_better, values=self.sign * law.values)
        values = self._value_next(law, best.chosen, unit)
        lines: list[dict[str, Any]] = [
            {"name": name, "rows": int(count), "share": float(share), "low": low, "high": high, "next": value}
            for name, count, share, (low, high), value in zip(
                sources.short_names, sources.counts, best.chosen, best.ranges, values, strict=True
            )
        ]
        shares = {name: float(f"{share:.3g}") for name, share in zip(sources.names, best.chosen, strict=True)}
        answer = describe_mix(lines, verdict, is_equal=best.holds(sources.equal_shares))
        if not best.keeps_bound:
            answer += f"; no mix keeps forgetting within {self.settings.forget:g} bits per byte: this one comes nearest"
        return {
            "answer": answer,
            "metric": metric.name,
            "is_higher_better": metric.is_higher_better,
            "task": self.experiment.pool.kind,
            "n_rows": sources.n_rows,
            "mixes": len(law.values),
            "sources": lines,
            "region": 0.8,
            "equal_shares": [float(share) for share in sources.equal_shares],
            "holds_equal": best.holds(sources.equal_shares),
            "share_of_mixes": float(best.region.mean()),
            "quota": None if cost is not None else str(Quota(self.settings.by, shares)),
            "expected_forgetting": _expect_forgetting(best),
            "forgetting": _tell_forgetting(best, verdict),
            "allowed": None if cost is None else self.settings.forget,
            "keeps_bound": None if cost is None else best.keeps_bound,
            "verdict": verdict,
        }

    def _value_next(self, law: MixtureLaw, shares: Float64, unit: Unit) -> list[dict[str, Any] | None]:
        """Return what further rows of each source bring, on top of the best mix."""
        counts = count_rows(shares, self.sources.n_rows, self.sources.counts)
        more = np.minimum(self.settings.next_rows, self.sources.counts - counts)
        mixes = counts + np.diag(more)  # (m, m): one source grows in each
        all_counts = np.concatenate([counts[None, :], mixes]).astype(float)
        sizes = all_counts.sum(axis=1)
        draws = law.sample(all_counts / sizes[:, None], sizes)  # (draws, 1 + m)
        gains = draws[:, :1] - draws[:, 1:]
        return [None if not n else describe_gain(int(n), gains[:, code], unit) for code, n in enumerate(more)]


def _expect_forgetting(best: BestShares) -> dict[str, float] | None:
    if best.costs is None:
        return None
    value, low, high = float(np.median(best.costs)), _quantile(best.costs, 0), _quantile(best.costs, 1)
    return {"value": value, "low": low, "high": high, "kept": float((best.costs <= best.allowed).mean())}


def _tell_loss(lost: Gain, allowed: float) -> dict[str, Any]:
    return {**lost.to_json(), "sentence": describe_loss(lost, allowed)}


def _tell_forgetting(best: BestShares, verdict: Mapping[str, Any] | None) -> list[str]:
    """Return in sentences what the law expects the best shares to forget, and what was measured."""
    expected = _expect_forgetting(best)
    if expected is None:
        return []
    told = [
        f"The best shares are expected to forget {expected['value']:+.4f} bits per byte [{expected['low']:+.4f}, "
        f"{expected['high']:+.4f}] of the general rows, 80 % interval; the limit is {best.allowed:g}, kept with a "
        f"probability of {expected['kept']:.0%}."
    ]
    measured = {name: lost for name, lost in (verdict or {}).get("forgotten", {}).items() if lost is not None}
    return told + [f"Measured: the model trained with {name} {lost['sentence']}." for name, lost in measured.items()]


def _quantile(values: Float64, end: int) -> float:
    return float(np.quantile(values, INTERVAL[end]))


def describe_gain(n_rows: int, gains: Float64, unit: Unit) -> dict[str, Any]:
    """Return what further rows bring, with its interval and a sentence."""
    value, low, high = float(np.median(gains)), _quantile(gains, 0), _quantile(gains, 1)
    shown = unit.format_range(value, low, high, is_signed=True)
    return {
        "rows": n_rows,
        "value": value,
        "low": low,
        "high": high,
        "sentence": f"{format_count(n_rows, 'more row')}: {shown}",
    }


def describe_mix(sources: list[dict[str, Any]], verdict: Mapping[str, Any] | None, *, is_equal: bool) -> str:
    """Return the best shares with their ranges, and whether they beat equal shares."""
    shares = ", ".join(
        f"{each['name']} {each['share']:.0%} [{100 * each['low']:.0f}, {100 * each['high']:.0f}]" for each in sources
    )
    if verdict is not None:
        return f"{shares}; against equal shares: {verdict['sentence']}"
    return f"{shares}; equal shares are {'within' if is_equal else 'outside of'} the region"


def read_mix(path: str | Path) -> Mix:
    """Read the folder of `mix`.

    Raises:
        ManifestError: the folder is not one that `mix` wrote.
    """
    folder = Path(path)
    manifest, content = read_result(folder, KIND, "a mix", RESULT)
    schema = {"value": pl.Float64, "forgotten": pl.Float64, "reason": pl.String}
    return Mix(table=read_table(folder / MIXES, schema=schema), content=content, path=folder, manifest=manifest)
