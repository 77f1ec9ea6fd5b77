"""The dataset card of a snapshot: README.md with front matter for the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thresher.jobs.settings import Output
from thresher.jobs.snapshots.exports import PATTERN, to_yaml
from thresher.jobs.snapshots.folder import format_version
from thresher.printable import escape_markdown

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
_TASKS = {"sft": "text-generation", "text": "text-generation", "classification": "text-classification"}


_TRAINERS = {"dataset_info.json": "LLaMA-Factory", "axolotl.yaml": "axolotl", "trl.py": "TRL"}


def _describe_entries(unreadable: Mapping[str, str]) -> str:
    """Return what the entries for other trainers are called."""
    entries = [(name, trainer) for name, trainer in _TRAINERS.items() if name not in unreadable]
    first, *others = (f"`{name}` {'is ' if not i else ''}for {trainer}" for i, (name, trainer) in enumerate(entries))
    return ", ".join([first, *others]) + "."


def build_card(name: str, output: Output, content: Mapping[str, Any], unreadable: Mapping[str, str]) -> bytes:
    """Return the card.

    Args:
        name: of the job.
        output: what the user says of the rows.
        content: of the manifest.
        unreadable: entries for other trainers that are not written, each with what it would lose.
    """
    n_rows = content["counts"]["rows"]
    size = next((label for limit, label in _SIZES if n_rows < limit), "n>10M")
    front: dict[str, Any] = {"pretty_name": output.title or name}
    if output.license is not None:
        front["license"] = output.license
    if output.language:
        front["language"] = list(output.language)
    front |= {
        "task_categories": [_TASKS[content["schema"]["kind"]]],
        "size_categories": [size],
        "tags": ["thresher", *output.tags],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": PATTERN}]}],
    }
    counts = content["counts"]
    lines = [
        f"# {escape_markdown(output.title or name)}",
        "",
        f"{n_rows:,} rows, snapshot {format_version(content['version'])}, made by `thresher curate run`.",
        "",
        "| | rows |",
        "|---|---|",
        f"| in this snapshot | {n_rows:,} |",
        f"| of them new | {counts['entered']:,} |",
        f"| left since the snapshot before | {counts['left']:,} |",
        f"| judged in all runs | {content['weight']:,} passed the rules |",
        "",
        "## Rules",
        "",
        *(
            f"- {escape_markdown(rule['name'])}{' (reports only)' if rule['report'] else ''}"
            for rule in content["rules"]
        ),
        *([] if content["rules"] else ["- none but one row per content"]),
        "",
        "## Columns",
        "",
        "`thresher_row_id` names the row by its content, `thresher_weight` is the number of rows it represents,",
        "`thresher_source` and `thresher_file` say where it came from, `thresher_since` in which snapshot it appeared.",
        "",
        "Rows that were removed or not added are in `dropped.parquet`, each with its reason; settings and "
        "counts are in",
        f"`manifest.json`. {_describe_entries(unreadable)}",
        "",
        *(
            f"There is no `{entry}`, because {_TRAINERS[entry]} would lose {escape_markdown(lost)}.\n"
            for entry, lost in unreadable.items()
        ),
    ]
    return f"---\n{to_yaml(front)}---\n\n".encode() + "\n".join(lines).encode()
