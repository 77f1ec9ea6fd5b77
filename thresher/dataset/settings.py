"""How rows are read: each option is described here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypedDict

from thresher.errors import InputError
from thresher.validation import Settings, get_option, option

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
class SourceSettings(Settings):
    """How the rows of one source are read."""

    where = "load"

    schema: Any = option(
        None,
        "Schema of the rows: alpaca, prompt-completion, query-response, messages, sharegpt, text-label, text. "
        "Default: detected from the first rows.",
        panel=READ_PANEL,
    )
    columns: Mapping[str, str] | None = option(
        None,
        "Your own columns by role, instead of a schema: prompt=title+body,response=answer or text=title,label=kind.",
        flag="--map",
        panel=READ_PANEL,
        parse=parse_map,
    )
    wanted: str | None = option(
        None,
        "For preference (KTO) data: column that marks the rows to keep (true or 1); the others are rejected.",
        panel=READ_PANEL,
    )
    config: str | None = option(None, "Configuration of a Hub data set.", flag="--hub-config", panel=READ_PANEL)
    split: str | None = option(
        None, "Split of a Hub or saved data set, or of a folder with files named after splits.", panel=READ_PANEL
    )


@dataclass(frozen=True, kw_only=True)
class ReadSettings(SourceSettings):
    """How rows are read from a file, a folder or the Hub, or from several sources side by side."""

    id_column: str | None = option(None, "Column with a unique id. Default: a hash of the content.", panel=READ_PANEL)
    strict: bool = option(
        False,
        "Stop at unusable rows instead of rejecting them; select also stops if it would keep fewer rows than "
        "requested.",
        panel=READ_PANEL,
    )
    max_row_bytes: int | None = option(None, "Longer rows are rejected. Default: 4 MiB.", ge=1, panel=READ_PANEL)


@dataclass(frozen=True, kw_only=True)
class PoolSettings(ReadSettings):
    """How a command reads its rows, from one source or from several."""

    sources: tuple[str, ...] | None = option(
        None,
        "Another source, with its own settings: FILE:prompt=question,response=answer, "
        "FILE:schema=alpaca,wanted=label, ID:split, ID:config:split.",
        flag="--source",
        is_repeatable=True,
        panel=READ_PANEL,
        parse=lambda texts: tuple(texts) or None,
    )

    def to_read_settings(self) -> ReadSettings:
        """Return what is for every source."""
        return ReadSettings(**{each.name: getattr(self, each.name) for each in fields(ReadSettings)})


def _side_option(role: str, name: str) -> Any:
    """Return the option that says of the rows of a role what another says of the pool."""
    about = get_option(next(each for each in fields(SourceSettings) if each.name == name))
    flag = about.flag or f"--{name}"
    words = about.help.split(". ")[0].rstrip(".")
    return option(
        None,
        f"Of the rows of --{role}: {words[0].lower()}{words[1:]}.",
        flag=f"--{role}-{flag.removeprefix('--')}",
        panel=READ_PANEL,
        parse=about.parse,
    )


@dataclass(frozen=True, kw_only=True)
class EvalReadSettings(Settings):
    """How the rows to evaluate on are read, where that differs from the pool."""

    where = "eval"

    eval_schema: Any = _side_option("eval", "schema")
    eval_columns: Mapping[str, str] | None = _side_option("eval", "columns")
    eval_wanted: str | None = _side_option("eval", "wanted")
    eval_config: str | None = _side_option("eval", "config")
    eval_split: str | None = _side_option("eval", "split")

    @property
    def given(self) -> dict[str, Any]:
        """The settings that are given, by their names in `SourceSettings`."""
        # a class that extends this one has other fields, too
        own = [each.name for each in fields(EvalReadSettings)]
        values = {name.removeprefix("eval_"): getattr(self, name) for name in own}
        return {name: value for name, value in values.items() if value is not None}


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
