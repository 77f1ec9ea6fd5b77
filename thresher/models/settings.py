"""Which models are run, and how."""

from __future__ import annotations

from typing import Literal

EmbeddingDtype = Literal["float32", "float16"]
LossOn = Literal["last-assistant", "all-assistant"]
