"""Self-training on weak labels, used only where labeled rows say that it helps."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic, write_parquet
from thresher.artifacts.local_path import expand_path
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.result import open_folder
from thresher.artifacts.stored import read_json_lines, read_table
from thresher.dataset import Dataset, load
from thresher.dataset.loading import load_side_rows, load_unlabeled
from thresher.dataset.own_text.matching import match_rows
from thresher.dataset.provenance import describe_reading, describe_rows, refuse_input_as_output
from thresher.dataset.settings import ReadOptions, ReadSettings
from thresher.dataset.values.kept_rows import KeptRows
from thresher.errors import InputError
from thresher.evaluation.effect import Effect, estimate_effect
from thresher.features import FeatureContext
from thresher.features.embedding import Embedding
from thresher.features.plan import FeaturesPlan, plan_stages
from thresher.labeling.exchange import list_label_values, restore_label, write_jsonl
from thresher.labeling.pool import choose_encoder, embed_texts
from thresher.labeling.settings import RefineOptions, RefineSettings
from thresher.labeling.weak.cosine import Confidence, CosineSettings, judge_targets, self_train
from thresher.labeling.weak.join import CONFIDENCE, Joined
from thresher.labeling.weak.join import KIND as JOINED
from thresher.models.settings import ModelOptions, ModelSettings
from thresher.models.stages import StageCost
from thresher.numeric.arrays import Bool, Float32, Int64
from thresher.numeric.units import format_count
from thresher.progress import OnProgress, Progress, report_done
from thresher.validation import document_options, split_options

KIND, ROWS, WEIGHTS, RECIPE = "refined", "rows.jsonl", "weights.parquet", "label-refine-4"
N_TRIAL_ROWS, TRIAL_WIDTH = 1000, 384  # of the run that is timed by a dry run


class AllRefineOptions(RefineOptions, ModelOptions, ReadOptions, total=False):
    """Keyword arguments of `refine_labels`, for type checkers."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Refined(KeptRows):
    """Weak labels after self-training, or as they were where that does not help.

    Attributes:
        refined: the user's rows with their labels and `confidence`.
        weights: of all rows: `row_id`, `given` (weak label or null), `label`, `confidence`,
            `is_learned` and `soft`, a probability for each of `manifest.content["classes"]`.
        manifest: what ran, with `verdict` and the answer in a sentence.
        path: of the folder, or None.
    """

    refined: list[dict[str, Any]]
    weights: pl.DataFrame
    manifest: Manifest
    path: Path | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows."""
        return self.refined

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.refined)

    @cached_property
    def dataset(self) -> Dataset:  # type: ignore[override] # read, never set
        """The rows as a Dataset."""
        columns = self.manifest.content["schema"]["columns"]
        named = {role: "+".join(columns[role]) for role in ("text", "label")}
        return load(self.refined if self.path is None else self.path, columns=named)

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the verdict, and how many rows have a label."""
        content = self.manifest.content
        return [("answer", str(content["answer"])), ("rows", f"{content['counts']['kept']:,}")]

    def write_files(self, folder: Path) -> None:
        """Write `rows.jsonl`, `weights.parquet` and the manifest."""
        write_jsonl(self.refined, folder / ROWS)
        write_parquet(self.weights, folder / WEIGHTS)
        write_atomic(folder / MANIFEST, self.manifest.to_json())

    @staticmethod
    def read(folder: str | Path) -> Refined:
        """Read what `refine_labels` wrote.

        Raises:
            ManifestError: the folder is not one, or is damaged.
        """
        path, manifest = open_folder(folder, KIND, "a folder that 'label refine' wrote")
        rows, weights = read_json_lines(path / ROWS), read_table(path / WEIGHTS)
        return Refined(refined=rows, weights=weights, manifest=manifest, path=path)


class _Sides(NamedTuple):
    weak: Dataset
    more: Dataset | None
    test: Dataset
    n_leaked: int

    def announce(self, settings: RefineSettings, context: FeatureContext) -> None:
        """Say what was read, and what comes next."""
        if context.on_progress is None:
            return
        more = "" if self.more is None else f", {len(self.more):,} without a label"
        read = f"{len(self.weak):,} rows with a weak label{more}; {format_count(len(self.test), 'row')} to judge by"
        runs = format_count(settings.seeds, "run")
        plan = f"plan: embed them with {context.models.encoder}, then {runs} of self-training"
        for note in (read, plan):
            context.on_progress(Progress(stage="label refine", done=0, total=1, note=note))

    def embed(self, context: FeatureContext) -> tuple[Float32, Float32]:
        """Return the vectors of the rows that are learned from, (n, d), and of the test rows."""
        more = [] if self.more is None else self.more.frame["response"].to_list()
        judged = embed_texts(self.test.frame["prompt"].to_list(), context, 1)
        return embed_texts([*self.weak.frame["prompt"].to_list(), *more], context, judged.shape[1]), judged


