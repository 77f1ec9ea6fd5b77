"""From a dataset to a cleaner dataset: rules judge the rows, one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import numpy as np

from thresher.artifacts.folder import OutputFolder
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.curation.pipeline import CurationResult, apply_rules
from thresher.curation.result import KIND, Curated
from thresher.curation.rule import Rule, available, create
from thresher.dataset import Dataset, ensure_dataset
from thresher.dataset.provenance import describe_reading, describe_rows, describe_run, refuse_input_as_output
from thresher.dataset.rejection import count_values
from thresher.dataset.values.given import hash_given
from thresher.errors import InputError, SettingsError, did_you_mean
from thresher.models.settings import ModelOptions, ModelSettings
from thresher.plugins import check_members
from thresher.progress import Progress, report_done
from thresher.validation import document_options, split_options

if TYPE_CHECKING:
    from thresher.features import FeatureContext
    from thresher.features.plan import FeaturesPlan

T = TypeVar("T")
DEFAULT_RULES = ("exact-duplicates", "near-duplicates")
WITH_EVAL = "contamination"


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Everything that determines the result, resolved and checked before any model runs."""

    pool: Dataset
    rules: tuple[Rule, ...]
    existing: Dataset | None
    eval: Dataset | None
    report: tuple[str, ...]
    context: FeatureContext
    seed: int

    @property
    def inputs(self) -> list[Dataset]:
        return [rows for rows in (self.pool, self.existing, self.eval) if rows is not None]

    def settings(self) -> dict[str, Any]:
        """Return what the manifest says of the request, in JSON values."""
        from thresher.features import fingerprints

        needs = {name for rule in self.rules for name in rule.requirements.all_features}
        return {
            "request": [
                {"name": rule.name, "settings": rule.settings(), "report": rule.name in self.report}
                for rule in self.rules
            ],
            "seed": self.seed,
            "pool": self.pool.fingerprint,
            "existing": None if self.existing is None else self.existing.fingerprint,
            "eval": None if self.eval is None else self.eval.fingerprint,
            "features": fingerprints(needs, self.context, kind=self.pool.kind),
        }

    def identity(self) -> str:
        read = [describe_reading(rows) for rows in self.inputs]
        return digest({"request": self.settings(), "read": read, "thresher": versions(())})


@document_options(ModelSettings)
def curate(
    pool: Any,
    rules: Sequence[str | Rule] | None = None,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    existing: Any = None,
    eval: Any = None,
    report: Collection[str] = (),
    seed: int = 0,
    out: str | Path | None = None,
    force: bool = False,
    strict: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Unpack[ModelOptions],
) -> Curated:
    """Clean a pool: drop duplicates, test set leaks, and whatever else the rules find.

    Args:
        pool: a Dataset, or anything `load` accepts.
        rules: names (`thresher curate rules` lists them; a list, or a text with commas) or rules,
            in the order in which they judge; None for "exact-duplicates" and "near-duplicates".
            With `eval`, "contamination" comes first if it is not among them.
        settings: rule -> setting -> value, for rules given by name.
        existing: rows kept earlier (anything `load` accepts): none of them is dropped, and rows
            that repeat one are.
        eval: rows to evaluate on (anything `load` accepts), which must not be in the pool.
        report: names of rules that only report what they find, and drop nothing; a list, or a text
            with commas.
        seed: random seed.
        out: folder to write the result to; it appears whole or not at all.
        force: replace an earlier result in `out`.
        strict: fail where a rule drops more than a third of the pool.
        on_progress: called with a Progress while features are computed.
        **options: fields of `ModelSettings`.

    Raises:
        InputError: the rules keep no row, or one drops more than a third of them and `strict` is
            set.
    """
    started = time.monotonic()
    (models,) = split_options("curate", options, ModelSettings)
    plan = _make_plan(pool, rules, settings, existing, eval, report, seed, models=models, on_progress=on_progress)
    if out is None:
        return _run(plan, started, strict=strict)
    refuse_input_as_output(Path(out), plan.inputs)
    with OutputFolder(out, identity=plan.identity(), force=force) as folder:
        if folder.is_done:
            report_done(on_progress, stage="curate", folder=folder.path, outcome="left as it is")
        curated = _run(plan, started, strict=strict)
        if not folder.is_done:
            folder.publish_files(curated.write_files)
    return replace(curated, path=folder.path)


def plan_cleaning(
    pool: Dataset,
    rules: Sequence[str | Rule] | None = None,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    has_eval: bool = False,
    report: Collection[str] = (),
    models: ModelSettings,
    on_progress: Callable[[Progress], None] | None = None,
) -> FeaturesPlan:
    """Estimate what the features of all rules take; the rules themselves are not run.

    Args:
        pool: rows to clean.
        rules: as for `curate`.
        settings: as for `curate`.
        has_eval: there are rows to evaluate on, so that "contamination" runs in any case.
        report: as for `curate`.
        models: which models are run, and how.
        on_progress: listener.
    """
    from thresher.features import FeatureContext
    from thresher.features.plan import plan_features

    built = build_rules(rules, settings, has_eval=has_eval)
    _check_names("report", _split_names(report), [rule.name for rule in built])
    names = sorted({name for rule in built for name in rule.requirements.all_features})
    context = FeatureContext(models=models, on_progress=on_progress, given=hash_given(pool))
    return plan_features(pool, names, context.resolved())


