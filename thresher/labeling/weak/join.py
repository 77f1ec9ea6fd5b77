"""Combine the labels of several rules or annotators into one per row, with its confidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.result import open_folder
from thresher.artifacts.stored import read_json_lines
from thresher.dataset import Dataset, load
from thresher.dataset.loading import load_unlabeled
from thresher.dataset.provenance import describe_reading, describe_rows, refuse_input_as_output
from thresher.dataset.settings import ReadOptions, ReadSettings
from thresher.dataset.values.kept_rows import KeptRows
from thresher.errors import InputError, SettingsError
from thresher.labeling.exchange import format_label, list_label_values, restore_label, write_jsonl
from thresher.labeling.weak.dawid_skene import NO_VOTE, LabelModel, count_votes, fit_label_model
from thresher.numeric.arrays import Float64, Int64
from thresher.validation import document_options, split_options

KIND, ROWS, UNLABELED, RECIPE = "joined", "rows.jsonl", "unlabeled.jsonl", "label-join-3"
LABEL, CONFIDENCE = "label", "confidence"
FEWEST_TOLD, MOST_UNIQUE = 5, 0.9  # votes of a rule; share of them that occur once, as texts do
How = Literal["model", "majority"]
Rule = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, kw_only=True, repr=False)
class Joined(KeptRows):
    """Rows with one label each.

    Attributes:
        joined: the user's rows that at least one rule labeled, with `label` and `confidence`.
        unlabeled: the rows that none did.
        manifest: what ran: coverage, conflicts and estimated accuracy of each rule.
        path: of the folder, or None.
    """

    joined: list[dict[str, Any]]
    unlabeled: list[dict[str, Any]]
    manifest: Manifest
    path: Path | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The labeled rows."""
        return self.joined

    def __len__(self) -> int:
        """Return the number of labeled rows."""
        return len(self.joined)

    @cached_property
    def dataset(self) -> Dataset:  # type: ignore[override] # read, never set
        """The labeled rows as a Dataset."""
        text = self.manifest.content["schema"]["columns"]["text"]
        return load(self.joined if self.path is None else self.path, columns={"text": "+".join(text), "label": LABEL})

    def list_facts(self) -> list[tuple[str, str]]:
        """Return how many rows have a label, and what each rule is worth."""
        content = self.manifest.content
        counts = content["counts"]
        facts = [("labeled", f"{counts['labeled']:,} rows, {counts['conflicts']:,} of them with conflicting votes")]
        facts.append(("unlabeled", f"{counts['unlabeled']:,} rows without any vote"))
        return [*facts, *((name, describe_rule(rule)) for name, rule in content["rules"].items())]

    def write_files(self, folder: Path) -> None:
        """Write `rows.jsonl`, `unlabeled.jsonl` and the manifest."""
        write_jsonl(self.joined, folder / ROWS)
        write_jsonl(self.unlabeled, folder / UNLABELED)
        write_atomic(folder / MANIFEST, self.manifest.to_json())

    @staticmethod
    def read(folder: str | Path) -> Joined:
        """Read what `join_labels` wrote.

        Raises:
            ManifestError: the folder is not one, or is damaged.
        """
        path, manifest = open_folder(folder, KIND, "a folder that 'label join' wrote")
        return Joined(
            joined=read_json_lines(path / ROWS),
            unlabeled=read_json_lines(path / UNLABELED),
            manifest=manifest,
            path=path,
        )


def describe_rule(rule: Mapping[str, Any]) -> str:
    """Return what a rule is worth, in a few words."""
    accuracy = rule["accuracy"]
    told = (
        ", which no other rule labels"
        if not rule["compared"]
        else ""
        if accuracy is None
        else f", right in about {100 * accuracy:.0f} % of the {rule['compared']:,} that others label too, by the model"
    )
    return f"labels {rule['n']:,} rows ({100 * rule['coverage']:.0f} %), {rule['conflicts']:,} against others{told}"


