"""Tasks of the lm-evaluation-harness as metrics: the trained model answers their documents."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.errors import InputError, MissingExtraError, NotFoundError, SettingsError, did_you_mean
from thresher.evaluation.estimate import Estimate, mean
from thresher.evaluation.metric import Metric
from thresher.evaluation.task_name import PREFIX
from thresher.numeric.arrays import Float64

FEWSHOT_SEED = 1234  # lm-eval's own default
BATCH = 8  # sequences at a time
_OFFLINE = (
    "ConnectionError",
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
    "ConnectError",
    "DatasetNotFoundError",
)


@dataclass(frozen=True, kw_only=True)
class LmEvalTask:
    """One task, with its documents.

    Attributes:
        name: of the task.
        metric: of the task, that is averaged over documents.
        is_higher_better: its direction.
        identity: what determines the values besides the model, as JSON values.
        task: lm-eval's object.
    """

    name: str
    metric: str
    is_higher_better: bool
    identity: dict[str, Any]
    task: Any = field(repr=False)

    @property
    def column(self) -> str:
        """The name of the metric, and of its column in the table of outcomes."""
        return f"{PREFIX}{self.name}:{self.metric}"


@dataclass(frozen=True, kw_only=True)
class LmEvalMetric(Metric):
    """The mean of a task's metric over its documents, which are not the test rows."""

    def per_row(self, outcomes: pl.DataFrame) -> Float64:
        """Return the value of each document: (n documents,), in the order of the task."""
        return outcomes[self.name].drop_nulls().explode().to_numpy()

    def per_row_or_nan(self, outcomes: pl.DataFrame) -> Float64:
        """Return the value of each document, (n documents,): all have one."""
        return self.per_row(outcomes)

    def measure(self, outcomes: pl.DataFrame) -> Estimate:
        """Return the mean over documents, with its standard error."""
        return mean(self.per_row(outcomes))


def find_lm_eval_metric(text: str) -> LmEvalMetric:
    """Return the metric that "lm-eval:TASK" names; `open_lm_eval_task` says what it may be."""
    task = open_lm_eval_task(text)
    return LmEvalMetric(name=task.column, is_higher_better=task.is_higher_better, column=task.column)


def put_values(outcomes: pl.DataFrame, column: str, values: Float64) -> pl.DataFrame:
    """Return outcomes with the documents' values, as a list in the first row and null elsewhere."""
    cells = [values.tolist(), *[None] * (len(outcomes) - 1)]
    return outcomes.with_columns(pl.Series(column, cells, dtype=pl.List(pl.Float64)))


def list_columns(outcomes: pl.DataFrame) -> list[str]:
    """Return the columns of a table of outcomes that hold values of documents."""
    return [name for name in outcomes.columns if name.startswith(PREFIX)]


