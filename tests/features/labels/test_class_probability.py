"""Cross-fitted class probabilities against a plain loop, and what must not change them."""

import numpy as np
import pytest

import thresher as th
from thresher.errors import InputError
from thresher.features import FeatureCache, compute, make_context
from thresher.features.labels import class_probability as module
from thresher.features.labels import cross_fit
from thresher.features.labels.class_probability import (
    ClassProbability,
    ClassVotes,
    class_names,
    given_classes,
    self_confidence,
)
from thresher.features.labels.cross_fit import LabeledTexts, predict_folds, word_view
from thresher.features.labels.folds import stratified_folds
from thresher.features.labels.label_trust import measure_trust

CONTEXT = make_context(encoder="static", cache=None)
WORDS = {"drink": ["tea", "coffee", "water", "juice"], "tool": ["saw", "drill", "nail", "file"], "pet": ["cat", "dog"]}


def make_rows(n=90, *, seed=0, n_wrong=0):
    rng = np.random.default_rng(seed)
    names = list(WORDS)
    rows = []
    for i in range(n):
        name = names[i % 3]
        rows.append({"text": f"{' '.join(rng.choice(WORDS[name], 3))} number {i}", "label": name})
    for i in range(n_wrong):
        rows[i]["label"] = names[(i + 1) % 3]
    return rows


def test_folds_are_stratified_and_no_group_falls_into_one_fold():
    group = np.random.default_rng(0).choice(4, 203, p=[0.7, 0.2, 0.08, 0.02])
    fold = stratified_folds(group, 5)
    assert np.ptp(np.bincount(fold)) <= 1
    for name in range(4):
        assert np.ptp(np.bincount(fold[group == name], minlength=5)) <= 1


def test_probabilities_are_those_of_a_plain_loop_over_folds():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 5))
    label = (x[:, 0] + rng.standard_normal(60) > 0).astype(np.int64) + (x[:, 1] > 0.3)
    views = [x, x[:, ::-1] ** 2]
    rows = LabeledTexts.from_rows(np.arange(60), label, n_texts=60, n_classes=3)
    found = np.zeros((60, 3))
    for judged in predict_folds(rows, views, range(5)):
        found[judged.texts] = judged.probability
    for fold in range(5):
        learned, asked = np.flatnonzero(rows.fold != fold), np.flatnonzero(rows.fold == fold)
        product = np.ones((len(asked), 3))
        for view in views:
            product *= LogisticRegression().fit(view[learned], label[learned]).predict_proba(view[asked])
        mean = np.sqrt(product)
        np.testing.assert_allclose(found[asked], mean / mean.sum(axis=1, keepdims=True), atol=1e-4)


def test_weights_stand_for_repeated_rows():
    text, label = np.array([0, 0, 1, 1, 1, 2]), np.array([1, 1, 0, 1, 0, 0])
    rows = LabeledTexts.from_rows(text, label, n_texts=3, n_classes=2)
    assert rows.text.tolist() == [0, 1, 1, 2]
    assert rows.label.tolist() == [1, 0, 1, 0]
    assert rows.weight.tolist() == [2, 2, 1, 1]