@document_options(RefineSettings, ModelSettings, ReadSettings)
def refine_labels(
    rows: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    unlabeled: Any = None,
    out: str | Path | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[AllRefineOptions],
) -> Refined:
    """Correct weak labels by self-training, if rows of known label say that it helps.

    A small network on the vectors of an encoder learns the weak labels until it would learn their
    noise, then goes on from its own sharpened predictions of all rows (COSINE; formulas and faults
    of the published code: `labeling/weak/cosine.py`). It is held against its own beginning on the
    rows of `eval`, paired by row and seed. Only where it is better beyond doubt its labels are
    given out, with their confidence as a weight for `train --weight confidence`; else the rows come
    back with their own labels and a confidence of 1.

    Source: Yu et al. 2021, arXiv:2010.07835. Cost: the encoder reads each row once; a minute for
    10,000 rows. Fails: systematic errors of the rules are learned and made surer; a class that no
    rule names stays unknown.

    Args:
        rows: a text and its weak label, anything `load` accepts.
        eval: rows whose labels are right, drawn at random, in the same columns; none of them is
            learned from.
        unlabeled: more texts, without labels, in the same column.
        out: folder to write the result to; it appears whole or not at all.
        force: replace an earlier result in `out`.
        on_progress: called with a Progress while the encoder and the network run.
        **options: fields of `RefineSettings`, `ModelSettings` and `ReadSettings`.

    Raises:
        InputError: the rows cannot be read, or have no two labels.
        SettingsError: an option is illegal.
        OutputError: `out` holds something else, or the rows.
    """
    settings, models, read = split_options("label refine", options, RefineSettings, ModelSettings, ReadSettings)
    sides = _load_sides(rows, unlabeled, eval, read)
    context = choose_encoder(FeatureContext(models=models, on_progress=on_progress))
    identity = _identify(sides, settings, context)
    if out is None:
        sides.announce(settings, context)
        return _refine(sides, settings, context, identity)
    inputs = [each for each in (sides.weak, sides.more, sides.test) if each is not None]
    refuse_input_as_output(Path(out), inputs)
    with OutputFolder(out, identity=identity, force=force) as folder:
        if folder.is_done:
            report_done(on_progress, stage="label refine", folder=folder.path, outcome="read back")
        else:
            sides.announce(settings, context)
            folder.publish_files(_refine(sides, settings, context, identity).write_files)
    return Refined.read(folder.path)


def plan_refining(
    rows: Any,
    *,
    eval: Any,  # noqa: A002 - as `refine_labels`
    unlabeled: Any = None,
    **options: Unpack[AllRefineOptions],
) -> FeaturesPlan:
    """Estimate what `refine_labels` with the same arguments will take; nothing is written.

    Args:
        rows: as for `refine_labels`.
        eval: as for `refine_labels`.
        unlabeled: as for `refine_labels`.
        **options: as for `refine_labels`.
    """
    settings, models, read = split_options("label refine", options, RefineSettings, ModelSettings, ReadSettings)
    sides = _load_sides(rows, unlabeled, eval, read)
    n_rows = sum(len(each) for each in (sides.weak, sides.more, sides.test) if each is not None)
    context = choose_encoder(FeatureContext(models=models)).resolved()
    planned = plan_stages(sides.embed, n_rows, context)
    seconds = settings.seeds * _time_training(sides, settings)
    training = StageCost(stage="runs of self-training", n=settings.seeds, n_cached=0, seconds=seconds)
    return replace(planned, stages=(*planned.stages, training))


