"""`base rank` from rows to folder, page and verdict."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.cli.main import main
from thresher.errors import InputError, SettingsError
from thresher.experiments.bases import rank
from thresher.experiments.bases.answers import AnswerScores, score_answers
from thresher.experiments.bases.candidates import Candidate, read_license
from thresher.experiments.bases.settings import BaseRankSettings
from thresher.experiments.experiment import load_experiment
from thresher.trainer.settings import TrainSettings
from thresher.trainer.untouched.row_zero import measure_base

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
QUICK = TrainSettings(max_steps=2, batch_size=8, max_length=32)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    things = {"red": "apple", "green": "leaf", "blue": "sky"}
    return [
        {"text": f"the {thing} is {rng.integers(1000)} {number}", "label": color}
        for number in range(30)
        for color, thing in things.items()
    ]


@pytest.fixture(scope="module")
def noise(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("vectors") / "noise.npy"
    np.save(path, np.random.default_rng(0).standard_normal((len(rows), 200)).astype(np.float32))
    return str(path)


@pytest.fixture(scope="module")
def call(rows, noise, tiny_bert, tiny_llama, tmp_path_factory):
    models = [noise, str(tiny_bert), "static", str(tiny_llama)]
    out = tmp_path_factory.mktemp("bases") / "out"
    return {"pool": rows, "models": models, "confirm": 2, "seeds": 2, "settings": QUICK, "out": out}


@pytest.fixture(scope="module")
def ranking(call):
    return th.rank_bases(call["pool"], **{name: value for name, value in call.items() if name != "pool"})


def test_noise_is_last_and_every_model_has_its_line(ranking, noise, tiny_bert):
    table = ranking.table
    assert table["model"][-1] == noise
    assert table["model"][0] in ("static", str(tiny_bert))
    assert table["rank"].to_list() == [1, 2, 3, 4]
    first = dict(zip(table["model"], table.iter_rows(named=True), strict=True))
    assert first["static"]["license"] == "apache-2.0"
    assert first["static"]["regression"] == 1.0
    assert first[noise]["ms_per_row"] is None
    assert first[str(tiny_bert)]["parameters"] > 10_000
    assert first[str(tiny_bert)]["ms_per_row"] > 0
    assert first[noise]["h_score"] < 0.2 < first["static"]["h_score"]
    assert ranking.content["rows"] == 72  # of 90, less a fifth that is held out


def test_the_first_two_that_can_be_trained_are_compared(ranking, noise):
    confirmed = ranking.content["confirmed"]
    assert [noise, "static"] == sorted(confirmed["left_out"], key=lambda name: name == "static")
    (verdict,) = confirmed["verdicts"]
    assert verdict["sentence"] in ranking.content["answer"]
    cells = (ranking.path / "cells.csv").read_text().splitlines()
    assert len(cells) == 1 + 2 * 2
    assert all(",done," in line for line in cells[1:])


def test_the_same_call_reads_the_folder_and_the_cache(ranking, call, tmp_path):
    options = {name: value for name, value in call.items() if name != "pool"}
    stamp = (ranking.path / "manifest.json").stat().st_mtime_ns
    again = th.rank_bases(call["pool"], **options)
    assert again.content == ranking.content
    assert (ranking.path / "manifest.json").stat().st_mtime_ns == stamp
    assert th.open(ranking.path).table.equals(ranking.table)
    notes = []
    moved = th.rank_bases(
        call["pool"], **{**options, "out": tmp_path / "moved"}, on_progress=lambda event: notes.append(event.note or "")
    )
    assert moved.table.equals(ranking.table)  # with the times of what was read before
    assert sum("from the cache" in note for note in notes) == 4


def test_the_page_begins_with_the_answer(ranking):
    page = th.report(ranking.path).read_text()
    assert ranking.content["answer"].split(":")[0].lower() in page.lower()
    assert "apache-2.0" in page
    assert "thresher base rank" in page


def test_language_models_are_ranked_by_bits_per_byte(tiny_llama, plain_llama, question_rows, tmp_path):
    result = th.rank_bases(
        question_rows, models=[str(tiny_llama), "tiny"], eval="25%", out=tmp_path / "out", settings=QUICK, shots=(0, 2)
    )
    assert {"bits_per_byte_0", "bits_per_byte_2"} < set(result.table.columns)
    assert result.table["bits_per_byte"].to_list() == result.table["bits_per_byte_2"].to_list()
    assert result.table["bits_per_byte"].is_sorted()
    assert result.content["confirmed"] is None
    assert "--confirm 2" in th.report(result.path).read_text()


def test_bits_per_byte_count_all_turns_that_are_learned(tiny_llama):
    def build_row(number, first, last, **flags):
        turns = [("user", f"say {number}"), ("assistant", first), ("user", "and now?"), ("assistant", last)]
        turns = [{"role": role, "content": text} for role, text in turns]
        turns[1] |= flags
        return {"messages": turns}

    pool = [build_row(10 + i, f"a {i}", f"b {i}") for i in range(12)]
    # é takes two bytes; a turn of weight 0 is not learned; the last row does not fit
    test = [build_row(1, "one two 7", "né"), build_row(2, "seven", "no", weight=0), build_row(3, "x " * 300, "yes")]
    sizes = [9 + 3, 2]
    settings = BaseRankSettings(
        models=(str(tiny_llama), "tiny"), model=str(tiny_llama), settings=replace(QUICK, max_length=128)
    ).choose_shots("sft")
    experiment = load_experiment(pool, eval=test, settings=replace(settings, shots=(0,)))
    scores = score_answers(Candidate.find(str(tiny_llama), "sft"), experiment)
    assert sorted(scores.n_bytes) == sorted(sizes)
    (measured,) = measure_base(replace(experiment, model=str(tiny_llama)).build_context(experiment.pool, seed=0))
    losses = dict(zip(measured.outcomes["row_id"], measured.outcomes["loss"], strict=True))
    expected = sum(losses[row_id] for row_id in scores.row_ids) / np.log(2) / sum(sizes)
    assert scores.scores["bits_per_byte"] == pytest.approx(expected, rel=1e-12)


def test_the_command_prints_the_order(rows, tiny_bert, tmp_path, capsys):
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = main(
        ["base", "rank", str(path), "--models", f"{tiny_bert},static", "--out", str(tmp_path / "out"), "--no-page"]
    )
    printed = capsys.readouterr().err
    assert code == 0
    assert "rank" in printed
    assert "Brier score" in printed
    assert "apache-2.0" in printed


def test_bad_requests_are_refused_in_one_sentence(rows, question_rows, noise, tmp_path):
    with pytest.raises(SettingsError, match="at least 2 different models, got static"):
        th.rank_bases(rows, models=["static"])
    with pytest.raises(SettingsError, match="confirm must be 0, or from 2 to the 2 models"):
        th.rank_bases(rows, models=["static", "tiny"], confirm=3)
    with pytest.raises(InputError, match="confirm trains 2 models, and 1 of those"):
        th.rank_bases(rows, models=["static", "tiny"], confirm=2)
    with pytest.raises(InputError, match="must be language models where rows have answers, got 'static'"):
        th.rank_bases(question_rows, models=["static", "tiny"])
    with pytest.raises(InputError, match=r"shape \(60, d\).*found float32 of shape \(90, 200\)"):
        th.rank_bases(rows[:60], models=["static", noise])
    with pytest.raises(InputError, match=r"names the vectors missing.npy, found no such file"):
        th.rank_bases(rows, models=["static", "missing.npy"])
    with pytest.raises(SettingsError, match="shots: training rows are put into prompts"):
        th.rank_bases(rows, models=["static", "tiny"], shots=(3,))
    with pytest.raises(InputError, match="at least two labels"):
        th.rank_bases([{"text": f"a {i}", "label": "x"} for i in range(40)], models=["static", "minilm"])


def test_the_license_is_read_from_the_card_or_the_file(tmp_path):
    assert read_license(tmp_path) == "not stated"
    (tmp_path / "LICENSE").write_text("\n  Some License, version 3\nmore")
    assert read_license(tmp_path) == "Some License, version 3"
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n")
    assert read_license(tmp_path) == "mit"


def test_all_scores_are_of_the_rows_that_every_model_can_read(monkeypatch):
    """Over its own rows, the first model has 4 bits per byte, for a hard row that only it reads."""
    losses = {"wide": {"a": 8.0, "b": 8.0, "c": 80.0}, "narrow": {"a": 9.0, "b": 9.0}}

    def score(candidate, _):
        own = losses[candidate.name]
        table = pl.DataFrame({"row_id": list(own), "loss": [bits * np.log(2) for bits in own.values()]})
        table = table.with_columns(n_bytes=pl.lit(8), exact_match=pl.Series([True, False, True][: len(own)]))
        return AnswerScores(kind="sft", tables={0: table}, ms_per_row=None)

    monkeypatch.setattr(rank, "score_answers", score)
    experiment = SimpleNamespace(test=range(3), pool=SimpleNamespace(kind="sft"))
    candidates = [SimpleNamespace(name=name) for name in losses]
    ranker = rank._Ranker(SimpleNamespace(rows=10, confirm=0), experiment, None, candidates, None)
    lines, ranks, about = ranker._rank_by_answers()
    assert [lines[name]["bits_per_byte_0"] for name in losses] == pytest.approx([1.0, 9 / 8])
    assert [lines[name]["exact_match_0"] for name in losses] == [0.5, 0.5]
    assert [each.name for each in ranks] == ["wide", "narrow"]
    assert about["rows"] == 2
    assert about["rows_left_out"] == {"wide": 0, "narrow": 1}
    assert about["rows_note"] == "1 of 3 rows left out, because a model cannot read them whole: narrow 1"
    table = pl.DataFrame([{"model": name, **lines[name]} for name in losses])
    assert rank._name_firsts(table, "bits_per_byte") == {"bits_per_byte_0": "wide"}
