"""The utility feature against plain forwards of whole prompts, one at a time."""

import json

import numpy as np
import pytest

import thresher as th
from thresher.errors import InputError, SettingsError
from thresher.features import FeatureCache, compute, fingerprints, make_context
from thresher.features.utility import example_pairs
from thresher.features.utility import in_context_utility as utility_module
from thresher.features.utility.example_pairs import ExampleCounts, effects, first_tried, nearest_examples
from thresher.features.utility.in_context_utility import distance
from thresher.models.causal_lm import language_model as model_loading
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.causal_lm.tokenized_rows import PROBLEMS

ALONE = "Instruction: Please generate a response to the following query.\n\n\n"
GUIDED = (
    "Instruction:\nUse the following example as a guide to answer the query in the same format and style, providing a "
    "clear and concise response.\n\n\nExample:\n"
)
WORDS = ["fox", "jumps", "straße", "数学", "😀", "2+2=4", "don't", "é", "\n", "ok"]


def make_rows(n=14, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "prompt": f"{i} " + " ".join(rng.choice(WORDS, 1 + i % 5)),
            "completion": " ".join(rng.choice(WORDS, 1 + i % 4)) + ".",
        }
        for i in range(n)
    ]


def context(folder, **settings):
    return make_context(**{"model": str(folder), "encoder": "static", "device": "cpu", "cache": None, **settings})


class Plain:
    """A model that is asked one whole prompt at a time."""

    def __init__(self, folder):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def distance(self, row, example=None):
        import torch

        if example is None:
            before = self.ids(ALONE[:-3])
        else:
            before = self.ids(f"{GUIDED}{example['prompt']}\n{example['completion']}")
        # the tiny tokenizer has no BOS
        before = [self.tokenizer.eos_token_id, *before, *self.ids("\n\n\n")]
        head = f"Query:\n{row['prompt']}\n"
        encoded = self.tokenizer(head + row["completion"], add_special_tokens=False, return_offsets_mapping=True)
        asked = [i for i, (_, end) in enumerate(encoded["offset_mapping"]) if end > len(head)]
        ids = before + encoded["input_ids"]
        with torch.no_grad():
            p = self.model(torch.tensor([ids])).logits[0].double().softmax(-1)
        correct = [float(p[len(before) + i - 1, ids[len(before) + i]]) for i in asked]
        return np.sqrt(np.mean([(1 - each) ** 2 for each in correct]))


NAME = "in_context_utility"


@pytest.fixture(scope="module")
def plain(tiny_llama):
    return Plain(tiny_llama)


def test_utility_is_how_much_nearer_the_response_is_behind_an_example(tiny_llama, plain):
    rows = make_rows()
    pool = th.load(rows)
    found = compute(pool, {NAME}, context(tiny_llama, n_examples=None))[NAME]
    assert found.shape == (14, 14)
    for i, row in enumerate(pool.rows(range(14))):
        assert found["example"][i].tolist() == [
            i,
            *sorted(set(range(14)) - {i}, key=found["example"][i].tolist().index),
        ]
        wanted = [plain.distance(row) - plain.distance(row, rows[j]) for j in found["example"][i]]
        np.testing.assert_allclose(found["utility"][i], wanted, atol=1e-4, rtol=0)
    assert np.abs(found["utility"]).max() > 1e-3


def test_distance_is_0_for_a_certain_response_and_1_for_an_impossible_one():
    for p, expected in (([1.0, 1.0], 0), ([1e-30], 1), ([0.4, 1.0], 0.6 / np.sqrt(2)), ([0.2, 0.5], np.sqrt(0.445))):
        assert distance(np.log(np.array(p, np.float32))) == pytest.approx(expected, abs=1e-6)


def test_a_row_is_tried_with_itself_its_nearest_some_sampled_and_those_that_helped_most(tiny_llama):
    pool = th.load(make_rows())
    every = compute(pool, {NAME, "embedding"}, context(tiny_llama, n_examples=None))
    few = compute(pool, {NAME}, context(tiny_llama, n_examples=8))[NAME]
    cosine = every["embedding"] @ every["embedding"].T
    assert few.shape == (14, 9)
    assert all(len(set(row)) == 9 for row in few["example"].tolist())
    best = np.argsort(-effects(few["example"][:, :5], few["utility"][:, :5], 14), kind="stable").tolist()
    for i in range(14):
        near = [j for j in np.argsort(-cosine[i], kind="stable") if j != i][:2]
        tried = few["example"][i].tolist()
        assert tried[:3] == [i, *near]
        assert tried[5:] == [j for j in best if j not in tried[:5]][:4]
        of = dict(zip(every[NAME]["example"][i].tolist(), every[NAME]["utility"][i], strict=True))
        np.testing.assert_allclose(few["utility"][i], [of[j] for j in tried], atol=1e-5)


