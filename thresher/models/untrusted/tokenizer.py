"""Tokenizers: tried within limits before they are loaded, so that none hangs or grows later.

A tokenizer.json may hold patterns that take exponential time, replacements that double a text, and
paddings of a billion tokens. Patterns of nested repeats are refused as they stand; the rest shows
when texts of one kind of character, long enough for it, are encoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from thresher.errors import InputError
from thresher.models.untrusted.client import LimitError, ask
from thresher.models.untrusted.folder import read_json

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
# and as many seconds and 40 times as many megabytes as the file has megabytes: Gemma's has 33
SECONDS, MEGABYTES = 20, 512
MAX_GROWTH = 32  # tokens of a byte
MAX_TEXT = 20_000  # characters of a special token
MAX_PADDED = 1 << 20  # tokens of a padding
MAX_ADDED = 1 << 20
KINDS = (
    " ",
    "a",
    "A",
    "1",
    "\n",
    "\t",
    ".",
    "'",
    "_",
    "-",
    "<",
    "é",
    "あ",
    "\r\n",
    "ab",
    "a1",
    "a ",
    " \n",
    "'s",
    "aA",
)
N_CHARACTERS = 3000
MAX_ENDING = 200  # characters of patterns that stand behind each text
_REPEAT = re.compile(r"([+*]|\{\d*,\d*\})(\+?)")  # and whether it gives nothing back


def check_tokenizer(folder: Path, *, owner: str) -> int | None:
    """Check the tokenizer in a folder.

    Returns:
        The largest token id of its vocabulary, added tokens apart; None without a tokenizer.json.

    Raises:
        InputError: its files are damaged, or it takes or makes more than any tokenizer does.
    """
    path = folder / CONFIG
    if path.is_file():
        check_tokenizer_config(read_json(path, owner=owner), owner)
    path = folder / TOKENIZER
    return check_tokenizer_file(path, owner=owner) if path.is_file() else None


def check_tokenizer_file(path: Path, *, owner: str) -> int:
    """Check a tokenizer.json, once in a process while it stays as it is.

    Returns:
        The largest token id of its vocabulary, added tokens apart; -1 if it has none.

    Raises:
        InputError: as above.
    """
    status = path.stat()
    return _check_file(path, owner, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=64)
def _check_file(path: Path, owner: str, *_status: int) -> int:
    content = read_json(path, owner=owner)
    patterns = list(_check_parts(content, owner))
    for text in patterns:
        if has_nested_repeat(text):
            raise InputError(
                f"{owner}: a pattern of tokenizer.json must not repeat what repeats, which takes exponential time, got "
                f"'{text[:80]}'; take another tokenizer"
            )
    n_file = path.stat().st_size >> 20
    seconds, megabytes = SECONDS + n_file, MEGABYTES + 40 * n_file
    texts = _write_probes(patterns)
    try:
        answer = ask(
            "tokenizer", seconds=seconds, megabytes=megabytes, path=str(path), texts=texts, max_growth=MAX_GROWTH
        )
    except LimitError as error:
        raise InputError(
            f"{owner}: its tokenizer must encode {len(texts)} texts of {N_CHARACTERS} characters within {seconds} s "
            f"and {megabytes} MB, and it {error}; take another tokenizer"
        ) from None
    if "error" in answer:
        raise InputError(
            f"{owner}: tokenizer.json must be one that the tokenizers library reads, and it says "
            f"'{answer['message'][:200]}'; take another tokenizer"
        )
    max_id, n_tokens = answer["max_id"], answer["n_tokens"]
    if max_id > 4 * n_tokens + MAX_ADDED:
        raise InputError(f"{owner}: the ids of {n_tokens} tokens must be near their number, found {max_id}; fix it")
    return int(max_id)


def _write_probes(patterns: Sequence[str]) -> list[str]:
    """Return texts of one kind of character each, with what the patterns ask for out of reach.

    A pattern that needs a letter is not even tried where a text has none.
    """
    ending = "!" + "".join(sorted(set("".join(patterns))))[:MAX_ENDING]
    return [(kind * N_CHARACTERS)[:N_CHARACTERS] + ending for kind in KINDS]


def _check_parts(content: dict[str, Any], owner: str) -> Iterator[str]:
    """Check paddings and added tokens, and yield the patterns."""
    padding = content.get("padding")
    if isinstance(padding, dict):
        fixed = padding.get("strategy", {}).get("Fixed") if isinstance(padding.get("strategy"), dict) else None
        for value in (fixed, padding.get("pad_to_multiple_of")):
            if value is not None and not (isinstance(value, int) and 0 < value <= MAX_PADDED):
                raise InputError(
                    f"{owner}: the padding of tokenizer.json must be at most {MAX_PADDED} tokens, got "
                    f"{str(value)[:40]}; take another tokenizer"
                )
    added = content.get("added_tokens")
    if isinstance(added, list):
        _check_added(((token.get("id"), token) for token in added if isinstance(token, dict)), owner, TOKENIZER)
    for key in ("normalizer", "pre_tokenizer", "decoder"):
        yield from _find_patterns(content.get(key))


def has_nested_repeat(pattern: str) -> bool:
    """Tell whether a pattern repeats a group that repeats, without an end to either: (a+)+."""
    groups = [False]  # of each open group, whether it has a repeat without an end
    place, is_class = 0, False
    while place < len(pattern):
        character = pattern[place]
        place += 2 if character == "\\" else 1
        if is_class or character == "[":
            is_class = character != "]"
            if is_class:
                continue
        if character == "(":
            groups.append(False)
            # "(?" and "(*" are no repeats
            place += pattern[place : place + 1] in ("?", "*")
            continue
        had_repeat = groups.pop() if character == ")" and len(groups) > 1 else False
        repeat = _REPEAT.match(pattern, place) if character not in "|^" else None
        if repeat is None:
            groups[-1] |= had_repeat
            continue
        place = repeat.end()
        is_endless = not repeat[2] and (repeat[1] in "+*" or repeat[1].endswith(",}"))
        if is_endless and had_repeat:
            return True
        groups[-1] |= is_endless or had_repeat
    return False


def _find_patterns(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        regex = part.get("Regex")
        if isinstance(regex, str):
            yield regex
        for value in part.values():
            yield from _find_patterns(value)
    elif isinstance(part, list):
        for value in part:
            yield from _find_patterns(value)


def _check_added(tokens: Iterator[tuple[Any, dict[str, Any]]], owner: str, where: str) -> None:
    for n, (code, token) in enumerate(tokens):
        text = token.get("content")
        is_id = (isinstance(code, int) and not isinstance(code, bool)) or (isinstance(code, str) and code.isdecimal())
        if n >= MAX_ADDED or not isinstance(text, str) or len(text) > MAX_TEXT or not is_id or int(code) >= 1 << 31:
            raise InputError(
                f"{owner}: each added token of {where} must have a text of at most {MAX_TEXT} characters and an id "
                f"below 2**31, got {json.dumps([code, text])[:80]}; take another tokenizer"
            )


def check_tokenizer_config(config: dict[str, Any], owner: str) -> None:
    """Refuse a tokenizer_config.json whose lengths and tokens are none.

    Raises:
        InputError: a length is no number, a token no text, or an id no id.
    """
    length = config.get("model_max_length")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int | float) or not length > 0):
        raise InputError(
            f"{owner}: model_max_length of {CONFIG} must be a number above 0, got {repr(length)[:80]}; correct it"
        )
    added = config.get("added_tokens_decoder")
    if isinstance(added, dict):
        _check_added(((c, token) for c, token in added.items() if isinstance(token, dict)), owner, CONFIG)
    template = config.get("chat_template")
    if not isinstance(template, str | list | dict | None):
        raise InputError(f"{owner}: chat_template of {CONFIG} must be a text, got {repr(template)[:80]}; correct it")
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        token = config.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        if not isinstance(text, str | None) or len(text or "") > MAX_TEXT:
            raise InputError(
                f"{owner}: {key} of {CONFIG} must be a text of a token, got {repr(token)[:80]}; correct it"
            )
