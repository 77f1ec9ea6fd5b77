"""Pages of labels and of grown rows: what they say, and that no row can write on them."""

import json
import shlex

import pytest

import thresher as th
from tests.growth.growth_rows import make_sums, read_sum
from tests.models.generation.stub_server import StubServer
from thresher.labeling.gain import TOO_FEW
from thresher.models.generation import http_client
from thresher.reporting.build import report

HOSTILE = "<script>alert(1)</script> & <b>bold</b>"


@pytest.fixture(scope="module")
def folders(color_rows, tmp_path_factory):
    """Return a folder of each kind."""
    root = tmp_path_factory.mktemp("labels")
    texts = [{"text": f"{row['text']} {HOSTILE if i == 1 else ''}".strip()} for i, row in enumerate(color_rows)]
    known = [{"text": row["text"], "label": color_rows[i]["label"]} for i, row in enumerate(texts)]
    asked = th.ask_labels(texts, labeled=known[:3], encoder="static", batch=50, out=root / "asked")
    truth = {row["text"]: row["label"] for row in known}
    answers = [{"thresher_row_id": row["thresher_row_id"], "label": truth[row["text"]]} for row in asked.rows[:40]]
    th.add_labels(asked, answers, out=root / "labeled")
    th.ask_labels(texts, labeled=root / "labeled", encoder="static", batch=5, out=root / "asked-2")
    votes = [{**row, "anna": known[i]["label"], "ben": "red" if i % 2 else None} for i, row in enumerate(texts)]
    th.join_labels(votes, ["anna", "ben"], how="majority", out=root / "joined")
    weak = [{**row, "label": "red" if i % 7 == 0 else row["label"]} for i, row in enumerate(known[:40])]
    th.refine_labels(weak, eval=known[40:], encoder="static", seeds=2, out=root / "refined")
    curve = [{"rows": n, "value": 0.9 - 8 / n + seed / 100, "seed": seed} for n in (20, 40, 80, 160) for seed in (0, 1)]
    th.label_budget({"label": curve}, price={"label": 0.2}, money=[10, 20], out=root / "budget")
    return root


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Return a folder of grown rows, of a writer that is right about even sums, and rude."""
    patch = pytest.MonkeyPatch()
    patch.setattr(http_client, "FIRST_WAIT_S", 0.01)
    patch.setenv("THRESHER_CACHE", str(tmp_path_factory.mktemp("cache")))
    stub = StubServer()
    stub.reply = lambda body, number: stub.format_reply(
        f"{HOSTILE} 1+1=2 #### {read_sum(body) if read_sum(body) % 4 == 1 else 0}"
    )
    out = tmp_path_factory.mktemp("grown") / "grown"
    th.grow(make_sums(8), n_samples=2, model=f"{stub.url}#tiny", encoder="static", out=out)
    yield out
    stub.stop()
    patch.undo()


def read_page(folder):
    page = report(folder).read_text()
    assert "<script>alert(1)" not in page
    assert "<b>bold" not in page
    return page


def test_the_page_of_ask_says_what_the_next_labels_bring_and_shows_the_rows(folders):
    first, second = (read_page(folders / name) for name in ("asked", "asked-2"))
    assert TOO_FEW[1:] in first
    content = json.loads((folders / "asked-2/manifest.json").read_text())
    assert content["answer"][1:20] in second
    assert "Expected, with the 80 % interval" in second
    assert "looks like" in second
    assert "the most similar labeled row</span>" in second
    assert "kept in its place" not in second
    assert "Rows by label" in second


def test_the_pages_of_labeled_joined_and_refined_rows(folders):
    assert "40 by people were labeled in this batch" in read_page(folders / "labeled")
    joined = read_page(folders / "joined")
    assert "the rules disagree" in joined
    assert "anna" in joined
    assert "&lt;script&gt;alert(1)" in joined
    refined = read_page(folders / "refined")
    verdict = json.loads((folders / "refined/manifest.json").read_text())["verdict"]
    assert ("Self-training helps" in refined) == verdict["helps"]
    assert "What each amount buys" in read_page(folders / "budget")


def test_the_page_of_grown_rows_shows_kept_rows_and_each_reason(grown):
    page = read_page(grown)
    counts = json.loads((grown / "manifest.json").read_text())["counts"]
    assert counts["refused_by_reason"]["wrong"] > 0
    assert "Refused texts by reason" in page
    assert "wrong: " in page
    assert "&lt;script&gt;alert(1)" in page
    assert "To find out whether these rows help" in page


def test_the_command_on_each_page_is_one_that_exists(folders, grown, capsys):
    from thresher.cli.main import main
    from thresher.reporting.pages.reproduce import build_command

    for folder in (*folders.iterdir(), grown):
        if folder.is_dir() and not folder.name.startswith("."):
            content = json.loads((folder / "manifest.json").read_text())
            words = shlex.split(build_command(content, folder))
            capsys.readouterr()
            assert main([*words[1:], "--no-such-option"]) == 2
            assert "no such option: --no-such-option" in capsys.readouterr().err, words
