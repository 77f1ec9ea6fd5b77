"""Ask for labels: the rows that are most worth one, in files for people, or answered by a model."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic
from thresher.artifacts.json_text import encode_json
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.result import Excerpt, Result, open_folder
from thresher.artifacts.stored import read_json_lines
from thresher.dataset import Dataset
from thresher.dataset.loading import load_side_rows
from thresher.dataset.provenance import describe_reading, describe_rows, describe_run, refuse_input_as_output
from thresher.dataset.settings import ReadOptions, ReadSettings
from thresher.errors import InputError
from thresher.features import FeatureContext
from thresher.features.embedding import Embedding
from thresher.labeling.annotator import MACHINE, Annotation, annotate, describe_annotator, split_check_rows
from thresher.labeling.choose import Known, NextRows, choose_rows, resolve_way
from thresher.labeling.exchange import (
    ARGILLA,
    ASK,
    ROW_ID,
    TEXT,
    write_argilla,
    write_jsonl,
    write_label_studio,
)
from thresher.labeling.gain import TOO_FEW, Gain, estimate_gain
from thresher.labeling.page import PAGE, render_page
from thresher.labeling.pool import LabelingPool, choose_encoder, embed_texts, read_pool, separate_test_rows
from thresher.labeling.scores import check_sources, describe_scores, fill_unknown, identify_source, measure_scores
from thresher.labeling.settings import AskOptions, AskSettings
from thresher.models.settings import ModelOptions, ModelSettings
from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.units import format_count
from thresher.numeric.vectors import unit_rows
from thresher.progress import Progress, report_done
from thresher.validation import document_options, split_options

KIND, LABELED, RECIPE = "asked", "labeled.jsonl", "label-ask-7"


class AllAskOptions(AskOptions, ModelOptions, ReadOptions, total=False):
    """Keyword arguments of `ask_labels`, for type checkers."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Asked(Result):
    """The rows to label next.

    Attributes:
        rows: of the user, in the order of their worth, each with `thresher_row_id`, an empty label,
            `thresher_why`, `thresher_nearest` and `thresher_nearest_label`; with an annotator,
            those that people check.
        machine: answers of the annotator: `thresher_row_id`, `label`, `problem`, `is_checked`.
        labeled: the rows labeled so far, with the user's own columns.
        manifest: what ran, with `gain` and its sentence.
        path: of the folder, or None.
        html: of the labeling page, or None.
    """

    rows: list[dict[str, Any]]
    machine: list[dict[str, Any]]
    labeled: list[dict[str, Any]]
    manifest: Manifest
    path: Path | None = None
    html: str | None = field(default=None, repr=False)

    @property
    def content(self) -> dict[str, Any]:
        """The answer as JSON values."""
        named = ("batch", "by", "classes", "label_column", "gain", "answer", "counts", "annotator")
        return {name: self.manifest.content[name] for name in named}

    def list_facts(self) -> list[tuple[str, str]]:
        """Return what the next labels are expected to bring, and how many rows are asked for."""
        content = self.manifest.content
        counts = content["counts"]
        facts = [("answer", str(content["answer"])), ("labeled", f"{counts['labeled']:,} rows")]
        facts += [
            ("unlabeled", f"{counts['unlabeled']:,} rows"),
            ("to label", f"{counts['asked']:,} rows, by {content['by']}"),
        ]
        if content["annotator"] is not None:
            facts.append(("annotator", f"{content['annotator']} labeled {counts['answered_by_annotator']:,} rows"))
        return facts

    def list_excerpts(self) -> list[Excerpt]:
        """Return the first rows to label."""
        names = [name for name in (self.rows[0] if self.rows else {}) if name != ROW_ID]
        return [Excerpt("To label", names, [[row.get(name) for name in names] for row in self.rows[:5]])]

    def write_files(self, folder: Path) -> None:
        """Write all files of the folder."""
        content = self.manifest.content
        texts = [row[TEXT] for row in self.rows]
        write_jsonl([_strip(row) for row in self.rows], folder / ASK)
        write_jsonl(self.labeled, folder / LABELED)
        write_label_studio(self.rows, texts, content["classes"], folder)
        write_argilla(self.rows, texts, folder / ARGILLA)
        if content["annotator"] is not None:
            write_jsonl(self.machine, folder / MACHINE)
        if self.html is not None:
            write_atomic(folder / PAGE, self.html.encode())
        write_atomic(folder / MANIFEST, self.manifest.to_json())

    @staticmethod
    def read(folder: str | Path) -> Asked:
        """Read what `ask_labels` wrote.

        Raises:
            ManifestError: it is no such folder, or a file is damaged or missing.
        """
        folder, manifest = open_folder(folder, KIND, "a folder that 'label ask' wrote")
        tables = [read_json_lines(folder / name) for name in (ASK, LABELED)]
        machine = read_json_lines(folder / MACHINE) if manifest.content["annotator"] is not None else []
        page = folder / PAGE
        return Asked(
            rows=tables[0],
            labeled=tables[1],
            machine=machine,
            manifest=manifest,
            path=folder,
            html=page.read_text() if page.is_file() else None,
        )


