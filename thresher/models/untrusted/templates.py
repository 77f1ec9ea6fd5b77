"""Chat templates of others, shown in the process with limits.

A template is a program: it may loop a billion times, or double a text forty times. Each
conversation may take 5 s and 512 MB, and all of them together a quarter of a second on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thresher.errors import InputError
from thresher.models.untrusted.client import LimitError, ask

SECONDS, MEGABYTES = 5, 512
MEAN_SECONDS, FREE_SECONDS = 0.25, 10
MAX_CHARACTERS = 1 << 20  # a template may write beside the conversation
MAX_GROWTH = 64  # and of each character of it


@dataclass
class _Spent:
    """Processor time that conversations took so far in this process."""

    seconds: float = 0.0
    n: int = 0


_spent: dict[int, _Spent] = {}  # by the hash of the template
_trusted: set[str] = set()


def trust_template(template: Any) -> None:
    """Show a template in this process from now on: it belongs to a model whose files were hashed.

    Args:
        template: of a tokenizer; None where it has none.
    """
    if isinstance(template, str):
        _trusted.add(template)


def is_trusted(template: str) -> bool:
    """Tell whether a template belongs to a model that comes along."""
    return template in _trusted


def render_untrusted(options: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return the text of a conversation in a chat template, and its generation blocks.

    Args:
        options: of transformers' `render_jinja_template`.

    Raises:
        TemplateError: the template does not show the conversation.
        TypeError: likewise, for a content that is not there.
        InputError: the template takes or makes more than its share.
    """
    template = options["chat_template"]
    limit = MAX_CHARACTERS + MAX_GROWTH * len(repr(options["conversations"])) + MAX_GROWTH * len(repr(options["tools"]))
    try:
        answer = ask("render", seconds=SECONDS, megabytes=MEGABYTES, options=options, max_characters=limit)
    except LimitError as error:
        raise InputError(
            f"model: its chat template must show a conversation within {SECONDS} s and {MEGABYTES} MB, and it {error}; "
            f"give it another template, or choose another model"
        ) from None
    spent = _spent.setdefault(hash(template), _Spent())
    spent.seconds, spent.n = spent.seconds + answer["seconds_used"], spent.n + 1
    if spent.seconds > FREE_SECONDS + MEAN_SECONDS * spent.n:
        raise InputError(
            f"model: its chat template must show a conversation in {MEAN_SECONDS} s on average, and {spent.n} took "
            f"{spent.seconds:.0f} s; give it another template, or choose another model"
        )
    if "error" in answer:
        raise as_template_error(answer["error"], answer["message"])
    return answer["text"], answer["blocks"]


def as_template_error(kind: str, message: str) -> Exception:
    """Return what says that a template does not show a conversation.

    Args:
        kind: name of the class of what the template raised.
        message: of it.
    """
    from jinja2 import TemplateError

    if kind == "TypeError":
        return TypeError(message)
    return TemplateError(message if kind == "TemplateError" else f"{kind}: {message}")
