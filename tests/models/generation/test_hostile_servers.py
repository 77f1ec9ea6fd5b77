"""A loopback server that misbehaves in twenty-odd ways: each ends within its limits, in a sentence.

It answers the first two rows properly, which are paid for, and the third as the case says. What
was paid for must be stored, whatever happens to the third row.
"""

import gzip
import json
import re
import socket
import socketserver
import struct
import threading
import time
from contextlib import suppress

import pytest

from thresher.cache.answer_cache import AnswerCache
from thresher.errors import InputError, ThresherError
from thresher.features import FeatureCache, make_context
from thresher.models.generation import connection, http_client
from thresher.models.generation.decoding import Decoding
from thresher.models.generation.generator import user_turn
from thresher.models.generation.load import load_generator

ROWS = [user_turn(f"row {number}") for number in range(3)]
LIMIT_S = 1  # of one answer
SLACK_S = 4.0  # of a busy machine, for all tries of a row


def frame(content, status="200 OK", *headers):
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"content-length: {len(content)}", *headers))
    return head.encode() + b"\r\n" + content


def reply(text="fine", **more):
    return frame(json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop", **more}]}).encode())


def send(content):
    return lambda connection: connection.sendall(content)


def drip(head):
    """Send a head, and then a byte now and then, for ever."""

    def play(connection):
        connection.sendall(head)
        while True:
            connection.sendall(b" ")
            time.sleep(0.05)

    return play


def pour(head, part):
    """Send a head, and then parts as fast as they are taken, for ever."""

    def play(connection):
        connection.sendall(head)
        while True:
            connection.sendall(part)

    return play


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang(connection):
    time.sleep(30)


def nested(depth):
    return b'{"choices":' + b"[" * depth + b"]" * depth + b"}"


BOMB = gzip.compress(bytes(64 << 20))
ANSWERED, MISSING, ENDED = "answered", "missing", "ended"
CASES = {
    "body that drips": (drip(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"), ENDED, "no answer within 1 s"),
    "headers that drip": (drip(b"HTTP/1.1 200 OK\r\nx: "), ENDED, "no answer within 1 s"),
    "body without end that drips": (drip(b"HTTP/1.1 200 OK\r\n\r\n{"), ENDED, "no answer within 1 s"),
    "no answer at all": (hang, ENDED, "no answer within 1 s"),
    "endless body": (pour(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536), MISSING, "larger than 1 MiB"),
    "endless chunks": (
        pour(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1000\r\n" + b" " * 4096 + b"\r\n"),
        MISSING,
        "larger than 1 MiB",
    ),
    "gzip bomb": (send(frame(BOMB, "200 OK", "content-encoding: gzip")), MISSING, "larger than 1 MiB"),
    "bomb in a bomb": (
        send(frame(gzip.compress(BOMB), "200 OK", "content-encoding: gzip, gzip")),
        MISSING,
        "larger than 1 MiB",
    ),
    "gzip that is none": (send(frame(b"no gzip", "200 OK", "content-encoding: gzip")), ENDED, "incorrect header"),
    "too long a length": (send(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{}"), ENDED, "closed connection|within"),
    "too short a length": (send(b'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"choices": []}'), ENDED, "no JSON"),
    "negative length": (send(b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n{}"), ENDED, "Content-Length"),
    "reset": (reset, ENDED, "got '"),
    "redirect": (send(frame(b"", "302 Found", "location: http://127.0.0.1:1/")), MISSING, "status 302"),
    "redirect to itself": (send(frame(b"", "307 Temporary", "location: /v1")), MISSING, "status 307"),
    "very long Retry-After": (
        send(frame(b"{}", "429 Too Many", "retry-after: 1" + "0" * 400)),
        ENDED,
        "asks to wait inf s",
    ),
    "negative Retry-After": (send(frame(b"{}", "429 Too Many", "retry-after: -7")), ENDED, "status 429"),
    "Retry-After in words": (send(frame(b"{}", "429 Too Many", "retry-after: soon")), ENDED, "status 429"),
    "Retry-After of no calendar": (
        send(frame(b"{}", "429 Too Many", "retry-after: Mon, 99 Foo 0000 99:99:99 -9999")),
        ENDED,
        "status 429",
    ),
    "500 for ever": (send(frame(b'{"error": {"message": "oh"}}', "500 Oh")), ENDED, "status 500: oh"),
    "deep JSON": (send(frame(nested(100_000))), MISSING, "nested too deeply"),
    "deep JSON of an error": (send(frame(nested(100_000), "500 Oh")), ENDED, "status 500"),
    "JSON as deep as can be read": (send(frame(nested(900), "400 Bad")), MISSING, "refuses the request"),
    "half of a surrogate pair": (send(reply("a\ud800b")), ANSWERED, "a\ufffdb"),
    "NaN for text": (send(reply(float("nan"))), MISSING, "must be text, got a float"),
    "number of 5,000 digits": (send(frame(b'{"choices": ' + b"9" * 5000 + b"}")), ENDED, "no JSON object"),
    "not JSON": (send(frame(b"{choices")), ENDED, "no JSON object"),
    "a JSON list": (send(frame(b"[]")), ENDED, "no JSON object"),
    "no UTF-8": (send(frame(b'{"choices": "\xff\xfe"}')), ENDED, "no JSON object"),
    "no choices": (send(frame(b'{"choices": []}')), MISSING, "holds no choices"),
    "choices of another type": (send(frame(b'{"choices": {"0": 1}}')), MISSING, "holds no choices"),
    "message of another type": (send(frame(b'{"choices": [{"message": "hi"}]}')), MISSING, "holds no message"),
    "text of another type": (send(reply(["a", "b"])), MISSING, "must be text, got a list"),
    "HTML": (send(frame(b"<html>log in</html>", "200 OK", "content-type: text/html")), ENDED, "no JSON object"),
    "chunks that are none": (
        send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
        ENDED,
        "got '",
    ),
    "two choices in another order": (
        send(frame(b'{"choices": [{"message": {"content": "first"}}, {"message": {"content": "second"}}]}')),
        ANSWERED,
        "first",
    ),
    "keys twice": (
        send(frame(b'{"choices": [], "choices": [{"message": {"content": "last"}}]}')),
        ANSWERED,
        "last",
    ),
    "huge header": (send(b"HTTP/1.1 200 OK\r\nx: " + b"y" * (4 << 20) + b"\r\n\r\n{}"), ENDED, "got '"),
    "many headers": (send(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000 + b"\r\n{}"), ENDED, "got '"),
    "no HTTP": (send(b"220 smtp.example.com ESMTP\r\n"), ENDED, "got '"),
    "an HTTP of another kind": (send(b"HTTP/9.9 200 OK\r\n\r\n{}"), MISSING, "holds no choices"),
    "colors in an error": (
        send(frame(b'{"error": {"message": "\\u001b[31mred\\nline"}}', "400 Bad")),
        MISSING,
        "refuses the request",
    ),
}


class HostileServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, misbehave):
        self.misbehave, self.rows = misbehave, []
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_):
        pass  # the client leaves, as it should


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while request := self.read():
            if b"GET" in request[0]:
                self.request.sendall(frame(b'{"data": [{"id": "tiny"}]}'))
                continue
            row = json.loads(request[1])["messages"][-1]["content"]
            self.server.rows.append(row)
            if row != "row 2":
                self.request.sendall(reply("paid"))
                continue
            with suppress(OSError):
                self.server.misbehave(self.request)
            return

    def read(self):
        """Return the head and the body of a request, or nothing at the end of the connection."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return None
            head += line
        lengths = [line.split(b":")[1] for line in head.lower().splitlines() if line.startswith(b"content-length")]
        return head, self.rfile.read(int(lengths[0])) if lengths else b""


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(http_client, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 1 << 20)
    monkeypatch.setattr(http_client, "MAX_ANSWER_BYTES", 1 << 20)
    monkeypatch.delenv("THRESHER_API_KEY", raising=False)
    servers = []

    def start(misbehave):
        server = HostileServer(misbehave)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_address[1]}/v1?timeout={LIMIT_S}&tries=2&in_flight=1#tiny"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_answer_ends_in_time_and_costs_no_other(case, serve, tmp_path):
    misbehave, ending, words = CASES[case]
    server, address = serve(misbehave)
    context = make_context(model=address, cache=FeatureCache(tmp_path), encoder="static")
    began = time.monotonic()
    try:
        rows = load_generator(context).generate(ROWS, Decoding(max_new_tokens=9), stage="answers", context=context)
        ((*_, last),) = rows[2:]
        outcome, said = (MISSING, last.problem) if last.problem else (ANSWERED, last.text)
    except ThresherError as error:
        outcome, said = ENDED, str(error)
    assert time.monotonic() - began < 2 * LIMIT_S + SLACK_S
    assert (outcome, case) == (ending, case), said
    assert re.search(words, said), said
    assert "\n" not in said
    store = AnswerCache(tmp_path)
    stored = store._run("SELECT answer FROM answers", ())
    store.close()
    assert sum(b"paid" in answer for (answer,) in stored) == 2
    assert server.rows.count("row 0") == server.rows.count("row 1") == 1


@pytest.mark.parametrize("misbehave", [drip(b"HTTP/1.1 200 OK\r\nx: "), hang, send(frame(nested(100_000)))])
def test_a_hostile_list_of_models_ends_in_time(misbehave, serve, monkeypatch):
    _, address = serve(misbehave)
    monkeypatch.setattr(Handler, "handle", lambda self: self.read() and misbehave(self.request))
    context = make_context(model=address.replace("#tiny", ""), cache=None, encoder="static")
    began = time.monotonic()
    with pytest.raises(InputError, match="no answer within 1 s|no list of them"):
        load_generator(context).generate(ROWS, Decoding(max_new_tokens=9), stage="answers", context=context)
    assert time.monotonic() - began < LIMIT_S + SLACK_S


def test_encrypted_words_to_a_server_that_speaks_plainly_are_told(serve):
    _, address = serve(hang)
    context = make_context(model=address.replace("http:", "https:"), cache=None, encoder="static")
    with pytest.raises(InputError, match="the server must be reachable"):
        load_generator(context).generate(ROWS, Decoding(max_new_tokens=9), stage="answers", context=context)
