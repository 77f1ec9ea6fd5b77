"""What feature providers are told: which models to run, where, and whom to keep informed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from thresher.errors import SettingsError
from thresher.features.cache import FeatureCache
from thresher.features.encoders import BATCH_TOKENS, DTYPES, resolve_encoder
from thresher.features.progress import OnProgress


@dataclass(frozen=True, kw_only=True)
class FeatureContext:
    """Settings of the feature arrow.

    Attributes:
        encoder: "static", "minilm", "auto" (None means the same), or the name or folder of a sentence-transformers
            model.
        tokenizer: folder, file or Hub id of a tokenizer for lengths; None for the embedded static encoder's.
        device: "cpu", "cuda", "cuda:1", "mps"; None for the best there is.
        dtype: of a transformer encoder: "bfloat16" and "float16" are faster on a GPU, but a vector then depends a
            little (about 1e-3) on its batch; None for float32.
        batch_tokens: tokens in one forward pass, padding included.
        cache: where finished values are kept, by default the platform's cache folder; None computes everything anew.
        on_progress: called after each batch, and with a note when there is one.
    """

    encoder: str | None = None
    tokenizer: str | None = None
    device: str | None = None
    dtype: str | None = None
    batch_tokens: int = BATCH_TOKENS
    cache: FeatureCache | None = field(default_factory=FeatureCache)
    on_progress: OnProgress | None = None

    def __post_init__(self) -> None:
        """Refuse illegal settings.

        Raises:
            SettingsError: batch_tokens is not positive, or dtype is unknown.
        """
        if self.dtype is not None and self.dtype not in DTYPES:
            raise SettingsError(f"features: dtype must be one of {', '.join(DTYPES)}, got '{self.dtype}'")
        if self.batch_tokens < 1:
            raise SettingsError(f"features: batch_tokens must be 1 or more tokens, got {self.batch_tokens}")

    def resolved(self, n_rows: int) -> FeatureContext:
        """Return this context with the encoder that "auto" means for so many rows."""
        return replace(self, encoder=resolve_encoder(self.encoder, n_rows, device=self.device))