@document_options(AskSettings, ModelSettings, ReadSettings)
def ask_labels(
    pool: Any,
    *,
    labeled: Any = None,
    eval: Any = None,  # noqa: A002 - the name of the command's option
    out: str | Path | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Unpack[AllAskOptions],
) -> Asked:
    """Pick the rows to label next, and estimate what their labels will add.

    Source: weighted coverage of doubtful rows, on top of what is labeled (`labeling/choose.py`);
    what it saves against random rows was measured by `benchmarks/label_ask.py`. Cost: the encoder
    reads each row once, a logistic regression, and a pass over all pairs of rows. Fails: the first
    batch knows no classes and covers the texts; rows that no label fits stay in doubt and are asked
    for; labels chosen so are no test set, which must be drawn at random.

    Args:
        pool: rows of text, anything `load` accepts; rows with a label in their label column count
            as labeled.
        labeled: rows with labels so far, such as the folder that `add_labels` wrote.
        eval: labeled rows drawn at random, by which the gain is judged; default: the labeled rows.
        out: folder to write the result to; it appears whole or not at all.
        force: replace an earlier result in `out`.
        on_progress: called with a Progress while models run.
        **options: fields of `AskSettings`, `ModelSettings` and `ReadSettings`.

    Raises:
        InputError: the rows cannot be read, or all have a label.
        SettingsError: an option is illegal.
        OutputError: `out` holds something else, or the rows.
    """
    started = time.monotonic()
    plan = plan_call(pool, labeled, eval, on_progress, options)
    if out is None:
        plan.announce()
        asked = plan.run(started, None)
        return replace(asked, rows=[_strip(row) for row in asked.rows])
    read = (plan.rows.texts, plan.rows.given, plan.test)
    refuse_input_as_output(Path(out), [each for each in read if each is not None])
    with OutputFolder(out, identity=plan.identity(), force=force) as folder:
        if folder.is_done:
            report_done(on_progress, stage="label ask", folder=folder.path, outcome="read back")
        else:
            plan.announce()
            folder.publish_files(plan.run(started, folder.path).write_files)
    return Asked.read(folder.path)


def plan_call(
    pool: Any, labeled: Any, eval_rows: Any, on_progress: Callable[[Progress], None] | None, options: AllAskOptions
) -> AskCall:
    """Load and check what `ask_labels` was given."""
    settings, models, read = split_options("label ask", options, AskSettings, ModelSettings, ReadSettings)
    check_sources(settings, models.model)
    split_check_rows([], settings.check)  # an illegal share is told before anything is read
    rows = read_pool(pool, labeled, read, settings.label_column)
    test, n_test = None, 0
    if eval_rows is not None:
        test = _load_test(eval_rows, read)
        n_test = len(test)
        rows, test = separate_test_rows(rows, test)
    context = choose_encoder(FeatureContext(models=models, on_progress=on_progress))
    n_known = 0 if test is None else n_test - len(test)
    return AskCall(rows=rows, test=test, n_known=n_known, context=context, settings=settings)


