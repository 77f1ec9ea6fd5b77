"""What `train` refuses before any training, and what stops it, in one sentence."""

import json
import shutil

import pytest

from thresher.dataset import load
from thresher.errors import InputError, SettingsError
from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"eval": "0%"}, InputError, "between 0% and 100%, got '0%'"),
        ({"seeds": 0}, SettingsError, "seeds must be at least 1"),
        ({"seed": 2**63}, SettingsError, "must stay below 2\\*\\*63"),
        ({"task": "sft"}, InputError, "rows of kind 'classification' can be trained for classification, got 'sft'"),
        ({"settings": TrainSettings(max_length=65)}, SettingsError, "max_length must be at most 64"),
        ({"settings": TrainSettings(early_stopping_patience=1)}, SettingsError, "early stopping needs held-out rows"),
        ({"eval": load([{"text": "a", "label": "zebra"}])}, InputError, "at least one row must have a label of the"),
        (
            {"settings": TrainSettings(eval_every=5)},
            SettingsError,
            r"eval_every \(5\) needs held-out rows; give --eval",
        ),
        ({"settings": TrainSettings(packing=True)}, SettingsError, "packing is for language models"),
        ({"control": [{"text": "sky", "label": "blue"}]}, InputError, "found none; give --eval"),
        (
            {"eval": load([{"prompt": "a", "completion": "b"}])},
            InputError,
            r"same kind as the training rows \(classification\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_training(tiny_bert, color_rows, options, error, text):
    def listen(event):
        assert event.kind == "note", "training started"  # a note says how rows were read

    with pytest.raises(error, match=text):
        train(color_rows, model=tiny_bert, on_event=listen, **options)


def test_one_label_is_refused(tiny_bert):
    with pytest.raises(InputError, match=r"at least two labels, found \['blue'\]"):
        train([{"text": "sky", "label": "blue"}, {"text": "sea", "label": "blue"}], model=tiny_bert)


def test_a_base_of_another_kind_is_refused_before_any_training(tiny_llama, question_rows, tmp_path):
    quantized, adapter = tmp_path / "quantized", tmp_path / "adapter"
    shutil.copytree(tiny_llama, quantized)
    config = json.loads((quantized / "config.json").read_bytes())
    (quantized / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="training needs weights that are not quantized, found 'awq'"):
        train(question_rows, model=quantized)
    with pytest.raises(InputError, match="must be a base model, got the adapter"):
        train(question_rows, model=adapter)


def test_an_answer_longer_than_the_model_can_read_is_refused(tiny_llama, question_rows):
    with pytest.raises(SettingsError, match="max_new_tokens must be below 512"):
        train(question_rows, model=tiny_llama, eval="20%", settings=TrainSettings(max_new_tokens=512))


def test_a_full_disk_at_the_adapter_is_one_sentence(tiny_bert, color_rows, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    from thresher.trainer import runs

    def fill(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(runs, "save_adapter", fill)
    with pytest.raises(OSError, match="No space left on device: .*adapter"):
        train(color_rows, model=tiny_bert, out=tmp_path / "a", settings=TrainSettings(max_steps=1))


def test_pooling_is_for_classifiers(tiny_llama, question_rows):
    with pytest.raises(SettingsError, match="pooling is for classification, got 'mean' for task 'sft'"):
        train(question_rows, model=tiny_llama, settings=TrainSettings(pooling="mean"))
