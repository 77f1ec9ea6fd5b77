"""Transformer encoders through sentence-transformers: the embedded MiniLM, or any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tokenizers import Tokenizer

from thresher.cache.batch import Batch
from thresher.cache.fingerprint import check_unchanged, fingerprint
from thresher.errors import InputError, MissingExtraError
from thresher.models.async_copy import PendingTensor, prefetch_one, to_device_async
from thresher.models.causal_lm.base_model import loading_errors
from thresher.models.encoders.encoder import (
    EMBEDDED,
    MINILM,
    Encoder,
    finite_unit_rows,
    has_mostly_unknown_tokens,
    unknown_notes,
)
from thresher.models.encoders.minilm import find_minilm, minilm_folder
from thresher.models.hub import model_folder
from thresher.models.precision import inference
from thresher.models.token_batches import BATCH_TOKENS, bytes_per_token, token_batches, token_budget
from thresher.models.untrusted.encoder import check_encoder
from thresher.models.untrusted.fit import check_complete, check_size
from thresher.models.untrusted.folder import ModelFiles, check_files
from thresher.models.untrusted.tokenizer import check_tokenizer
from thresher.numeric.arrays import Bool

RECIPE = "sentence-2"
CPU_BATCH_TOKENS = (
    # activations of more do not stay in a processor's cache: a third slower
    # (benchmarks/encoders.py)
    2_048
)
WINDOW_ROWS = 16_384  # texts sorted by length together
LONG_ROWS = 256  # texts that are read in windows together
MAX_WINDOWS = 16  # of a text; of more, the first and the last ones are read
POOLERS = ("pooler",)  # which mean pooling does not read, and many checkpoints lack
SPARE_TOKENS = 2  # of a window: its words alone may be other tokens than in their text
SHAPING = ("*.json", "*.txt", "*.model")  # configuration and tokenizer
SAFE_WEIGHTS = ("*.safetensors",)
OTHER_WEIGHTS = ("*.bin",)  # read by torch with weights_only, which runs no code
# of a layer behind the transformer (a Dense) that has no safetensors
LAYER_WEIGHTS = "pytorch_model.bin"


class SentenceEncoder(Encoder):
    """A sentence-transformers model that reads texts of like length together.

    Batches are cut by tokens, longest texts first, so that padding is small and too little memory
    shows at once. In float32, the default on every device, a text's vector depends on its batch by
    rounding only.
    """

    def __init__(self, name: str, *, device: str | None, dtype: str, batch_tokens: int | None) -> None:
        """Name a model. Nothing is loaded.

        Args:
            name: "minilm", a folder, or a name on the Hub.
            device: None for the best there is.
            dtype: of the weights and sums.
            batch_tokens: tokens in one forward pass, padding included; on a CPU at most 2,048 are
                read at once. None for what a GPU has room for.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
        """
        import importlib.util

        for package in ("sentence_transformers", "torch"):
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, f"encoder '{name}'", "encoders")
        self._name = name
        self._device = device
        self._dtype = dtype
        self._batch_tokens = batch_tokens
        self._n_read = 0
        self._n_unknown = 0

    @property
    def name(self) -> str:
        """The name as it was given."""
        return self._name

    @cached_property
    def folder(self) -> Path:
        """Where the model lies; downloads it when it is a name on the Hub and not cached."""
        if self._name == MINILM:
            return find_minilm() or minilm_folder()  # the second raises, and says what is missing
        folder = model_folder(self._name, what="encoder", patterns=(*SHAPING, *SAFE_WEIGHTS), embedded=EMBEDDED)
        if not any(folder.rglob(SAFE_WEIGHTS[0])):
            folder = model_folder(self._name, what="encoder", patterns=(*SHAPING, *OTHER_WEIGHTS))
        check_encoder(self._check_files(folder))
        return folder

    def _check_files(self, folder: Path) -> ModelFiles:
        patterns = (*SHAPING, *SAFE_WEIGHTS, *OTHER_WEIGHTS)
        return check_files(folder, owner=f"encoder '{self._name}'", patterns=patterns, is_nested=True)

    def _check_model(self, folder: Path) -> None:
        """Try the tokenizers, and compare sizes that the configuration says with the weights."""
        from transformers import AutoModel

        files = self._check_files(folder)
        for path in folder.rglob("config.json"):
            if "model_type" in _read_json(path):
                check_tokenizer(path.parent, owner=files.owner)
                if files.weights.shapes:
                    check_size(path.parent, AutoModel, owner=files.owner, weights=files.weights)
                    check_complete(path.parent, AutoModel, owner=files.owner, optional=POOLERS)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, pooling and configuration files."""
        return self._hashed()

    def _hashed(self) -> str:
        files = self._files()
        if not files:
            raise InputError(f"encoder '{self._name}': {self.folder} must hold a model, found none")
        return fingerprint(files, recipe=f"{RECIPE}-{self._dtype}")

    def _files(self) -> list[tuple[str, Path]]:
        """Return name and path of what shapes a vector; layers may have other weights."""
        safe = {path.parent for path in self.folder.rglob(SAFE_WEIGHTS[0])}
        files = {path for pattern in (*SHAPING, *SAFE_WEIGHTS) for path in self.folder.rglob(pattern)}
        others = self.folder.rglob(LAYER_WEIGHTS if safe else OTHER_WEIGHTS[0])
        files |= {path for path in others if path.parent not in safe}
        return [(str(path.relative_to(self.folder)), path) for path in files if path.is_file()]

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.get_embedding_dimension())

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer

        folder = minilm_folder() if self._name == MINILM else self.folder
        try:
            with _no_loading_bar():
                if self._name != MINILM:
                    self._check_model(folder)
                model = SentenceTransformer(
                    str(folder),
                    device=self._device,
                    # a model is data: code that comes with one is never run
                    trust_remote_code=False,
                    local_files_only=True,
                    model_kwargs={"dtype": self._dtype},
                )
        except InputError:
            raise
        except loading_errors() as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"encoder '{self._name}': {folder} must hold a sentence-transformers model, but loading it says "
                f"'{reason}'; check the files and the device"
            ) from error
        check_unchanged(f"encoder '{self._name}'", self.folder, self.fingerprint, self._hashed())
        return model.eval()

    @cached_property
    def _counter(self) -> Tokenizer | None:
        """The model's tokenizer, a copy that cuts and pads nothing."""
        tokenizer = self._model.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not isinstance(backend, Tokenizer):
            return None
        counter = Tokenizer.from_str(backend.to_str())
        counter.no_truncation()
        counter.no_padding()
        return counter

    def encode_batches(self, texts: pl.Series) -> Iterator[Batch]:
        """Yield vectors batch by batch, within windows of 16,384 texts longest first."""
        for start in range(0, len(texts), WINDOW_ROWS):
            part = texts[start : start + WINDOW_ROWS].to_list()
            tokens = self._count_tokens(part)
            # "" without special tokens, or no word that the model knows
            empty = np.flatnonzero(tokens == 0)
            if len(empty):
                yield Batch(start + empty, np.zeros((len(empty), self.dimension), dtype=np.float32))
            filled = np.flatnonzero(tokens)
            batches = (filled[batch] for batch in token_batches(tokens[filled], self._batch_budget))
            started = ((rows, self._start_encoding([part[row] for row in rows])) for rows in batches)
            for rows, vectors in prefetch_one(started):
                yield Batch(start + rows, finite_unit_rows(vectors.array(), by=self._name))

    @cached_property
    def _batch_budget(self) -> int:
        model, budget = self._model, self._batch_tokens
        if budget is None:
            config = getattr(getattr(model[0], "auto_model", None), "config", None)
            n_bytes = next(model.parameters()).element_size()
            known = config is not None and hasattr(config, "hidden_size")
            budget = token_budget(model.device, bytes_per_token(config, n_bytes)) if known else BATCH_TOKENS
        return min(budget, CPU_BATCH_TOKENS) if model.device.type == "cpu" else budget

    def _start_encoding(self, texts: list[str]) -> PendingTensor:
        """Return the vectors of a batch, on a GPU while they are computed: the model's `encode`."""
        import torch

        model = self._model
        prompt = model.prompts.get(model.default_prompt_name)
        with inference(f"encoder '{self._name}': a batch of {len(texts)} texts, {self._batch_budget} tokens at most,"):
            inputs = model.preprocess(texts, prompt=prompt)
            for name, value in inputs.items():
                if isinstance(value, torch.Tensor):
                    inputs[name] = to_device_async(value, model.device)
            return PendingTensor(model(inputs)["sentence_embedding"][:, : model.truncate_dim].float())

    def _count_tokens(self, texts: list[str]) -> NDArray[np.int64]:
        """Return (n,) tokens that the model will read of each text, and count unknown ones.

        Of a text of unknown words alone it reads nothing: all such texts would have one and the
        same vector.
        """
        # a slow tokenizer: characters order texts well enough, and cuts are not known
        if self._counter is None:
            return np.array([1 + len(text) // 3 for text in texts], dtype=np.int64)
        encodings = self._counter.encode_batch_fast(texts)
        counts = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
        self._n_read += len(texts)
        if (unknown := self._model.tokenizer.unk_token_id) is not None:
            n_unknown = np.array([encoding.ids.count(unknown) for encoding in encodings], dtype=np.int64)
            n_words = counts - self._counter.num_special_tokens_to_add(is_pair=False)
            self._n_unknown += int(has_mostly_unknown_tokens(n_unknown, n_words).sum())
            counts[(n_unknown == n_words) & (n_unknown > 0)] = 0
        limit = self._model.max_seq_length
        if limit is None:
            return counts
        # a limit may be infinite
        read: NDArray[np.int64] = np.minimum(counts, limit).astype(np.int64)
        return read

    @cached_property
    def limit(self) -> int | None:
        """Tokens that the model reads of a text, as its files say; None where they say nothing."""
        own = _read_json(self.folder / "sentence_bert_config.json").get("max_seq_length")
        if own is not None:
            return int(own)
        positions = _read_json(self.folder / "config.json").get("max_position_embeddings")
        length = _read_json(self.folder / "tokenizer_config.json").get("model_max_length")
        return None if length is None else int(min(length, length if positions is None else positions))

    @cached_property
    def _splitter(self) -> Tokenizer | None:
        """The tokenizer of the files, which cuts nothing, without the model."""
        path = self.folder / "tokenizer.json"
        if not path.is_file():
            return None
        if self._name != MINILM:
            check_tokenizer(self.folder, owner=f"encoder '{self._name}'")
        splitter = Tokenizer.from_file(str(path))
        splitter.no_truncation()
        splitter.no_padding()
        return splitter

    def find_long(self, texts: pl.Series) -> Bool:
        """Tell which texts have more tokens than the model reads, (n,); loads no weights."""
        is_long = np.zeros(len(texts), np.bool_)
        limit, splitter = self.limit, self._splitter
        if limit is None or splitter is None:
            return is_long
        n_special = splitter.num_special_tokens_to_add(is_pair=False)
        # no token is shorter than a byte
        candidates = np.flatnonzero((texts.str.len_bytes() + n_special > limit).to_numpy())
        for start in range(0, len(candidates), WINDOW_ROWS):
            rows = candidates[start : start + WINDOW_ROWS]
            encodings = splitter.encode_batch_fast(texts.gather(rows).to_list())
            is_long[rows] = [len(encoding) > limit for encoding in encodings]
        return is_long

    def encode_long(self, texts: pl.Series) -> Iterator[Batch]:
        """Yield the mean vectors of the texts' windows, normalized."""
        for start in range(0, len(texts), LONG_ROWS):
            windows = [self._split_windows(text) for text in texts[start : start + LONG_ROWS].to_list()]
            counts = np.array([len(each) for each in windows])
            # windows that rows share, of a long system prompt for example, are read once
            different, place = np.unique([window for each in windows for window in each], return_inverse=True)
            vectors = self.encode(different.tolist())[place]
            means = np.add.reduceat(vectors, np.cumsum(counts) - counts)
            yield Batch(np.arange(start, start + len(counts)), finite_unit_rows(means, by=self._name))

    def _split_windows(self, text: str) -> list[str]:
        """Return a long text in pieces that the model reads whole, cut between words."""
        if self._splitter is None or self.limit is None:
            return [text]
        encoding = self._splitter.encode(text, add_special_tokens=False)
        width = max(1, self.limit - self._splitter.num_special_tokens_to_add(is_pair=False) - SPARE_TOKENS)
        offsets, words = encoding.offsets, encoding.word_ids
        pieces, first = [], 0
        while first < len(offsets):
            stop = min(first + width, len(offsets))
            whole = stop
            while first < whole < len(offsets) and words[whole] == words[whole - 1]:
                whole -= 1
            # a word that is longer than a window is cut
            stop = whole if whole > first else stop
            pieces.append(text[offsets[first][0] : offsets[stop - 1][1]])
            first = stop
        half = MAX_WINDOWS // 2
        return pieces if len(pieces) <= MAX_WINDOWS else [*pieces[:half], *pieces[-half:]]

    def notes(self) -> list[str]:
        """Return how many texts hold unknown words.

        What MiniLM does not know is counted of all texts, not only of those that it reads now
        (`Embedding.facts`).
        """
        return [] if self._name == MINILM else unknown_notes(self._name, self._n_unknown, self._n_read)


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes()) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


@contextmanager
def _no_loading_bar() -> Iterator[None]:
    """Keep transformers from drawing its own bar while weights load."""
    from transformers.utils import logging

    was_enabled, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if was_enabled:
            logging.enable_progress_bar()
