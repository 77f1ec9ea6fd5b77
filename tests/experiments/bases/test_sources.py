"""`base sources`: nearness, leaks and conflicts, then cells with other data and without."""

import json

import numpy as np
import pytest

import thresher as th
from thresher.cli.base import summarize_sources
from thresher.dataset import load
from thresher.errors import InputError, SettingsError
from thresher.experiments.bases.closeness import Closeness, OwnRows, describe_distance
from thresher.experiments.bases.sources import describe_sources
from thresher.features.context import make_context
from thresher.numeric.optimal_transport import compute_transport_distance
from thresher.selection.pool_adapters import get_adapter_cache
from thresher.trainer.settings import TrainSettings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
QUICK = TrainSettings(max_steps=3, batch_size=8, max_length=32)
THINGS = {"red": "apple", "green": "leaf", "blue": "sky"}


def make_rows(n, seed, *, words=("bright", "small", "old", "far")):
    rng = np.random.default_rng(seed)
    colors = list(THINGS)
    return [
        {"text": f"the {rng.choice(words)} {THINGS[color]} number {rng.integers(10_000)} is here", "label": color}
        for color in (colors[i % 3] for i in range(n))
    ]


def shuffle_labels(rows):
    labels = np.random.default_rng(0).permutation([row["label"] for row in rows])
    return [{**row, "label": str(label)} for row, label in zip(rows, labels, strict=True)]


@pytest.fixture(scope="module")
def call(tiny_bert, tmp_path_factory):
    own, copy = make_rows(90, 0), make_rows(60, 1)
    news = [{"text": f"stocks fell by {i} percent in Tokyo on Monday", "label": "business"} for i in range(60)]
    leaky = [*make_rows(40, 2), *({**row, "label": "red"} for row in make_rows(90, 0)[:20])]
    return {
        "pool": own,
        "eval": make_rows(40, 3),
        "candidates": [th.Source(copy, name="copy"), th.Source(news, name="news"), th.Source(leaky, name="leaky")],
        "model": tiny_bert,
        "settings": QUICK,
        "encoder": "static",
        "seeds": 2,
        "shares": (0.5,),
        "train_rows": 30,
        "confirm": 2,
        "out": tmp_path_factory.mktemp("sources") / "out",
    }


@pytest.fixture(scope="module")
def ranking(call):
    return th.rank_sources(**call)


def test_the_copy_in_other_words_is_nearest_and_the_news_are_farthest(ranking):
    near = {each["name"]: each for each in ranking.content["candidates"]}
    assert list(near)[-1] == "news"
    assert near["news"]["distance"] > 2 * near["copy"]["distance"]
    assert near["copy"]["similarity"] > 0.99 > near["news"]["similarity"]
    assert near["copy"]["distance"] < 1.3 * ranking.content["own_distance"]
    assert near["leaky"]["repeats"] == pytest.approx(20 / 60)
    assert near["leaky"]["conflicts"] > near["copy"]["conflicts"]
    assert near["news"]["conflicts"] is None


def test_every_mix_is_trained_on_the_same_own_rows_for_as_many_steps(ranking, call):
    cells = ranking.path / "cells.csv"
    lines = [line.split(",") for line in cells.read_text().splitlines()]
    place = {name: i for i, name in enumerate(lines[0])}
    arms = {line[place["arm"]]: line for line in lines[1:]}
    assert set(arms) == {
        "own rows alone", "copy at 50 %", "leaky at 50 %", "copy first", "leaky first"
    }  # fmt: skip
    assert {arm: line[place["n_rows"]] for arm, line in arms.items() if "at" in arm} == {
        "copy at 50 %": "60", "leaky at 50 %": "60"
    }  # fmt: skip
    keys = {line[place["cell"]] for line in lines[1:]}
    assert len(keys) == 5 * 2  # what was learned first is part of what a cell is
    assert {arms[arm][place["n_rows"]] for arm in ("own rows alone", "copy first", "leaky first")} == {"30"}
    # what was learned first takes its share of the steps: 30 other rows, then 30 own ones
    steps = {arm: int(line[place["steps"]]) for arm, line in arms.items()}
    assert {steps[arm] for arm in arms if "first" not in arm} == {3}
    assert {steps[arm] for arm in arms if "first" in arm} == {1}
    starts = get_adapter_cache().root.glob("*/manifest.json")
    assert {json.loads(path.read_text()).get("n_steps") for path in starts} >= {2}
    assert len(ranking.content["verdicts"]) == 4
    # three steps teach nothing
    assert "no other data set clearly helps" in ranking.content["answer"]


def test_the_same_call_reads_the_folder(ranking, call):
    again = th.rank_sources(**call)
    assert again.content == ranking.content
    assert th.open(ranking.path).table.equals(ranking.table)
    assert ranking.content["answer"] in summarize_sources(ranking)
    assert "leaky at 50 %" in summarize_sources(ranking)


def test_the_page_has_the_verdicts_and_the_distances(ranking):
    page = th.report(ranking.path).read_text()
    assert "own rows alone" in page
    assert "transport distance" in page
    assert "thresher base sources" in page


def test_rows_that_ask_what_a_test_row_asks_are_counted_and_left_out(call):
    leaky = [*make_rows(30, 5), *make_rows(40, 3)[:10]]
    result = th.rank_sources(**{**call, "candidates": [leaky], "confirm": 0, "out": None})
    (found,) = result.content["candidates"]
    assert found["leaks"] == pytest.approx(10 / 40)
    assert "nothing was trained" in result.content["answer"]


