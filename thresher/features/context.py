"""What feature providers are told: which models to run, where, and whom to keep informed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from thresher.cache.feature_cache import FeatureCache
from thresher.errors import SettingsError
from thresher.features.reference_adapters import GradientSettings, TrainedFolder
from thresher.features.settings import ConfidenceSettings, KnowledgeSettings
from thresher.models.device import check_device
from thresher.models.encoders.encoder import DTYPES
from thresher.models.encoders.load import resolve_encoder
from thresher.progress import OnProgress

if TYPE_CHECKING:
    from thresher.dataset import Dataset

EMBEDDING_DTYPES = ("float32", "float16")
LOSS_ON = ("last-assistant", "all-assistant")
N_EXAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class FeatureContext:
    """Settings of the feature arrow.

    Attributes:
        encoder: "static", "minilm", "auto" (None means the same), or the name or folder of a
            sentence-transformers model.
        model: causal language model behind `loss` and its kin: a folder or a Hub id of a model, or
            the folder of a peft adapter on one, or the address of a server (see
            `thresher.models.generation.openai_server`) for features that need written answers only;
            None for the embedded one.
        reference: causal language model behind `reference_loss`: one that has learned the rows,
            such as an adapter, or a folder of adapters that were trained for it.
        examples: rows whose worth as examples in the prompt `utility` measures; None for the rows
            themselves.
        n_examples: of these, how many are tried for each row; None for all.
        confidence: how `confidence` asks the model and weighs what it says.
        knowledge: how `knowledge` asks the model.
        checkpoints: folder of an adapter on the model that was kept after each epoch, at which
            `gradient` and `gradient_plain` are taken.
        gradient: how these are kept.
        loss_on: turns whose tokens are scored: "all-assistant" or "last-assistant", as in training.
        max_length: tokens the language model reads of a row, the rest is cut and counted; None for
            2,048 or the model's longest input, whichever is less.
        tokenizer: folder, file or Hub id of a tokenizer for lengths; None for the embedded static
            encoder's.
        device: "cpu", "cuda", "cuda:1", "mps"; None for the best there is.
        dtype: of a transformer: "bfloat16" and "float16" are faster on a GPU, but a value then
            depends a little (about 1e-3) on its batch. None: float32 for encoders and on a CPU; a
            language model of more than 2 GB of weights runs in bfloat16 on a GPU that has it.
        embedding_dtype: how embeddings are kept, in the cache and beside it: "float32", or
            "float16" for half the room, which rounds components to 11 bits. Selectors compute in
            float32 either way.
        batch_tokens: tokens in one forward pass, padding included; None for 16,384, where a GPU has
            room for more up to 131,072. It changes a value by rounding only.
        cache: where finished values are kept, by default the platform's cache folder; None computes
            everything anew.
        on_progress: called after each batch, and with a note when there is one.
    """

    encoder: str | None = None
    model: str | None = None
    reference: str | TrainedFolder | None = None
    examples: Dataset | None = None
    n_examples: int | None = N_EXAMPLES
    confidence: ConfidenceSettings = field(default_factory=ConfidenceSettings)
    knowledge: KnowledgeSettings = field(default_factory=KnowledgeSettings)
    checkpoints: str | TrainedFolder | None = None
    gradient: GradientSettings = field(default_factory=GradientSettings)
    loss_on: str = LOSS_ON[0]
    max_length: int | None = None
    tokenizer: str | None = None
    device: str | None = None
    dtype: str | None = None
    embedding_dtype: str = EMBEDDING_DTYPES[0]
    batch_tokens: int | None = None
    cache: FeatureCache | None = field(default_factory=FeatureCache)
    on_progress: OnProgress | None = None

    def __post_init__(self) -> None:
        """Refuse illegal settings.

        Raises:
            SettingsError: batch_tokens, max_length or n_examples is too small, or dtype,
                embedding_dtype or loss_on is unknown.
        """
        if self.dtype is not None and self.dtype not in DTYPES:
            raise SettingsError(f"features: dtype must be one of {', '.join(DTYPES)}, got '{self.dtype}'")
        if self.embedding_dtype not in EMBEDDING_DTYPES:
            known = " or ".join(EMBEDDING_DTYPES)
            raise SettingsError(f"features: embedding_dtype must be {known}, got '{self.embedding_dtype}'")
        if self.loss_on not in LOSS_ON:
            raise SettingsError(f"features: loss_on must be one of {', '.join(LOSS_ON)}, got '{self.loss_on}'")
        if self.max_length is not None and self.max_length < 2:
            raise SettingsError(f"features: max_length must be 2 or more tokens, got {self.max_length}")
        if self.n_examples is not None and self.n_examples < 1:
            raise SettingsError(f"features: n_examples must be 1 or more, got {self.n_examples}")
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise SettingsError(f"features: batch_tokens must be 1 or more tokens, got {self.batch_tokens}")

    def resolved(self, n_rows: int) -> FeatureContext:
        """Return this context with the encoder that "auto" means for so many rows.

        Raises:
            SettingsError: there is no such device.
        """
        check_device(self.device)
        return replace(self, encoder=resolve_encoder(self.encoder, n_rows, device=self.device))