def test_the_order_of_the_rows_does_not_change_what_is_tried(tiny_llama):
    rows = make_rows()
    order = np.random.default_rng(3).permutation(len(rows))
    found = compute(th.load(rows), {NAME}, context(tiny_llama, n_examples=6))[NAME]["example"]
    other = compute(th.load([rows[i] for i in order]), {NAME}, context(tiny_llama, n_examples=6))[NAME]
    assert [set(order[other["example"][list(order).index(i)]]) for i in range(14)] == [set(row) for row in found]


def test_effects_of_examples_are_those_of_ridge_regression_on_both():
    rng = np.random.default_rng(0)
    n, q, k = 40, 30, 6
    tried = np.stack([rng.choice(q, k, replace=False) for _ in range(n)])
    utility = rng.normal(size=n)[:, None] * 3 + rng.normal(size=q)[tried] + 0.1 * rng.normal(size=(n, k))
    utility[5] = np.nan
    fine = np.delete(np.arange(n), 5)
    design = np.zeros((len(fine) * k, n + q))
    for at, (i, c) in enumerate((i, c) for i in fine for c in range(k)):
        design[at, [i, n + tried[i, c]]] = 1
    y = utility[fine].reshape(-1) - np.nanmean(utility)
    wanted = np.linalg.solve(design.T @ design + np.eye(n + q), design.T @ y)[n:]
    np.testing.assert_allclose(effects(tried, utility, q), wanted, atol=1e-2)
    assert np.corrcoef(effects(tried, utility, q), wanted)[0, 1] > 0.9999


def test_every_example_is_sampled_about_as_often_as_any_other():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    names = [f"{i:03}" for i in rng.permutation(200)]
    tried = first_tried(x, x, ExampleCounts(nearest=1, sampled=20, best=0), (names, names))
    assert all(len(set(row)) == 22 for row in tried.tolist())
    counts = np.bincount(tried[:, 2:].reshape(-1), minlength=200)
    assert 18 <= counts.min() <= counts.max() <= 22


@pytest.mark.parametrize("m", [1, 2, 3, 5, 16, 64])
def test_shares_sum_to_the_number_of_examples(m):
    shares = ExampleCounts.divide(m)
    assert shares.nearest + shares.sampled + shares.best == m
    assert shares.nearest >= 1


def test_examples_may_be_other_rows(tiny_llama, plain):
    rows, others = make_rows(5), make_rows(7, seed=4)
    beside = context(tiny_llama, n_examples=None, examples=th.load(others))
    found = compute(th.load(rows), {NAME}, beside)[NAME]
    assert found["example"].tolist() == [list(range(7))] * 5
    wanted = [[plain.distance(row) - plain.distance(row, other) for other in others] for row in rows]
    np.testing.assert_allclose(found["utility"], wanted, atol=1e-4, rtol=0)
    few = compute(th.load(rows), {NAME}, context(tiny_llama, n_examples=4, examples=th.load(others)))[NAME]
    assert few.shape == (5, 4)
    assert all(len(set(row)) == 4 for row in few["example"].tolist())


@pytest.mark.parametrize("batch_tokens", [60, 4000])
def test_batches_change_no_value(tiny_llama, batch_tokens):
    pool = th.load(make_rows())
    usual = compute(pool, {NAME}, context(tiny_llama, n_examples=4))[NAME]
    found = compute(pool, {NAME}, context(tiny_llama, n_examples=4, batch_tokens=batch_tokens))[NAME]
    np.testing.assert_allclose(found["utility"], usual["utility"], atol=1e-5)


def test_each_example_is_read_once_and_each_row_once_per_example(tiny_llama, monkeypatch):
    models = []
    monkeypatch.setattr(
        model_loading, "language_model", lambda *a, **k: models.append(LanguageModel(*a, **k)) or models[-1]
    )
    rows = make_rows()
    found = compute(th.load(rows), {NAME}, context(tiny_llama, n_examples=4))[NAME]["example"]
    tokenizer = models[0].tokenizer

    def n(text):
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    again = [rows[i] for i in np.unique(found[:, 3:])]  # those that helped most
    examples = sum(n(f"{GUIDED}{row['prompt']}\n{row['completion']}") + n("\n\n\n") for row in [*rows, *again])
    queries = sum(n(f"Query:\n{row['prompt']}\n{row['completion']}") for row in rows)
    alone = n(ALONE[:-3]) + n("\n\n\n")
    assert sum(lm.n_tokens for lm in models) == examples + alone + queries * (5 + 1)


