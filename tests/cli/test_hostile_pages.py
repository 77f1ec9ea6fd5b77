"""Rows, labels, columns, files and sources that are HTML, JavaScript, Markdown and YAML: the pages
and cards that commands write show them as text.
"""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

from thresher.cli.main import main

MARK = "<img src=x onerror=alert(1)>"
EVIL = f"</script></title></textarea>{MARK}\"' onload='x' --> ]]> \x1b[31m\u202e\u2066\x9b $x^2$ \\n ${{x}} {{{{7*7}}}}"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
OURS = {"src", "srcdoc", "style", "action", "formaction"}  # attributes that could fetch or run


class Page(HTMLParser):
    """What a browser would make of a page: tags, attributes, scripts and text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.text, self.links = set(), set(), [], "", set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value for name, value in attrs if name in ("href", "xlink:href")}
        if tag == "script":
            self.scripts.append([dict(attrs), ""])

    def handle_data(self, data):
        self.text += data
        if self.scripts and self.lasttag == "script":
            self.scripts[-1][1] += data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    words = ["red apple", "green leaf", "blue sky"]
    rows = []
    for i in range(72):
        at = int(rng.integers(3))
        label = [EVIL, f"{MARK}two", "three"][at]
        text = f"the {words[at]} is {i} {EVIL if i % 3 else ''}"
        rows.append({"text": text, "label": label, "source": f"{EVIL}{i % 2}", f"col{EVIL}": f"{EVIL}{i % 2}"})
    (tmp_path / "src").mkdir()
    names = [f"pool{EVIL}{part}.jsonl".replace("/", "") for part in "ab"]
    for name, part in zip(names, (rows[:36], rows[36:]), strict=True):
        lines = [json.dumps(row) for row in part]
        lines[-1] = lines[-1].replace("blue sky", "\\ud800")  # half of a pair
        (tmp_path / "src" / name).write_text("".join(f"{line}\n" for line in lines))
    return tmp_path


def check_pages(folder):
    """Check every page, figure and card below a folder; return the text of the pages."""
    text = ""
    for path in sorted(folder.rglob("*.html")):
        html = path.read_text(encoding="utf-8")
        page = Page(html)
        assert not RAW.search(html), path
        assert not page.tags & {"img", "iframe", "object", "embed", "base", "form", "textarea", "link"}, path
        assert not [name for name in page.attributes if name.startswith("on") or name in OURS], path
        assert all(link.startswith("#") or (path.parent / link).is_file() for link in page.links), path
        for attributes, script in page.scripts:
            if attributes.get("type") == "application/json":
                assert "<" not in script
                json.loads(script)
        assert len([one for one, _ in page.scripts if "type" not in one]) == 1
        assert "{7*7}}" in page.text or MARK not in page.text, path  # no template has run it
        text += page.text
    for path in folder.rglob("*.svg"):
        assert MARK not in path.read_text(encoding="utf-8")
    for path in folder.rglob("*.md"):
        card = path.read_text(encoding="utf-8")
        _, front, body = card.split("---\n", 2)
        assert yaml.safe_load(front), path
        assert MARK not in body, path
        assert not RAW.search(card), path
    return text


def run(*arguments):
    assert main([str(argument) for argument in arguments]) == 0


def test_pages_of_choices_and_trainings_show_hostile_text_as_text(folder, tiny_bert, capfd):
    run("select", "src", "--method", "length", "--budget", "20", "--out", "chosen")
    near = ["--method", "facility-location", "--encoder", "static"]
    run("select", "src", *near, "--budget", "20", "--quota", "source", "--out", "quota")
    run("train", "src", "--eval", "25%", "--model", tiny_bert, "--max-steps", "2", "--out", "adapter")
    for name in ("chosen", "quota", "adapter"):
        run("report", name)
        assert MARK in check_pages(folder / name), name


def test_pages_of_experiments_show_hostile_text_as_text(folder, tiny_bert, capfd):
    options = ["--eval", "25%", "--model", tiny_bert, "--train", "max_steps=1", "--seeds", "2", "--workers", "1"]
    run("curve", "src", "--methods", "random", "--sizes", "10,20,30", "--grid", *options, "--out", "curve")
    run("compare", "src", "--methods", "length", "--budget", "20", *options, "--out", "comparison")
    for name in ("curve", "comparison"):
        run("report", name)
        assert (folder / name / "report.html").is_file()
        check_pages(folder / name)


def test_the_page_and_the_card_of_a_snapshot_show_hostile_text_as_text(folder, capfd):
    title = json.dumps(EVIL.replace("\x1b", ""))  # which a job file may not hold
    (folder / "job.toml").write_text(
        f'[[sources]]\nfiles = ["src/*.jsonl"]\n[[steps]]\nrule = "exact-duplicates"\n[select]\n'
        f'[features]\nencoder = "static"\n[output]\nfolder = "out"\ntitle = {title}\ntags = [{title}]\n'
        f"license = {title}\n"
    )
    run("curate", "run", "job.toml")
    snapshot = next((folder / "out" / "snapshots").iterdir())
    run("report", snapshot)
    assert (snapshot / "report.html").is_file()
    check_pages(snapshot)
    assert MARK in (snapshot / "README.md").read_text(encoding="utf-8")  # in its front matter
