"""Files of a model's folder: plain ones, inside of it, of a sensible size, and whole."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thresher.errors import InputError, first_three
from thresher.models.untrusted.weights import Weights, read_weights

INDEX = ".safetensors.index.json"
SAFE = ".safetensors"
MEGABYTE = 1 << 20
# of a file that is read as text; the largest that are known: 33 MB (Gemma's tokenizer), 10 MB (an
# index)
MAX_TEXT_BYTES = 256 * MEGABYTE
MAX_BYTES = {".jinja": MEGABYTE, "config.json": 16 * MEGABYTE, "tokenizer_config.json": 16 * MEGABYTE}
MAX_DEPTH = 32  # of objects and lists in one another
MAX_VALUES = 1_000_000  # in one file; a class name for each of a million labels is none


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model that passed the checks.

    Attributes:
        owner: "model 'x'", for messages.
        folder: where they lie.
        weights: what the headers of the safetensors say.
    """

    owner: str
    folder: Path
    weights: Weights


def check_files(folder: Path, *, owner: str, patterns: Sequence[str], is_nested: bool = False) -> ModelFiles:
    """Check the files of a model, and read the headers of its weights.

    Args:
        folder: of the model.
        owner: whose files they are, for messages, as "model 'x'".
        patterns: which files are read of it.
        is_nested: whether they may lie in folders of the folder.

    Raises:
        InputError: a file is no plain file, lies elsewhere, is too large, or is damaged; an index
            names another kind of file, or one that is not there.
    """
    find = folder.rglob if is_nested else folder.glob
    paths = sorted({path for pattern in patterns for path in find(pattern)})
    # a folder may have any name, and what is in it is found by the patterns
    for path in folder.rglob("*") if is_nested else folder.glob("*"):
        if path.is_symlink() and path.is_dir():
            raise InputError(f"{owner}: '{path.relative_to(folder)}' must be a folder, found a link; copy it there")
    files = [path for path in paths if not path.is_dir() or path.suffix == SAFE]
    for path in files:
        _check_file(path, folder, owner)
    safe = [path for path in files if path.name.endswith(SAFE)]
    for path in files:
        if path.name.endswith(INDEX):
            _check_index(path, owner)
    return ModelFiles(owner, folder, read_weights(safe, owner=owner))


def _check_file(path: Path, folder: Path, owner: str) -> None:
    name = path.relative_to(folder)
    try:
        target = Path(os.path.realpath(path, strict=True))
        status = target.stat()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{owner}: '{name}' must be a readable file, got '{reason}'; fetch the model again") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{owner}: '{name}' must be a plain file, found another kind; fetch the model again")
    if not (target.is_relative_to(os.path.realpath(folder)) or _is_hub_blob(target, folder)):
        raise InputError(
            f"{owner}: all files must lie in its folder, and '{name}' is a link to {target}; copy the file there"
        )
    limit = MAX_BYTES.get(path.name, MAX_BYTES.get(path.suffix, MAX_TEXT_BYTES))
    if path.suffix not in (SAFE, ".bin") and status.st_size > limit:
        raise InputError(
            f"{owner}: '{name}' must have at most {limit // MEGABYTE} MB, found {status.st_size // MEGABYTE} MB; fetch "
            f"the model again"
        )


def _is_hub_blob(target: Path, folder: Path) -> bool:
    """Tell whether a link leads where the Hub's cache keeps the files of its snapshots."""
    blobs = target.parent
    repository = blobs.parent
    if blobs.name != "blobs" or not repository.name.startswith("models--"):
        return False
    if Path(os.path.realpath(folder)).is_relative_to(repository / "snapshots"):
        return True
    # a folder that was fetched with `local_dir` may hold links to the cache of this user
    from huggingface_hub.constants import HF_HUB_CACHE

    return repository.parent == Path(os.path.realpath(HF_HUB_CACHE))


def _check_index(path: Path, owner: str) -> None:
    weight_map = read_json(path, owner=owner).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(
            f"{owner}: '{path.name}' must have a weight_map of tensors to files, found none; copy it again"
        )
    names = {name for name in weight_map.values() if isinstance(name, str)}
    others = [name for name in weight_map.values() if not isinstance(name, str) or not is_plain_name(name)]
    if others:
        raise InputError(
            f"{owner}: '{path.name}' must name files of its own folder that end in {SAFE}, got "
            f"{first_three([repr(name)[:80] for name in dict.fromkeys(map(str, others))])}; get another copy of "
            f"the model"
        )
    missing = sorted(name for name in names if not (path.parent / name).is_file())
    if missing:
        raise InputError(
            f"{owner}: all weight files that '{path.name}' names must be there, missing are {first_three(missing)}; "
            f"copy the model again"
        )


def is_plain_name(name: str) -> bool:
    """Tell whether a name is that of a safetensors file, without any folder in it."""
    is_bare = os.path.basename(name) == name and not set(name) & set("/\\\0:")
    return is_bare and name.endswith(SAFE) and not name.startswith(".")


def read_json(path: Path, *, owner: str) -> dict[str, Any]:
    """Return the object in a JSON file of a model.

    Raises:
        InputError: it is not JSON, holds something else, or nests too deep.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        reason = "too many levels" if isinstance(error, RecursionError) else str(error)[:200]
        raise InputError(f"{owner}: {path.name} must be JSON, got {reason}; copy it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{owner}: {path.name} must be an object, got a {type(content).__name__}; copy it again")
    _check_extent(content, path.name, owner)
    return content


def _check_extent(content: Any, name: str, owner: str) -> None:
    level: Iterable[Any] = [content]
    n_values = 0
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        n_values += len(level)
        if n_values > MAX_VALUES and name != INDEX:
            raise InputError(f"{owner}: {name} must have at most {MAX_VALUES} values, found more; copy it again")
        if not level:
            return
    raise InputError(f"{owner}: {name} must have at most {MAX_DEPTH} levels, found more; copy it again")
