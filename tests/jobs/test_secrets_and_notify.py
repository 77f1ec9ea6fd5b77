"""Databases, webhooks, textfiles: what they are told, and that no secret is ever written down."""

import contextlib
import http.server
import json
import socket
import sqlite3
import threading
import time

import pytest

from thresher.errors import InputError, OutputError, SettingsError
from thresher.jobs.inspection import check_job, find_run, list_runs
from thresher.jobs.notify import write_metrics
from thresher.jobs.sources.addresses import Addresses, has_plaintext_password, redact_address

SECRET = "hunter2-very-secret"


@pytest.fixture
def webhook():
    """Serve on a local port, and keep what was posted; the answers come from a list, then 200."""
    posted, answers = [], []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, json.loads(body)))
            self.send_response(answers.pop(0) if answers else 200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", posted, answers
    server.shutdown()
    server.server_close()
    thread.join()


def everything_written(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def database(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS talk (question TEXT, reply TEXT, at TEXT)")
        connection.executemany("INSERT INTO talk VALUES (?, ?, ?)", rows)
    connection.close()


def test_rows_of_a_database_are_read_and_only_new_ones_enter(kit, monkeypatch):
    path = kit.root / "pool.db"
    monkeypatch.setenv("POOL_DB", str(path))
    query = "SELECT question AS prompt, reply AS completion FROM talk ORDER BY rowid"
    kit.write(source=f'name = "shop"\nsql = "{query}"\nurl = "sqlite:///${{POOL_DB}}"')
    database(path, [(f"what is {n}", f"it is {n}", "2026-01-01") for n in range(5)])
    assert kit.run().report["counts"]["entered"] == 5
    assert kit.run().outcome == "nothing-new"
    database(path, [("what is new", "this", "2026-01-02")])
    assert kit.run().report["counts"]["entered"] == 1
    assert set(kit.table()["thresher_source"]) == {"shop"}
    assert str(path).encode() not in b"".join(
        (kit.out / "latest" / name).read_bytes() for name in ("manifest.json", "sources.json", "README.md")
    )


def test_the_path_of_a_database_starts_at_the_folder_of_the_job_file(kit, tmp_path, monkeypatch):
    """A scheduler starts the command in a folder of its own."""
    database(kit.root / "pool.db", [("what is it", "this", "2026-01-01")])
    query = "SELECT question AS prompt, reply AS completion FROM talk"
    kit.write(source=f'sql = "{query}"\nurl = "sqlite:///pool.db"')
    monkeypatch.chdir(tmp_path)
    assert kit.run().report["counts"]["entered"] == 1


def test_since_reaches_the_query(kit):
    database(kit.root / "pool.db", [("old", "row", "2020-01-01"), ("new", "row", "2026-01-01")])
    query = "SELECT question AS prompt, reply AS completion FROM talk WHERE at >= :since"
    kit.write(source=f'sql = "{query}"\nurl = "sqlite:///{kit.root}/pool.db"')
    assert kit.run(since="2025-06-01").report["counts"]["entered"] == 1
    assert kit.run().report["counts"]["entered"] == 1


def test_a_query_that_would_write_is_refused_by_the_database(kit):
    database(kit.root / "pool.db", [("a", "b", "c")])
    kit.write(source=f'sql = "DELETE FROM talk"\nurl = "sqlite:///{kit.root}/pool.db"')
    with pytest.raises(InputError, match="must only read"):
        kit.run()


def test_a_missing_variable_is_named(kit, monkeypatch):
    monkeypatch.delenv("NO_SUCH_DB", raising=False)
    kit.write(source='sql = "select 1"\nurl = "sqlite:///${NO_SUCH_DB}"')
    with pytest.raises(SettingsError, match="the environment variable NO_SUCH_DB must be set"):
        kit.run()
    assert "the environment variable NO_SUCH_DB is not set here" in check_job(kit.file)["notes"]


def test_no_secret_is_written_anywhere(kit, monkeypatch, webhook):
    url, posted, _ = webhook
    monkeypatch.setenv("HOOK_TOKEN", SECRET)
    monkeypatch.setenv("DB_PASSWORD", SECRET)
    more = f'[notify]\nwebhook = "{url}/services/${{HOOK_TOKEN}}?key=${{HOOK_TOKEN}}"\nprometheus = "job.prom"\n'
    kit.run_first(more=more)
    assert posted[0][0] == f"/services/{SECRET}?key={SECRET}"
    assert posted[0][1]["outcome"] == "done"
    broken = '[[sources]]\nsql = "select 1"\nurl = "sqlite:///nowhere-${DB_PASSWORD}/x.db"\n'
    kit.file.write_text(broken + kit.file.read_text())
    with pytest.raises(InputError) as caught:
        kit.run()
    texts = [str(caught.value), json.dumps([event.message for event in kit.events]), json.dumps(posted[1][1])]
    assert all(SECRET not in text for text in texts)
    assert SECRET.encode() not in everything_written(kit.out)
    assert SECRET not in (kit.root / "job.prom").read_text()
    assert list_runs(kit.file)[0].outcome == "error"
    assert find_run(kit.file, "latest").report["notified"][1]["webhook"] == f"{url}/***"


@pytest.mark.parametrize(
    ("address", "as_shown"),
    [
        ("postgresql://me:pw@host:5432/db?sslmode=x", "postgresql://host:5432/db"),
        ("postgresql://me:${PW}@host/db", "postgresql://host/db"),
        ("mysql://host/${DB}", "mysql://host/***"),
        ("${URL}", "***"),
        ("sqlite:///pool.db", "sqlite:///pool.db"),
        ("postgresql://me:1234/5678@host/db", "***"),
    ],
)
def test_addresses_are_shown_without_secrets(address, as_shown):
    assert redact_address(address) == as_shown


def test_a_plain_password_is_noticed():
    assert has_plaintext_password("postgresql://me:pw@host/db")
    assert not has_plaintext_password("postgresql://me:${PW}@host/db")
    assert not has_plaintext_password("postgresql://host/db")


def test_every_part_of_a_resolved_address_is_struck_out(monkeypatch):
    monkeypatch.setenv("PW", "s3cret-word")
    addresses = Addresses()
    addresses.resolve("postgresql://me:${PW}@host/db?token=abcdefgh", where="x")
    assert addresses.redact("cannot reach me:s3cret-word@host?token=abcdefgh") == "cannot reach me:***@host?***"


def test_what_a_driver_may_say_of_an_address_is_struck_out_too():
    addresses = Addresses()
    addresses.resolve("postgresql://me:s3cret%40word@host/db?sslmode=require&password=hunter2", where="x")
    said = addresses.redact("s3cret@word, hunter2: a password is required")
    assert said == "***, ***: a password is required"


def test_a_webhook_that_drips_is_given_up_in_time(kit, rows):
    """A limit for each byte alone held the job's lock for as long as the server liked."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def drip():
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not stop.wait(0.1):
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    port = listener.getsockname()[1]
    kit.write(more=f'[notify]\nwebhook = "http://127.0.0.1:{port}/x"\ntimeout_s = 0.5\nretries = 0\n')
    kit.add("a", rows(3, 1))
    started = time.monotonic()
    assert kit.run().exit_code == 0
    took = time.monotonic() - started
    stop.set()
    thread.join()
    listener.close()
    assert took < 20
    assert find_run(kit.file, "1").report["notified"][0]["error"] == "no answer within 0.5 s"


def test_a_failing_webhook_is_tried_again_recorded_and_fails_nothing(kit, rows, webhook, monkeypatch):
    import thresher.jobs.notify as module

    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    url, posted, answers = webhook
    answers += [500, 500, 500]
    kit.write(more=f'[notify]\nwebhook = "{url}/x"\nretries = 2\n')
    kit.add("a", rows(5, 1))
    assert kit.run().exit_code == 0
    assert len(posted) == 3
    assert find_run(kit.file, "1").report["notified"] == [{"webhook": f"{url}/***", "attempts": 3, "error": "HTTP 500"}]
    answers += [404]
    kit.run()
    assert len(posted) == 4  # what was refused is not asked again


def test_a_webhook_on_change_is_silent_when_nothing_is_new(kit, webhook):
    url, posted, _ = webhook
    kit.run_first(more=f'[notify]\nwebhook = "{url}/x"\non = "change"\n')
    kit.run()
    assert [payload["outcome"] for _, payload in posted] == ["done"]


def test_an_output_that_cannot_be_created_is_notified_too(kit, rows, webhook):
    url, posted, _ = webhook
    kit.write(more=f'[notify]\nwebhook = "{url}/x"\non = "failure"\n')
    kit.add("a", rows(5, 1))
    kit.out.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="must be writable"):
        kit.run()
    assert [payload["outcome"] for _, payload in posted] == ["error"]


def test_the_textfile_has_one_help_and_type_per_metric(tmp_path):
    metrics = {
        'job_rows{what="new"}': ("Rows.", 3.0),
        'job_rows{what="read"}': ("Rows.", 5.0),
        "job_last_exit_code": ("Code.", 0),
    }
    assert write_metrics(tmp_path / "a.prom", "nightly", metrics) == {"prometheus": "a.prom"}
    assert (tmp_path / "a.prom").read_text().splitlines() == [
        "# HELP thresher_job_rows Rows.",
        "# TYPE thresher_job_rows gauge",
        'thresher_job_rows{job_name="nightly",what="new"} 3',
        'thresher_job_rows{job_name="nightly",what="read"} 5',
        "# HELP thresher_job_last_exit_code Code.",
        "# TYPE thresher_job_last_exit_code gauge",
        'thresher_job_last_exit_code{job_name="nightly"} 0',
    ]


def test_the_textfile_describes_the_newest_snapshot_after_a_run_that_failed_too(kit):
    kit.run_first(more='[notify]\nprometheus = "job.prom"\n')
    before = [line for line in (kit.root / "job.prom").read_text().splitlines() if "job_snapshot_" in line]
    kit.write(more='[notify]\nprometheus = "job.prom"\n', source='files = ["src/none.jsonl"]')
    with pytest.raises(InputError):
        kit.run()
    after = (kit.root / "job.prom").read_text().splitlines()
    assert 'thresher_job_last_exit_code{job_name="job"} 2' in after
    assert len(before) == 6
    assert [line for line in after if "job_snapshot_" in line] == before


def test_a_textfile_that_cannot_be_written_fails_nothing(kit, rows):
    kit.write(more='[notify]\nprometheus = "src/a.jsonl/x.prom"\n')
    kit.add("a", rows(5, 1))
    assert kit.run().exit_code == 0
    assert "error" in find_run(kit.file, "latest").report["notified"][0]


def test_a_redirect_of_the_webhook_is_not_followed(kit, rows, webhook):
    url, posted, answers = webhook
    answers += [307]
    kit.write(more=f'[notify]\nwebhook = "{url}"\nretries = 2\n')
    kit.add("a", rows(5, 1))
    kit.run()
    assert len(posted) == 1
    (entry,) = find_run(kit.file, "latest").report["notified"]
    assert entry["error"] == "HTTP 307: a redirect, which is not followed"
    assert "status" not in entry
