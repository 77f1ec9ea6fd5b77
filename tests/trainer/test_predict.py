"""An adapter on new texts, its base beside it; and the commands that serve it."""

import json

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.cli.main import main
from thresher.models.causal_lm.base_model import find_base
from thresher.trainer.deployment.serving import list_servings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QUICK = th.TrainSettings(max_steps=6, batch_size=8, learning_rate=1e-2, max_length=64)


@pytest.fixture(scope="module")
def classifier(tiny_bert, color_rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("classifier") / "adapter"
    return th.train(color_rows[:45], model=tiny_bert, eval=th.load(color_rows[45:]), out=out, settings=QUICK)


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    rows = [{"prompt": f"add {i} and {i}", "completion": str(i + i)} for i in range(8)]
    out = tmp_path_factory.mktemp("answerer") / "adapter"
    return th.train(rows, model="tiny", out=out, settings=QUICK, merge=True)


def test_a_classifier_gives_the_probabilities_that_training_measured(classifier, color_rows):
    texts = [row["text"] for row in color_rows[45:]]
    best = classifier.predict(texts).group_by("text", maintain_order=True).first()
    written = pl.read_parquet(classifier.path / "predictions.parquet")
    rows = th.load(color_rows[45:]).frame.join(written, on="row_id").join(best, left_on="prompt", right_on="text")
    assert rows["prediction"].to_list() == rows["label"].to_list()
    np.testing.assert_allclose(rows["adapter"], rows["confidence"], atol=1e-5)


def test_the_base_of_a_classifier_is_its_encoder_under_the_same_head(classifier, color_rows, tiny_bert):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    text = color_rows[50]["text"]
    head = load_file(classifier.path / "head.safetensors")
    assert json.loads((classifier.path / "head.json").read_text())["pooling"] == ["mean"]
    with torch.inference_mode():
        states = AutoModel.from_pretrained(tiny_bert)(
            **AutoTokenizer.from_pretrained(tiny_bert)(text, return_tensors="pt")
        )
        logits = head["weight"] @ states.last_hidden_state[0].mean(dim=0) + head["bias"]
    expected = dict(zip(classifier.metrics["labels"], logits.softmax(0).tolist(), strict=True))
    answers = classifier.predict(text)
    assert answers["base"].to_list() == pytest.approx([expected[label] for label in answers["label"]], abs=1e-5)
    assert answers["adapter"].sum() == pytest.approx(1)
    assert answers["adapter"].is_sorted(descending=True)


def test_a_language_model_answers_as_transformers_would(answerer):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(answerer.path)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "add 3 and 3"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]

    def answer(model):
        with torch.inference_mode():
            out = model.eval().generate(input_ids=ids, max_new_tokens=8, do_sample=False)
        return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()

    base = AutoModelForCausalLM.from_pretrained(find_base("tiny").folder)
    expected = {"base": answer(base)}
    expected["adapter"] = answer(PeftModel.from_pretrained(base, answerer.path))
    (row,) = answerer.predict("add 3 and 3", max_new_tokens=8).to_dicts()
    assert row["text"] == "add 3 and 3"
    assert {side: row[side].removesuffix(" ...") for side in expected} == expected
    assert expected["base"] != expected["adapter"]


def test_the_command_prints_both_sides(classifier, answerer, color_rows, capsys, monkeypatch):
    assert main(["try", str(classifier.path), color_rows[50]["text"]]) == 0
    out = capsys.readouterr().out
    assert "adapter     base" in out
    assert classifier.predict(color_rows[50]["text"])["label"][0] in out
    monkeypatch.setattr("sys.stdin", iter(["add 1 and 1\n", "\n", "add 2 and 2\n"]))
    assert main(["try", str(answerer.path), "-", "--max-new-tokens", "2", "--json"]) == 0
    assert [row["text"] for row in json.loads(capsys.readouterr().out)] == ["add 1 and 1", "add 2 and 2"]


@pytest.mark.parametrize("words", [["try", "nowhere", "a"], ["try", "ADAPTER", " "], ["try", "ADAPTER"]])
def test_what_cannot_be_tried_is_refused_in_a_sentence(words, classifier, capsys):
    assert main([str(classifier.path) if word == "ADAPTER" else word for word in words]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_damaged_adapter_is_not_loaded(classifier, tmp_path):
    copy = th.open(classifier.save(tmp_path / "copy"))
    (copy.path / "head.safetensors").write_bytes(b"x")
    with pytest.raises(th.ThresherError, match="train it again"):
        copy.predict("red")


def test_only_commands_that_fit_the_model_are_named(classifier, answerer, tmp_path):
    assert list_servings(classifier.path, "classification", "A") == []
    ways = {way.name: way.code for way in list_servings(answerer.path, "sft", "A B")}
    assert list(ways) == ["vLLM", "transformers"]  # llama.cpp does not know the toy's tokenizer
    assert "--max-lora-rank 8 --lora-modules adapter='A B'" in ways["vLLM"]
    card = (answerer.path / "README.md").read_text()
    assert all(f"{name}:\n" in card for name in ways)
    assert "llama.cpp:" not in card
    config = json.loads((answerer.path / "adapter_config.json").read_text())
    (tmp_path / "merged").mkdir()
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "org/model"}))
    ways = {way.name: way.code for way in list_servings(tmp_path, "sft", "A B")}
    assert list(ways) == ["vLLM", "llama.cpp", "Ollama", "transformers"]
    assert "convert_hf_to_gguf.py 'A B/merged'" in ways["llama.cpp"]
    assert "this is a classifier" in (classifier.path / "README.md").read_text()


def test_a_rank_is_rounded_up_and_dora_is_served_merged(answerer, tmp_path):
    config = json.loads((answerer.path / "adapter_config.json").read_text())
    for changes, expected in [
        ({"r": 24}, "--max-lora-rank 32"),
        ({"base_model_name_or_path": "org/model", "revision": "abc"}, "vllm serve org/model --revision abc --enable"),
        ({"use_dora": True}, None),
        ({"peft_type": "VERA", "r": 64}, None),
    ]:
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        ways = {way.name: way.code for way in list_servings(tmp_path, "sft", "A")}
        assert (expected in ways["vLLM"]) if expected else ("vLLM" not in ways)
    (tmp_path / "adapter_config.json").unlink()  # all weights were trained
    assert list_servings(tmp_path, "sft", "A")[0].code == "vllm serve A"
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    (tmp_path / "merged").mkdir()
    assert list_servings(tmp_path, "sft", "A")[0].code == "vllm serve A/merged"


def test_the_code_of_the_card_for_transformers_runs(answerer, monkeypatch):
    code = next(way.code for way in list_servings(answerer.path, "sft", str(answerer.path)) if way.is_python)
    names: dict[str, object] = {}
    exec(code.replace("print(", "result = (").replace("answer(", "answer(max_new_tokens=2, text_inputs="), names)
    assert names["result"][0]["generated_text"][-1]["role"] == "assistant"
