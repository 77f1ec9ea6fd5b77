"""The causal language models that come along: their names, and where the embedded one lies."""

from __future__ import annotations

from pathlib import Path

from thresher.models.hub import check_weights

# what adapters made on them name as their base; they are on no Hub
EMBEDDED_NAME = "thresher/tiny-llama"
SMOLLM2_NAME = "thresher/smollm2-135m-instruct"
SHORT_NAMES = {"tiny": EMBEDDED_NAME, "smollm2": SMOLLM2_NAME}
FOLDER = Path(__file__).parents[1] / "weights" / "tiny-llama"
SHA256 = "6b5c44d3d3b6ceaf8fad56d93187e8f147f9cb6e1c9db3f3c2f69a871e17bc63"  # of model.safetensors


def expand_short_name(name: str) -> str:
    """Return the whole name of a model that comes along, and any other as it is."""
    return SHORT_NAMES.get(name, name)


def causal_lm_folder() -> Path:
    """Return the folder of the embedded causal language model, after checking its weights.

    A small Llama that `data/make_causal_lm.py` pre-trained; `AutoModelForCausalLM` and
    `AutoTokenizer` read the folder. The weights are hashed once per process.

    Raises:
        InputError: the model is not there, or its weights are not those that were published.
    """
    check_weights(FOLDER, SHA256, "reinstall thresher, or give --model")
    return FOLDER
