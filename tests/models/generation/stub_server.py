"""A server of OpenAI's protocol that replies as a test wants, played by an http.server here."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from thresher.features import make_context
from thresher.models.generation.decoding import Decoding
from thresher.models.generation.load import load_generator

DECODING = Decoding(max_new_tokens=9)


class StubServer:
    """A server whose replies a function gives: (body, number) -> (status, content, headers)."""

    def __init__(self):
        self.reply = lambda body, number: self.format_reply(f"answer {body['messages'][-1]['content']}")
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

    def make_context(self, query="", **settings):
        """Return a context whose model is this server, with settings in its address: "?tries=2"."""
        return make_context(**{"model": f"{self.url}{query}#tiny", "cache": None, "encoder": "static", **settings})

    @staticmethod
    def format_reply(text, *, finish="stop", logprobs=None):
        return 200, {"choices": [{"message": {"content": text}, "finish_reason": finish, "logprobs": logprobs}]}

    @staticmethod
    def generate_texts(context, conversations, decoding=DECODING):
        """Return the texts of the answers to each conversation, or the problem of a missing one."""
        rows = load_generator(context).generate(conversations, decoding, stage="answers", context=context)
        return [[answer.problem or answer.text for answer in row] for row in rows]
