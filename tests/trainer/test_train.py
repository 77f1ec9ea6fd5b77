"""`train` from rows to a folder: what it promises whoever reads the folder."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

from thresher.dataset import load
from thresher.errors import OutputError
from thresher.trainer.settings import TrainSettings
from thresher.trainer.train import train

# peft 0.21 reads a property that transformers 5.23 renamed, when a user loads an adapter
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

QUICK = TrainSettings(max_steps=12, batch_size=8, learning_rate=1e-2, max_length=32)
FILES = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "head.json",
    "head.safetensors",
    "loss.csv",
    "loss.png",
    "manifest.json",
    "metrics.json",
    "predictions.parquet",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def classifier(tiny_bert, color_rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "adapter"
    return train(color_rows[:45], model=tiny_bert, eval=load(color_rows[45:]), out=out, settings=QUICK, merge=True)


def test_the_folder_holds_what_it_promises(classifier):
    assert {path.name for path in classifier.path.iterdir()} >= FILES
    assert [path for path in classifier.path.parent.iterdir() if path.name.startswith(".")] == []
    assert classifier.manifest.content["kind"] == "adapter"
    assert classifier.metrics["held_out"]["accuracy"]["value"] == 1.0


def test_every_number_has_its_standard_error_and_n(classifier):
    def check(value):
        if isinstance(value, dict):
            if "value" in value:
                assert set(value) == {"value", "stderr", "n"}
            for entry in value.values():
                check(entry)

    check(classifier.metrics["held_out"])
    assert classifier.metrics["held_out"]["accuracy"]["n"] == 15


def test_the_code_of_the_card_gives_the_predictions_that_were_written(classifier, color_rows):
    """With peft, transformers and torch alone; the card and docs/train.md show the same lines."""
    written = pl.read_parquet(classifier.path / "predictions.parquet")
    rows = load(color_rows[45:]).frame.join(written, on="row_id")
    names = run_card(classifier, rows["prompt"].to_list())
    share = names["logits"].softmax(-1)
    assert [names["labels"][code] for code in share.argmax(-1).tolist()] == rows["prediction"].to_list()
    np.testing.assert_allclose(share.max(-1).values, rows["confidence"], atol=1e-5)


def test_a_merged_classifier_is_read_by_sentence_transformers(classifier, color_rows):
    library = pytest.importorskip("sentence_transformers")
    written = pl.read_parquet(classifier.path / "predictions.parquet")
    rows = load(color_rows[45:]).frame.join(written, on="row_id")
    merged = library.SentenceTransformer(str(classifier.path / "merged"), device="cpu")
    codes = merged.encode(rows["prompt"].to_list()).argmax(axis=1)
    id2label = merged[0].auto_model.config.id2label
    assert [id2label[int(code)] for code in codes] == rows["prediction"].to_list()


def run_card(adapter, texts):
    """Run the code of a model card as it stands there, on other texts, and return its names."""
    code = (adapter.path / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert "path/to/this/folder" in code
    code = code.replace("path/to/this/folder", str(adapter.path)).replace('["a text", "another text"]', repr(texts))
    names = {}
    exec(code, names)
    return names


def test_the_same_work_is_not_done_twice_and_other_work_is_refused(classifier, tiny_bert, color_rows):
    events = []
    given = {"model": tiny_bert, "eval": load(color_rows[45:]), "out": classifier.path}
    again = train(color_rows[:45], settings=QUICK, merge=True, on_event=events.append, **given)
    assert events == []
    assert again.metrics == classifier.metrics
    with pytest.raises(OutputError, match="must be new or empty"):
        train(color_rows[:45], settings=QUICK, seed=1, **given)


def test_the_order_of_the_rows_does_not_matter(classifier, tiny_bert, color_rows, tmp_path):
    other = train(
        color_rows[:45][::-1], model=tiny_bert, eval=load(color_rows[45:]), out=tmp_path / "a", settings=QUICK
    )
    assert (other.path / "adapter_model.safetensors").read_bytes() == (
        classifier.path / "adapter_model.safetensors"
    ).read_bytes()


def test_without_a_folder_the_result_goes_with_the_object(tiny_bert, color_rows, tmp_path, hash_files):
    adapter = train(color_rows, model=tiny_bert, settings=QUICK)
    path = adapter.path
    assert path.is_dir()
    assert "rows" in repr(adapter)
    saved = adapter.save(tmp_path / "saved")
    assert hash_files(saved) == hash_files(path)
    del adapter
    assert not path.exists()


def test_rows_with_the_text_of_a_held_out_row_are_not_learned(tiny_bert, color_rows, tmp_path):
    leaked = [dict(row, label="red") for row in color_rows[:3]]
    rows, held_out = load([*color_rows, {"text": "", "label": "red"}]), load([*leaked, {"text": "a"}])
    notes = []
    settings = {"settings": QUICK, "on_event": lambda event: notes.append(event.message)}
    adapter = train(rows, model=tiny_bert, eval=held_out, **settings)
    counts = adapter.metrics["counts"]
    assert (counts["same_text_as_held_out"], counts["train"]["rows"]) == (3, 57)
    assert counts["unusable"] == {"data": {"field 'text' is empty": 1}, "eval": {"field 'label' is missing": 1}}
    assert "1 rows rejected: field 'text' is empty." in (adapter.path / "README.md").read_text()
    assert "data: 1 of 61 rows cannot be used and are rejected: 1 x field 'text' is empty" in notes
    assert "eval: 1 of 4 rows cannot be used and are rejected: 1 x field 'label' is missing" in notes


def test_a_label_the_model_never_saw_counts_as_wrong(tiny_bert, color_rows):
    held_out = [*color_rows[50:], {"text": "the sky is a leaf", "label": "zebra"}]
    adapter = train(color_rows[:50], model=tiny_bert, eval=load(held_out), settings=QUICK)
    assert adapter.metrics["counts"]["eval"] == {
        "rows": 11,
        "rows_left_out": 0,
        "rows_truncated": 0,
        "tokens_cut": 0,
        "rows_of_unknown_label": 1,
        "unknown_labels": {"zebra": 1},
    }
    assert adapter.metrics["held_out"]["classes"]["zebra"]["recall"]["value"] == 0.0
    assert adapter.metrics["held_out"]["loss"]["n"] == 10


def test_random_rows_of_the_pool_are_trained_on_beside(tiny_bert, color_rows):
    pool, chosen, held_out = load(color_rows[:48]), load(color_rows[:20]), load(color_rows[48:])
    adapter = train(chosen, model=tiny_bert, eval=held_out, control=pool, seeds=2, seed=3, settings=QUICK)
    metrics = adapter.metrics
    assert [(run["role"], run["seed"], run["rows"], run["n_steps"]) for run in metrics["runs"]] == [
        ("main", 3, 20, 12),
        ("control", 3, 20, 12),
        ("main", 4, 20, 12),
        ("control", 4, 20, 12),
    ]
    comparison = metrics["comparison"]
    assert comparison["difference"]["value"] == pytest.approx(
        comparison["subset"]["value"] - comparison["random"]["value"]
    )
    assert (adapter.path / "control" / "predictions.parquet").is_file()
    alone = train(chosen, model=tiny_bert, eval=held_out, seed=3, settings=QUICK)
    name = "adapter_model.safetensors"
    assert (alone.path / name).read_bytes() == (adapter.path / name).read_bytes()


def test_a_language_model_is_trained_and_measured(tiny_llama, question_rows, tmp_path):
    settings = TrainSettings(max_steps=8, batch_size=8, eval_generations=3, max_new_tokens=4, max_length=128)
    adapter = train(question_rows, model=tiny_llama, eval="20%", out=tmp_path / "a", settings=settings, merge=True)
    held_out = adapter.metrics["held_out"]
    assert held_out["perplexity"]["value"] == pytest.approx(np.exp(held_out["loss"]["value"]))
    assert {name: held_out[name]["n"] for name in ("loss", "exact_match", "rouge_l", "chrf")} == {
        "loss": 8,
        "exact_match": 3,
        "rouge_l": 3,
        "chrf": 3,
    }
    assert adapter.metrics["counts"]["held_out"] == 8
    assert json.loads((adapter.path / "merged" / "config.json").read_bytes())["use_cache"] is True
    written = pl.read_parquet(adapter.path / "predictions.parquet")
    assert written["loss"].sum() / written["n_tokens"].sum() == pytest.approx(held_out["loss"]["value"])
    _check_losses(adapter.path, tiny_llama, written, question_rows)


def _check_losses(folder, base, written, rows):
    """Compare the written losses with those of plain peft and of the merged model, row by row."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged").eval()
    data = load(rows)
    for prompt, response, loss in (
        data.frame.join(written.select("row_id", "loss"), on="row_id").select("prompt", "response", "loss").iter_rows()
    ):
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        text = tokenizer.apply_chat_template(turns, tokenize=False).rstrip()
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        n_answer = len(tokenizer(f"{response}<|im_end|>")["input_ids"])
        labels = torch.full_like(ids, -100)
        labels[0, -n_answer:] = ids[0, -n_answer:]
        for model in (adapted, merged):
            with torch.inference_mode():
                assert float(model(input_ids=ids, labels=labels).loss) * n_answer == pytest.approx(loss, rel=1e-4)


