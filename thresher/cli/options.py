"""Options that several commands share: how rows are read, and what is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.errors import InputError

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.selection.distributed import PoolFiles


class LossOn(StrEnum):
    """Turns of a conversation."""

    last = "last-assistant"
    all = "all-assistant"


class KeptAs(StrEnum):
    """Precision in which embeddings are kept."""

    float32 = "float32"
    float16 = "float16"


READ = "How rows are read"

Schema = Annotated[
    str | None,
    typer.Option(
        help="Name the schema instead of recognising it: alpaca, prompt-completion, query-response, messages, "
        "sharegpt, text-label, text.",
        rich_help_panel=READ,
    ),
]
Map = Annotated[
    str | None,
    typer.Option(
        "--map",
        help="Columns of your own: prompt=title+body,response=answer or text=title,label=kind.",
        rich_help_panel=READ,
    ),
]
IdColumn = Annotated[
    str | None, typer.Option(help="Column with a unique id; not set: a hash of the content.", rich_help_panel=READ)
]
Config = Annotated[str | None, typer.Option(help="Configuration of a Hub data set.", rich_help_panel=READ)]
Split = Annotated[str | None, typer.Option(help="Split of a Hub or saved data set.", rich_help_panel=READ)]
MaxRowBytes = Annotated[
    int | None,
    typer.Option(help="Longer rows of text files are set aside; not set: 4 MiB.", rich_help_panel=READ, min=1),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at bad rows instead of setting them aside.", rich_help_panel=READ)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier result in --out.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16 or float16 of the models; not set: float32, but for large ones.")
]
EmbeddingDtype = Annotated[KeptAs, typer.Option(help="How embeddings are kept: float16 takes half the room.")]
BatchTokens = Annotated[int | None, typer.Option(help="Tokens a model reads at once; not set: what there is room for.")]
Encoder = Annotated[str | None, typer.Option(help="minilm, static, or a sentence-transformers model.")]
Model = Annotated[str | None, typer.Option(help="Language model: Hub id, folder, adapter or server.")]
Tokenizer = Annotated[str | None, typer.Option(help="Whose tokens are counted.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; not set: the best there is.")]
MaxLength = Annotated[int | None, typer.Option(help="Tokens the language model reads of a row.")]
AskedTurns = Annotated[LossOn, typer.Option(help="Turns the language model is asked about.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


def parse_map(text: str | None) -> dict[str, str] | None:
    """Return {"prompt": "title+body", ...} from "prompt=title+body,response=answer".

    Raises:
        InputError: a part is not NAME=COLUMN.
    """
    if text is None:
        return None
    columns = {}
    for part in text.split(","):
        name, equals, column = part.partition("=")
        if not (equals and name.strip() and column.strip()):
            raise InputError(
                f"--map: must be NAME=COLUMN[+COLUMN],..., got '{part}'; for example prompt=question,response=answer"
            )
        columns[name.strip()] = column.strip()
    return columns


def parse_settings(pairs: list[str] | None) -> dict[str, Any]:
    """Return {"easy_share": "0.3", ...} from ["easy_share=0.3", ...].

    Raises:
        InputError: a pair is not NAME=VALUE.
    """
    settings = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not (equals and name.strip()):
            raise InputError(f"--set: must be NAME=VALUE, got '{pair}'; for example --set easy_share=0.3")
        settings[name.strip().replace("-", "_")] = value.strip()
    return settings


def read_rows(source: str, *, columns: str | None = None, **reading: Any) -> Dataset:
    """Load the rows that the options describe; `reading` is as for `load`."""
    from thresher.dataset import load

    return load(source, columns=parse_map(columns), **reading)


def read_telling(source: str, *, quiet: bool, read: Callable[..., Dataset] = read_rows, **reading: Any) -> Dataset:
    """Load rows of whose bad ones no summary tells: how many there are and why is told at once."""
    from thresher.dataset.rejection import describe_rejected

    rows = read(source, **reading)
    if rows.n_rejected and not quiet:
        typer.echo(f"{source}: {describe_rejected(rows.n_read, rows.rejected_by_reason)}", err=True)
    return rows


def read_as(rows: Dataset | PoolFiles) -> str | None:
    """Return how the columns were read; None for files that were named and not read here."""
    from thresher.dataset import Dataset

    return rows.schema.describe(rows.column_names) if isinstance(rows, Dataset) else None


def unusable_lines(by_reason: Mapping[str, int]) -> list[str]:
    """Return the most frequent reasons for which rows cannot be used, a line each, and how many rows have others."""
    reasons = list(by_reason.items())
    lines = [f"  {count:,} {reason}" for reason, count in reasons[:5]]
    if len(reasons) > 5:
        lines.append(f"  {sum(count for _, count in reasons[5:]):,} for {len(reasons) - 5} more reasons")
    return lines


def name_shards(source: str, *, columns: str | None = None, config: str | None = None, **reading: Any) -> PoolFiles:
    """Name the files that the options describe; they are read where the work is. `reading` is as for `load`.

    Raises:
        InputError: a configuration was given, which only a Hub data set has.
    """
    from thresher.selection.distributed import shards

    if config is not None:
        raise InputError(f"--config: is for a Hub data set, and engine ray reads files, got '{config}'; leave it out")
    return shards(source, columns=parse_map(columns), **reading)
