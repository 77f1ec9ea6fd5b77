"""The labeling page: one HTML file that fetches nothing and keeps answers in the browser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from thresher.labeling.exchange import ROW_ID, TEXT

PAGE = "label.html"


def render_page(
    rows: Sequence[dict[str, Any]], classes: Sequence[str], *, guide: str | None = None, name: str = "rows"
) -> str:
    """Return the page.

    Args:
        rows: to label, with their text as `TEXT`.
        classes: labels to choose from; none for answers in words. People may add labels.
        guide: what the labels mean.
        name: of the batch; the browser keeps the answers of each batch apart by its rows.
    """
    content = {
        "name": name,
        "guide": guide or "",
        "classes": list(classes),
        "idColumn": ROW_ID,
        "rows": [
            {
                "id": row[ROW_ID],
                "text": row[TEXT],
                "why": row["thresher_why"],
                "nearest": row["thresher_nearest"],
                "nearestLabel": row["thresher_nearest_label"],
            }
            for row in rows
        ],
    }
    # no text can end the script that it stands in
    data = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    parts = files("thresher.labeling") / "templates"
    page = (parts / "label.html").read_text(encoding="utf-8")
    for mark, value in (
        ("/*STYLE*/", (parts / "label.css").read_text(encoding="utf-8")),
        ("/*SCRIPT*/", (parts / "label.js").read_text(encoding="utf-8")),
        ("/*DATA*/", data.replace("\u2029", "\\u2029")),
    ):
        page = page.replace(mark, value, 1)
    return page
