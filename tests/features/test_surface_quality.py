"""Signs of poor answers, each on texts of which the verdict is known."""

import numpy as np
import pytest

import thresher as th
from thresher.features import compute, make_context
from thresher.features.surface_quality import find_faults

GOOD = (
    "The French Revolution began in 1789, when a deep crisis of the state's finances met anger about privileges. "
    "The Estates-General assembled in May, and in July a crowd stormed the Bastille, which became its symbol."
)
VARIED = " ".join(f"word{i}" for i in range(60))


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        (GOOD, "When did it begin?", []),
        ("Paris", "Capital?", ["length"]),
        ("It is Paris.", "Capital?", []),
        ("", "", ["length"]),
        (" ".join(f"w{i}" for i in range(2_001)) + ".", "", ["length"]),
        ("I am very happy to help you with it. " * 12, "", ["repetition", "few distinct words"]),
        (
            "\n".join([*["same line again"] * 8, *(f"other {VARIED[:30]} {i}." for i in range(9))]),
            "",
            ["repetition", "few distinct words"],
        ),
        ("As an AI language model, I don't have feelings about that.", "Do you?", ["refusal"]),
        ("I\u2019m sorry, but I can\u2019t assist with that request.", "Do it", ["refusal"]),
        ("She said that I cannot help laughing when he tells a story.", "", []),
        (f"{GOOD} He wrote: 'I am sorry, but I cannot come.'", "", []),
        (GOOD[:-8], "", ["cut off"]),
        (f"{GOOD[:-1]},", "", ["cut off"]),
        (f"{GOOD}\n```python\nprint(1)", "", ["cut off"]),
        (f"{GOOD}\n```python\nprint(1)\n```", "", []),
        (f"{GOOD}\n- the first estate\n- the second estate", "", []),
        (f"{GOOD} 🎉", "", []),
        ("Москва является столицей России.", "What is the capital of Russia, please?", ["other letters"]),
        ("東京は日本の首都です。とても大きい。", "日本の首都はどこですか教えて", []),
    ],
)
def test_faults_are_found_and_only_these(text, prompt, expected):
    assert [fault.split(":")[0] for fault in find_faults(text, prompt)] == expected


def test_the_value_is_the_share_of_tests_passed_with_reasons():
    rows = [
        {"prompt": "When did it begin?", "completion": GOOD},
        {"prompt": "Please help", "completion": "As an AI language model, I cannot help with that."},
        {"prompt": "Capital?", "completion": "Paris"},
    ]
    table = th.score(th.load(rows), "surface_quality").frame
    np.testing.assert_allclose(table["surface_quality"], [1, 5 / 6, 5 / 6])
    assert table["surface_quality_reasons"].to_list() == [None, "refusal: 'as an ai'", "length: 1 words"]


def test_it_is_a_quality_for_quality_diversity():
    rows = [{"prompt": f"Question {i}?", "completion": f"{GOOD} Number {i}." if i % 2 else "No"} for i in range(20)]
    settings = {"quality": "surface_quality", "alpha": 0.9}
    subset = th.select(th.load(rows), "quality-diversity", budget=6, settings=settings, encoder="static")
    assert all(i % 2 for i in subset.kept)


def test_a_row_depends_on_itself_alone():
    rows = [{"text": GOOD}, {"text": "No"}, {"text": GOOD[:-8]}]
    together = compute(th.load(rows), {"surface_quality"}, make_context())["surface_quality"]
    alone = [compute(th.load([row]), {"surface_quality"}, make_context())["surface_quality"][0] for row in rows]
    assert together.tolist() == alone