def test_every_row_gets_probabilities_that_sum_to_1_and_wrong_labels_get_little():
    pool = th.load(make_rows(n_wrong=9))
    found = ClassProbability().compute(pool, CONTEXT)
    assert found.shape == (90, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert class_names(pool) == ["drink", "pet", "tool"]
    trust = self_confidence(pool, CONTEXT).values
    assert trust[:9].max() < 0.5 < trust[9:].min()
    own = self_confidence(pool, CONTEXT, form="plain").values
    assert own[:9].max() < own[9:].min()
    np.testing.assert_allclose(own, found[np.arange(90), given_classes(pool)], atol=1e-7)


def test_a_label_never_says_anything_of_its_own_row():
    rows = make_rows(30)
    changed = [dict(row) for row in rows]
    changed[4]["label"] = "tool" if rows[4]["label"] != "tool" else "pet"
    # stratified folds move with labels; those of the texts are pinned to compare the same fits
    views = None
    found = []
    for each in (rows, changed):
        pool = th.load(each)
        work = module._CrossFit(pool, class_names(pool), CONTEXT)
        views = views or work._views
        work.rows.__dict__["fold"] = np.arange(30) % 5
        text = int(np.flatnonzero(work._first == 4)[0])
        (judged,) = predict_folds(work.rows, views, [text % 5])
        found.append(judged.probability[judged.texts == text])
    np.testing.assert_array_equal(found[0], found[1])


def test_copies_of_a_text_are_judged_by_classifiers_that_have_seen_none_of_them():
    rows = [*make_rows(60), *[{"text": "tea coffee tea", "label": "pet"}] * 40]
    own = self_confidence(th.load(rows), CONTEXT, form="plain").values
    assert own[60:].max() < 0.3
    assert np.ptp(own[60:]) == 0


def test_votes_are_those_of_each_classifier_alone():
    rows = make_rows(n_wrong=9)
    pool = th.load(rows)
    votes = ClassVotes().compute(pool, CONTEXT).values
    work = module._CrossFit(pool, class_names(pool), CONTEXT)
    given = given_classes(pool)
    share = np.bincount(given) / len(given)
    for place, view in enumerate(work._views):
        alone = np.zeros((len(rows), 3))
        for judged in predict_folds(work.rows, [view], range(5)):
            alone[judged.texts] = judged.probability
        alone = alone[work.text]
        assert votes[:, place].tolist() == alone.argmax(axis=1).tolist()
        own = np.log(alone / share**0.5)[np.arange(90), given]
        others = np.log(alone / share**0.5)
        others[np.arange(90), given] = -np.inf
        np.testing.assert_allclose(votes[:, 2 + place], own - others.max(axis=1), atol=1e-4)


def test_votes_and_probabilities_come_from_the_same_classifiers(tmp_path, monkeypatch):
    context = make_context(encoder="static", cache=FeatureCache(tmp_path))
    pool = th.load(make_rows(40))
    compute(pool, {"class_probability"}, context)

    def refuse(*args):
        raise AssertionError("fitted again")

    monkeypatch.setattr(module, "predict_folds", refuse)
    assert compute(pool, {"class_votes"}, context)["class_votes"].shape == (40, 4)


def test_probabilities_of_the_user_leave_no_votes_and_it_is_said():
    pool = th.load(make_rows(30), pred_probs=np.full((30, 3), 1 / 3))
    votes = ClassVotes().compute(pool, CONTEXT)
    assert np.isnan(votes.values).all()
    assert votes.missing[0] == module.ONE_CLASSIFIER


def test_the_order_of_the_rows_changes_nothing():
    rows = make_rows(60, n_wrong=5)
    order = np.random.default_rng(3).permutation(60)
    there = ClassProbability().compute(th.load(rows), CONTEXT)
    back = ClassProbability().compute(th.load([rows[i] for i in order]), CONTEXT)
    np.testing.assert_array_equal(back, there[order])


def test_finished_values_come_from_the_cache_and_other_rows_or_labels_make_new_ones(tmp_path, monkeypatch):
    context = make_context(encoder="static", cache=FeatureCache(tmp_path))
    rows = make_rows(40)
    first = compute(th.load(rows), {"class_probability"}, context)["class_probability"]
    asked = []
    monkeypatch.setattr(module, "predict_folds", lambda *args: asked.append(args) or predict_folds(*args))
    again = compute(th.load(rows), {"class_probability"}, context)["class_probability"]
    np.testing.assert_array_equal(first, again)
    assert not asked
    compute(th.load(rows[:-1]), {"class_probability"}, context)
    compute(
        th.load([*rows[:-1], {**rows[-1], "label": "pet" if rows[-1]["label"] != "pet" else "tool"}]),
        {"class_probability"},
        context,
    )
    assert len(asked) == 2


def test_a_killed_run_goes_on_with_the_folds_that_are_left(tmp_path, monkeypatch):
    context = make_context(encoder="static", cache=FeatureCache(tmp_path))
    monkeypatch.setattr("thresher.cache.by_text.CHUNK_ROWS", 1)
    pool = th.load(make_rows(40))

    def killed(rows, views, folds):
        for number, each in enumerate(predict_folds(rows, views, folds)):
            if number == 3:
                raise KeyboardInterrupt
            yield each

    monkeypatch.setattr(module, "predict_folds", killed)
    with pytest.raises(KeyboardInterrupt):
        ClassProbability().compute(pool, context)
    left = []
    monkeypatch.setattr(
        module, "predict_folds", lambda rows, views, folds: left.extend(folds) or predict_folds(rows, views, folds)
    )
    found = ClassProbability().compute(pool, context)
    assert left == [3, 4]
    np.testing.assert_array_equal(found, ClassProbability().compute(pool, CONTEXT))


def test_a_label_of_few_rows_is_judged_and_one_of_a_single_text_is_missing_with_its_reason():
    rows = [*make_rows(40), {"text": "a rose", "label": "plant"}, {"text": "an oak", "label": "tree"}]
    rows += [{"text": "tall oak tree", "label": "tree"}]
    found = self_confidence(th.load(rows), CONTEXT)
    assert np.flatnonzero(np.isnan(found.values)).tolist() == [40]
    assert found.missing[40] == module.UNKNOWN
    assert found.missing.null_count() == 42
    assert found.notes["rows_missing"] == 1
    assert (found.values[41:] > 0).all()


def test_many_labels_of_two_texts_each_are_judged_without_a_warning():
    rows = th.load(
        [{"text": f"{'tea coffee' if i % 2 else 'saw drill'} {i}", "label": f"l{i // 2}"} for i in range(40)]
    )
    probability = compute(rows, ["class_probability"], CONTEXT)["class_probability"]
    assert probability.shape == (40, 20)
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-6)


def test_two_texts_of_two_labels_have_no_value():
    found = self_confidence(th.load([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]), CONTEXT)
    assert np.isnan(found.values).all()
    assert found.missing.null_count() == 0