def build_rules(
    rules: Sequence[str | Rule] | None, settings: Mapping[str, Mapping[str, Any]] | None, *, has_eval: bool
) -> tuple[Rule, ...]:
    """Return the rules of a request, built and in order.

    Args:
        rules: names or rules; None for the default ones.
        settings: rule -> setting -> value, for rules given by name.
        has_eval: there are rows to evaluate on, so that "contamination" runs in any case.

    Raises:
        InputError: something else than a rule was given, or none.
        SettingsError: settings are of a rule that is not among the named ones.
    """
    chosen: list[str | Rule] = list(DEFAULT_RULES if rules is None else _split_names(rules))
    for rule in chosen:
        if isinstance(rule, type) or not isinstance(rule, str | Rule):
            raise InputError(f"rules: must be names of rules, or rules with their settings, got {rule!r}")
        if isinstance(rule, Rule):
            check_members(type(rule), Rule, f"rule '{rule.name}'")
    if has_eval and WITH_EVAL not in [rule if isinstance(rule, str) else rule.name for rule in chosen]:
        chosen = [WITH_EVAL, *chosen]
    if not chosen:
        raise InputError(f"rules: at least one is required, found none; there are: {', '.join(available())}")
    _check_names("settings", settings or (), [rule for rule in chosen if isinstance(rule, str)])
    return tuple(create(rule, (settings or {}).get(rule)) if isinstance(rule, str) else rule for rule in chosen)


def _split_names(names: Collection[T]) -> Collection[T] | list[str]:
    """Return the names in a text with commas; a list of them as it is."""
    return [part.strip() for part in names.split(",") if part.strip()] if isinstance(names, str) else names


def _check_names(what: str, names: Iterable[str], running: Sequence[str]) -> None:
    """Refuse names that are not among those of the rules that run.

    Raises:
        SettingsError: a name is another.
    """
    for name in names:
        if name not in running:
            raise SettingsError(
                f"{what}: '{name}' must be one of the rules that run, {', '.join(running) or 'none'}"
                f"{did_you_mean(name, running) or '; name it among the rules too'}"
            )


def _make_plan(
    pool: Any,
    rules: Sequence[str | Rule] | None,
    settings: Mapping[str, Mapping[str, Any]] | None,
    existing: Any,
    eval_rows: Any,
    report: Collection[str],
    seed: int,
    *,
    models: ModelSettings,
    on_progress: Callable[[Progress], None] | None,
) -> _Plan:
    from thresher.features import FeatureContext

    report = _split_names(report)
    built = build_rules(rules, settings, has_eval=eval_rows is not None)
    _check_names("report", report, [rule.name for rule in built])
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed: must be a whole number of at least 0, got {seed!r}")
    dataset = ensure_dataset(pool)
    context = FeatureContext(models=models, on_progress=on_progress, given=hash_given(dataset))
    return _Plan(
        pool=dataset,
        rules=built,
        existing=None if existing is None else ensure_dataset(existing),
        eval=None if eval_rows is None else ensure_dataset(eval_rows),
        report=tuple(sorted(report)),
        context=context.resolved(),
        seed=int(seed),
    )


def _run(plan: _Plan, started: float, *, strict: bool) -> Curated:
    result = apply_rules(
        plan.pool,
        plan.rules,
        existing=plan.existing,
        eval=plan.eval,
        context=plan.context,
        report=plan.report,
        seed=plan.seed,
    )
    if not len(result.kept):
        why = ", ".join(f"{n:,} {reason}" for reason, n in count_values(result.dropped["reason"]).items())
        raise InputError(f"rules: must keep at least one row, but all {len(plan.pool):,} are dropped ({why})")
    if strict and (drops := result.large_drops):
        raise InputError(f"{drops[0]}; look at the rows without --strict, change its settings, or use --report")
    manifest = _build_manifest(plan, result, time.monotonic() - started)
    return Curated.from_rules(plan.pool, result, manifest)


def _build_manifest(plan: _Plan, result: CurationResult, seconds: float) -> Manifest:
    pool, settings = plan.pool, plan.settings()
    rules = settings.pop("request")
    outcomes = [
        {
            "rows": each.n_in,
            "dropped": dict(each.dropped),
            "masked": each.n_masked,
            "findings": each.n_findings,
            "notes": dict(each.notes),
        }
        for each in result.results
    ]
    counts = {
        "kept": len(result.kept),
        "dropped": result.dropped.height,
        "dropped_by_rule": count_values(result.dropped["rule"]),
        "dropped_by_reason": count_values(result.dropped["reason"]),
        "masked": len(result.masked),
        "findings": result.findings.height,
        "orphaned": result.n_orphaned,
    }
    times = {"total": round(seconds, 3), "rules": [round(each.seconds, 3) for each in result.results]}
    content = {
        "format": FORMAT,
        "kind": KIND,
        "identity": plan.identity(),
        "rules": [{**rule, **outcome} for rule, outcome in zip(rules, outcomes, strict=True)],
        **settings,
        **describe_rows(pool, counts, others={"existing": plan.existing, "eval": plan.eval}),
        "notes": result.notes,
        "large_drops": result.large_drops,
        "kept_rows": digest(pool.frame["row_id"].gather(result.kept).to_list()),
        "versions": versions(("numpy", "polars", "pyarrow", "faiss-cpu", "rensa", "py3langid", "phonenumbers")),
        "run": describe_run(pool, seconds=times),
    }
    return Manifest(content)
