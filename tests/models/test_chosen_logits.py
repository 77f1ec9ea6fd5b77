"""Logits at chosen positions against all logits of plain forwards, over differing architectures."""

import pytest
import torch

from tests.models.causal_lm.test_likelihood import NAMES, architectures
from thresher.models.chosen_logits import compute_chosen_logits


def build(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return architectures()[name]().eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 320, (4, 11), generator=generator)
    is_read = torch.rand(4, 11, generator=generator) < 0.4
    is_read[2] = False  # a row of which nothing is read
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, is_read


def count_head_rows(model):
    """Return a list that grows by the number of positions that the head is given in each call."""
    n_rows = []
    model.get_output_embeddings().register_forward_hook(lambda _, args, out: n_rows.append(args[0][..., 0].numel()))
    return n_rows


@pytest.mark.parametrize("name", NAMES)
def test_they_and_their_gradients_are_those_of_the_whole_model(name, inputs):
    given, is_read = inputs
    results = []
    for is_chosen in (False, True):
        model = build(name)
        logits = compute_chosen_logits(model, given, is_read) if is_chosen else model(**given).logits[is_read]
        logits.float().logsumexp(-1).sum().backward()
        results.append((logits.detach(), {key: each.grad for key, each in model.named_parameters()}))
    (expected, expected_gradients), (logits, gradients) = results
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    for key, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[key], gradient, atol=1e-4, rtol=1e-3)


def test_the_head_is_given_the_chosen_positions_alone_and_is_left_as_it_was(inputs):
    given, is_read = inputs
    model = build("llama")
    compute_chosen_logits(model, given, is_read)  # the first call also tries it
    n_rows = count_head_rows(model)
    compute_chosen_logits(model, given, is_read)
    assert n_rows == [int(is_read.sum())]
    assert model(**given).logits.shape[:2] == is_read.shape


def test_a_model_in_training_stays_so(inputs):
    model = build("llama").train()
    compute_chosen_logits(model, *inputs)
    assert model.training


class ByPlace(torch.nn.Module):
    """A language model whose logits depend on their place behind the head too."""

    def __init__(self, model):
        super().__init__()
        self.inner, self.config, self.dtype = model, model.config, model.dtype

    def get_output_embeddings(self):
        return self.inner.get_output_embeddings()

    def forward(self, **inputs):
        output = self.inner(**inputs)
        output.logits = output.logits * torch.arange(1, output.logits.shape[1] + 1)[:, None]
        return output


class Headless(ByPlace):
    def get_output_embeddings(self):
        return None


@pytest.mark.parametrize("kind", [ByPlace, Headless])
def test_a_model_that_needs_all_logits_is_run_whole(kind, inputs):
    given, is_read = inputs
    model = kind(build("llama"))
    torch.testing.assert_close(compute_chosen_logits(model, given, is_read), model(**given).logits[is_read])
