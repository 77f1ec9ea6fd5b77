"""How to reproduce a folder: the command, the settings, and the hashes of all inputs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.dataset.mixture.reload import format_source, list_recorded_sources
from thresher.reporting import formatting as fmt
from thresher.reporting.page import Code, Section, Table
from thresher.reporting.pages.adapters.commands import COMMANDS as ADAPTER_COMMANDS
from thresher.reporting.pages.adapters.commands import build_adapter_words
from thresher.reporting.pages.labels.commands import COMMANDS as LABEL_COMMANDS
from thresher.reporting.pages.labels.commands import build_label_words
from thresher.reporting.pages.rows.pool import list_pool_files
from thresher.selection.request import ROLES
from thresher.trainer.engine.load_model import MINILM
from thresher.trainer.settings import COMMON, TrainSettings

COMMANDS = {
    "subset": "select",
    "curated": "curate clean",
    "adapter": "train",
    "curve": "curve",
    "comparison": "compare",
    "tuning": "tune",
    "advice": "advise",
    "bases": "base rank",
    "sources": "base sources",
    "mix": "mix",
    "transfer": "base transfer",
    **ADAPTER_COMMANDS,
    **LABEL_COMMANDS,
}
_SHOWN_ELSEWHERE = frozenset(
    {"settings", "versions", "inputs", "run", "counts", "metrics", "kind", "format", "schema", "reading"}
)
_OPTIONS = {  # names in a manifest -> those of the command, where they differ
    "n_seeds": "seeds",
    "is_grid": "grid",
    "max_seconds": "max_time",
    "targets": "target",
    "slices": "slice",
    "budgets": "budget",
}
_REPEATED = frozenset({"target", "more", "slice"})
_BY_METHOD = frozenset({"reference_loss"})  # of a model that a setting of the method names
_MAX_LETTERS = 400  # of a value in a table


def build_reproduction(manifest: Manifest, out: Path) -> Section:
    """Return the section with the command, inputs, settings and versions."""
    content = manifest.content
    rest = {key: value for key, value in content.items() if key not in _SHOWN_ELSEWHERE}
    tables = (
        Table(caption="Inputs", columns=("file", "size", "sha256"), rows=_list_inputs(content), numeric=(1,)),
        Table(
            caption="How the rows were read",
            columns=("rows", "kind", "schema", "columns read", "columns not read"),
            rows=_list_sides(content),
        ),
        _build_pairs("Settings", flatten(content.get("settings", {}))),
        _build_pairs("Request and hashes", [*flatten(rest), ("manifest hash", manifest.hash)]),
        _build_pairs("Versions", flatten(content.get("versions", {}))),
    )
    command = Code(build_command(content, out), "Command to reproduce this folder")
    return Section("Reproduce it", [command, *(table for table in tables if table.rows)])


def _list_inputs(content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    inputs = content.get("inputs", [])
    groups = inputs.values() if isinstance(inputs, Mapping) else [inputs]
    sources = [source for group in groups for source in (group if isinstance(group, list) else [group])]
    return [
        (str(source.get("name", "")), fmt.size(source.get("bytes")), str(source.get("sha256") or "not a file"))
        for source in sources
        if isinstance(source, Mapping)
    ]


def _list_sides(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            side,
            about["kind"],
            about["schema"],
            ", ".join(f"{role}={'+'.join(names)}" for role, names in about["columns"].items()),
            fmt.truncate(", ".join(about["not_read"]), _MAX_LETTERS) or "none",
        )
        for side, about in content.get("reading", {}).items()
    ]


def _build_pairs(caption: str, pairs: list[tuple[str, str]]) -> Table:
    return Table(caption=caption, columns=("name", "value"), rows=pairs, is_folded=True)


def flatten(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as ("a.b", "value") pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            pairs += flatten(value, f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            pairs.append((name, "not set" if value is None else text[:_MAX_LETTERS]))
    return pairs


def build_command(content: Mapping[str, Any], out: Path) -> str:
    """Return the command line that writes a folder again, from its manifest.

    Args:
        content: of the manifest; `run.command` comes first if there is one.
        out: the folder.
    """
    recorded = content.get("run", {}).get("command")
    if recorded:
        return recorded if isinstance(recorded, str) else shlex.join(map(str, recorded))
    kind = str(content["kind"])
    if kind in LABEL_COMMANDS:
        words = build_label_words(content, _build_pool_words(content) if "inputs" in content else [])
        return shlex.join(["thresher", *COMMANDS[kind].split(), *words, "--out", str(out)])
    if kind in ADAPTER_COMMANDS:
        name = content.get("model", {}).get("name")
        trained = {"model": None if name == MINILM else name}
        trained |= _select_changed(content["settings"].get("train", {}))
        words = [word for name, value in trained.items() for word in _build_option(name, value)]
        words = ["thresher", COMMANDS[kind], *build_adapter_words(content), *words]
        return shlex.join([*words, "--out", str(out)])
    build = {"subset": _build_select_words, "curated": _build_clean_words}.get(kind, _build_other_words)
    words = ["thresher", *COMMANDS[kind].split(), *build(content)]
    return shlex.join([*words, "--out", str(out)])


def _build_select_words(content: Mapping[str, Any]) -> list[str]:
    words = [*(_build_pool_words(content) or ["POOL"]), "--method", content["method"], "--budget", content["budget"]]
    for role in ROLES:
        if role in content.get("run", {}):
            words += [f"--{role}", _join_paths(content["run"][role])]
    for name, value in content["settings"].items():
        if value is not None:
            words += ["--set", f"{name}={value}"]
    embedding = content["features"].get("embedding", {})
    if embedding:
        known = {"static-minilm-256": "static"}
        words += ["--encoder", known.get(embedding["encoder"], embedding["encoder"])]
        dtype = embedding.get("storage_dtype", embedding.get("kept_as"))  # its name before 0.2
        if dtype != "float32":
            words += ["--embedding-dtype", dtype]
    features = content["features"].items()
    models = {about["model"] for name, about in features if "model" in about and name not in _BY_METHOD}
    for model in sorted(models):
        words += ["--model", model]
    if content["quota"]:
        words += ["--quota", content["quota"]]
    if content["order"] != "file":
        words += ["--order", content["order"]]
    return [*words, *build_reading_words(content), "--seed", str(content["seed"])]


def _build_clean_words(content: Mapping[str, Any]) -> list[str]:
    """Return data, rules and all their settings; what the manifest does not name is in capitals."""
    rules = content["rules"]
    words = _build_pool_words(content) or ["POOL"]
    for role in ("existing", "eval"):
        words += [f"--{role}", content["run"].get(role) or role.upper()] if content.get(role) else []
    words += ["--rules", ",".join(rule["name"] for rule in rules)]
    for rule in rules:
        for name, value in rule["settings"].items():
            if value is not None:
                words += ["--set", f"{rule['name']}.{name}={_format_value(value)}"]
    reported = [rule["name"] for rule in rules if rule["report"]]
    words += ["--report", ",".join(reported)] if reported else []
    return [*words, *build_reading_words(content), "--seed", str(content["seed"])]


def _build_pool_words(content: Mapping[str, Any]) -> list[str]:
    """Return the rows that the command reads; of several sources, each with its settings."""
    paths = list_pool_files(content)
    schema = content.get("schema") or {}
    if not paths or not schema.get("sources"):
        return [_join_paths(paths)] if paths else []
    words = []
    for source, entry in zip(list_recorded_sources(paths, schema), schema["sources"], strict=True):
        words += ["--source", format_source(_join_paths([str(path) for path in source.rows]), entry)]
    return words


def _join_paths(paths: Sequence[str]) -> str:
    """Return files as one argument of a command: the file, or the folder of several, or ""."""
    return str(Path(paths[0]).parent) if len(paths) > 1 else "".join(paths)


def build_reading_words(content: Mapping[str, Any]) -> list[str]:
    """Return the options by which a command reads its rows as those of a result were read."""
    schema = content["schema"]
    words = []
    if schema.get("sources"):
        pass  # each says how it was read
    elif schema["name"] == "mapped":
        words += ["--map", ",".join(f"{role}={'+'.join(names)}" for role, names in schema["columns"].items())]
    if schema.get("wanted"):
        words += ["--wanted", schema["wanted"]]
    if content.get("id_column"):
        words += ["--id-column", content["id_column"]]
    return words


def _build_other_words(content: Mapping[str, Any]) -> list[str]:
    """Return data and options of other commands; what the manifest does not name is in capitals."""
    words = _build_pool_words(content) or ["DATA" if content["kind"] in ("adapter", "tuning") else "POOL"]
    words += ["--eval", content.get("run", {}).get("eval") or "EVAL"]
    words += [word for path in content.get("run", {}).get("candidate", ()) for word in ("--candidate", path)]
    for role in ("target", "target_rows"):  # rows of a task beside the pool
        if content.get("run", {}).get(role):
            words += [f"--{role.replace('_', '-')}", _join_paths(content["run"][role])]
    model = content.get("model")
    name = model.get("name") if isinstance(model, Mapping) else model
    asked = content.get("asked", {})
    options = {
        "model": None if name == MINILM else name,  # which is what a classifier is trained on
        "metric": content.get("metric"),
        "trainer": f"command:{content['trainer']['command']}" if "trainer" in content else None,
        **({"general": "none"} if content["kind"] == "advice" else {}),  # which has another default
        **content.get("untouched", {}),
        **content.get("select", {}),
        **{name: value for name, value in asked.items() if name != "plan"},
        **asked.get("plan", {}),
    }
    for name, value in options.items():
        words += _build_option(name, value)
    for name, value in _select_changed(content.get("settings", {})).items():
        is_own = content["kind"] == "adapter"
        words += _build_option(name, value) if is_own else ["--train", f"{name}={_format_value(value)}"]
    for method, values in content.get("method_settings", {}).items():
        for name, value in values.items():
            words += ["--set", f"{method}.{name}={_format_value(value)}"]
    if content.get("overlap") == "drop":
        words += ["--overlap", "drop"]
    if "schema" in content:
        words += build_reading_words(content)
    seeds = content.get("seeds")
    if isinstance(seeds, list) and seeds:
        words += ["--seed", str(seeds[0]), "--seeds", str(len(seeds))]
    return words


def _select_changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training settings that differ from their defaults."""
    defaults = {**TrainSettings().to_json(), **COMMON}
    return {name: value for name, value in settings.items() if value is not None and value != defaults.get(name, value)}


def _build_option(name: str, value: Any) -> list[str]:
    """Return an option as it is typed; nothing if it is unset, off, or cannot be typed."""
    name = _OPTIONS.get(name, name)
    option = f"--{name.replace('_', '-')}"
    if value is True:
        return [option]
    if value is None or value is False or isinstance(value, Mapping):
        return []
    if name in _REPEATED:
        return [word for part in value for word in (option, str(part))]
    return [option, _format_value(value)]


def _format_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
