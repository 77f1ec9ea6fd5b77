"""Does a choice of rows that helps a small model help the next larger one, too?

    OUT/transfer.json     effects of every method on every model, agreement, what to expect
    OUT/transfer.csv      a line per method, budget and model

Each model is one `compare`; its cells are kept, so a killed call goes on where it was, and
`thresher compare --model M` with the same options finds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic, write_csv
from thresher.artifacts.manifest import FORMAT, Manifest, digest
from thresher.artifacts.seal import encode_record
from thresher.artifacts.stored import read_table
from thresher.errors import InputError
from thresher.evaluation.effect import LEVEL
from thresher.evaluation.metric import Unit, find_unit
from thresher.evaluation.transfer import NextStep, compare_orders, correlate_ranks, predict_next
from thresher.experiments.bases.candidates import Candidate
from thresher.experiments.bases.transfer_settings import TransferOptions, TransferSettings
from thresher.experiments.comparison import Comparison, PairwiseResult, compare
from thresher.experiments.experiment import Experiment, load_experiment
from thresher.experiments.rankings import MethodName, name_methods
from thresher.experiments.result_folder import RunClock, TableResult, read_result, run_in_folder
from thresher.experiments.settings import BASELINE, ComparisonSettings
from thresher.experiments.tables import describe_experiment, describe_inputs, describe_places
from thresher.numeric.arrays import Float64
from thresher.progress import OnProgress, Progress
from thresher.selection.run import select
from thresher.subset.subset import Subset
from thresher.trainer.context import load_rows
from thresher.validation import build_settings, document_options

KIND = "transfer"
RESULT, EFFECTS = "transfer.json", "transfer.csv"


@dataclass(frozen=True, kw_only=True, repr=False)
class Transfer(TableResult):
    """How well verdicts on methods hold from model to model; `table` has a line for each effect."""

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the answer, and what to expect of every method one model further up."""
        methods = [(f"{each['method']}, {each['n_rows']:,} rows", each["sentence"]) for each in self.content["methods"]]
        return [("answer", self.content["answer"]), *methods]


@document_options(TransferSettings)
def transfer(
    pool: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    on_progress: OnProgress | None = None,
    **options: Unpack[TransferOptions],
) -> Transfer:
    """Compare methods with random on a ladder of models, and say how far the verdicts hold.

    Args:
        pool: rows to choose from, anything `load` accepts.
        eval: rows to measure on, or a share of the pool to hold out.
        on_progress: listener.
        options: fields of `TransferSettings`; `models` is required.

    Raises:
        InputError: pool, test set, methods or models do not fit.
        NotFoundError: there is no such method, metric or model.
        SettingsError: a setting has an illegal value.
        OutputError: `out` holds something else.
    """
    named, _ = name_methods(options, "base transfer")
    settings: TransferSettings = build_settings(TransferSettings, "base transfer", named)
    rows = load_rows(pool)
    candidates = [Candidate.find(name, rows.kind) for name in dict.fromkeys(settings.models)]
    for each in candidates:
        if not each.can_be_trained:
            raise InputError(f"base transfer: models must be ones that can be trained, got '{each.name}'; leave it out")
    ladder = sorted(candidates, key=lambda each: int(each.describe()["parameters"] or 0))
    experiment = load_experiment(
        rows, eval=eval, settings=replace(settings, model=ladder[-1].model), on_progress=on_progress
    )
    compared = {field.name: getattr(settings, field.name) for field in fields(ComparisonSettings)}
    compared |= {"methods": options.get("methods", settings.methods), "out": None, "force": False}
    return _Ladder(settings, experiment, ladder, compared, on_progress).write(rows, eval)


