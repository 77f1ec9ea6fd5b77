"""Classifiers of pooled token states: what peft and sentence-transformers read of their files."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from thresher.errors import InputError
from thresher.models.causal_lm.base_model import BaseModel
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.batches import pad_rows
from thresher.trainer.engine.fit import build_model, load_trained_model
from thresher.trainer.engine.load_model import load_model
from thresher.trainer.engine.lora import (
    attach_adapter,
    get_trainable_parameters,
    load_adapter,
    merge_adapter,
    save_adapter,
)
from thresher.trainer.engine.pooled_classifier import (
    HEAD_CONFIG,
    HEAD_WEIGHTS,
    format_pooled_loading,
    write_merged_classifier,
)
from thresher.trainer.engine.pooling import MODES, Pooling
from thresher.trainer.engine.tokenization import Example
from thresher.trainer.settings import TrainSettings

# peft 0.21 reads a property that transformers 5.23 renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SIZES = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
BLOCKS = {**SIZES, "intermediate_size": 64, "num_attention_heads": 4, "max_position_embeddings": 64}
BODIES = {
    "Bert": BLOCKS,
    "Roberta": BLOCKS,
    "DistilBert": {"vocab_size": 100, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    "XLM": {"vocab_size": 100, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64},
    "Electra": {**BLOCKS, "embedding_size": 16},
    "Llama": {**BLOCKS, "num_key_value_heads": 2},
}
SETTINGS = TrainSettings(lora_rank=4, precision="fp32").resolved("classification")
BATCH = pad_rows([Example("", list(range(5, 5 + n)), [0]) for n in (4, 9)], pad_id=0)


def logits(model):
    with torch.inference_mode():
        return model(**BATCH.inputs).logits


def move_weights(model):
    """Change every trained matrix, as training would: a fresh adapter's zeros hide losses."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        for parameter in get_trainable_parameters(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def build(base, pooling=Pooling(("mean",)), **options):  # noqa: B008 - it is never changed
    settings = TrainSettings(lora_rank=4, precision="fp32", **options).resolved("classification")
    loaded = load_model(base, task="classification", settings=settings, pad_id=0, labels="abc", pooling=pooling)
    return attach_adapter(loaded.model, settings, task="classification", base=base, new_layers=loaded.new_layers)


@pytest.fixture(scope="module")
def make_base(tmp_path_factory):
    """Return a function from an architecture to a base of random weights."""

    def make(name, kind="Model"):
        folder = tmp_path_factory.mktemp(name)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = getattr(transformers, f"{name}Config")(**BODIES[name])
            getattr(transformers, f"{name}{kind}")(config).save_pretrained(folder)
        return BaseModel(name=str(folder), folder=folder, fingerprint="", max_positions=None)

    return make


@pytest.mark.parametrize("name", BODIES)
def test_a_classifier_is_the_same_when_it_is_read_back_and_when_it_is_merged(make_base, tmp_path, name):
    base = make_base(name)
    with torch.random.fork_rng():
        model = build(base)
        model.train()
        model(**BATCH.inputs).logits.sum().backward()
        # a matrix that nothing reads ends a run of several processes
        assert all(parameter.grad is not None for parameter in get_trainable_parameters(model).values())
        expected = logits(move_weights(model))
        save_adapter(model, tmp_path / "adapter")
        torch.manual_seed(1)
        plain = load_model(
            base, task="classification", settings=SETTINGS, pad_id=0, labels="abc", pooling=Pooling(("mean",))
        ).model
        torch.testing.assert_close(logits(load_adapter(plain, tmp_path / "adapter")), expected)
        torch.testing.assert_close(logits(merge_adapter(model)), expected, rtol=1e-3, atol=1e-4)


def test_a_masked_language_model_without_a_pooler_is_whole(make_base):
    assert logits(build(make_base("Bert", "ForMaskedLM")).eval()).shape == (2, 3)


@pytest.mark.parametrize("option", [{"gradient_checkpointing": True}, {"lora_targets": ("query", "dense")}])
def test_options_of_the_adapter_reach_the_body(make_base, option):
    model = build(make_base("Bert"), **option).train()
    assert not [name for name in get_trainable_parameters(model) if "pooler" in name]
    model(**BATCH.inputs).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in get_trainable_parameters(model).values())


@pytest.fixture
def trained(tiny_bert, color_rows, tmp_path):
    """Return a function from a pooling to a classifier with moved weights, saved in a folder."""

    def train(name):
        context = resolve_run(color_rows, model=tiny_bert, settings=TrainSettings(max_length=32, pooling=name), seed=0)
        with torch.random.fork_rng():
            model = move_weights(build_model(context, seed=0))
        save_adapter(model, tmp_path / "adapter")
        context.tokenizer.save_pretrained(tmp_path / "adapter")
        return context, model, tmp_path / "adapter"

    return train


