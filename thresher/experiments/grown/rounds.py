"""Rounds of growing: write, train, and go on from what was trained, while held-out rows say so."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic
from thresher.artifacts.json_text import encode_json
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.result import Excerpt, Result, open_folder
from thresher.artifacts.seal import encode_record
from thresher.artifacts.stored import read_json, read_json_lines
from thresher.dataset import Dataset, ensure_dataset, load
from thresher.dataset.provenance import describe_reading, describe_rows, describe_run, refuse_input_as_output
from thresher.errors import InputError, SettingsError
from thresher.evaluation.held_out import compare
from thresher.experiments.grown.compare_grown import REPLACES
from thresher.growth.grow import grow
from thresher.growth.result import Grown
from thresher.growth.settings import GrowSettings
from thresher.models.settings import ModelSettings
from thresher.progress import OnProgress
from thresher.trainer.adapter import Adapter
from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train

KIND, ROWS, ROUNDS, RECIPE = "grown-rounds", "rows.jsonl", "rounds.json", "grow-rounds-3"


@dataclass(frozen=True, kw_only=True, repr=False)
class GrownRounds(Result):
    """What rounds of growing brought.

    Attributes:
        rows: of the rounds that were kept, as those of `Grown`.
        rounds: one entry per round: `round`, `kept_rows`, `facts` (failures or pass rates),
            `calls`, `metric`, `value`, `difference` from the last round, `low`, `high`, `is_kept`.
        manifest: what ran, with the answer in a sentence.
        path: of the folder; `round-N/grown` and `round-N/adapter` are in it.
    """

    rows: list[dict[str, Any]]
    rounds: list[dict[str, Any]]
    manifest: Manifest
    path: Path | None = None

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the answer, and a line per round."""
        return [
            ("answer", str(self.manifest.content["answer"])),
            *((f"round {r['round']}", tell(r)) for r in self.rounds),
        ]

    def list_excerpts(self) -> list[Excerpt]:
        """Return the first grown rows."""
        names = list(self.rows[0]) if self.rows else []
        return [Excerpt("Grown", names, [[row.get(name) for name in names] for row in self.rows[:5]])]

    @staticmethod
    def read(folder: str | Path) -> GrownRounds:
        """Read what `grow_rounds` wrote.

        Raises:
            ManifestError: the folder is not one, or is damaged.
        """
        path, manifest = open_folder(folder, KIND, "a folder of rounds of 'grow'")
        return GrownRounds(
            rows=read_json_lines(path / ROWS), rounds=read_json(path / ROUNDS)["rounds"], manifest=manifest, path=path
        )


