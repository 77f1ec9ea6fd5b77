"""A page as data: an answer in one sentence, and sections of text, tables and figures.

`rendering.py` turns it into HTML.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from thresher.reporting.charts.chart import Chart


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Notice:
    """Something the reader must not overlook, such as what is missing and why."""

    kind: ClassVar[str] = "notice"
    text: str


@dataclass(frozen=True)
class Items:
    """A list of short sentences."""

    kind: ClassVar[str] = "items"
    texts: Sequence[str]


@dataclass(frozen=True)
class Code:
    """A command, as it is typed."""

    kind: ClassVar[str] = "code"
    text: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; its first column names the row.

    Attributes:
        caption: what it shows.
        columns: headings.
        rows: texts, as many as there are headings.
        numeric: indices of columns that hold numbers.
        text: indices of columns that hold text of the user's rows.
        is_folded: hidden until the reader opens it.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Collection[int] = ()
    text: Collection[int] = ()
    is_folded: bool = False

    def __post_init__(self) -> None:
        """Check that every row is as long as the heading."""
        assert all(len(row) == len(self.columns) for row in self.rows), self.caption


@dataclass(frozen=True)
class Share:
    """One bar of `ShareBars`."""

    name: str
    value: float  # 0..1 of the longest bar's scale
    text: str
    tone: str


@dataclass(frozen=True)
class ShareBars:
    """A table with a bar per name."""

    kind: ClassVar[str] = "shares"
    caption: str
    columns: tuple[str, str]
    shares: Sequence[Share]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One of the user's rows.

    Attributes:
        text: of the row.
        reason: why it is here.
        beside: text of another row to show with it, or None.
        place: file and line.
        beside_is: what the other row is.
    """

    text: str
    reason: str
    beside: str | None = None
    place: str = ""
    beside_is: str = "kept in its place"


@dataclass(frozen=True)
class Examples:
    """Rows of the user, each with the reason why it is shown."""

    kind: ClassVar[str] = "examples"
    title: str
    note: str
    examples: Sequence[Example]


@dataclass(frozen=True)
class Pairs:
    """Rows of the user in two columns, side by side; below each other on a phone."""

    kind: ClassVar[str] = "pairs"
    title: str
    names: tuple[str, str]
    pairs: Sequence[tuple[Example, Example]]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What figures and maps have in common.

    Attributes:
        name: stem of the PNG and SVG files.
        title: what it shows.
        caption: how to read it.
        alt: what it shows, in words.
        table: the same numbers, or some of the rows.
    """

    name: str
    title: str
    caption: str
    alt: str
    table: Table


@dataclass(frozen=True, kw_only=True)
class Figure(Drawn):
    """One chart, or several as panels side by side."""

    kind: ClassVar[str] = "figure"
    charts: Sequence[Chart]


@dataclass(frozen=True)
class MapPanel:
    """The kept and the dropped points of one choice: indices into the points of the map."""

    title: str
    kept: Sequence[int]
    dropped: Sequence[int]


@dataclass(frozen=True)
class MapGroups:
    """What points can be colored by: the value of a column.

    Attributes:
        name: of the column.
        values: the most frequent ones; the last one can stand for all others.
        of: (n,) index of each point's value.
    """

    name: str
    values: Sequence[str]
    of: Sequence[int]


@dataclass(frozen=True)
class MapWords:
    """Words that are frequent in a part of the map and rare elsewhere, and where to write them."""

    x: int
    y: int
    text: str


@dataclass(frozen=True, kw_only=True)
class MapPlaces:
    """Where the rows of a map are in the user's files.

    Attributes:
        names: of the files.
        file: (n,) index of each row's file.
        line: (n,) its line.
    """

    names: Sequence[str]
    file: Sequence[int]
    line: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class SmallDots:
    """Further rows of a map with a single panel, without their texts.

    Attributes:
        x: (m,) as of the map.
        y: (m,) as of the map.
        is_kept: (m,) whether the row is kept.
        of: for each column of the map, (m,) index of each row's value.
    """

    x: Sequence[int]
    y: Sequence[int]
    is_kept: Sequence[bool]
    of: Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class PoolMap(Drawn):
    """A map of the pool, as panels over the same points.

    Attributes:
        x: (n,) 0..1000.
        y: (n,) 0..640, downwards.
        texts: (n,) start of each row.
        notes: (n,) label of each row, "" for none.
        panels: one per choice.
        groups: columns to color the points by and to show some of them by.
        words: of the parts of the map.
        places: of the rows, then of the small dots.
        small: further rows, or None.
    """

    kind: ClassVar[str] = "map"
    x: Sequence[int]
    y: Sequence[int]
    texts: Sequence[str]
    notes: Sequence[str]
    panels: Sequence[MapPanel]
    groups: Sequence[MapGroups] = ()
    words: Sequence[MapWords] = ()
    places: MapPlaces
    small: SmallDots | None = None


Block: TypeAlias = Paragraph | Notice | Items | Code | Table | ShareBars | Examples | Pairs | Figure | PoolMap


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Tile:
    """A key number at the top of the page, with its name and a remark."""

    name: str
    value: str
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page.

    Attributes:
        kind: of the folder, in words.
        title: of the page.
        answer: one sentence.
        more: sentences that qualify it.
        tiles: key numbers.
        sections: the rest; one without blocks is not shown.
        footer: when and with which version the folder was written.
    """

    kind: str
    title: str
    answer: str
    more: Sequence[str] = ()
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section] = ()
    footer: Mapping[str, Any] = field(default_factory=dict)

    def figures(self) -> list[Figure | PoolMap]:
        """Return every figure, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Figure | PoolMap)]