def test_the_text_task_learns_plain_texts(tiny_llama):
    rows = [{"text": f"the quick brown fox {number}"} for number in range(20)]
    adapter = train(rows, model=tiny_llama, eval=0.2, settings=TrainSettings(max_steps=3))
    assert adapter.metrics["task"] == "text"
    assert adapter.metrics["held_out"]["loss"]["n"] == 4


@pytest.mark.parametrize("kind", ["colors", "questions"])
def test_bfloat16_trains_an_adapter_in_float32_and_gives_nearly_the_same(
    tiny_bert, tiny_llama, color_rows, question_rows, kind
):
    from dataclasses import replace

    from safetensors.numpy import load_file

    rows, model = (color_rows, tiny_bert) if kind == "colors" else (question_rows, tiny_llama)
    settings = TrainSettings(max_steps=6, max_length=64, eval_generations=2, max_new_tokens=3)
    exact = train(rows, model=model, eval="20%", settings=settings)
    rough = train(rows, model=model, eval="20%", settings=replace(settings, precision="bf16"))
    assert {str(value.dtype) for value in load_file(rough.path / "adapter_model.safetensors").values()} == {"float32"}
    losses = [adapter.metrics["held_out"]["loss"]["value"] for adapter in (exact, rough)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05, abs=0.02)


