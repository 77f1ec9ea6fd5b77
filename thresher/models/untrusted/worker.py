"""The process in which what others wrote is run: chat templates, patterns and tokenizers.

Requests come as pickles on standard input, answers go as JSON to standard output, each behind its
length in 8 bytes. Each request has limits of processor time and memory; at the first the system
ends the process, at the second Python raises or the process is aborted. The asking side
(`client.py`) tells which.
"""

from __future__ import annotations

import json
import pickle
import re
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

Request = dict[str, Any]
Answer = dict[str, Any]
SIZE = struct.Struct("<Q")
MEMORY_KEY, SECONDS_KEY = "memory", "seconds"


def main() -> None:
    """Answer requests until standard input ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while (content := read_message(requests)) is not None:
        request: Request = pickle.loads(content)  # noqa: S301 - written by the process that started this one
        write_message(answers, json.dumps(_answer(request)).encode())


def read_message(stream: BinaryIO) -> bytes | None:
    """Return the next message; None where the stream ends first."""
    head = stream.read(SIZE.size)
    if len(head) < SIZE.size:
        return None
    (n_bytes,) = SIZE.unpack(head)
    content = stream.read(n_bytes)
    return content if len(content) == n_bytes else None


def write_message(stream: BinaryIO, content: bytes) -> None:
    """Write a message behind its length."""
    stream.write(SIZE.pack(len(content)) + content)
    stream.flush()


def _answer(request: Request) -> Answer:
    kind = request["kind"]
    prepare, run = TASKS[kind]
    prepare()
    started = time.process_time()
    try:
        with _limits(request[SECONDS_KEY], request[MEMORY_KEY]):
            answer = run(request)
    except MemoryError:
        answer = {"problem": "memory"}
    # Whatever a template, a pattern or a tokenizer raises is its answer; panics of Rust are no
    # Exceptions.
    except BaseException as error:  # noqa: BLE001
        answer = {"error": type(error).__name__, "message": str(error)[:2000]}
    return {**answer, "seconds_used": time.process_time() - started}


@contextmanager
def _limits(seconds: float, n_bytes: int) -> Iterator[None]:
    """Limit the processor time and the memory that is taken beyond what the process has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = _count_mapped_bytes()
    if mapped is not None:
        resource.setrlimit(resource.RLIMIT_AS, (mapped + n_bytes, before[1]))
    signal.setitimer(signal.ITIMER_PROF, seconds)  # nobody handles its signal: the process ends
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _count_mapped_bytes() -> int | None:
    """Return the size of the address space; None where the system does not tell (no Linux)."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[0]
    except OSError:
        return None
    return int(pages) * resource.getpagesize()


def _render(request: Request) -> Answer:
    """Show a conversation in a chat template, and say where its generation blocks are."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, blocks = render_jinja_template(**request["options"])
    except TemplateError as error:
        return {"error": "TemplateError", "message": str(error)}
    text = str(texts[0])
    if len(text) > request["max_characters"]:
        return {"problem": "size"}
    return {"text": text, "blocks": blocks[0] if blocks else []}


def _match(request: Request) -> Answer:
    """Match patterns with names: nothing is returned, what counts is that it ends."""
    for pattern in request["patterns"]:
        compiled = re.compile(pattern)
        for name in request["names"]:
            compiled.match(name)
            compiled.fullmatch(name)
    return {}


def _try_tokenizer(request: Request) -> Answer:
    """Load a tokenizer.json, and encode texts that show what grows and what is slow."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(request["path"])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    words = " ".join(list(tokenizer.get_vocab(with_added_tokens=True))[:2000])
    for text in (*request["texts"], words):
        encoding = tokenizer.encode(text, add_special_tokens=True)
        if len(encoding.ids) > request["max_growth"] * (len(text.encode(errors="replace")) + 64):
            return {"problem": "size"}
    return {"max_id": max(vocabulary.values(), default=-1), "n_tokens": len(vocabulary)}


def _import_tokenizers() -> None:
    import tokenizers  # noqa: F401


def _import_templates() -> None:
    import transformers.utils.chat_template_utils  # noqa: F401


# What is imported before the limits count, and what is done within them.
TASKS: dict[str, tuple[Callable[[], None], Callable[[Request], Answer]]] = {
    "render": (_import_templates, _render),
    "match": (lambda: None, _match),
    "tokenizer": (_import_tokenizers, _try_tokenizer),
}

if __name__ == "__main__":
    main()
