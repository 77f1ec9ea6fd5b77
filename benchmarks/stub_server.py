"""A chat-completions server on loopback whose answers a function gives, for benchmarks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def start_server(model: str, answer: Callable[[dict[str, Any]], str], *, port: int = 0) -> ThreadingHTTPServer:
    """Start a server, which ends with the process at the latest.

    Args:
        model: the name of its only model.
        answer: returns the text of the answer to the body of a request; called from several
            threads.
        port: default: any that is free.
    """

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send({"data": [{"id": model}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.send({"choices": [{"message": {"content": answer(body)}, "finish_reason": "stop"}]})

        def send(self, content):
            text = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
