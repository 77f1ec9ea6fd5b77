import shutil

import pytest
from transformers import AutoTokenizer

from thresher.dataset import load
from thresher.errors import InputError
from thresher.trainer.engine.tokenization import (
    CUT_AWAY,
    IGNORED,
    UNKNOWN_LABEL,
    build_labels,
    find_end_tokens,
    require_rows,
    tokenize,
    truncate_prompt,
)

CONVERSATIONS = [
    {
        "messages": [
            {"role": "user", "content": "what is the capital of France?"},
            {"role": "assistant", "content": "Paris é."},
            {"role": "user", "content": "add 2 and 3"},
            {"role": "assistant", "content": "the 5"},
        ]
    }
]


@pytest.fixture
def tokenizer(tiny_llama):
    return AutoTokenizer.from_pretrained(tiny_llama)


def read(tokenizer, rows, **options):
    return tokenize(load(rows), tokenizer, **{"task": "sft", "max_length": 512, "loss_on": "all-assistant", **options})


def test_learned_tokens_decode_to_the_responses_and_nothing_else(tokenizer):
    (row,) = read(tokenizer, CONVERSATIONS).rows
    learned = [token for token, label in zip(row.input_ids, row.labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(learned) == "Paris é.<|im_end|>the 5<|im_end|>"
    assert row.n_learned == len(learned)


def test_tokens_are_those_of_the_whole_text(tokenizer):
    (row,) = read(tokenizer, CONVERSATIONS).rows
    text = tokenizer.apply_chat_template(CONVERSATIONS[0]["messages"], tokenize=False)
    assert row.input_ids == tokenizer(text)["input_ids"]


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(2, 4)], [IGNORED, 11, IGNORED, IGNORED]),
        ([(3, 5)], [IGNORED, 11, 12, IGNORED]),  # both tokens straddle a border of the span
        ([(0, 1), (5, 9)], [10, IGNORED, 12, 13]),
        ([], [IGNORED] * 4),
    ],
)
def test_a_token_is_learned_when_it_holds_a_character_of_a_span(spans, expected):
    assert build_labels([10, 11, 12, 13], [(0, 2), (2, 4), (4, 6), (6, 9)], spans) == expected


