"""The causal language models that come along: their names, and where the embedded one lies."""

from __future__ import annotations

from pathlib import Path

from thresher.models.hub import check_embedded

# what adapters made on them name as their base; they are on no Hub
EMBEDDED_NAME = "thresher/tiny-llama"
SMOLLM2_NAME = "thresher/smollm2-135m-instruct"
SHORT_NAMES = {"tiny": EMBEDDED_NAME, "smollm2": SMOLLM2_NAME}
FOLDER = Path(__file__).parents[1] / "weights" / "tiny-llama"
SHA256 = "6b5c44d3d3b6ceaf8fad56d93187e8f147f9cb6e1c9db3f3c2f69a871e17bc63"  # of model.safetensors
FILES = {
    "config.json": "22d63b5172056ced8dfd0a50737d06468a37d080a120d1d39df5ade1fc75c458",
    "generation_config.json": "e9c42bd8c4e08af12d7090aa6d4ad66489ade8373cd9b7d49f651c60103ce14c",
    "model.safetensors": SHA256,
    "tokenizer.json": "b3c24db45fde49a1b0709b7a3d1dff37e5ad0b4f7db67ccc8b77c25d5c310bf3",
    "tokenizer_config.json": "2496920d95aa4cf97577ff2e4833e215e682308a782f2a5676f818d10d21d9ef",
}


def expand_short_name(name: str) -> str:
    """Return the whole name of a model that comes along, and any other as it is."""
    return SHORT_NAMES.get(name, name)


def causal_lm_folder() -> Path:
    """Return the folder of the embedded causal language model, after checking its files.

    A small Llama that `data/make_causal_lm.py` pre-trained; `AutoModelForCausalLM` and
    `AutoTokenizer` read the folder. The files are hashed once per process.

    Raises:
        InputError: the model is not there, or its files are not those that were published.
    """
    check_embedded(FOLDER, FILES, "reinstall thresher, or give --model")
    return FOLDER
