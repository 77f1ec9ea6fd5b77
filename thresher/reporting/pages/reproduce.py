"""What it takes to make a folder again: the command, the settings, and the hashes of everything that went in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.models.causal_lm.embedded import EMBEDDED_NAME
from thresher.reporting.page import Block, Code, Section, Table
from thresher.reporting.pages.pool import places_of
from thresher.reporting.wording import size
from thresher.selection.request import ROLES
from thresher.trainer.engine.load_model import MINILM
from thresher.trainer.settings import TrainSettings

COMMANDS = {"subset": "select", "adapter": "train", "curve": "curve", "comparison": "compare", "tuning": "tune"}
_TOLD_ELSEWHERE = frozenset({"settings", "versions", "inputs", "run", "counts", "metrics", "kind", "format", "schema"})
_OPTIONS = {  # names in a manifest that differ from those of the command
    "n_seeds": "seeds",
    "is_grid": "grid",
    "max_seconds": "max_time",
    "targets": "target",
    "slices": "slice",
    "budgets": "budget",
}
_REPEATED = frozenset({"target", "more", "slice"})
_LEARNED = frozenset({"reference_loss"})  # of a model that a setting of the method names
_LONG = 400  # letters of a value in a table


def reproduce(manifest: Manifest, out: Path) -> Section:
    """Return the section with the command, inputs, settings and versions."""
    content = manifest.content
    blocks: list[Block] = [Code(command(content, out), "The command that makes this folder again")]
    inputs = _inputs(content)
    if inputs:
        blocks.append(
            Table(
                caption="Inputs",
                columns=("file", "size", "sha256"),
                rows=tuple(inputs),
                numeric=frozenset({1}),
            )
        )
    blocks.append(_pairs("Settings", flat(content.get("settings", {}))))
    rest = {key: value for key, value in content.items() if key not in _TOLD_ELSEWHERE}
    blocks.append(_pairs("Request and hashes", [*flat(rest), ("manifest hash", manifest.hash)]))
    blocks.append(_pairs("Versions", flat(content.get("versions", {}))))
    return Section("Reproduce it", tuple(block for block in blocks if not isinstance(block, Table) or block.rows))


def _inputs(content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = content.get("inputs", [])
    groups = found.values() if isinstance(found, Mapping) else [found]
    sources = [source for group in groups for source in (group if isinstance(group, list) else [group])]
    return [
        (str(source.get("name", "")), size(source.get("bytes")), str(source.get("sha256") or "not a file"))
        for source in sources
        if isinstance(source, Mapping)
    ]


def _pairs(caption: str, pairs: list[tuple[str, str]]) -> Table:
    return Table(caption=caption, columns=("name", "value"), rows=tuple(pairs), is_folded=True)


def flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as ("a.b", "value") pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            pairs += flat(value, f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            pairs.append((name, "not set" if value is None else text[:_LONG]))
    return pairs


def command(content: Mapping[str, Any], out: Path) -> str:
    """Return the command line that makes a folder again, from its manifest.

    Args:
        content: of the manifest; what `run.command` says wins.
        out: the folder.
    """
    given = content.get("run", {}).get("command")
    if given:
        return given if isinstance(given, str) else shlex.join(map(str, given))
    kind = str(content["kind"])
    words = ["thresher", COMMANDS[kind]]
    words += _select_words(content) if kind == "subset" else _other_words(content)
    return shlex.join([*words, "--out", str(out)])


def _select_words(content: Mapping[str, Any]) -> list[str]:
    words = [_place(places_of(content)) or "POOL", "--method", content["method"], "--budget", content["budget"]]
    for role in ROLES:
        if role in content.get("run", {}):
            words += [f"--{role}", _place(content["run"][role])]
    for name, value in content["settings"].items():
        if value is not None:
            words += ["--set", f"{name}={value}"]
    embedding = content["features"].get("embedding", {})
    if embedding:
        known = {"static-minilm-256": "static"}
        words += ["--encoder", known.get(embedding["encoder"], embedding["encoder"])]
        dtype = embedding.get("storage_dtype", embedding.get("kept_as"))  # its name before version 0.2
        if dtype != "float32":
            words += ["--embedding-dtype", dtype]
    asked = {about["model"] for name, about in content["features"].items() if "model" in about and name not in _LEARNED}
    for model in sorted(asked - {EMBEDDED_NAME}):
        words += ["--model", model]
    if content["quota"]:
        words += ["--quota", content["quota"]]
    if content["order"] != "file":
        words += ["--order", content["order"]]
    return [*words, *_schema_words(content), "--seed", str(content["seed"])]


def _place(places: Sequence[str]) -> str:
    """Return what names files on a command line: the file, or the folder of several; nothing for none."""
    return str(Path(places[0]).parent) if len(places) > 1 else "".join(places)


def _schema_words(content: Mapping[str, Any]) -> list[str]:
    schema = content["schema"]
    words = []
    if schema["name"] == "mapped":
        words += ["--map", ",".join(f"{role}={'+'.join(names)}" for role, names in schema["columns"].items())]
    if content.get("id_column"):
        words += ["--id-column", content["id_column"]]
    return words


def _other_words(content: Mapping[str, Any]) -> list[str]:
    """Return data and options of the other commands; what a manifest does not name stands in capitals."""
    words = [_place(places_of(content)) or ("DATA" if content["kind"] in ("adapter", "tuning") else "POOL")]
    words += ["--eval", content.get("run", {}).get("eval") or "EVAL"]
    model = content.get("model")
    name = model.get("name") if isinstance(model, Mapping) else model
    asked = content.get("asked", {})
    options = {
        "model": None if name in (EMBEDDED_NAME, MINILM) else name,  # those come with the package
        "metric": content.get("metric"),
        **content.get("select", {}),
        **{name: value for name, value in asked.items() if name != "plan"},
        **asked.get("plan", {}),
    }
    for name, value in options.items():
        words += _option(name, value)
    for name, value in _changed(content.get("settings", {})).items():
        is_own = content["kind"] == "adapter"
        words += _option(name, value) if is_own else ["--train", f"{name}={_typed(value)}"]
    for method, values in content.get("method_settings", {}).items():
        words += [word for name, value in values.items() for word in ("--set", f"{method}.{name}={_typed(value)}")]
    if content.get("overlap") == "drop":
        words += ["--overlap", "drop"]
    if "schema" in content:
        words += _schema_words(content)
    seeds = content.get("seeds")
    if isinstance(seeds, list) and seeds:
        words += ["--seed", str(seeds[0]), "--seeds", str(len(seeds))]
    return words


def _changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a training that are not what they are when nobody sets them."""
    defaults = TrainSettings().to_json()
    return {name: value for name, value in settings.items() if value is not None and value != defaults.get(name, value)}


def _option(name: str, value: Any) -> list[str]:
    """Return an option as it is typed; nothing for what is not set, off, or has no form on the command line."""
    known = _OPTIONS.get(name, name)
    option = f"--{known.replace('_', '-')}"
    if value is True:
        return [option]
    if value is None or value is False or isinstance(value, Mapping):
        return []
    if known in _REPEATED:
        return [word for part in value for word in (option, str(part))]
    return [option, _typed(value)]


def _typed(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
