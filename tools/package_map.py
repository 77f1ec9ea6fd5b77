"""Draw the packages and who imports whom to docs/package_map.svg.

    python tools/package_map.py           writes the picture
    python tools/package_map.py --check   ends with 1 if the committed picture is not up to date

The rows are the layers of import-linter in pyproject.toml, the arrows come from the imports. An
arrow that follows from a chain of others is left out; one against the layers is drawn in red. The
layout is that of Sugiyama, Tagawa and Toda (1981): an arrow that skips layers gets an invisible
stop in each, the stops and boxes of a layer are put in an order with few crossings and then moved
below those that they are joined to.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

from import_graph import read_import_graph

ROOT = Path(__file__).resolve().parents[1]
PICTURE = "docs/package_map.svg"
PACKAGE = "thresher"

# What lives there, in the words of the picture; the docstring of each package says more.
WORDS = {
    "cli": "the commands",
    "notebook": "results read back, progress",
    "jobs": "curation on a schedule",
    "reporting": "HTML pages and charts",
    "experiments": "curve, compare, tune",
    "selection": "scores to subset",
    "selectors": "one file per method",
    "curation": "rules that clean rows",
    "labeling": "which rows to label",
    "growth": "rows that a model writes",
    "trainer": "rows to adapter",
    "features": "values computed per row",
    "evaluation": "metrics and their errors",
    "models": "encoders, language models",
    "subset": "budget, quota, the cut",
    "cache": "values computed before",
    "dataset": "files to rows",
    "artifacts": "results on disk, manifests",
    "checks": "is an answer right?",
    "plugins": "entry points",
    "validation": "checks of settings",
    "printable": "text for terminals",
    "numeric": "arrays in, arrays out",
    "progress": "events of progress",
    "lazy": "names imported on first use",
    "errors": "what can go wrong",
}

BOX_WIDTH, BOX_HEIGHT = 196, 46
GAP, STOP_GAP = 36, 22  # between the edges of boxes, and around a stop
ROW = 92  # from the top of one layer to the top of the next
MARGIN = 28
ROUNDS = 60
FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, sans-serif"
TINTS = ("#e8eaf6", "#e3ecfb", "#ddf1fa", "#daf3f0", "#dff3e4", "#ecf3d8", "#f7f1d3", "#fbe9d5", "#f6e6e3", "#efe8ee")

Arrow = tuple[str, str]
Stop = tuple[str, str, int]  # of an arrow, in a layer
Node = str | Stop


@dataclass(frozen=True)
class Drawing:
    """The nodes of each layer in order, the middle of each node, and the way of each arrow."""

    rows: Sequence[Sequence[Node]]
    middles: Mapping[Node, float]
    ways: Mapping[Arrow, Sequence[Node]]


def read_layers(root: Path) -> list[list[str]]:
    """Return the packages of each layer, top first, as import-linter is told them."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip().removeprefix(f"{PACKAGE}.") for name in layer.split("|")] for layer in layers]


def read_arrows(root: Path, packages: Iterable[str]) -> set[Arrow]:
    """Return who imports whom among packages, types and imports inside functions included."""
    known = set(packages)
    pairs = {
        (source.split(".")[1], target.split(".")[1])
        for source, targets in read_import_graph(root / PACKAGE).items()
        for target in targets
        if "." in source and "." in target
    }
    return {(source, target) for source, target in pairs if source != target and {source, target} <= known}


def drop_implied(arrows: set[Arrow]) -> set[Arrow]:
    """Return the arrows that no chain of others implies; there must be no circle."""
    targets: dict[str, set[str]] = {}
    for source, target in arrows:
        targets.setdefault(source, set()).add(target)

    def reach(name: str) -> set[str]:
        return set().union(*({target} | reach(target) for target in targets.get(name, ())))

    return {
        (source, target)
        for source, target in arrows
        if not any(target in reach(other) for other in targets[source] - {target})
    }


def lay_out(layers: Sequence[Sequence[str]], arrows: Iterable[Arrow]) -> Drawing:
    """Put boxes and stops into their places."""
    height = {name: number for number, layer in enumerate(layers) for name in layer}
    rows: list[list[Node]] = [list(layer) for layer in layers]
    ways: dict[Arrow, list[Node]] = {}
    for source, target in sorted(arrows):
        stops: list[Node] = [(source, target, row) for row in range(height[source] + 1, height[target])]
        ways[source, target] = [source, *stops, target]
        for stop in stops:
            rows[stop[2]].append(stop)  # type: ignore[index, arg-type]
    links = sorted({link for way in ways.values() for link in pairwise(way)}, key=str)
    rows = _order_rows(rows, links)
    return Drawing(rows, _place_nodes(rows, links), ways)