@dataclass(frozen=True, kw_only=True)
class AskCall:
    """Rows, rows to judge the gain by, the encoder, and how."""

    rows: LabelingPool
    test: Dataset | None
    n_known: int  # test rows that left, as labeled rows ask the same
    context: FeatureContext
    settings: AskSettings

    def identity(self) -> str:
        """Return the hash of everything that determines the result."""
        rows, settings = self.rows, self.settings
        return digest(
            {
                "recipe": RECIPE,
                "pool": [rows.texts.fingerprint, describe_reading(rows.texts)],
                # in their order, by which the draws of the gain go, and with the columns that are
                # written
                "labeled": [rows.text, rows.label, rows.label_column, rows.n_conflicts],
                "labeled_rows": hashlib.sha256(encode_json(rows.labeled_rows)).hexdigest(),
                "test": None if self.test is None else self.test.fingerprint,
                "settings": {name: value for name, value in vars(settings).items()},
                "encoder": Embedding().describe(self.context),
                "annotator": describe_annotator(self.context, self.settings),
                "scored_by": identify_source(settings, self.context),
                "thresher": versions(()),
            }
        )

    @property
    def classes(self) -> list[str]:
        """Labels to choose from: those named, and those that occur."""
        return sorted({*(self.settings.classes or ()), *self.rows.classes})

    def announce(self) -> None:
        """Say what was read, and what comes next."""
        if self.context.on_progress is None:
            return
        encoder, batch = self.context.models.encoder, min(self.settings.batch, len(self.rows.open_rows))
        n = len(self.rows.texts) + len(self.rows.text)
        plan = f"plan: embed {format_count(n, 'text')} with {encoder}, then pick {format_count(batch, 'row')}"
        for note in (self.rows.describe(), plan):
            self.context.on_progress(Progress(stage="label ask", done=0, total=1, note=note))

    def run(self, started: float, path: Path | None) -> Asked:
        """Choose the rows, estimate the gain, and let the annotator answer."""
        rows, settings, context = self.rows, self.settings, self.context
        vectors, known = rows.embed(context)
        by = resolve_way(settings.by, known)
        n_rows = min(settings.batch, len(rows.open_rows))
        rng = np.random.default_rng(settings.seed)
        texts = rows.texts.frame["response"].gather(rows.open_rows).to_list()
        scores = measure_scores(texts, self.classes, settings, context)
        filled = None if scores is None else fill_unknown(scores)
        chosen = choose_rows(vectors, known, n_rows, by=by, rng=rng, score=filled)
        gain = None if known.label is None else self._estimate(vectors, known, n_rows)
        asked = self._describe(chosen, known)
        machine: list[Annotation] = []
        checked = np.ones(n_rows, np.bool_)
        if settings.annotator is not None:
            checked = split_check_rows([row[ROW_ID] for row in asked], settings.check)
            machine = annotate(
                asked, checked, rows.text, rows.label, chosen, classes=self.classes, settings=settings, context=context
            )
        people = [row for row, is_checked in zip(asked, checked, strict=True) if is_checked]
        answer = f"{TOO_FEW}; label these" if gain is None else str(gain)
        answer += "" if scores is None else f"; {describe_scores(scores, by)}"
        manifest = self._build_manifest(by, gain, answer, machine, len(people), started)
        html = (
            render_page(people, self.classes, guide=settings.guide, name=str(path or "rows")) if settings.page else None
        )
        return Asked(
            rows=people,
            machine=[{**each.to_json(), "row": _strip(row)} for each, row in zip(machine, asked, strict=False)],
            labeled=rows.labeled_rows,
            manifest=manifest,
            path=path,
            html=html,
        )

    def _estimate(self, vectors: Float32, known: Known, batch: int) -> Gain | None:
        """Return what the batch is expected to bring."""
        test = None
        if self.test is not None:
            code = {name: i for i, name in enumerate(self.rows.classes)}
            frame = self.test.frame
            x = embed_texts(frame["prompt"].to_list(), self.context, vectors.shape[1])
            test = (x, np.array([code.get(name, -1) for name in frame["response"]], dtype=np.int64))
        assert known.label is not None
        return estimate_gain(
            known.vectors,
            known.label,
            batch=batch,
            delta=self.settings.delta,
            stands_for=count_represented(vectors, known.vectors),
            test=test,
            seed=self.settings.seed,
        )

    def _describe(self, chosen: NextRows, known: Known) -> list[dict[str, Any]]:
        """Return the rows to label, with why, and what is nearest to them."""
        rows = self.rows
        at = rows.open_rows[chosen.rows]
        own, frame = rows.texts.rows(at), rows.texts.frame[at]
        names = rows.classes
        asked = []
        for i, row in enumerate(own):
            nearest = int(chosen.nearest[i])
            row = {name: value for name, value in row.items() if name != rows.label_column}
            asked.append(
                {
                    ROW_ID: frame["row_id"][i],
                    **row,
                    rows.label_column: "",
                    "thresher_why": _explain(chosen, i, names),
                    "thresher_nearest": rows.text[nearest] if nearest >= 0 else None,
                    "thresher_nearest_label": rows.label[nearest] if nearest >= 0 else None,
                    TEXT: frame["response"][i],
                }
            )
        return asked

    def _build_manifest(
        self, by: str, gain: Gain | None, answer: str, machine: list[Annotation], n_people: int, started: float
    ) -> Manifest:
        rows, settings = self.rows, self.settings
        annotator = describe_annotator(self.context, settings)
        n_answered = sum(each.label is not None and not each.is_checked for each in machine)
        counts = {"labeled": len(rows.labeled_rows), "unlabeled": len(rows.open_rows)}
        counts |= {"conflicting_texts": rows.n_conflicts}
        counts |= {"same_text_as_held_out": rows.n_leaked, "held_out_with_label": self.n_known}
        counts |= {"asked": n_people, "answered_by_annotator": n_answered}
        return Manifest(
            {
                "format": FORMAT,
                "kind": KIND,
                "identity": self.identity(),
                "batch": settings.batch,
                "by": by,
                "classes": self.classes,
                "label_column": rows.label_column,
                "annotator": None if annotator is None else annotator["name"],
                "annotator_fingerprint": None if annotator is None else annotator["fingerprint"],
                "check": settings.check,
                "encoder": self.context.models.encoder,
                "gain": None if gain is None else gain.to_json(),
                "answer": answer,
                **describe_rows(rows.texts, counts, others={"labeled": rows.given, "eval": self.test}),
                "versions": versions(("numpy", "polars", "scikit-learn")),
                "run": describe_run(rows.texts, seconds={"total": round(time.monotonic() - started, 3)}),
            }
        )


