"""The report of each kind of folder, read as HTML by a parser of its own."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from thresher.cli.main import main
from thresher.errors import ManifestError
from thresher.reporting import report

KINDS = ("subset", "adapter", "curve", "comparison", "tuning")
FIGURES = {
    "subset": {"map", "scores"},
    "adapter": {"metrics", "loss_curve", "classes"},
    "curve": {"curve", "slices-1", "map"},
    "comparison": {"forest", "map"},
    "tuning": {"early_final"},
}
VOID = {"meta", "input", "br", "hr", "img", "link", "rect", "circle"}


class Reader(HTMLParser):
    """Collects the elements of a page: (tag, attributes, text inside, tags around it)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[dict] = []
        self.open: list[dict] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "inside": [e["tag"] for e in self.open]}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append({"tag": tag, "attrs": dict(attrs), "text": "", "inside": [e["tag"] for e in self.open]})

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1]["tag"] == tag, f"</{tag}> closes <{self.open[-1]['tag']}>"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, *tags):
        return [element for element in self.elements if element["tag"] in tags]


@pytest.fixture(scope="module")
def pages(made, tmp_path_factory):
    """Return the folder and the parsed page of each kind, reported once."""
    found = {}
    for kind in KINDS:
        folder = Path(shutil.copytree(made[kind], tmp_path_factory.mktemp("pages") / kind))
        found[kind] = (folder, Reader(report(folder).read_text(encoding="utf-8")))
    return found


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_and_each_figure_lie_in_the_folder_and_nothing_else_changes(kind, pages, made):
    folder, _ = pages[kind]
    before, after = hashes(made[kind]), hashes(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"report.html"} | {f"{n}.{s}" for n in FIGURES[kind] for s in ("png", "svg")}
    for name in FIGURES[kind]:
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert b"<svg" in (folder / f"{name}.svg").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_folder_gives_the_same_bytes(kind, pages):
    folder, _ = pages[kind]
    first = hashes(folder)
    report(folder)
    assert hashes(folder) == first


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched_from_anywhere(kind, pages):
    folder, page = pages[kind]
    for element in page.elements:
        for name, value in element["attrs"].items():
            if name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href", "formaction", "ping"):
                assert element["tag"] == "a", (element["tag"], name)
                assert value.startswith("#") or (folder / value).is_file(), value
    assert not page.all("link", "iframe", "object", "embed", "img", "base", "form")
    for style in page.all("style"):
        assert not re.search(r"url\(|@import|https?:", style["text"])
    (policy,) = [m["attrs"]["content"] for m in page.all("meta") if m["attrs"].get("http-equiv")]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_text_stays_text(kind, pages):
    _, page = pages[kind]
    scripts = page.all("script")
    data = [script for script in scripts if script["attrs"].get("type") == "application/json"]
    assert len(scripts) == 1 + len(data)
    for script in data:
        assert "<" not in script["text"]
        json.loads(script["text"])
    for element in page.elements:
        assert not [name for name in element["attrs"] if name.startswith("on") or name == "style"], element
    seen = [element["text"] for element in page.all("td", "th", "p", "h4")]
    assert any("<script>alert('x')</script>" in text for text in seen)


