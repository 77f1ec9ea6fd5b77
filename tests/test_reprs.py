"""What a notebook shows of our objects: no control character of anybody's data, no foreign HTML."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import thresher as th
from thresher.printable import escape_html, replace_controls

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
EVIL = "\x1b[31mred\x1b]0;owned\x07\u202eback\u2066 \x9b2J </td></script><img src=x onerror=alert(1)> \"'"
FORGED = "\nINFO: all is well"


class Tags(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Return rows whose file, columns, labels, ids and texts are hostile."""
    name = f"pool{EVIL}{FORGED}".replace("/", "") + ".jsonl"
    path = tmp_path_factory.mktemp("rows") / name
    rows = [
        {"text": f"{i % 9} {EVIL}", "label": f"{EVIL}{i % 2}", f"col{EVIL}{FORGED}": i, "id": f"{i}{EVIL}{FORGED}"}
        for i in range(24)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": None, "label": EVIL, "id": EVIL}]))
    return th.load(path, id_column="id")


def list_objects(pool):
    subset = th.select(pool, "random", budget=5)
    yield pool
    yield subset
    yield subset.scores
    yield subset.manifest
    yield th.curate(pool, rules=["exact-duplicates"])
    yield th.score(pool, [f"number:col{EVIL}{FORGED}"])
    yield th.plan(pool, "random", budget=5)
    yield th.Quota(column=f"{EVIL}{FORGED}", limits={EVIL: 3})
    yield th.Source([f"{EVIL}{FORGED}.jsonl"], name=EVIL)
    yield th.Features(row_id=pool.frame["row_id"], arrays={f"number:{EVIL}": np.zeros(len(pool))})
    yield pool.schema


def test_nothing_raw_is_shown(pool):
    for each in list_objects(pool):
        shown = repr(each)
        assert not RAW.search(shown), shown
        assert FORGED not in shown, shown


def test_html_of_rows_is_text(pool):
    for each in (th.select(pool, "random", budget=5), th.curate(pool, rules=["exact-duplicates"])):
        html = each._repr_html_()
        page = Tags(html)
        assert page.tags <= {"table", "tr", "th", "td", "b"}
        assert page.attributes <= {"style"}
        assert "<img src=x onerror=" in page.text
        assert not RAW.search(html)


def test_a_page_keeps_what_people_write():
    assert replace_controls("Zoë, שלום\u200f, नमस्ते, 👩‍👩‍👧\n\t") == "Zoë, שלום\u200f, नमस्ते, 👩‍👩‍👧\n\t"
    assert replace_controls("a\x1b\u202e\ud800\U000e0041") == "a" + "\ufffd" * 4
    assert escape_html("<a href=\"'&\x00") == "&lt;a href=&quot;&#x27;&amp;\ufffd"
