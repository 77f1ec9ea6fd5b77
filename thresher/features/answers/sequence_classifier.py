"""Classifiers of whole texts, by folder or Hub id: loaded as data, checked before."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from thresher.cache.fingerprint import fingerprint
from thresher.errors import InputError
from thresher.models.causal_lm.base_model import (
    PATTERNS,
    BaseModel,
    QuietLoading,
    find_base,
    first_line,
    load_tokenizer,
    loading_errors,
)
from thresher.models.untrusted.fit import check_size, refuse_missing


class SequenceClassifier:
    """A model with a classification head on a whole text."""

    recipe: ClassVar[str]
    """How its values are computed, for the fingerprint."""

    role: ClassVar[str]
    """What messages call it."""

    def __init__(self, name: str, *, device: str | None) -> None:
        self.name = name
        self._device = device

    @cached_property
    def _base(self) -> BaseModel:
        return find_base(self.name, fingerprint=self.recipe)  # the files are hashed below

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, configuration and tokenizer."""
        files = {(path.name, path) for pattern in PATTERNS for path in self._base.folder.glob(pattern)}
        return fingerprint(files, recipe=self.recipe)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._base)

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForSequenceClassification

        device = self._device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            with QuietLoading():
                check_size(self._base.folder, AutoModelForSequenceClassification, owner=f"{self.role} '{self.name}'")
                model, report = AutoModelForSequenceClassification.from_pretrained(
                    self._base.folder,
                    dtype=torch.float32,
                    use_safetensors=True,
                    # a model is data: code that comes with one is never run
                    trust_remote_code=False,
                    output_loading_info=True,
                )
            refuse_missing(report["missing_keys"], owner=f"{self.role} '{self.name}'")
            return model.to(device).eval()
        except InputError:
            raise
        except loading_errors() as error:
            raise InputError(
                f"{self.role} '{self.name}': cannot be loaded for classification ({first_line(error)})"
            ) from None
