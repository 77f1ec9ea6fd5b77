"""How to serve a trained model: the commands that are right for its kind, and no others.

vLLM: docs.vllm.ai, Features, LoRA Adapters (it takes LoRA alone, no DoRA, and no layers that were
trained whole). llama.cpp: convert_hf_to_gguf.py and llama-server of its repository. Ollama:
docs/import.md of its repository.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thresher.models.adapter_files import ADAPTER_CONFIG
from thresher.models.causal_lm.embedded import EMBEDDED_NAME, SHORT_NAMES

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank may be
MERGED, HEAD = "merged", "head.json"
_GET_LLAMA_CPP = (
    "git clone --depth 1 https://github.com/ggml-org/llama.cpp && pip install sentencepiece  # for the conversion"
)
UNMERGEABLE = ("full", "prompt", "prefix")


@dataclass(frozen=True)
class Serving:
    """A way to serve.

    Attributes:
        name: of the program.
        code: what to type, or to run in Python.
        is_python: the latter.
    """

    name: str
    code: str
    is_python: bool = False


def list_servings(folder: Path, task: str, shown: str) -> list[Serving]:
    """Return the ways to serve an adapter.

    Args:
        folder: of the adapter, perhaps with the full model in `merged/`.
        task: that it was trained for.
        shown: the folder as the commands shall name it.
    """
    is_whole = not (folder / ADAPTER_CONFIG).is_file()  # all weights were trained
    full = folder if is_whole else folder / MERGED
    merged = shown if is_whole else f"{shown}/{MERGED}" if full.is_dir() else None
    if task == "classification":
        return _list_classifier_servings(full, merged)
    config = {} if is_whole else json.loads((folder / ADAPTER_CONFIG).read_bytes())
    base, is_embedded = ("", False) if is_whole else _quote_base(config)
    is_plain = config.get("peft_type") == "LORA" and not config.get("use_dora")
    takes_lora = is_plain and not config.get("modules_to_save")
    ways = []
    if takes_lora:
        rank = next((rank for rank in VLLM_RANKS if rank >= int(config["r"])), VLLM_RANKS[-1])
        lora = f"--enable-lora --max-lora-rank {rank} --lora-modules adapter={shlex.quote(shown)}"
        ways.append(Serving("vLLM", f"vllm serve {base} {lora}"))
    elif merged:
        ways.append(Serving("vLLM", f"vllm serve {shlex.quote(merged)}"))
    # llama.cpp does not know the tokenizer of the toy
    if merged and config.get("base_model_name_or_path") != EMBEDDED_NAME:
        convert = f"python llama.cpp/convert_hf_to_gguf.py {shlex.quote(merged)} --outfile model.gguf"
        ways.append(Serving("llama.cpp", f"{_GET_LLAMA_CPP}\n{convert}\nllama-server -m model.gguf"))
        create = "ollama create adapter -f Modelfile && ollama run adapter"
        ways.append(
            Serving("Ollama", f"# after the conversion to model.gguf\necho 'FROM ./model.gguf' > Modelfile\n{create}")
        )
    if merged or not is_embedded:
        model = json.dumps(merged or shown)
        code = f'from transformers import pipeline\n\nanswer = pipeline("text-generation", model={model})\n'
        ask = '[{"role": "user", "content": "a question"}]' if task == "sft" else '"the beginning of a text"'
        ways.append(Serving("transformers", f"{code}print(answer({ask}))", is_python=True))
    return ways


def _list_classifier_servings(full: Path, merged: str | None) -> list[Serving]:
    if merged is None:
        return []
    model = json.dumps(merged)
    if (full / "modules.json").is_file():
        code = (
            f"from sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer({model})\n"
            'logits = model.encode(["a text"])  # the label of each is model[0].auto_model.config.id2label'
        )
        return [Serving("sentence-transformers", code, is_python=True)]
    if (full / HEAD).is_file():  # which transformers does not read
        return []
    code = f'from transformers import pipeline\n\nprint(pipeline("text-classification", model={model})("a text"))'
    return [Serving("transformers", code, is_python=True)]


def _quote_base(config: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the base for a shell, and whether it came with the package and is on no Hub."""
    name, revision = str(config["base_model_name_or_path"]), config.get("revision")
    short = next((short for short, full in SHORT_NAMES.items() if full == name), None)
    if short is not None:
        code = f"from thresher.models.causal_lm.base_model import find_base; print(find_base({short!r}).folder)"
        return f'"$(python -c "{code}")"', True
    return shlex.quote(name) + (f" --revision {shlex.quote(str(revision))}" if revision else ""), False


def format_servings(ways: list[Serving], task: str, *, is_mergeable: bool) -> str:
    """Return the section of a model card."""
    blocks = [f"{way.name}:\n\n```{'python' if way.is_python else 'bash'}\n{way.code}\n```" for way in ways]
    if task == "classification":
        blocks.append("vLLM, llama.cpp and Ollama serve language models; this is a classifier.")
    if is_mergeable and not any(MERGED in way.code for way in ways):
        takers = "sentence-transformers" if task == "classification" else "llama.cpp and Ollama"
        blocks.append(f"`thresher train ... --merge` also writes the full model, which {takers} can load.")
    return "\n\n".join(blocks)


def format_next_steps(folder: Path, task: str) -> list[str]:
    """Return the lines of a summary: how to try the adapter, and how to serve it."""
    shown = shlex.quote(str(folder))
    what = {"classification": "a text", "sft": "a question", "text": "the beginning of a text"}[task]
    lines = [f'next: thresher try {shown} "{what}" (base beside adapter)']
    commands = [way for way in list_servings(folder, task, str(folder)) if not way.is_python and way.name == "vLLM"]
    lines += [f"serve: {way.code}" for way in commands]
    return [*lines, f"README.md in {folder} has all ways to load and serve it"]
