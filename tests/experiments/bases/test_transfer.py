"""`base transfer`: `compare` on a ladder of models, and what it says of the next one."""

import pytest

import thresher as th
from thresher.cli.base import summarize_transfer
from thresher.errors import InputError, SettingsError
from thresher.experiments.bases.transfer import describe_transfer
from thresher.trainer.settings import TrainSettings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
QUICK = TrainSettings(max_steps=1, batch_size=8, max_length=64)


@pytest.fixture(scope="module")
def call(question_rows, tiny_llama, plain_llama, tmp_path_factory):
    return {
        "pool": question_rows,
        "eval": [{"prompt": f"add {a} and 9:", "completion": str(a + 9)} for a in range(12)],
        "models": ["tiny", str(tiny_llama)],
        "methods": ["perplexity"],
        "budget": (10,),
        "seeds": 2,
        "settings": QUICK,
        "base": "none",
        "encoder": "static",
        "out": tmp_path_factory.mktemp("transfer") / "out",
    }


@pytest.fixture(scope="module")
def result(call):
    return th.transfer(**call)


def test_models_are_put_in_order_of_size_and_every_method_is_on_each(result, tiny_llama):
    assert [each["name"] for each in result.content["models"]] == [str(tiny_llama), "tiny"]
    methods = {each["method"] for each in result.content["methods"]}
    assert methods == {"perplexity", "length"}
    assert len(result.table) == 4
    for each in result.content["methods"]:
        assert len(each["effects"]) == 2
        assert 0 <= each["next"]["above_zero"] <= 1
        assert (each["holds"] is None) == (each["verdict"] == "no difference")
    (step,) = result.content["steps"]
    assert step["n"] == 2
    assert step["held"] <= step["verdicts"]


def test_a_method_that_reads_the_model_is_compared_row_by_row(result):
    (line,) = result.content["rows"]
    assert line["method"] == "perplexity"
    assert line["by_chance"] == pytest.approx(0.25)
    assert 0 <= line["same_rows"] <= 1
    assert -1 <= line["rank_correlation"] <= 1


def test_the_same_call_reads_the_folder_and_compare_finds_the_cells(result, call):
    assert th.transfer(**call).content == result.content
    assert th.open(result.path).table.equals(result.table)
    summary = summarize_transfer(result)
    assert result.content["answer"] in summary
    assert "rank correlation of scores" in summary
    assert "thresher base transfer" in th.report(result.path).read_text()
    notes = []
    options = {name: call[name] for name in ("eval", "methods", "budget", "seeds", "settings", "base", "encoder")}
    th.compare(call["pool"], model="tiny", on_progress=lambda event: notes.append(event.note or ""), **options)
    trained = [note for note in notes if ", seed " in note]
    assert len(trained) == 6
    assert all("from the cache" in note for note in trained)


def test_the_answer_counts_what_held():
    method = {"method": "a", "verdict": "better", "holds": 0.9, "next": {"mean": 0.1}}
    steps = [{"verdicts": 2, "held": 1}, {"verdicts": 1, "held": 1}]
    assert describe_transfer([method], steps) == (
        "a is better than random on the largest model, and holds one step up with a probability of 90%; "
        "2 of 3 verdicts on a smaller model were those on the next"
    )
    assert describe_transfer([{**method, "holds": None}], [{"verdicts": 0, "held": 0}]) == (
        "no method differs clearly from random on the largest model"
    )


def test_bad_requests_are_refused_in_one_sentence(call):
    rows = call["pool"]
    with pytest.raises(SettingsError, match="models must name at least 2 different models, got tiny"):
        th.transfer(rows, eval="20%", models=["tiny"])
    with pytest.raises(InputError, match="must be ones that can be trained, got 'static'"):
        th.transfer([{"text": "a", "label": "b"}] * 3, eval="20%", models=["minilm", "static"])
