import hashlib
import json
import math
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.causal_lm.conversations import make_talk
from thresher.errors import InputError
from thresher.models.causal_lm import embedded
from thresher.models.causal_lm.base_model import find_base, load_tokenizer
from thresher.models.causal_lm.chat_template import TEMPLATE_REFUSES, has_assistant_blocks, render, render_prompt
from thresher.models.causal_lm.embedded import EMBEDDED_NAME, SHA256, causal_lm_folder

TALK = make_talk("You turn questions into SQL.", "How many rows?", "SELECT COUNT *", "Thanks", "Welcome.")
PROBLEM = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(causal_lm_folder())


@pytest.fixture(scope="module")
def model():
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(causal_lm_folder(), dtype=torch.float32).eval()


@pytest.fixture
def a_copy(tmp_path, monkeypatch):
    shutil.copytree(causal_lm_folder(), tmp_path / "m")
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "m")
    return tmp_path / "m"


def nats(model, tokenizer, text):
    """Return the loss per token of a text."""
    import torch

    ids = torch.tensor([tokenizer(text).input_ids])
    with torch.inference_mode():
        return float(model(input_ids=ids, labels=ids).loss)


def test_the_weights_are_the_published_ones():
    content = (causal_lm_folder() / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256


def test_changed_weights_are_refused(a_copy):
    weights = a_copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match=f"its sha256 must be {SHA256}, got "):
        causal_lm_folder()


def test_a_missing_model_is_refused(a_copy):
    (a_copy / "model.safetensors").unlink()
    with pytest.raises(InputError, match="model.safetensors must be there, found none; reinstall thresher"):
        causal_lm_folder()


def test_the_weights_are_at_most_ten_megabytes_of_float16():
    from safetensors import safe_open

    path = causal_lm_folder() / "model.safetensors"
    assert path.stat().st_size <= 10_000_000
    with safe_open(path, framework="numpy") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"float16"}  # noqa: SIM118 - not a dict


def test_its_name_stands_for_its_folder():
    base = find_base(EMBEDDED_NAME)
    assert (base.name, base.folder, base.max_positions) == (EMBEDDED_NAME, causal_lm_folder(), 1024)
    assert base.fingerprint == find_base(causal_lm_folder()).fingerprint
    assert load_tokenizer(base).pad_token == "<|pad|>"


def test_the_architecture_is_llama_and_needs_no_code(model):
    config = json.loads((causal_lm_folder() / "config.json").read_bytes())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "auto_map" not in config
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_from_its_tokens(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_every_byte_has_a_token(tokenizer):
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) == 4096
    assert set(ByteLevel.alphabet()) <= set(vocabulary)


def test_a_text_begins_with_bos_and_does_not_end(tokenizer):
    ids = tokenizer("Hello").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids


def test_the_template_marks_every_turn(tokenizer):
    assert tokenizer.apply_chat_template(TALK[:3], tokenize=False) == (
        "<|bos|><|system|>You turn questions into SQL.<|end|><|user|>How many rows?<|end|>"
        "<|assistant|>SELECT COUNT *<|end|>"
    )


def test_the_prompt_is_the_beginning_of_the_conversation(tokenizer):
    whole = tokenizer.apply_chat_template(TALK, tokenize=False)
    assert whole.startswith(render_prompt(tokenizer, TALK, None))
    assert render_prompt(tokenizer, TALK, None).endswith("<|user|>Thanks<|end|><|assistant|>")


def test_the_words_of_the_assistant_and_its_end_of_turn_are_learned(tokenizer):
    assert has_assistant_blocks(tokenizer.chat_template)
    rendered = render(tokenizer, TALK, None, loss_on="all-assistant")
    learned = [rendered.text[start:end] for start, end in rendered.spans]
    assert learned == ["SELECT COUNT *<|end|>", "Welcome.<|end|>"]


def test_tools_and_their_calls_are_told(tokenizer):
    call = {"type": "function", "function": {"name": "rows", "arguments": {"of": "t"}}}
    conversation = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    rendered = render(tokenizer, conversation, [{"name": "rows"}], loss_on="all-assistant")
    assert rendered.problem is None
    assert '<|system|>[{"name": "rows"}]<|end|>' in rendered.text
    assert '"arguments"' in rendered.text[slice(*rendered.spans[0])]


def test_a_role_that_it_does_not_know_is_refused(tokenizer):
    conversation = [{"role": "critic", "content": "No."}, *TALK]
    assert TEMPLATE_REFUSES in str(render(tokenizer, conversation, None, loss_on="all-assistant").problem)


def test_words_in_order_are_likelier_than_the_same_words_in_disorder(model, tokenizer):
    words = PROBLEM.split()
    in_order, backwards = (nats(model, tokenizer, " ".join(text)) for text in (words, words[::-1]))
    assert in_order < backwards - 0.5
    assert in_order < math.log(4096) / 2  # half of what a model that knows nothing pays


def test_what_is_asked_changes_how_likely_an_answer_is(model, tokenizer):
    def score(question):
        conversation = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "SELECT MAX attendance"},
        ]
        return nats(model, tokenizer, tokenizer.apply_chat_template(conversation, tokenize=False))

    related, other = "What is the highest attendance ?", "Who is the person with the red hat ?"
    alone = [nats(model, tokenizer, f"<|user|>{question}<|end|>") for question in (related, other)]
    assert score(related) - alone[0] < score(other) - alone[1]


def test_an_answer_comes_to_its_end(model, tokenizer):
    from thresher.evaluation.run import generate

    conversation = [{"role": "user", "content": "What is the name of the team with 3 wins ?"}]
    prompt = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_dict=True)["input_ids"]
    answer = generate(model, [prompt], tokenizer, max_new_tokens=60, device="cpu")[0]
    assert len(tokenizer(answer).input_ids) < 60
    assert answer.startswith("SELECT")