@document_options(ReadSettings)
def join_labels(
    rows: Any,
    rules: Sequence[str] | Mapping[str, Rule],
    *,
    how: How = "model",
    out: str | Path | None = None,
    force: bool = False,
    **options: Unpack[ReadOptions],
) -> Joined:
    """Give each row one label from several rules or annotators.

    "majority": the label that most name; the confidence is the share of them, and ties go to the
    label that is more frequent in all votes. "model": the likeliest class under the model of Dawid
    and Skene, which learns from the votes alone how far each rule can be trusted on each class.

    Args:
        rows: of text, anything `load` accepts.
        rules: columns that hold the votes, or name -> function of a row (the user's own columns)
            that returns a label or None. An empty value is no vote.
        how: "model" or "majority".
        out: folder to write the result to; it appears whole or not at all.
        force: replace an earlier result in `out`.
        **options: fields of `ReadSettings`.

    Raises:
        InputError: the rows cannot be read, or no rule names two labels.
        SettingsError: there are no rules, or `how` is unknown.
        OutputError: `out` holds something else, or the rows.
    """
    if how not in ("model", "majority"):
        raise SettingsError(f"label join: how must be model or majority, got '{how}'")
    if not rules:
        raise SettingsError("label join: at least one rule is required, found none; name the columns of votes")
    names = list(rules)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingsError(f"label join: each rule votes once, found '{twice}' twice; name it once")
    texts, _ = load_unlabeled(rows, split_options("label join", options, ReadSettings)[0])
    taken = [name for name in (LABEL, CONFIDENCE) if name in texts.column_names]
    if taken:
        raise InputError(
            f"label join: the columns {LABEL} and {CONFIDENCE} are written, "
            f"the rows have {' and '.join(taken)} already; rename it"
        )
    if not isinstance(rules, Mapping):
        _refuse_contents(texts, names)
    given = [_apply_rule(texts, name, rules[name] if isinstance(rules, Mapping) else None) for name in names]
    said = [_format_votes(name, values) for name, values in zip(names, given, strict=True)]
    _refuse_unique_votes(names, said)
    classes = sorted({label for column in said for label in column if label is not None})
    if len(classes) < 2:
        raise InputError(
            f"label join: at least two labels are required, found {classes or 'none'} in {', '.join(names)}"
        )
    code = {name: i for i, name in enumerate(classes)}
    votes = np.array([[NO_VOTE if v is None else code[v] for v in column] for column in said], dtype=np.int64).T
    as_given = list_label_values([value for values in given for value in values])
    result = _build(texts, votes, names, {label: restore_label(label, as_given) for label in classes}, how)
    if out is None:
        return result
    refuse_input_as_output(Path(out), [texts])
    with OutputFolder(out, identity=result.manifest.identity, force=force) as folder:
        if not folder.is_done:
            folder.publish_files(result.write_files)
    return Joined.read(folder.path)


def _refuse_contents(texts: Dataset, names: Sequence[str]) -> None:
    """Refuse columns that hold what is labeled, or the names of the rows."""
    contents = {column: "the text" for column in texts.schema.columns["text"]}
    contents |= {} if texts.id_column is None else {texts.id_column: "the id"}
    wrong = next((name for name in names if name in contents), None)
    if wrong is not None:
        raise SettingsError(
            f"label join: a rule is a column of labels, and '{wrong}' is {contents[wrong]} of the rows; name the "
            "columns of votes"
        )


def _refuse_unique_votes(names: Sequence[str], said: Sequence[Sequence[str | None]]) -> None:
    """Refuse rules that hardly ever say what was said before, as texts and ids do."""
    counts = Counter(label for column in said for label in column if label is not None)
    for name, column in zip(names, said, strict=True):
        votes = [label for label in column if label is not None]
        n_unique = sum(counts[label] == 1 for label in votes)
        if len(votes) >= FEWEST_TOLD and n_unique >= MOST_UNIQUE * len(votes):
            raise InputError(
                f"label join: a rule chooses among labels, and {n_unique:,} of the {len(votes):,} labels of '{name}' "
                f"occur once, such as '{next(label for label in votes if counts[label] == 1)[:60]}'; name the columns "
                "of votes"
            )