@pytest.mark.parametrize("kind", KINDS)
def test_the_hashes_of_the_policy_are_those_of_our_style_and_script(kind, pages):
    import base64

    _, page = pages[kind]
    (policy,) = [m["attrs"]["content"] for m in page.all("meta") if m["attrs"].get("http-equiv")]
    own = [page.all("style")[0], next(s for s in page.all("script") if "type" not in s["attrs"])]
    for element in own:
        digest = base64.b64encode(hashlib.sha256(element["text"].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


@pytest.mark.parametrize("kind", KINDS)
def test_landmarks_and_headings_are_in_order(kind, pages):
    _, page = pages[kind]
    assert [len(page.all(tag)) for tag in ("header", "main", "nav", "footer", "h1")] == [1, 1, 1, 1, 1]
    assert page.all("html")[0]["attrs"]["lang"] == "en"
    levels = [int(element["tag"][1]) for element in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False)), levels
    ids = [element["attrs"]["id"] for element in page.elements if "id" in element["attrs"]]
    assert len(ids) == len(set(ids))
    for element in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert element["attrs"].get(name, ids[0]) in ids
        if element["tag"] == "a" and element["attrs"]["href"].startswith("#"):
            assert element["attrs"]["href"][1:] in ids


@pytest.mark.parametrize("kind", KINDS)
def test_each_figure_has_words_and_numbers(kind, pages):
    _, page = pages[kind]
    n = len(FIGURES[kind])
    assert len(page.all("figure")) == len(page.all("figcaption")) == n
    for figure in page.all("figure"):
        assert figure["attrs"]["aria-labelledby"]
    tables_in_figures = [table for table in page.all("table") if "figure" in table["inside"]]
    assert len(tables_in_figures) == n
    assert all("details" in table["inside"] for table in tables_in_figures)
    assert len(page.all("caption")) == len(page.all("table"))
    for heading in page.all("th"):
        assert heading["attrs"]["scope"] in ("col", "row")
    for svg in page.all("svg"):
        attrs = svg["attrs"]
        assert (
            attrs.get("aria-hidden") == "true"
            or attrs.get("role") == "img"
            or "track" in str(svg["inside"])
            or ("td" in svg["inside"])
        )
        if attrs.get("role") == "img":
            assert len(attrs["aria-label"]) > 5


def lead(page: Reader) -> str:
    (found,) = [e["text"] for e in page.all("p") if e["attrs"].get("class") == "lead"]
    return found.replace("\xa0", " ")


def test_the_answer_of_a_subset(pages):
    assert lead(pages["subset"][1]).startswith("facility-location keeps 48 of 120 rows (40 %)")


def test_the_answer_of_an_adapter_tells_the_interval_against_random_rows(pages):
    # 0.03 ± 1.96 * 0.01
    assert lead(pages["adapter"][1]) == (
        "The accuracy is 81.0 ± 1.2 % on 1,000 held-out rows: 3.0 points better than as many random rows "
        "(+1.0 to +5.0 points)."
    )


def test_the_answer_of_a_curve_is_that_of_the_method_with_the_best_score(pages):
    folder, page = pages["curve"]
    methods = json.loads((folder / "saturation.json").read_text())["methods"]
    last = {name: entry["points"][-1]["value"] for name, entry in methods.items()}
    best = max(last, key=last.get)
    rows = methods[best]["saturation"]["rows"]
    assert best in lead(page)
    assert f"{round(rows, 1 - len(str(rows)) + 1):,}" in lead(page)


def test_the_answer_of_a_comparison_names_the_winner_with_its_verdict(pages):
    assert (
        lead(pages["comparison"][1]) == "facility-location beats random at 500 rows: better by 2.1 points [1.2, 3.0]."
    )


def test_a_comparison_without_a_winner_says_what_would_have_shown(folder_of):
    folder = folder_of("comparison")
    content = json.loads((folder / "comparison.json").read_text())
    for verdict in content["verdicts"]:
        verdict["p_holm"] = 0.4
    (folder / "comparison.json").write_text(json.dumps(content))
    page = Reader(report(folder).read_text())
    assert lead(page) == "No method beats random here; any difference of 1.3 points or more would have shown."


def test_a_curve_that_is_not_identifiable_says_what_to_measure(folder_of):
    folder = folder_of("curve")
    content = json.loads((folder / "saturation.json").read_text())
    unknown = {"rows": None, "low": 3000, "high": None, "status": "not identifiable", "delta": 0.01}
    for entry in content["methods"].values():
        entry["saturation"] = {**unknown, "next_sizes": [5120, 10240]}
    (folder / "saturation.json").write_text(json.dumps(content))
    text = lead(Reader(report(folder).read_text()))
    assert text.startswith("It is too early to tell how many rows are enough")
    assert text.endswith("measure 5,120 and 10,240 rows next.")


def test_a_method_without_a_law_is_shown_with_its_points(folder_of):
    folder = folder_of("curve")
    content = json.loads((folder / "saturation.json").read_text())
    points = content["methods"]["length"]["points"]
    content["methods"]["length"] = {"points": points, "saturation": None, "notes": ["too few runs to fit a law"]}
    (folder / "saturation.json").write_text(json.dumps(content))
    text = report(folder).read_text()
    assert "not fitted: too few runs" in text
    assert "length: too few runs to fit a law" in text


def test_failed_runs_are_told(pages):
    text = " ".join(e["text"] for e in pages["curve"][1].all("section"))
    assert "1 of 61 runs failed" in text


def test_a_pool_that_is_gone_is_told_in_place_of_the_map(folder_of):
    folder = folder_of("subset")
    content = json.loads((folder / "manifest.json").read_text())
    content["run"]["inputs"] = [str(folder / "gone.jsonl")]
    (folder / "manifest.json").write_text(json.dumps(content))
    page = Reader(report(folder).read_text())
    (notice,) = [e["text"] for e in page.all("p") if e["attrs"].get("class") == "notice"]
    assert "There is no map." in notice
    assert "gone.jsonl, and that file no longer exists" in notice
    assert not (folder / "map.png").exists()
    assert "examples" in str([e["attrs"].get("class") for e in page.all("ul")])  # previews still tell what was dropped


def test_a_pool_that_has_changed_is_told_in_place_of_the_map(folder_of, tmp_path):
    folder = folder_of("subset")
    content = json.loads((folder / "manifest.json").read_text())
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"text": f"other {i}", "label": "a"}) + "\n" for i in range(20)))
    content["run"]["inputs"] = [str(other)]
    (folder / "manifest.json").write_text(json.dumps(content))
    assert "has changed since this folder was written" in report(folder).read_text()