@pytest.mark.parametrize("is_trimming", [False, True])
@pytest.mark.parametrize("response", ["x\n\n   y", "  \n x", "x \n", "   "])
def test_white_space_of_a_response_is_learned_whatever_the_offsets_say(tokenizer, is_trimming, response):
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=is_trimming)
    conversation = {"messages": [{"role": "user", "content": " a  "}, {"role": "assistant", "content": f"{response}z"}]}
    (row,) = read(tokenizer, [conversation]).rows
    learned = [token for token, label in zip(row.input_ids, row.labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(learned) == f"{response}z<|im_end|>"


def test_the_token_that_ends_the_turns_is_found_whatever_the_tokenizer_calls_the_end(tokenizer):
    tokenizer.eos_token = "<|pad|>"
    examples = read(tokenizer, CONVERSATIONS)
    assert find_end_tokens(examples, tokenizer) == {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    examples.max_length = len(examples.rows[0].input_ids)  # it may have been cut
    assert find_end_tokens(examples, tokenizer) == frozenset()


@pytest.mark.parametrize(
    ("room", "bos", "expected"),
    [(5, 1, [1, 2, 3, 4]), (4, 1, [1, 2, 3, 4]), (3, 1, [1, 3, 4]), (2, 1, [1, 4]), (1, 1, [4]), (3, None, [2, 3, 4])],
)
def test_a_prompt_that_is_too_long_keeps_its_start_and_its_end(room, bos, expected):
    assert truncate_prompt([1, 2, 3, 4], room, bos=bos) == expected


def test_truncation_is_counted_in_rows_and_tokens(tokenizer):
    whole = read(tokenizer, CONVERSATIONS)
    cut = read(tokenizer, CONVERSATIONS, max_length=len(whole.rows[0].input_ids) - 3)
    assert (cut.n_truncated, cut.n_tokens_cut, len(cut)) == (1, 3, 1)
    assert cut.rows[0].input_ids == whole.rows[0].input_ids[:-3]


def test_a_row_whose_response_is_cut_away_is_left_out_with_its_reason(tokenizer):
    rows = [{"prompt": "the " * 100, "completion": "5"}, {"prompt": "add", "completion": "5"}]
    examples = read(tokenizer, rows, max_length=32)
    assert examples.left_out == {CUT_AWAY: 1}
    assert examples.position == [1]
    assert examples.n_truncated == 0


def test_the_end_of_a_text_is_learned(tokenizer):
    examples = read(tokenizer, [{"text": "the quick brown fox"}], task="text")
    assert examples.rows[0].input_ids[-1] == tokenizer.eos_token_id
    assert examples.rows[0].n_learned == len(examples.rows[0].input_ids) - 1


def test_a_cut_text_keeps_the_closing_token_of_an_encoder(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    rows = [{"text": "the apple is red " * 9, "label": "red"}, {"text": "sky", "label": "blue"}]
    examples = read(tokenizer, rows, task="classification", classes=["blue", "red"], max_length=8)
    long = examples.rows[0].input_ids
    assert (len(long), long[0], long[-1]) == (8, tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert long == tokenizer(rows[0]["text"], truncation=True, max_length=8)["input_ids"]
    assert [row.labels for row in examples.rows] == [[1], [0]]
    assert (examples.n_truncated, examples.n_tokens_cut) == (1, 38 - 8)


def test_a_row_of_another_label_is_left_out(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    examples = read(tokenizer, [{"text": "sky", "label": "blue"}], task="classification", classes=["red"])
    assert examples.left_out == {UNKNOWN_LABEL: 1}
    with pytest.raises(InputError, match="train: at least one usable row is needed, found none"):
        require_rows(examples, "train")


def test_a_slow_tokenizer_is_refused(tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="needs a fast tokenizer"):
        read(Slow(), CONVERSATIONS)


# A template, and the same by hand: (words before the turns, a turn, what a turn of the assistant is
# learned as)
TOOLS = [{"type": "function", "function": {"name": "add", "description": "adds", "parameters": {"type": "object"}}}]
LONG_CONVERSATION = [
    {"role": "system", "content": "be brief é"},
    {"role": "user", "content": "the  quick\n"},
    {"role": "assistant", "content": " Paris is the capital"},
    {"role": "tool", "content": "assistant: no"},
    {"role": "assistant", "content": "数学 5"},
    {"role": "user", "content": "thanks"},
]
BRACKETS = (
    "{%- for m in messages -%}{%- if m['role'] == 'assistant' -%}{{ ' ' + m['content'] + ' ' + eos_token }}"
    "{%- else -%}{{ '[' + m['role'] + '] ' + m['content'] + ' [/]' }}{%- endif -%}{%- endfor -%}"
)


def by_hand(template, conversation):
    """Return the text of a conversation as pieces, each with whether it is learned."""
    pieces = [("<|pad|>", False)]
    for turn in conversation:
        is_answer, words = turn["role"] == "assistant", turn["content"]
        if template == "brackets":
            head, body, tail = (
                ("", f" {words} <|im_end|>", "") if is_answer else ("", f"[{turn['role']}] {words} [/]", "")
            )
        elif template == "chatml":
            head, body, tail = f"<|im_start|>{turn['role']}\n", f"{words}<|im_end|>", "\n"
        else:
            head, body, tail = f"### {turn['role']}:\n", words + ("<|im_end|>" if is_answer else ""), "\n\n"
        pieces += [(head, False), (body, is_answer), (tail, False)]
    return pieces


@pytest.mark.parametrize("template", ["brackets", "chatml", "plain"])
@pytest.mark.parametrize("loss_on", ["all-assistant", "last-assistant"])
def test_mask_and_loss_are_those_of_a_slow_reference_over_bytes(tokenizer, tiny_llama, template, loss_on):
    """A token is learned when one of its bytes is; the loss is summed in float64."""
    import torch
    from transformers import AutoModelForCausalLM

    from thresher.models.causal_lm.template_text import PLAIN_TEMPLATE
    from thresher.trainer.engine.batches import pack_rows, pad_rows
    from thresher.trainer.engine.losses import token_loss

    tokenizer.bos_token = "<|pad|>"
    if template != "chatml":
        tokenizer.chat_template = BRACKETS if template == "brackets" else PLAIN_TEMPLATE
    conversations = [LONG_CONVERSATION, LONG_CONVERSATION[:3], CONVERSATIONS[0]["messages"]]
    rows = [{"messages": messages, "key": str(i)} for i, messages in enumerate(conversations)]
    examples = read(tokenizer, rows, loss_on=loss_on)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    total = 0.0
    for conversation, row in zip(conversations, examples.rows, strict=True):
        last = max(i for i, turn in enumerate(conversation) if turn["role"] == "assistant")
        pieces = by_hand(template, conversation[: last + 1])
        if loss_on == "last-assistant":
            final = max(i for i, (_, is_learned) in enumerate(pieces) if is_learned)
            pieces = [(text, is_learned and i == final) for i, (text, is_learned) in enumerate(pieces)]
        is_learned = [learned for text, learned in pieces for _ in text.encode()]
        at = 0
        for place, code in enumerate(row.input_ids):
            token = tokenizer.convert_ids_to_tokens(code)  # one character per byte
            assert (row.labels[place] != IGNORED) == any(is_learned[at : at + len(token)]), (place, token)
            assert row.labels[place] in (IGNORED, code)
            at += len(token)
        assert at == len(is_learned)
        assert tokenizer.decode(row.input_ids) == "".join(text for text, _ in pieces)
        with torch.inference_mode():
            logits = model(torch.tensor([row.input_ids])).logits[0].double()
        for place in range(1, len(row.input_ids)):
            if row.labels[place] != IGNORED:
                total -= float(logits[place - 1].log_softmax(-1)[row.input_ids[place]])
    with torch.inference_mode():
        together = float(token_loss(model, pad_rows(examples.rows, pad_id=0)))
        packed = float(token_loss(model, pack_rows(examples.rows, pad_id=0, max_length=512, dtype=model.dtype)))
    assert (together, packed) == (pytest.approx(total, rel=1e-5), pytest.approx(total, rel=1e-5))


@pytest.mark.parametrize("loss_on", ["all-assistant", "last-assistant"])
@pytest.mark.parametrize("bos", ["none", "left out", "written"])
def test_training_reads_what_the_feature_loss_scores(tiny_llama, tmp_path, bos, loss_on):
    from thresher.models.causal_lm.language_model import LanguageModel
    from thresher.models.causal_lm.tokenized_rows import RowTokenizer, row_texts

    shutil.copytree(tiny_llama, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    if bos != "none":
        tokenizer.bos_token = "<|pad|>"
        tokenizer.chat_template = ("{{ bos_token }}" if bos == "written" else "") + tokenizer.chat_template
        tokenizer.save_pretrained(tmp_path / "model")
    row_tokenizer = RowTokenizer(lm=LanguageModel(str(tmp_path / "model")), loss_on=loss_on, max_length=64)
    for rows in (CONVERSATIONS, [{"text": "the quick brown fox"}, {"text": "x"}]):
        data = load(rows)
        examples = tokenize(data, tokenizer, task=data.kind, max_length=64, loss_on=loss_on).rows
        for ours, theirs in zip(examples, row_tokenizer.tokenize(row_texts(data).to_list()), strict=True):
            assert ours.input_ids == theirs.row.ids.tolist()
            assert [label != IGNORED for label in ours.labels] == theirs.row.is_scored.tolist()
        assert examples[0].input_ids.count(0) == (bos != "none")


def test_a_text_of_one_token_is_learned_behind_the_end_of_another(tokenizer):
    (row,) = read(tokenizer, [{"text": "x"}], task="text").rows
    end, x = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("x")
    assert (row.input_ids, row.labels) == ([end, x, end], [IGNORED, x, end])


def test_a_cut_text_keeps_its_words_where_only_an_opening_token_is_added(tokenizer):
    """Its last token was replaced by that of the whole text, as if it were a closing one."""
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    text = "what is the capital of France? Paris is."
    (row,) = read(
        tokenizer, [{"text": text, "label": "a"}], task="classification", classes=["a", "b"], max_length=6
    ).rows
    assert row.input_ids == tokenizer(text, truncation=True, max_length=6)["input_ids"]


def test_a_token_that_the_weights_do_not_have_is_refused(tokenizer):
    tokenizer.add_tokens(["<|new|>"])
    examples = read(tokenizer, [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "<|new|>"}])
    require_rows(examples, "train", n_vocabulary=321)
    with pytest.raises(InputError, match=r"train: token ids must be below 320.*gave higher ones in 1 rows"):
        require_rows(examples, "train", n_vocabulary=320)
