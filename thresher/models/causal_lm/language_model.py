"""Causal language models that read tokens: a base model, perhaps with an adapter on it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from thresher.cache.fingerprint import check_unchanged, fingerprint
from thresher.errors import InputError, MissingExtraError
from thresher.models.adapter_files import ADAPTER_CONFIG
from thresher.models.async_copy import PendingTensor
from thresher.models.causal_lm.adapter import apply_adapter, read_base_name
from thresher.models.causal_lm.base_model import (
    PATTERNS,
    TEMPLATES,
    BaseModel,
    find_base,
    first_line,
    load_causal_lm,
    load_tokenizer,
)
from thresher.models.causal_lm.chat_template import prepare_template, start_id
from thresher.models.causal_lm.default_model import choose_model
from thresher.models.causal_lm.embedded import expand_short_name
from thresher.models.precision import full_precision, gains_from_bfloat16, inference, same_logits
from thresher.models.server_address import ServerAddress, is_server
from thresher.models.token_batches import bytes_per_token, token_budget

if TYPE_CHECKING:
    import torch

RECIPE = "language-model-1"
GENERATION_CONFIG = "generation_config.json"  # of it counts what ends an answer
# What shapes its values; beside it lie metrics and a manifest with the time of its training.
ADAPTER_FILES = (
    ADAPTER_CONFIG,
    GENERATION_CONFIG,
    "*.safetensors",
    *TEMPLATES,
    "*.model",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
)
# of weights on the disk: smaller models are fast enough in float32 on a GPU
FULL_PRECISION_BYTES = 2 * 10**9
# On a CPU, what fits its caches is read fastest: there small batches and pieces cost less time, not
# more.
CPU_BATCH_TOKENS = 1024
CPU_LOGITS = 1 << 20  # 4 MB of float32
GPU_LOGITS = 1 << 26
MIN_LOGIT_ROWS = 128  # below, reading the head's weights costs more than using them
# Tokens of a row up to which plain products of attention are faster on a CPU in bfloat16 than the
# fused kernel (2.6 times at 64 tokens, 1.9 at 512), and keep their sums in float32 too.
PLAIN_ATTENTION_TOKENS = 512
PROBE_TOKENS = 8
DEFAULT_MAX_LENGTH = 2048  # what training reads of a conversation


class LanguageModel:
    """A causal language model by name. Nothing is loaded before it is needed.

    The vocabulary is wide and prompts are long, so logits are made only where they are asked for:
    the body of the model gives hidden states, and its head is applied to a few of them. Models that
    do more between the two (soft-capped or scaled logits) are found out by a probe and run whole.

    Attributes:
        name: as it was given, in full for a model that comes along.
        n_tokens: tokens read so far, without padding.
    """

    def __init__(self, name: str | None = None, *, device: str | None = None, dtype: str | None = None) -> None:
        """Name a model.

        Args:
            name: a folder, a Hub id, or the folder of a peft adapter, whose base is then found by
                the name it gives; None for what `choose_model` finds.
            device: None for the best there is.
            dtype: of the weights; None for bfloat16 where weights of more than 2 GB meet a GPU, or
                of more than 50 MB a processor that multiplies it natively, else float32.

        Raises:
            MissingExtraError: torch, transformers or, for an adapter, peft is not installed.
        """
        self.name = choose_model() if name is None else expand_short_name(name)
        self.n_tokens = 0
        folder = Path(self.name).expanduser()
        self._adapter = folder if (folder / ADAPTER_CONFIG).is_file() else None
        self._device = device
        self._dtype = dtype
        for package in ("torch", "transformers", *(("peft",) if self._adapter else ())):
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, f"model '{self.name}'", "train")

    @cached_property
    def base(self) -> BaseModel:
        """The base model on this disk; downloads it when it is on the Hub and not cached yet."""
        name = self.name
        if self._adapter is not None:
            name = read_base_name(self._adapter)
        return find_base(name, fingerprint=RECIPE)  # the files are hashed below, once per process

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, configuration, tokenizer, adapter and the precision they run in."""
        return self._hashed()

    def _hashed(self) -> str:
        base, adapter = self.base.folder, self._adapter
        files = {(f"base/{path.relative_to(base)}", path) for glob in PATTERNS for path in base.glob(glob)}
        if adapter is not None:
            files |= {
                (f"adapter/{path.relative_to(adapter)}", path) for glob in ADAPTER_FILES for path in adapter.glob(glob)
            }
        return fingerprint(files, recipe=f"{RECIPE}-{self.dtype}")

    @property
    def max_positions(self) -> int | None:
        """Longest input in tokens, or None where the configuration does not say."""
        return self.base.max_positions

    def limit_length(self, max_length: int | None) -> int:
        """Return the tokens that are read of a text: None for 2,048; the model's limit at most."""
        limits = (max_length or DEFAULT_MAX_LENGTH, self.max_positions)
        return min(limit for limit in limits if limit is not None)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, with a chat template; an adapter's own where it has one."""
        own = self._adapter is not None and (self._adapter / "tokenizer.json").is_file()
        tokenizer = load_tokenizer(_moved(self.base, self._adapter) if own else self.base)
        if not tokenizer.is_fast:
            raise InputError(
                f"model '{self.name}': needs a fast tokenizer (tokenizer.json), got {type(tokenizer).__name__}"
            )
        prepare_template(tokenizer)
        return tokenizer

    @property
    def settings_files(self) -> list[Path]:
        """Files that may say what ends an answer, the adapter's first; they may be missing."""
        own = [] if self._adapter is None else [self._adapter / GENERATION_CONFIG]
        return [*own, self.base.folder / GENERATION_CONFIG, self.base.folder / "config.json"]

    @property
    def start_id(self) -> int:
        """The token that stands before a text: BOS, or EOS where a model has none (GPT-2)."""
        return start_id(self.tokenizer)

    @cached_property
    def device(self) -> torch.device:
        """Where the model runs."""
        import torch

        if self._device is not None:
            return torch.device(self._device)
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    @cached_property
    def dtype(self) -> str:
        """Precision of the weights and activations; probabilities are always taken in float32."""
        import torch

        if self._dtype is not None:
            return self._dtype
        if self.device.type == "cpu":
            return "bfloat16" if gains_from_bfloat16(self.base.folder) else "float32"
        n_bytes = sum(path.stat().st_size for path in self.base.folder.glob("*.safetensors"))
        is_large = n_bytes > FULL_PRECISION_BYTES
        return "bfloat16" if is_large and self.device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"

    @cached_property
    def model(self) -> Any:
        """The transformers model in evaluation mode, with the adapter's layers in place.

        Raises:
            InputError: what is there is no causal language model, is not whole, or does not fit the
                device.
        """
        import torch

        model = load_causal_lm(self.base, task="scoring", dtype=getattr(torch, self.dtype))
        try:
            model = model.to(self.device)
        except RuntimeError as error:
            raise InputError(f"model '{self.name}': does not fit {self.device} ({first_line(error)})") from None
        model = (model if self._adapter is None else apply_adapter(model, self._adapter, name=self.name)).eval()
        check_unchanged(f"model '{self.name}'", self._adapter or self.base.folder, self.fingerprint, self._hashed())
        if _looks_ahead(model, self.device):
            raise InputError(
                f"model '{self.name}': scoring needs a causal language model, and in this one a token sees what follows"
            )
        return model

    @property
    def body(self) -> Any:
        """What gives the hidden states: the model without its head."""
        model = self.model
        # Llama 4's text model keeps its body under another name than it says
        return model.base_model if model.base_model is not model else getattr(model, "model", model)

    @cached_property
    def is_run_whole(self) -> bool:
        """Whether the head on the body's hidden states does not give the logits."""
        return not _head_follows_body(self.model, self.body, self.device)

    @property
    def n_vocabulary(self) -> int:
        """Number of token ids."""
        return int(self.model.config.get_text_config().vocab_size)

    def log_probabilities(
        self, inputs: dict[str, Any], at: torch.Tensor, targets: torch.Tensor
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Run the model and return log p(target), (s,) float32: `start_log_probabilities`."""
        return self.start_log_probabilities(inputs, at, targets).array()

    def start_log_probabilities(self, inputs: dict[str, Any], at: torch.Tensor, targets: torch.Tensor) -> PendingTensor:
        """Return log p(target) at some positions, (s,) float32, on a GPU while it is computed.

        Args:
            inputs: of the model's forward: `input_ids` (b, w) on its device, and what else it
                needs.
            at: (s,) positions into the flattened (b * w) tokens after which a target is predicted.
            targets: (s,) token ids.

        Raises:
            InputError: the batch does not fit the device's memory.
        """
        model, use_cache = self.model, "past_key_values" in inputs
        self.choose_attention(inputs["input_ids"].shape[1])
        with inference(f"model '{self.name}': a batch of {tuple(inputs['input_ids'].shape)} tokens"):
            if self.is_run_whole:
                logits = model(**inputs, use_cache=use_cache).logits.flatten(0, 1)[at]
                return PendingTensor(_gather_log_softmax(logits, targets))
            hidden = self.body(**inputs, use_cache=use_cache).last_hidden_state
            return PendingTensor(self._apply_head(hidden.flatten(0, 1)[at], targets))

    def choose_attention(self, width: int) -> None:
        """Prepare the model for a batch of rows of so many tokens, where a choice pays."""
        if not self._can_choose_attention:
            return
        wanted = "eager" if width <= PLAIN_ATTENTION_TOKENS else "sdpa"
        if self.model.config._attn_implementation != wanted:
            self.model.set_attn_implementation(wanted)

    @cached_property
    def _can_choose_attention(self) -> bool:
        if self.device.type != "cpu" or self.dtype != "bfloat16":
            return False
        model = self.model
        return model.config._attn_implementation == "sdpa" and bool(model._can_set_attn_implementation())

    def _apply_head(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        import torch

        head = self.model.get_output_embeddings()
        n_at_once = max(MIN_LOGIT_ROWS, self._n_logits // self.n_vocabulary)
        parts = [
            _gather_log_softmax(head(part), target)
            for part, target in zip(torch.split(hidden, n_at_once), torch.split(targets, n_at_once), strict=True)
        ]
        return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)

    @property
    def _n_logits(self) -> int:
        return CPU_LOGITS if self.device.type == "cpu" else GPU_LOGITS

    def limit_batch_tokens(self, batch_tokens: int | None) -> int:
        """Return the tokens of a batch: fewer on a CPU, and where all logits are computed.

        Args:
            batch_tokens: as the user set it; None for what a GPU has room for.
        """
        if batch_tokens is None:
            config, n_bytes = self.model.config.get_text_config(), self.model.dtype.itemsize
            batch_tokens = token_budget(self.device, bytes_per_token(config, n_bytes))
        if self.is_run_whole:
            batch_tokens = min(batch_tokens, max(MIN_LOGIT_ROWS, 4 * self._n_logits // self.n_vocabulary))
        return min(batch_tokens, CPU_BATCH_TOKENS) if self.device.type == "cpu" else batch_tokens

    def notes(self) -> Iterator[str]:
        """Yield what the user should know of how the model was run."""
        # nothing is loaded for the sake of a note
        if "model" in self.__dict__ and self.is_run_whole:
            yield (
                f"model '{self.name}': its logits are not just its head applied to its hidden states, so all of "
                f"them are computed, which is slower"
            )


_ALIVE: WeakValueDictionary[tuple[str | None, ...], LanguageModel] = WeakValueDictionary()


def language_model(name: str | None, *, device: str | None = None, dtype: str | None = None) -> LanguageModel:
    """Return the model of that name, the one in use already if any: weights are loaded once.

    A model is let go with its last user, so that it does not hold memory that the next step of a
    run needs.

    Raises:
        InputError: the name is the address of a server.
    """
    refuse_server(name)
    lm = LanguageModel(name, device=device, dtype=dtype)
    return _ALIVE.setdefault((name, device, dtype, lm.fingerprint), lm)


def refuse_server(name: str | None) -> None:
    """Refuse the address of a server where a model's own probabilities or weights are needed.

    Raises:
        InputError: the name is the address of a server.
    """
    if is_server(name):
        raise InputError(
            f"model '{ServerAddress.parse(str(name)).url}': this method needs log-probabilities of given text, which a "
            f"server does not give; name a folder or a Hub id, or take a method that reads answers (confidence, "
            f"known-unknown)"
        )


def count_tokens_read() -> int:
    """Return the tokens that the models in use have read so far, without padding."""
    return sum(lm.n_tokens for lm in _ALIVE.values())


def _moved(base: BaseModel, folder: Path | None) -> BaseModel:
    from dataclasses import replace

    return base if folder is None else replace(base, folder=folder)


def _gather_log_softmax(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return (s,) float32 log p(target) from (s, vocabulary) logits of any precision."""
    logits = logits.float()
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(dim=1)


def _looks_ahead(model: Any, device: torch.device) -> bool:
    """Tell whether another last token changes what the model says before it."""
    import torch

    n = int(model.config.get_text_config().vocab_size)
    ids = (torch.arange(PROBE_TOKENS, device=device) % n).repeat(2, 1)
    ids[1, -1] = (ids[0, -1] + n // 2) % n
    with torch.inference_mode(), full_precision():
        one, other = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    return not same_logits(one, other, itemsize=model.dtype.itemsize)


def _head_follows_body(model: Any, body: Any, device: torch.device) -> bool:
    """Tell whether the head on the body's last hidden states gives the model's own logits."""
    import torch

    head = model.get_output_embeddings()
    if head is None or body is model:
        return False
    ids = torch.arange(PROBE_TOKENS, device=device)[None] % int(model.config.get_text_config().vocab_size)
    with torch.inference_mode(), full_precision():
        output = body(input_ids=ids, use_cache=False)
        hidden = getattr(output, "last_hidden_state", None)
        if hidden is None:
            return False
        logits = model(input_ids=ids, use_cache=False).logits
        head_logits = head(hidden)
    tolerance = 1e-4 if logits.dtype == torch.float32 else 2e-2
    return head_logits.shape == logits.shape and bool(
        torch.allclose(head_logits, logits, rtol=tolerance, atol=tolerance)
    )
