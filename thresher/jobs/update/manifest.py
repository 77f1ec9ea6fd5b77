"""What the manifest of a snapshot says of the run that made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from thresher.artifacts.manifest import FORMAT, digest, versions
from thresher.dataset.provenance import schema_to_json
from thresher.features import FeatureContext
from thresher.jobs.job_file import Job
from thresher.jobs.snapshots.table import ROW_ID, WEIGHT
from thresher.jobs.state import UpdateInputs
from thresher.jobs.update.choose import Choice


def build_manifest(
    job: Job,
    inputs: UpdateInputs,
    choice: Choice,
    context: FeatureContext,
    models: Mapping[str, Mapping[str, str]],
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """Return the manifest without files, segments and the section `run`."""
    plan, previous = inputs.plan, inputs.plan.previous.snapshot
    parent = None if previous is None else {"version": previous.version, "identity": previous.manifest.identity}
    settings = {
        "rules": [
            {"name": rule.name, "settings": rule.settings(), "report": rule.name in job.report} for rule in job.rules
        ],
        "select": job.settings.select.model_dump(mode="json"),
        "seed": job.settings.seed,
        "eval": None if plan.eval_rows is None else plan.eval_rows.fingerprint,
        "features": models,
    }
    # "basis" and "asked" are the first names of the fingerprint and the settings: they stay, since
    # a snapshot is known by its identity, and older snapshots are read by these keys.
    identity = {
        "parent": parent,
        "basis": plan.config_fingerprint,
        "asked": settings,
        "ledger": inputs.ledger,
        "thresher": versions(()),
        "full": plan.is_full,
    }
    has_rows = choice.table.num_rows > 0
    return {
        "format": FORMAT,
        "kind": "snapshot",
        "identity": digest(identity),
        "version": inputs.version,
        "parent": parent,
        "job": job.name,
        "basis": plan.config_fingerprint,
        "is_full": plan.is_full,
        **settings,
        "encoder": context.models.encoder,
        "n_topics": job.settings.gates.n_topics,
        "schema": schema_to_json(inputs.schema),
        "counts": counts,
        "weight": int(np.sum(choice.table[WEIGHT].to_numpy())) if has_rows else 0,
        "objective": None if choice.objective is None else round(choice.objective, 6),
        "kept_rows": digest(choice.table[ROW_ID].to_pylist() if has_rows else []),
        "versions": versions(("numpy", "polars", "pyarrow", "faiss-cpu", "numba", "rensa")),
    }
