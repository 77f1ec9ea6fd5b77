"""Writes the table of docs/data.md that says what each schema does with special columns.

    python tools/special_columns.py

Each cell is what `load` does with twelve rows of the schema and the column: nothing is written down
by hand but the rows and the words for what happened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thresher.dataset import load
from thresher.errors import InputError

PAGE = Path(__file__).parent.parent / "docs" / "data.md"
BEGIN, END = "<!-- begin: special columns -->\n", "<!-- end: special columns -->\n"
N_ROWS = 12
READ, ASKED, REFUSED, NOTED, IGNORED = "reads", "asks", "refuses", "note", "–"

_TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
_FUNCTION = {"name": "look", "description": "looks", "parameters": {"type": "object", "properties": {}}}
SCHEMAS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "q", "output": "a"},
    "prompt-completion": {"prompt": "q", "completion": "a"},
    "query-response": {"question": "q", "answer": "a"},
    "messages": {"messages": _TURNS},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "text-label": {"text": "t", "label": "ab"},
    "text": {"text": "t"},
}
# first cell of a line of the table -> the columns; a list has a value for each row in turn
COLUMNS: dict[str, dict[str, Any]] = {
    "`system`, `system_prompt`": {"system": "be kind"},
    "`history`": {"history": [[["p", "r"]]]},
    "`tools`": {"tools": [[{"type": "function", "function": _FUNCTION}]]},
    "`functions`": {"functions": [[_FUNCTION]]},
    "`context`": {"context": "a passage"},
    "`passage`, `article`, `options`": {"passage": "a passage"},
    "`label` true or false": {"label": [True, False]},
    "`label`, other values": {"label": ["easy", "hard"]},
    "`kto_tag`, `kto_label`": {"kto_tag": [True, False]},
    "`desirable`, `thumbs`, `preferred`, ...": {"desirable": [True, False]},
    "`chosen` and `rejected`": {"chosen": "good", "rejected": "worse"},
    "`rejected_response`": {"rejected_response": "worse"},
    "`correct`, `is_correct`, `passed`, ...": {"correct": [True, False]},
    "`images`, `video`, `audio`, ...": {"images": [["a.png"]]},
    "`split` with train and test": {"split": ["train", "test"]},
    "`target`, `sentiment`, `choice`, ...": {"sentiment": ["good", "bad"]},
    "`rating`, `stars`": {"rating": [4, 5]},
    "`summary`, `translation`, ...": {"summary": "short"},
    "`entities`, `spans`, `role`": {"entities": [[{"start": 0, "end": 1}]]},
    "`id`, `url`, `source`": {"source": "web"},
}


def build_rows(schema: str, columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows of a schema with further columns; texts differ from row to row."""
    rows = []
    for i in range(N_ROWS):
        row = {name: f"{value} {i}" if isinstance(value, str) else value for name, value in SCHEMAS[schema].items()}
        if schema == "text-label":
            row["label"] = SCHEMAS[schema]["label"][i % 2]
        cells = {name: value[i % len(value)] if isinstance(value, list) else value for name, value in columns.items()}
        rows.append({**cells, **row})
    return rows


def describe_cell(schema: str, columns: dict[str, Any]) -> str:
    """Return in a word what `load` does with columns beside those of a schema."""
    if columns.keys() & SCHEMAS[schema].keys():
        return "its own"
    try:
        rows = load(build_rows(schema, columns))
    except InputError as error:
        return ASKED if "--schema" in str(error) else REFUSED
    if rows.schema.name != schema:
        return f"`{rows.schema.name}`"
    if any(f"'{name}'" in note for note in rows.notes for name in columns):
        return NOTED
    return READ if columns.keys() & set(rows.schema.column_names) else IGNORED


def build_table() -> str:
    """Return the table as Markdown."""
    lines = ["| column | " + " | ".join(f"`{name}`" for name in SCHEMAS) + " |", "|---" * (len(SCHEMAS) + 1) + "|"]
    for name, columns in COLUMNS.items():
        cells = [describe_cell(schema, columns) for schema in SCHEMAS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def replace_table(page: str) -> str:
    """Return a page with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, behind = rest.partition(END)
    return before + BEGIN + build_table() + END + behind


if __name__ == "__main__":
    PAGE.write_text(replace_table(PAGE.read_text()))
