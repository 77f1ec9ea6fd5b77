"""The embedded causal language model: where it lies, and that it is the one we know."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from thresher.errors import InputError

EMBEDDED_NAME = "thresher/tiny-llama"  # what adapters made on it name as their base; it is on no Hub
FOLDER = Path(__file__).parents[1] / "weights" / "tiny-llama"
SHA256 = "6b5c44d3d3b6ceaf8fad56d93187e8f147f9cb6e1c9db3f3c2f69a871e17bc63"  # of model.safetensors


def causal_lm_folder() -> Path:
    """Return the folder of the embedded causal language model, after checking its weights.

    A small Llama that `data/make_causal_lm.py` pre-trained; `AutoModelForCausalLM` and
    `AutoTokenizer` read the folder. The weights are hashed once per process.

    Raises:
        InputError: the model is not there, or its weights are not those that were published.
    """
    weights = FOLDER / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{FOLDER}: model.safetensors must be there, found none; reinstall thresher, or give --model")
    status = weights.stat()
    found = _sha256(weights, status.st_size, status.st_mtime_ns)
    if found != SHA256:
        raise InputError(f"{weights}: its sha256 must be {SHA256}, got {found}; reinstall thresher")
    return FOLDER


@lru_cache(maxsize=4)
def _sha256(
    path: Path, size: int, mtime_ns: int
) -> str:  # size and time are part of the key: a new file is hashed anew
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
