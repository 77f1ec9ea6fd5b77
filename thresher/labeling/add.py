"""Take answers back: rows labeled so far, the annotator's and people's, without contradiction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.result import open_folder
from thresher.artifacts.stored import read_json_lines
from thresher.dataset import Dataset, load
from thresher.dataset.values.kept_rows import KeptRows
from thresher.errors import InputError, first_three
from thresher.labeling.agreement import Agreement, measure_agreement
from thresher.labeling.answers import Answer, read_answers
from thresher.labeling.ask import Asked
from thresher.labeling.exchange import ROW_ID, list_label_values, restore_label, write_jsonl
from thresher.progress import Progress, report_done

KIND, ROWS, RECIPE = "labeled", "rows.jsonl", "label-add-2"
BY = "thresher_labeled_by"  # column that says who gave a label
PEOPLE = "people"
MADE = ("thresher_why", "thresher_nearest", "thresher_nearest_label")  # of a question, not of a row


@dataclass(frozen=True, kw_only=True, repr=False)
class Labeled(KeptRows):
    """All rows that are labeled so far.

    Attributes:
        labeled: the rows, each with the user's own columns, its label and who gave it.
        manifest: what ran, with counts, `agreement` and the answer in a sentence.
        path: of the folder, or None.
    """

    labeled: list[dict[str, Any]]
    manifest: Manifest
    path: Path | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The labeled rows."""
        return self.labeled

    def __len__(self) -> int:
        """Return the number of labeled rows."""
        return len(self.labeled)

    @cached_property
    def dataset(self) -> Dataset:  # type: ignore[override] # read, never set
        """The labeled rows as a Dataset."""
        return load(self.labeled if self.path is None else self.path)

    @property
    def agreement(self) -> Agreement | None:
        """How often people agreed with the annotator, where there was one."""
        entry = self.manifest.content["agreement"]
        return None if entry is None else Agreement(**entry)

    def list_facts(self) -> list[tuple[str, str]]:
        """Return how many rows have a label, from whom, and the agreement."""
        counts = self.manifest.content["counts"]
        facts = [(name.replace("_", " "), f"{n:,}") for name, n in counts.items()]
        return facts if self.agreement is None else [*facts, ("agreement", str(self.agreement))]

    def write_files(self, folder: Path) -> None:
        """Write `rows.jsonl` and the manifest."""
        write_jsonl(self.labeled, folder / ROWS)
        write_atomic(folder / MANIFEST, self.manifest.to_json())

    @staticmethod
    def read(folder: str | Path) -> Labeled:
        """Read what `add_labels` wrote.

        Raises:
            ManifestError: the folder is not one, or is damaged.
        """
        path, manifest = open_folder(folder, KIND, "a folder that 'label add' wrote")
        return Labeled(labeled=read_json_lines(path / ROWS), manifest=manifest, path=path)


