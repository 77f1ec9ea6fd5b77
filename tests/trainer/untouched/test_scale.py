"""The adapter at a share of its strength: between the base and what was trained."""

import json
from dataclasses import replace

import pytest

import thresher as th
from thresher.dataset import load
from thresher.errors import SettingsError
from thresher.evaluation.gain import Gain
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.fit import load_trained_model
from thresher.trainer.held_out import prepare_held_out
from thresher.trainer.settings import TrainSettings
from thresher.trainer.untouched.row_zero import measure_base
from thresher.trainer.untouched.scale import SCALES, ScalePoint, choose_scale, describe_no_gain, set_scale
from thresher.trainer.untouched.settings import UntouchedSettings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QUICK = TrainSettings(max_steps=15, batch_size=8, learning_rate=3e-3, max_length=128, eval_generations=0)


@pytest.fixture(scope="module")
def train(tiny_llama, question_rows):
    """Return a function that trains on 30 questions, and measures on ten others."""

    def run(settings=QUICK, **untouched):
        return th.train(
            question_rows[:30], model=tiny_llama, eval=load(question_rows[30:]), settings=settings, **untouched
        )

    return run


@pytest.fixture(scope="module")
def front(train):
    return train(scale="front")


def read_weights(adapter):
    return (adapter.path / "adapter_model.safetensors").read_bytes()


def test_scale_0_is_the_base_and_scale_1_the_adapter_bit_by_bit(front, tiny_llama, question_rows):
    context = resolve_run(
        question_rows[:30],
        model=tiny_llama,
        eval=load(question_rows[30:]),
        settings=QUICK,
        seed=0,
        untouched=UntouchedSettings(general="none"),
    )
    held_out, model = prepare_held_out(context), load_trained_model(context, front.path)
    trained = held_out.measure(model)
    set_scale(model, 0.0)
    assert held_out.measure(model).equals(measure_base(context)[0].outcomes)
    set_scale(model, 1.0)
    assert held_out.measure(model).equals(trained)


def test_the_front_starts_at_the_base_and_changes_no_byte_of_the_adapter(front, train):
    section = front.metrics["scale"]
    points = section["points"]
    assert [point["scale"] for point in points] == list(SCALES)
    assert points[0]["gain"]["value"] == points[0]["lost"]["value"] == 0
    assert points[-1]["loss"] == pytest.approx(front.metrics["held_out"]["loss"]["value"])
    assert points[-1]["lost"]["value"] == pytest.approx(front.metrics["general"]["lost"]["value"])
    assert points[-1]["gain"]["value"] > points[1]["gain"]["value"] > 0
    assert read_weights(front) == read_weights(train())
    assert not section["is_chosen"]


def test_auto_saves_an_ordinary_adapter_of_the_chosen_scale(front, train):
    lost = [point["lost"]["high"] for point in front.metrics["scale"]["points"]]
    allowed = (lost[2] + lost[3]) / 2 if lost[2] < lost[3] else lost[2]
    auto = train(scale="auto", forget=max(allowed, 0.0))
    scale = auto.metrics["scale"]["scale"]
    fitting = [point for point in front.metrics["scale"]["points"] if point["lost"]["high"] <= max(allowed, 0.0)]
    best = max(fitting, key=lambda point: point["gain"]["value"])
    assert scale == best["scale"]
    assert read_weights(auto) == read_weights(front)
    alphas = [json.loads((each.path / "adapter_config.json").read_text())["lora_alpha"] for each in (auto, front)]
    assert alphas[0] == pytest.approx(scale * alphas[1])
    assert auto.metrics["held_out"]["loss"]["value"] == pytest.approx(best["loss"])
    assert auto.metrics["general"]["lost"]["value"] == pytest.approx(best["lost"]["value"])


def point(scale, gain, high):
    lost = Gain(value=high - 0.01, low=high - 0.02, high=high, stderr=0.005, n=300, n_seeds=1)
    return ScalePoint(scale, 1.0 - gain, Gain(**{**vars(lost), "value": gain}), lost)


@pytest.mark.parametrize(("allowed", "scale"), [(0.02, 0.5), (0.05, 0.75), (0.001, 0.25), (1.0, 0.75), (-1.0, 0.0)])
def test_the_largest_gain_within_what_is_allowed_is_chosen(allowed, scale):
    front = [point(0.0, 0.0, 0.0), point(0.25, 0.3, 0.001), point(0.5, 0.5, 0.02), point(0.75, 0.6, 0.05)]
    front.append(point(1.0, 0.6, 0.08))  # as good, and forgets more
    assert choose_scale(front, allowed) == scale


def test_only_an_adapter_that_was_turned_off_by_choice_is_called_useless():
    section = {"scale": 0.0, "is_chosen": True, "allowed": 0.02}
    assert describe_no_gain(section).startswith("Training does not pay here: no strength of the adapter")
    assert describe_no_gain({**section, "scale": 0.25}) is None
    assert describe_no_gain({**section, "is_chosen": False}) is None
    assert describe_no_gain(None) is None


def test_training_that_only_harms_is_undone_and_called_useless(train):
    harmed = train(scale="auto", forget=0.0, settings=replace(QUICK, learning_rate=1.0))
    assert harmed.metrics["scale"]["scale"] == 0
    assert harmed.metrics["base"]["sentence"].startswith("Training does not pay here")
    assert "forgets nothing: no change on" in harmed.metrics["general"]["sentence"]


def test_a_scale_needs_rows_on_both_sides(train, tiny_llama, question_rows):
    with pytest.raises(SettingsError, match="scale: 'auto' weighs"):
        train(scale="auto", general="none")
    with pytest.raises(SettingsError, match="give --eval and --general"):
        th.train(question_rows, model=tiny_llama, scale="front", settings=QUICK)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": "auto"}, "scale: 'auto' weighs what a language model gains .* have labels, so leave scale out"),
        ({"forget": 0.1}, "forget: is a limit of what is lost on general rows, and a classifier .*; leave it out$"),
    ],
)
def test_settings_that_only_language_models_have_are_refused_for_rows_with_labels(options, words):
    with pytest.raises(SettingsError, match=words):
        UntouchedSettings(**options).check_rows("classification", has_held_out=True)


def test_a_limit_on_forgetting_needs_rows_to_measure_it_on():
    with pytest.raises(SettingsError, match="forget: is a limit .* none are read; leave it out, or give --general"):
        UntouchedSettings(forget=0.1, general="none").check_rows("sft", has_held_out=True)
