"""Adapters that are trained so that rows can be scored: what a method needs, and their folder.

    FOLDER/trained.json             what was trained, on how many rows, hashes of the files below
    FOLDER/adapter-0/, adapter-1/   peft folders; number f has not seen the rows of fold f
    FOLDER/adapter-0/epoch-1/       with `keeps_epochs`: weights and moments after each epoch

`thresher/selection/pool_adapters.py` makes the folder, features read it. Nothing is trained here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from thresher.cache.fingerprint import fingerprint
from thresher.errors import ManifestError, first_three
from thresher.models.adapter_files import ADAPTER_CONFIG

FORMAT = "thresher-trained/1"
FILE = "trained.json"
WEIGHED = ("adapter-*/*.safetensors", f"adapter-*/{ADAPTER_CONFIG}", "adapter-*/epoch-*/*.safetensors")
FOLDS = "xxh3-64 of the row as a language model reads it, modulo n_folds"


@dataclass(frozen=True, kw_only=True)
class RequiredAdapter:
    """Adapters that a method needs before its features, named in its `Requirements.adapters`.

        Requirements(adapters=(RequiredAdapter(role="reference", n_folds=2),))

    The arrow `select` trains them on the pool, tells the user beforehand what that costs, keeps
    them, and hands their folder to the features in the field `role` of the FeatureContext, as a
    `TrainedFolder`.

    Attributes:
        role: field of the FeatureContext.
        n_folds: 1: one adapter, which sees all rows that are learned; k: k adapters, each without
            one fold.
        epochs: passes over the rows.
        share: of the rows that is learned, drawn by the hash of their ids and the seed; for one
            fold only.
        keeps_epochs: also keep weights and the state of the optimizer after each epoch.
    """

    role: str
    n_folds: int = 1
    epochs: int = 1
    share: float = 1.0
    keeps_epochs: bool = False

    def passes(self) -> str:
        """Say how many rows are learned, as a function of n."""
        epochs = f"{self.epochs} epoch{'' if self.epochs == 1 else 's'}"
        if self.n_folds == 1:
            what, share = f"an adapter learns {self.share:.0%} of the n rows for {epochs}", self.share
        else:
            what, share = f"{self.n_folds} adapters learn the rows outside their folds for {epochs}", self.n_folds - 1
        return f"{what}: {self.epochs * share:g} n rows forward and backward"


@dataclass(frozen=True, kw_only=True)
class TrainedFolder:
    """A folder of such adapters, which exists already or is promised.

    Attributes:
        path: the folder.
        identity: hash of all that determines the adapters, known before they are trained.
        n_folds: as it was ordered.
    """

    path: Path
    identity: str
    n_folds: int

    @property
    def is_there(self) -> bool:
        """Whether the adapters are trained: the folder appears whole or not at all."""
        return (self.path / FILE).is_file()

    @property
    def adapters(self) -> list[Path]:
        """Folders of the adapters, one per fold."""
        return [self.path / f"adapter-{fold}" for fold in range(self.n_folds)]

    def epochs(self, fold: int = 0) -> list[Path]:
        """Return the kept states of an adapter, by epoch.

        Each is a safetensors file with `parameter/NAME`, `exp_avg/NAME` and `exp_avg_sq/NAME` of
        every trained matrix.
        """
        return sorted(self.adapters[fold].glob("epoch-*/*.safetensors"), key=lambda path: int(path.parent.name[6:]))

    @staticmethod
    def find(name: str | Path) -> TrainedFolder | None:
        """Return the folder of that name if it is of this kind, or None.

        Raises:
            ManifestError: it is damaged, its format is unknown, or its adapters were replaced.
        """
        path = Path(name).expanduser()
        if not (path / FILE).is_file():
            return None
        try:
            content = json.loads((path / FILE).read_bytes())
        except ValueError as error:
            raise ManifestError(f"{path / FILE}: must be JSON, got {error}; train the adapters again") from None
        if content.get("format") != FORMAT:
            raise ManifestError(f"{path / FILE}: format must be '{FORMAT}', found '{content.get('format')}'")
        known = content.get("content", {})  # folders of earlier versions do not say
        if replaced := [name for name, digest in hash_adapters(path).items() if known.get(name, digest) != digest]:
            raise ManifestError(
                f"{path}: must hold the adapters that were trained for it, found others in place of "
                f"{first_three(replaced)}; train them again, or name one adapter by its own folder"
            )
        return TrainedFolder(path=path, identity=content["identity"], n_folds=content["n_folds"])


def hash_adapters(folder: Path) -> dict[str, str]:
    """Return a hash of each adapter and each stored state: values are cached under the folder."""
    names = sorted(path.relative_to(folder).as_posix() for pattern in WEIGHED for path in folder.glob(pattern))
    return {name: fingerprint([(name, folder / name)], recipe=FORMAT) for name in names}


def assign_folds(texts: pl.Series, n_folds: int) -> NDArray[np.int64]:
    """Return each row's fold, (n,) int64, by its text alone, so that repeats share a fold.

    Args:
        texts: (n,) rows as a language model reads them (`row_texts`).
        n_folds: number of folds.
    """
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(text.encode()) % n_folds for text in texts), dtype=np.int64, count=len(texts))
