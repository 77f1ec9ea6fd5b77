"""Several rules a row: the label model against a slow reference, and the joined rows."""

import json
import math

import numpy as np
import pytest

import thresher as th
from thresher.cli.main import main
from thresher.errors import InputError, SettingsError
from thresher.labeling.weak.dawid_skene import NO_VOTE, SMOOTHING, fit_label_model
from thresher.labeling.weak.join import describe_rule


def draw_votes(n, accuracy, *, silent=0.3, k=3, seed=0):
    """Return votes of annotators of known accuracy, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    votes = np.stack(
        [np.where(rng.random(n) < a, truth, (truth + rng.integers(1, k, n)) % k) for a in accuracy], axis=1
    )
    votes[rng.random(votes.shape) < silent] = NO_VOTE
    return votes, truth


def fit_slowly(votes, k, n_iterations):
    """Return the probabilities of plain EM, row by row."""
    n, m = votes.shape
    q = [[0.0] * k for _ in range(n)]
    for i in range(n):
        said = [v for v in votes[i] if v != NO_VOTE]
        q[i] = [said.count(c) / len(said) if said else 1 / k for c in range(k)]
    voted = [i for i in range(n) if any(v != NO_VOTE for v in votes[i])]
    for _ in range(n_iterations):
        share = [(sum(q[i][c] for i in voted) + SMOOTHING) / (len(voted) + SMOOTHING * k) for c in range(k)]
        table = [[[SMOOTHING] * k for _ in range(k)] for _ in range(m)]
        for i in range(n):
            for j in range(m):
                if votes[i][j] != NO_VOTE:
                    for c in range(k):
                        table[j][c][votes[i][j]] += q[i][c]
        q = [judge_slowly(votes[i], share, table) for i in range(n)]
    return np.array(q)


def judge_slowly(row, share, table):
    """Return the probabilities of one row's classes."""
    logs = [math.log(p) for p in share]
    for j, said in enumerate(row):
        if said != NO_VOTE:
            logs = [value + math.log(table[j][c][said] / sum(table[j][c])) for c, value in enumerate(logs)]
    total = sum(math.exp(value - max(logs)) for value in logs)
    return [math.exp(value - max(logs)) / total for value in logs]


def test_the_label_model_is_plain_em():
    votes, _ = draw_votes(60, (0.9, 0.7, 0.5, 0.8))
    model = fit_label_model(votes, 3)
    np.testing.assert_allclose(model.probability, fit_slowly(votes, 3, model.n_iterations), atol=1e-9)
    np.testing.assert_allclose(model.confusion.sum(axis=2), 1)
    assert model.share.sum() == pytest.approx(1)


def test_the_model_finds_who_can_be_trusted_and_beats_the_majority():
    votes, truth = draw_votes(3000, (0.95, 0.5, 0.5, 0.45, 0.5), silent=0.1)
    model = fit_label_model(votes, 3)
    diagonal = np.einsum("jkk->j", model.confusion) / 3
    assert diagonal == pytest.approx([0.95, 0.5, 0.5, 0.45, 0.5], abs=0.05)
    counts = np.stack([(votes == c).sum(axis=1) for c in range(3)], axis=1)
    right = (model.probability.argmax(axis=1) == truth).mean()
    assert right > (counts.argmax(axis=1) == truth).mean() + 0.1
    sure = model.probability.max(axis=1)
    assert (model.probability.argmax(axis=1) == truth)[sure > 0.9].mean() > 0.9


def test_nothing_is_said_of_a_rule_that_no_other_can_be_compared_with():
    votes, _ = draw_votes(300, (0.6, 0.6, 0.9), silent=0, k=2)
    rows = [{"text": f"row {i}", "a": None, "b": None, "c": None} for i in range(300)]
    for i, row in enumerate(rows):
        row["a" if i % 2 else "b"] = f"class {votes[i, i % 2]}"
    alone = th.join_labels(rows, ["a", "b"]).manifest.content["rules"]
    assert [rule["accuracy"] for rule in alone.values()] == [None, None]
    assert describe_rule(alone["a"]).endswith("which no other rule labels")
    for i, row in enumerate(rows[:60]):
        row["c"] = f"class {votes[i, 2]}"
    rule = th.join_labels(rows, ["a", "b", "c"]).manifest.content["rules"]["a"]
    assert rule["compared"] == 30
    assert "of the 30 that others label too" in describe_rule(rule)


