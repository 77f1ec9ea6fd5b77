"""Servers that fail in every way, played by an http.server here; and one real server (slow)."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import thresher as th
from thresher.errors import InputError, SettingsError
from thresher.features import FeatureCache, compute, make_context
from thresher.features.settings import ConfidenceSettings
from thresher.models.generation import http_client
from thresher.models.generation.decoding import Decoding
from thresher.models.generation.generator import user_turn
from thresher.models.generation.http_client import Pace, parse_retry_delay
from thresher.models.generation.load import load_generator
from thresher.models.generation.responses import find_named_option, option_probabilities
from thresher.models.server_address import ServerAddress

TALKS = [user_turn(f"what is {i} and {i}?") for i in range(30)]
SECRET = "sk-very-secret-1234"


def said(text, *, finish="stop", logprobs=None):
    return 200, {"choices": [{"message": {"content": text}, "finish_reason": finish, "logprobs": logprobs}]}


class Stub:
    """A server whose replies a function gives: (body, number) -> (status, content, headers)."""

    def __init__(self):
        self.reply = lambda body, number: said(f"answer {body['messages'][-1]['content']}")
        self.models = (200, {"data": [{"id": "tiny"}]})
        self.bodies, self.keys, self.times = [], [], []
        self.n_now = self.n_most = 0
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                self.send(*stub.models)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with stub._lock:
                    stub.bodies.append(body)
                    stub.keys.append(self.headers.get("authorization"))
                    stub.times.append(time.monotonic())
                    number = len(stub.bodies)
                    stub.n_now += 1
                    stub.n_most = max(stub.n_most, stub.n_now)
                reply = stub.reply(body, number)
                with stub._lock:
                    stub.n_now -= 1
                if reply is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send(*reply)

            def send(self, status, content, headers=()):
                text = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in dict(headers).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # connections that the test breaks
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setattr(http_client, "FIRST_WAIT_S", 0.01)
    monkeypatch.delenv("THRESHER_API_KEY", raising=False)
    stub = Stub()
    yield stub
    stub.stop()


def context(stub, how="", **settings):
    return make_context(**{"model": f"{stub.url}{how}#tiny", "cache": None, "encoder": "static", **settings})


def texts(here, conversations=TALKS, decoding=None):
    decoding = Decoding(max_new_tokens=9) if decoding is None else decoding
    found = load_generator(here).generate(conversations, decoding, stage="answers", context=here)
    return [[answer.problem or answer.text for answer in row] for row in found]


EXPECTED = [[f"answer what is {i} and {i}?"] for i in range(30)]


def test_answers_come_in_the_order_of_the_conversations_and_few_are_under_way(stub):
    reply = stub.reply
    stub.reply = lambda body, number: time.sleep(0.01 * (number % 3)) or reply(body, number)
    assert texts(context(stub, "?in_flight=3")) == EXPECTED
    assert 2 <= stub.n_most <= 3
    assert len(stub.bodies) == 30


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_or_broken_server_is_asked_again(stub, status):
    reply = stub.reply
    stub.reply = lambda body, number: (status, {"error": "busy"}) if number % 2 else reply(body, number)
    assert texts(context(stub, "?in_flight=1"), TALKS[:5]) == EXPECTED[:5]
    assert len(stub.bodies) == 10


def test_a_lost_connection_and_nonsense_are_asked_again(stub):
    reply = stub.reply
    stub.reply = lambda body, number: {1: None, 3: (200, b"<html>")}.get(number, reply(body, number))
    assert texts(context(stub, "?in_flight=1"), TALKS[:2]) == EXPECTED[:2]


def test_no_answer_in_time_is_asked_again_and_named(stub, monkeypatch):
    stub.reply = lambda body, number: time.sleep(1.5) or said("late")
    with pytest.raises(InputError, match=r"got 'no answer within 1 s' in the last of 2 tries; run the same command"):
        texts(context(stub, "?timeout=1&tries=2"), TALKS[:1])
    assert len(stub.bodies) == 2


def test_retry_after_is_waited_for_by_all_threads(stub):
    reply = stub.reply
    stub.reply = lambda body, number: (
        (429, {"error": {"message": "slow down"}}, {"Retry-After": "1"}) if number == 2 else reply(body, number)
    )
    assert texts(context(stub, "?in_flight=1"), TALKS[:4]) == EXPECTED[:4]
    assert stub.times[2] - stub.times[1] >= 1.0


def test_a_wish_to_wait_for_very_long_ends_the_run_with_a_sentence(stub):
    stub.reply = lambda body, number: (429, {}, {"Retry-After": "7200"})
    with pytest.raises(InputError, match="the server asks to wait 7,200 s, and 600 s are waited for at most"):
        texts(context(stub), TALKS[:1])
    assert len(stub.bodies) == 1


def test_retry_after_is_read_as_seconds_and_as_a_date():
    now = 1_800_000_000.0
    assert parse_retry_delay({"retry-after": "2.5"}, now=now) == 2.5
    assert parse_retry_delay({"retry-after": formatdate(now + 30, usegmt=True)}, now=now) == pytest.approx(30)
    assert parse_retry_delay({"retry-after": formatdate(now - 30, usegmt=True)}, now=now) == 0
    assert parse_retry_delay({"retry-after": "soon"}, now=now) is None
    assert parse_retry_delay({}, now=now) is None


def test_requests_start_no_faster_than_the_rate(stub):
    texts(context(stub, "?per_minute=1200"), TALKS[:10])  # one in 50 ms
    gaps = np.diff(sorted(stub.times))
    assert stub.times[-1] - stub.times[0] >= 0.05 * 8
    assert np.median(gaps) >= 0.03


def test_a_stop_ends_all_waiting():
    pace = Pace(None)
    pace.pause(60)
    threading.Timer(0.05, pace.stop).start()
    start = time.monotonic()
    assert not pace.wait()
    assert time.monotonic() - start < 5


def test_nothing_is_paid_twice_after_a_kill(stub, tmp_path):
    here = context(stub, "?in_flight=1", cache=FeatureCache(tmp_path))

    def stop(progress):
        if progress.done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        texts(context(stub, "?in_flight=1", cache=FeatureCache(tmp_path), on_progress=stop))
    n_paid = len(stub.bodies)
    assert 12 <= n_paid <= 14  # what was under way is stored as well
    assert texts(here) == EXPECTED
    assert len(stub.bodies) == 30
    assert texts(here) == EXPECTED
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
    here = context(stub, "?in_flight=2", cache=FeatureCache(tmp_path))
    assert texts(here) == EXPECTED
    assert len(stub.bodies) - 30 <= 2  # only what was under way at the kill is asked for again


def test_the_key_goes_to_the_server_and_nowhere_else(stub, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("THRESHER_API_KEY", SECRET)
    here = context(stub, cache=FeatureCache(tmp_path))
    who = load_generator(here)
    texts(here, TALKS[:3])
    assert set(stub.keys) == {f"Bearer {SECRET}"}
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
    assert SECRET not in who.name + who.fingerprint + repr(here)
    stub.reply = lambda body, number: (400, {"error": {"message": f"bad key {SECRET} in request"}})
    with pytest.raises(InputError, match=r"refuses the first with 'the server refuses the request: bad key \*\*\* in"):
        texts(here, [user_turn("other")])
    stub.reply = lambda body, number: (401, {"error": {"message": f"Incorrect API key {SECRET}"}})
    with pytest.raises(InputError) as caught:
        texts(here, [user_turn("another")])
    assert SECRET not in str(caught.value)
    assert "THRESHER_API_KEY" in str(caught.value)
    assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.parametrize("ending", ["\n", " \r\n"])
def test_a_line_break_behind_the_key_is_no_part_of_it(stub, monkeypatch, ending):
    monkeypatch.setenv("THRESHER_API_KEY", SECRET + ending)
    assert texts(context(stub), TALKS[:1]) == EXPECTED[:1]
    assert stub.keys == [f"Bearer {SECRET}"]


@pytest.mark.parametrize("odd", ["\r\nx: y", "\u2019", "\x07"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(stub, monkeypatch, odd):
    monkeypatch.setenv("THRESHER_API_KEY", f"{SECRET}{odd}z")
    with pytest.raises(InputError, match="must be of printable ASCII") as caught:
        texts(context(stub), TALKS[:1])
    assert SECRET not in str(caught.value)


def test_an_answer_that_cannot_be_decoded_is_asked_for_again(stub):
    reply = stub.reply
    stub.reply = lambda body, number: (
        (200, b"junk", {"content-encoding": "gzip"}) if number == 1 else reply(body, number)
    )
    assert texts(context(stub, "?in_flight=1"), TALKS[:2]) == EXPECTED[:2]


@pytest.mark.parametrize("host", ["-\u00e9-", "a..b"])
def test_a_host_that_is_no_name_is_refused_with_a_sentence(host):
    here = make_context(model=f"http://{host}:9/v1#m", cache=None)
    with pytest.raises(InputError, match="the server must be reachable"):
        texts(here, TALKS[:1])


def test_no_key_is_sent_where_there_is_none_and_a_redirect_is_not_followed(stub):
    stub.reply = lambda body, number: (307, {}, {"Location": "http://127.0.0.1:9/v1"})
    with pytest.raises(InputError, match="refuses the first"):
        texts(context(stub), TALKS[:1])
    assert stub.keys == [None]


def test_an_unreachable_server_is_told_at_once(monkeypatch):
    here = make_context(model="http://127.0.0.1:9/v1#m", cache=None)
    with pytest.raises(
        InputError, match=r"model 'http://127.0.0.1:9/v1': the server must be reachable, got '.*refused"
    ):
        texts(here, TALKS[:1])


def test_an_unknown_model_is_told_with_the_nearest_one(stub):
    stub.reply = lambda body, number: (404, {"error": {"message": "no such model"}})
    here = make_context(model=f"{stub.url}#tinny", cache=None)
    with pytest.raises(InputError, match=r"does not find it \(status 404\); it has: tiny; did you mean 'tiny'"):
        texts(here, TALKS[:1])


def test_the_only_model_needs_no_name_and_of_several_one_must_be_named(stub):
    here = make_context(model=stub.url, cache=None)
    assert load_generator(here).name == f"{stub.url}#tiny"
    assert texts(here, TALKS[:1]) == EXPECTED[:1]
    stub.models = (200, {"data": [{"id": "a"}, {"id": "b"}]})
    with pytest.raises(InputError, match=r"must name one of the server's models behind a #, found a, b"):
        texts(here, TALKS[:1])


def test_one_refused_row_is_missing_and_the_others_have_answers(stub, tmp_path):
    reply = stub.reply
    stub.reply = lambda body, number: (
        (400, {"detail": "context length is 128"}) if "what is 3 " in str(body) else reply(body, number)
    )
    cache = FeatureCache(tmp_path)
    found = texts(context(stub, cache=cache), TALKS[:6])
    assert found[3] == ["the server refuses the request: context length is 128"]
    assert found[4] == EXPECTED[4]
    stub.reply = reply
    assert texts(context(stub, cache=cache), TALKS[:6]) == EXPECTED[:6]  # a refusal is not kept


MESSAGE = {"message": {"content": "A"}, "finish_reason": "stop"}
TOP = {"content": [{"top_logprobs": [{"token": "A", "logprob": -0.1}]}]}


@pytest.mark.parametrize(
    ("response", "named"),
    [
        ({}, "holds no choices"),
        ({"choices": {}}, "holds no choices"),
        ({"choices": [{"finish_reason": "stop"}]}, "holds no message"),
        ({"choices": [{"message": "A"}]}, "holds no message"),
        ({"choices": [{"message": {}}]}, "content of its message must be text, got nothing"),
        ({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}, "must be text, got nothing"),
        ({"choices": [{"message": {"content": [{"type": "text"}]}}]}, "must be text, got a list"),
        ({"choices": [MESSAGE | {"logprobs": [1]}]}, "not of OpenAI's form"),
        ({"choices": [MESSAGE | {"logprobs": {"content": ["A"]}}]}, "not of OpenAI's form"),
        ({"choices": [MESSAGE | {"logprobs": {"content": [{"top_logprobs": [{"token": "A"}]}]}}]}, "not of OpenAI's"),
        (
            {"choices": [MESSAGE | {"logprobs": {"content": [{"top_logprobs": [{"token": "A", "logprob": None}]}]}}]},
            "not of OpenAI's form",
        ),
        (
            {"choices": [MESSAGE | {"logprobs": {"content": [{"top_logprobs": [{"token": 1, "logprob": 5e4}]}]}}]},
            "not of OpenAI's form",
        ),
    ],
)
def test_a_response_of_another_form_leaves_its_row_without_a_value_in_a_sentence(stub, response, named):
    """Missing keys and other types ended in a traceback; no text counted as an empty answer."""
    good = {"choices": [MESSAGE | {"logprobs": TOP}]}
    stub.reply = lambda body, number: (200, response if number == 2 else good)
    here = context(stub, "?in_flight=1")
    found = load_generator(here).score_options(TALKS[:3], ("A", "B"), stage="choices", context=here)
    assert [problem is None for problem in found.problems] == [True, False, True]
    assert found.problems[1].startswith("the server's answer cannot be read: ")
    assert named in found.problems[1]


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": None, "tool_calls": [{"id": "1"}]}, "finish_reason": "tool_calls"},
        {"message": {"content": None}, "finish_reason": "length"},
    ],
)
def test_no_text_before_a_call_of_tools_or_the_limit_is_an_empty_answer(stub, choice):
    stub.reply = lambda body, number: (200, {"choices": [choice]})
    assert texts(context(stub), TALKS[:1]) == [[""]]


def test_a_server_that_refuses_everything_is_asked_three_times(stub):
    stub.reply = lambda body, number: (400, {"error": "no chat here"})
    with pytest.raises(InputError, match="no chat here"):
        texts(context(stub))
    assert len(stub.bodies) == 3


def test_drawn_answers_have_seeds_of_their_own_that_do_not_change(stub):
    decoding = Decoding(n_samples=3, temperature=0.7, max_new_tokens=9)
    texts(context(stub), TALKS[:2], decoding)
    seeds = sorted(body["seed"] for body in stub.bodies)
    assert len(set(seeds)) == 6
    stub.bodies.clear()
    texts(context(stub), TALKS[:2][::-1], decoding)
    assert sorted(body["seed"] for body in stub.bodies) == seeds


def test_an_answer_at_the_limit_is_cut(stub):
    stub.reply = lambda body, number: said("very", finish="length")
    here = context(stub)
    assert load_generator(here).generate(TALKS[:1], Decoding(), stage="a", context=here)[0][0].is_cut


def chosen(here):
    return load_generator(here).score_options(TALKS[:1], ("A", "B"), stage="choices", context=here)


def test_choices_come_from_the_likeliest_tokens(stub):
    place = [{"token": "A", "logprob": -1.0}, {"token": " B", "logprob": -2.0}, {"token": "(B", "logprob": -3.0}]
    start = [{"token": "The", "logprob": -0.1}]
    stub.reply = lambda body, number: said(
        "A", logprobs={"content": [{"token": "The", "top_logprobs": start}, {"token": "A", "top_logprobs": place}]}
    )
    a, b = np.exp(-1.0), np.exp(-2.0) + np.exp(-3.0)
    np.testing.assert_allclose(chosen(context(stub)).probabilities, [[a / (a + b), b / (a + b)]])
    assert stub.bodies[0]["top_logprobs"] == 20


def test_choices_are_read_from_text_where_there_are_no_log_probabilities_and_told(stub):
    stub.reply = lambda body, number: said("(B) Incorrect")
    here = context(stub)
    who = load_generator(here)
    assert who.score_options(TALKS[:1], ("A", "B"), stage="c", context=here).probabilities.tolist() == [[0.0, 1.0]]
    assert "gives no log-probabilities" in who.notes()[0]


def test_an_unparsable_choice_is_missing_with_a_reason_and_not_one_half(stub):
    stub.reply = lambda body, number: said("I cannot say")
    found = chosen(context(stub))
    assert np.isnan(found.probabilities).all()
    assert found.problems == ["the server's answer names none of the options, or several"]


def test_a_server_that_does_not_take_logprobs_is_asked_without_them(stub):
    stub.reply = lambda body, number: (422, {"detail": "Unexpected: logprobs"}) if "logprobs" in body else said("A")
    assert chosen(context(stub)).probabilities.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A", [1, 0]),
        (" (B) because", [0, 1]),
        ("**A**", [1, 0]),
        ("B.", [0, 1]),
        ("The answer is (A).", [1, 0]),
        ("A good answer", None),
        ("(A) or (B)?", [1, 0]),
        ("either (A) or (B)", None),
        ("Alas", None),
        ("", None),
    ],
)
def test_options_named_in_text(text, expected):
    assert find_named_option(text, ("A", "B")) == expected


def test_the_place_counts_where_the_options_are_likeliest_and_not_a_tail_before_it():
    before = [("(", -0.05), ("A", -4.0), ("B", -5.0)]
    choice = [("B", -0.02), ("A", -4.5)]
    a, b = np.exp(-4.5), np.exp(-0.02)
    np.testing.assert_allclose(
        option_probabilities([before, choice, [(")", -0.01)]], ("A", "B")), [a / (a + b), b / (a + b)]
    )


def test_tokens_that_hold_no_option_have_no_share():
    assert option_probabilities([[("yes", -0.1)], []], ("A", "B")) is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://localhost:8000#m", ("http://localhost:8000/v1", "m")),
        ("http://localhost:8000/v1/", ("http://localhost:8000/v1", None)),
        ("HTTPS://h.example/api/v1#org/model@main", ("https://h.example/api/v1", "org/model@main")),
        ("http://[::1]:8/v1#a%23b", ("http://[::1]:8/v1", "a#b")),
    ],
)
def test_addresses_are_read(address, expected):
    found = ServerAddress.parse(address)
    assert (found.url, found.model) == expected


def test_settings_stand_in_the_address():
    found = ServerAddress.parse("http://h/v1?timeout=5&in_flight=2&tries=3&per_minute=60#m")
    assert (found.timeout_s, found.n_in_flight, found.n_tries, found.n_per_minute) == (5.0, 2, 3, 60)


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("http://h/v1?timeouts=5#m", "no setting 'timeouts'.*did you mean 'timeout'"),
        ("http://h/v1?tries=0#m", "tries must be a whole number of at least 1, got '0'"),
        ("http:///v1#m", "found no host"),
        ("http://h:x/v1#m", "a port that is no number"),
    ],
)
def test_a_bad_address_is_refused(address, named):
    with pytest.raises((InputError, SettingsError), match=named):
        ServerAddress.parse(address)


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(InputError, match="without a user name or password") as caught:
        ServerAddress.parse(f"http://me:{SECRET}@h/v1#m")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("feature", ["loss", "loss_unconditional", "hidden_state", "in_context_utility"])
def test_features_that_need_probabilities_of_given_text_are_refused(stub, feature):
    pool = th.load([{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}])
    with pytest.raises(InputError, match="needs log-probabilities of given text, which a server does not give"):
        compute(pool, [feature], context(stub))


def test_the_store_of_answers_survives_damage_with_a_sentence(stub, tmp_path):
    path = tmp_path / "answers-v1" / "answers.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"no database" * 100)
    with pytest.raises(OSError, match="the answers of servers must be kept"):
        texts(context(stub, cache=FeatureCache(tmp_path)), TALKS[:1])


def test_selecting_by_confidence_of_a_server_asks_each_row_once(stub, tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("THRESHER_API_KEY", SECRET)
    stub.reply = lambda body, number: said("A" if "top_logprobs" in body else "Paris")
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

    stub.reply = lambda body, number: said("A")
    rows = [{"prompt": f"capital {i}?", "completion": "Paris"} for i in range(5)]
    cache = FeatureCache(tmp_path)
    settings = ConfidenceSettings(n_samples=2)
    compute(th.load(rows[:2]), ["confidence"], context(stub, cache=cache, confidence=settings))
    n_before = len(stub.bodies)
    stages = estimate(Confidence(), th.load(rows), context(stub, cache=cache, confidence=settings))
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
        found = compute(th.load(rows), ["confidence"], served)
        has_value = np.isfinite(found["confidence"])
        reasons = found.missing["confidence"].to_list()
        assert all(ok or "names none of the options" in reason for ok, reason in zip(has_value, reasons, strict=True))
        greedy = Decoding(max_new_tokens=12)
        here = make_context(device="cpu", dtype="float32", cache=None)
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
