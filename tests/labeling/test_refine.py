"""Self-training on weak labels: its formulas by hand, and a verdict before its labels are used."""

import json
import math

import numpy as np
import pytest
import torch

import thresher as th
from thresher.cli.main import main
from thresher.errors import InputError
from thresher.labeling.weak.cosine import (
    CosineSettings,
    compute_loss,
    contrast,
    judge_rows,
    judge_targets,
    self_train,
)
from thresher.labeling.weak.refine import _keep_agreed


def test_soft_targets_and_confidence_are_those_of_a_hand():
    p = [[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]
    f = [sum(row[j] for row in p) for j in range(3)]
    expected = []
    for row in p:
        squared = [row[j] ** 2 / f[j] for j in range(3)]
        expected.append([value / sum(squared) for value in squared])
    confidence = judge_rows(np.array(p), 0.4)
    np.testing.assert_allclose(confidence.soft, expected, rtol=1e-12)
    weights = [1 + sum(y * math.log(y) for y in row) / math.log(3) for row in expected]
    np.testing.assert_allclose(confidence.weight, weights, rtol=1e-12)
    assert confidence.is_learned.tolist() == [weight >= 0.4 for weight in weights]
    assert len(set(confidence.is_learned.tolist())) == 2  # else the limit was not tried


def test_confidence_is_0_for_uniform_and_1_for_one_class_whatever_the_number_of_rows():
    for n in (1, 7, 200):  # the published code divides by the log of the number of rows
        weight = judge_targets(np.tile([[0.25] * 4, [0, 0, 1.0, 0]], (n, 1)), 0.5).weight
        np.testing.assert_allclose(weight.reshape(n, 2), [[0, 1]] * n, atol=1e-12)


def test_a_row_with_the_confidence_of_another_class_is_not_learned_from():
    soft = np.array([[0.9, 0.1], [0.9, 0.1], [0.5, 0.5]])
    kept = _keep_agreed(judge_targets(soft, 0.3), np.array([0, 1, 0]))
    assert kept.is_learned.tolist() == [True, False, False]
    assert kept.weight.tolist() == [judge_targets(soft, 0.3).weight[0], 0, 0]


def test_the_loss_is_that_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    logits, features = torch.randn(4, 3, generator=generator), torch.randn(4, 5, generator=generator)
    soft = torch.softmax(2 * torch.randn(4, 3, generator=generator), dim=1)
    soft[0] = torch.tensor([0.0, 1.0, 0.0])
    weight = torch.tensor([1.0, 0.5, 0.2, 0.9])
    settings = CosineSettings(smoothness=0.3, margin=1.5)
    log_p = torch.log_softmax(logits, dim=1)
    of_rows, uniform, pairs = [], [], []
    for i in range(4):
        terms = [float(y) * (math.log(y) - float(q)) for y, q in zip(soft[i], log_p[i], strict=True) if y > 0]
        of_rows.append(float(weight[i]) * sum(terms))
        uniform.append(sum((math.log(1 / 3) - float(q)) / 3 for q in log_p[i]))
        for j in range(i + 1, 4):
            d = math.sqrt(float((features[i] - features[j]).square().sum()) / 5)
            is_same = int(soft[i].argmax()) == int(soft[j].argmax())
            pairs.append(d**2 if is_same else max(0.0, 1.5 - d) ** 2)
    expected = np.mean(of_rows) + 0.3 * np.mean(uniform) + np.mean(pairs)
    assert compute_loss(logits, features, soft, weight, settings).item() == pytest.approx(expected, rel=1e-5)


def test_the_contrastive_term_moves_the_student_s_features():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    soft = torch.eye(2, dtype=torch.float64)[torch.tensor([0, 1, 0, 1, 1])]
    contrast(features, soft, 2.0).backward()
    step, at = 1e-6, (2, 1)
    moved = [features.detach().clone() for _ in range(2)]
    moved[0][at] += step
    moved[1][at] -= step
    slope = (contrast(moved[0], soft, 2.0) - contrast(moved[1], soft, 2.0)).item() / (2 * step)
    assert abs(slope) > 1e-3
    assert features.grad[at].item() == pytest.approx(slope, rel=1e-5)
    assert contrast(torch.zeros(1, 4), soft[:1], 2.0).item() == 0


@pytest.fixture(scope="module")
def rows(color_rows, tmp_path_factory):
    """Return files of weak labels, of which a fifth is wrong at random, of texts, and of truths."""
    folder = tmp_path_factory.mktemp("weak")
    more = [{"text": f"{row['text']} and {i}", "label": row["label"]} for i in range(4) for row in color_rows]
    colors = sorted({row["label"] for row in more})
    order = np.random.default_rng(0).permutation(len(more))
    test, weak, unlabeled = order[:60], order[60:180], order[180:]
    rng = np.random.default_rng(1)

    def err(label):
        return str(rng.choice([color for color in colors if color != label])) if rng.random() < 0.2 else label

    files = {
        "weak": [{"n": int(i), "text": more[i]["text"], "label": err(more[i]["label"])} for i in weak],
        "unlabeled": [{"text": more[i]["text"]} for i in unlabeled],
        "test": [more[i] for i in test],
    }
    for name, own in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    return folder, {row["text"]: row["label"] for row in more}


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_labels_are_refined_where_that_helps_and_kept_where_it_does_not(rows, tmp_path, capsys):
    folder, truth = rows
    command = ["label", "refine", str(folder / "weak.jsonl"), "--unlabeled", str(folder / "unlabeled.jsonl")]
    command += ["--eval", str(folder / "test.jsonl"), "--encoder", "static", "--seeds", "2", "--json"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr()
    content = json.loads(out.out)
    assert content["answer"] in out.err
    refined = th.open(tmp_path / "out")
    assert refined.weights.height == 120 + 60
    assert refined.weights["given"].null_count() == 60
    if content["verdict"]["helps"]:
        assert len(refined) == content["counts"]["learned_from"]
    else:
        assert [row["confidence"] for row in refined] == [1.0] * 120
        assert content["answer"].startswith("self-training is not used")
    learned = refined.weights.filter("is_learned")
    assert refined.dataset.kind == "classification"
    assert learned.height > 60
    assert main([*command, "--out", str(tmp_path / "out")]) == 0  # read back
    again = th.refine_labels(
        folder / "weak.jsonl",
        unlabeled=folder / "unlabeled.jsonl",
        eval=folder / "test.jsonl",
        encoder="static",
        seeds=2,
    )
    assert again.weights.equals(refined.weights)


def test_a_dry_run_reads_the_test_rows_as_it_is_told_and_writes_nothing(rows, tmp_path, capsys):
    folder, _ = rows
    (tmp_path / "splits").mkdir()
    for split in ("train", "test"):
        lines = [{"words": row["text"], "kind": row["label"]} for row in read_lines(folder / "test.jsonl")]
        (tmp_path / "splits" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    command = ["label", "refine", str(folder / "weak.jsonl"), "--eval", str(tmp_path / "splits"), "--encoder", "static"]
    command += ["--eval-map", "text=words,label=kind", "--eval-split", "test"]
    assert main([*command, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "180 rows" in out
    assert "runs of self-training: 3 entries" in out
    assert main(command) == 2
    assert "give --out, or --dry-run" in capsys.readouterr().err


def test_a_verdict_that_helps_gives_out_its_labels(rows, monkeypatch):
    from thresher.labeling.weak import refine
    from thresher.labeling.weak.cosine import Outcome

    folder, truth = rows

    def train(vectors, label, test, n_classes, *, seed, settings):
        names = ["blue", "green", "red"]
        texts = [row for name in ("weak", "unlabeled") for row in read_lines(folder / f"{name}.jsonl")]
        right = np.array([names.index(truth[row["text"]]) for row in texts])
        soft = np.full((len(texts), 3), 0.01)
        soft[np.arange(len(texts)), right] = 0.98
        probability = soft.copy()
        soft[0] = 1 / 3
        soft[1] = np.roll(soft[1], 1)  # leans towards another class than the student's
        judged = [names.index(row["label"]) for row in read_lines(folder / "test.jsonl")]
        judged = np.array(judged)
        before = np.where(np.arange(60) % 2, judged, (judged + 1) % 3)
        return Outcome(before, judged, judge_targets(soft, settings.least), probability)

    monkeypatch.setattr(refine, "self_train", train)
    refined = th.refine_labels(
        folder / "weak.jsonl", unlabeled=folder / "unlabeled.jsonl", eval=folder / "test.jsonl", encoder="static"
    )
    assert refined.manifest.content["verdict"]["helps"]
    assert len(refined) == 178  # without the row that is not sure and that sure of another
    assert all(row["label"] == truth[row["text"]] for row in refined)
    assert all(0.6 <= row["confidence"] <= 1 for row in refined)
    assert "self-training helps: 50.0 % without, 100.0 % with it" in refined.manifest.content["answer"]
    assert refined.manifest.content["counts"]["changed"] > 10


def test_rows_that_cannot_be_refined_are_refused(rows):
    folder, _ = rows
    with pytest.raises(InputError, match="rows of a text and its label are required, found rows of kind 'text'"):
        th.refine_labels([{"text": "a"}], eval=folder / "test.jsonl")
    with pytest.raises(InputError, match="the column confidence is written, and the rows have it already"):
        th.refine_labels(
            [{"text": f"{i}", "label": "ab"[i], "confidence": 1} for i in (0, 1)], eval=folder / "test.jsonl"
        )
    with pytest.raises(InputError, match="at least two labels, of which the rows of eval have some"):
        th.refine_labels([{"text": f"{i}", "label": "ab"[i]} for i in (0, 1)], eval=folder / "test.jsonl")
    leaked = read_lines(folder / "test.jsonl")
    with pytest.raises(InputError, match="found none in rows that are not held out"):
        th.refine_labels(leaked, eval=folder / "test.jsonl", encoder="static")


def test_the_columns_of_weak_rows_can_be_named(rows, tmp_path):
    folder, _ = rows
    for name in ("weak", "test"):
        renamed = [
            {"t": row["text"], "text": "same", "l": row["label"]} for row in read_lines(folder / f"{name}.jsonl")
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in renamed))
    words = ["label", "refine", str(tmp_path / "weak.jsonl"), "--eval", str(tmp_path / "test.jsonl")]
    words += ["--map", "text=t,label=l", "--encoder", "static", "--seeds", "2", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert th.open(tmp_path / "out").manifest.content["schema"]["columns"] == {"text": ["t"], "label": ["l"]}


def test_joined_rows_keep_their_confidence_where_their_labels_stay(rows, tmp_path):
    folder, _ = rows
    votes = [{"text": row["text"], "a": row["label"], "b": row["label"]} for row in read_lines(folder / "weak.jsonl")]
    votes[0]["b"] = next(row["b"] for row in votes if row["b"] != votes[0]["a"])
    joined = th.join_labels(votes, ["a", "b"], out=tmp_path / "joined")
    call = {"eval": folder / "test.jsonl", "encoder": "static", "seeds": 2, "least": 1.0}
    for source in (tmp_path / "joined", joined):
        refined = th.refine_labels(source, **call)
        assert not refined.manifest.content["verdict"]["helps"]
        assert [row["confidence"] for row in refined] == [row["confidence"] for row in joined]
    with pytest.raises(InputError, match="the column confidence is written, and the rows have it already"):
        th.refine_labels(list(joined), **call)


def test_labels_given_out_are_those_of_the_model_that_is_judged():
    rng = np.random.default_rng(0)
    label = (rng.random(60) < 0.15).astype(np.int64)  # soft targets lean towards the rare class
    vectors = (rng.normal(size=(60, 4)) + 0.7 * label[:, None]).astype(np.float32)
    outcome = self_train(vectors, label, vectors, 2, seed=0, settings=CosineSettings())
    np.testing.assert_array_equal(outcome.probability.argmax(axis=1), outcome.after)
    assert (outcome.confidence.soft.argmax(axis=1) != outcome.after).any()
