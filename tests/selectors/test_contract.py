"""The contract of selectors, tested on every installed entry point, plug-ins included."""

import dataclasses
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from thresher.errors import InputError, NotFoundError, SettingsError
from thresher.features.answers.answer_accuracy import ANSWER_ACCURACY
from thresher.features.answers.pass_rate import PASS_RATE
from thresher.features.container import Features
from thresher.features.ngram import NGRAM
from thresher.features.utility.in_context_utility import IN_CONTEXT_UTILITY
from thresher.selectors import Requirements, Selector, available, create
from thresher.selectors.contract import score_rows
from thresher.selectors.registry import load_class
from thresher.subset.scores import Scores

NAMES = list(available())
ILLEGAL = {
    "auto": [("metric", "f1"), ("share", 0.0), ("share", 1.5), ("max_time", "soon"), ("judge_by", "rows")],
    "confidence": [("alpha", 1.5), ("beta", -0.5), ("n_samples", 0), ("temperature", 0.0), ("entailment", "")],
    "known-unknown": [("order", "known"), ("order", "unknown,unknown"), ("n_prompts", 0), ("max_words", 0), ("by", "")],
    "stratified": [("by", ""), ("balance", "even"), ("n_clusters", 0)],
    "prototypes": [("by", ""), ("balance", "even"), ("doubtful", "first"), ("n_clusters", 0)],
    "length": [("order", "long")],
    "top": [("by", ""), ("order", "long")],
    "k-center": [("metric", "manhattan")],
    "deft-ucs": [("n_clusters", 0), ("easy_share", 1.5), ("easy_share", "x"), ("balance", "even")],
    "perplexity": [("band", "hot")],
    "difficulty": [("ratio", "sum")],
    "quality-diversity": [("alpha", 1.5), ("alpha", "x"), ("prefer", "best"), ("scale", "z"), ("n_neighbors", 0)],
    "delift": [
        ("kernel", "full"),
        ("neighbors", "0"),
        ("neighbors", "few"),
        ("scale", "z"),
        ("eta", -1.0),
        ("nu", -1.0),
    ],
    "target-similarity": [("kernel", "full"), ("form", "pool"), ("noise", 0.0)],
    "transport": [("kernel", "bm25"), ("form", "sift"), ("smoothing", 0.0), ("alpha", 0.0), ("width", 3.0)],
    "pass-rate": [("n_samples", 1), ("temperature", 0.0), ("check", "")],
    "novelty": [("epochs", 0), ("reference", "")],
    "gradient": [
        ("precondition", "none"),
        ("share", 0.0),
        ("share", 2.0),
        ("epochs", 0),
        ("dim", 0),
        ("checkpoints", ""),
    ],
    "learnability": [("form", "ratio"), ("min_loss", -1.0), ("reference", "")],
    "facility-location": [
        ("kernel", "full"),
        ("n_neighbors", 0),
        ("max_kernel_gb", -1.0),
        ("optimizer", "greedy"),
        ("epsilon", 0.0),
    ],
    "graph-cut": [("redundancy", -1.0), ("kernel", "full"), ("n_neighbors", 0)],
    "saturated-coverage": [("saturation", 1.5), ("kernel", "full"), ("optimizer", "fast"), ("epsilon", 1.0)],
    "uncertainty-coverage": [("rounds", "two"), ("kernel", "full"), ("optimizer", "fast"), ("epsilon", 1.0)],
    "feature-based": [("counts", "words"), ("concave", "cube"), ("n_topics", 0)],
    "max-coverage": [("counts", "words"), ("times", 0.0), ("n_topics", 0)],
}


