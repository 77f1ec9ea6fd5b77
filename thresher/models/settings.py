"""Which models are run, and how: each option is described here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from thresher.validation import Settings, option

EmbeddingDtype = Literal["float32", "float16"]
LossOn = Literal["last-assistant", "all-assistant"]
Dtype = Literal["float32", "bfloat16", "float16"]
Treatment = Literal["refuse", "escape", "strip"]
TREATMENT_HELP = (
    "What to do with texts that contain turn markers of the model's chat template (<|im_start|>, [INST], end "
    "tokens): refuse leaves the rows out, escape reads the markers as plain text, strip removes them. Default: "
    "refuse in conversations; plain texts stay unchanged."
)
_PANEL = "Models"


def declare_device(panel: str | None = None) -> Any:
    """Return the field of a settings class that says which device runs its models."""
    return option(None, "cpu, cuda, cuda:1, mps. Default: the fastest available.", panel=panel)


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """Which models are run, and how.

    A value depends on `dtype` a little (about 1e-3 in half precision), and on `batch_tokens` by
    rounding only. `embedding_dtype` rounds stored components to 11 bits with "float16"; selectors
    compute in float32 either way.
    """

    where = "models"

    encoder: str | None = option(
        None,
        "Sentence encoder: minilm, static, or a sentence-transformers model. Default: static, or minilm on a GPU.",
        panel=_PANEL,
    )
    model: str | None = option(
        None,
        "Language model: Hub id, folder, adapter, smollm2, tiny (a toy), or the address of a server. Default: smollm2.",
        panel=_PANEL,
    )
    tokenizer: str | None = option(
        None,
        "Tokenizer for token budgets and lengths: Hub id, folder or file. Default: the static encoder's.",
        panel=_PANEL,
    )
    device: str | None = declare_device(_PANEL)
    dtype: Dtype | None = option(
        None,
        "Precision of the models. Default: bfloat16 for language models over 50 MB on a CPU, or over 2 GB on a "
        "GPU, with native support for it; otherwise float32.",
        panel=_PANEL,
    )
    embedding_dtype: EmbeddingDtype = option(
        "float32", "Precision of stored embeddings; float16 takes half the space.", panel=_PANEL
    )
    batch_tokens: int | None = option(
        None,
        "Tokens per forward pass, including padding. Default: 16,384, or more if GPU memory allows.",
        ge=1,
        panel=_PANEL,
    )
    max_length: int | None = option(
        None,
        "Tokens of a row that the language model reads; the rest is truncated. Default: 2,048 or the model's limit.",
        ge=2,
        panel=_PANEL,
    )
    reward_model: str | None = option(
        None,
        "Reward model for the feature reward: a sequence classifier with one output, as Hub id or folder.",
        panel=_PANEL,
    )
    loss_on: LossOn = option("last-assistant", "Turns whose tokens count toward the loss.", panel=_PANEL)
    special_tokens: Treatment | None = option(None, TREATMENT_HELP, panel=_PANEL)


class ModelOptions(TypedDict, total=False):
    """The fields of `ModelSettings` as keyword arguments, for type checkers."""

    encoder: str | None
    model: str | None
    tokenizer: str | None
    device: str | None
    dtype: Dtype | None
    embedding_dtype: EmbeddingDtype
    batch_tokens: int | None
    max_length: int | None
    reward_model: str | None
    loss_on: LossOn
    special_tokens: Treatment | None
