import numpy as np
import pytest
import torch

from thresher.dataset import load
from thresher.trainer.context import resolve_run
from thresher.trainer.engine.batches import pad_rows
from thresher.trainer.engine.fit import build_model
from thresher.trainer.engine.head import PENALTIES, STD, choose_penalty, initialize_head
from thresher.trainer.settings import TrainSettings


def collate(rows):
    return pad_rows(rows, pad_id=0)


@pytest.fixture
def make_classifier(tiny_bert, color_rows):
    """Return a function from labels to a fresh model and its rows."""

    def make(labels, known, pooling="auto"):
        return build_classifier([row for row in color_rows if row["label"] in known], tiny_bert, labels, pooling)

    return make


def build_classifier(rows, model, labels, pooling="auto"):
    data = load(rows)
    settings = TrainSettings(max_length=32, pooling=pooling)
    context = resolve_run(data, model=model, settings=settings, seed=0, labels=labels)
    with torch.random.fork_rng():
        return build_model(context, seed=0).eval(), context.tokenize(data).rows


def logits(model, rows):
    with torch.inference_mode():
        return torch.cat([model(**collate([row]).inputs).logits for row in rows]).double().numpy()


@pytest.mark.parametrize("labels", [("blue", "green", "red"), ("blue", "red")])
@pytest.mark.parametrize("pooling", ["auto", "head"])
def test_the_head_gives_the_log_odds_of_the_regression(make_classifier, labels, pooling):
    from sklearn.linear_model import LogisticRegression

    model, rows = make_classifier(labels, set(labels), pooling)
    initialize_head(model, rows, collate=collate, device="cpu")
    taken = []
    head = model.head if pooling == "auto" else model.base_model.model.classifier.modules_to_save["default"]
    hook = head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].double().numpy()))
    scores = logits(model, rows)
    hook.remove()
    x = np.concatenate(taken)
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    code = np.array([row.labels[0] for row in rows])
    probe = LogisticRegression(C=choose_penalty(x, code), max_iter=200, tol=1e-3).fit(x, code)
    share = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(share, probe.predict_proba(x), atol=2e-2)


@pytest.mark.parametrize("pooling", ["auto", "head"])
def test_the_encoder_reads_each_row_once(make_classifier, pooling):
    model, rows = make_classifier(("blue", "green", "red"), {"blue", "green", "red"}, pooling)
    encoder = next(part for part in model.modules() if type(part).__name__ == "BertEncoder")
    read = []
    hook = encoder.register_forward_pre_hook(lambda _, inputs: read.append(len(inputs[0])))
    assert initialize_head(model, rows, collate=collate, device="cpu")
    hook.remove()
    assert sum(read) == len(rows)


def test_the_pooler_gets_outputs_of_one_standard_deviation(make_classifier):
    model, rows = make_classifier(("blue", "green", "red"), {"blue", "green", "red"}, "head")
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


def draw_blobs(share_wrong, *, n=240, seed=0):
    """Return features of three classes, and classes of which a share is wrong."""
    rng = np.random.default_rng(seed)
    code = np.arange(n) % 3
    x = rng.normal(size=(n, 40)) + 1.2 * np.eye(3, 40)[code]
    is_wrong = rng.random(n) < share_wrong
    return (x - x.mean(axis=0)) / x.std(axis=0), np.where(is_wrong, rng.integers(0, 3, n), code)


def test_the_penalty_is_that_of_scikit_learns_cross_validation():
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import PredefinedSplit

    for share_wrong in (0.0, 0.5):
        x, code = draw_blobs(share_wrong)
        fold = np.empty(len(code), dtype=int)
        fold[np.argsort(code, kind="stable")] = np.arange(len(code)) % 3
        options = {"cv": PredefinedSplit(fold), "scoring": "neg_log_loss", "max_iter": 200, "tol": 1e-3}
        oracle = LogisticRegressionCV(Cs=list(PENALTIES), l1_ratios=(0,), use_legacy_attributes=False, **options)
        assert choose_penalty(x, code) == pytest.approx(float(oracle.fit(x, code).C_))


def test_wrong_labels_want_a_stronger_penalty():
    clean, wrong = (
        np.mean([np.log(choose_penalty(*draw_blobs(share, seed=seed))) for seed in range(5)]) for share in (0.0, 0.6)
    )
    assert wrong < clean


def test_too_few_rows_to_hold_out_get_the_strongest_penalty():
    assert choose_penalty(np.eye(2), np.array([0, 1])) == PENALTIES[0]
