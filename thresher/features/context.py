"""What feature providers are told: which models to run, where, and whom to keep informed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from thresher.errors import SettingsError
from thresher.features.cache import FeatureCache


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one feature is; rate and remaining time are for the reader of `done` to work out.

    Attributes:
        feature: what is being computed, for example "embedding".
        done: rows finished, cached ones included.
        total: distinct rows to do.
        n_cached: how many of `done` came from the cache.
        note: a fact that the user and the manifest should know, or None.
    """

    feature: str
    done: int
    total: int
    n_cached: int = 0
    note: str | None = None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class FeatureContext:
    """Settings of the feature arrow.

    Attributes:
        encoder: "static", "minilm", "auto" (None means the same), or the name or folder of a sentence-transformers
            model.
        tokenizer: folder, file or Hub id of a tokenizer for lengths; None for the embedded static encoder's.
        device: "cpu", "cuda", "cuda:1", "mps"; None for the best there is.
        batch_tokens: tokens in one forward pass, padding included.
        cache: where finished values are kept; None computes everything anew.
        on_progress: called after each batch, and with a note when there is one.
    """

    encoder: str | None = None
    tokenizer: str | None = None
    device: str | None = None
    batch_tokens: int = 16_384
    cache: FeatureCache | None = None
    on_progress: OnProgress | None = None

    def __post_init__(self) -> None:
        """Refuse an illegal batch size.

        Raises:
            SettingsError: batch_tokens is not positive.
        """
        if self.batch_tokens < 1:
            raise SettingsError(f"features: batch_tokens must be 1 or more tokens, got {self.batch_tokens}")
