"""Refusals in the place of what a model does not know: by draws that disagree and are all wrong."""

import json
import math
from types import SimpleNamespace

import polars as pl
import pytest

import thresher as th
from tests.reporting.page_commands import read_page
from thresher.cli.main import main
from thresher.curation.correction.abstain import decide_abstentions
from thresher.curation.correction.settings import ABSTENTION, CorrectSettings
from thresher.errors import SettingsError
from thresher.features import FeatureContext
from thresher.features.answers.prompts import PromptRows
from thresher.models.generation import load as asked
from thresher.models.generation.generator import Generation
from thresher.models.settings import ModelSettings
from thresher.reporting.pages.labels.commands import build_label_words

ROWS = [
    {"prompt": "capital of France?", "completion": "Paris", "by": "x"},
    {"prompt": "capital of Palau?", "completion": "Ngerulmud", "by": "y"},
    {"prompt": "capital of Nauru?", "completion": "Yaren", "by": "z"},
    {"prompt": "capital of Peru?", "completion": "Lima", "by": "z"},
    {"prompt": "capital of nowhere?", "completion": "none", "by": "z"},
]
DRAWN = {
    "France": ["Paris", "paris", "Paris.", "Paris"],
    "Palau": ["Koror", "Tokyo", "Melekeok town", "Fiji islands"],  # all different, none right
    "Nauru": ["Tokyo", "Yaren", "Fiji islands", "banana bread"],  # different, but one is right
    "Peru": ["Quito", "Quito", "Quito", "quito"],  # sure, and wrong: not what it does not know
    "nowhere": [None] * 4,
}


class Writer:
    name, fingerprint = "writer", "w"

    def generate(self, conversations, decoding, *, stage, context):
        assert decoding.n_samples == 4
        return [
            [Generation(text, problem=None if text else "no room") for text in drawn]
            for conversation in conversations
            for word, drawn in DRAWN.items()
            if word in conversation
        ]

    def notes(self):
        return []


@pytest.fixture(autouse=True)
def scripted(monkeypatch, tmp_path):
    monkeypatch.setattr(asked, "load_generator", lambda context: Writer())
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))


def test_only_rows_that_the_model_does_not_know_get_the_refusal(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = ["correct", str(tmp_path / "rows.jsonl"), "--model", "writer", "--abstain", "--n-samples", "4"]
    command += ["--encoder", "static", "--refusal", "I am not sure.", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    told = capsys.readouterr().err
    assert "writer answered each prompt 4 times; where it does not know, the row now says 'I am not sure.'" in told
    assert "1 abstained" in told
    page, words = read_page(tmp_path / "out")
    assert "writer does not know the answer of 1 row of 5" in page
    assert "Ngerulmud" in page
    assert words[:5] == ["thresher", "correct", str(tmp_path / "rows.jsonl"), "--abstain", "--model"]
    capsys.readouterr()
    corrected = th.open(tmp_path / "out")
    decisions = dict(zip([row["prompt"] for row in ROWS], corrected.audit["decision"], strict=True))
    assert list(decisions.values()) == ["kept", "abstained", "kept", "kept", "undecided"]
    rows = list(corrected)
    assert [row["completion"] for row in rows] == ["Paris", "I am not sure.", "Yaren", "Lima", "none"]
    assert rows[1]["original_response"] == "Ngerulmud"
    entropy = corrected.audit["entropy"].to_list()
    assert entropy[0] == entropy[3] == 0
    assert entropy[1] == pytest.approx(math.log(4))
    assert entropy[4] is None
    assert "0 of 4 sampled answers say what the row says, entropy 1.39 of 1.39" in corrected.audit["reason"][1]
    assert main(command) == 0  # read back
    assert main([*command, "--least-entropy", "0.9"]) == 2  # another result


def test_answers_that_were_cut_off_do_not_show_what_is_not_known():
    drawn = [Generation(text, is_cut=number > 0) for number, text in enumerate(DRAWN["Palau"])]
    writer = SimpleNamespace(generate=lambda *_, **__: [drawn])
    corrected = [{"prompt": "capital of Palau?", "completion": "Ngerulmud"}]
    prompts = PromptRows.from_dataset(th.load(corrected), by="correct")
    settings = CorrectSettings(abstain=True, n_samples=4)
    abstention = decide_abstentions(prompts, writer, settings, FeatureContext(models=ModelSettings(encoder="static")))
    assert abstention.problems == {0: "3 of 4 sampled answers were truncated at max_new_tokens"}


def test_illegal_shares_are_refused():
    with pytest.raises(SettingsError, match="least_entropy"):
        th.correct(ROWS, model="writer", abstain=True, least_entropy=1.5)
    with pytest.raises(SettingsError, match="eta has no effect, since abstain asks no judge"):
        th.correct(ROWS, model="writer", abstain=True, eta=0.9)
    with pytest.raises(SettingsError, match="refusal has no effect, since abstain is not set"):
        th.correct(ROWS, model="writer", judge="writer", refusal="no")


def test_the_last_turn_of_a_conversation_is_replaced():
    rows = [
        {"messages": [{"role": "user", "content": "capital of Palau?"}, {"role": "assistant", "content": "Ngerulmud"}]},
    ]
    audit = th.correct(rows, model="writer", abstain=True, n_samples=4, encoder="static").audit
    assert audit.select(pl.col("decision")).item() == "abstained"


def test_the_page_names_each_option_of_refusals():
    abstain = {name: name for name in ABSTENTION}
    content = {"kind": "corrected", "abstain": abstain, "column": "c", "max_new_tokens": 1}
    words = build_label_words(content, ["pool"])
    assert words[words.index("--entailment") + 1] == "entailment"
    assert "--entailment" not in build_label_words(content | {"abstain": abstain | {"entailment": None}}, ["pool"])