def _apply_rule(texts: Dataset, name: str, rule: Rule | None) -> list[Any]:
    """Return what a rule says of each row."""
    return texts.column(name).to_list() if rule is None else [rule(row) for row in texts]


def _format_votes(name: str, values: Sequence[Any]) -> list[str | None]:
    """Return the vote of a rule on each row; None for none."""
    try:
        return [format_label(value) for value in values]
    except InputError as error:
        raise InputError(f"label join: rule '{name}': {error}") from None


def vote(votes: Int64, n_classes: int) -> Float64:
    """Return the share of the votes for each class of each row, (n, k); zeros without a vote."""
    counts = count_votes(votes, n_classes)
    total = counts.sum(axis=1, keepdims=True)
    shares: Float64 = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    return shares


def _build(texts: Dataset, votes: Int64, names: list[str], values: Mapping[str, Any], how: How) -> Joined:
    """Join the votes; `values` are the classes as they are written, by name."""
    classes = list(values)
    shares = vote(votes, len(classes))
    model: LabelModel | None = fit_label_model(votes, len(classes)) if how == "model" else None
    # ties of a majority go to the label that is more frequent in all votes
    frequency = count_votes(votes, len(classes)).sum(axis=0)
    probability = shares if model is None else model.probability
    chosen = (probability + 1e-9 * frequency / frequency.sum()).argmax(axis=1)
    has_vote = (votes != NO_VOTE).any(axis=1)
    disagrees = has_vote & (shares.max(axis=1) < 1)
    labeled, unlabeled = [], []
    for i, row in enumerate(texts):
        if not has_vote[i]:
            unlabeled.append(row)
            continue
        confidence = round(float(probability[i, chosen[i]]), 6)
        labeled.append({**row, LABEL: values[classes[chosen[i]]], CONFIDENCE: confidence})
    n_votes = count_votes(votes, len(classes)).sum(axis=1)
    rules = {name: _describe(votes[:, j], shares, n_votes, model) for j, name in enumerate(names)}
    counts = {"labeled": len(labeled), "unlabeled": len(unlabeled), "conflicts": int(disagrees.sum())}
    identity = {
        "recipe": RECIPE,
        "rows": [texts.fingerprint, describe_reading(texts)],
        "votes": digest([votes.tolist(), list(values.values())]),
        "how": how,
    }
    content = {
        "format": FORMAT,
        "kind": KIND,
        "identity": digest({**identity, "names": names, "classes": classes, "thresher": versions(())}),
        "how": how,
        "classes": classes,
        "rules": rules,
        "n_iterations": None if model is None else model.n_iterations,
        **describe_rows(texts, counts),
        "versions": versions(("numpy",)),
        "run": {},
    }
    return Joined(joined=labeled, unlabeled=unlabeled, manifest=Manifest(content))


def _describe(column: Int64, shares: Float64, n_votes: Float64, model: LabelModel | None) -> dict[str, Any]:
    """Return what a rule covers, its conflicts with others, and what the model thinks of it.

    Of rows that no other rule labels, nothing can be learned about it.
    """
    said = np.flatnonzero(column != NO_VOTE)
    compared = said[n_votes[said] > 1]
    accuracy = None
    if model is not None and len(compared):
        accuracy = float(model.probability[compared, column[compared]].mean())
    conflicts = int((shares[said, column[said]] < 1).sum())
    return {
        "n": len(said),
        "coverage": len(said) / len(column),
        "conflicts": conflicts,
        "accuracy": accuracy,
        "compared": len(compared),
    }