def grow_rounds(
    pool: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    rounds: int,
    out: str | Path,
    settings: GrowSettings,
    models: ModelSettings,
    training: TrainSettings | None = None,
    base: str | Path | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> GrownRounds:
    """Grow, train the base on the user's rows and all grown ones, and grow again by the adapter.

    A round is kept where its adapter is better on the held-out rows than that of the round before
    (before the first: trained on the user's rows alone), so that the 95 % interval of the
    paired difference (Student's t over held-out rows; one training each, so seeds are not covered)
    leaves out zero; all adapters take the same optimizer steps. The first round that is not ends
    the growing, and so does one in which nothing grows or, with failures, the failures do not fall.

    Source: Yuan et al. 2023, arXiv:2308.01825; Lee et al. 2024, arXiv:2403.15042. Cost: each round
    is a `grow` and a `train`. Fails: few held-out rows show no round to be better.

    Args:
        pool: rows of prompt and response, anything `load` accepts.
        eval: held-out rows, which no training sees.
        rounds: at most.
        out: folder for the result; a killed run goes on where it stopped.
        settings: of `grow`; the way "own" has one round.
        models: the model of the first round, and the encoder.
        training: settings of each training; default: those of `train`.
        base: model that is trained; default: that of the first round.
        force: replace an earlier result in `out`.
        on_progress: listener of `grow`.

    Raises:
        SettingsError: the way has no rounds.
        InputError: the rows do not fit.
        OutputError: `out` holds something else.
    """
    started = time.monotonic()
    check_rounds(settings, rounds)
    rows, held_out = ensure_dataset(pool), ensure_dataset(eval)
    run = _Run(
        rows=rows,
        held_out=held_out,
        settings=settings,
        models=models,
        training=TrainSettings() if training is None else training,
        base=models.model if base is None else str(base),
        n_rounds=rounds,
        on_progress=on_progress,
    )
    refuse_input_as_output(Path(out), [rows, held_out])
    with OutputFolder(out, identity=run.identity(), force=force) as folder:
        if not folder.is_done:
            content, grown = run.take(folder.work)
            write_atomic(folder.work / ROWS, b"".join(_encode(row) for row in grown))
            write_atomic(folder.work / ROUNDS, encode_record({"rounds": content}))
            write_atomic(folder.work / MANIFEST, run.describe(content, started).to_json())
            folder.publish()
        return GrownRounds.read(folder.path)


def check_rounds(settings: GrowSettings, rounds: int) -> None:
    """Refuse what has no rounds.

    Raises:
        SettingsError: it has none.
    """
    if settings.how == "own" or rounds < 2:
        raise SettingsError(
            f"grow: rounds must be at least 2, and how another than own, got {rounds} of {settings.how}"
        )
    if settings.round != 1:
        raise SettingsError(f"grow: several rounds are numbered from 1, got round {settings.round}; leave it out")


def _encode(row: dict[str, Any]) -> bytes:
    return encode_json(row) + b"\n"


@dataclass(frozen=True, kw_only=True)
class _Run:
    rows: Dataset
    held_out: Dataset
    settings: GrowSettings
    models: ModelSettings
    training: TrainSettings
    base: str | None
    n_rounds: int
    on_progress: OnProgress | None

    def identity(self) -> str:
        """Return the hash of everything that determines the result."""
        from thresher.features.context import FeatureContext
        from thresher.models.causal_lm.base_model import find_base
        from thresher.models.generation.load import load_generator

        context = FeatureContext(models=self.models)
        asked = [load_generator(context)]
        if self.settings.teacher is not None:
            asked.append(load_generator(context.with_models(model=self.settings.teacher)))
        sides = [[side.fingerprint, describe_reading(side)] for side in (self.rows, self.held_out)]
        return digest(
            {
                "recipe": RECIPE,
                "rows": sides,
                "settings": vars(self.settings) | {"teacher": None},
                "models": [who.fingerprint for who in asked],
                "encoder": context.resolved().models.encoder,
                "training": self.training.to_json(),
                "base": None if self.base is None else find_base(self.base).fingerprint,
                "rounds": self.n_rounds,
                "versions": versions(("torch", "transformers", "peft")),
            }
        )

    def take(self, work: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Take rounds until one is not kept; return what each brought, and all kept rows."""
        before = self._train(self.rows, self.training, work / "round-0" / "adapter")
        training = replace(self.training, epochs=None, min_steps=None, max_steps=int(before.metrics["n_steps"]))
        entries: list[dict[str, Any]] = []
        kept: list[dict[str, Any]] = []
        model = self.models.model
        for number in range(1, self.n_rounds + 1):
            grown = self._grow(number, model, work / f"round-{number}" / "grown")
            entry = {"round": number, "kept_rows": len(grown), "facts": grown.manifest.content["facts"]}
            entry |= {"calls": sum(grown.manifest.content["answers"].values()), "is_kept": False}
            entries.append(entry)
            failed = [each["facts"].get("seeds_failed") for each in entries]
            if not len(grown) or (number > 1 and failed[-1] is not None and failed[-1] >= failed[-2]):
                entry["ended_by"] = "nothing grew" if not len(grown) else "failures do not fall"
                break
            together = _join(self.rows, [*kept, *grown.rows])
            after = self._train(together, training, work / f"round-{number}" / "adapter")
            entry |= _compare_adapters(after, before)
            if not entry["is_kept"]:
                entry["ended_by"] = "not clearly better than without it"
                break
            kept += grown.rows
            before, model = after, str(after.path)
        return entries, kept

    def _grow(self, number: int, model: str | None, out: Path) -> Grown:
        options = {**vars(self.settings), **vars(self.models), "model": model, "round": number}
        options |= {"seed": self.settings.seed + number - 1}  # other draws of the same seeds
        return grow(self.rows, eval=self.held_out, out=out, on_progress=self.on_progress, **options)

    def _train(self, rows: Dataset, training: TrainSettings, out: Path) -> Adapter:
        return train(rows, model=self.base, eval=self.held_out, control="none", out=out, settings=training)

    def describe(self, entries: list[dict[str, Any]], started: float) -> Manifest:
        """Return the manifest."""
        n_kept = sum(each["is_kept"] for each in entries)
        counts = {"rounds": len(entries), "kept_rounds": n_kept}
        counts |= {"kept": sum(each["kept_rows"] for each in entries if each["is_kept"])}
        last = entries[-1]
        answer = f"{n_kept} of {len(entries)} rounds kept, with {counts['kept']:,} rows"
        if last.get("ended_by"):
            answer += f"; it stopped after round {last['round']}: {last['ended_by']}"
        return Manifest(
            {
                "format": FORMAT,
                "kind": KIND,
                "identity": self.identity(),
                "answer": answer,
                "rounds": self.n_rounds,
                "base": self.base,
                "settings": vars(self.settings) | {"teacher": None},
                "training": self.training.to_json(),
                **describe_rows(self.rows, counts, others={"eval": self.held_out}),
                "versions": versions(("torch", "transformers", "peft")),
                "run": describe_run(self.rows, seconds={"total": round(time.monotonic() - started, 3)}),
            }
        )


def _join(rows: Dataset, grown: Sequence[dict[str, Any]]) -> Dataset:
    """Return the user's rows and grown ones, in the user's columns."""
    names = [name for name in rows.column_names if name != REPLACES]
    own = [{name: row.get(name) for name in names} for row in (*rows, *grown)]
    return load(own, schema=rows.schema)


def _compare_adapters(after: Adapter, before: Adapter) -> dict[str, Any]:
    """Return the held-out score of an adapter, and its paired difference from the one before."""
    outcomes = [[pl.read_parquet(each.path / "predictions.parquet")] for each in (after, before)]
    comparison = compare(*outcomes)
    gain = comparison.gain  # positive where it is better; its interval is Student's t over rows
    if gain is None or not all(map(math.isfinite, (gain.value, gain.low, gain.high))):
        raise InputError("grow: rounds are compared on held-out rows, and their difference has no error; give more")
    sign = 1 if comparison.is_higher_better else -1
    low, high = sorted((sign * gain.low, sign * gain.high))
    return {
        "metric": comparison.metric,
        "value": comparison.ours.value,
        "difference": sign * gain.value,
        "low": low,
        "high": high,
        "is_kept": gain.direction > 0,
    }


def tell(entry: dict[str, Any]) -> str:
    """Return what a round brought, in a line."""
    facts = ", ".join(
        f"{name.replace('pass_at_', 'pass@').replace('_', ' ')} {v:g}" for name, v in entry["facts"].items()
    )
    parts = [f"{entry['kept_rows']:,} rows", *([facts] if facts else [])]
    if "difference" in entry:
        ends = f"[{entry['low']:+.4f}, {entry['high']:+.4f}] (95 % over rows, one seed)"
        parts.append(f"{entry['metric']} {entry['value']:.4f}, {entry['difference']:+.4f} {ends}")
    parts.append("kept" if entry["is_kept"] else f"not kept: {entry['ended_by']}")
    return "; ".join(parts)
