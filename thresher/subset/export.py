"""Kept rows as other trainers take them: a file of JSON lines, and what points to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic
from thresher.artifacts.local_path import expand_path
from thresher.artifacts.manifest import FORMAT, Manifest, digest
from thresher.dataset import Dataset
from thresher.errors import InputError, did_you_mean

Trainer = Literal["trl", "llama-factory", "axolotl", "openai"]
KIND, ROWS = "export", "train.jsonl"
_ROWS_AT_ONCE = 1_000
_ROLES = frozenset({"system", "user", "assistant"})
_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


def export_rows(rows: Dataset, to: Trainer, out: str | Path, *, force: bool = False) -> Path:
    """Write rows in the form of another trainer, whole or not at all, and return the folder.

    Files: `train.jsonl`, a conversation per line (`messages`), or a `text` for rows that are text;
    `trl.py`, `dataset_info.json` or `axolotl.yaml`, which name it; `manifest.json`.

    Args:
        rows: at least one.
        to: the trainer.
        out: folder that is written.
        force: replace an earlier export in `out`.

    Raises:
        InputError: there is no such trainer, it takes no such rows, or a row calls tools or, but
            for openai, lists some, which these forms have no room for.
        OutputError: the folder holds something else.
    """
    if to not in get_args(Trainer):
        known = get_args(Trainer)
        raise InputError(f"to: must be one of {', '.join(known)}, got '{to}'{did_you_mean(to, known)}")
    if to == "openai" and rows.kind == "text":
        raise InputError("to: openai takes conversations, found rows that are text; export them to another trainer")
    content = {"format": FORMAT, "kind": KIND, "to": to, "rows": len(rows), "pool": rows.fingerprint}
    content["identity"] = digest({**content, "version": 1})
    with OutputFolder(expand_path(out), identity=str(content["identity"]), force=force) as folder:
        if not folder.is_done:
            folder.publish_files(lambda work: _write_files(rows, to, work, content))
        return folder.path


def _write_files(rows: Dataset, to: Trainer, work: Path, content: dict[str, Any]) -> None:
    with open(work / ROWS, "w", encoding="utf-8") as file:
        for line in _build_lines(rows, to):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    for name, text in _build_pointers(to, is_text=rows.kind == "text").items():
        write_atomic(work / name, text.encode())
    write_atomic(work / MANIFEST, Manifest(content).to_json())


def _build_lines(rows: Dataset, to: Trainer) -> Iterator[dict[str, Any]]:
    """Yield each row as a line of the file."""
    if rows.kind != "sft":
        for prompt, response in rows.frame.select("prompt", "response").iter_rows():
            if rows.kind == "text":
                yield {"text": response}
            else:
                turns = [("user", prompt), ("assistant", response)]
                yield {"messages": [{"role": role, "content": text} for role, text in turns]}
        return
    keys = frozenset({"role", "content", "weight"} if to == "openai" else {"role", "content"})
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        at = np.arange(start, min(start + _ROWS_AT_ONCE, len(rows)))
        for number, conversation in zip(at.tolist(), rows.messages(at), strict=True):
            tools = _build_tools(conversation.tools, to, number)
            yield {"messages": _build_messages(conversation.messages, keys, number), **tools}


def _build_tools(tools: list[Any] | None, to: Trainer, number: int) -> dict[str, Any]:
    """Return the member of a line that lists the tools of a row.

    Raises:
        InputError: there are some, and the trainer's form has no room for them.
    """
    if tools is None:
        return {}
    if to != "openai":
        raise InputError(f"row {number}: rows without tools are required for {to}, found tools; leave such rows out")
    return {"tools": tools}


def _build_messages(turns: list[dict[str, Any]], keys: frozenset[str], number: int) -> list[dict[str, Any]]:
    """Return the turns of a row, all of which hold nothing but what the trainer can read.

    Raises:
        InputError: one does not.
    """
    for turn in turns:
        if turn["role"] not in _ROLES or not isinstance(turn.get("content"), str) or not keys >= set(turn):
            raise InputError(
                f"row {number}: turns of system, user and assistant with {' and '.join(sorted(keys))} are required, "
                f"found '{turn['role']}' with {', '.join(sorted(turn))}; leave out rows with calls and weights"
            )
    return turns


def _build_pointers(to: Trainer, *, is_text: bool) -> dict[str, str]:
    """Return the files by which a trainer finds and reads the rows."""
    if to == "trl":
        return {"trl.py": _TRL}
    if to == "llama-factory":
        entry: dict[str, Any] = {"file_name": ROWS}
        if is_text:
            entry["columns"] = {"prompt": "text"}
        else:
            entry |= {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": _TAGS}
        return {"dataset_info.json": json.dumps({"thresher": entry}, indent=2) + "\n"}
    if to == "axolotl":
        return {"axolotl.yaml": _AXOLOTL + (_AXOLOTL_TEXT if is_text else _AXOLOTL_CHAT)}
    return {}


_TRL = '''"""Rows as TRL's SFTTrainer takes them: SFTTrainer(..., train_dataset=load())."""

from pathlib import Path

from datasets import load_dataset


def load():
    return load_dataset("json", data_files=str(Path(__file__).parent / "train.jsonl"), split="train")
'''
_AXOLOTL = """# Paths are from this folder: start axolotl here, or put the folder before them.
datasets:
  - path: train.jsonl
    ds_type: json
"""
_AXOLOTL_CHAT = """    type: chat_template
    field_messages: messages
    message_property_mappings: {role: role, content: content}
"""
_AXOLOTL_TEXT = """    type: completion
    field: text
"""
