"""Tasks of the lm-evaluation-harness as metrics, on a task and documents of our own."""

import json
import pickle

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError, MissingExtraError, NotFoundError, SettingsError
from thresher.evaluation.lm_eval_task import find_lm_eval_metric, open_lm_eval_task, put_values
from thresher.experiments.experiment import prepare_experiment
from thresher.trainer.settings import TrainSettings

TASK = """
task: colors
dataset_path: json
dataset_kwargs: {{data_files: {{test: {documents}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
target_delimiter: ""
metric_list: [{{metric: {metric}, aggregation: {aggregation}, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""
COLORS = {"sky": " blue", "grass": " green", "snow": " white"}
ROWS = [{"prompt": f"What is {thing} {i}?", "completion": color} for i in range(4) for thing, color in COLORS.items()]
TEST = [{"prompt": f"Name the color of {thing}.", "completion": color} for thing, color in COLORS.items()]
WORDS = [" blue", " green", " white", " a very long day", " two", " house", " if"]


def write_documents(n):
    """Return question and choices of n documents; the first choice is the right one."""
    return [(f"What is {i}?", [WORDS[(i * step) % len(WORDS)] for step in (1, 2, 3)]) for i in range(1, n + 1)]


@pytest.fixture(scope="module")
def make_task(tmp_path_factory):
    """Return a function that writes a task, and returns the metric that names it."""
    pytest.importorskip("lm_eval", reason="the extra 'lm-eval' is not installed")
    folder = tmp_path_factory.mktemp("lm-eval")

    def write(name="task", *, metric="acc", aggregation="mean", n=6):
        documents = folder / f"{name}.jsonl"
        entries = [{"q": question, "choices": choices, "gold": 0} for question, choices in write_documents(n)]
        documents.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        path = folder / f"{name}.yaml"
        path.write_text(TASK.format(documents=documents, metric=metric, aggregation=aggregation))
        open_lm_eval_task.cache_clear()
        return f"lm-eval:{path}"

    return write


@pytest.fixture(scope="module")
def trained(make_task, tmp_path_factory):
    """Return the metric, and an adapter that was measured by it."""
    metric, out = make_task(n=12), tmp_path_factory.mktemp("adapter") / "out"
    settings = TrainSettings(max_steps=4, learning_rate=3e-3, eval_generations=0, metric=metric, metric_limit=9)
    return metric, th.train(ROWS, eval=TEST, model="tiny", settings=settings, out=out, general="none")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_values_of_documents_equal_the_choices_by_hand(trained):
    torch = pytest.importorskip("torch")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from thresher.models.causal_lm.embedded import FOLDER

    metric, adapter = trained
    values = find_lm_eval_metric(metric).per_row(pl.read_parquet(adapter.path / "predictions.parquet"))
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(FOLDER), adapter.path).eval()

    def score(question, choice):
        whole, own = tokenizer(question + choice)["input_ids"], tokenizer(question)["input_ids"]
        with torch.no_grad():
            logs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        return sum(float(logs[place - 1, whole[place]]) for place in range(len(own), len(whole)))

    expected = [
        np.argmax([score(question, choice) for choice in choices]) == 0 for question, choices in write_documents(9)
    ]
    assert 0 < sum(expected) < 9
    assert values.tolist() == [float(right) for right in expected]
    assert adapter.metrics["held_out"]["lm-eval:colors:acc"] == {
        "value": pytest.approx(np.mean(expected)),
        "stderr": pytest.approx(np.std(expected, ddof=1) / 3),
        "n": 9,
    }


def test_the_untouched_model_is_measured_too(trained):
    scores = trained[1].metrics["base"]["references"][0]["scores"]
    assert scores["lm-eval:colors:acc"]["n"] == 9


def test_an_experiment_pairs_documents(make_task, tmp_path):
    metric = make_task("paired")
    result = th.compare(
        ROWS, eval=TEST, model="tiny", methods=["length"], budget=6, seeds=2, metric=metric, general="none",
        settings=TrainSettings(max_steps=2), out=tmp_path / "out",
    )  # fmt: skip
    verdict = next(each for each in result.verdicts if each.method == "length")
    assert verdict.effect.n_rows == 6  # documents; there are 3 test rows
    assert result.content["metric"] == "lm-eval:colors:acc"


def test_documents_and_wording_are_part_of_the_identity(make_task):
    metric = make_task("same")
    before = open_lm_eval_task(metric).identity
    assert open_lm_eval_task(make_task("same")).identity == before
    assert open_lm_eval_task(make_task("same", n=9)).identity["documents"] != before["documents"]
    path = metric.removeprefix("lm-eval:")
    make_task("same")
    with open(path, "a") as file:
        file.write('description: "Answer."\n')
    changed = open_lm_eval_task(metric).identity
    assert changed["written"] != before["written"]
    assert changed["documents"] == before["documents"]


def test_the_metric_goes_to_workers_and_reads_more_documents_than_rows(make_task):
    metric = pickle.loads(pickle.dumps(find_lm_eval_metric(make_task("pickled"))))  # noqa: S301
    table = put_values(pl.DataFrame({"row_id": ["a", "b"]}), metric.column, np.array([1.0, 0.0, 1.0, 1.0]))
    assert metric.per_row(table).tolist() == [1, 0, 1, 1]
    assert metric.measure(table).value == 0.75
    assert metric.measure(table).n == 4


def test_what_cannot_be_measured_is_refused_in_one_sentence(make_task, tmp_path):
    metric = make_task("refused")
    options = {"model": "tiny", "settings": TrainSettings(), "eval": TEST}
    with pytest.raises(NotFoundError, match=r"found no file 'no\.yaml'"):
        open_lm_eval_task("lm-eval:no.yaml")
    with pytest.raises(NotFoundError, match=r"mean over documents \(acc\), found 'f1'"):
        open_lm_eval_task(f"{metric}:f1")
    with pytest.raises(InputError, match="must have a metric that is a mean over documents.*found f1"):
        open_lm_eval_task(make_task("no-mean", metric="f1", aggregation="f1"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("task: [unfinished")
    with pytest.raises(InputError, match="cannot be loaded .*; correct the task"):
        open_lm_eval_task(f"lm-eval:{broken}")
    labels = [{"text": f"{color} {i}", "label": color} for color in COLORS.values() for i in range(4)]
    with pytest.raises(SettingsError, match="asks a language model, got rows with labels"):
        prepare_experiment(labels, metric=metric, **options | {"model": None, "eval": "40%"})
    with pytest.raises(SettingsError, match="metric must be lm-eval:TASK, got 'accuracy'"):
        TrainSettings(metric="accuracy")
    with pytest.raises(SettingsError, match="give --eval"):
        th.train(ROWS, model="tiny", settings=TrainSettings(metric=metric), out=tmp_path / "out")
    with pytest.raises(SettingsError, match="is a metric of train, curve and compare alone"):
        th.tune(ROWS, eval=TEST, model="tiny", metric=metric)


def test_a_task_that_must_be_fetched_says_so(make_task, monkeypatch):
    from lm_eval.tasks import TaskManager

    def fail(*_):
        raise ConnectionError("no route to host")

    metric = make_task("remote")
    monkeypatch.setattr(TaskManager, "load", fail)
    with pytest.raises(InputError, match="must be fetched, and the network cannot be reached .*no route to host"):
        open_lm_eval_task(metric)


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval.tasks", None)
    with pytest.raises(MissingExtraError, match=r"\[lm-eval\]"):
        open_lm_eval_task("lm-eval:arc_easy-not-asked-before")