@dataclass(frozen=True)
class _Ladder:
    """The models of one call, rising by size, and how methods are compared on each."""

    settings: TransferSettings
    experiment: Experiment
    ladder: Sequence[Candidate]
    compared: Mapping[str, Any]
    on_progress: OnProgress | None

    def write(self, pool: Any, eval_rows: Any) -> Transfer:
        """Compare, or read what an earlier call has compared."""
        clock, asked = RunClock(), self._describe_question()
        described = describe_experiment(self.experiment)
        fingerprints = {each.name: each.fingerprint for each in self.ladder}
        target = None if self.settings.target_rows is None else load_rows(self.settings.target_rows).fingerprint
        question = {"asked": asked, "experiment": described, "fingerprints": fingerprints, "target": target}

        def run(_: Path | None) -> Transfer:
            comparisons = []
            for number, each in enumerate(self.ladder):
                self._tell(number, f"{each.name}: methods against {BASELINE}")
                options = {**self.compared, "model": each.model, "on_progress": self.on_progress}
                comparisons.append(compare(pool, eval=eval_rows, **options))
            effects, content = self._describe(comparisons)
            manifest = Manifest(
                {
                    "format": FORMAT,
                    "kind": KIND,
                    "identity": digest(question),
                    "is_complete": not content["unfinished"],
                    **{name: value for name, value in described.items() if name != "model"},
                    "asked": asked,
                    "fingerprints": fingerprints,
                    **describe_inputs(self.experiment),
                    "run": {**clock.to_json(), **describe_places(self.experiment)},
                }
            )
            return Transfer(table=effects, content=content, path=None, manifest=manifest)

        def write(result: Transfer, folder: Path) -> None:
            write_csv(result.table, folder / EFFECTS)
            write_atomic(folder / RESULT, encode_record(result.content))
            write_atomic(folder / MANIFEST, result.manifest.to_json())

        return run_in_folder(digest(question), self.settings, run=run, write=write, read=read_transfer)

    def _describe_question(self) -> dict[str, Any]:
        settings = self.settings
        methods = settings.methods if isinstance(settings.methods, str) else list(settings.methods)
        return {
            "models": [each.name for each in self.ladder],
            "methods": methods,
            "budget": list(settings.budget),
            "seeds": settings.seeds,
            "redraw": settings.redraw,
            "equal": settings.equal,
            "encoder": settings.encoder,
            "method_settings": {name: dict(own) for name, own in (settings.method_settings or {}).items()},
        }

    def _tell(self, n_done: int, note: str) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress(stage="models", done=n_done, total=len(self.ladder), note=note))

    def _describe(self, comparisons: Sequence[Comparison]) -> tuple[pl.DataFrame, dict[str, Any]]:
        names = [each.name for each in self.ladder]
        by_model = [{(each.method, each.n_rows): each for each in comparison.verdicts} for comparison in comparisons]
        shared = [key for key in by_model[0] if all(key in own for own in by_model[1:])]
        if not shared:
            raise InputError("base transfer: no method has a verdict on every model; see the failed runs of compare")
        values = np.array([[own[key].effect.value for own in by_model] for key in shared])  # (m, k)
        stderr = np.array([[own[key].effect.stderr for own in by_model] for key in shared])
        step, unit = predict_next(values, stderr), _find_unit(self.experiment, comparisons)
        methods = [
            _describe_method(key, [own[key] for own in by_model], step, code, names, unit)
            for code, key in enumerate(shared)
        ]
        steps = [self._describe_step(number, shared, by_model, values, stderr) for number in range(1, len(self.ladder))]
        lines = [
            {
                "method": method,
                "n_rows": n_rows,
                "model": name,
                **{end: getattr(own[method, n_rows].effect, end) for end in ("value", "low", "high", "stderr")},
                "p_holm": own[method, n_rows].p_holm,
                "sentence": own[method, n_rows].sentence,
            }
            for method, n_rows in shared
            for name, own in zip(names, by_model, strict=True)
        ]
        content = {
            "answer": describe_transfer(methods, steps),
            "metric": self.experiment.metric.name,
            "unit": asdict(unit),
            "task": self.experiment.pool.kind,
            "models": [{"name": each.name, **each.describe()} for each in self.ladder],
            "methods": methods,
            "steps": steps,
            "rows": self._compare_rows(sorted({method for method, _ in shared}), max(n for _, n in shared)),
            "spread": {"median": float(np.median(step.spread)), "high": float(np.quantile(step.spread, 0.9))},
            "unfinished": [line for comparison in comparisons for line in comparison.content["unfinished"]],
        }
        return pl.DataFrame(lines), content

    def _describe_step(
        self,
        number: int,
        shared: Sequence[tuple[str, int]],
        by_model: Sequence[Mapping[tuple[str, int], PairwiseResult]],
        values: Float64,
        stderr: Float64,
    ) -> dict[str, Any]:
        """Return how far the verdicts on one model were those on the next larger one."""
        low, high = number - 1, number
        pairs = [(by_model[low][key], by_model[high][key]) for key in shared]
        clear = [(ours, theirs) for ours, theirs in pairs if _name_verdict(ours) != "no difference"]
        return {
            "from": self.ladder[low].name,
            "to": self.ladder[high].name,
            **asdict(compare_orders(values[:, low], values[:, high], stderr[:, low], stderr[:, high])),
            "verdicts": len(clear),
            "held": sum(_name_verdict(ours) == _name_verdict(theirs) for ours, theirs in clear),
            "same_sign": sum(ours.effect.value * theirs.effect.value > 0 for ours, theirs in clear),
        }

    def _compare_rows(self, methods: Sequence[str], n_rows: int) -> list[dict[str, Any]]:
        """Return how far methods that read a model choose the same rows on neighboring models."""
        pool, settings, lines = self.experiment.pool, self.settings, []
        if pool.kind == "classification":
            return []  # there, methods read the encoder and not the model that is trained
        for method in methods:
            parsed = MethodName.parse(method)
            selector = parsed.build(settings.method_settings or {})
            chosen: list[Subset] = []
            for each in self.ladder:
                options: dict[str, Any] = {"encoder": settings.encoder, "device": settings.device, "model": each.model}
                target = load_rows(settings.target_rows) if "target" in selector.requirements.side_features else None
                chosen.append(select(pool, selector, budget=n_rows, order="rank", target=target, **options))
            if not any("model" in about for about in chosen[0].manifest.content["features"].values()):
                continue
            for number in range(1, len(chosen)):
                ours, theirs = chosen[number - 1], chosen[number]
                both = np.isfinite(ours.scores.value) & np.isfinite(theirs.scores.value)
                same = float(np.isin(ours.kept, theirs.kept).mean())
                spearman = correlate_ranks(ours.scores.value[None, both], theirs.scores.value[None, both])
                lines.append(
                    {
                        "method": method,
                        "from": self.ladder[number - 1].name,
                        "to": self.ladder[number].name,
                        "same_rows": same,
                        "by_chance": len(ours.kept) / len(pool),
                        "rank_correlation": float(spearman[0]) if both.sum() > 2 else None,
                    }
                )
        return lines


