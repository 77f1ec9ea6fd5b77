"""The arrow from a dataset to a cleaner dataset: rules judge the rows, one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import numpy as np

from thresher.artifacts.folder import OutputFolder
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.curation.pipeline import CurationResult, apply_rules, collect_settings
from thresher.curation.result import Curated
from thresher.curation.rule import Rule, accepts, available, create
from thresher.dataset import Dataset, load
from thresher.dataset.provenance import describe_reading, describe_rows, describe_run, refuse_input_as_output
from thresher.dataset.rejection import count_values
from thresher.errors import InputError, SettingsError, did_you_mean
from thresher.models.settings import ModelOptions, ModelSettings
from thresher.validation import document_options, split_options

if TYPE_CHECKING:
    from thresher.features import FeatureContext, Progress

T = TypeVar("T")
DEFAULT_RULES = ("exact-duplicates", "near-duplicates")
WITH_EVAL = "contamination"
KIND = "curated"


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

        needs = {name for rule in self.rules for group in (rule.needs, *accepts(rule).values()) for name in group}
        return {
            "request": [
                {"name": rule.name, "settings": collect_settings(rule), "report": rule.name in self.report}
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
    on_progress: Callable[[Progress], None] | None = None,
    **options: Unpack[ModelOptions],
) -> Curated:
    """Clean a pool: drop duplicates, leaks of the test set, and whatever else the rules find.

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
        seed: of everything random.
        out: folder to write the result to; it appears whole or not at all.
        force: replace an earlier result in `out`.
        on_progress: called with a Progress while features are computed.
        **options: fields of `ModelSettings`.

    Raises:
        InputError: the rules keep no row.
    """
    started = time.monotonic()
    (models,) = split_options("curate", options, ModelSettings)
    plan = _plan(
        pool, rules, settings, existing, eval, report, seed,
        models=models, on_progress=on_progress,
    )  # fmt: skip
    if out is None:
        return _run(plan, started)
    refuse_input_as_output(Path(out), plan.inputs)
    with OutputFolder(out, identity=plan.identity(), force=force) as folder:
        if folder.is_done:
            _tell_done(folder.path, on_progress)
            return _run(plan, started)
        curated = _run(plan, started)
        try:
            curated.write_into(folder.work)
            folder.publish()
        except OSError:
            folder.discard()  # a full disk: the computed features are cached, so nothing worth keeping is lost
            raise
    return curated


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
    wanted: list[str | Rule] = list(DEFAULT_RULES if rules is None else _apart(rules))
    names = [rule if isinstance(rule, str) else getattr(rule, "name", "") for rule in wanted]
    if has_eval and WITH_EVAL not in names:
        wanted, names = [WITH_EVAL, *wanted], [WITH_EVAL, *names]
    if not wanted:
        raise InputError(f"rules: at least one is required, found none; there are: {', '.join(available())}")
    by_name = [rule for rule in wanted if isinstance(rule, str)]
    for name in settings or {}:
        if name not in by_name:
            raise SettingsError(
                f"settings: '{name}' must be one of the rules that run, {', '.join(by_name) or 'none'}"
                f"{did_you_mean(name, by_name) or '; name it among the rules too'}"
            )
    return tuple(_rule(rule, settings or {}) for rule in wanted)


def _apart(names: Collection[T]) -> Collection[T] | list[str]:
    """Return the names in a text with commas; a list of them as it is."""
    return [part.strip() for part in names.split(",") if part.strip()] if isinstance(names, str) else names


def _rule(rule: str | Rule, settings: Mapping[str, Mapping[str, Any]]) -> Rule:
    if isinstance(rule, str):
        return create(rule, settings.get(rule))
    if isinstance(rule, type) or not isinstance(rule, Rule):
        raise InputError(f"rules: must be names of rules, or rules with their settings, got {rule!r}")
    return rule


def _plan(
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

    report = _apart(report)
    built = build_rules(rules, settings, has_eval=eval_rows is not None)
    names = [rule.name for rule in built]
    for name in report:
        if name not in names:
            raise SettingsError(
                f"report: '{name}' must be one of the rules that run, {', '.join(names)}"
                f"{did_you_mean(name, names) or '; name it among the rules too'}"
            )
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed: must be a whole number from 0, got {seed!r}")
    dataset = _loaded(pool)
    context = FeatureContext(models=models, on_progress=on_progress)
    return _Plan(
        pool=dataset,
        rules=built,
        existing=None if existing is None else _loaded(existing),
        eval=None if eval_rows is None else _loaded(eval_rows),
        report=tuple(sorted(report)),
        context=context.resolved(len(dataset)),
        seed=int(seed),
    )


def _loaded(rows: Any) -> Dataset:
    return rows if isinstance(rows, Dataset) else load(rows)


def _run(plan: _Plan, started: float) -> Curated:
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
    manifest = _manifest(plan, result, time.monotonic() - started)
    return Curated(pool=plan.pool, dataset=result.rows, result=result, manifest=manifest)


def _manifest(plan: _Plan, result: CurationResult, seconds: float) -> Manifest:
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
        **describe_rows(pool, counts),
        "notes": result.notes,
        "kept_rows": digest(pool.frame["row_id"].gather(result.kept).to_list()),
        "versions": versions(("numpy", "polars", "pyarrow", "faiss-cpu", "rensa", "py3langid", "phonenumbers")),
        "run": describe_run(pool, seconds=times),
    }
    return Manifest(content)


def _tell_done(path: Path, on_progress: Callable[[Progress], None] | None) -> None:
    from thresher.features import Progress

    if on_progress is not None:
        note = f"{path}: holds the result of this very command already, which is left as it is"
        on_progress(Progress(stage="curate", done=1, total=1, note=note))