def _time_training(sides: _Sides, settings: RefineSettings) -> float:
    """Return the seconds of one run, from one on a few vectors that are easy to tell apart."""
    n = len(sides.weak) + (0 if sides.more is None else len(sides.more))
    rng, few = np.random.default_rng(0), min(n, N_TRIAL_ROWS)
    k = sides.weak.frame["response"].n_unique()
    label, centers = np.arange(few) % k, rng.standard_normal((k, TRIAL_WIDTH), dtype=np.float32)
    noise = rng.standard_normal((few, TRIAL_WIDTH), dtype=np.float32)
    vectors: Float32 = centers[label] + noise / np.float32(2)
    began = time.perf_counter()
    self_train(vectors, label, vectors[:1], k, seed=0, settings=CosineSettings(least=settings.least))
    return (time.perf_counter() - began) * n / few


def _load_sides(rows: Any, unlabeled: Any, eval_rows: Any, read: ReadSettings) -> _Sides:
    """Load all rows; those that ask what a test row asks leave.

    Raises:
        InputError: a side has no labels, or labels that the other does not know.
    """
    weak = rows if isinstance(rows, Dataset) else load(rows, **vars(read))
    own = replace(read, config=None, split=None)
    test = eval_rows if isinstance(eval_rows, Dataset) else load_side_rows(eval_rows, own)
    for name, side in (("label refine", weak), ("eval", test)):
        if side.kind != "classification":
            raise InputError(f"{name}: rows of a text and its label are required, found rows of kind '{side.kind}'")
    if CONFIDENCE in weak.column_names and not _is_joined(rows):
        raise InputError(f"label refine: the column {CONFIDENCE} is written, and the rows have it already; rename it")
    text = "+".join(weak.schema.columns["text"])
    more = None if unlabeled is None else load_unlabeled(unlabeled, ReadSettings(columns={"text": text}))[0]
    is_new = match_rows(weak, test) < 0
    n_leaked = int((~is_new).sum())
    weak = weak.take(np.flatnonzero(is_new))
    if more is not None:
        is_new = match_rows(more, test) < 0
        n_leaked, more = n_leaked + int((~is_new).sum()), more.take(np.flatnonzero(is_new))
    classes = set(weak.frame["response"])
    if len(classes) < 2 or not classes & set(test.frame["response"]):
        raise InputError(
            f"label refine: at least two labels, of which the rows of eval have some, are required; found "
            f"{', '.join(sorted(classes)[:3]) or 'none'} in rows that are not held out"
        )
    return _Sides(weak, more if more is not None and len(more) else None, test, n_leaked)


def _identify(sides: _Sides, settings: RefineSettings, context: FeatureContext) -> str:
    read = [None if each is None else [each.fingerprint, describe_reading(each)] for each in sides[:3]]
    return digest(
        {
            "recipe": RECIPE,
            "rows": read,
            "settings": vars(settings),
            "encoder": Embedding().describe(context),
            "versions": versions(("torch", "numpy")),
        }
    )


def _refine(sides: _Sides, settings: RefineSettings, context: FeatureContext, identity: str) -> Refined:
    classes = sorted(set(sides.weak.frame["response"]))
    code = {name: i for i, name in enumerate(classes)}
    n_more = 0 if sides.more is None else len(sides.more)
    vectors, judged = sides.embed(context)
    label = np.array([*(code[name] for name in sides.weak.frame["response"]), *[-1] * n_more], dtype=np.int64)
    truth = np.array([code.get(name, -1) for name in sides.test.frame["response"]], dtype=np.int64)
    constants = CosineSettings(least=settings.least)
    outcomes = []
    for i in range(settings.seeds):
        outcomes.append(self_train(vectors, label, judged, len(classes), seed=settings.seed + i, settings=constants))
        if context.on_progress is not None:
            context.on_progress(Progress(stage="runs of self-training", done=i + 1, total=settings.seeds))
    before, after = (
        np.stack([side == truth for side in each]) for each in zip(*(o[:2] for o in outcomes), strict=True)
    )
    effect = estimate_effect(after, before, is_higher_better=True)
    soft = np.mean([outcome.confidence.soft for outcome in outcomes], axis=0)
    confidence = judge_targets(soft, settings.least)
    # the labels that the verdict is about: soft targets lean towards rare classes
    likeliest = np.mean([outcome.probability for outcome in outcomes], axis=0).argmax(axis=1)
    confidence = _keep_agreed(confidence, likeliest)
    verdict = _describe(effect, before, after, settings.seeds)
    rows = _write_labels(sides, confidence, likeliest, classes) if verdict["helps"] else _keep_labels(sides.weak)
    counts = {"kept": len(rows), "unlabeled": n_more, "same_text_as_held_out": sides.n_leaked}
    counts |= {
        "learned_from": int(confidence.is_learned.sum()),
        "changed": _count_changed(confidence, likeliest, label),
    }
    content = {
        "format": FORMAT,
        "kind": KIND,
        "identity": identity,
        "classes": classes,
        "settings": vars(settings),
        "encoder": context.models.encoder,
        "verdict": verdict,
        "answer": _say(verdict, counts, len(sides.weak)),
        **describe_rows(sides.weak, counts, others={"unlabeled": sides.more, "eval": sides.test}),
        "versions": versions(("torch", "numpy")),
        "run": {},
    }
    return Refined(
        refined=rows, weights=_tabulate(sides, confidence, likeliest, label, classes), manifest=Manifest(content)
    )


