"""What a training run leaves for people: the loss curve as CSV and PNG, and the model card."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thresher.artifacts.folder import write_atomic
from thresher.evaluation.classification import describe_unknown_labels
from thresher.evaluation.held_out import describe_control
from thresher.models.causal_lm.base_model import BaseModel
from thresher.models.causal_lm.embedded import SHORT_NAMES
from thresher.printable import escape_markdown
from thresher.trainer.adapter import format_estimate, summarize
from thresher.trainer.deployment.serving import UNMERGEABLE, Serving, format_servings
from thresher.trainer.engine.checkpoint import History
from thresher.trainer.engine.load_model import get_loadable_name
from thresher.trainer.engine.pooled_classifier import format_pooled_loading
from thresher.trainer.engine.pooling import OWN_HEAD, Pooling

COLUMNS = ("step", "epoch", "learning_rate", "loss", "n_learned", "eval_loss", "eval_stderr", "eval_n")


def write_loss_csv(path: Path, history: History) -> None:
    """Write one line per optimizer step; held-out columns are empty where nothing was measured."""
    evaluations = {evaluation["step"]: evaluation for evaluation in history.evaluations}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in history.losses:
        evaluation = evaluations.get(row["step"], {})
        held_out = [evaluation.get(name, "") for name in ("loss", "stderr", "n")]
        writer.writerow([*(row[name] for name in COLUMNS[:5]), *held_out])
    write_atomic(path, text.getvalue().encode())


def write_loss_png(path: Path, history: History, final: Mapping[str, Any] | None) -> None:
    """Draw the loss per step, its running mean, and the held-out loss with its standard error.

    Args:
        path: of the PNG.
        history: of the run.
        final: held-out loss at the end as in `metrics.json`, or None.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps = np.array([row["step"] for row in history.losses])
    losses = np.array([row["loss"] for row in history.losses])
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # no window and no global state of pyplot
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="#9db4c8", linewidth=0.9, label="training, each step")
    smoothed = compute_running_mean(losses, max(1, len(losses) // 25))
    axes.plot(steps, smoothed, color="#1f4e79", linewidth=1.8, label="running mean")
    points = [(row["step"], row["loss"], row["stderr"]) for row in history.evaluations]
    if final is not None and final["value"] is not None:
        at = history.best_step or int(steps[-1])
        points = [point for point in points if point[0] != at]
        points.append((at, final["value"], final["stderr"] or 0.0))
    if points:
        x, y, error = zip(*points, strict=True)
        axes.errorbar(
            x, y, yerr=error, fmt="o", color="#c0504d", capsize=3, markersize=4, label="held out ± standard error"
        )
    axes.set(xlabel="optimizer step", ylabel="loss (nats)", title="Loss during training")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    write_atomic(path, png.getvalue())


def compute_running_mean(values: Sequence[float] | np.ndarray[Any, Any], width: int) -> np.ndarray[Any, Any]:
    """Return the mean of each value and up to width - 1 before it: (n,)."""
    total = np.cumsum(np.concatenate([[0.0], np.asarray(values, dtype=np.float64)]))
    end = np.arange(1, len(total))
    start = np.maximum(0, end - width)
    mean: np.ndarray[Any, Any] = (total[end] - total[start]) / (end - start)
    return mean


def format_model_card(
    metrics: Mapping[str, Any], manifest: Mapping[str, Any], *, base: BaseModel, servings: list[Serving]
) -> str:
    """Return README.md: what the adapter is, its scores, how to load it, and how it was trained.

    Args:
        metrics: content of `metrics.json`.
        manifest: content of `manifest.json`.
        base: what was adapted.
        servings: ways to serve it.
    """
    name, task = base.name, str(metrics["task"])
    pipeline = "text-classification" if task == "classification" else "text-generation"
    facts = _format_rows(summarize(metrics))
    settings = _format_rows(metrics["settings"].items())
    is_folder = Path(get_loadable_name(base)).is_absolute()  # a path is no name on the Hub
    kind = str(metrics["settings"].get("adapter", "lora"))
    title = {"lora": "LoRA adapter", "full": "Full fine-tuning"}.get(kind, f"Adapter ({kind})")
    library = "transformers" if kind == "full" else "peft"
    untouched = _describe_base(metrics) + _describe_forgetting(metrics)
    on_hub = "" if is_folder else f"base_model: {json.dumps(name)}\n"
    return f"""---
library_name: {library}
{on_hub}pipeline_tag: {pipeline}
tags: [{kind}, thresher]
---

# {title} for {escape_markdown(name)}

Trained by thresher {manifest["versions"].get("thresher", "")} on {metrics["counts"]["train"]["rows"]:,} rows.

| | |
|---|---|
{facts}

Numbers are on held-out rows, ± one standard error; `metrics.json` has all of them, `predictions.parquet` has every
held-out row.{_describe_early_stopping(metrics)}{_describe_comparison(metrics)}{untouched}

{_describe_use(metrics, base, servings)}

## Training data

Content fingerprint `{manifest["data"]["fingerprint"]}`{_describe_subset(manifest)}. {_describe_left_out(metrics)}

| rows | kind | read as |
|---|---|---|
{_describe_reading(manifest)}
{_describe_unknown(metrics)}
## Settings

| setting | value |
|---|---|
{settings}
| seed | {metrics["seed"]} |
"""


def _describe_use(metrics: Mapping[str, Any], base: BaseModel, servings: list[Serving]) -> str:
    kind = metrics["settings"].get("adapter", "lora")
    return f"""## Load it

```python
{_format_loading(metrics, base)}
```

`thresher try path/to/this/folder "a text"` runs it on a text, next to its base model.

## Serve it

{format_servings(servings, str(metrics["task"]), is_mergeable=kind not in UNMERGEABLE)}"""


def _format_rows(entries: Iterable[tuple[str, Any]]) -> str:
    return "\n".join(f"| {name} | {escape_markdown(str(value))} |" for name, value in entries)


def _describe_early_stopping(metrics: Mapping[str, Any]) -> str:
    if metrics["settings"]["early_stopping_patience"] is None:
        return ""
    return (
        f" Early stopping chose the weights (of step {metrics['best_step']}) by the loss on these same rows, so the "
        f"scores are somewhat better than on new ones."
    )


def _describe_base(metrics: Mapping[str, Any]) -> str:
    """Say in a sentence what the untouched model scores, and whether training pays."""
    base = metrics["base"]
    if base is None:
        return ""
    scores = ", ".join(
        f"{each['name']} {format_estimate(each['scores'][base['metric']])}" for each in base["references"]
    )
    verdict = f"; {base['sentence']} (95 % interval, paired over held-out rows)" if base["sentence"] else ""
    return f"\n\nWithout training, the {base['metric']} on the same rows is: {scores}{verdict}."


def _describe_forgetting(metrics: Mapping[str, Any]) -> str:
    """Return what training made the model forget, and at what strength the adapter is saved."""
    general, scale = metrics["general"], metrics["scale"]
    text = "" if general is None or general["sentence"] is None else f"\n\nIt {general['sentence']} (95 % interval)."
    if scale is not None and scale["is_chosen"]:
        text += (
            f" It is saved at {scale['scale']:g} of the strength that it was trained with, chosen on the held-out rows."
        )
    return text


def _describe_comparison(metrics: Mapping[str, Any]) -> str:
    comparison = metrics["comparison"]
    if comparison is None:
        return ""
    random, difference = (format_estimate(comparison[name]) for name in ("random", "difference"))
    better = "higher" if comparison["is_higher_better"] else "lower"
    has_seeds = len(comparison["seeds"]) > 1
    is_same = metrics["control"].get("is_same")
    how = (
        f"on {describe_control(metrics)}"
        if is_same
        else "in the same way on the same number of random rows from the pool"
    )
    return (
        f"\n\nTrained {how}, the {comparison['metric']} is {random}; "
        f"the difference, paired over held-out rows{' and seeds' if has_seeds else ''}, is {difference} "
        f"({better} is better)."
        f"{'' if has_seeds else ' One seed: the error does not include the variance between seeds.'}"
    )


def _describe_subset(manifest: Mapping[str, Any]) -> str:
    manifest_hash = manifest["data"]["manifest_hash"]
    return "" if manifest_hash is None else f", a subset whose manifest has hash `{manifest_hash}`"


def _describe_reading(manifest: Mapping[str, Any]) -> str:
    """Return a line of a table for each side: what was read, and which columns were not."""
    names = {"data": "training", "eval": "held out", "control": "random"}
    sides = manifest["reading"].items()
    return "\n".join(
        f"| {names[side]} | {about['kind']} | {escape_markdown(about['summary'])} |" for side, about in sides
    )


def _describe_unknown(metrics: Mapping[str, Any]) -> str:
    counts = metrics["counts"]["eval"] or {}
    sentence = describe_unknown_labels(counts.get("unknown_labels", {}), counts.get("rows", 0), metrics["labels"])
    return f"\n{escape_markdown(sentence)}.\n" if sentence else ""


def _describe_left_out(metrics: Mapping[str, Any]) -> str:
    counts = metrics["counts"]["train"]
    unusable = metrics["counts"]["unusable"].get("data", {})
    parts = [f"{count:,} rows rejected: {reason}" for reason, count in unusable.items()]
    parts += [f"{count:,} rows left out: {reason}" for reason, count in counts["rows_left_out"].items()]
    parts += [f"{count:,} rows: {note}" for note, count in counts.get("rows_with_markers", {}).items()]
    if counts["rows_truncated"]:
        parts.append(f"{counts['rows_truncated']:,} rows truncated at max_length ({counts['tokens_cut']:,} tokens)")
    return escape_markdown("; ".join(parts) or "No row was truncated or left out") + "."


def _format_loading(metrics: Mapping[str, Any], base: BaseModel) -> str:
    source = json.dumps(get_loadable_name(base), ensure_ascii=False) + (
        "" if base.revision is None else f", revision={base.revision!r}"
    )
    needed, is_classification = "", metrics["task"] == "classification"
    if metrics["settings"].get("adapter") == "full":
        return _format_whole_loading(metrics)
    if base.name in SHORT_NAMES.values():  # which are on no Hub
        source = f"find_base({base.name!r}).folder"
        needed = "\nfrom thresher.models.causal_lm.base_model import find_base\n"
    if not is_classification:
        return (
            f"from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n{needed}\n"
            f"base = AutoModelForCausalLM.from_pretrained({source})\n"
            'model = PeftModel.from_pretrained(base, "path/to/this/folder")\n'
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")'
        )
    learner = metrics["learner"]
    if learner["pooling"] != OWN_HEAD:
        pooling = Pooling(tuple(learner["pooling"]), learner["is_normalized"])
        return needed.lstrip("\n") + format_pooled_loading(source, pooling, int(metrics["settings"]["max_length"]))
    return needed.lstrip("\n") + (
        "import json\nfrom pathlib import Path\n\nfrom peft import PeftModel\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        'folder = "path/to/this/folder"\n'
        'labels = json.loads(Path(folder, "metrics.json").read_text())["labels"]\n'
        f"base = AutoModelForSequenceClassification.from_pretrained({source}, num_labels=len(labels),\n"
        "    id2label=dict(enumerate(labels)), label2id={name: code for code, name in enumerate(labels)},\n"
        "    ignore_mismatched_sizes=True)  # a head of the base for other labels is replaced\n"
        "model = PeftModel.from_pretrained(base, folder)\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)"
    )


def _format_whole_loading(metrics: Mapping[str, Any]) -> str:
    """Return code that loads a model all of whose weights were trained."""
    name = {"sft": "AutoModelForCausalLM", "text": "AutoModelForCausalLM"}.get(metrics["task"], "AutoModel")
    if name == "AutoModel" and metrics["learner"]["pooling"] == OWN_HEAD:
        name = "AutoModelForSequenceClassification"
    head = "\n# the head is next to it: head.json, head.safetensors" if name == "AutoModel" else ""
    return (
        f"from transformers import {name}, AutoTokenizer\n\n"
        f'model = {name}.from_pretrained("path/to/this/folder")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder"){head}'
    )