TEXTS = ["the apple is red", "leaf"]


def classify(context, model):
    ids = context.tokenizer(TEXTS)["input_ids"]
    with torch.inference_mode():
        return model(**pad_rows([Example("", row, [0]) for row in ids], pad_id=0).inputs).logits


@pytest.mark.parametrize("name", MODES)
def test_the_code_of_the_card_gives_the_same_logits_for_every_pooling(trained, tiny_bert, name):
    context, model, folder = trained(name)
    code = format_pooled_loading(repr(str(tiny_bert)), context.pooling, 32)
    names = {}
    exec(code.replace("path/to/this/folder", str(folder)).replace('["a text", "another text"]', str(TEXTS)), names)
    torch.testing.assert_close(names["logits"], classify(context, model))
    assert names["labels"] == ["blue", "green", "red"]


def test_the_code_joins_and_normalizes_vectors():
    states, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 1], [1, 1, 0]])[:, :, None]
    pooling = Pooling(("cls", "mean"), is_normalized=True)
    lines = [line.strip() for line in format_pooled_loading("''", pooling, 32).splitlines() if " pooled = " in line]
    names = {"torch": torch, "states": states, "mask": mask}
    exec("\n".join(lines), names)
    torch.testing.assert_close(names["pooled"], pooling.apply(states, mask[:, :, 0]))


@pytest.mark.parametrize("name", ["mean", "cls", "lasttoken"])
def test_sentence_transformers_gives_the_logits_of_the_merged_classifier(trained, tmp_path, name):
    library = pytest.importorskip("sentence_transformers")
    context, model, _ = trained(name)
    model.pooling = Pooling((name,), is_normalized=True)
    expected = classify(context, model)
    write_merged_classifier(merge_adapter(model), tmp_path / "merged", max_length=32)
    context.tokenizer.save_pretrained(tmp_path / "merged")
    merged = library.SentenceTransformer(str(tmp_path / "merged"), device="cpu")
    torch.testing.assert_close(torch.from_numpy(merged.encode(TEXTS)), expected, rtol=1e-3, atol=1e-4)
    assert merged.max_seq_length == 32
    # and it is a base to train on, with the pooling it was trained with
    again = resolve_run(
        [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}],
        model=tmp_path / "merged",
        settings=TrainSettings(),
        seed=0,
    )
    assert again.pooling == model.pooling


def test_an_adapter_of_an_earlier_version_reads_what_it_was_trained_to_read(trained):
    """Such a folder has no head file: it was trained with the head of its architecture."""
    context, model, folder = trained("head")
    assert not (folder / HEAD_CONFIG).exists()
    expected = classify(context, model)
    later = resolve_run(
        context.data, model=context.base.name, settings=TrainSettings(max_length=32), seed=0, labels=context.labels
    )
    assert later.pooling == Pooling(("mean",))
    torch.testing.assert_close(classify(later, load_trained_model(later, folder)), expected)


def test_a_head_that_does_not_fit_is_one_sentence(trained):
    context, _, folder = trained("mean")
    content = json.loads((folder / HEAD_CONFIG).read_text())
    (folder / HEAD_CONFIG).write_text(json.dumps({**content, "labels": ["blue", "red"]}))
    with pytest.raises(InputError, match=r"its labels must be those of the data \(blue, green, red\), got blue, red"):
        load_trained_model(context, folder)
    (folder / HEAD_CONFIG).write_text(json.dumps({**content, "format": "thresher-head/9"}))
    with pytest.raises(InputError, match="must be a head of format thresher-head/1, got format 'thresher-head/9'"):
        load_trained_model(context, folder)
    (folder / HEAD_CONFIG).write_text(json.dumps(content))
    (folder / HEAD_WEIGHTS).write_bytes(b"")
    with pytest.raises(InputError, match="must hold the head of this adapter") as raised:
        load_trained_model(context, folder)
    assert "\n" not in str(raised.value)


def test_the_docs_show_the_code_of_the_card():
    """Which `test_train` runs, as it stands in a card."""
    code = format_pooled_loading(
        '"sentence-transformers/all-MiniLM-L6-v2"', Pooling(("mean",), is_normalized=True), 256
    )
    page = Path(__file__).parents[3] / "docs/train.md"
    assert f"```py\n{code}\n```" in page.read_text()
