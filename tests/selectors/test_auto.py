"""Auto: the race on planted pools, its statistics against simulation, and its words."""

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import SettingsError
from thresher.features.container import Features
from thresher.selectors.auto import Auto
from thresher.selectors.contract import PoolFacts
from thresher.selectors.pilot.arms import Arm, list_labeled_arms
from thresher.selectors.pilot.race import FAVORITE, LOOKS, Race, choose_nominee
from thresher.selectors.pilot.splits import draw_split
from thresher.selectors.pilot.statistics import Multiplier, estimate_difference, estimate_multiplier
from thresher.selectors.pilot.student import grade_student
from thresher.selectors.uniform import Uniform


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def build(n=500, *, n_classes=6, d=16, noise=1.0, wrong=0.0, seed=0):
    """Classes of Zipf's sizes around random centers, some labels wrong."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(n_classes, d))
    share = 1 / np.arange(1, n_classes + 1)
    truth = rng.choice(n_classes, n, p=share / share.sum())
    truth[:n_classes] = np.arange(n_classes)
    label = np.where(rng.random(n) < wrong, rng.integers(n_classes, size=n), truth)
    x = unit(centers[truth] + noise * rng.normal(size=(n, d)))
    logits = 8 * x @ unit(centers).T
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Features(
        row_id=pl.Series([f"{i:06d}" for i in range(n)]),
        arrays={
            "embedding": x,
            "column:label": label.astype(np.int64),
            "class_probability": probability.astype(np.float32),
        },
    )


def run(features, n_ranked, *, seed=0, **settings):
    return Auto(**settings).score(features, n_ranked=n_ranked, rng=np.random.default_rng(seed))


def test_a_method_that_helps_is_chosen_with_its_effect():
    scores = run(build(wrong=0.15), 50)
    assert scores.pilot["chosen"] != "random"
    assert scores.pilot["effect"]["low"] > 0
    assert "better than random rows by +" in scores.pilot["why"]
    assert "the same score would take " in scores.pilot["why"]
    assert scores.n_ranked == 50
    assert scores.notes["chosen_by"] == scores.pilot["chosen"]


def test_the_same_seed_gives_the_same_decision():
    features = build(300, n_classes=3, d=10)
    first, second = run(features, 26), run(features, 26)
    assert first.pilot == second.pilot
    assert (first.value == second.value).all()


def test_the_chosen_method_ranks_the_vectors_as_they_were_given(monkeypatch):
    seen = []
    rank = Arm.rank

    def spy(arm, features, *others):
        seen.append(features)
        return rank(arm, features, *others)

    monkeypatch.setattr(Arm, "rank", spy)
    features = build(300, n_classes=3, d=10)
    run(features, 26)
    assert seen[-1] is features  # vectors divided by their length twice break ties differently


def race_of_equals(seed, n_arms=4):
    """A race in which every arm takes random rows."""
    arms = [Arm(name="random" if i == 0 else f"random {i}", selector=Uniform()) for i in range(n_arms)]
    features = build(300, n_classes=3, d=10, noise=1.5, seed=seed)
    race = Race(features, arms, share=0.1, metric="accuracy", salt=seed, max_seconds=None)
    return race.run(np.zeros(300, np.bool_))


@pytest.fixture(scope="module")
def equal_pilots():
    return [race_of_equals(seed) for seed in range(10)]


def difference(gaps):
    return estimate_difference([np.arange(40)] * len(gaps), gaps, 0.05)


def find_nominee(effects):
    """Who is named after six splits of 40 rows each, of arms with such effects."""
    rng = np.random.default_rng(0)
    gaps = {name: [rng.normal(mean, 0.05, 40) for _ in range(n)] for name, (mean, n) in effects.items()}
    ordered = [(name, difference(values)) for name, values in gaps.items()]
    ordered.sort(key=lambda pair: (-pair[1].n_splits, -pair[1].value))
    return choose_nominee(ordered, [np.arange(40)] * 6, gaps)


@pytest.mark.parametrize(
    ("effects", "named"),
    [
        ({"other": (0.105, 6), FAVORITE: (0.1, 6)}, FAVORITE),  # as good as the leader
        ({"other": (0.2, 6), FAVORITE: (0.1, 6)}, "other"),  # beaten beyond doubt
        ({"other": (0.01, 6), FAVORITE: (-0.001, 6)}, "other"),  # not better than random rows
        ({"other": (0.1, 6), FAVORITE: (0.1, 4)}, "other"),  # the time was over
        ({"other": (0.1, 6), "another": (0.05, 6)}, "other"),
        ({}, None),
    ],
)
def test_the_favorite_is_named_where_it_is_as_good(effects, named):
    assert find_nominee(effects) == named


def test_of_equal_arms_another_than_random_is_hardly_ever_chosen(equal_pilots):
    # at most 5 % are expected: three or more of ten have a chance of 1.2 %
    assert sum(pilot.chosen.name != "random" for pilot in equal_pilots) < 3
    undecided = next(pilot for pilot in equal_pilots if pilot.chosen.name == "random")
    assert undecided.why.startswith("random rows: no method is significantly better; the most promising, ")
    assert undecided.effect.n_splits == max(LOOKS)


@pytest.mark.slow
def test_of_equal_arms_another_than_random_is_chosen_in_at_most_five_percent():
    n_wrong = sum(race_of_equals(seed).chosen.name != "random" for seed in range(400))
    assert n_wrong <= 20


def test_the_effect_is_not_that_of_the_splits_that_named_the_arm(equal_pilots):
    gaps = [(pilot.nominations[0][1].value, pilot.effect.value) for pilot in equal_pilots]
    named, fresh = np.mean(gaps, axis=0)
    assert named > fresh + 0.005  # the winner of equal arms was lucky
    assert abs(fresh) < 0.02


@pytest.mark.parametrize(
    ("n", "n_ranked", "why"),
    [(300, 300, "all rows are kept"), (100, 10, "at least 50 are needed"), (400, 1, "the budget is too small")],
)
def test_where_nothing_can_be_told_random_rows_are_taken_and_it_is_said(n, n_ranked, why):
    scores = run(build(n), n_ranked)
    assert scores.pilot["chosen"] == "random"
    assert why in scores.pilot["why"]
    assert scores.n_ranked == n_ranked


def test_time_that_is_over_ends_in_random_rows():
    scores = run(build(wrong=0.15), 60, max_time=1e-9)
    assert scores.pilot["chosen"] == "random"
    assert "the time ran out" in scores.pilot["why"]
    assert scores.pilot["is_cut_short"]


def test_what_is_known_when_the_time_is_over_decides(monkeypatch):
    """The clock says one second more for each student."""
    from thresher.selectors.pilot import race

    students = []
    monkeypatch.setattr(race.time, "monotonic", lambda: float(len(students)))
    grade = race.grade_student
    monkeypatch.setattr(race, "grade_student", lambda *rows: (students.append(1), grade(*rows))[1])
    for seconds in (1, 5, 20, 50, 90, 120):
        students.clear()
        scores = run(build(wrong=0.15), 50, max_time=seconds)
        assert len(students) <= seconds + 6  # the student under way, and those of one control
        effect = scores.pilot["effect"]
        assert scores.pilot["is_cut_short"] == (effect is None or effect["n_splits"] not in LOOKS)
        if effect is not None:
            assert effect["n_splits"] <= max(LOOKS)
    assert effect["n_splits"] >= min(LOOKS)
    assert scores.pilot["chosen"] != "random"


def test_splits_keep_near_copies_on_one_side_and_classes_on_both():
    features = build(400, seed=3)
    x = features["embedding"].copy()
    x[200:] = x[:200]  # every row has a copy
    split = draw_split(x, features["column:label"], np.random.default_rng(0))
    assert not set(split.candidates) & set(split.held_out)
    assert (x[split.held_out] @ x[split.candidates].T).max() < 0.98
    label = features["column:label"]
    split = draw_split(features["embedding"], label, np.random.default_rng(0))
    common = np.flatnonzero(np.bincount(label) >= 8)
    assert set(common) <= set(label[split.candidates])
    assert set(common) <= set(label[split.held_out])


def test_doubtful_rows_come_last_in_an_arm_that_skips_them():
    features = build(200)
    is_doubtful = np.arange(200) % 4 == 0
    arm = Arm(name="x", selector=Uniform(), skips_doubtful=True)
    rows = arm.rank(features, is_doubtful, 200, np.random.default_rng(0))
    assert sorted(rows) == list(range(200))
    assert not is_doubtful[rows[:150]].any()


def test_every_arm_ranks_each_row_once():
    features = build(150, wrong=0.1)
    is_doubtful = np.arange(150) % 5 == 0
    for arm in list_labeled_arms(150):
        rows = arm.rank(features, is_doubtful, 40, np.random.default_rng(0))
        assert len(set(rows.tolist())) == 40, arm.name


def test_macro_f1_equals_that_of_scikit_learn():
    from sklearn.metrics import f1_score

    features = build(300, seed=5)
    x, y = features["embedding"], features["column:label"]
    grade = grade_student(x[:100], y[:100], x[100:], y[100:])
    from sklearn.linear_model import LogisticRegression

    predicted = LogisticRegression(C=10.0, max_iter=100, tol=1e-3).fit(x[:100], y[:100]).predict(x[100:])
    assert grade.accuracy.tolist() == (predicted == y[100:]).tolist()
    expected = f1_score(y[100:], predicted, labels=np.unique(y[100:]), average="macro", zero_division=0)
    assert grade.macro_f1.mean() == pytest.approx(expected, abs=1e-12)


def test_influences_on_macro_f1_are_its_derivatives():
    from thresher.selectors.pilot.student import _macro_f1

    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(4, size=60), rng.integers(5, size=60)
    values = _macro_f1(predicted, truth)

    def weighted(weight):
        f1 = []
        for c in np.unique(truth):
            right = weight[(truth == c) & (predicted == c)].sum()
            f1.append(2 * right / (weight[truth == c].sum() + weight[predicted == c].sum()))
        return np.mean(f1)

    for i in range(0, 60, 7):
        weight = np.ones(60)
        weight[i] += 1e-6
        slope = (weighted(weight) - weighted(np.ones(60))) / 1e-6
        assert values[i] - values.mean() == pytest.approx(60 * slope, abs=1e-4)


@pytest.mark.parametrize(("row_sd", "split_sd"), [(0.0, 0.0), (1.0, 0.0), (0.0, 0.3), (0.7, 0.2)])
def test_intervals_cover_where_rows_and_splits_vary(row_sd, split_sd):
    """Crossed effects of rows and of splits, a quarter of 200 rows in each of 12 splits."""
    rng = np.random.default_rng(0)
    n_covered = 0
    for _ in range(400):
        row, rows, gaps = row_sd * rng.normal(size=200), [], []
        for _ in range(12):
            rows.append(rng.choice(200, 50, replace=False))
            gaps.append(row[rows[-1]] + split_sd * rng.normal() + rng.normal(size=50))
        difference = estimate_difference(rows, gaps, 0.05)
        n_covered += difference.low <= 0 <= difference.high
    assert 0.91 < n_covered / 400 < 0.995


def test_the_multiplier_reads_the_curve_of_random_rows():
    sizes = np.array([1.0, 2.0, 4.0])
    control = np.tile([0.50, 0.60, 0.70], (10, 1))
    rng = np.random.default_rng(0)
    assert estimate_multiplier(sizes, control, np.full(10, 0.60), rng)[0] == pytest.approx(2.0)
    assert estimate_multiplier(sizes, control, np.full(10, 0.65), rng)[0] == pytest.approx(2 * 2**0.5)
    assert estimate_multiplier(sizes, control, np.full(10, 0.40), rng) == (1.0, 1.0, 1.0, 4.0)
    assert estimate_multiplier(sizes, control, np.full(10, 0.90), rng) == (4.0, 4.0, 4.0, 4.0)


def test_the_multiplier_levels_out_random_rows_whose_scores_fall():
    """0.5, 0.7, 0.6, 0.8 rises as 0.5, 0.65, 0.65, 0.8; 0.725 is half way from 2 to 4."""
    control = np.tile([0.5, 0.7, 0.6, 0.8], (10, 1))
    multiplier = estimate_multiplier(
        np.array([1.0, 1.5, 2.0, 4.0]), control, np.full(10, 0.725), np.random.default_rng(0)
    )
    assert multiplier.value == pytest.approx(2 * 2**0.5)


@pytest.mark.parametrize(
    ("multiplier", "text"),
    [
        (Multiplier(2.94, 2.1, 3.2, 4.0), "2.9 times as many random rows [2.1 to 3.2]"),
        (Multiplier(2.9, 2.1, 4.0, 4.0), "2.9 times as many random rows [2.1 to at least 4.0]"),
        (Multiplier(3.0, 2.1, 3.0, 3.0), "at least 3.0 times as many random rows [2.1 to at least 3.0]"),
        (Multiplier(4.0, 3.96, 4.0, 4.0), "at least 4.0 times as many random rows"),
        (Multiplier(4.0, 4.0, 4.0, 4.0), "at least 4.0 times as many random rows"),
    ],
)
def test_a_multiplier_at_the_largest_size_means_at_least_that(multiplier, text):
    assert str(multiplier) == text


def facts(labels, texts=None, *, kind="classification", roles=()):
    texts = [f"text {i}" for i in range(len(labels))] if texts is None else texts
    return PoolFacts(kind=kind, roles=set(roles), read=lambda: pl.DataFrame({"prompt": texts, "response": labels}))


def test_what_judges_follows_from_the_rows():
    assert Auto().adapt(facts(["a", "b"] * 9)).judge_by == "labels"
    assert Auto().adapt(facts([], kind="instruction")).judge_by == "nothing"
    assert Auto().adapt(facts([], kind="instruction", roles={"target"})).judge_by == "target"
    assert Auto(judge_by="nothing").requirements.features == frozenset()
    assert "target" in Auto(judge_by="target").requirements.required_roles
    with pytest.raises(SettingsError, match="metric"):
        Auto(metric="f1")


@pytest.mark.parametrize(
    ("labels", "texts", "judge"),
    [
        (["a"] * 30, None, "one-label"),
        (["a", "b"] * 15, ["the same"] * 30, "one-text"),
        ([f"label {i}" for i in range(30)], None, "lone-labels"),
        ([f"label {i % 1001}" for i in range(2002)], None, "many-labels"),
        ([f"label {i % 1000}" for i in range(2000)], None, "labels"),
        ([*[f"label {i}" for i in range(15)], *"ab" * 8], None, "labels"),
    ],
)
def test_labels_that_cannot_judge_are_seen_before_anything_is_computed(labels, texts, judge):
    adapted = Auto().adapt(facts(labels, texts))
    assert adapted.judge_by == judge
    if judge != "labels":
        assert adapted.requirements.features == frozenset()


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([("a", f"text {i}") for i in range(40)], "all rows have the same label"),
        ([("ab"[i % 2], "the same") for i in range(40)], "all rows have the same text"),
        ([(f"label {i}", f"text {i}") for i in range(40)], "most labels occur on only one row"),
        ([("ab"[i % 2], f"text {i}") for i in range(3)], "at least 50 are needed"),
        ([("a", "text")], "all rows have the same label"),
    ],
)
def test_every_labeled_pool_ends_in_rows_and_a_reason(rows, why):
    pool = [{"label": label, "text": text} for label, text in rows]
    for budget, reason in ((1, why), (len(rows) // 2 or 1, why), (len(rows), "random rows: all rows")):
        subset = th.select(pool, budget=budget, encoder="static")
        assert len(subset) == budget
        assert subset.manifest.content["pilot"]["chosen"] == "random"
        if budget < len(rows):
            assert reason in subset.manifest.content["pilot"]["why"]


def test_random_rows_are_those_of_the_method_random():
    pool = [{"label": "ab"[i % 2], "text": f"text {i}"} for i in range(60)]
    ours, plain = (th.select(pool, method, budget=9, encoder="static", seed=3) for method in ("auto", "random"))
    assert ours.manifest.content["pilot"]["chosen"] == "random"
    assert dict(ours.list_facts())["decision"] == ours.manifest.content["pilot"]["why"]
    assert "decision" not in dict(plain.list_facts())
    assert (ours.kept == plain.kept).all()


def test_without_labels_random_rows_are_taken_and_it_is_said():
    features = build(100)
    scores = run(features, 10, judge_by="nothing")
    plain = Uniform().score(features, n_ranked=10, rng=np.random.default_rng(0))
    assert (scores.value == plain.value).all()
    assert scores.pilot["why"].startswith("random rows: without labels or a target")
