"""The length feature: how many tokens each row's text has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tokenizers import Tokenizer

from thresher.cache.batch import Batch
from thresher.cache.fingerprint import fingerprint
from thresher.errors import NotFoundError
from thresher.features.context import FeatureContext
from thresher.features.registry import FeatureProvider
from thresher.models.encoders.static import FOLDER as STATIC_FOLDER
from thresher.models.encoders.static import static_folder
from thresher.models.encoders.wordpiece import WordPieces
from thresher.models.hub import model_folder
from thresher.models.stages import Stage
from thresher.models.untrusted.folder import check_files
from thresher.models.untrusted.tokenizer import check_tokenizer_file

if TYPE_CHECKING:
    from thresher.dataset import Dataset

FILE = "tokenizer.json"
RECIPE = "length-1"
DEFAULT = STATIC_FOLDER.name
BATCH_ROWS = 4096


class Length(FeatureProvider):
    """Tokens of the whole text: nothing is cut, no special tokens are added."""

    name: ClassVar[str] = "length"
    passes: ClassVar[str] = "none: the rows are tokenized, and no weights are needed"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the tokenizer's name and fingerprint."""
        path = find_tokenizer_file(context.models.tokenizer)
        model = DEFAULT if context.models.tokenizer is None else context.models.tokenizer
        return {"tokenizer": model, "fingerprint": fingerprint([(FILE, path)], recipe=RECIPE)}

    def compute(self, dataset: Dataset, context: FeatureContext) -> NDArray[np.int64]:
        """Return (n,) int64 tokens."""
        path = find_tokenizer_file(context.models.tokenizer)
        about = self.describe(context)
        stage = Stage(
            name=self.name,
            texts=dataset.texts(),
            compute=lambda texts: count_batches(path, texts),
            feature=self.name,
            model=about["tokenizer"],
            fingerprint=about["fingerprint"],
        )
        values = context.run_stage(stage)
        return np.zeros(0, dtype=np.int64) if values is None else values.astype(np.int64)


def count_batches(path: Path, texts: pl.Series) -> Iterator[Batch]:
    """Yield the number of tokens of some texts at a time, as (b,) int32."""
    if WordPieces.reads(path):
        for runs in WordPieces(path).encode_batches(texts):
            counts = np.diff(runs.start).astype(np.int32)
            yield Batch(np.arange(runs.first, runs.first + len(counts)), counts)
        return
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for start in range(0, len(texts), BATCH_ROWS):
        part = texts[start : start + BATCH_ROWS].to_list()
        encodings = tokenizer.encode_batch_fast(part, add_special_tokens=False)
        counts = np.fromiter((len(encoding) for encoding in encodings), dtype=np.int32, count=len(part))
        yield Batch(np.arange(start, start + len(part)), counts)


def find_tokenizer_file(name: str | None) -> Path:
    """Return a tokenizer's tokenizer.json: None for the embedded one, a file, folder or Hub id.

    Raises:
        NotFoundError: there is no such tokenizer, or it has no tokenizer.json.
        InputError: it is damaged, or takes or makes more than any tokenizer does.
    """
    if name is None:
        return static_folder() / FILE
    if Path(name).is_file():
        return _check(Path(name), name)
    path = model_folder(name, what="tokenizer", patterns=(FILE,)) / FILE
    if not path.is_file():
        raise NotFoundError(f"tokenizer '{name}': {FILE} must be in it, found none; name one with a fast tokenizer")
    check_files(path.parent, owner=f"tokenizer '{name}'", patterns=(FILE,))
    return _check(path, name)


def _check(path: Path, name: str) -> Path:
    check_tokenizer_file(path, owner=f"tokenizer '{name}'")
    return path