def features(n=60, *, seed=0, d=16, kind="random"):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)).astype(np.float32)
    label = rng.integers(0, 3, n)
    length = rng.integers(1, 200, n)
    if kind == "duplicates":
        x, label, length = np.repeat(x[:1], n, axis=0), np.zeros(n, np.int64), np.full(n, 7)
    if kind == "ties":
        x, label, length = np.repeat(x[: (n + 2) // 3], 3, axis=0)[:n], np.arange(n) % 2, np.arange(n) % 4
    if kind in ("zeros", "all-zero"):
        x[: n if kind == "all-zero" else n // 2] = 0
    ids = pl.Series("row_id", sorted(f"{v:032x}" for v in rng.choice(1 << 62, n, replace=False)))
    loss = (length + 6) / 100.0
    utility = np.empty((n, n), IN_CONTEXT_UTILITY)
    utility["example"], utility["utility"] = np.arange(n), np.round(x @ x.T, 3) / 20
    knowledge = np.zeros(n, ANSWER_ACCURACY)
    knowledge["likeliest"], knowledge["drawn"] = (label % 3) / 2, length % 2
    ngram = np.empty((n, 4), NGRAM)
    ngram["bucket"], ngram["count"] = np.arange(4), np.maximum(np.round(2 * x[:, :4]), 0)
    arrays = {
        "embedding": x,
        "length": length.astype(np.int64),
        "column:label": label.astype(np.int64),
        "loss": loss,
        "loss_unconditional": loss * (1 + (label + 1) / 10),
        "reference_loss": loss / (2 + label),
        "number:score": label.astype(np.float64),
        "hidden_state": x[:, ::-1].copy(),
        "in_context_utility": utility,
        "ngram": ngram,
        "gradient": x.astype(np.float16),
        "confidence": np.round(1 / (1 + loss), 3),
        "answer_accuracy": knowledge,
        "pass_rate": np.array([(passed, 4) for passed in label + length % 2], PASS_RATE),
        # of each class, the given one the likeliest but for every fifth row
        "class_probability": np.where(
            (label + (np.arange(n) % 5 == 0))[:, None] % (label.max() + 1) == np.arange(label.max() + 1), 0.8, 0.1
        ).astype(np.float32),
    }
    for array in arrays.values():
        array.setflags(write=False)
    return Features(
        row_id=ids,
        arrays=arrays,
        context={
            "target_embedding": rng.standard_normal((3, d)).astype(np.float32),
            "target_influence": x[:, :3],  # of the rows of the pool
        },
    )


def score(name, data, n_ranked, seed=3):
    return score_rows(create(name), data, n_ranked=n_ranked, rng=np.random.default_rng(seed))


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_every_declared_selector_satisfies_the_protocol(name):
    selector = create(name)
    assert isinstance(selector, Selector)
    assert selector.name == name
    assert dataclasses.is_dataclass(selector)
    assert isinstance(selector.requirements, Requirements)
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        selector.anything = 1


def test_docstring_says_what_how_and_when_it_fails(name):
    text = load_class(name).__doc__
    for word in ("Optimizes", "Source:", "Cost:", "Needs:", "Ties:", "empty pool", "Fails:"):
        assert word in " ".join(text.split()), word


def test_same_seed_gives_the_same_bytes(name):
    first, second = (score(name, features(), 30) for _ in range(2))
    assert first.value.tobytes() == second.value.tobytes()


def test_global_random_state_does_not_matter(name):
    np.random.seed(1)  # noqa: NPY002
    first = score(name, features(), 30)
    np.random.seed(2)  # noqa: NPY002
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    second = score(name, features(), 30)
    assert first.value.tobytes() == second.value.tobytes()
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002


def test_every_row_gets_one_score_and_keeps_its_id(name):
    data = features()
    scores = score(name, data, 30)
    assert scores.row_id.to_list() == data.row_id.to_list()
    assert scores.value.shape == (60,)
    assert scores.by == name
    assert scores.n_ranked >= 30


def test_input_arrays_are_not_modified(name):
    data = features()
    before = {key: array.tobytes() for key, array in data.items()}
    score(name, data, 60)
    assert {key: array.tobytes() for key, array in data.items()} == before


@pytest.mark.parametrize("kind", ["random", "ties"])
def test_half_precision_embeddings_are_computed_with_in_single_precision(name, kind):
    data = features(kind=kind)
    half = data["embedding"].astype(np.float16)
    ours, expected = (
        score(name, dataclasses.replace(data, arrays={**data, "embedding": x}), 30)
        for x in (half, half.astype(np.float32))
    )
    assert ours.value.tobytes() == expected.value.tobytes()
    for found, same in ((ours.covered_by, expected.covered_by), (ours.objective, expected.objective)):
        assert found is None or found.tobytes() == same.tobytes()


@pytest.mark.parametrize("kind", ["random", "ties", "zeros"])
def test_ranking_for_k_is_a_prefix_of_the_ranking_for_2k(name, kind):
    data = features(kind=kind)
    longest = score(name, data, 60).ranking()
    for k in (1, 15, 30):
        assert score(name, data, k).ranking()[:k].tolist() == longest[:k].tolist()


@pytest.mark.parametrize("kind", ["duplicates", "ties", "zeros", "all-zero"])
@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_degenerate_rows_are_ranked_without_repeats(name, kind, n):
    ranking = score(name, features(n, kind=kind), n).ranking()
    assert sorted(ranking.tolist()) == list(range(n))


@pytest.mark.parametrize("n_ranked", [0, -1, 61])
def test_more_rows_than_there_are_is_refused(name, n_ranked):
    with pytest.raises(InputError, match=rf"{name}.*1\.\.60.*{n_ranked}"):
        score(name, features(), n_ranked)


def test_picked_ids_do_not_depend_on_the_order_of_the_file(name):
    data = features()
    shuffle = np.random.default_rng(9).permutation(60)
    shuffled_ids = data.row_id.gather(shuffle)
    order = np.argsort(shuffled_ids.to_numpy())  # what `select` does before it calls a selector
    back = Features(
        row_id=shuffled_ids.gather(order),
        arrays={key: array[shuffle][order] for key, array in data.items()},
        context=data.context,
    )
    kept = [set(f.row_id.gather(score(name, f, 20).ranking()[:20]).to_list()) for f in (data, back)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(("name", "setting", "value"), [(n, s, v) for n, pairs in ILLEGAL.items() for s, v in pairs])
def test_illegal_setting_is_refused_by_name_and_value(name, setting, value):
    with pytest.raises(SettingsError) as caught:
        create(name, {setting: value})
    assert setting in str(caught.value)
    assert repr(value) in str(caught.value) or str(value) in str(caught.value)


def test_unknown_setting_names_the_nearest_one():
    with pytest.raises(SettingsError, match="did you mean 'n_neighbors'"):
        create("facility-location", {"n_neighbours": 3})


def test_unknown_selector_names_the_nearest_one():
    with pytest.raises(NotFoundError, match="did you mean 'k-center'"):
        create("k-centre")


def test_settings_given_as_text_are_converted():
    assert create("deft-ucs", {"n_clusters": "3", "easy_share": "0.25"}) == create(
        "deft-ucs", {"n_clusters": 3, "easy_share": 0.25}
    )
    assert create("stratified", {"by": "cluster", "n_clusters": "8"}).n_clusters == 8


def test_text_that_is_no_number_is_refused():
    with pytest.raises(SettingsError, match="n_clusters must be a whole number of at least 1, got 'many'"):
        create("deft-ucs", {"n_clusters": "many"})


def test_scoring_with_every_selector_imports_no_torch():
    code = (
        "import sys; from thresher.selectors import available, create\n"
        "for name in available(): create(name)\n"
        "import thresher.selectors.submodular.greedy, thresher.selectors.neighbors.search\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ids, value: (ids[::-1], value), "the same rows in another order"),
        (lambda ids, value: (ids[:-1], value[:-1]), "got 4"),
        (lambda ids, value: (ids + "x", value), "other rows"),
        (lambda ids, value: (ids, value * np.nan), "NaN"),
        (lambda ids, value: (ids, value[:-1]), "must have shape"),
        (lambda ids, value: (ids, value.tolist()), "must be an array of numbers, got list"),
        (lambda ids, value: (ids, value.astype(str)), "must be an array of numbers"),
    ],
)
def test_scores_that_are_not_those_of_the_rows_are_refused(change, said):
    class Odd(Selector):
        name = "odd"
        requirements = Requirements(features={"length"})

        def score(self, features, *, n_ranked, rng):
            row_id, value = change(features.row_id, np.arange(5.0))
            return Scores(row_id=row_id, value=value, by="odd")

    features = Features(row_id=pl.Series("row_id", list("abcde")), arrays={"length": np.arange(5)})
    with pytest.raises(InputError, match=said):
        score_rows(Odd(), features, n_ranked=5, rng=np.random.default_rng(0))


def test_a_selector_that_returns_no_scores_is_refused():
    class Odd(Selector):
        name = "odd"
        requirements = Requirements(features={"length"})

        def score(self, features, *, n_ranked, rng):
            return np.arange(5.0)

    features = Features(row_id=pl.Series("row_id", list("abcde")), arrays={"length": np.arange(5)})
    with pytest.raises(InputError, match="must return Scores, got ndarray"):
        score_rows(Odd(), features, n_ranked=5, rng=np.random.default_rng(0))
