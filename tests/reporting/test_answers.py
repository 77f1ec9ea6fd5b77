"""What the page of each kind of folder says."""

from __future__ import annotations

import json
import re

from thresher.reporting import report
from thresher.reporting.formatting import MetricDisplay
from thresher.reporting.pages.outlook import build_joint
from thresher.reporting.pages.row_zero import build_gains
from thresher.reporting.pages.tuning import write_tuning_answer


def test_the_answer_of_a_subset(pages):
    assert pages["subset"][1].lead.startswith("facility-location keeps 48 of 120 rows (40 %)")


def test_the_answer_of_an_adapter_tells_the_interval_against_random_rows(pages):
    assert pages["adapter"][1].lead == ("Better than the same number of random rows by 3.0 points [1.0, 5.0].")


def test_the_page_of_a_curve_opens_with_its_answer(pages):
    folder, page = pages["curve"]
    content = json.loads((folder / "saturation.json").read_text())
    assert page.lead == content["answer"]
    assert "How the accuracy rises with the rows" in (folder / "report.html").read_text()


def test_the_section_of_a_loss_says_that_it_falls(copy_folder, edit_json):
    folder = copy_folder("curve")
    with edit_json(folder / "saturation.json") as content:
        content |= {"metric": "loss", "is_higher_better": False}
    text = report(folder).read_text()
    assert "falls with the rows" in text
    assert "rises" not in text


def test_the_answer_of_a_comparison_names_the_winner_with_its_verdict(pages):
    lead = "facility-location beats random at 500 rows: better by 2.1 points [1.2, 3.0] (1,000 test rows)."
    assert pages["comparison"][1].lead == lead


def test_a_comparison_without_a_winner_says_what_would_have_shown(copy_folder, read_report, edit_json):
    folder = copy_folder("comparison")
    with edit_json(folder / "comparison.json") as content:
        for verdict in content["verdicts"]:
            verdict["p_holm"] = 0.4
    page = read_report(folder)
    assert (
        page.lead
        == "No method beats random here; any difference of 1.3 points or more would have shown (1,000 test rows)."
    )


def test_a_curve_without_an_answer_has_a_tile_and_a_table_that_say_so(copy_folder, edit_json):
    folder = copy_folder("curve")
    with edit_json(folder / "saturation.json") as content:
        for entry in content["methods"].values():
            entry["enough"] |= {"verdict": "cannot tell", "low": 160, "high": 1500}
    text = report(folder).read_text()
    assert re.search(r'class="note [^>]*>[^<]*cannot tell', text)
    assert not re.search(r'text-anchor="end">[^<]*cannot tell', text)  # with no room on the left
    assert "not known" in text
    assert "cannot tell" in text


def test_the_size_of_the_pool_is_drawn_on_the_axis(pages):
    assert "all rows" in (pages["curve"][0] / "report.html").read_text()


def test_a_method_without_a_law_is_shown_with_its_points(copy_folder, edit_json):
    folder = copy_folder("curve")
    with edit_json(folder / "saturation.json") as content:
        points = content["methods"]["length"]["points"]
        content["methods"]["length"] = {"points": points, "enough": None, "notes": ["too few runs to fit a law"]}
    text = report(folder).read_text()
    assert "too few runs" in text
    assert "length: too few runs to fit a law" in text


def test_failed_runs_are_counted(pages):
    text = " ".join(e["text"] for e in pages["curve"][1].all("section"))
    assert "1 of 61 runs failed" in text


def test_a_missing_pool_is_named_in_place_of_the_map(copy_folder, read_report, edit_json):
    folder = copy_folder("subset")
    with edit_json(folder / "manifest.json") as content:
        content["run"]["inputs"] = [str(folder / "gone.jsonl")]
    page = read_report(folder)
    (notice,) = [e["text"] for e in page.all("p") if e["attrs"].get("class") == "notice"]
    assert "There is no map." in notice
    assert "gone.jsonl, and that file no longer exists" in notice
    assert not (folder / "map.png").exists()
    # previews still show what was dropped
    assert "examples" in str([e["attrs"].get("class") for e in page.all("ul")])


def test_a_changed_pool_is_named_in_place_of_the_map(copy_folder, tmp_path, edit_json):
    folder = copy_folder("subset")
    with edit_json(folder / "manifest.json") as content:
        other = tmp_path / "other.jsonl"
        other.write_text("".join(json.dumps({"text": f"other {i}", "label": "a"}) + "\n" for i in range(20)))
        content["run"]["inputs"] = [str(other)]
    assert "has changed since this folder was written" in report(folder).read_text()


def test_a_tuning_folder_without_trials_still_has_a_page(copy_folder):
    folder = copy_folder("tuning")
    (folder / "trials.csv").unlink()
    assert "There is no trials.csv" in report(folder).read_text()


