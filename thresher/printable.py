"""What may leave for a terminal, a log or a page: no control character of anybody's data.

Names of columns, files and labels, texts of rows and words of servers can hold sequences that
recolor a terminal, move its cursor or turn text around, and line breaks that forge a line of a log.
Whatever is printed goes through here, and shows them as Python would write them.
"""

from __future__ import annotations

import html
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, TextIO

# Controls but for line feed and tab; marks that turn the direction of text or cannot be seen; line
# and paragraph separators; halves of surrogate pairs; tags. The joiners of Indic scripts and of
# emoji stay.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)

# What a page must not hold: controls, halves of surrogate pairs, what turns text around. Marks of
# direction and joiners stay: people write them.
_NOT_OF_PAGES = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


N_CHARACTERS = 160  # of a cell in a table

_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~])")


def replace_controls(text: str) -> str:
    """Return a text with a box for each character that a page or figure must not hold."""
    return _NOT_OF_PAGES.sub("\ufffd", text)


def escape_controls(text: str) -> str:
    r"""Return a text with control characters but line feeds and tabs escaped, as in \x1b."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def escape_line(text: str) -> str:
    r"""Return a text as one line: line feeds are escaped, too, as \n."""
    return escape_controls(text).replace("\n", "\\n")


def split_sentence(text: str) -> tuple[str, str]:
    """Return the first sentence of a text, and the rest."""
    end = re.search(r"[.!?] (?=[A-Z])", text)
    return (text, "") if end is None else (text[: end.start() + 1], text[end.end() :])


def join_lines(lines: Iterable[str]) -> str:
    """Return lines one below the other, none of which is two."""
    return "\n".join(escape_line(line) for line in lines)


def escape_html(text: str) -> str:
    """Return a text as HTML holds it, in elements and in quotes, without control characters."""
    return html.escape(replace_controls(text))


def render_table(columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return an HTML table with every cell escaped and cut to 160 characters."""
    left = "style='text-align:left'"
    head = "".join(f"<th {left}>{escape_html(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td {left}>{escape_html(str(cell)[:N_CHARACTERS])}</td>" for cell in line) + "</tr>"
        for line in lines
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def escape_markdown(text: str) -> str:
    """Return a text as one line that Markdown shows as it is, without control characters."""
    return _MARKUP.sub(r"\\\1", replace_controls(text).replace("\n", " "))


def escape_json(text: str) -> str:
    """Return JSON that holds the same, with control characters in JSON's own escapes."""
    return _CONTROLS.sub(lambda match: _to_json_escape(match[0]), text)


def _to_json_escape(character: str) -> str:
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def clean_foreign_messages() -> None:
    """Let this process print no raw control character in warnings, log records and tracebacks."""
    logging.setLogRecordFactory(_CleanRecord)
    warnings.showwarning = _show_warning
    sys.excepthook = _print_exception


class _CleanRecord(logging.LogRecord):
    """A log record whose message is one line."""

    def getMessage(self) -> str:
        """Return the message, escaped."""
        return escape_line(super().getMessage())


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = warnings.formatwarning(escape_line(str(message)), category, filename, lineno, line)
    (file or sys.stderr).write(escape_controls(text))


def _print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(escape_controls("".join(traceback.format_exception(kind, error, trace))))
