"""`mix` from several sources to shares, region, further rows and verdict."""

import json
import shlex

import numpy as np
import pytest

import thresher as th
from thresher.cli.main import main
from thresher.cli.mix import summarize
from thresher.dataset import load
from thresher.errors import InputError, SettingsError
from thresher.evaluation.metric import find_unit
from thresher.experiments.mixing.design import Sources, count_rows
from thresher.experiments.mixing.mix import describe_gain, describe_mix
from thresher.trainer.settings import TrainSettings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
GOOD, WRONG = "good, or so", "wrong=1"  # names that a quota must quote
QUICK = TrainSettings(max_steps=2, batch_size=8, max_length=32)


def make_rows(n, source, seed, *, is_wrong=False):
    rng = np.random.default_rng(seed)
    things = {"red": "apple", "green": "leaf", "blue": "sky"}
    rows = []
    for number in range(n):
        color = list(things)[number % 3]
        said = list(things)[rng.integers(3)] if is_wrong else color
        text = f"the {things[color]} is {rng.integers(10_000)} {number}"
        rows.append({"text": text, "label": said, "source": source})
    return rows


@pytest.fixture(scope="module")
def call(tiny_bert, tmp_path_factory):
    return {
        "pool": [*make_rows(60, GOOD, 0), *make_rows(60, WRONG, 1, is_wrong=True)],
        "eval": make_rows(45, "test", 2),
        "model": tiny_bert,
        "settings": QUICK,
        "rows": 48,
        "mixes": 8,
        "next_rows": 30,
        "seeds": 2,
        "out": tmp_path_factory.mktemp("mix") / "out",
    }


@pytest.fixture(scope="module")
def result(call):
    return th.mix(**call)


def test_correct_labels_get_the_larger_share_and_wrong_ones_are_outside_of_the_region(result):
    sources = {each["name"]: each for each in result.content["sources"]}
    assert result.shares[GOOD] > 0.5
    assert sum(result.shares.values()) == pytest.approx(1)
    assert sources[WRONG]["high"] < 1
    assert sources[GOOD]["low"] <= result.shares[GOOD] <= sources[GOOD]["high"]
    assert result.content["quota"].startswith('source:"good, or so"=')
    assert result.content["metric"] == "loss"


def test_further_rows_have_a_value_with_an_interval(result):
    for each in result.content["sources"]:
        more = each["next"]
        left = 60 - round(each["share"] * 48)
        assert more["rows"] == min(30, left)
        assert more["low"] <= more["value"] <= more["high"]


def test_the_mixes_fill_the_space_and_keep_their_shares(result):
    mixes = result.table
    assert len(mixes) == 8
    assert mixes[f"share of {GOOD}"][0] == pytest.approx(0.5)
    assert {0.0, 1.0} <= {round(share, 9) for share in mixes[f"share of {GOOD}"]}
    assert sorted(set(mixes["n_rows"])) == [24, 48]
    assert mixes["value"].null_count() == 0


def test_the_best_shares_are_compared_with_equal_ones(result):
    verdict = result.content["verdict"]
    assert (verdict["arm"], verdict["against"]) == ("best shares", "equal shares")
    assert verdict["sentence"] in result.content["answer"]
    cells = (result.path / "cells.csv").read_text().splitlines()
    assert len(cells) == 1 + 8 + 2 * 2


def test_the_same_call_reads_the_folder_and_the_summary_has_the_quota(result, call):
    again = th.mix(**call)
    assert again.content == result.content
    assert th.open(result.path).table.equals(result.table)
    assert shlex.quote(result.content["quota"]) in summarize(result)
    assert "Mixes trained" in th.report(result.path).read_text()
    quota = result.content["quota"]
    subset = th.select(call["pool"], "random", budget=20, quota=quota)
    kept = [call["pool"][i]["source"] for i in subset.kept]
    assert kept.count(GOOD) == pytest.approx(20 * result.shares[GOOD], abs=1)