def _keep_agreed(confidence: Confidence, likeliest: Int64) -> Confidence:
    """Return no confidence in rows of which it is that of another class than the likeliest."""
    is_agreed = confidence.soft.argmax(axis=1) == likeliest
    weight = np.where(is_agreed, confidence.weight, 0.0)
    return confidence._replace(weight=weight, is_learned=confidence.is_learned & is_agreed)


def _describe(effect: Effect, before: Bool, after: Bool, seeds: int) -> dict[str, Any]:
    return {
        "helps": bool(effect.low > 0),
        "before": round(float(before.mean()), 6),
        "after": round(float(after.mean()), 6),
        "difference": {name: round(float(getattr(effect, name)), 6) for name in ("value", "low", "high")},
        "test_rows": before.shape[1],
        "seeds": seeds,
    }


def _say(verdict: dict[str, Any], counts: dict[str, Any], n_weak: int) -> str:
    gap = verdict["difference"]
    measured = (
        f"{100 * verdict['before']:.1f} % without, {100 * verdict['after']:.1f} % with it, "
        f"{100 * gap['value']:+.1f} points [{100 * gap['low']:.1f}, {100 * gap['high']:.1f}] on "
        f"{verdict['test_rows']:,} rows"
    )
    if verdict["helps"]:
        return (
            f"self-training helps: {measured}; {counts['kept']:,} rows have its labels, {counts['changed']:,} of them "
            "different from the given ones"
        )
    return f"self-training is not used, because it is not clearly better: {measured}; {n_weak:,} rows keep their labels"


def _count_changed(confidence: Confidence, likeliest: Int64, label: Int64) -> int:
    changed = (likeliest != label) & (label >= 0) & confidence.is_learned
    return int(changed.sum())


def _is_joined(rows: Any) -> bool:
    """Tell whether rows are those of `label join`, whose confidence is of the same kind."""
    if isinstance(rows, Joined):
        return True
    if not isinstance(rows, str | Path) or not (expand_path(rows) / MANIFEST).is_file():
        return False
    return bool(Manifest.read(expand_path(rows)).content.get("kind") == JOINED)


def _keep_labels(weak: Dataset) -> list[dict[str, Any]]:
    """Return the rows with their own labels, and their own confidence or 1."""
    return [{**row, CONFIDENCE: row.get(CONFIDENCE, 1.0)} for row in weak]


def _write_labels(sides: _Sides, confidence: Confidence, likeliest: Int64, classes: list[str]) -> list[dict[str, Any]]:
    """Return the rows that are learned from, with the labels of self-training."""
    label, more = sides.weak.schema.columns["label"][0], sides.more or ()
    given = list_label_values(sides.weak.column(label).to_list())
    values = [restore_label(name, given) for name in classes]
    return [
        {**row, label: values[likeliest[i]], CONFIDENCE: round(float(confidence.weight[i]), 6)}
        for i, row in enumerate([*sides.weak, *more])
        if confidence.is_learned[i]
    ]


def _tabulate(
    sides: _Sides, confidence: Confidence, likeliest: Int64, label: Int64, classes: list[str]
) -> pl.DataFrame:
    more = [] if sides.more is None else sides.more.frame["row_id"].to_list()
    return pl.DataFrame(
        {
            "row_id": [*sides.weak.frame["row_id"].to_list(), *more],
            "given": [None if code < 0 else classes[code] for code in label],
            "label": [classes[code] for code in likeliest],
            "confidence": confidence.weight,
            "is_learned": confidence.is_learned,
            "soft": confidence.soft.tolist(),
        },
        schema_overrides={"given": pl.String},
    )
