"""Contradicting tasks need two experts; one expert is plain training."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import thresher as th
from tests.reporting.page_commands import read_page
from thresher.cli.experts import summarize
from thresher.cli.main import main
from thresher.errors import InputError, ManifestError, SettingsError
from thresher.experiments.experts.clusters import divide, divide_at_random
from thresher.experiments.experts.experts import Experts
from thresher.experiments.soups.soup import Soup

LEFT, RIGHT = "apple sky the", "leaf is 7 7"
SETTINGS = th.TrainSettings(
    max_steps=80, batch_size=12, max_length=16, lora_rank=1, lora_targets=("query", "value"), learning_rate=1e-2
)


def make_rows(start, stop):
    """Return rows of two tasks: the same colors, with the opposite label under the other words."""
    rows = []
    for number in range(start, stop):
        for color, label in (("red", "yes"), ("green", "no")):
            other = "no" if label == "yes" else "yes"
            rows.append({"text": f"{LEFT} {color} {number}", "label": label})
            rows.append({"text": f"{RIGHT} {color} {number}", "label": other})
    return rows


@pytest.fixture(scope="module")
def found(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    call = {"eval": make_rows(30, 45), "model": tiny_bert, "settings": SETTINGS, "encoder": "static", "common": 0.1}
    result = th.experts(make_rows(0, 15), k=2, out=folder / "two", **call)
    return folder, call, result


def test_two_experts_solve_what_one_adapter_of_rank_one_cannot(found, capsys):
    folder, call, result = found
    scores = result.content["scores"]
    assert scores["experts"] > 0.9
    assert scores["single"] < 0.75
    assert scores["random"] < 0.75
    for control in ("single", "random"):
        assert result.content["against"][control]["low"] > 0
    assert result.content["rows"] == [30, 30]
    assert result.content["agreement"] == 1.0
    paths = result.route([f"{LEFT} red 99", f"{RIGHT} red 99", f"{LEFT} green 3"])
    assert paths[0] == paths[2] != paths[1]
    assert (paths[0] / "adapter_config.json").is_file()
    texts = [f"{LEFT} red 99", f"{RIGHT} red 99"]  # each is answered by its own expert
    tried = th.open(folder / "two").predict(texts, device="cpu").group_by("text", maintain_order=True).first()
    assert tried["text"].to_list() == texts
    assert tried["label"].to_list() == ["yes", "no"]
    assert main(["try", str(folder / "two"), texts[1]]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[0] == "no"
    assert th.open(folder / "two").content == result.content
    again = th.experts(make_rows(0, 15), k=2, out=folder / "two", **call)
    assert again.content == result.content


def test_one_expert_is_plain_training(found, tmp_path):
    _, call, _ = found
    short = {**call, "settings": th.TrainSettings(max_steps=6, batch_size=12, max_length=16, lora_rank=1)}
    one = th.experts(make_rows(0, 15), k=1, out=tmp_path / "one", **short)
    plain = th.train(
        make_rows(0, 15), eval=short["eval"], model=short["model"], settings=short["settings"], out=tmp_path / "plain"
    )
    for name in ("adapter_model.safetensors", "head.safetensors"):
        assert (one.path / "experts" / "0" / name).read_bytes() == (plain.path / name).read_bytes()
    assert one.content["scores"]["experts"] == plain.metrics["held_out"]["accuracy"]["value"]
    assert one.content["against"] == {}


def test_experts_learn_rows_by_their_weights(tiny_bert, monkeypatch):
    seen = []

    def stop(run):
        seen.extend(row.weight for row in run.examples.rows)
        raise KeyboardInterrupt

    monkeypatch.setattr("thresher.experiments.experts.experts.run_seed", stop)
    rows = [{**row, "w": number % 2} for number, row in enumerate(make_rows(0, 4))]
    settings = replace(SETTINGS, weight="w")
    with pytest.raises(KeyboardInterrupt):
        th.experts(rows, k=2, eval=make_rows(30, 32), model=tiny_bert, settings=settings, encoder="static")
    assert seen == [1.0] * 8


def test_the_encoder_that_routes_is_named_in_the_result(found, tmp_path):
    _, call, _ = found
    short = {**call, "settings": th.TrainSettings(max_steps=2, batch_size=12, max_length=16), "encoder": None}
    result = th.experts(make_rows(0, 4), k=1, out=tmp_path / "auto", **short)
    assert result.content["encoder"] in ("static", "minilm")


def test_rows_are_divided_by_direction_and_questions_go_to_the_nearest_mean():
    rng = np.random.default_rng(0)
    base = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 60)]
    noisy = base + 0.05 * rng.normal(size=base.shape).astype(np.float32)
    unit = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    division = divide(unit, unit, np.eye(3, dtype=np.float32), 3, seed=0)
    assert len({tuple(set(division.cluster[base.argmax(1) == one])) for one in range(3)}) == 3
    assert sorted(division.route) == [0, 1, 2]
    shuffled = divide_at_random(division, seed=0)
    assert np.bincount(shuffled.cluster).tolist() == np.bincount(division.cluster).tolist()
    assert (shuffled.cluster != division.cluster).any()


def test_kinds_that_cannot_be_continued_are_refused():
    with pytest.raises(SettingsError, match="must be one of lora, loraplus, lorafa, half, got 'vera'"):
        th.experts(pl.DataFrame(make_rows(0, 3)), eval="10%", settings=th.TrainSettings(adapter="vera"))


def test_clusters_of_gradients_tell_the_tasks_apart_too(found, tmp_path):
    """Rows of both tasks share their color and number; what separates them is what they teach."""
    _, call, _ = found
    result = th.experts(make_rows(0, 15), k=2, clusters="gradient", **call)
    assert result.content["scores"]["experts"] > 0.9
    assert result.content["against"]["single"]["low"] > 0
    assert result.content["agreement"] > 0.9  # their own prompts say which rows are of which task


def test_more_experts_than_rows_are_refused_and_fewer_clusters_than_asked_for_are_told(found):
    _, call, _ = found
    short = {**call, "settings": th.TrainSettings(max_steps=2, batch_size=12, max_length=16)}
    with pytest.raises(InputError, match="each needs a row, got 9 for 8 rows; ask for fewer"):
        th.experts(make_rows(0, 2), k=9, **short)
    alike = [{"text": "the sky", "label": label} for label in ("yes", "no") for _ in range(3)]
    result = th.experts([*alike, {"text": "a leaf", "label": "no"}], k=4, **short)
    assert "4 experts were asked for; the rows are so alike that they make 2" in summarize(result)


def test_train_with_experts_is_the_same_and_refuses_what_has_no_meaning_for_them(found, tmp_path, capsys):
    folder, call, result = found
    for name, rows in (("rows", make_rows(0, 15)), ("test", call["eval"])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["train", str(tmp_path / "rows.jsonl"), "--model", str(call["model"]), "--max-steps", "2"]
    words += ["--max-length", "16", "--out", str(tmp_path / "out")]
    held_out = ["--eval", str(tmp_path / "test.jsonl")]
    assert main([*words, *held_out, "--experts", "2", "--common", "0.5", "--encoder", "static"]) == 0
    assert "2 experts: accuracy" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out" / "experts").iterdir()) == ["0", "1"]
    page, repeated = read_page(tmp_path / "out")
    verdict = th.open(tmp_path / "out").content["against"]["single"]["verdict"]
    assert verdict[1:] in page
    assert "experts/1" in page
    assert repeated[:3] == ["thresher", "train", str(tmp_path / "rows.jsonl")]
    assert repeated[repeated.index("--experts") :][:2] == ["--experts", "2"]
    assert ["--eval", str(tmp_path / "test.jsonl")] == repeated[repeated.index("--eval") :][:2]
    assert repeated[repeated.index("--max-steps") :][:2] == ["--max-steps", "2"]
    capsys.readouterr()
    for more, said in (
        (["--experts", "2"], "found none; give --eval"),
        ([*held_out, "--experts", "2", "--merge", "--shots", "4"], "got merge, shots; leave it out"),
        ([*held_out, "--common", "0.1"], "common divides rows among experts, got no number of them; give experts"),
    ):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err


def test_each_expert_is_loaded_once_and_messages_count_the_callers_texts(tmp_path, monkeypatch):
    loaded, checked = [], []

    class Generator:
        def __init__(self, context):
            self.model = context.models.model
            loaded.append(self.model)

        def generate(self, turns, decoding, stage, context):
            texts = [json.loads(turn)["messages"][0]["content"] for turn in turns]
            return [
                (
                    SimpleNamespace(
                        problem="it is too long" if "long" in text else None,
                        text=f"{Path(self.model).name} {text}",
                        is_cut=False,
                    ),
                )
                for text in texts
            ]

    monkeypatch.setattr("thresher.models.generation.local.LocalGenerator", Generator)
    monkeypatch.setattr("thresher.trainer.deployment.predict.find_damage", checked.append)
    monkeypatch.setattr(
        "thresher.trainer.deployment.predict.name_sides", lambda folder, _: {"base": "b", "adapter": str(folder)}
    )
    monkeypatch.setattr(Experts, "route", lambda self, texts: [tmp_path / text[0] for text in texts])
    own = Experts(content={"k": 2, "trained": {"task": "sft"}}, path=tmp_path, manifest=None)
    answers = own.predict(["1 a", "0 b", "1 c", "0 d"])
    assert answers["adapter"].to_list() == ["1 1 a", "0 0 b", "1 1 c", "0 0 d"]
    assert answers["base"].to_list() == ["b 1 a", "b 0 b", "b 1 c", "b 0 d"]
    assert loaded == ["b", str(tmp_path / "1"), str(tmp_path / "0")]
    assert checked == [tmp_path]
    with pytest.raises(InputError, match="text 3: cannot be answered"):
        own.predict(["1 a", "0 b", "1 long"])


@pytest.mark.parametrize(("kind", "again"), [(Experts, "train the experts again"), (Soup, "merge the adapters again")])
def test_a_folder_of_an_earlier_version_and_a_damaged_one_say_what_to_do(kind, again, tmp_path, monkeypatch):
    old = kind(content={"k": 1}, path=tmp_path, manifest=None)
    with pytest.raises(ManifestError, match=f"an earlier version wrote this folder.*; {again}"):
        old.predict("a text")
    monkeypatch.setattr("thresher.trainer.deployment.predict.find_damage", lambda _: "a file is damaged")
    with pytest.raises(ManifestError, match=f"a file is damaged; {again}"):
        kind(content={"k": 1, "trained": {"task": "sft"}}, path=tmp_path, manifest=None).predict("a text")
