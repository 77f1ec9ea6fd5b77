"""Sentence encoders: modules of the library itself, in folders of the model's own."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from thresher.errors import InputError
from thresher.models.untrusted.config import check_config
from thresher.models.untrusted.folder import ModelFiles, read_json
from thresher.models.untrusted.tokenizer import check_tokenizer_config

MODULES = "modules.json"
LIBRARY = "sentence_transformers."
ACTIVATIONS = "torch.nn."
LENGTHS = ("max_seq_length", "model_max_length", "truncate_dim")
MAX_LENGTH = 10**9
MAX_WIDTH = 1 << 20
WIDTHS = ("in_features", "out_features", "word_embedding_dimension", "dimension", "hidden_dim", "num_layers")


def check_encoder(files: ModelFiles) -> None:
    """Refuse a sentence encoder whose modules are code of others, or no modules of an encoder.

    Raises:
        InputError: a module is of another library or lies elsewhere, a configuration has impossible
            sizes, or weights are in a pickle that expands.
    """
    folder, owner = files.folder, files.owner
    for path in folder.rglob("*.bin"):
        _check_pickle(path, path.relative_to(folder), owner)
    if any(folder.rglob("adapter_config.json")):
        raise InputError(f"{owner}: an encoder must have weights of its own, found an adapter; merge it into its base")
    for path in folder.rglob("config.json"):
        content = read_json(path, owner=owner)
        if path.parent == folder or "model_type" in content:
            check_config(content, files)
        _check_layer(content, str(path.relative_to(folder)), owner)
    for name in ("sentence_bert_config.json", "config_sentence_transformers.json"):
        if (folder / name).is_file():
            _check_layer(read_json(folder / name, owner=owner), name, owner)
    for path in folder.rglob("tokenizer_config.json"):
        check_tokenizer_config(read_json(path, owner=owner), owner)
    for path in (*folder.rglob("router_config.json"), *folder.rglob("wordembedding_config.json")):
        _check_classes(read_json(path, owner=owner), owner)
    if (folder / MODULES).is_file():
        _check_modules(folder, owner)


def _check_modules(folder: Path, owner: str) -> None:
    for kind, _ in read_modules(folder, owner=owner):
        _check_class(kind, owner)


def read_modules(folder: Path, *, owner: str) -> list[tuple[str, str]]:
    """Return class and folder of each module of a sentence encoder, without loading any.

    Raises:
        InputError: it is no list of modules, or one lies outside of the model's folder.
    """
    try:
        modules = json.loads((folder / MODULES).read_bytes())
        places = [(str(module["type"]), str(module.get("path", ""))) for module in modules]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{owner}: {MODULES} must be a list of modules, got {str(error)[:80]}; copy it again"
        ) from None
    if not 0 < len(places) <= 64:
        raise InputError(f"{owner}: {MODULES} must have 1 to 64 modules, found {len(places)}; copy it again")
    for _, place in places:
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts or "\\" in place:
            raise InputError(f"{owner}: a module must lie in the model's folder, got '{place[:80]}'; copy it again")
    return places


def _check_classes(content: dict[str, Any], owner: str) -> None:
    """Check the classes that a router and a table of words name."""
    kinds = content.get("types", {})
    for kind in (*(kinds.values() if isinstance(kinds, dict) else ()), content.get("tokenizer_class", LIBRARY)):
        _check_class(str(kind), owner)


def _check_class(kind: str, owner: str) -> None:
    if not kind.startswith(LIBRARY):
        raise InputError(
            f"{owner}: a module must be one of sentence-transformers: code of others is never run, got '{kind[:80]}'; "
            f"choose another encoder"
        )


def _check_layer(content: dict[str, Any], name: str, owner: str) -> None:
    for key, limit in (*((key, MAX_LENGTH) for key in LENGTHS), *((key, MAX_WIDTH) for key in WIDTHS)):
        value = content.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= limit):
            raise InputError(f"{owner}: {key} of {name} must be from 1 to {limit}, got {repr(value)[:80]}; correct it")
    activation = content.get("activation_function")
    if activation is not None and not (isinstance(activation, str) and activation.startswith(ACTIVATIONS)):
        raise InputError(
            f"{owner}: activation_function of {name} must be one of {ACTIVATIONS[:-1]}, got {repr(activation)[:80]}: "
            f"code of others is never run; correct it"
        )


def _check_pickle(path: Path, name: Path, owner: str) -> None:
    """Refuse a pickle whose archive expands; torch reads the weights of it and runs nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            n_plain = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{owner}: {name} must be an archive that torch wrote, found '{error}'; save the model as safetensors"
        ) from None
    if n_plain > path.stat().st_size:
        raise InputError(
            f"{owner}: {name} must not be compressed, and its {path.stat().st_size} bytes expand to {n_plain}; save "
            f"the model as safetensors"
        )