def test_the_form_of_the_confidence_is_that_which_is_asked_for():
    pool = th.load(make_rows(40, n_wrong=4))
    p = ClassProbability().compute(pool, CONTEXT).astype(np.float64)
    codes, at = given_classes(pool), np.arange(40)
    np.testing.assert_allclose(self_confidence(pool, CONTEXT, form="plain").values, p[at, codes])
    divided = p / (np.bincount(codes) / 40)
    expected = (divided / divided.sum(axis=1, keepdims=True))[at, codes]
    np.testing.assert_allclose(self_confidence(pool, CONTEXT, form="prior-divided").values, expected)
    np.testing.assert_allclose(self_confidence(pool, CONTEXT).values, measure_trust(p, codes).value)


def test_a_classifier_learns_from_a_bounded_number_of_rows_with_some_of_each_class(monkeypatch):
    monkeypatch.setattr("thresher.features.labels.cross_fit.MAX_FIT_ROWS", 50)
    monkeypatch.setattr("thresher.features.labels.cross_fit.FIT_ROWS_PER_CLASS", 1)
    monkeypatch.setattr("thresher.features.labels.cross_fit.MIN_FIT_ROWS", 3)
    label = np.repeat([0, 1], [395, 5])
    rows = LabeledTexts.from_rows(np.arange(400), label, n_texts=400, n_classes=2)
    learned = rows.training_pairs(0)
    assert len(learned) == 50
    assert (rows.fold[rows.text[learned]] != 0).all()
    assert (rows.label[learned] == 1).sum() >= 2


def test_words_of_one_text_alone_are_left_out_and_texts_without_words_are_zero():
    view = word_view(["tea tea cup", "cup saw", "!", "unique"], 2)
    assert view.shape[1] == 1
    np.testing.assert_allclose(view.toarray()[:, 0], [1, 1, 0, 0])
    assert word_view(["one", "two"], 2).toarray().tolist() == [[0], [0]]


def test_many_classes_get_fewer_words_and_the_same_bound_on_weights():
    texts = [f"word{i} word{i + 1}" for i in range(20_000)]
    assert word_view(texts, 1000).shape[1] <= 1 << 12


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": f"t{i}", "label": "a"} for i in range(5)], "needs at least two labels, found a"),
        ([{"text": f"t{i}", "label": f"l{i}"} for i in range(1001)], "1,001 labels on 1,001 rows; check the label"),
        ([{"text": "t", "label": name} for name in "ab"], "needs at least two different texts, found one on 2 rows"),
        ([{"prompt": "p", "completion": "c"}] * 3, "rows need a text and a label, found rows of kind 'sft'"),
    ],
)
def test_rows_that_tell_nothing_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        ClassProbability().compute(th.load(rows), CONTEXT)


def test_of_very_many_rows_every_class_still_gives_its_share_to_learn_from(monkeypatch):
    """Rows of the held-out fold were counted among the twenty of each class and then left out."""
    monkeypatch.setattr(cross_fit, "MAX_FIT_ROWS", 120)
    monkeypatch.setattr(cross_fit, "FIT_ROWS_PER_CLASS", 1)
    label = np.repeat([0, 1, 2], [940, 40, 20])[np.random.default_rng(0).permutation(1000)]
    rows = LabeledTexts.from_rows(np.arange(1000), label, n_texts=1000, n_classes=3)
    for fold in range(5):
        learned = rows.training_pairs(fold)
        assert len(learned) == 120
        assert not np.isin(learned, np.flatnonzero(rows.fold == fold)).any()
        counts = np.bincount(label[learned], minlength=3)
        assert counts[0] >= 20
        assert counts[1] >= 20
        assert counts[2] == 16  # all that are there


def test_very_many_texts_are_in_two_folds_and_each_half_learns_from_the_other(monkeypatch):
    assert (cross_fit.N_FOLDS_OF_MANY, cross_fit.MANY_TEXTS) == (2, 2 * cross_fit.MAX_FIT_ROWS)
    monkeypatch.setattr(cross_fit, "MANY_TEXTS", 60)
    pool = th.load(make_rows(60, n_wrong=4))
    codes = given_classes(pool)
    rows = LabeledTexts.from_rows(np.arange(60), codes, n_texts=60, n_classes=codes.max() + 1)
    assert np.bincount(rows.fold).tolist() == [30, 30]
    for fold in range(2):
        assert (rows.fold[rows.text[rows.training_pairs(fold)]] == 1 - fold).all()
    p = ClassProbability().compute(pool, CONTEXT)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)


def test_many_classes_raise_the_number_of_rows_that_are_learned(monkeypatch):
    monkeypatch.setattr(cross_fit, "MAX_FIT_ROWS", 50)
    monkeypatch.setattr(cross_fit, "FIT_ROWS_PER_CLASS", 30)
    rows = LabeledTexts.from_rows(np.arange(400), np.arange(400) % 4, n_texts=400, n_classes=4)
    assert len(rows.training_pairs(0)) == 120