def test_the_map_shows_the_kept_rows_as_kept(pages):
    folder, page = pages["subset"]
    (script,) = [s for s in page.all("script") if s["attrs"].get("id") == "data-map"]
    data = json.loads(script["text"])
    from thresher.subset.subset import read_subset_rows

    kept = set(read_subset_rows(folder).frame["prompt"])
    panel = data["panels"][0]
    assert sorted(panel["kept"] + panel["dropped"]) == list(range(120))
    assert all(
        any(text.startswith(data["text"][i][:50]) for text in kept) for i in panel["kept"] if "<" not in data["text"][i]
    )
    assert len(panel["kept"]) == 48


def test_the_command_of_a_subset_makes_the_same_rows_again(pages, tmp_path, capsys):
    import shlex

    folder, page = pages["subset"]
    (code,) = [e["text"] for e in page.all("code")]
    words = shlex.split(code)[1:]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert main([*words, "--quiet"]) == 0
    assert (tmp_path / "again" / "subset.jsonl").read_bytes() == (folder / "subset.jsonl").read_bytes()


def test_the_command_of_a_subset_names_the_models_and_how_vectors_are_kept(made):
    import shlex

    from thresher.artifacts.manifest import Manifest
    from thresher.reporting.pages.reproduce import build_command

    content = Manifest.read(made["subset"]).content
    features = {
        "embedding": {"encoder": "minilm", "storage_dtype": "float16", "fingerprint": "0"},
        "loss": {"model": "an/other", "fingerprint": "1"},
        "reference_loss": {"model": "trained", "fingerprint": "2"},
    }
    words = shlex.split(build_command({**content, "features": features}, Path("out")))
    start = words.index("--encoder")
    assert words[start : start + 6] == ["--encoder", "minilm", "--embedding-dtype", "float16", "--model", "an/other"]
    assert "trained" not in words


def test_the_command_of_a_subset_names_the_rows_beside_the_pool(made):
    import shlex

    from thresher.artifacts.manifest import Manifest
    from thresher.reporting.pages.reproduce import build_command

    content = Manifest.read(made["subset"]).content
    beside = {"existing": ["/d/old.jsonl"], "target": ["/t/a.jsonl", "/t/b.jsonl"]}
    words = shlex.split(build_command({**content, "run": {**content["run"], **beside}}, Path("out")))
    assert words[words.index("--existing") + 1] == "/d/old.jsonl"
    assert words[words.index("--target") + 1] == "/t"


def test_the_public_name_is_the_function():
    import thresher.reporting

    assert thresher.report is thresher.reporting.report


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda path: None, "must be a folder that thresher wrote, found nothing"),
        (lambda path: path.write_text("x"), "must be a folder that thresher wrote, found a file"),
        (lambda path: path.mkdir(), "found no manifest.json"),
    ],
)
def test_a_path_that_is_no_folder_of_ours_is_one_sentence(prepare, told, tmp_path, capsys):
    prepare(tmp_path / "dir")
    assert main(["report", str(tmp_path / "dir")]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_kind_without_a_page_is_refused(folder_of):
    folder = folder_of("subset")
    content = json.loads((folder / "manifest.json").read_text()) | {"kind": "cell"}
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ManifestError, match="found 'cell'"):
        report(folder)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("subset", "dropped.parquet"),
        ("adapter", "metrics.json"),
        ("curve", "saturation.json"),
        ("comparison", "cells.csv"),
    ],
)
def test_a_missing_or_damaged_file_is_named(kind, name, folder_of):
    folder = folder_of(kind)
    (folder / name).write_bytes(b"\x00broken")
    with pytest.raises(ManifestError, match=re.escape(name)):
        report(folder)
    (folder / name).unlink()
    with pytest.raises(ManifestError, match=re.escape(name)):
        report(folder)
    assert not (folder / "report.html").exists()


