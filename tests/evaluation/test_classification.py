import warnings

import numpy as np
import polars as pl
import pytest

from thresher.errors import InputError
from thresher.evaluation.classification import (
    classification_report,
    count_unknown_labels,
    describe_common_label,
    describe_unknown_labels,
    linearize_balanced_accuracy,
    linearize_macro_f1,
)


def labels(n, n_classes, seed, hit=0.6):
    rng = np.random.default_rng(seed)
    names = np.array([f"class {i}" for i in range(n_classes)])
    truth = names[rng.integers(n_classes, size=n)]
    guess = np.where(rng.random(n) < hit, truth, names[rng.integers(n_classes, size=n)])
    return truth.tolist(), guess.tolist()


@pytest.mark.parametrize(("n", "n_classes", "seed"), [(1, 2, 0), (7, 5, 1), (400, 12, 2), (50, 40, 3)])
def test_all_numbers_are_those_of_scikit_learn(n, n_classes, seed):
    from sklearn.metrics import precision_recall_fscore_support

    truth, guess = labels(n, n_classes, seed)
    reports = classification_report(truth, guess)
    names = sorted({*truth, *guess})
    precision, recall, f1, count = precision_recall_fscore_support(truth, guess, labels=names, zero_division=0)
    assert [entry.label for entry in reports.classes] == names
    assert np.nan_to_num([entry.precision.value for entry in reports.classes]) == pytest.approx(precision)
    assert np.nan_to_num([entry.recall.value for entry in reports.classes]) == pytest.approx(recall)
    assert [entry.f1.value for entry in reports.classes] == pytest.approx(f1)
    assert [entry.recall.n for entry in reports.classes] == count.tolist()
    assert reports.macro_f1.value == pytest.approx(f1.mean())
    assert reports.accuracy.value == np.mean(np.array(truth) == np.array(guess))


def test_the_error_of_macro_f1_is_its_spread_over_samples():
    reports = [classification_report(*labels(300, 4, seed)).macro_f1 for seed in range(60)]
    spread = np.std([estimate.value for estimate in reports], ddof=1)
    assert np.mean([estimate.stderr for estimate in reports]) == pytest.approx(spread, rel=0.3)


def test_the_same_predictions_have_the_same_errors():
    assert classification_report(*labels(50, 3, 0)).macro_f1 == classification_report(*labels(50, 3, 0)).macro_f1


def test_a_class_that_is_never_predicted_has_no_precision():
    entry = classification_report(["a", "b"], ["a", "a"]).classes[1]
    assert (entry.precision.to_json(), entry.recall.value) == ({"value": None, "stderr": None, "n": 0}, 0.0)


def test_one_row_has_no_known_error():
    reports = classification_report(["a"], ["b"])
    assert [reports.accuracy.to_json()["stderr"], reports.macro_f1.to_json()["stderr"]] == [None, None]


def test_unequal_lengths_are_refused():
    with pytest.raises(InputError, match="got 2 and 1"):
        classification_report(["a", "b"], ["a"])


def test_unknown_labels_are_counted_and_named_with_what_they_look_like():
    labels = pl.Series(["a", "A", "A", "z", "b"])
    unknown = count_unknown_labels(labels, ["a", "b"])
    assert list(unknown.items()) == [("A", 2), ("z", 1)]
    assert describe_unknown_labels(unknown, 5, ["a", "b"]).endswith("'A' (2), 'z' (1); 'A' looks like 'a'")
    assert count_unknown_labels(labels, []) == {}  # a language model has no classes
    assert describe_unknown_labels({}, 5, ["a"]) == ""
    assert describe_unknown_labels({str(n): 1 for n in range(20)}, 20, ["a"]).endswith("'7' (1) and 12 more")


@pytest.mark.parametrize(
    ("linearize", "name"), [(linearize_macro_f1, "macro-f1"), (linearize_balanced_accuracy, "balanced accuracy")]
)
def test_linearized_values_have_the_metric_as_mean_and_its_derivatives(linearize, name):
    from sklearn.metrics import balanced_accuracy_score, f1_score

    rng = np.random.default_rng(0)
    truth = np.array(list("aaaaabbc"))[rng.integers(8, size=80)]
    predicted = np.where(rng.random(80) < 0.6, truth, np.array(list("abcd"))[rng.integers(4, size=80)])

    def measure(weight):
        if name == "macro-f1":
            return f1_score(truth, predicted, average="macro", sample_weight=weight, zero_division=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a predicted class that no row has
            return balanced_accuracy_score(truth, predicted, sample_weight=weight)

    values = linearize(truth.tolist(), predicted.tolist())
    assert values.mean() == pytest.approx(measure(np.ones(80)))
    for i in range(0, 80, 9):
        weight = np.ones(80)
        weight[i] += 1e-6
        assert values[i] - values.mean() == pytest.approx(80 * (measure(weight) - values.mean()) / 1e-6, abs=1e-3)


@pytest.mark.parametrize(
    ("n_rare", "metric", "is_told"), [(5, "accuracy", True), (5, "macro_f1", False), (200, "accuracy", False)]
)
def test_it_is_told_where_accuracy_hardly_shows_the_rare_labels(n_rare, metric, is_told):
    said = describe_common_label(["fraud"] * n_rare + ["fine"] * (500 - n_rare), metric)
    wanted = "99.0% of the 500 test rows have the label 'fine', so accuracy says little about the 5 others; --metric "
    assert said == (f"{wanted}macro_f1 counts every label alike." if is_told else "")
