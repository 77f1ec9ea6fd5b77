import pytest
from transformers import AutoTokenizer

from thresher.dataset import load
from thresher.errors import InputError
from thresher.trainer.examples import (
    CUT_AWAY,
    IGNORED,
    UNKNOWN_LABEL,
    learned_labels,
    require_rows,
    tokenize,
    turn_ends,
)

TALKS = [
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
    (row,) = read(tokenizer, TALKS).rows
    kept = [token for token, label in zip(row.input_ids, row.labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(kept) == "Paris é.<|im_end|>the 5<|im_end|>"
    assert row.n_learned == len(kept)


def test_tokens_are_those_of_the_whole_text(tokenizer):
    (row,) = read(tokenizer, TALKS).rows
    assert row.input_ids == tokenizer(tokenizer.apply_chat_template(TALKS[0]["messages"], tokenize=False))["input_ids"]


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
    assert learned_labels([10, 11, 12, 13], [(0, 2), (2, 4), (4, 6), (6, 9)], spans) == expected


@pytest.mark.parametrize("is_trimming", [False, True])
@pytest.mark.parametrize("response", ["x\n\n   y", "  \n x", "x \n", "   "])
def test_white_space_of_a_response_is_learned_whatever_the_offsets_say(tokenizer, is_trimming, response):
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=is_trimming)
    talk = {"messages": [{"role": "user", "content": " a  "}, {"role": "assistant", "content": f"{response}z"}]}
    (row,) = read(tokenizer, [talk]).rows
    kept = [token for token, label in zip(row.input_ids, row.labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(kept) == f"{response}z<|im_end|>"


def test_the_token_that_ends_the_turns_is_found_whatever_the_tokenizer_calls_the_end(tokenizer):
    tokenizer.eos_token = "<|pad|>"
    found = read(tokenizer, TALKS)
    assert turn_ends(found, tokenizer, 512) == {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert turn_ends(found, tokenizer, len(found.rows[0].input_ids)) == frozenset()  # it may have been cut


def test_truncation_is_counted_in_rows_and_tokens(tokenizer):
    whole = read(tokenizer, TALKS)
    cut = read(tokenizer, TALKS, max_length=len(whole.rows[0].input_ids) - 3)
    assert (cut.n_truncated, cut.n_tokens_cut, len(cut)) == (1, 3, 1)
    assert cut.rows[0].input_ids == whole.rows[0].input_ids[:-3]


def test_a_row_whose_response_is_cut_away_is_left_out_with_its_reason(tokenizer):
    rows = [{"prompt": "the " * 100, "completion": "5"}, {"prompt": "add", "completion": "5"}]
    found = read(tokenizer, rows, max_length=32)
    assert found.left_out == {CUT_AWAY: 1}
    assert found.position.tolist() == [1]
    assert found.n_truncated == 0


def test_the_end_of_a_text_is_learned(tokenizer):
    found = read(tokenizer, [{"text": "the quick brown fox"}], task="text")
    assert found.rows[0].input_ids[-1] == tokenizer.eos_token_id
    assert found.rows[0].n_learned == len(found.rows[0].input_ids) - 1


def test_a_cut_text_keeps_the_closing_token_of_an_encoder(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    rows = [{"text": "the apple is red " * 9, "label": "red"}, {"text": "sky", "label": "blue"}]
    found = read(tokenizer, rows, task="classification", classes=["blue", "red"], max_length=8)
    long = found.rows[0].input_ids
    assert (len(long), long[0], long[-1]) == (8, tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert long == tokenizer(rows[0]["text"], truncation=True, max_length=8)["input_ids"]
    assert [row.labels for row in found.rows] == [[1], [0]]
    assert (found.n_truncated, found.n_tokens_cut) == (1, 38 - 8)


def test_a_row_of_another_label_is_left_out(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    found = read(tokenizer, [{"text": "sky", "label": "blue"}], task="classification", classes=["red"])
    assert found.left_out == {UNKNOWN_LABEL: 1}
    with pytest.raises(InputError, match="train: at least one usable row is needed, found none"):
        require_rows(found, "train")


def test_a_slow_tokenizer_is_refused(tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="needs a fast tokenizer"):
        read(Slow(), TALKS)
