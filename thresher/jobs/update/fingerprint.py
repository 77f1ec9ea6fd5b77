"""What decides on rows besides the rows: when it changes, every row is evaluated again."""

from __future__ import annotations

from typing import Any

from thresher.artifacts.manifest import digest, versions
from thresher.dataset import Dataset
from thresher.features import FeatureContext, fingerprints
from thresher.jobs.job_file import Job
from thresher.jobs.snapshots.folder import Snapshot
from thresher.jobs.sources.source_settings import has_own_settings
from thresher.jobs.update.curate import needs_embedding

RECIPE = 1  # raised when the same inputs would give another snapshot


def compute_config_fingerprint(job: Job, eval_rows: Dataset | None) -> str:
    """Return the hash of the settings and of the rows to evaluate on."""
    settings = job.settings
    return digest(
        {
            "recipe": RECIPE,
            "rules": [[rule.name, rule.settings(), rule.name in job.report] for rule in job.rules],
            "select": settings.select.model_dump(mode="json"),
            "features": settings.features.model_dump(mode="json", exclude={"device"}),
            "rows": _describe_rows(job),
            "eval": None if eval_rows is None else eval_rows.fingerprint,
            "seed": settings.seed,
        }
    )


def _describe_rows(job: Job) -> dict[str, Any]:
    """Return how rows are read; keys that came later only where they say something."""
    rows, sources = job.settings.rows, job.settings.sources
    described: dict[str, Any] = rows.model_dump(mode="json", exclude={"unreadable", "settle_s", "wanted"})
    if rows.wanted is not None:
        described["wanted"] = rows.wanted
    own = [
        [job.source_name(number), source.schema_name, source.columns, source.wanted]
        for number, source in enumerate(sources)
        if has_own_settings(source)
    ]
    return {**described, **({"sources": own} if own else {})}


def fingerprint_models(job: Job, context: FeatureContext) -> dict[str, dict[str, str]]:
    """Return the models behind the lengths, and behind the embeddings where anything needs them."""
    asked = {name for rule in job.rules for name in rule.requirements.all_features}
    is_embedding = needs_embedding(job) or "embedding" in asked
    return fingerprints({"length"} | ({"embedding"} if is_embedding else set()), context)


def describe_config_change(snapshot: Snapshot, fingerprint: str) -> str | None:
    """Return what changed since a snapshot, or None where the fingerprint is still the same."""
    content = snapshot.manifest.content
    if content["basis"] == fingerprint:
        return None
    before, now = content["versions"].get("thresher"), versions(())["thresher"]
    defaults = "" if before == now else f" (or their defaults, from thresher {before} to {now})"
    return f"steps, selection, models or test set changed{defaults}"


def describe_model_change(job: Job, snapshot: Snapshot, context: FeatureContext) -> str | None:
    """Return which features come from another model than in a snapshot, or None where none does."""
    known, now = snapshot.manifest.content["features"], fingerprint_models(job, context)
    changed = [name for name in now if name in known and now[name]["fingerprint"] != known[name].get("fingerprint")]
    return f"the model behind {' and '.join(changed)} changed under the same name" if changed else None