def add_labels(
    asked: Any,
    answers: Any = (),
    *,
    out: str | Path | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Labeled:
    """Add answers to the rows that `ask_labels` asked for, to those labeled before.

    People's labels count before the annotator's. On the rows that both labeled, their agreement is
    measured.

    Args:
        asked: what `ask_labels` returned, or its folder.
        answers: files, or rows with `thresher_row_id` and a label: one or a list of them; see
            `labeling/answers.py` for the forms. Rows that are not answered stay unlabeled; none
            are needed for those that an annotator answered.
        out: folder to write the result to; it appears whole or not at all.
        force: replace an earlier result in `out`.
        on_progress: told where the result is there already.

    Raises:
        InputError: a row has two different answers, an answer is about a row that was not asked
            for, or no row is answered.
        OutputError: `out` holds something else.
    """
    batch = asked if isinstance(asked, Asked) else Asked.read(asked)
    column = str(batch.manifest.content["label_column"])
    given = [answer for source in _list_sources(answers) for answer in read_answers(source, column)]
    labels = _join(given, {row[ROW_ID] for row in batch.rows})
    result = _build(batch, labels, given, column)
    if out is None:
        return result
    with OutputFolder(out, identity=result.manifest.identity, force=force) as folder:
        if folder.is_done:
            report_done(on_progress, stage="label add", folder=folder.path, outcome="read back")
        else:
            folder.publish_files(result.write_files)
    return Labeled.read(folder.path)


def _list_sources(answers: Any) -> list[Any]:
    if isinstance(answers, str | Path):
        return [answers]
    sources = list(answers)
    return sources if all(isinstance(each, str | Path) for each in sources) else [sources]


def _join(given: Sequence[Answer], asked: set[str]) -> dict[str, str]:
    """Return the label of each answered row.

    Raises:
        InputError: answers contradict each other or are about other rows.
    """
    unknown = [answer for answer in given if answer.row_id not in asked]
    if unknown:
        shown = first_three([f"{each.row_id} ({each.place})" for each in unknown])
        raise InputError(
            f"label add: answers must be about rows that were asked for, {len(unknown):,} of {len(given):,} are not: "
            f"{shown}; name the folder of 'label ask' that they answer"
        )
    first: dict[str, Answer] = {}
    conflicts: dict[str, list[Answer]] = {}
    for answer in given:
        if first.setdefault(answer.row_id, answer).label != answer.label:
            conflicts.setdefault(answer.row_id, [first[answer.row_id]]).append(answer)
    if conflicts:
        shown = first_three(
            [
                f"{row_id}: " + " and ".join(f"'{a.label}' ({a.place})" for a in pair[:2])
                for row_id, pair in conflicts.items()
            ]
        )
        raise InputError(
            f"label add: one label per row is required, {len(conflicts):,} rows have several: {shown}; settle them, or "
            f"join several annotators with 'thresher label join'"
        )
    return {row_id: answer.label for row_id, answer in first.items()}


def _build(batch: Asked, labels: dict[str, str], given: Sequence[Answer], column: str) -> Labeled:
    machine = {each[ROW_ID]: each for each in batch.machine}
    annotator = batch.manifest.content["annotator"]
    known = list_label_values([row.get(column) for row in batch.labeled])
    values = {label: restore_label(label, known) for label in {*labels.values(), *_list_answers(batch)}}
    added = [
        _label_row(row, column, values[labels[row[ROW_ID]]], PEOPLE) for row in batch.rows if row[ROW_ID] in labels
    ]
    n_people = len(added)
    answered = [each for each in batch.machine if each["label"] is not None and not each["is_checked"]]
    added += [_label_row(each["row"], column, values[each["label"]], str(annotator)) for each in answered]
    if not added:
        raise InputError(
            "label add: at least one answered row is required, found none; fill in the labels, and run again"
        )
    rows = [*batch.labeled, *added]
    checked = [(machine[row_id]["label"], label) for row_id, label in labels.items() if row_id in machine]
    agreement = measure_agreement(checked) if checked else None
    counts = {"labeled": len(rows), "labeled_before": len(batch.labeled), "by_people": n_people}
    counts |= {"by_annotator": len(added) - n_people, "not_answered": len(batch.rows) - n_people}
    content = {
        "asked": batch.manifest.identity,
        "answers": sorted((answer.row_id, answer.label) for answer in given),
        "label_column": column,
    }
    return Labeled(
        labeled=rows,
        manifest=Manifest(
            {
                "format": FORMAT,
                "kind": KIND,
                "identity": digest({"recipe": RECIPE, **content, "thresher": versions(())}),
                "asked": content["asked"],
                "label_column": column,
                "annotator": annotator,
                "agreement": None if agreement is None else agreement.to_json(),
                "counts": counts,
                "versions": versions(()),
                "run": {},
            }
        ),
    )


def _list_answers(batch: Asked) -> list[str]:
    """Return the annotator's labels."""
    return [each["label"] for each in batch.machine if each["label"] is not None]


def _label_row(row: dict[str, Any], column: str, label: Any, by: str) -> dict[str, Any]:
    return {**{name: value for name, value in row.items() if name not in MADE}, column: label, BY: by}
