"""The page as one HTML file that contains style, script and data, and fetches nothing.

Every string passes through jinja2's autoescape, and data for the script through its escaping of
JSON, which leaves no "<" in a script element. As a second line of defense, a content security
policy with the hashes of the page's own style and script keeps any other from running.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from thresher.printable import replace_controls
from thresher.reporting.charts.palette import DARK, LIGHT, METHOD_TONES
from thresher.reporting.charts.svg import build_marker, draw_chart
from thresher.reporting.page import Figure, Page, PoolMap

TEMPLATES = Path(__file__).parent / "templates"
BROAD, WIDE, NARROW, PANEL = 1200.0, 820.0, 344.0, 300.0
MAP_WIDTH, MAP_HEIGHT = 1000, 640


def render(page: Page) -> bytes:
    """Return the HTML of a page: the same bytes for the same page."""
    style, script = _build_style(), (TEMPLATES / "report.js").read_text(encoding="utf-8")
    template, policy = _load_environment().get_template("page.html.j2"), _build_policy(style, script)
    html = template.render(page=page, style=Markup(style), script=Markup(script), policy=policy)
    return replace_controls(html).encode()


@cache
def _load_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        drawings=_draw_charts, swatch=_build_swatch, map_data=_encode_map, scatter=_build_scatter
    )
    environment.filters["slug"] = _slugify
    return environment


def _draw_charts(figure: Figure) -> list[dict[str, Any]]:
    """Return the drawings of each chart: one per width, or one for a panel among several."""
    if len(figure.charts) > 1:
        return [{"chart": chart, "drawings": {"small": draw_chart(chart, PANEL, 210)}} for chart in figure.charts]
    chart = figure.charts[0]
    drawings = {
        "wide": draw_chart(chart, WIDE),
        "narrow": draw_chart(chart, NARROW),
        "broad": draw_chart(chart, BROAD, 0.42 * BROAD),
    }
    return [{"chart": chart, "drawings": drawings}]


def _build_swatch(shape: str) -> dict[str, str]:
    """Return the path of a legend's shape in a box of 22 by 12, with its class and dashes."""
    if shape == "box":
        return {"d": "M1 1h20v10h-20z", "classes": "band", "dash": ""}
    if shape in ("bar", "step"):
        return {"d": "M1 1h20v10h-20z", "classes": shape, "dash": ""}
    if shape in ("line", "dashed"):
        return {"d": "M1 6h20", "classes": "line solid", "dash": "" if shape == "line" else "6 4"}
    if shape == "faint":
        return {"d": build_marker("circle", 11, 6, 3), "classes": "faint", "dash": ""}
    return {"d": build_marker(shape, 11, 6, 4.5), "classes": "dot open" if shape == "ring" else "dot", "dash": ""}


def _build_scatter(pool_map: PoolMap, rows: Any) -> str:
    """Return one path that puts a dot at each of the points: a few bytes per dot."""
    return "".join(f"M{pool_map.x[i]} {pool_map.y[i]}h0" for i in rows)


def _encode_map(pool_map: PoolMap) -> Markup:
    data: dict[str, Any] = {
        "x": list(pool_map.x),
        "y": list(pool_map.y),
        "text": list(pool_map.texts),
        "note": list(pool_map.notes),
        "panels": [{"kept": list(panel.kept), "dropped": list(panel.dropped)} for panel in pool_map.panels],
        "groups": [
            {"name": group.name, "values": list(group.values), "of": list(group.of)} for group in pool_map.groups
        ],
        "tones": METHOD_TONES,
        "files": list(pool_map.places.names),
        "file": _pack(pool_map.places.file, "<u2"),
        "line": _pack(pool_map.places.line, "<u4"),
    }
    if pool_map.small is not None:
        small = pool_map.small
        data["small"] = {
            "x": _pack(small.x, "<u2"),
            "y": _pack(small.y, "<u2"),
            "kept": _pack(small.is_kept, "u1"),
            "of": [_pack(own, "u1") for own in small.of],
        }
    return htmlsafe_json_dumps(data, dumps=json.dumps, ensure_ascii=False, separators=(",", ":"))


def _pack(values: Sequence[int], dtype: str) -> str:
    """Return whole numbers as base64 of their bytes: few characters each."""
    return base64.b64encode(np.asarray(values, dtype=dtype).tobytes()).decode()


def _build_style() -> str:
    """Return the style sheet, with the colors of both modes."""

    def variables(colors: Mapping[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in colors.items())

    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(DARK)}color-scheme:dark}}}}\n"
    tones = "".join(f".{name}{{color:var(--{name})}}" for name in LIGHT if name not in ("page", "panel", "grid"))
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return f":root{{{variables(LIGHT)}color-scheme:light}}\n{dark}{tones}\n{css}"


def _build_policy(style: str, script: str) -> str:
    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {source(style)}; script-src {source(script)}; "
        f"base-uri 'none'; form-action 'none'"
    )


def _slugify(text: str) -> str:
    """Return a name for a link's target."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split()) or "part"
