"""A classifier of pooled token states: encoder, pooling, one linear layer; and its files.

The encoder's adapter is a plain PEFT folder of the encoder. The head lies beside it, in two files
that any program can read: `head.json` (labels, pooling) and `head.safetensors` (`weight` of shape
(labels, d) and `bias`). Merged, the three become a folder of sentence-transformers whose vectors
are the logits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from thresher.artifacts.folder import write_atomic
from thresher.errors import InputError
from thresher.trainer.engine.pooling import Pooling

HEAD_CONFIG, HEAD_WEIGHTS = "head.json", "head.safetensors"
FORMAT = "thresher-head/1"
MODULE = "sentence_transformers.models."
# pooling by mode, of `states` (n, t, d) and `mask` (n, t, 1), for the code in a model card
FORMULAS = {
    "cls": "states[:, 0]",
    "max": "states.masked_fill(mask == 0, float('-inf')).amax(dim=1)",
    "mean": "(states * mask).sum(1) / mask.sum(1)",
    "mean_sqrt_len_tokens": "(states * mask).sum(1) / mask.sum(1).sqrt()",
    "weightedmean": "(states * mask * mask.cumsum(1)).sum(1) / (mask * mask.cumsum(1)).sum(1)",
    "lasttoken": "states[torch.arange(len(states)), mask.sum(1).squeeze(1) - 1]",
}


class PooledClassifier(torch.nn.Module):
    """Logits of a linear head on the pooled token states of a body.

    Attributes:
        body: transformer without a head, with or without a peft adapter.
        head: linear layer from pooled states to labels, in float32.
        pooling: between the two.
        labels: in the order of the head's outputs.
    """

    def __init__(self, body: Any, pooling: Pooling, labels: Sequence[str]) -> None:
        """Put a head on a body, initialized from torch's current random state."""
        super().__init__()
        self.body, self.pooling, self.labels = body, pooling, tuple(labels)
        self.head = torch.nn.Linear(len(pooling.modes) * body.config.get_text_config().hidden_size, len(labels))
        self.head.to(next(body.parameters()).device)

    @property
    def config(self) -> Any:
        """The body's configuration."""
        return self.body.config

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        """Return `logits`, (n, labels), of rows padded on the right; both inputs are (n, t)."""
        from transformers.modeling_outputs import SequenceClassifierOutput

        states = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        states = states[:, -input_ids.shape[1] :]  # virtual tokens of an adapter come first
        return SequenceClassifierOutput(logits=self.head(self.pooling.apply(states, attention_mask)))


def write_head(model: PooledClassifier, folder: Path) -> None:
    """Write the head's two files."""
    from safetensors.torch import save

    content = {
        "format": FORMAT,
        "labels": list(model.labels),
        "pooling": list(model.pooling.modes),
        "is_normalized": model.pooling.is_normalized,
    }
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in model.head.named_parameters()}
    write_atomic(folder / HEAD_WEIGHTS, save(tensors, {"format": "pt"}))
    write_atomic(folder / HEAD_CONFIG, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def format_pooled_loading(source: str, pooling: Pooling, max_length: int) -> str:
    """Return code that classifies with an adapter's folder by peft, transformers and torch alone.

    Args:
        source: of the base model, as a Python expression.
        pooling: of the head.
        max_length: tokens that are read of a text.
    """
    vectors = [FORMULAS[mode] for mode in pooling.modes]
    pooled = vectors[0] if len(vectors) == 1 else f"torch.cat([{', '.join(vectors)}], dim=1)"
    normalize = "    pooled = torch.nn.functional.normalize(pooled)\n" if pooling.is_normalized else ""
    return (
        "import json\nfrom pathlib import Path\n\nimport torch\nfrom peft import PeftModel\n"
        "from safetensors.torch import load_file\nfrom transformers import AutoModel, AutoTokenizer\n\n"
        'folder = Path("path/to/this/folder")\n'
        f"model = PeftModel.from_pretrained(AutoModel.from_pretrained({source}), folder).eval()\n"
        'tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")\n'
        f'labels = json.loads((folder / "{HEAD_CONFIG}").read_text())["labels"]\n'
        f'head = load_file(folder / "{HEAD_WEIGHTS}")\n\n'
        'texts = ["a text", "another text"]\n'
        f'batch = tokenizer(texts, padding=True, truncation=True, max_length={max_length}, return_tensors="pt")\n'
        "with torch.inference_mode():\n"
        "    states = model(**batch).last_hidden_state.float()\n"
        '    mask = batch["attention_mask"][:, :, None]\n'
        f"    pooled = {pooled}\n{normalize}"
        '    logits = pooled @ head["weight"].T + head["bias"]\n'
        "print([labels[code] for code in logits.argmax(dim=1)])"
    )


def has_head(folder: Path) -> bool:
    """Tell whether a peft folder is of a pooled classifier: others have no such file."""
    return (folder / HEAD_CONFIG).is_file()


def read_head_config(folder: Path) -> tuple[Pooling, tuple[str, ...]]:
    """Return pooling and labels of an adapter's head.

    Raises:
        InputError: the file is damaged, or of a later format.
    """
    path = folder / HEAD_CONFIG
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise ValueError(f"format '{content['format']}'")
        return Pooling(tuple(content["pooling"]), bool(content["is_normalized"])), tuple(content["labels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: must be a head of format {FORMAT}, got {error}; copy the adapter anew") from None


def load_head(model: PooledClassifier, folder: Path) -> None:
    """Set the head to the weights of an adapter's folder.

    Raises:
        InputError: the weights are missing, damaged, or of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / HEAD_WEIGHTS
    try:
        model.head.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().replace("\n", " ")
        raise InputError(f"{path}: must hold the head of this adapter, got '{reason}'; copy it again") from None


def write_merged_classifier(model: PooledClassifier, folder: Path, *, max_length: int) -> None:
    """Write a merged classifier as a folder of sentence-transformers; the tokenizer goes beside it.

    `SentenceTransformer(folder).encode(texts)` gives the logits, and transformers' `AutoModel`
    loads the body.

    Args:
        model: without an adapter.
        folder: to write into.
        max_length: tokens that are read of a text.
    """
    from safetensors.torch import save

    model.body.config.label2id = {label: code for code, label in enumerate(model.labels)}
    model.body.config.id2label = dict(enumerate(model.labels))
    model.body.save_pretrained(folder)
    n_labels, width = model.head.weight.shape
    pooling = {
        "word_embedding_dimension": model.head.in_features // len(model.pooling.modes),
        "pooling_mode": list(model.pooling.modes),
    }
    dense = {
        "in_features": width,
        "out_features": n_labels,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    modules = [("Transformer", "", None), ("Pooling", "1_Pooling", pooling)]
    modules += [("Normalize", "2_Normalize", {})] if model.pooling.is_normalized else []
    modules += [("Dense", "3_Dense", dense)]
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": MODULE + kind}
        for number, (kind, path, _) in enumerate(modules)
    ]
    _write_json(folder / "modules.json", listed)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    for _, path, config in modules:
        if config is not None:
            (folder / path).mkdir(exist_ok=True)
            _write_json(folder / path / "config.json", config)
    tensors = {f"linear.{name}": value.detach().float().cpu() for name, value in model.head.named_parameters()}
    write_atomic(folder / "3_Dense/model.safetensors", save(tensors, {"format": "pt"}))


def _write_json(path: Path, content: Any) -> None:
    write_atomic(path, json.dumps(content, indent=2).encode() + b"\n")