@lru_cache(maxsize=8)
def open_lm_eval_task(text: str) -> LmEvalTask:
    """Load a task and its documents.

    Args:
        text: "lm-eval:TASK", where TASK is a name that lm-eval knows or the path of a YAML file;
            ":METRIC" after it chooses among the task's metrics, by default the first.

    Raises:
        InputError: the task is a group, cannot be fetched, or has no mean over documents.
        MissingExtraError: lm-eval is not installed.
        NotFoundError: there is no such task or metric.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "lm_eval", f"metric {text}", "lm-eval") from None
    name, _, chosen = text.removeprefix(PREFIX).partition(":")
    is_file = Path(name).suffix in (".yaml", ".yml")
    if is_file and not Path(name).is_file():
        raise NotFoundError(f"metric: {text} must name a task file that exists, found no file '{name}'")
    with _being_quiet():
        manager = TaskManager(include_defaults=not is_file)
        if not is_file and name not in manager.all_tasks:
            raise NotFoundError(
                f"metric: lm-eval {version('lm_eval')} has no task '{name}'{did_you_mean(name, manager.all_tasks)}; "
                f"'lm-eval ls tasks' lists them, and a file is named as {PREFIX}path/to/task.yaml"
            )
        loaded = _load(manager, name, text)
    tasks = list(loaded["tasks"].values())
    if len(tasks) != 1 or loaded["groups"]:
        named = ", ".join(sorted(loaded["tasks"])[:3])
        raise InputError(
            f"metric: {text} must be one task, got a group of {len(tasks)} ({named}, ...); name one of them"
        )
    task = tasks[0]
    metric = _choose_metric(task, chosen, text)
    if task.config.num_fewshot is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return LmEvalTask(
        name=task.config.task,
        metric=metric,
        is_higher_better=bool(task.higher_is_better()[metric]),
        identity=_identify(task, metric, text),
        task=task,
    )


def identify_lm_eval_task(text: str | None) -> dict[str, Any]:
    """Return what determines the values of a task besides the model; empty without a task."""
    return {} if text is None else {"lm_eval": open_lm_eval_task(text).identity}


def check_lm_eval_task(text: str, *, has_labels: bool, has_held_out: bool) -> None:
    """Refuse a task that cannot be measured, before anything is trained.

    Raises:
        SettingsError: the rows have labels, or none are held out.
    """
    if has_labels:
        raise SettingsError(f"train: metric {text} asks a language model, got rows with labels; leave it out")
    if not has_held_out:
        raise SettingsError(
            f"train: metric {text} is measured next to the loss of held-out rows, found none; give --eval"
        )
    open_lm_eval_task(text)


def score_documents(text: str, model: Any, tokenizer: Any, *, limit: int | None = None) -> Float64:
    """Return the value of each document of a task: (n,), in the task's order.

    Prompts are as the task writes them, without a chat template, which is lm-eval's default.

    Args:
        text: "lm-eval:TASK".
        model: causal language model in evaluation mode.
        tokenizer: of the model.
        limit: documents at most, the first ones.

    Raises:
        InputError: the task does not give one finite number per document.
    """
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    opened = open_lm_eval_task(text)
    with _being_quiet(), torch.random.fork_rng():
        torch.manual_seed(FEWSHOT_SEED)
        learner = HFLM(
            pretrained=model, tokenizer=copy.deepcopy(tokenizer), backend="causal", batch_size=BATCH, truncation=True
        )
        try:
            result = evaluate(
                lm=learner, task_dict={"tasks": {opened.name: opened.task}}, limit=limit, bootstrap_iters=0
            )
        except ValueError as error:  # as of a task that runs code, or shows pictures
            raise InputError(f"metric: lm-eval cannot run {text} ({_shorten(error)}); choose another task") from None
    samples = result["samples"][opened.name]
    first = samples[0]["filter"]
    values = {each["doc_id"]: each.get(opened.metric) for each in samples if each["filter"] == first}
    try:
        array = np.asarray([values[number] for number in sorted(values)], dtype=np.float64)
    except (TypeError, ValueError):
        array = np.full(1, np.nan)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise InputError(
            f"metric: {opened.column} must give one finite number per document, and does not; choose another"
        )
    return array


def _load(manager: Any, name: str, text: str) -> Any:
    try:
        return manager.load([name])
    except Exception as error:  # noqa: BLE001 - raised again in one sentence: of YAML, of datasets, of the network, or of a task's own code
        causes = {kind.__name__ for each in _chain(error) for kind in type(each).__mro__}
        if causes & set(_OFFLINE):
            raise InputError(
                f"metric: the documents of {text} must be fetched, and the network cannot be reached "
                f"({_shorten(error)}); run once with network, or give a task file whose data_files are local"
            ) from None
        raise InputError(f"metric: {text} cannot be loaded ({_shorten(error)}); correct the task") from None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _shorten(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _choose_metric(task: Any, chosen: str, text: str) -> str:
    from lm_eval.api.metrics import mean as mean_of_harness

    aggregations = task.aggregation()
    known = [name for name, function in aggregations.items() if function is mean_of_harness]
    if not known:
        raise InputError(
            f"metric: {text} must have a metric that is a mean over documents, as acc or exact_match, found "
            f"{', '.join(aggregations) or 'none'}; choose another task"
        )
    if chosen and chosen not in known:
        raise NotFoundError(
            f"metric: {text} must end in a metric that is a mean over documents ({', '.join(known)}), found "
            f"'{chosen}'{did_you_mean(chosen, known)}"
        )
    return chosen or known[0]


def _identify(task: Any, metric: str, text: str) -> dict[str, Any]:
    """Return what determines the values: the harness, the task as written, and its documents."""
    from lm_eval.tasks._yaml_loader import load_yaml

    source = Path(task.config.metadata.get("config_source", ""))
    written = ""
    if source.is_file():
        config = load_yaml(source, resolve_func=False)
        written = json.dumps(config, sort_keys=True, default=str).replace(str(source.parent), "")
        if ".yaml" in text or ".yml" in text:  # beside a task of the package, its version says it
            written += "".join(path.read_text() for path in sorted(source.parent.glob("*.py")))
    documents = hashlib.sha256()
    for document in task.eval_docs:
        documents.update(json.dumps(document, sort_keys=True, default=str).encode())
    return {
        "harness": version("lm_eval"),
        "task": task.config.task,
        "metric": metric,
        "version": str(task.VERSION),
        "written": hashlib.sha256(written.encode()).hexdigest(),
        "documents": documents.hexdigest(),
    }


@contextlib.contextmanager
def _being_quiet() -> Iterator[None]:
    """Keep the harness' progress bars and advice from the terminal; errors are raised."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
