import argparse
import importlib
import random
import sys
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parents[2] / "data"
NAMES = ("make_products", "causal_lm_corpus", "causal_lm_training", "make_causal_lm")


@pytest.fixture(scope="module")
def scripts():
    pytest.importorskip("transformers")
    sys.path.insert(0, str(DATA))
    yield {name: importlib.import_module(name) for name in NAMES}
    sys.path.remove(str(DATA))
    for name in NAMES:
        del sys.modules[name]


@pytest.fixture(scope="module")
def corpus(scripts):
    return scripts["causal_lm_corpus"]


@pytest.fixture(scope="module")
def tokenizer(scripts, corpus):
    return scripts["make_causal_lm"].train_tokenizer(document.plain for document in corpus.products(200, 1))


def test_listings_are_not_those_of_the_shipped_data(corpus):
    shipped = "".join((DATA / "products" / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("train", "test"))
    plain = [document.turns[0][1].split("\n\n")[0] for document in corpus.products(300, corpus.PRODUCT_SEED)]
    assert not [text for text in plain if f'"text": "{text}"' in shipped]


def test_no_exchange_asks_for_an_attribute(corpus):
    answers = {document.turns[1][1] for document in corpus.products(500, corpus.PRODUCT_SEED)}
    words = corpus.make_products.Catalog(random.Random(0)).words
    assert not answers & {*words["brands"], *words["colours"]}
    assert not [answer for answer in answers if answer.startswith("{")]


def test_sql_gets_its_values_and_loses_its_alias(corpus):
    query = 'SELECT COUNT TABLEalias0.CODE_FIELD FROM TABLE AS TABLEalias0 WHERE TABLEalias0.BY_FIELD = "var10" ;'
    tidy = corpus.tidy_sql(query)
    assert corpus.with_values(tidy, {"var1": "no", "var10": "Ann"}) == 'SELECT COUNT code FROM table WHERE by = "Ann"'


def test_a_training_row_that_shares_a_run_of_words_with_a_held_out_one_is_dropped(corpus):
    passage = " ".join(f"word{i}" for i in range(30))
    held_out = [corpus.exchange("t0", f"{passage} who?", "a")]
    near = corpus.exchange("t0", f"{passage} what?", "b")
    far = corpus.exchange("t0", " ".join(passage.split()[:11]) + " where?", "c")
    assert corpus.without_shared_runs([near, far], held_out) == [far]


def test_the_wording_of_a_template_drops_no_row(corpus):
    wording = "Read this and say in one word which of the two answers is the better one:"
    rows = [corpus.exchange("t0", f"{wording} {i}", "a") for i in range(corpus.BOILERPLATE + 1)]
    assert corpus.without_shared_runs(rows, [corpus.exchange("t0", f"{wording} x", "b")]) == rows


def test_tokens_are_those_of_the_chat_template(scripts, corpus, tokenizer, tmp_path):
    from transformers import AutoTokenizer

    scripts["make_causal_lm"].save_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    turns = (("system", "Be brief."), ("user", "Colour? 12"), ("assistant", " teal\n"))
    talk = [{"role": role, "content": content} for role, content in turns]
    ids = corpus.token_ids(corpus.Document(source="t0", turns=turns), tokenizer)
    assert ids == loaded.apply_chat_template(talk, return_dict=True)["input_ids"]


def test_packing_loses_no_token_and_splits_no_document(corpus):
    rng = random.Random(0)
    short = [[1] + [rng.randint(7, 99) for _ in range(rng.randint(1, 30))] for _ in range(100)]
    long = [[1] + [rng.randint(7, 99) for _ in range(rng.randint(40, 90))] for _ in range(40)]
    fillers = list(short)
    packed = [corpus.pack(long, 100, 0, fillers), corpus.pack(fillers, 40, 0, [])]
    found = [
        part.tokens[row][part.document[row] == number].tolist()
        for part in packed
        for row in range(len(part.tokens))
        for number in range(part.document[row].max() + 1)
    ]
    assert sorted(found) == sorted(short + long)
    assert all((part.tokens[part.document == -1] == 0).all() for part in packed)
    assert len(fillers) < len(short)


def test_pieces_of_a_long_document_join_up_again(corpus):
    ids = [1, *range(10, 1210), 2]
    pieces = list(corpus.pieces(ids, corpus.CUT))
    assert all(piece[0] == 1 and len(piece) <= corpus.CUT for piece in pieces)
    assert [token for piece in pieces for token in piece[1:]] == ids[1:]


@pytest.fixture
def small(scripts, corpus, tokenizer, monkeypatch):
    """Return a function that makes a run of a small model, and its windows."""
    make, training = scripts["make_causal_lm"], scripts["causal_lm_training"]
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    monkeypatch.setattr(make, "SHAPE", make.SHAPE | shape | {"num_key_value_heads": 2})
    packed = corpus.pack_all(corpus.products(200, 1), tokenizer)
    recipe = training.Recipe(steps=6, batch_tokens=1024, accumulation=2, warmup_steps=2)
    return lambda work: (training.Run(make.new_model(tokenizer), recipe, work), packed)


def test_the_loss_is_that_of_each_document_alone(scripts, small, tmp_path):
    """The oracle: plain attention, one document at a time, without padding."""
    import torch

    training = scripts["causal_lm_training"]
    run, packed = small(tmp_path)
    part = packed[256]
    tokens, document = part.tokens[:3].astype(np.int64), part.document[:3].astype(np.int64)
    with torch.no_grad():
        together = training.loss_sum(run.model, torch.from_numpy(tokens), torch.from_numpy(document)).item()
        run.model.set_attn_implementation("eager")
        alone = 0.0
        for row in range(3):
            for number in range(document[row].max() + 1):
                ids = torch.from_numpy(tokens[row][document[row] == number])[None]
                alone += run.model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    assert together == pytest.approx(alone, rel=1e-4)
    lengths = [(document[row] == n).sum() - 1 for row in range(3) for n in range(document[row].max() + 1)]
    assert training.n_learned(document) == sum(lengths)


def test_a_run_that_was_killed_ends_with_the_same_weights(scripts, small, tmp_path):
    import torch

    make = scripts["make_causal_lm"]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    def go(work, n):
        run, packed = small(work)
        options = argparse.Namespace(compile=False, measure_every=3, save_every_s=1e9, work=work)
        batches = scripts["causal_lm_training"].Batches(packed, run.recipe.batch_tokens)
        for _ in range(n):
            run.step(scripts["causal_lm_training"].loss_sum, batches)
        run.save()
        if n < run.recipe.steps:
            run, _ = small(work)
            make.pretrain(run, packed, packed, options)
        return run

    whole, resumed = go(tmp_path / "a", 6), go(tmp_path / "b", 2)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    assert [entry["train_loss"] for entry in whole.log] == [entry["train_loss"] for entry in resumed.log]
    assert whole.log[-1]["train_loss"] < whole.log[0]["train_loss"]


def test_a_checkpoint_of_another_recipe_is_refused(scripts, small, tmp_path):
    training = scripts["causal_lm_training"]
    run, _ = small(tmp_path)
    run.save()
    other = training.Recipe(steps=6, batch_tokens=2048, accumulation=2, warmup_steps=2)
    with pytest.raises(SystemExit, match="must be of the same recipe"):
        training.Run(run.model, other, tmp_path)


def test_more_steps_may_be_asked_for_until_the_rate_falls(scripts):
    training = scripts["causal_lm_training"]
    short, long = (training.Recipe(steps=steps, decay_share=0.5, warmup_steps=10) for steps in (100, 200))
    assert long.is_continuation(short, 50)
    assert not long.is_continuation(short, 60)