def test_a_copy_with_shuffled_labels_is_as_near_and_full_of_conflicts(call):
    rows = load(make_rows(90, 0))
    own = OwnRows.embed(rows, load(make_rows(40, 3)), make_context(encoder="static").resolved(), 90)
    copy = make_rows(60, 1)
    honest, shuffled = (own.compare("copy", load(each)) for each in (copy, shuffle_labels(copy)))
    assert shuffled.distance == pytest.approx(honest.distance, abs=0.05)
    assert honest.conflicts < 0.1
    assert shuffled.conflicts > 0.5


def test_transport_is_the_cheapest_pairing():
    rng = np.random.default_rng(0)
    ours, theirs = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.standard_normal((2, 5, 3)))
    from itertools import permutations

    slow = min(np.mean([1 - ours[i] @ theirs[j] for i, j in enumerate(order)]) for order in permutations(range(5)))
    assert compute_transport_distance(ours, theirs) == pytest.approx(slow)
    assert compute_transport_distance(ours, ours[::-1]) == pytest.approx(0)


def make_verdict(name, value, low, high, p):
    word = "better" if value > 0 else "worse"
    verdict = word if p < 0.05 else "no difference"
    return {
        "candidate": name, "share": 0.5, "arm": f"{name} at 50 %", "verdict": verdict, "p_holm": p,
        "difference": {"value": value, "low": low, "high": high}, "sentence": f"{word} by {abs(value)}",
    }  # fmt: skip


def test_the_answer_names_the_best_mix_and_what_harms():
    near = [Closeness(name="a", n_rows=5, similarity=1, distance=0, leaks=0, repeats=0, conflicts=None, n_conflicts=0)]
    helps, harms = make_verdict("a", 0.1, 0.05, 0.2, 0.01), make_verdict("b", -0.3, -0.4, -0.2, 0.001)
    nothing = make_verdict("c", 0.01, -0.1, 0.1, 0.8)
    assert describe_sources(near, [helps, harms, nothing]) == (
        "mix in a at 50 %: better by 0.1 than your own rows alone; b at 50 % is worse by 0.3"
    )
    assert describe_sources(near, [nothing]) == "no other data set clearly helps"


def test_a_candidate_of_test_rows_alone_is_not_trained_on(call):
    notes = []
    options = {"candidates": [call["eval"]], "rows": 20, "on_progress": lambda event: notes.append(event.stage)}
    result = th.rank_sources(call["pool"], eval=call["eval"], **options)
    assert result.content["answer"].endswith("nothing was trained: all of its rows ask what a test row asks")
    assert set(notes) == {"candidates", "embedding"}


def test_all_arms_have_the_same_head_where_a_candidate_has_labels_of_its_own(call, monkeypatch):
    heads = {}

    class Stop(Exception):
        pass

    def run(_, experiment, cells, *, stage):
        heads[stage] = experiment.labels
        if stage == "mixes":
            raise Stop

    monkeypatch.setattr("thresher.experiments.cells.arms.ArmRunner.run", run)
    with pytest.raises(Stop):
        th.rank_sources(**{**call, "candidates": call["candidates"][1:2], "out": None})
    assert heads["own rows alone"] == heads["mixes"] == ("blue", "business", "green", "red")


def test_bad_requests_are_refused_in_one_sentence(call):
    with pytest.raises(SettingsError, match="at least one candidate is needed"):
        th.rank_sources(call["pool"], candidates=[])
    with pytest.raises(InputError, match=r"must hold rows of the kind of your own \(classification\), found sft"):
        th.rank_sources(call["pool"], eval=call["eval"], candidates=[[{"prompt": "a", "completion": "b"}] * 3])
    with pytest.raises(SettingsError, match="shares must hold at least one share"):
        th.rank_sources(call["pool"], candidates=[call["pool"]], shares=(), before=False)


def test_a_small_data_set_lies_no_farther_for_being_small():
    rng = np.random.default_rng(0)

    def draw(n, shift):
        x = rng.standard_normal((n, 32)).astype(np.float32)
        x[:, 0] += 3
        x[:, 1] += shift
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    own = OwnRows(rows=None, test=None, sample=None, vectors=draw(400, 0), context=None, n_compared=400)
    few, many, others = own._measure_distance(draw(20, 0)), own._measure_distance(draw(300, 0)), draw(300, 1.5)
    assert few == pytest.approx(own.own_distance, abs=0.06)
    assert many == pytest.approx(own.own_distance, abs=0.02)
    # 20 rows of the same kind pair farther apart than 200 do
    assert compute_transport_distance(own.vectors[:20], draw(20, 0)) > many + 0.05
    assert own._measure_distance(others) > few


def test_one_or_two_rows_have_no_distance():
    vectors = np.eye(20, dtype=np.float32)
    own = OwnRows(rows=None, test=None, sample=None, vectors=vectors, context=None, n_compared=20)
    assert own._measure_distance(vectors[:2]) is None
    assert own._measure_distance(vectors[:5]) is not None
    few = OwnRows(rows=None, test=None, sample=None, vectors=vectors[:8], context=None, n_compared=20)
    assert few.own_distance is None
    assert few._measure_distance(vectors) is None
    row = Closeness(name="a", n_rows=2, similarity=1, distance=None, leaks=0, repeats=0, conflicts=None, n_conflicts=0)
    assert "too few rows for a distance (at least 5, and 10 of your own)" in row.describe()
    assert describe_distance([row], 0.5).endswith("a distance needs at least 5 rows, and 10 of your own")