def test_a_replay_is_a_source_and_forgetting_keeps_to_its_bound(tiny_llama, question_rows, tmp_path):
    other = [{"prompt": f"say {word}", "completion": word} for word in ("one", "two", "three", "four") for _ in (0, 1)]
    other = [{**row, "prompt": f"{row['prompt']} {i}"} for i, row in enumerate(other * 3)]
    settings = TrainSettings(max_steps=2, batch_size=8, max_length=64, learning_rate=0.02)
    rows = [{**row, "source": "sums"} for row in question_rows]
    result = th.mix(
        rows,
        eval="25%",
        model=tiny_llama,
        settings=settings,
        replay=other,
        rows=20,
        mixes=8,
        seeds=2,
        out=tmp_path / "o",
    )
    names = [each["name"] for each in result.content["sources"]]
    assert names == ["sums", "replay"]
    assert result.content["expected_forgetting"]["low"] <= result.content["expected_forgetting"]["value"]
    assert result.table["forgotten"].null_count() == 0
    assert result.content["quota"] is None
    shown = summarize(result)
    assert "the limit is 0.02, kept with a probability of" in shown
    assert shown.count("Measured: the model trained with ") == 2  # best and equal shares
    assert "Measured: the model trained with best shares " in th.report(result.path).read_text()
    assert ("no mix keeps forgetting within 0.02" in result.content["answer"]) is not result.content["keeps_bound"]
    assert "forget" in th.report(result.path).read_text()


def test_rows_of_each_source_are_whole_numbers_and_nested():
    assert count_rows(np.array([0.5, 0.3, 0.2]), 11, [9, 9, 9]).sum() == 11
    assert count_rows(np.array([0.5, 0.3, 0.2]), 10, [9, 9, 9]).tolist() == [5, 3, 2]
    assert count_rows(np.array([1.0, 0.0]), 10, [4, 9]).tolist() == [4, 0]
    pool = load([*make_rows(30, "a", 0), *make_rows(30, "b", 1)])
    sources = Sources.read(pool, "source", 40)
    few, many = (sources.sample(np.array([0.5, 0.5]), n, seed=3) for n in (10, 20))
    assert set(few) < set(many)
    assert len(set(many)) == 20
    assert Sources.read(pool, "source", None).n_rows == 30  # half of all rows


def test_the_answer_says_where_equal_shares_are():
    sources = [
        {"name": "a", "share": 0.7, "low": 0.5, "high": 0.9},
        {"name": "b", "share": 0.3, "low": 0.1, "high": 0.5},
    ]
    assert describe_mix(sources, None, is_equal=True) == (
        "a 70% [50, 90], b 30% [10, 50]; equal shares are within the region"
    )
    said = describe_mix(sources, {"sentence": "no difference seen"}, is_equal=False)
    assert said.endswith("against equal shares: no difference seen")


def test_bad_requests_are_refused_in_one_sentence(call, tmp_path, capsys):
    rows = call["pool"]
    with pytest.raises(InputError, match="needs 2 to 8 sources, found 1 by source"):
        th.mix(rows[:60], eval=call["eval"], model=call["model"])
    with pytest.raises(InputError, match="rows must be fewer than the 120 rows .* got 120; leave --rows out"):
        th.mix(rows, eval=call["eval"], model=call["model"], rows=120)
    more = [{**row, "source": name} for row, name in zip(rows, "abc" * 40, strict=True)]
    with pytest.raises(InputError, match="mixes must be at least 7 for the law of 3 sources, got 6"):
        th.mix(more, eval=call["eval"], model=call["model"], mixes=6)
    with pytest.raises(SettingsError, match="seeds must be 0, or 2 or more"):
        th.mix(rows, eval=call["eval"], seeds=1)
    with pytest.raises(InputError, match="replay: a classifier writes no text"):
        th.mix(rows, eval=call["eval"], replay=[{"text": "a"}], model=call["model"])
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["mix", str(path), "--eval", "20%", "--by", "author"]) == 2
    assert "author" in capsys.readouterr().err


def test_what_further_rows_bring_is_told_in_the_unit_of_the_metric():
    gains = np.full(400, 0.25)
    sentences = {
        "loss": "30 more rows: +0.250 nats [+0.250, +0.250]",
        "accuracy": "30 more rows: +25.0 points [+25.0, +25.0]",
        "words_kept-0a1b2c3d": "30 more rows: +0.250 of words_kept [+0.250, +0.250]",
    }
    for metric, sentence in sentences.items():
        assert describe_gain(30, gains, find_unit(metric))["sentence"] == sentence


def test_a_mix_is_found_by_the_sources_of_its_rows(tiny_bert, monkeypatch):
    seen = []

    def stop(identity, *_, **__):
        seen.append(identity)
        raise KeyboardInterrupt

    monkeypatch.setattr("thresher.experiments.mixing.mix.run_in_folder", stop)
    for flip in (0, 0, 1):
        rows = [{"text": f"the sky {i}", "label": "ab"[i % 2], "topic": "xy"[(i // 2 + flip) % 2]} for i in range(48)]
        with pytest.raises(KeyboardInterrupt):
            th.mix(rows[:40], eval=rows[40:], by="topic", rows=20, model=tiny_bert)
    assert seen[0] == seen[1] != seen[2]