def _order_rows(rows: list[list[Node]], links: Sequence[tuple[Node, Node]]) -> list[list[Node]]:
    """Sort rows by the mean place of neighbors; keep the order with the fewest crossings."""
    best, fewest = rows, _count_crossings(rows, links)
    current = [list(row) for row in rows]
    for round_number in range(ROUNDS):
        is_down = round_number % 2 == 0
        for row in current if is_down else current[::-1]:
            place = {node: number / max(1, len(other) - 1) for other in current for number, node in enumerate(other)}
            means = {node: _mean_neighbor(node, links, place, is_down) for node in row}
            row.sort(key=lambda node: means[node])  # stable: ties stay
        crossings = _count_crossings(current, links)
        if crossings < fewest:
            best, fewest = [list(row) for row in current], crossings
    return best


def _mean_neighbor(node: Node, links: Sequence[tuple[Node, Node]], place: Mapping[Node, float], is_down: bool) -> float:
    near = [place[upper if is_down else lower] for upper, lower in links if node == (lower if is_down else upper)]
    return sum(near) / len(near) if near else place[node]


def _count_crossings(rows: Sequence[Sequence[Node]], links: Sequence[tuple[Node, Node]]) -> int:
    place = {node: (height, number) for height, row in enumerate(rows) for number, node in enumerate(row)}
    ends = [(place[upper], place[lower]) for upper, lower in links]
    return sum(
        upper[0] == other_upper[0] and upper < other_upper and lower > other_lower
        for upper, lower in ends
        for other_upper, other_lower in ends
    )


def _place_nodes(rows: Sequence[Sequence[Node]], links: Sequence[tuple[Node, Node]]) -> dict[Node, float]:
    """Move every node towards its neighbors, as far as those beside it leave room."""
    middles: dict[Node, float] = {}
    for row in rows:
        middles.update(zip(row, _keep_apart(row, [0.0] * len(row)), strict=True))
    for _ in range(ROUNDS):
        for row in [*rows, *rows[::-1]]:
            wishes = []
            for node in row:
                # A link between two stops weighs more: long arrows run straight.
                near = [
                    (
                        middles[lower if node == upper else upper],
                        1 + 4 * (type(upper) is tuple and type(lower) is tuple),
                    )
                    for upper, lower in links
                    if node in (upper, lower)
                ]
                total = sum(weight for _, weight in near)
                wishes.append(sum(x * weight for x, weight in near) / total if near else middles[node])
            middles.update(zip(row, _keep_apart(row, wishes), strict=True))
    left = min(middles[node] - _half_width(node) for row in rows for node in row)
    return {node: round(x - left + MARGIN, 1) for node, x in middles.items()}


def _half_width(node: Node) -> float:
    return BOX_WIDTH / 2 if isinstance(node, str) else 0


