import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from thresher.dataset import load
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.batches import pad_rows
from thresher.trainer.engine.fit import build_model
from thresher.trainer.engine.head import STD, initialize_head
from thresher.trainer.settings import TrainSettings


def collate(rows):
    return pad_rows(rows, pad_id=0)


@pytest.fixture
def make_classifier(tiny_bert, color_rows):
    """Return a function from labels to a fresh model and its rows."""

    def make(labels, known):
        return build_classifier([row for row in color_rows if row["label"] in known], tiny_bert, labels)

    return make


def build_classifier(rows, model, labels):
    data = load(rows)
    context = resolve_run(data, model=model, settings=TrainSettings(max_length=32), seed=0, labels=labels)
    with torch.random.fork_rng():
        return build_model(context, seed=0).eval(), context.tokenize(data).rows


def logits(model, rows):
    with torch.inference_mode():
        return torch.cat([model(**collate([row]).inputs).logits for row in rows]).double().numpy()


@pytest.mark.parametrize("labels", [("blue", "green", "red"), ("blue", "red")])
def test_the_head_gives_the_log_odds_of_the_regression(make_classifier, labels):
    model, rows = make_classifier(labels, set(labels))
    initialize_head(model, rows, collate=collate, device="cpu")
    taken = []
    head = model.base_model.model.classifier.modules_to_save["default"]
    hook = head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].double().numpy()))
    scores = logits(model, rows)
    hook.remove()
    x = np.concatenate(taken)
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    probe = LogisticRegression(C=0.1, max_iter=200, tol=1e-3).fit(x, [row.labels[0] for row in rows])
    share = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(share, probe.predict_proba(x), atol=2e-2)


def test_the_pooler_gets_outputs_of_one_standard_deviation(make_classifier):
    model, rows = make_classifier(("blue", "green", "red"), {"blue", "green", "red"})
    initialize_head(model, rows, collate=collate, device="cpu")
    taken = []
    dense = model.base_model.model.bert.pooler.modules_to_save["default"].dense
    dense.register_forward_hook(lambda _, __, output: taken.append(output.double().numpy()))
    logits(model, rows)
    outputs = np.concatenate(taken)
    np.testing.assert_allclose(outputs.mean(axis=0), 0, atol=1e-3)
    assert np.median(outputs.std(axis=0)) == pytest.approx(STD, rel=1e-3)


def test_a_class_without_a_row_is_not_predicted(make_classifier):
    model, rows = make_classifier(("blue", "green", "red"), {"blue", "red"})
    initialize_head(model, rows, collate=collate, device="cpu")
    assert set(logits(model, rows).argmax(axis=1).tolist()) == {0, 2}


def test_one_class_leaves_the_head_as_it_is(make_classifier):
    model, rows = make_classifier(("blue", "red"), {"red"})
    before = logits(model, rows)
    initialize_head(model, rows, collate=collate, device="cpu")
    np.testing.assert_array_equal(logits(model, rows), before)


def test_many_classes_of_few_rows_are_no_reason_for_a_warning(tiny_bert):
    labels = tuple(f"label {i:02d}" for i in range(20))
    rows = [{"text": f"the ball number {i} is red", "label": labels[i % 20]} for i in range(36)]
    model, examples = build_classifier(rows, tiny_bert, labels)
    initialize_head(model, examples, collate=collate, device="cpu")  # warnings are errors here
    assert np.isfinite(logits(model, examples)).all()
