"""Publishing on the Hub: one commit to a private repository, on a stub of its server."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import thresher as th
from thresher.artifacts.hub_push import check_push, push_to_hub
from thresher.cli.main import main
from thresher.errors import InputError, ManifestError

ROWS = [{"text": f"row number {number}", "label": "ab"[number % 2]} for number in range(20)]


@pytest.fixture
def hub(monkeypatch):
    """Yield what a stub of the Hub was told: the new repositories, and the files of commits."""
    from huggingface_hub import constants

    told = {"created": [], "files": {}, "status": 200, "tokens": set()}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told["tokens"].add(self.headers.get("Authorization"))
            answer = {}
            if self.path == "/api/repos/create":
                told["created"].append(json.loads(body))
                answer = {"url": f"{constants.ENDPOINT}/me/x", "name": "me/x"}
            elif "/preupload/" in self.path:
                answer = {
                    "files": [
                        {**one, "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                        for one in json.loads(body)["files"]
                    ]
                }
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        told["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                answer = {
                    "commitUrl": "https://huggingface.co/datasets/me/x/commit/1",
                    "commitOid": "1",
                    "pullRequestUrl": None,
                }
            self.answer(answer)

        def answer(self, content):
            data = json.dumps(content).encode()
            self.send_response(told["status"])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield told
    server.shutdown()
    server.server_close()


def test_a_subset_is_published_whole_with_its_story(hub, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    given = ["--method", "random", "--budget", "5", "--out", str(tmp_path / "chosen")]
    assert main(["select", str(rows), *given, "--push-to-hub", "me/x"]) == 0
    assert hub["created"][0]["visibility"] == "private"
    assert hub["created"][0]["type"] == "dataset"
    for path in (tmp_path / "chosen").iterdir():
        assert hub["files"][path.name] == path.read_bytes()
    card = hub["files"]["README.md"].decode()
    assert "5 of 20 rows, selected by `random`" in card
    assert "rows.jsonl" in card
    shown = capsys.readouterr()
    assert "https://huggingface.co/datasets/me/x/commit/1" in shown.err
    assert "hunter2" not in shown.err + shown.out


def test_what_cannot_be_published_is_refused_before_anything_is_read(hub, monkeypatch):
    from huggingface_hub import constants

    with pytest.raises(InputError, match="must be owner/name"):
        check_push("only-a-name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        check_push("me/x")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(InputError, match="a token is required"):
        check_push("me/x")
    assert not hub["created"]


def test_refusals_of_the_hub_and_damaged_folders_are_one_sentence(hub, tmp_path):
    th.select(ROWS, "random", budget=5, out=tmp_path / "chosen")
    hub["status"] = 403
    with pytest.raises(InputError, match="the Hub must take the subset.*403"):
        push_to_hub(tmp_path / "chosen", "me/x")
    (tmp_path / "chosen" / "subset.jsonl").write_text("other")
    with pytest.raises(ManifestError, match="checksum differs"):
        push_to_hub(tmp_path / "chosen", "me/x")
    assert not hub["files"]