def test_rules_are_joined_by_command_and_by_function(tmp_path, capsys):
    rows = [{"text": f"row {i}", "a": "x" if i % 2 else "y", "b": "x" if i % 3 else "y", "c": None} for i in range(30)]
    rows[0] = {"text": "nobody", "a": "", "b": None, "c": None}
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["label", "join", str(tmp_path / "rows.jsonl"), "--rules", "a,b", "--how", "majority"]
    assert main([*command, "--out", str(tmp_path / "joined")]) == 0
    assert "29 rows have a label" in capsys.readouterr().err
    joined = th.open(tmp_path / "joined")
    assert joined.unlabeled == rows[:1]
    disagreeing = [row for row in joined.rows if row["a"] != row["b"]]
    assert {row["confidence"] for row in disagreeing} == {0.5}
    assert {row["label"] for row in disagreeing} == {"x"}  # more frequent in all votes
    assert joined.manifest.content["counts"]["conflicts"] == len(disagreeing)
    assert joined.dataset.kind == th.load(tmp_path / "joined").kind == "classification"
    same = th.join_labels(rows, {"a": lambda row: row["a"], "b": lambda row: row["b"]}, how="majority")
    assert [row["label"] for row in same] == [row["label"] for row in joined]


def test_what_is_no_rule_is_refused():
    rows = [{"text": "a", "r": "x"}, {"text": "b", "r": "x"}]
    with pytest.raises(InputError, match=r"at least two labels are required, found \['x'\] in r"):
        th.join_labels(rows, ["r"])
    with pytest.raises(InputError, match="the rows have label already; rename it"):
        th.join_labels([{**row, "label": "x"} for row in rows], ["r"])
    with pytest.raises(SettingsError, match="at least one rule is required"):
        th.join_labels(rows, [])
    with pytest.raises(SettingsError, match="how must be model or majority, got 'best'"):
        th.join_labels(rows, ["r"], how="best")
    with pytest.raises(th.ThresherError, match="column 'q' not found"):
        th.join_labels(rows, ["q"])


def test_columns_that_are_no_rules_are_refused():
    rows = [{"id": i, "text": f"t{i}", "url": f"u{i}", "a": "xy"[i % 2]} for i in range(9)]
    with pytest.raises(SettingsError, match="a rule is a column of labels, and 'text' is the text of the rows"):
        th.join_labels(rows, ["a", "text"])
    with pytest.raises(InputError, match="9 of the 9 labels of 'url' occur once, such as 'u0'"):
        th.join_labels(rows, ["a", "url"])
    with pytest.raises(SettingsError, match="'id' is the id of the rows"):
        th.join_labels(th.load(rows, columns={"text": "text"}, id_column="id"), ["a", "id"])
    rare = [{"text": f"t{i}", "a": f"{i // 2}", "b": None if i % 2 else f"{i // 2}"} for i in range(12)]
    assert len(th.join_labels(rare, ["a", "b"])) == 12  # many classes are still classes


def test_numbers_keep_their_fractions_and_a_rule_votes_once():
    rows = [{"text": f"t{i}", "a": (3.5, 3.2, 1.0)[i % 3], "b": (3.5, 3.2, 1)[i % 3]} for i in range(9)]
    joined = th.join_labels(rows, ["a", "b"], how="majority")
    assert joined.manifest.content["classes"] == ["1", "3.2", "3.5"]
    assert joined.manifest.content["counts"]["conflicts"] == 0
    with pytest.raises(SettingsError, match="each rule votes once, found 'a' twice"):
        th.join_labels(rows, ["a", "a"])


def test_a_vote_of_several_labels_is_refused():
    with pytest.raises(InputError, match="rule 'a': one label per row is required, found x, y"):
        th.join_labels([{"text": "t"}, {"text": "u"}], {"a": lambda _: ["x", "y"], "b": lambda row: row["text"]})


def test_other_rows_with_the_same_votes_are_another_result(tmp_path):
    rows = [{"text": f"t{i}", "a": "xy"[i % 2]} for i in range(4)]
    th.join_labels(rows, ["a"], out=tmp_path / "out")
    others = [{**row, "text": row["text"].upper()} for row in rows]
    joined = th.join_labels(others, ["a"], out=tmp_path / "out", force=True)
    assert [row["text"] for row in joined.rows] == ["T0", "T1", "T2", "T3"]


def test_votes_that_are_numbers_give_labels_that_are_numbers():
    rows = [{"text": f"text {i}", "a": i % 2, "b": None if i % 3 else i % 2} for i in range(6)]
    assert [row["label"] for row in th.join_labels(rows, ["a", "b"]).rows] == [0, 1, 0, 1, 0, 1]
