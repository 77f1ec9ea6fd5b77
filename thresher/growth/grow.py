"""From a pool to rows that a model writes: seeds are asked about, answers are checked and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from thresher.artifacts.folder import OutputFolder
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.dataset import Dataset, ensure_dataset
from thresher.dataset.provenance import describe_reading, describe_rows, describe_run, refuse_input_as_output
from thresher.errors import InputError
from thresher.features.answers.prompts import PromptRows
from thresher.growth.candidate import Candidate
from thresher.growth.refusing import refuse_copies
from thresher.growth.result import FROM, KIND, Grown, count_outcomes, read_grown, tabulate
from thresher.growth.seeds import Seeds, Speaker
from thresher.growth.settings import GrowOptions, GrowSettings
from thresher.growth.ways.accept import propose_answers
from thresher.growth.ways.constraints import propose_texts
from thresher.growth.ways.explain import propose_explanations
from thresher.growth.ways.failures import propose_failures
from thresher.growth.ways.own import propose_own_answers
from thresher.growth.ways.reword import propose_rewordings
from thresher.models.settings import ModelSettings
from thresher.numeric.arrays import Int64
from thresher.progress import Progress, report_done
from thresher.validation import document_options, split_options

if TYPE_CHECKING:
    from thresher.features.context import FeatureContext
    from thresher.features.plan import FeaturesPlan

RECIPE = "grow-3"
UNPROVEN = (
    "to find out whether these rows help, train with and without them: thresher compare {out} --against POOL "
    "--eval FILE"
)
Propose = Callable[[Seeds], tuple[list[Candidate], dict[str, float]]]
WAYS: Mapping[str, Propose] = {
    "accept": propose_answers,
    "own": propose_own_answers,
    "failures": propose_failures,
    "constraints": propose_texts,
    "reword": propose_rewordings,
    "explain": propose_explanations,
}
WITH_LABELS = ("constraints", "reword")


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Everything that determines the result.

    Attributes:
        pool: the rows.
        eval: held-out rows that no grown row may repeat, or None.
        at: positions of the seeds.
        n_written: rows of the pool that a model wrote, which are no seeds.
        n_not_asked: seeds beyond what `calls` allows.
    """

    pool: Dataset
    eval: Dataset | None
    at: Int64
    n_written: int
    n_not_asked: int
    settings: GrowSettings
    model: Speaker
    writer: Speaker

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says of the request, in JSON values."""
        speakers = {"model": self.model, "writer": self.writer}
        return {
            "settings": vars(self.settings) | {"teacher": None},
            "pool": self.pool.fingerprint,
            "eval": None if self.eval is None else self.eval.fingerprint,
            **({} if self.settings.entailment is None else {"entailment": self._hash_entailment()}),
            **{
                role: {"name": who.generator.name, "fingerprint": who.generator.fingerprint}
                for role, who in speakers.items()
            },
        }

    def _hash_entailment(self) -> str:
        from thresher.features.answers.entailment import Entailment

        device = self.writer.context.models.device
        return Entailment(str(self.settings.entailment), device=device).fingerprint

    def identity(self) -> str:
        read = [describe_reading(rows) for rows in (self.pool, self.eval) if rows is not None]
        encoder = self.model.context.models.encoder
        return digest({"recipe": RECIPE, "request": self.describe(), "encoder": encoder, "read": read})


@document_options(GrowSettings, ModelSettings)
def grow(
    pool: Any,
    *,
    eval: Any = None,  # noqa: A002 - the name of the command's option
    out: str | Path | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Unpack[GrowOptions],
) -> Grown:
    """Let a model write rows, and keep those that pass a check, without executing any of them.

    accept: answers are drawn for each prompt, and right and different ones kept (RFT, ReST-EM,
    STaR). own: the model's own right answer, or its rewording of the row's, takes the row's place,
    from which training moves the model less (S3FT). failures: the writer makes rows like those that
    the model gets wrong, and confirms them (LLM2LLM). constraints: new texts of a label with its
    words and length (CoDa). reword: prompts in other words. explain: a reasoning in front of the
    answer.

    Every text that is refused is on record with its reason. Copies of rows of the pool and of held-
    out rows are refused by the rules of curation. Rows that a model wrote (those with `grown_from`)
    are not grown from. Stored answers are not asked for again, and the same call gives the same
    rows. None of this shows that the rows help: `compare` against the pool does.

    Source: Yuan et al. 2023, arXiv:2308.01825 (RFT); Singh et al. 2024, arXiv:2312.06585 (ReST-EM);
    Gupta et al. 2025, arXiv:2502.08130 (S3FT); Lee et al. 2024, arXiv:2403.15042 (LLM2LLM);
    Evuru et al. 2024, arXiv:2404.00415 (CoDa). Cost: answers of each seed: n_samples for accept, 1
    to 2 for own and explain, per_seed for reword and constraints, 1 and 4 per_seed more of failures
    for failures. Fails: right answers by wrong steps pass a check of the final answer.

    Args:
        pool: a Dataset with prompts and responses (constraints and reword also take labels), or
            anything `load` accepts.
        eval: held-out rows, anything `load` accepts: no kept row may repeat one.
        out: folder to write the result to; it appears whole or not at all.
        force: replace an earlier result in `out`.
        on_progress: called with a Progress while models run.
        **options: fields of `GrowSettings` and of `ModelSettings`.

    Raises:
        InputError: the rows are of a kind that cannot be grown this way, or all written by a model.
        SettingsError: an option is illegal.
        OutputError: `out` holds something else, or the rows.
    """
    started = time.monotonic()
    settings, models = split_options("grow", options, GrowSettings, ModelSettings)
    plan = _make_plan(ensure_dataset(pool), eval, settings, models, on_progress)
    if out is None:
        return _run(plan, started)
    refuse_input_as_output(Path(out), [rows for rows in (plan.pool, plan.eval) if rows is not None])
    with OutputFolder(out, identity=plan.identity(), force=force) as folder:
        if folder.is_done:
            report_done(on_progress, stage="grow", folder=folder.path, outcome="read back")
        else:
            folder.publish_files(_run(plan, started).write_files)
        return read_grown(folder.path, plan.pool)


def plan_growth(pool: Any, *, eval: Any = None, **options: Unpack[GrowOptions]) -> FeaturesPlan:  # noqa: A002
    """Estimate what `grow` with the same arguments will take; nothing is written, no server asked.

    Args:
        pool: as for `grow`.
        eval: as for `grow`.
        **options: as for `grow`.
    """
    from thresher.features.plan import name_server_model, plan_stages

    settings, models = split_options("grow", options, GrowSettings, ModelSettings)
    plan = _make_plan(ensure_dataset(pool), eval, settings, models, None)

    def run(context: FeatureContext) -> object:
        model = replace(plan.model, context=context, calls={})
        writer = model
        if plan.writer is not plan.model:
            named = name_server_model(plan.writer.context).models.model
            writer = replace(plan.writer, context=context.with_models(model=named), calls={})
        return _run(replace(plan, model=model, writer=writer), time.monotonic())

    return plan_stages(run, len(plan.at), plan.model.context)


def _make_plan(
    pool: Dataset,
    eval_rows: Any,
    settings: GrowSettings,
    models: ModelSettings,
    on_progress: Callable[[Progress], None] | None,
) -> _Plan:
    from thresher.features.context import FeatureContext
    from thresher.models.generation.load import load_generator

    _check_kind(pool, settings)
    context = FeatureContext(models=models, on_progress=on_progress).resolved()
    writing: FeatureContext = context if settings.teacher is None else context.with_models(model=settings.teacher)
    at = _list_seeds(pool)
    n_most = len(at) if settings.calls is None else settings.calls // settings.calls_per_seed
    if not n_most:
        raise InputError(
            f"calls: must allow at least one seed, which takes {settings.calls_per_seed} answers with "
            f"how={settings.how}, got {settings.calls}"
        )
    model = Speaker(generator=load_generator(context), context=context)
    return _Plan(
        pool=pool,
        eval=None if eval_rows is None else ensure_dataset(eval_rows),
        at=at[:n_most],
        n_written=len(pool) - len(at),
        n_not_asked=max(0, len(at) - n_most),
        settings=settings,
        model=model,
        writer=model if settings.teacher is None else Speaker(generator=load_generator(writing), context=writing),
    )


def _check_kind(pool: Dataset, settings: GrowSettings) -> None:
    allowed = ("sft", "classification") if settings.how in WITH_LABELS else ("sft",)
    if pool.kind not in allowed:
        needed = "a text or prompt with its label or response" if len(allowed) > 1 else "a prompt and a response"
        raise InputError(f"grow: how={settings.how} needs rows with {needed}, found rows of kind '{pool.kind}'")
    texts = pool.schema.columns.get("text", ())
    if pool.kind == "classification" and len(texts) > 1:
        raise InputError(
            f"grow: how={settings.how} writes one text, and these rows have {len(texts)} ({', '.join(texts)}); name "
            f"one with --map text=COLUMN,label=COLUMN"
        )


def _list_seeds(pool: Dataset) -> Int64:
    """Return the positions of the rows that no model wrote.

    Raises:
        InputError: there are none.
    """
    if FROM not in pool.column_names:
        return np.arange(len(pool))
    at = np.flatnonzero(pool.column(FROM).is_null().to_numpy())
    if not len(at):
        raise InputError(f"grow: rows that a model wrote (those with '{FROM}') are not used as seeds, found no others")
    return at


def _run(plan: _Plan, started: float) -> Grown:
    rows = PromptRows.from_dataset(plan.pool.take(plan.at), by="grow")
    seeds = Seeds(pool=plan.pool, at=plan.at, rows=rows, settings=plan.settings, model=plan.model, writer=plan.writer)
    candidates, facts = WAYS[plan.settings.how](seeds)
    candidates = refuse_copies(plan.pool, candidates, held_out=plan.eval, context=plan.writer.context)
    writer = plan.model if plan.settings.how == "own" else plan.writer
    kept, refused = tabulate(plan.pool, candidates, writer=writer.generator.name, number=plan.settings.round)
    counts = count_outcomes(candidates, len(plan.at))
    counts |= {"written_by_models": plan.n_written, "not_asked": plan.n_not_asked}
    calls = dict(plan.model.calls)
    if plan.writer is not plan.model:
        calls |= plan.writer.calls
    notes = list(dict.fromkeys([*plan.model.generator.notes(), *plan.writer.generator.notes()]))
    content = {
        "format": FORMAT,
        "kind": KIND,
        "identity": plan.identity(),
        **plan.describe(),
        **describe_rows(plan.pool, counts, others={"eval": plan.eval}),
        "facts": facts,
        "answers": calls,
        "notes": notes,
        "kept_rows": digest(kept),
        "versions": versions(),
        "run": describe_run(plan.pool, seconds={"total": round(time.monotonic() - started, 3)}),
    }
    return Grown(rows=kept, refused=refused, pool=plan.pool, manifest=Manifest(content))
