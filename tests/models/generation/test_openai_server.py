"""Servers that fail in every way, played by a stub; and one real server (slow)."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest

import thresher as th
from thresher.errors import InputError
from thresher.features import FeatureCache, compute, make_context
from thresher.features.settings import ConfidenceSettings
from thresher.models.generation import http_client
from thresher.models.generation.decoding import Decoding
from thresher.models.generation.generator import user_turn
from thresher.models.generation.load import load_generator
from thresher.models.server_address import ServerAddress

CONVERSATIONS = [user_turn(f"what is {i} and {i}?") for i in range(30)]
EXPECTED = [[f"answer what is {i} and {i}?"] for i in range(30)]
SECRET = "sk-very-secret-1234"


def test_answers_come_in_the_order_of_the_conversations_and_few_are_under_way(stub):
    reply = stub.reply
    stub.reply = lambda body, number: time.sleep(0.01 * (number % 3)) or reply(body, number)
    assert stub.generate_texts(stub.make_context("?in_flight=3"), CONVERSATIONS) == EXPECTED
    assert 2 <= stub.n_most <= 3
    assert len(stub.bodies) == 30


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_or_broken_server_is_asked_again(stub, status):
    reply = stub.reply
    stub.reply = lambda body, number: (status, {"error": "busy"}) if number % 2 else reply(body, number)
    assert stub.generate_texts(stub.make_context("?in_flight=1"), CONVERSATIONS[:5]) == EXPECTED[:5]
    assert len(stub.bodies) == 10


def test_a_lost_connection_and_nonsense_are_asked_again(stub):
    reply = stub.reply
    stub.reply = lambda body, number: {1: None, 3: (200, b"<html>")}.get(number, reply(body, number))
    assert stub.generate_texts(stub.make_context("?in_flight=1"), CONVERSATIONS[:2]) == EXPECTED[:2]


def test_no_answer_in_time_is_asked_again_and_named(stub, monkeypatch):
    stub.reply = lambda body, number: time.sleep(1.5) or stub.format_reply("late")
    with pytest.raises(InputError, match=r"got 'no answer within 1 s' in the last of 2 tries; run the same command"):
        stub.generate_texts(stub.make_context("?timeout=1&tries=2"), CONVERSATIONS[:1])
    assert len(stub.bodies) == 2


def test_retry_after_is_waited_for_by_all_threads(stub):
    reply = stub.reply
    stub.reply = lambda body, number: (
        (429, {"error": {"message": "slow down"}}, {"Retry-After": "1"}) if number == 2 else reply(body, number)
    )
    assert stub.generate_texts(stub.make_context("?in_flight=1"), CONVERSATIONS[:4]) == EXPECTED[:4]
    assert stub.times[2] - stub.times[1] >= 1.0


def test_a_wish_to_wait_for_very_long_ends_the_run_with_a_sentence(stub):
    stub.reply = lambda body, number: (429, {}, {"Retry-After": "7200"})
    with pytest.raises(InputError, match="the server asks to wait 7,200 s, and 600 s are waited for at most"):
        stub.generate_texts(stub.make_context(), CONVERSATIONS[:1])
    assert len(stub.bodies) == 1


def test_requests_start_no_faster_than_the_rate(stub):
    stub.generate_texts(stub.make_context("?per_minute=1200"), CONVERSATIONS[:10])  # one in 50 ms
    gaps = np.diff(sorted(stub.times))
    assert stub.times[-1] - stub.times[0] >= 0.05 * 8
    assert np.median(gaps) >= 0.03


def test_nothing_is_paid_twice_after_a_kill(stub, tmp_path):
    here = stub.make_context("?in_flight=1", cache=FeatureCache(tmp_path))

    def stop(progress):
        if progress.done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stub.generate_texts(
            stub.make_context("?in_flight=1", cache=FeatureCache(tmp_path), on_progress=stop), CONVERSATIONS
        )
    n_paid = len(stub.bodies)
    assert 12 <= n_paid <= 14  # what was under way is stored as well
    assert stub.generate_texts(here, CONVERSATIONS) == EXPECTED
    assert len(stub.bodies) == 30
    assert stub.generate_texts(here, CONVERSATIONS) == EXPECTED
    assert len(stub.bodies) == 30


def test_a_process_that_is_killed_leaves_every_answer_it_got(stub, tmp_path):
    reply = stub.reply
    stub.reply = lambda body, number: time.sleep(0.05) or reply(body, number)
    code = (
        "import sys; from pathlib import Path\n"
        "from thresher.features import FeatureCache, make_context\n"
        "from thresher.models.generation.decoding import Decoding\n"
        "from thresher.models.generation.generator import user_turn\n"
        "from thresher.models.generation.load import load_generator\n"
        "here = make_context(model=sys.argv[1], cache=FeatureCache(sys.argv[2]))\n"
        "conversations = [user_turn(f'what is {i} and {i}?') for i in range(30)]\n"
        "load_generator(here).generate(conversations, Decoding(max_new_tokens=9), stage='answers', context=here)\n"
    )
    address = f"{stub.url}?in_flight=2#tiny"
    process = subprocess.Popen([sys.executable, "-c", code, address, str(tmp_path)])
    deadline = time.monotonic() + 60
    while len(stub.bodies) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    time.sleep(0.2)
    n_before = len(stub.bodies)
    assert 8 <= n_before < 30
    here = stub.make_context("?in_flight=2", cache=FeatureCache(tmp_path))
    assert stub.generate_texts(here, CONVERSATIONS) == EXPECTED
    assert len(stub.bodies) - 30 <= 2  # only what was under way at the kill is asked for again


def test_the_key_goes_to_the_server_and_nowhere_else(stub, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("THRESHER_API_KEY", SECRET)
    here = stub.make_context(cache=FeatureCache(tmp_path))
    who = load_generator(here)
    stub.generate_texts(here, CONVERSATIONS[:3])
    assert set(stub.keys) == {f"Bearer {SECRET}"}
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
    assert SECRET not in who.name + who.fingerprint + repr(here)
    stub.reply = lambda body, number: (400, {"error": {"message": f"bad key {SECRET} in request"}})
    with pytest.raises(InputError, match=r"refuses the first with 'the server refuses the request: bad key \*\*\* in"):
        stub.generate_texts(here, [user_turn("other")])
    stub.reply = lambda body, number: (401, {"error": {"message": f"Incorrect API key {SECRET}"}})
    with pytest.raises(InputError) as caught:
        stub.generate_texts(here, [user_turn("another")])
    assert SECRET not in str(caught.value)
    assert "THRESHER_API_KEY" in str(caught.value)
    assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.parametrize("ending", ["\n", " \r\n"])
def test_a_line_break_behind_the_key_is_no_part_of_it(stub, monkeypatch, ending):
    monkeypatch.setenv("THRESHER_API_KEY", SECRET + ending)
    assert stub.generate_texts(stub.make_context(), CONVERSATIONS[:1]) == EXPECTED[:1]
    assert stub.keys == [f"Bearer {SECRET}"]


@pytest.mark.parametrize("odd", ["\r\nx: y", "\u2019", "\x07"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(stub, monkeypatch, odd):
    monkeypatch.setenv("THRESHER_API_KEY", f"{SECRET}{odd}z")
    with pytest.raises(InputError, match="must be of printable ASCII") as caught:
        stub.generate_texts(stub.make_context(), CONVERSATIONS[:1])
    assert SECRET not in str(caught.value)


def test_an_answer_that_cannot_be_decoded_is_asked_for_again(stub):
    reply = stub.reply
    stub.reply = lambda body, number: (
        (200, b"junk", {"content-encoding": "gzip"}) if number == 1 else reply(body, number)
    )
    assert stub.generate_texts(stub.make_context("?in_flight=1"), CONVERSATIONS[:2]) == EXPECTED[:2]


@pytest.mark.parametrize("host", ["-\u00e9-", "a..b"])
def test_a_host_that_is_no_name_is_refused_with_a_sentence(host):
    here = make_context(model=f"http://{host}:9/v1#m", cache=None)
    with pytest.raises(InputError, match="the server must be reachable"):
        load_generator(here).generate(CONVERSATIONS[:1], Decoding(), stage="answers", context=here)


def test_no_key_is_sent_where_there_is_none_and_a_redirect_is_not_followed(stub):
    stub.reply = lambda body, number: (307, {}, {"Location": "http://127.0.0.1:9/v1"})
    with pytest.raises(InputError, match="refuses the first"):
        stub.generate_texts(stub.make_context(), CONVERSATIONS[:1])
    assert stub.keys == [None]


def test_an_unreachable_server_is_told_at_once(monkeypatch):
    here = make_context(model="http://127.0.0.1:9/v1#m", cache=None)
    with pytest.raises(
        InputError, match=r"model 'http://127.0.0.1:9/v1': the server must be reachable, got '.*refused"
    ):
        load_generator(here).generate(CONVERSATIONS[:1], Decoding(), stage="answers", context=here)


def test_an_unknown_model_is_told_with_the_nearest_one(stub):
    stub.reply = lambda body, number: (404, {"error": {"message": "no such model"}})
    here = make_context(model=f"{stub.url}#tinny", cache=None)
    with pytest.raises(InputError, match=r"does not find it \(status 404\); it has: tiny; did you mean 'tiny'"):
        stub.generate_texts(here, CONVERSATIONS[:1])


def test_the_only_model_needs_no_name_and_of_several_one_must_be_named(stub):
    here = make_context(model=stub.url, cache=None)
    assert load_generator(here).name == f"{stub.url}#tiny"
    assert stub.generate_texts(here, CONVERSATIONS[:1]) == EXPECTED[:1]
    stub.models = (200, {"data": [{"id": "a"}, {"id": "b"}]})
    with pytest.raises(InputError, match=r"must name one of the server's models behind a #, found a, b"):
        stub.generate_texts(here, CONVERSATIONS[:1])


def test_one_refused_row_is_missing_and_the_others_have_answers(stub, tmp_path):
    reply = stub.reply
    stub.reply = lambda body, number: (
        (400, {"detail": "context length is 128"}) if "what is 3 " in str(body) else reply(body, number)
    )
    cache = FeatureCache(tmp_path)
    answers = stub.generate_texts(stub.make_context(cache=cache), CONVERSATIONS[:6])
    assert answers[3] == ["the server refuses the request: context length is 128"]
    assert answers[4] == EXPECTED[4]
    stub.reply = reply
    # a refusal is not stored
    assert stub.generate_texts(stub.make_context(cache=cache), CONVERSATIONS[:6]) == EXPECTED[:6]


def test_a_server_that_refuses_everything_is_asked_three_times(stub):
    stub.reply = lambda body, number: (400, {"error": "no chat here"})
    with pytest.raises(InputError, match="no chat here"):
        stub.generate_texts(stub.make_context(), CONVERSATIONS)
    assert len(stub.bodies) == 3


@pytest.mark.parametrize("feature", ["loss", "loss_unconditional", "hidden_state", "in_context_utility"])
def test_features_that_need_probabilities_of_given_text_are_refused(stub, feature):
    pool = th.load([{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}])
    with pytest.raises(InputError, match="needs log-probabilities of given text, which a server does not give"):
        compute(pool, [feature], stub.make_context())


def test_a_store_of_answers_that_is_none_is_put_aside_with_a_sentence(stub, tmp_path):
    path, told = tmp_path / "answers-v1" / "answers.sqlite", []
    path.parent.mkdir()
    path.write_bytes(b"no database" * 100)
    context = stub.make_context(cache=FeatureCache(tmp_path), on_progress=told.append)
    assert stub.generate_texts(context, CONVERSATIONS[:1]) == EXPECTED[:1]
    (note,) = {progress.note for progress in told} - {None}
    assert note.endswith("were damaged; 0 could be read and are kept, the file is now answers.sqlite.damaged-1")
    assert stub.generate_texts(context, CONVERSATIONS[:1]) == EXPECTED[:1]
    assert len(stub.bodies) == 1


def test_a_store_of_answers_that_cannot_be_opened_is_told(stub, tmp_path):
    (tmp_path / "answers-v1" / "answers.sqlite").mkdir(parents=True)
    with pytest.raises(OSError, match="the answers of servers must be kept"):
        stub.generate_texts(stub.make_context(cache=FeatureCache(tmp_path)), CONVERSATIONS[:1])


def test_answers_of_an_earlier_version_are_not_asked_for_again(stub, tmp_path):
    context = stub.make_context(cache=FeatureCache(tmp_path))
    stub.generate_texts(context, CONVERSATIONS[:3])
    with closing(sqlite3.connect(tmp_path / "answers-v1" / "answers.sqlite")) as database:
        database.execute("ALTER TABLE answers DROP COLUMN checksum")
        database.commit()
    assert stub.generate_texts(context, CONVERSATIONS[:4]) == EXPECTED[:4]
    assert len(stub.bodies) == 4


def test_whatever_can_be_read_of_a_damaged_store_is_kept(stub, tmp_path):
    context = stub.make_context(cache=FeatureCache(tmp_path))
    stub.generate_texts(context, CONVERSATIONS)
    path = tmp_path / "answers-v1" / "answers.sqlite"
    content = path.read_bytes()
    path.write_bytes(bytes(100) + content[100:])  # the header
    assert stub.generate_texts(context, CONVERSATIONS) == EXPECTED
    assert len(stub.bodies) == 30


def test_selecting_by_confidence_of_a_server_asks_each_row_once(stub, tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("THRESHER_API_KEY", SECRET)
    stub.reply = lambda body, number: stub.format_reply("A" if "top_logprobs" in body else "Paris")
    rows = [{"prompt": f"capital {i}?", "completion": word} for i, word in enumerate(["Paris", "a table", "Paris"])]
    settings = {"n_samples": 2}
    kept = th.select(
        rows,
        "confidence",
        budget=2,
        settings=settings,
        model=f"{stub.url}#tiny",
        encoder="static",
        out=tmp_path / "out",
    )
    assert {row["completion"] for row in kept.rows} == {"Paris"}
    assert len(stub.bodies) == 3 * (2 + 2)
    assert kept.manifest.content["features"]["confidence"]["model"] == f"{stub.url}#tiny"
    for path in (tmp_path / "out").iterdir():
        assert SECRET.encode() not in path.read_bytes()


def test_a_dry_run_sends_no_request_and_counts_what_is_stored(stub, tmp_path):
    from thresher.features.answers.confidence import Confidence
    from thresher.features.cost import estimate

    stub.reply = lambda body, number: stub.format_reply("A")
    rows = [{"prompt": f"capital {i}?", "completion": "Paris"} for i in range(5)]
    cache = FeatureCache(tmp_path)
    settings = ConfidenceSettings(n_samples=2)
    compute(th.load(rows[:2]), ["confidence"], stub.make_context(cache=cache, confidence=settings))
    n_before = len(stub.bodies)
    stages = estimate(Confidence(), th.load(rows), stub.make_context(cache=cache, confidence=settings))
    assert len(stub.bodies) == n_before
    asked = {stage.stage: (stage.n, stage.n_cached) for stage in stages if "server" in stage.note}
    assert asked == {"confidence: answers": (10, 4), "confidence: reflection": (10, 4)}


@pytest.mark.slow
def test_confidence_by_a_real_server_on_the_embedded_model(tmp_path):
    pytest.importorskip("uvicorn")
    import socket

    from thresher.models.causal_lm.embedded import causal_lm_folder

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = f"{causal_lm_folder()}@main"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder, "--port", str(port)]
    log = open(tmp_path / "log", "wb")  # noqa: SIM115 - of a process that outlives this line
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([*command, "--device", "cpu"], stdout=log, stderr=log, env=environment)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        deadline = time.monotonic() + 120
        while True:
            try:
                with closing(http_client.ServerClient(ServerAddress.parse(url))) as client:
                    client.models()
                break
            except InputError:
                assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.5)
        rows = [{"prompt": f"Tom has {i} apples and buys 2. How many?", "completion": f"{i + 2}"} for i in range(4)]
        settings = ConfidenceSettings(n_samples=2, max_new_tokens=12)
        served = make_context(
            model=f"{url}?in_flight=2#{folder}", encoder="static", cache=FeatureCache(tmp_path), confidence=settings
        )
        features = compute(th.load(rows), ["confidence"], served)
        has_value = np.isfinite(features["confidence"])
        reasons = features.missing["confidence"].to_list()
        assert all(ok or "names none of the options" in reason for ok, reason in zip(has_value, reasons, strict=True))
        greedy = Decoding(max_new_tokens=12)
        here = make_context(model="tiny", device="cpu", dtype="float32", cache=None)
        conversations = [user_turn(row["prompt"]) for row in rows]
        ours, theirs = (
            [row[0].text for row in load_generator(each).generate(conversations, greedy, stage="a", context=each)]
            for each in (here, served)
        )
        # the server runs in float16
        assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 3
    finally:
        process.terminate()
        process.wait(30)
        log.close()
    with sqlite3.connect(tmp_path / "answers-v1" / "answers.sqlite") as stored:
        assert stored.execute("SELECT count(*) FROM answers").fetchone()[0] == 4 * (2 + 2) + 4
