import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from thresher.models.token_batches import MAX_PADDING, PASS_TOKENS
from thresher.trainer.engine.batches import (
    CPU_PASS_TOKENS,
    BatchSampler,
    order_epoch,
    pack_first_fit,
    pack_rows,
    pad_rows,
    split_by_length,
    split_step,
)
from thresher.trainer.engine.losses import token_loss
from thresher.trainer.engine.tokenization import IGNORED, Example


def examples(lengths, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for number, length in enumerate(lengths):
        ids = rng.integers(3, 320, size=length).tolist()
        n_prompt = int(rng.integers(0, length - 1))
        rows.append(Example(str(number), ids, [IGNORED] * n_prompt + ids[n_prompt:]))
    return rows


@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (16, 4), (17, 4), (300, 16)])
def test_every_row_comes_once_per_epoch(n, batch_size):
    steps = order_epoch(np.arange(n) % 7, batch_size=batch_size, seed=3, epoch=2)
    assert sorted(np.concatenate(steps).tolist()) == list(range(n))
    assert sorted(len(step) for step in steps)[1:] == [batch_size] * (len(steps) - 1)


def test_the_order_depends_on_seed_and_epoch_and_nothing_else():
    def order(seed, epoch):
        return np.concatenate(order_epoch(np.arange(50), batch_size=4, seed=seed, epoch=epoch)).tolist()

    np.random.seed(1)  # noqa: NPY002 - global state must not matter
    first = order(0, 0)
    np.random.seed(2)  # noqa: NPY002
    assert order(0, 0) == first
    assert order(0, 1) != first != order(1, 0)


def test_buckets_pad_less_than_random_steps():
    lengths = np.random.default_rng(0).integers(1, 200, size=640)

    def padded(steps):
        return sum(len(step) * lengths[step].max() for step in steps)

    random = np.random.default_rng(1).permutation(640).reshape(-1, 16)
    assert padded(order_epoch(lengths, batch_size=16, seed=0, epoch=0)) < 0.7 * padded(random)


def test_a_sampler_can_start_at_any_step():
    rows = examples([5] * 10)
    whole = BatchSampler(rows, batch_size=4, seed=0, n_steps=9)
    expected = [whole.get_step_rows(step).tolist() for step in range(9)]
    for step in (8, 2, 5, 0):
        assert BatchSampler(rows, batch_size=4, seed=0, n_steps=9).get_step_rows(step).tolist() == expected[step]


def test_a_forward_pass_is_cut_where_rows_would_be_padded_by_more_than_a_tenth():
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = rng.integers(1, 400, size=60)
        piece = rng.permutation(60)[:16]
        parts = split_by_length(piece, lengths)
        assert sorted(np.concatenate(parts).tolist()) == sorted(piece.tolist())
        for part in parts:
            laid = len(part) * lengths[part].max()
            padding = laid - lengths[part].sum()
            assert padding <= MAX_PADDING * laid or padding < PASS_TOKENS
            assert laid <= CPU_PASS_TOKENS or len(part) == 1
    alike = split_by_length(np.arange(24), np.full(60, 100))
    assert [len(part) for part in alike] == [10, 10, 4]
    assert split_by_length(np.zeros(0, np.int64), lengths) == []


@pytest.mark.parametrize(("n_ranks", "n_pieces"), [(1, 1), (2, 1), (1, 3), (2, 4)])
def test_the_shares_of_all_processes_make_up_the_step(n_ranks, n_pieces):
    step = np.array([7, 3, 9, 1, 4])
    shares = [
        piece for rank in range(n_ranks) for piece in split_step(step, rank=rank, n_ranks=n_ranks, n_pieces=n_pieces)
    ]
    assert len(shares) == n_ranks * n_pieces
    assert sorted(np.concatenate(shares).tolist()) == sorted(step.tolist())


def test_padding_marks_what_is_not_there():
    batch = pad_rows(examples([3, 5]), pad_id=0)
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch.labels[0, 3:].tolist() == [IGNORED, IGNORED]


def test_classes_are_one_label_per_row():
    assert pad_rows([Example("a", [1, 2], [3]), Example("b", [1], [0])], pad_id=0).labels.tolist() == [3, 0]


def test_packs_hold_every_row_once_and_no_more_than_fits():
    lengths = np.random.default_rng(0).integers(1, 60, size=50).tolist()
    packs = pack_first_fit(lengths, 64)
    assert sorted(i for members in packs for i in members) == list(range(50))
    assert max(sum(lengths[i] for i in members) for members in packs) <= 64
    assert len(packs) <= np.ceil(sum(lengths) / 64 * 11 / 9) + 1


def test_packed_rows_have_the_loss_and_the_gradient_of_rows_alone(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    rows = examples([9, 30, 4, 17, 25, 2])

    def measured(losses):
        model.zero_grad()
        total = sum(losses)
        total.backward()
        return total.item(), model.model.layers[0].self_attn.q_proj.weight.grad.clone()

    alone, alone_gradient = measured([token_loss(model, pad_rows([row], pad_id=0)) for row in rows])
    packed, packed_gradient = measured(
        [token_loss(model, pack_rows(rows, pad_id=0, max_length=40, dtype=torch.float32))]
    )
    assert packed == pytest.approx(alone, rel=1e-5)
    torch.testing.assert_close(packed_gradient, alone_gradient, rtol=1e-4, atol=1e-5)


def test_a_row_in_a_pack_does_not_see_its_neighbors(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    first, second, other = examples([6, 8, 6], seed=1)

    def logits(neighbor):
        with torch.inference_mode():
            return model(**pack_rows([second, neighbor], pad_id=0, max_length=20, dtype=torch.float32).inputs).logits[
                0, :8
            ]

    torch.testing.assert_close(logits(first), logits(other), rtol=0, atol=0)
