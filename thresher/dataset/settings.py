"""How rows are read: each option is described here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from thresher.errors import InputError
from thresher.validation import Settings, option

if TYPE_CHECKING:
    from thresher.dataset.schema import Schema

READ_PANEL = "How rows are read"


def parse_map(text: str) -> dict[str, str]:
    """Return {"prompt": "title+body", ...} from "prompt=title+body,response=answer".

    Raises:
        InputError: a part is not NAME=COLUMN.
    """
    columns = {}
    for part in text.split(","):
        name, equals, column = part.partition("=")
        if not (equals and name.strip() and column.strip()):
            raise InputError(
                f"--map: must be NAME=COLUMN[+COLUMN],..., got '{part}'; for example prompt=question,response=answer"
            )
        columns[name.strip()] = column.strip()
    return columns


@dataclass(frozen=True, kw_only=True)
class ReadSettings(Settings):
    """How rows are read from a file, a folder or the Hub."""

    where = "load"

    schema: Any = option(
        None,
        "Schema of the rows: alpaca, prompt-completion, query-response, messages, sharegpt, text-label, text. "
        "Default: recognized from the first rows.",
        panel=READ_PANEL,
    )
    columns: Mapping[str, str] | None = option(
        None,
        "Your own columns by role, in place of a schema: prompt=title+body,response=answer or text=title,label=kind.",
        flag="--map",
        panel=READ_PANEL,
        parse=parse_map,
    )
    id_column: str | None = option(None, "Column with a unique id. Default: a hash of the content.", panel=READ_PANEL)
    wanted: str | None = option(
        None,
        "Column that marks the rows to keep, of preference (KTO) data: true or 1; the others are rejected.",
        panel=READ_PANEL,
    )
    config: str | None = option(None, "Configuration of a Hub data set.", panel=READ_PANEL)
    split: str | None = option(
        None, "Split of a Hub or saved data set, or of a folder with files named after splits.", panel=READ_PANEL
    )
    strict: bool = option(False, "Stop at rows that cannot be used instead of rejecting them.", panel=READ_PANEL)
    max_row_bytes: int | None = option(
        None, "Longer rows of text files are rejected. Default: 4 MiB.", ge=1, panel=READ_PANEL
    )


class ReadOptions(TypedDict, total=False):
    """The fields of `ReadSettings` as keyword arguments, for type checkers."""

    schema: str | Schema | None
    columns: Mapping[str, str] | None
    id_column: str | None
    wanted: str | None
    config: str | None
    split: str | None
    strict: bool
    max_row_bytes: int | None