def test_a_manifest_that_lost_a_key_is_named(folder_of):
    folder = folder_of("subset")
    content = json.loads((folder / "manifest.json").read_text())
    del content["counts"]
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ManifestError, match="must have counts"):
        report(folder)


def test_a_tuning_folder_without_trials_still_has_a_page(folder_of):
    folder = folder_of("tuning")
    (folder / "trials.csv").unlink()
    assert "There is no trials.csv" in report(folder).read_text()


def test_the_page_of_a_search_opens_with_its_verdict(folder_of):
    folder = folder_of("tuning")
    found = {
        "metric": "accuracy",
        "is_higher_better": True,
        "best_trial": 3,
        "best_settings": {"learning_rate": 0.0021, "lora_rank": 16},
        "test": {"winner": 0.812, "default": 0.79},
        "verdict": "better by 2.2 points [0.4, 4.0]",
        "average": {"trials": [3, 5], "average": 0.83, "winner": 0.812, "verdict": "no difference <seen>"},
    }
    (folder / "tune.json").write_text(json.dumps(found))
    text = report(folder).read_text()
    page = Reader(text)
    assert lead(page).startswith("Trial 3 won; against the default settings on the test rows: better by 2.2 points")
    assert "0.0021" in text
    assert "The adapters of trials 3, 5 averaged into one: accuracy 83.0\u00a0%;" in text
    assert "accuracy on the test rows: winner 81.2\u00a0%, default 79.0\u00a0%" in text
    assert "no difference &lt;seen&gt;" in text


def test_a_subset_that_keeps_every_row_has_a_page(made, tmp_path):
    from thresher.dataset import load
    from thresher.selection.run import select

    rows = [{"text": f"row {i}", "label": "a"} for i in range(5)]
    path = tmp_path / "five.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    select(load(path), "length", budget=5, out=tmp_path / "all")
    page = Reader(report(tmp_path / "all").read_text())
    assert lead(page) == "length keeps 5 of 5 rows (100 %); nothing is dropped."


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_a_pool_of_a_few_equal_rows_has_a_map(n, tmp_path):
    from thresher.dataset import load
    from thresher.selection.run import select

    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps({"text": "the same", "label": "a"}) + "\n" for _ in range(n)))
    select(load(path), "random", budget=1, out=tmp_path / "few")
    assert 'id="figure-map"' in report(tmp_path / "few").read_text()


@pytest.mark.slow
def test_the_page_of_100_000_rows_is_small(tmp_path):
    from thresher.dataset import load
    from thresher.selection.run import select

    n = 100_000
    words = [f"word{i}" for i in range(997)]
    frame = pl.DataFrame({"i": range(n)}).select(
        text=pl.concat_str(
            *(pl.lit(" ") + pl.Series(words).gather((pl.int_range(n, eager=True) * k) % 997) for k in range(3, 40)),
            pl.col("i").cast(pl.String),
        ),
        label=pl.format("class {}", pl.col("i") % 50),
    )
    frame.write_ndjson(tmp_path / "pool.jsonl")
    select(load(tmp_path / "pool.jsonl"), "length", budget="20%", out=tmp_path / "subset")
    page = report(tmp_path / "subset")
    assert page.stat().st_size < 2_000_000
    for name in ("map.svg", "map.png", "scores.svg"):
        assert (tmp_path / "subset" / name).stat().st_size < 3_000_000
    (script,) = [s for s in Reader(page.read_text()).all("script") if s["attrs"].get("id") == "data-map"]
    panel = json.loads(script["text"])["panels"][0]
    assert len(panel["kept"]) > 300
    assert len(panel["kept"]) + len(panel["dropped"]) <= 2000


def test_the_command_of_a_curve_names_what_was_asked_and_what_differs_from_the_defaults(made):
    import shlex

    from thresher.artifacts.manifest import Manifest
    from thresher.reporting.pages.reproduce import build_command

    content = Manifest.read(made["curve"]).content
    content = {**content, "asked": {"plan": {**content["asked"]["plan"], "targets": [0.8, 0.9]}, "slices": ["source"]}}
    words = shlex.split(build_command(content, Path("out dir")))
    assert words[:5] == ["thresher", "curve", content["run"]["inputs"][0], "--eval", "EVAL"]
    options = list(zip(words[5::2], words[6::2], strict=True))
    assert options == [
        ("--model", "embedded"),
        ("--slice", "source"),
        ("--methods", "random,facility-location,length"),
        ("--sizes", "160,320,640,1280,2560"),
        ("--seeds", "4"),
        ("--target", "0.8"),
        ("--target", "0.9"),
        ("--train", "learning_rate=0.001"),
        ("--train", "epochs=3.0"),
        ("--out", "out dir"),
    ]


