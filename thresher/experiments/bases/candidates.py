"""What can be ranked: base models, the embedded encoders, and vectors that the user has."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from thresher.artifacts.local_path import expand_path
from thresher.errors import InputError
from thresher.experiments.design.variants import count_parameters
from thresher.models.causal_lm.base_model import BaseModel, find_base
from thresher.models.encoders.encoder import MINILM, STATIC
from thresher.models.encoders.load import load_encoder
from thresher.numeric.arrays import Float64
from thresher.trainer.engine.load_model import find_minilm_base

VECTORS = ".npy"
# of the models that come along, whose folders do not say it
LICENSES = {"thresher/smollm2-135m-instruct": "apache-2.0", "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0"}
LICENSE_LINE = re.compile(r"^license:\s*['\"]?([^'\"\n#]+)", re.MULTILINE)
CARDS, LICENSE_FILES = ("README.md", "MODEL_CARD.md"), ("LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING")
UNKNOWN = "not stated"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model to rank.

    Attributes:
        name: as the user named it.
        base: of a model that can be trained; None for the static encoder and for vectors.
        vectors: of the user, or None.
        fingerprint: of everything that its scores depend on.
        model: as an experiment takes it: None for MiniLM.
    """

    name: str
    base: BaseModel | None
    vectors: Path | None
    fingerprint: str
    model: str | None = None

    @staticmethod
    def find(name: str, kind: str) -> Candidate:
        """Find a candidate by its name.

        Args:
            name: as the user named it.
            kind: of the rows.

        Raises:
            InputError: it cannot be ranked on such rows.
            NotFoundError: there is no such model.
        """
        is_labels = kind == "classification"
        if not is_labels and (name in (MINILM, STATIC) or name.endswith(VECTORS)):
            raise InputError(
                f"base rank: models must be language models where rows have answers, got '{name}', which writes none"
            )
        if name == STATIC:
            return Candidate(name=name, base=None, vectors=None, fingerprint=load_encoder(STATIC).fingerprint)
        if name.endswith(VECTORS):
            return _find_vectors(name)
        base = find_minilm_base() if name == MINILM else find_base(name)
        model = None if name == MINILM else name
        return Candidate(name=name, base=base, vectors=None, fingerprint=base.fingerprint, model=model)

    @property
    def can_be_trained(self) -> bool:
        """Whether there is anything that an adapter could be put into."""
        return self.base is not None

    def describe(self) -> dict[str, Any]:
        """Return `license`, `parameters` and `bytes` of the weights; null where not known."""
        return {"license": self._license, "parameters": self._n_parameters, "bytes": self._n_bytes}

    @property
    def _folder(self) -> Path | None:
        if self.name == STATIC:
            from thresher.models.encoders.static import static_folder

            return static_folder()
        return None if self.base is None else self.base.folder

    @cached_property
    def _license(self) -> str:
        if self.base is not None and self.base.name in LICENSES:
            return LICENSES[self.base.name]
        return "your own vectors" if self._folder is None else read_license(self._folder)

    @property
    def _n_parameters(self) -> int | None:
        return None if self.base is None else count_parameters(self.base.folder)

    @property
    def _n_bytes(self) -> int | None:
        folder = self._folder
        return None if folder is None else sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _find_vectors(name: str) -> Candidate:
    path = expand_path(name)
    if not path.is_file():
        raise InputError(f"base rank: models names the vectors {name}, found no such file; check the path")
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return Candidate(name=name, base=None, vectors=path, fingerprint=content)


def read_license(folder: Path) -> str:
    """Return the license that the card or the license file of a model names, in its words."""
    for name in CARDS:
        path = folder / name
        named = LICENSE_LINE.search(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
        if named:
            return named.group(1).strip()
    for name in LICENSE_FILES:
        path = folder / name
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            first = next((line.strip() for line in lines if line.strip()), "")
            return first[:60] or UNKNOWN
    return UNKNOWN


def read_vectors(path: Path, n_rows: int) -> Float64:
    """Return the user's vectors of all rows of the pool: (n, d).

    Raises:
        InputError: the file is no such array.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: must be an array that numpy.save wrote, got '{error}'; write it again") from None
    if values.ndim != 2 or len(values) != n_rows or values.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: must be numbers of shape ({n_rows}, d), a row for each usable row of the pool in its order, "
            f"found {values.dtype} of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{path}: all numbers must be finite, found others; fix these rows")
    return np.asarray(values, dtype=np.float64)