def _keep_apart(row: Sequence[Node], wishes: Sequence[float]) -> list[float]:
    """Return the places nearest to the wishes, by least squares, that keep order and distance."""
    offsets = [0.0]
    for left, right in pairwise(row):
        gap = GAP if isinstance(left, str) and isinstance(right, str) else STOP_GAP
        offsets.append(offsets[-1] + _half_width(left) + gap + _half_width(right))
    # Without the offsets, order and distance mean "does not fall": neighbors that do are averaged.
    blocks: list[list[float]] = []
    for wish, offset in zip(wishes, offsets, strict=True):
        blocks.append([wish - offset])
        while len(blocks) > 1 and _mean(blocks[-2]) > _mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    flat = [_mean(block) for block in blocks for _ in block]
    return [x + offset for x, offset in zip(flat, offsets, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def draw(layers: Sequence[Sequence[str]], arrows: set[Arrow]) -> str:
    """Return the picture as SVG."""
    height = {name: number for number, layer in enumerate(layers) for name in layer}
    upward = {(source, target) for source, target in arrows if height[source] >= height[target]}
    shown = drop_implied(arrows - upward)
    drawing = lay_out(layers, shown)
    width = max(drawing.middles[node] + _half_width(node) for row in drawing.rows for node in row) + MARGIN
    bottom = MARGIN + ROW * len(layers) - (ROW - BOX_HEIGHT)
    note = "An arrow is an import. Those that follow from a chain of others are left out."
    if upward:
        note += " Red: against the layers."
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {bottom + 52}" width="{width:.0f}"'
        f' font-family="{FONT}" role="img" aria-label="The packages of thresher and their imports">',
        *_define_heads(),
        f'<rect width="{width:.0f}" height="{bottom + 52}" rx="14" fill="#ffffff"/>',
        *(_draw_arrow(drawing, arrow) for arrow in sorted(shown)),
        *(_draw_upward(drawing, height, arrow) for arrow in sorted(upward)),
        *(_draw_box(drawing, name, number) for number, layer in enumerate(layers) for name in layer),
        f'<text x="{MARGIN}" y="{bottom + 32}" font-size="13" fill="#667085">{escape(note)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _define_heads() -> list[str]:
    """Return the heads of the two kinds of arrows."""
    head = (
        '<marker id="{name}" viewBox="0 0 10 10" refX="8.5" refY="5" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M0 1 L9 5 L0 9 z" fill="{color}"/></marker>'
    )
    return ["<defs>", head.format(name="down", color="#8792a8"), head.format(name="up", color="#d92d20"), "</defs>"]


def _draw_box(drawing: Drawing, name: str, layer: int) -> str:
    middle, top = drawing.middles[name], MARGIN + ROW * layer
    return (
        f'<rect x="{middle - BOX_WIDTH / 2:.1f}" y="{top}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="9"'
        f' fill="{TINTS[min(layer, len(TINTS) - 1)]}" stroke="#c3cad6"/>'
        f'<text x="{middle:.1f}" y="{top + 20}" text-anchor="middle" font-size="15" font-weight="600"'
        f' fill="#1d2939">{escape(name)}</text>'
        f'<text x="{middle:.1f}" y="{top + 37}" text-anchor="middle" font-size="12"'
        f' fill="#475467">{escape(WORDS.get(name, ""))}</text>'
    )


def _draw_arrow(drawing: Drawing, arrow: Arrow) -> str:
    """Return a smooth line through the stops of an arrow."""
    way = drawing.ways[arrow]
    height = {node: number for number, row in enumerate(drawing.rows) for node in row}
    x = _choose_port(drawing, arrow, is_source=True)
    y = MARGIN + ROW * height[way[0]] + BOX_HEIGHT
    path = [f"M{x:.1f} {y}"]
    for node in way[1:]:
        is_end = node == way[-1]
        next_x = _choose_port(drawing, arrow, is_source=False) if is_end else drawing.middles[node]
        top = MARGIN + ROW * height[node]
        bend = (top - y) / 2
        path.append(f"C{x:.1f} {y + bend:.1f} {next_x:.1f} {top - bend:.1f} {next_x:.1f} {top}")
        if not is_end:
            path.append(f"V{top + BOX_HEIGHT}")
        x, y = next_x, top + BOX_HEIGHT
    return f'<path d="{" ".join(path)}" fill="none" stroke="#98a2b3" stroke-width="1.6" marker-end="url(#down)"/>'


def _choose_port(drawing: Drawing, arrow: Arrow, *, is_source: bool) -> float:
    """Return where on its box an arrow begins or ends: side by side, ordered by the other ends."""
    end = 0 if is_source else 1
    others = {
        other: way[1] if is_source else way[-2] for other, way in drawing.ways.items() if other[end] == arrow[end]
    }
    order = sorted(others, key=lambda other: (drawing.middles[others[other]], other))
    step = min(26.0, (BOX_WIDTH - 40) / max(1, len(order) - 1))
    return drawing.middles[arrow[end]] + step * (order.index(arrow) - (len(order) - 1) / 2)


def _draw_upward(drawing: Drawing, height: Mapping[str, int], arrow: Arrow) -> str:
    """Return a straight red line, for an import that should not be."""
    source, target = arrow
    is_beside = height[source] == height[target]
    x, y = drawing.middles[source] + 40, MARGIN + ROW * height[source] + (BOX_HEIGHT if is_beside else 0)
    end_x, end_y = drawing.middles[target] + 40, MARGIN + ROW * height[target] + BOX_HEIGHT
    return (
        f'<path d="M{x:.1f} {y} Q{(x + end_x) / 2:.1f} {(y + end_y) / 2 + 30 * is_beside:.1f} {end_x:.1f} {end_y}"'
        ' fill="none" stroke="#d92d20" stroke-width="2" marker-end="url(#up)"/>'
    )


def main() -> int:
    """Write the picture, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="end with 1 if the committed picture is out of date")
    options = parser.parse_args()
    layers = read_layers(ROOT)
    picture = draw(layers, read_arrows(ROOT, [name for layer in layers for name in layer]))
    path = ROOT / PICTURE
    if not options.check:
        path.write_text(picture)
    elif not path.exists() or path.read_text() != picture:
        print(f"{PICTURE} is out of date; run: python tools/package_map.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