def test_a_command_that_the_manifest_knows_is_shown_as_it_is(made):
    from thresher.artifacts.manifest import Manifest
    from thresher.reporting.pages.reproduce import build_command

    content = Manifest.read(made["curve"]).content
    content = {**content, "run": {"command": ["thresher", "curve", "a b.jsonl"]}}
    assert build_command(content, Path("out")) == "thresher curve 'a b.jsonl'"


def test_a_comparison_too_small_to_see_anything_says_so(folder_of):
    folder = folder_of("comparison")
    content = json.loads((folder / "comparison.json").read_text())
    for verdict in content["verdicts"]:
        verdict["p_holm"] = 0.4
        verdict["difference"]["detectable"] = 3.2
    (folder / "comparison.json").write_text(json.dumps(content))
    text = lead(Reader(report(folder).read_text()))
    assert text.endswith("; with so few runs and test rows, no difference could have been detected.")


def test_a_loss_below_one_is_no_percentage_on_the_page_of_a_search(folder_of):
    folder = folder_of("tuning")
    found = {
        "metric": "loss",
        "is_higher_better": False,
        "best_trial": 3,
        "best_settings": {"learning_rate": 0.0021, "lora_rank": 16, "max_steps": None},
        "dev_rows": 12,
        "test": {"winner": 0.412, "default": 0.79},
        "verdict": "better by 0.378 nats [0.1, 0.6]",
    }
    (folder / "tune.json").write_text(json.dumps(found))
    text = report(folder).read_text()
    assert "loss on the test rows: winner 0.4120, default 0.7900" in text
    assert "lower is better" in text
    assert "early loss (nats per token)" in text
    assert "early loss (%)" not in text
    assert "rows held out of the data" in text
    assert "max_steps" not in text


def test_a_difference_whose_interval_holds_zero_beats_nothing(folder_of):
    folder = folder_of("comparison")
    content = json.loads((folder / "comparison.json").read_text())
    for verdict in content["verdicts"]:
        verdict["difference"] |= {"low": -0.001, "high": 0.04, "n_seeds": 2, "detectable": 4.5}
        verdict |= {"p_holm": 0.045, "sentence": "no difference seen; 1.3 points would have been detectable"}
    (folder / "comparison.json").write_text(json.dumps(content))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "asked": {"detect": 0.02}}))
    text = report(folder).read_text()
    assert lead(Reader(text)).startswith("No method beats random here")
    assert "fewer than 3 seeds" in text
    assert "450" not in text
    assert "to detect a true difference of 2.0 points" in text


def test_a_curve_that_is_flat_from_its_smallest_size_on_says_so_first(folder_of):
    folder = folder_of("curve")
    content = json.loads((folder / "saturation.json").read_text())
    for entry in content["methods"].values():
        entry["saturation"] = {"rows": 160, "low": 160, "high": 160, "status": "reached", "delta": 0.01}
    (folder / "saturation.json").write_text(json.dumps(content))
    assert "160 rows chosen by facility-location or fewer are enough" in lead(Reader(report(folder).read_text()))


def test_the_command_of_an_experiment_names_settings_of_methods_columns_and_what_was_dropped(made):
    import shlex

    from thresher.artifacts.manifest import Manifest
    from thresher.reporting.pages.reproduce import build_command

    content = dict(Manifest.read(made["comparison"]).content)
    content |= {
        "model": {"name": "sentence-transformers/all-MiniLM-L6-v2"},
        "method_settings": {"deft-ucs": {"easy_share": 0.3}},
        "overlap": "drop",
        "id_column": "key",
        "schema": {"name": "mapped", "columns": {"text": ["a"], "label": ["b"]}},
        "run": {"inputs": ["rows/a.jsonl", "rows/b.jsonl"], "eval": "test.jsonl"},
    }
    words = shlex.split(build_command(content, Path("out")))
    assert words[2:5] == ["rows", "--eval", "test.jsonl"]
    assert "--model" not in words  # it comes with the package
    pairs = list(zip(words, words[1:], strict=False))
    assert ("--set", "deft-ucs.easy_share=0.3") in pairs
    assert ("--overlap", "drop") in pairs
    assert ("--map", "text=a,label=b") in pairs
    assert ("--id-column", "key") in pairs