def test_finished_pairs_come_from_the_cache_whatever_else_is_in_the_pool(tiny_llama, tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path / "cache")
    rows = make_rows()
    first = compute(th.load(rows), {NAME}, context(tiny_llama, n_examples=None, cache=cache))[NAME]
    asked = []
    score_pairs = utility_module.score_pairs
    monkeypatch.setattr(utility_module, "score_pairs", lambda *a, **k: asked.append(len(a[3])) or score_pairs(*a, **k))
    less = compute(th.load(rows[4:]), {NAME}, context(tiny_llama, n_examples=None, cache=cache))[NAME]
    assert asked == []
    of = [dict(zip(e.tolist(), u, strict=True)) for e, u in zip(first["example"], first["utility"], strict=True)]
    wanted = [[of[i + 4][j + 4] for j in less["example"][i]] for i in range(10)]
    np.testing.assert_array_equal(less["utility"], wanted)
    more = [*rows, {"prompt": "new", "completion": "row"}]
    compute(th.load(more), {NAME}, context(tiny_llama, n_examples=None, cache=cache))
    assert asked == [1, 15 + 14]  # alone; behind all examples, and as an example


def test_long_rows_and_examples_are_cut_and_counted_and_a_row_without_tokens_has_its_reason(tiny_llama, plain):
    rows = make_rows(4)
    rows.append({"prompt": "fox " * 600, "completion": "never reached"})
    rows.append({"prompt": "long answer", "completion": "ok " * 600})
    told = []
    found = compute(th.load(rows), {NAME}, context(tiny_llama, n_examples=None, on_progress=told.append))
    utility = found[NAME]["utility"]
    assert np.isnan(utility[4]).all()
    assert np.isfinite(utility[[0, 1, 2, 3, 5]]).all()
    assert found.missing[NAME].to_list() == [None] * 4 + [PROBLEMS[1], None]
    assert found.notes[NAME] == {
        "rows": 6,
        "rows_missing": 1,
        "rows_truncated": 1,
        "examples_truncated": 2,
        "pairs": 30,
    }
    notes = [each.note for each in told if each.note]
    assert any("1 responses exceed the 256 tokens" in note for note in notes)


def test_equal_rows_are_asked_once(tiny_llama, monkeypatch):
    asked = []
    score_pairs = utility_module.score_pairs
    monkeypatch.setattr(utility_module, "score_pairs", lambda *a, **k: asked.append(len(a[3])) or score_pairs(*a, **k))
    rows = make_rows(3)
    found = compute(th.load([*rows, *rows]), {NAME}, context(tiny_llama, n_examples=None))[NAME]
    assert asked == [3, 9]
    assert len(found) == 6


def test_classified_texts_have_their_label_as_the_response(tiny_llama, plain):
    rows = [{"text": f"fox {i}", "label": "ok"} for i in range(3)]
    found = compute(th.load(rows), {NAME}, context(tiny_llama, n_examples=None))[NAME]
    as_talk = [{"prompt": row["text"], "completion": row["label"]} for row in rows]
    wanted = plain.distance(as_talk[0]) - plain.distance(as_talk[0], as_talk[0])
    np.testing.assert_allclose(found["utility"][0, 0], wanted, atol=1e-4)


def test_plain_text_is_refused(tiny_llama):
    with pytest.raises(InputError, match="in_context_utility: rows need a prompt and a response, found plain text"):
        compute(th.load([{"text": "only text"}] * 3), {NAME}, context(tiny_llama))


def test_no_examples_are_refused_as_a_setting():
    with pytest.raises(SettingsError, match="n_examples must be a whole number of at least 1, got 0"):
        make_context(n_examples=0)


def test_the_fingerprint_tells_models_and_limits_apart(tiny_llama, plain_llama):
    found = [
        fingerprints({NAME}, each)[NAME]
        for each in (context(tiny_llama), context(tiny_llama, max_length=100), context(tiny_llama, n_examples=None))
    ]
    assert len({json.dumps(each) for each in found}) == 3
    assert found[0]["fingerprint"] == found[2]["fingerprint"] != found[1]["fingerprint"]
    assert found[0]["neighbors_encoder"].startswith("static")


def test_nearest_examples_equal_a_full_sort_across_blocks(monkeypatch):
    monkeypatch.setattr(example_pairs, "BLOCK_ROWS", 7)
    x = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    x[4] = x[9] = x[20]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosine = np.round((x @ x.T).astype(np.float64), 6)
    own = nearest_examples(x, x, 6, is_own=True)
    for i in range(30):
        assert own[i].tolist() == [i, *[j for j in np.lexsort((np.arange(30), -cosine[i])) if j != i][:5]]
    assert nearest_examples(x[:3], x, 1, is_own=False)[:, 0].tolist() == [0, 1, 2]
