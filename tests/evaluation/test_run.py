from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from thresher.errors import InputError
from thresher.evaluation.run import classify, generate, token_losses


def row(ids, labels):
    return SimpleNamespace(input_ids=ids, labels=labels)


@pytest.fixture(scope="module")
def llama(tiny_llama):
    return AutoModelForCausalLM.from_pretrained(tiny_llama).eval()


def prompts(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 320, size=size).tolist() for size in (5, 1, 12, 7, 30)]


def test_losses_are_those_of_each_row_alone(llama):
    rows = [row(ids, [-100] * (len(ids) // 2) + ids[len(ids) // 2 :]) for ids in prompts()]
    results = token_losses(llama, rows, pad_id=0, device="cpu")
    for i, each in enumerate(rows):
        targets = [label for label in each.labels[1:] if label != -100]
        assert results.n_tokens[i] == len(targets)
        if targets:
            with torch.inference_mode():
                loss = llama(input_ids=torch.tensor([each.input_ids]), labels=torch.tensor([each.labels])).loss
            assert results.total[i] == pytest.approx(float(loss) * len(targets), rel=1e-5)


@pytest.mark.parametrize("logits", [1, 320 * 13, 320 * 40])
def test_losses_do_not_depend_on_how_many_logits_are_held_at_once(llama, monkeypatch, logits):
    rows = [row(ids, ids) for ids in prompts()]
    expected = token_losses(llama, rows, pad_id=0, device="cpu")
    sizes = []
    hook = llama.register_forward_hook(lambda _, __, output: sizes.append(output.logits.shape[:2].numel()))
    monkeypatch.setattr("thresher.evaluation.run.LOGITS_PER_BATCH", logits)
    results = token_losses(llama, rows, pad_id=0, device="cpu")
    hook.remove()
    np.testing.assert_allclose(results.total, expected.total, rtol=1e-5)
    assert max(sizes) <= max(30, logits // 320)  # the longest row must be read in any case


def test_held_out_rows_that_do_not_fit_the_device_are_one_sentence(llama, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(llama, "forward", full)
    with pytest.raises(InputError, match="eval: a batch of 5 rows of up to 30 tokens must fit the device's memory"):
        token_losses(llama, [row(ids, ids) for ids in prompts()], pad_id=0, device="cpu")


def test_answers_of_a_batch_are_those_of_each_prompt_alone(llama, tiny_llama):
    """The oracle appends the likeliest token without a cache and without padding."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    results = generate(llama, prompts(), tokenizer, max_new_tokens=6, device="cpu")
    for ids, answer in zip(prompts(), results, strict=True):
        grown = list(ids)
        for _ in range(6):
            with torch.inference_mode():
                grown.append(int(llama(input_ids=torch.tensor([grown])).logits[0, -1].argmax()))
            if grown[-1] == tokenizer.eos_token_id:
                break
        assert answer == tokenizer.decode(grown[len(ids) :], skip_special_tokens=True)


def test_answers_of_a_model_that_reads_padding_are_those_of_each_prompt_alone(tiny_llama):
    from transformers import RwkvConfig, RwkvForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RwkvForCausalLM(RwkvConfig(vocab_size=320, hidden_size=32, num_hidden_layers=2)).eval()
        for parameter in model.parameters():  # its own start would hide what comes before a token
            torch.nn.init.normal_(parameter, std=0.3)
    asked = [*prompts(), prompts()[2][::-1]]
    together = generate(model, asked, tokenizer, max_new_tokens=4, device="cpu")
    assert together == [generate(model, [ids], tokenizer, max_new_tokens=4, device="cpu")[0] for ids in asked]


def test_answers_are_greedy_and_end_where_told_whatever_the_model_sets(llama, tiny_llama, monkeypatch):
    from transformers import GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    expected = generate(llama, prompts(), tokenizer, max_new_tokens=6, device="cpu")
    own = GenerationConfig(
        do_sample=True, temperature=0.7, top_k=3, repetition_penalty=5.0, num_beams=3, no_repeat_ngram_size=1
    )
    monkeypatch.setattr(llama, "generation_config", own)
    assert generate(llama, prompts(), tokenizer, max_new_tokens=6, device="cpu") == expected
    ids = prompts()[0]
    with torch.inference_mode():
        first = int(llama(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
    (cut,) = generate(llama, [ids], tokenizer, max_new_tokens=6, device="cpu", ends={first})
    assert cut == tokenizer.decode([first], skip_special_tokens=True)


def test_classes_are_those_of_each_row_alone(tiny_bert):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3).eval()
    rows = [row(ids, [code]) for ids, code in zip([[2, 9, 3], [2, 5, 6, 7, 8, 3], [2, 3]], [0, 2, 7], strict=True)]
    results = classify(model, rows, pad_id=0, device="cpu")
    for i, each in enumerate(rows):
        with torch.inference_mode():
            share = model(input_ids=torch.tensor([each.input_ids])).logits.softmax(-1)[0]
        assert results.predicted[i] == int(share.argmax())
        assert results.confidence[i] == pytest.approx(float(share.max()), rel=1e-5)
        if i < 2:
            assert results.loss[i] == pytest.approx(-float(share[each.labels[0]].log()), rel=1e-4)
    assert np.isnan(results.loss[2])  # label 7 is not among the model's three