def _name_verdict(result: PairwiseResult) -> str:
    if result.p_holm >= LEVEL or result.effect.low <= 0 <= result.effect.high:
        return "no difference"
    return "better" if result.effect.value > 0 else "worse"


def _find_unit(experiment: Experiment, comparisons: Sequence[Comparison]) -> Unit:
    values = [value for each in comparisons for value in each.cells["value"].drop_nulls()]
    return find_unit(experiment.metric.name, is_higher_better=experiment.metric.is_higher_better, values=values)


def _describe_method(
    key: tuple[str, int],
    results: Sequence[PairwiseResult],
    step: NextStep,
    code: int,
    names: Sequence[str],
    unit: Unit,
) -> dict[str, Any]:
    """Return the verdict on the largest model, and the probability that it holds one step up."""
    verdict = _name_verdict(results[-1])
    above = float(step.above_zero[code])
    holds = None if verdict == "no difference" else above if verdict == "better" else 1 - above
    ends = (float(each[code]) for each in (step.mean, step.low, step.high))
    expected = f"one step up {unit.format_range(*ends, is_signed=True)} are expected"
    said = f"{verdict} than {BASELINE} on {names[-1]}" if holds is not None else f"no clear difference on {names[-1]}"
    return {
        "method": key[0],
        "n_rows": key[1],
        "effects": [asdict(each.effect) for each in results],
        "verdict": verdict,
        "holds": holds,
        "next": {name: float(getattr(step, name)[code]) for name in ("mean", "low", "high", "above_zero")},
        "sentence": f"{said}; {expected}" + ("" if holds is None else f"; it holds with a probability of {holds:.0%}"),
    }


def describe_transfer(methods: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> str:
    """Return how many verdicts held from model to model, and which one is likely to hold on."""
    clear = [each for each in methods if each["holds"] is not None]
    n_verdicts, n_held = (sum(int(step[name]) for step in steps) for name in ("verdicts", "held"))
    seen = f"{n_held} of {n_verdicts} verdicts on a smaller model were those on the next" if n_verdicts else ""
    if not clear:
        none = f"no method differs clearly from {BASELINE} on the largest model"
        return f"{none}; {seen}" if seen else none
    best = max(clear, key=lambda each: (each["verdict"] == "better", each["next"]["mean"]))
    said = f"{best['method']} is {best['verdict']} than {BASELINE} on the largest model, and holds one step up with a "
    said += f"probability of {best['holds']:.0%}"
    return f"{said}; {seen}" if seen else said


def read_transfer(path: str | Path) -> Transfer:
    """Read the folder of `base transfer`.

    Raises:
        ManifestError: the folder is not one that `base transfer` wrote.
    """
    folder = Path(path)
    manifest, content = read_result(folder, KIND, "a transfer between base models", RESULT)
    return Transfer(table=read_table(folder / EFFECTS), content=content, path=folder, manifest=manifest)
