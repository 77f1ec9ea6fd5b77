"""Rows that a job must keep out of its snapshots, because models are evaluated on them."""

from __future__ import annotations

import os
from dataclasses import replace

from thresher.artifacts.remote.address import is_address
from thresher.dataset import Dataset, Source
from thresher.dataset.hub import is_hub_id
from thresher.dataset.loading import load_side_rows
from thresher.dataset.mixture.parsing import parse_source
from thresher.dataset.settings import ReadSettings
from thresher.jobs.job_file import Job


def load_eval_rows(job: Job) -> Dataset | None:
    """Return the rows to evaluate on; None where the job names none.

    Each entry of `eval` may carry settings: "owner/name:test", "test.csv:prompt=q,response=a".
    Where none is said, [rows] counts if the rows have its columns.

    Raises:
        InputError: they cannot be read.
    """
    if not job.settings.eval:
        return None
    named = [_resolve(job, text) for text in job.settings.eval]
    rows = job.settings.rows
    read = ReadSettings(
        schema=rows.schema_name, columns=rows.columns, wanted=rows.wanted, max_row_bytes=rows.max_row_bytes
    )
    is_plain = not any(source.settings for source in named)
    return load_side_rows([source.rows for source in named] if is_plain else named, read)


def _resolve(job: Job, text: str) -> Source:
    """Return the source that an entry names, its path from the folder of the job file."""
    if is_address(text):
        (source,) = parse_source(text)
        return source
    if os.path.exists(job.resolve_path(text)):
        return Source(job.resolve_pattern(text))
    (source,) = parse_source(text)
    name = str(source.rows)
    if is_hub_id(name) and source.settings and not os.path.exists(job.resolve_path(name).parent):
        return source
    return replace(source, rows=job.resolve_pattern(name))