def _strip(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as it is written: without the text as it was read."""
    return {name: value for name, value in row.items() if name != TEXT}


def count_represented(vectors: Float32, labeled: Float32) -> Float64:
    """Return how many unlabeled rows are nearest to each labeled one, (m,), and one for itself."""
    if not len(labeled):
        return np.zeros(0)
    others = unit_rows(labeled).T
    counts = np.ones(len(labeled))
    step = max(1, (1 << 22) // len(labeled))
    for start in range(0, len(vectors), step):
        nearest: Int64 = (unit_rows(vectors[start : start + step]) @ others).argmax(axis=1)
        counts += np.bincount(nearest, minlength=len(labeled))
    return counts


def _explain(chosen: NextRows, i: int, names: list[str]) -> str:
    """Return why a row is asked for, in a few words."""
    stands = f"represents {format_count(int(chosen.stands_for[i]), 'row')}"
    if chosen.guess is None or chosen.probability is None:
        return stands
    first, second = (names[code] for code in chosen.guess[i])
    p, q = chosen.probability[i]
    return f"looks like {first} ({p:.2f}) or {second} ({q:.2f}); {stands}"


def _load_test(eval_rows: Any, read: ReadSettings) -> Dataset:
    """Load labeled test rows: as the pool where they have its columns, else in their own way.

    Raises:
        InputError: they have no labels.
    """
    columns = read.columns if read.columns is not None and "label" in read.columns else None
    own = replace(read, columns=columns, config=None, split=None)
    rows = eval_rows if isinstance(eval_rows, Dataset) else load_side_rows(eval_rows, own)
    if rows.kind != "classification":
        raise InputError(f"eval: rows with a label are required, found rows of kind '{rows.kind}'")
    return rows
