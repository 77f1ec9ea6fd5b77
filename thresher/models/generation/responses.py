"""What is kept of a server's responses, and how the choice of an option is read from it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from thresher.models.generation.http_client import RefusedError, to_one_line

MAX_LOG_P = 0.01  # of a probability, but for rounding


def _choice(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first choice of a response.

    Raises:
        RefusedError: there is none.
    """
    choices = response.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    raise RefusedError(200, "its answer holds no choices")


def keep_text(response: dict[str, Any]) -> dict[str, Any]:
    """Keep the text of a response, and whether it was cut.

    Raises:
        RefusedError: the response holds no text. One that only calls tools, or was cut before it
            had any, has an empty one.
    """
    choice = _choice(response)
    message, is_cut = choice.get("message"), choice.get("finish_reason") == "length"
    if not isinstance(message, dict):
        raise RefusedError(200, "its answer holds no message")
    text = message.get("content")
    if text is None and (is_cut or message.get("tool_calls")):
        text = ""
    if not isinstance(text, str):
        raise RefusedError(200, f"the content of its message must be text, got {_kind(text)}")
    return {"text": _replace_surrogates(text.strip()), "is_cut": is_cut}


def keep_top_tokens(response: dict[str, Any]) -> dict[str, Any]:
    """Keep a response's text, and the likeliest tokens at its places: [[token, log-probability]].

    Raises:
        RefusedError: the response holds no text, or log-probabilities of another form than
            OpenAI's.
    """
    logprobs = _choice(response).get("logprobs")
    try:
        places = (logprobs or {}).get("content") or []
        top = [[_likely(token) for token in place.get("top_logprobs") or []] for place in places]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        shown = to_one_line(logprobs)[:80]
        raise RefusedError(200, f"its log-probabilities are not of OpenAI's form: {shown}") from None
    return {**keep_text(response), "top": [place for place in top if place]}


def _likely(token: Mapping[str, Any]) -> tuple[str, float]:
    text, log_p = token["token"], float(token["logprob"])
    if not isinstance(text, str) or not log_p < MAX_LOG_P:
        raise ValueError(token)
    return _replace_surrogates(text), log_p


def _replace_surrogates(text: str) -> str:
    """Return a text in which half of a surrogate pair, which no file can hold, is U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def option_probabilities(top: Sequence[Sequence[tuple[str, float]]], options: Sequence[str]) -> list[float] | None:
    """Return the options' probabilities among themselves, where they are likeliest in all.

    A token counts as an option when nothing but it is left without white space and the marks around
    it. Of "(B)" the place behind "(" counts: before it, options are among the likeliest tokens too,
    but with hardly any probability.
    """
    best, probabilities = 0.0, None
    for place in top:
        sums = dict.fromkeys(options, 0.0)
        for token, log_p in place:
            word = token.strip(" \n\t().:*\"'\u0120\u2581")
            if word in sums:
                sums[word] += math.exp(log_p)
        total = sum(sums.values())
        if total > best:
            best, probabilities = total, [p / total for p in sums.values()]
    return probabilities


def find_named_option(text: str, options: Sequence[str]) -> list[float] | None:
    """Return 1 for the option that an answer begins with or names in parentheses, or None."""
    words = "|".join(map(re.escape, options))
    first = re.match(rf"\W*({words})(?!\w)(?!\s+[a-z])", text)  # not the article: "A good answer"
    named = {first.group(1)} if first else set(re.findall(rf"\(({words})\)", text))
    return [float(option in named) for option in options] if len(named) == 1 else None
