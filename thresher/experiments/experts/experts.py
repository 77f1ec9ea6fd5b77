"""`train --experts`: is one adapter enough, or do several, each on its cluster of rows, do better?

    OUT/experts/0..K-1   adapters (peft folders) of the first seed
    OUT/router.npy       centroids, (K, d): a question goes to the nearest one by its embedding
    OUT/experts.json     scores of experts and controls, verdicts, rows per expert

After a common start on all rows, each expert goes on alone on its cluster (after ELREA, Ensembles
of Low-Rank Expert Adapters, which mixes them by gradients; here each question goes to one). Two
controls tell where a gain comes from: one adapter that goes on with as many steps as all experts
together, and experts on random clusters of the same sizes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Any, Unpack

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, copy_folder, write_array, write_atomic
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.result import Result
from thresher.artifacts.seal import encode_record
from thresher.artifacts.stored import explain_unreadable
from thresher.dataset.provenance import list_source_paths
from thresher.errors import InputError, SettingsError
from thresher.evaluation.gain import Gain, estimate_gain, format_gain
from thresher.evaluation.metric import METRICS, Unit, find_unit
from thresher.experiments.experts.clusters import Division, embed_prompts
from thresher.experiments.experts.runs import EXPERTS, RANDOM, SINGLE, ExpertRun, embed_sides, run_seed
from thresher.experiments.experts.settings import ExpertOptions, ExpertSettings
from thresher.experiments.result_folder import RunClock, read_result
from thresher.features import resolve_encoder
from thresher.numeric.units import format_count
from thresher.progress import OnProgress, Progress
from thresher.trainer.context import PACKAGES, RunContext, resolve_run
from thresher.trainer.deployment.settings import PredictOptions, PredictSettings
from thresher.trainer.engine.tokenization import require_rows
from thresher.trainer.held_out import prepare_held_out
from thresher.trainer.runs import tokenize_rows
from thresher.trainer.split import parse_share
from thresher.trainer.untouched.summary import name_verdict
from thresher.validation import build_settings, document_options

KIND, RESULT, ROUTER, WORK = "experts", "experts.json", "router.npy", ".runs"
AGAIN = "train the experts again"
NO_FOLDER = "experts: questions are routed to folders, found none; give out"
RECIPE = 3  # raise it when the same rows would be divided otherwise
CONTINUED = ("lora", "loraplus", "lorafa", "half")  # kinds that go on from a common start
CONTROLS = {SINGLE: "one adapter with the same number of steps", RANDOM: "experts on random clusters"}


@dataclass(frozen=True, kw_only=True, repr=False)
class Experts(Result):
    """Several adapters, and whether they are better than one.

    Attributes:
        content: of `experts.json`.
        path: of the folder, or None.
        manifest: what ran.
    """

    content: Mapping[str, Any]
    path: Path | None
    manifest: Manifest

    def list_facts(self) -> list[tuple[str, str]]:
        """Return scores and verdicts."""
        content = self.content
        scores = [(name, f"{content['metric']} {score:.4f}") for name, score in content["scores"].items()]
        return [*scores, *[(f"against {name}", each["verdict"]) for name, each in content["against"].items()]]

    def route(self, questions: Sequence[str]) -> list[Path]:
        """Return the adapter's folder for each question.

        Raises:
            InputError: the result was not written to a folder.
        """
        if self.path is None:
            raise InputError(NO_FOLDER)
        folders = [self.path / EXPERTS / str(one) for one in range(self.content["k"])]
        if len(folders) == 1:
            return folders * len(questions)
        with explain_unreadable(self.path / ROUTER):
            centroids = np.load(self.path / ROUTER, allow_pickle=False)
        nearest = np.argmax(embed_prompts(list(questions), self.content["encoder"]) @ centroids.T, axis=1)
        return [folders[one] for one in nearest]

    @document_options(PredictSettings)
    def predict(self, texts: str | Sequence[str], **options: Unpack[PredictOptions]) -> pl.DataFrame:
        """Return what the expert of each text makes of it, as `Adapter.predict` does.

        Args:
            texts: to classify, to answer or to continue.
            options: fields of `PredictSettings`.

        Raises:
            InputError: there is no folder, or no text, or a model cannot read one.
            ManifestError: a file of an adapter is damaged or missing.
        """
        from thresher.trainer.deployment.predict import predict_routed

        if self.path is None:
            raise InputError(NO_FOLDER)
        return predict_routed(
            self.content, texts, options, what="experts", route=self.route, sealed=self.path, again=AGAIN
        )


@document_options(ExpertSettings)
def experts(
    data: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    model: str | Path | None = None,
    on_progress: OnProgress | None = None,
    **options: Unpack[ExpertOptions],
) -> Experts:
    """Train K adapters on clusters of the rows, and compare them with two controls.

    Args:
        data: rows to train on (anything `load` accepts).
        eval: rows to measure on, or a share to hold out.
        model: base model, as for `train`.
        on_progress: called with a Progress as trainings end.
        options: fields of `ExpertSettings`.

    Raises:
        InputError: the rows or the model do not fit.
        SettingsError: the kind of adapter cannot be continued.
        OutputError: `out` holds something else.
    """
    settings = build_settings(ExpertSettings, "experts", options)
    if settings.k is None:
        raise SettingsError("experts: k must be the number of adapters, got None; give 2 or more")
    # what routes later questions must not depend on the machine that does it
    settings = replace(settings, encoder=resolve_encoder(settings.encoder, device=settings.settings.device))
    kind = settings.settings.adapter
    if kind not in (None, *CONTINUED):
        raise SettingsError(
            f"experts: adapter must be one of {', '.join(CONTINUED)}, got '{kind}'; others cannot be continued"
        )
    context = resolve_run(data, model=model, settings=settings.settings, seed=settings.seed, eval=eval)
    if context.split.held_out is None:
        raise InputError("experts: adapters are compared on held-out rows, found none; give eval")
    about = {name: value for name, value in vars(settings).items() if name not in ("out", "force", "settings")}
    identity = digest({"recipe": RECIPE, "experts": about, "run": context.identity()})
    measured = [str(eval)] if parse_share(eval) is not None else list_source_paths(context.split.held_out)
    places = {"inputs": list_source_paths(context.data), "eval": measured}
    if settings.out is None:
        with tempfile.TemporaryDirectory() as temporary:
            return _run(context, settings, Path(temporary), identity, places, on_progress)
    with OutputFolder(settings.out, identity=identity, force=settings.force) as folder:
        if not folder.is_done:
            found = _run(context, settings, folder.work, identity, places, on_progress)
            write_atomic(folder.work / RESULT, encode_record(found.content))
            write_atomic(folder.work / MANIFEST, found.manifest.to_json())
            rmtree(folder.work / WORK, ignore_errors=True)
            folder.publish()
        return read_experts(folder.path)


def read_experts(path: str | Path) -> Experts:
    """Read the folder of `experts`.

    Raises:
        ManifestError: the folder is not one that `experts` wrote.
    """
    folder = Path(path)
    manifest, content = read_result(folder, KIND, "experts", RESULT)
    return Experts(content=content, path=folder, manifest=manifest)


def _run(
    context: RunContext,
    settings: ExpertSettings,
    work: Path,
    identity: str,
    places: Mapping[str, list[str]],
    on_progress: OnProgress | None,
) -> Experts:
    """Train and measure each seed, and compare; `places` are of the rows, for the manifest."""
    clock, done = RunClock(), 0

    def report(name: str) -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            n_each = 1 if settings.k == 1 else 2 * int(settings.k or 0) + 2
            on_progress(Progress(stage="trainings", done=done, total=n_each * settings.seeds, note=None))

    examples, held_out = tokenize_rows(context, context.split.train), prepare_held_out(context)
    require_rows(examples, "train", n_vocabulary=context.base.n_vocabulary)
    if int(settings.k or 0) > len(examples):
        raise InputError(f"experts: each needs a row, got {settings.k} for {len(examples):,} rows; ask for fewer")
    if held_out is None:
        raise AssertionError("there are rows to measure on")
    prompts, questions = embed_sides(context, examples, held_out, settings.encoder)
    sides: dict[str, list[pl.DataFrame]] = {}
    divisions: list[Division | None] = []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        run = ExpertRun(
            context=replace(context, seeds=(seed,)),
            examples=examples,
            held_out=held_out,
            prompts=prompts,
            questions=questions,
            settings=settings,
            seed=seed,
            work=work / WORK / str(seed),
            report=report,
        )
        outcomes, division = run_seed(run)
        divisions.append(division)
        for name, table in outcomes.items():
            sides.setdefault(name, []).append(table)
    _keep_first(work, settings.seed, divisions[0])
    content = _describe(context, settings, sides, divisions[0])
    manifest = _build_manifest(context, content, identity, n_rows=len(examples), run={**clock.to_json(), **places})
    return Experts(content=content, path=Path(settings.out) if settings.out else None, manifest=manifest)


def _build_manifest(
    context: RunContext, content: Mapping[str, Any], identity: str, *, n_rows: int, run: Mapping[str, Any]
) -> Manifest:
    return Manifest(
        {
            "format": FORMAT,
            "kind": KIND,
            "identity": identity,
            "model": {"name": context.base.name, "fingerprint": context.base.fingerprint},
            "data": {"fingerprint": context.data.fingerprint, "rows": n_rows},
            "settings": {**content["settings"], "train": context.settings.to_json()},
            "versions": versions(PACKAGES),
            "run": dict(run),
        }
    )


def _keep_first(work: Path, seed: int, division: Division | None) -> None:
    """Put the experts of the first seed, and the router, where they stay."""
    rmtree(work / EXPERTS, ignore_errors=True)
    copy_folder(work / WORK / str(seed) / EXPERTS, work / EXPERTS)
    if division is not None and division.centroids is not None:
        write_array(division.centroids, work / ROUTER)


def _describe(
    context: RunContext, settings: ExpertSettings, sides: Mapping[str, list[pl.DataFrame]], division: Division | None
) -> dict[str, Any]:
    """Return the content of `experts.json`."""
    metric = next(iter(METRICS[context.task].values()))
    unit = find_unit(metric.name)
    against = {}
    for name, words in CONTROLS.items():
        gain = estimate_gain(metric, sides[EXPERTS], sides[name]) if name in sides else None
        if gain is not None:
            against[name] = {**gain.to_json(), "verdict": _name_verdict(gain, words, unit)}
    about = {"k": settings.k, "clusters": settings.clusters, "common": settings.common, "seeds": settings.seeds}
    return {
        "metric": metric.name,
        "trained": {
            "model": {"name": context.base.name, "fingerprint": context.base.fingerprint},
            "task": context.task,
            "labels": list(context.labels),
            "settings": context.settings.to_json(),
        },
        "k": 1 if division is None else int(division.cluster.max()) + 1,
        "encoder": settings.encoder,
        "scores": {name: float(np.mean([metric.measure(t).value for t in tables])) for name, tables in sides.items()},
        "against": against,
        "rows": None if division is None else np.bincount(division.cluster).tolist(),
        "routed": None
        if division is None
        else np.bincount(division.route, minlength=division.cluster.max() + 1).tolist(),
        "agreement": None if division is None else division.agreement,
        "settings": {**about, "seed": settings.seed, "encoder": settings.encoder},
    }


def _name_verdict(gain: Gain, control: str, unit: Unit) -> str:
    size = format_gain(gain, unit)
    n = f"n = {gain.n:,}, {format_count(gain.n_seeds, 'seed')}"
    if gain.direction == 0:
        return f"no clear difference from {control}: {size} ({n})"
    return f"{name_verdict(gain)} than {control} by {size} ({n})"