def test_the_page_of_a_search_opens_with_its_verdict(copy_folder, read_report):
    folder = copy_folder("tuning")
    result = {
        "metric": "accuracy",
        "is_higher_better": True,
        "best_trial": 3,
        "best_settings": {"learning_rate": 0.0021, "lora_rank": 16},
        "test": {"winner": 0.812, "default": 0.79},
        "verdict": "better by 2.2 points [0.4, 4.0]",
        "average": {"trials": [3, 5], "average": 0.83, "winner": 0.812, "verdict": "no difference <seen>"},
    }
    (folder / "tune.json").write_text(json.dumps(result))
    page = read_report(folder)
    text = (folder / "report.html").read_text()
    assert page.lead.startswith(
        "Trial 3 won; compared with the default settings on the test rows: better by 2.2 points"
    )
    assert "0.0021" in text
    assert "The adapters of trials 3, 5 averaged: accuracy 83.0\u00a0%;" in text
    assert "accuracy on the test rows: winner 81.2\u00a0%, default 79.0\u00a0%" in text
    assert "no difference &lt;seen&gt;" in text


def test_a_subset_that_keeps_every_row_has_a_page(folders, tmp_path, read_report):
    from thresher.dataset import load
    from thresher.selection.run import select

    rows = [{"text": f"row {i}", "label": "a"} for i in range(5)]
    path = tmp_path / "five.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    select(load(path), "length", budget=5, out=tmp_path / "all")
    page = read_report(tmp_path / "all")
    assert page.lead == "length keeps 5 of 5 rows (100 %); nothing is dropped."


def test_a_comparison_too_small_to_see_anything_says_so(copy_folder, read_report, edit_json):
    folder = copy_folder("comparison")
    with edit_json(folder / "comparison.json") as content:
        for verdict in content["verdicts"]:
            verdict["p_holm"] = 0.4
            verdict["difference"]["detectable"] = 3.2
    text = read_report(folder).lead
    assert text.endswith("; with so few runs and test rows, no difference could have been detected (1,000 test rows).")


def test_a_loss_below_one_is_no_percentage_on_the_page_of_a_search(copy_folder):
    folder = copy_folder("tuning")
    result = {
        "metric": "loss",
        "is_higher_better": False,
        "best_trial": 3,
        "best_settings": {"learning_rate": 0.0021, "lora_rank": 16, "max_steps": None},
        "dev_rows": 12,
        "test": {"winner": 0.412, "default": 0.79},
        "verdict": "better by 0.378 nats [0.1, 0.6]",
    }
    (folder / "tune.json").write_text(json.dumps(result))
    text = report(folder).read_text()
    assert "loss on the test rows: winner 0.4120, default 0.7900" in text
    assert "lower is better" in text
    assert "early loss (nats per token)" in text
    assert "early loss (%)" not in text
    assert "rows held out of the data" in text
    assert "max_steps" not in text


def test_a_difference_whose_interval_includes_zero_beats_nothing(copy_folder, edit_json, read_report):
    folder = copy_folder("comparison")
    with edit_json(folder / "comparison.json") as content:
        for verdict in content["verdicts"]:
            verdict["difference"] |= {"low": -0.001, "high": 0.04, "n_seeds": 2, "detectable": 4.5}
            verdict |= {"p_holm": 0.045, "sentence": "no difference seen; 1.3 points would have been detectable"}
    with edit_json(folder / "manifest.json") as content:
        content["asked"] = {"detect": 0.02}
    assert read_report(folder).lead.startswith("No method beats random here")
    text = (folder / "report.html").read_text()
    assert "fewer than 3 seeds" in text
    assert "450" not in text
    assert "to detect a true difference of 2.0 points" in text


def test_the_untouched_models_of_a_joint_curve_are_named_as_such():
    names = ["untouched tiny", "4 in the prompt tiny", "untouched"]
    base = {
        "references": [{"name": name, "value": 1.0, "stderr": 0.1} for name in names],
        "strongest": "untouched",
        "methods": {},
    }
    (table, _) = build_gains(base, MetricDisplay("loss", is_higher_better=False, is_rate=False))
    assert [row[1] for row in table.rows] == [
        "the base model, untrained",
        "the base model with the nearest training rows in its prompt",
        "the base model, untrained",
    ]


def test_a_joint_law_that_the_points_contradict_gives_no_probabilities():
    gain = {"median": 0.02, "low": 0.01, "high": 0.03}
    joint = {"factor": "rank", "at": {"rows": 100, "value": "8"}, "p_rows": 0.9, "is_misfit": False, "worse": None}
    joint |= {"gain_of_rows": gain, "gain_of_factor": gain}
    metric = MetricDisplay("accuracy", is_higher_better=True, is_rate=True)
    assert [row[-1] for row in build_joint(metric, joint).rows] == ["90\u00a0%", "10.0\u00a0%"]
    assert not build_joint(metric, joint | {"is_misfit": True}).rows
    assert not build_joint(metric, joint | {"worse": {"than": "2"}}).rows


def test_a_search_names_the_trials_that_were_better_but_forget_too_much():
    result = {"best_trial": 0, "dev_rows": 29, "general": {"allowed": 0.02, "excluded": [1, 2]}}
    assert write_tuning_answer(result, 3, 3, 60, 2) == (
        "Stay with the default settings: 3 settings were tried, 3 of them trained to the end, and none within the "
        "allowed forgetting was better on 29 rows held out of the data; trials 1 and 2 score better, but forget more "
        "than 0.02 bits per byte."
    )
    won = write_tuning_answer({"best_trial": 3, "verdict": "no clear difference"}, 20, 8, 60, 2)
    assert won.startswith("Trial 3 won; compared with the default settings on 60 test rows (2 seeds): no clear diff")
