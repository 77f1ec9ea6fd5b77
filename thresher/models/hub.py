"""Find the folder of a model that a user named: a local folder, or a repository on the Hub."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from thresher.errors import InputError, MissingExtraError, NotFoundError, did_you_mean, first_three

MODEL_SUFFIXES = (".bin", ".jinja", ".json", ".model", ".py", ".safetensors", ".txt")


def model_folder(name: str, *, what: str, patterns: tuple[str, ...], embedded: tuple[str, ...] = ()) -> Path:
    """Return the local folder of a model, downloading from the Hub what is not there yet.

    Args:
        name: a folder, or "owner/name" on the Hub.
        what: "encoder" or "tokenizer", for messages.
        patterns: files to download.
        embedded: names that need no folder, to suggest on a slip of the pen.

    Raises:
        NotFoundError: there is no such folder and no such model.
        InputError: the Hub cannot be reached and the model is not in its cache.
        MissingExtraError: huggingface_hub is needed and not installed.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or os.sep == "\\" in name:
        raise NotFoundError(f"{what} '{name}' not found: no such folder; give a model's folder or its name on the Hub")
    hint = did_you_mean(name, embedded)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise MissingExtraError("huggingface-hub", f"{what} '{name}'", "encoders") from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except LocalEntryNotFoundError:
        raise InputError(
            f"{what} '{name}' must be a folder or a model on the Hub, but there is no such folder and the Hub cannot "
            f"be reached; check the name, connect, or give the path of a local copy{hint}"
        ) from None
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise NotFoundError(
            f"{what} '{name}' not found: no such folder, and the Hub says '{reason}'; check the name, log in if it is "
            f"private, or give the path of a local copy{hint}"
        ) from None


def check_embedded(folder: Path, expected: Mapping[str, str], remedy: str) -> None:
    """Refuse an embedded model that is not the published one, hashed once per process.

    Args:
        folder: of the model.
        expected: sha256 of each of its files, by their names in the folder.
        remedy: what to do where one is missing or another, for messages.

    Raises:
        InputError: a file is missing or another, or there are more that a model is made of.
    """
    if folder.is_dir():
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in MODEL_SUFFIXES}
        if more := sorted(names - set(expected)):
            raise InputError(f"{folder}: nothing must be added to the model, found {first_three(more)}; {remedy}")
    for name, sha256 in expected.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{folder}: {name} must be there, found none; {remedy}")
        digest = hash_file(path)
        if digest != sha256:
            raise InputError(f"{path}: its sha256 must be {sha256}, got {digest}; {remedy}")


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, computed once per process unless the file changes."""
    status = path.stat()
    return _hash_file(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
# size and time are part of the key: a new file is hashed anew
def _hash_file(path: Path, *_status: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
