import pytest

from thresher.errors import SettingsError
from thresher.trainer.settings import TrainSettings


def test_all_problems_are_reported_together():
    with pytest.raises(SettingsError) as raised:
        TrainSettings(learning_rate=0, lora_rank=0, schedule="step", warmup_share=1.0, epochs=1, max_steps=5)
    text = str(raised.value)
    for part in ("learning_rate", "lora_rank", "'step'", "warmup_share", "exclude each other"):
        assert part in text


@pytest.mark.parametrize(
    "field", ["learning_rate", "epochs", "max_steps", "batch_size", "weight_decay", "max_grad_norm", "lora_dropout"]
)
def test_nan_is_refused(field):
    with pytest.raises(SettingsError, match=field):
        TrainSettings(**{field: float("nan")})


def test_a_layer_name_alone_and_no_name_at_all_are_refused():
    with pytest.raises(SettingsError, match="lora_targets must be a list of texts or 'auto', got 'query'"):
        TrainSettings(lora_targets="query")
    with pytest.raises(SettingsError, match="lora_targets must be 'auto' or the names of layers, got \\(\\)"):
        TrainSettings(lora_targets=())


def test_layer_names_may_be_a_list_as_in_a_json_file():
    settings = TrainSettings(lora_targets=["q_proj", "v_proj"])
    assert settings == TrainSettings(lora_targets=("q_proj", "v_proj"))
    assert TrainSettings(**settings.to_json()) == settings


def test_what_is_not_set_is_chosen_by_task_and_what_is_set_stays():
    resolved = TrainSettings(learning_rate=3e-5).resolved("sft")
    assert resolved.learning_rate == 3e-5
    assert resolved.epochs is not None
    assert resolved.lora_alpha == 2 * resolved.lora_rank
    assert TrainSettings().resolved("classification").learning_rate != TrainSettings().resolved("sft").learning_rate


def test_few_rows_get_more_steps_unless_steps_or_epochs_are_asked_for():
    from thresher.trainer.engine.fit import count_steps

    def count(n_rows, task="classification", **options):
        return count_steps(n_rows, TrainSettings(**options).resolved(task))

    assert [count(n) for n in (1, 100, 426, 1000)] == [80, 80, 81, 189]
    assert [count(100, epochs=2), count(100, max_steps=5), count(100, task="sft")] == [14, 5, 21]
    assert [count(100, epochs=2, min_steps=30), count(1000, min_steps=30)] == [30, 189]
    with pytest.raises(SettingsError, match=r"min_steps \(9\) and max_steps \(5\) exclude each other"):
        TrainSettings(min_steps=9, max_steps=5)


def test_settings_of_before_have_the_same_json():
    """Runs of language models and their cells are found under it."""
    assert not {"min_steps", "pooling"} & set(TrainSettings().resolved("sft").to_json())
    resolved = TrainSettings(pooling="cls").resolved("classification")
    assert resolved.to_json()["pooling"] == "cls"
    assert TrainSettings.read(resolved.to_json()) == resolved
    assert not {"adapter", "virtual_tokens"} & (set(resolved.to_json()) | set(TrainSettings().to_json()))


def test_max_steps_leaves_epochs_unset():
    resolved = TrainSettings(max_steps=7).resolved("sft")
    assert (resolved.epochs, resolved.max_steps) == (None, 7)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": "8"}, "batch_size must be a whole number of at least 1, got '8'"),
        ({"max_steps": 2.5}, "max_steps must be a whole number of at least 1, got 2.5"),
        ({"lora_rank": True}, "lora_rank must be a whole number of at least 1, got True"),
        ({"lora_dropout": "0.1"}, "lora_dropout must be a number of at least 0 and below 1, got '0.1'"),
        (
            {"stop_at": 0.0, "warmup_share": 1.0},
            "warmup_share must be a number of at least 0 and below 1, got 1.0; "
            "stop_at must be a number above 0 and at most 1, got 0.0",
        ),
        ({"learning_rate": "fast"}, "learning_rate must be a number above 0, got 'fast'"),
    ],
)
def test_a_value_of_the_wrong_type_is_one_sentence(options, text):
    with pytest.raises(SettingsError, match=text):
        TrainSettings(**options)
