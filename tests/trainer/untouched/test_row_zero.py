"""The untouched model is measured as the trained one is, and told as it is."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

import thresher as th
from thresher.dataset import Dataset, load
from thresher.errors import SettingsError
from thresher.evaluation.generation import score_answers
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.fit import build_model
from thresher.trainer.estimate import time_measuring
from thresher.trainer.held_out import prepare_held_out
from thresher.trainer.settings import TrainSettings
from thresher.trainer.split import choose_answered
from thresher.trainer.untouched.probe import extract_probe, predict_majority
from thresher.trainer.untouched.row_zero import measure_base
from thresher.trainer.untouched.settings import UntouchedSettings
from thresher.trainer.untouched.shots import put_examples
from thresher.trainer.untouched.summary import Reference, describe_base

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QUICK = TrainSettings(max_steps=3, batch_size=4, max_length=256, eval_generations=5, max_new_tokens=6)

SHORT = TrainSettings(max_steps=3, batch_size=4, max_length=32)


@pytest.fixture
def resolve(tiny_llama, question_rows):
    """Return a function from settings to the context of instruction rows, the last ten held out."""

    def build(train=None, eval=None, settings=QUICK, **untouched):
        rows, held_out = train or question_rows[:30], eval or question_rows[30:]
        return resolve_run(
            rows,
            model=tiny_llama,
            eval=held_out if isinstance(held_out, Dataset) else load(held_out),
            settings=settings,
            seed=0,
            untouched=UntouchedSettings(**{"general": "none", **untouched}),
        )

    return build


def test_an_adapter_whose_update_is_zero_gives_the_outcomes_of_the_base_bit_by_bit(resolve):
    context = resolve()
    (base,) = measure_base(context)
    with torch.random.fork_rng():
        fresh = build_model(context, seed=0).eval()  # B = 0 until the first step
    assert prepare_held_out(context).measure(fresh).equals(base.outcomes)


def test_its_loss_is_what_score_says_of_the_rows(resolve, tiny_llama, question_rows):
    (base,) = measure_base(resolve())
    table = th.score(question_rows[30:], ["loss", "n_response_tokens"], model=str(tiny_llama)).frame
    sums = table.select("row_id", total=pl.col("loss") * pl.col("n_response_tokens"))
    both = base.outcomes.join(sums, on="row_id")
    assert len(both) == 10
    np.testing.assert_allclose(both["loss"], both["total"], rtol=1e-5)


def test_the_answered_rows_are_of_every_source_though_ids_are_in_their_order(resolve):
    rows = [
        {"id": f"{source}-{number:03}", "prompt": f"{source}? {number}", "completion": f"{source} {number}"}
        for source in ("arith", "bio", "code")
        for number in range(40)
    ]
    asked = load(rows, id_column="id")
    context = resolve(eval=asked, settings=replace(QUICK, eval_generations=30))
    held_out = prepare_held_out(context)
    ids = held_out.rows.frame["row_id"].gather(held_out.examples.position).to_list()
    chosen = [ids[place] for place in held_out.prompts]
    assert {name.split("-")[0] for name in chosen} == {"arith", "bio", "code"}
    # the row that each prompt asks is the one that it stands at
    texts = [context.tokenizer.decode(tokens) for tokens in held_out.prompts.values()]
    assert all(
        f"{name.split('-')[0]}? {int(name.split('-')[1])}<" in text for name, text in zip(chosen, texts, strict=True)
    )
    # fewer of them are some of the same, whatever other rows there are
    few = prepare_held_out(resolve(eval=asked, settings=replace(QUICK, eval_generations=10)))
    assert {ids[place] for place in few.prompts} < set(chosen)
    assert context.identity()["answered"] == "by hash"
    assert "answered" not in resolve(eval=asked, settings=replace(QUICK, eval_generations=120)).identity()


def test_an_answer_is_written_at_the_row_that_was_asked(resolve):
    context = resolve(settings=replace(QUICK, eval_generations=3))
    held_out, whole = prepare_held_out(context), prepare_held_out(resolve(settings=replace(QUICK, eval_generations=10)))
    with torch.random.fork_rng():
        model = build_model(context, seed=0).eval()
    some, every = held_out.measure(model), whole.measure(model)
    is_asked = some["prediction"].is_not_null()
    assert np.flatnonzero(is_asked).tolist() == list(held_out.prompts) != [0, 1, 2]
    columns = ["row_id", "prediction", "exact_match", "chrf"]
    assert some.filter(is_asked).select(columns).equals(every.filter(is_asked).select(columns))
    assert some.filter(~is_asked)["chrf"].null_count() == 7


def test_what_is_known_of_the_base_is_not_measured_again(resolve, monkeypatch):
    first = measure_base(resolve(shots=(0, 2)))

    def fail(context):
        raise AssertionError("the model must not be loaded")

    monkeypatch.setattr("thresher.trainer.untouched.row_zero.load_untouched_model", fail)
    again = measure_base(resolve(shots=(2, 0)))
    assert [each.shots for each in again] == [0, 2]
    assert all(a.outcomes.equals(b.outcomes) for a, b in zip(first, again, strict=True))
    with pytest.raises(AssertionError, match="must not be loaded"):
        measure_base(resolve(settings=TrainSettings(max_steps=3, max_length=200)))


def test_who_copies_the_last_example_is_right_where_it_is_a_duplicate(resolve, question_rows):
    """The most similar row stands last, and the prompt ends before the answer."""
    context = resolve()
    twins = load([*question_rows[:20], *question_rows[30:]])  # `train` would leave the twins out
    context = replace(context, split=replace(context.split, train=twins))
    shots = put_examples(context, prepare_held_out(context), 3)
    assert shots.mean_shots == 3
    rows, tokenizer = shots.held_out, context.tokenizer
    assert len(rows.prompts) == 5
    copied = []
    for ids in rows.prompts.values():
        turns = tokenizer.decode(ids).split("<|im_start|>assistant\n")
        assert len(turns) == 5  # three examples, and the answer that is to come
        assert turns[-1] == ""
        copied.append(turns[-2].split("<|im_end|>")[0])
    responses = rows.rows.frame["response"].gather([rows.examples.position[i] for i in rows.prompts]).to_list()
    assert score_answers(copied, responses).exact_match == [True] * 5


def test_examples_do_not_count_towards_the_loss_and_are_cut_to_fit(resolve):
    context = resolve()
    plain = prepare_held_out(context)
    shots = put_examples(context, plain, 30)  # of 512 positions
    assert 2 < shots.mean_shots < 30
    for before, after in zip(plain.examples.rows, shots.held_out.examples.rows, strict=True):
        assert len(before.input_ids) < len(after.input_ids) <= 512
        assert after.n_learned == before.n_learned
        assert [code for code in after.labels if code >= 0] == [code for code in before.labels if code >= 0]
    assert max(map(len, shots.held_out.prompts.values())) + QUICK.max_new_tokens <= 512


@pytest.fixture(scope="module")
def classifier(tiny_bert, color_rows):
    settings = TrainSettings(max_steps=2, batch_size=8, learning_rate=1e-12, max_length=32)
    return th.train(color_rows[:45], model=tiny_bert, eval=load(color_rows[45:]), settings=settings)


def test_a_classifier_that_learns_nothing_is_its_probe(classifier):
    outcomes = pl.read_parquet(classifier.path / "predictions.parquet")
    assert outcomes["probe_prediction"].equals(outcomes["prediction"])
    np.testing.assert_allclose(outcomes["probe_loss"], outcomes["loss"], atol=1e-5)
    base = classifier.metrics["base"]
    assert [each["name"] for each in base["references"]] == ["majority class", "probe"]
    assert base["strongest"] == "probe"
    assert base["verdict"] == "no difference"
    assert base["references"][0]["scores"]["accuracy"]["value"] == pytest.approx(1 / 3)


def test_the_majority_class_is_the_most_frequent_label_that_was_learned():
    outcomes = pl.DataFrame({"row_id": ["1", "2", "3"], "label": ["a", "b", "new"]})
    table = predict_majority(outcomes, ["b", "b", "a", "c"])
    assert table["prediction"].to_list() == ["b"] * 3
    assert table["correct"].to_list() == [False, True, False]
    # shares with one more of each: b 3, a 2, c 2 of 7
    assert table["loss"].to_list() == [pytest.approx(-np.log(2 / 7)), pytest.approx(-np.log(3 / 7)), None]
    assert extract_probe(outcomes) is None


def test_base_none_leaves_row_zero_out(tiny_bert, color_rows):
    adapter = th.train(color_rows[:30], model=tiny_bert, eval=load(color_rows[45:]), base="none", settings=SHORT)
    assert adapter.metrics["base"] is None
    assert "probe" not in repr(adapter)


def test_a_limit_on_forgetting_is_refused_where_nothing_is_measured():
    with pytest.raises(SettingsError, match="forget: .* a classifier writes no text"):
        UntouchedSettings(forget=0.1).check_rows("classification", has_held_out=True)
    with pytest.raises(SettingsError, match="forget: .* none are read; leave it out, or give --general"):
        UntouchedSettings(forget=0.1, general="none").check_rows("sft", has_held_out=True)
    UntouchedSettings(forget=0.1).check_rows("sft", has_held_out=True)
    UntouchedSettings().check_rows("classification", has_held_out=True)


@pytest.mark.parametrize(("shots", "message"), [((0, 4), "rows of kind 'classification'"), ((-1,), "at least 0")])
def test_shots_are_refused_where_there_is_no_prompt(tiny_bert, color_rows, shots, message):
    with pytest.raises(SettingsError, match=message):
        th.train(color_rows[:30], model=tiny_bert, eval=load(color_rows[45:]), shots=shots, settings=SHORT)


def test_shots_need_held_out_rows(tiny_llama, question_rows):
    with pytest.raises(SettingsError, match="give --eval"):
        th.train(question_rows, model=tiny_llama, shots=4, settings=QUICK)


def outcomes(correct):
    n = len(correct)
    answers = {"prediction": ["x" if hit else "y" for hit in correct], "label": ["x"] * n}
    return pl.DataFrame({"row_id": list(map(str, range(n))), **answers, "correct": correct, "loss": [0.5] * n})


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ([True] * 90 + [False] * 10, [True] * 50 + [False] * 50, "better"),
        ([True] * 50 + [False] * 50, [True] * 90 + [False] * 10, "worse"),
        ([True] * 51 + [False] * 49, [False] * 49 + [True] * 51, "no difference"),
    ],
)
@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_verdict_is_that_of_the_paired_interval(ours, theirs, verdict, n_seeds):
    reference = Reference("probe", [outcomes(theirs)] * n_seeds)
    section = describe_base([outcomes(ours)] * n_seeds, [reference], "classification")
    gain = section["references"][0]["gains"]["accuracy"]
    assert section["verdict"] == verdict
    assert gain["value"] == pytest.approx((sum(ours) - sum(theirs)) / 100)
    assert gain["low"] < gain["value"] < gain["high"]
    if n_seeds == 1:  # the standard error of a paired difference, by hand
        difference = np.array(ours, float) - np.array(theirs, float)
        assert gain["stderr"] == pytest.approx(difference.std(ddof=1) / 10)


def answers(loss, n_right, n=60):
    """Return outcomes of a language model that answers the first rows right."""
    responses = [f"{number}" for number in range(100, 100 + n)]
    predictions = [text if number < n_right else "0" for number, text in enumerate(responses)]
    scores = score_answers(predictions, responses)
    jitter = np.linspace(-0.05, 0.05, n)
    return pl.DataFrame(
        {
            "row_id": responses,
            "response": responses,
            "loss": loss + jitter,
            "n_tokens": [1] * n,
            "prediction": predictions,
            "exact_match": scores.exact_match,
            "rouge_l": scores.rouge_l,
            "chrf": scores.chrf,
        }
    )


@pytest.mark.parametrize(
    ("n_right", "loss", "is_said"),
    [
        (3, 1.5, True),  # wrong sums in the right form: a lower loss, and as few right answers
        (40, 1.5, False),
        (3, 3.9, False),  # no gain by the loss either
    ],
)
def test_a_lower_loss_without_more_right_answers_is_said_to_be_of_form_alone(n_right, loss, is_said):
    section = describe_base([answers(loss, n_right)], [Reference("untouched", [answers(3.9, 3)])], "sft")
    assert ("may have learned only their form" in section["sentence"]) == is_said
    assert section["verdict"] == ("better" if loss < 2 else "no difference")


def test_models_answer_the_same_rows_whichever_they_cannot_use(resolve, monkeypatch):
    rows = [{"prompt": "say " * (1 if n % 3 else 300) + str(n), "completion": str(n)} for n in range(30)]
    context = resolve(eval=load(rows), settings=replace(QUICK, eval_generations=12, max_length=64))
    held_out = prepare_held_out(context)
    ids = held_out.rows.frame["row_id"]
    usable = [ids[position] for position in held_out.examples.position]
    assert len(usable) == 20
    chosen = [ids[place] for place in choose_answered(ids, 12)]
    assert [usable[place] for place in held_out.prompts] == [row_id for row_id in chosen if row_id in usable]
    # and a few of the usable ones are timed, however many others come first
    timed = []
    monkeypatch.setattr(
        "thresher.trainer.estimate._time_held_out",
        lambda context, model, rows, n, **_: timed.append((rows.frame["row_id"].to_list(), n)) or 1.0,
    )
    time_measuring(context, None)
    assert [n for _, n in timed] == [0, 2, 8, 8]
    assert set(timed[0][0]) == set(usable)
    assert all(set(rows) <= set(usable) for rows, _ in timed)