def test_the_card_loads_an_adapter_on_a_model_that_comes_along(question_rows, tmp_path):
    train(question_rows, model="tiny", settings=TrainSettings(max_steps=1, max_length=32), out=tmp_path / "a")
    adapter = json.loads((tmp_path / "a" / "adapter_config.json").read_bytes())
    assert adapter["base_model_name_or_path"] == "thresher/tiny-llama"
    card = (tmp_path / "a" / "README.md").read_text()
    names = {}
    exec(card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(tmp_path / "a")), names)
    assert names["model"].peft_config["default"].r == 8


def test_a_padding_token_that_the_weights_do_not_have_does_no_harm(tiny_llama, question_rows, tmp_path):
    from transformers import AutoTokenizer

    base = shutil.copytree(tiny_llama, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"pad_token": "<|padding|>"})
    assert tokenizer.pad_token_id >= 320
    tokenizer.save_pretrained(base)
    settings = TrainSettings(max_steps=2, max_length=64, eval_generations=3, max_new_tokens=3)
    losses = [
        train(question_rows, model=each, eval="20%", settings=settings).metrics["held_out"]["loss"]
        for each in (base, tiny_llama)
    ]
    assert losses[0] == losses[1]


def test_bos_is_learned_answered_and_saved_where_the_chat_template_leaves_it_out(tiny_llama, question_rows, tmp_path):
    from transformers import AutoTokenizer

    base = shutil.copytree(tiny_llama, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.bos_token = "<|im_start|>"  # the template begins with it, so that nothing is added
    tokenizer.save_pretrained(base)
    other = shutil.copytree(tiny_llama, tmp_path / "other")
    tokenizer.bos_token = "<|pad|>"
    tokenizer.save_pretrained(other)
    settings = TrainSettings(max_steps=2, max_length=64, eval_generations=3, max_new_tokens=3)
    n_tokens = []
    for each in (base, other):
        adapter = train(question_rows, model=each, settings=settings, out=tmp_path / f"of-{each.name}")
        n_tokens.append(adapter.metrics["counts"]["train"]["tokens"])
    assert n_tokens[1] == n_tokens[0] + len(question_rows)
    saved = AutoTokenizer.from_pretrained(tmp_path / "of-other")
    ids = saved.apply_chat_template([{"role": "user", "content": "a"}], tokenize=True, return_dict=False)
    assert ids[:2] == [0, 1]


def test_a_model_whose_generation_settings_transformers_would_not_write_is_merged(tiny_llama, question_rows, tmp_path):
    """Llama 2 has a temperature and does not sample: the whole training ended in a traceback."""
    base = shutil.copytree(tiny_llama, tmp_path / "base")
    own = {"temperature": 0.9, "top_p": 0.6, "eos_token_id": [2, 1]}
    (base / "generation_config.json").write_text(json.dumps(own))
    adapter = train(question_rows, model=base, settings=TrainSettings(max_steps=1, max_length=64), merge=True)
    assert json.loads((adapter.path / "merged" / "generation_config.json").read_bytes()) == own


def test_as_many_random_rows_are_learned_even_when_some_drawn_ones_are_cut_away(tiny_llama):
    short = [{"prompt": f"add {n}", "completion": "5"} for n in range(24)]
    long = [{"prompt": f"{'the ' * 90} {n}", "completion": "5"} for n in range(24)]
    adapter = train(
        load(short[:8]),
        model=tiny_llama,
        eval=load(short[20:]),
        control=load([*short[:20], *long]),
        settings=TrainSettings(max_steps=1, max_length=64, eval_generations=0),
    )
    assert [run["rows"] for run in adapter.metrics["runs"]] == [8, 8]
    assert sum(adapter.metrics["control"]["train"]["rows_left_out"].values()) > 0


def test_the_card_loads_the_adapter_onto_a_base_with_a_head_of_its_own(tiny_bert, color_rows, tmp_path):
    """And with early stopping, it says that the held-out rows have chosen the weights."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=7)
    base.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "base")
    settings = TrainSettings(max_steps=4, early_stopping_patience=1, eval_every=2, max_length=32)
    adapter = train(color_rows, model=tmp_path / "base", eval="20%", settings=settings)
    card = (adapter.path / "README.md").read_text()
    assert f"of step {adapter.metrics['best_step']}) by the loss on these same rows" in card
    code = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(adapter.path))
    names = {}
    exec(code, names)
    assert names["model"].config.num_labels == 3
