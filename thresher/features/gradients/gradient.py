"""`gradient` and `target_gradient`: which way a row pulls the adapter of a language model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import polars as pl
import xxhash

from thresher.cache.batch import Batch
from thresher.cache.fingerprint import combine_fingerprints
from thresher.cache.memory_map import empty_array
from thresher.errors import InputError
from thresher.features.cost import estimate_stages, merge_costs
from thresher.features.likelihood.loss import Loss, load_row_tokenizer
from thresher.features.reference_adapters import TrainedFolder
from thresher.features.registry import FeatureProvider, FeatureValues
from thresher.models.causal_lm.tokenized_rows import RECIPE, RowTokenizer, describe_problems, row_texts
from thresher.models.stages import Stage, StageCost
from thresher.models.token_batches import BATCH_TOKENS
from thresher.numeric.arrays import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from thresher.dataset import Dataset
    from thresher.features.context import FeatureContext
    from thresher.features.gradients.per_example import AdapterState, RowGradients
    from thresher.features.settings import Precondition
    from thresher.models.causal_lm.likelihood import TokenRow

OWN_RECIPE = "gradient-2"
WINDOW_ROWS = 1024  # rows tokenized and sorted by length together
FACTORS_RECIPE, FACTOR_ROWS = "factors-1", 256  # rows that the factors are estimated from
BACKWARD = 3.0  # a forward and a backward pass, in forward passes
NO_CHECKPOINTS = (
    "needs adapters that were kept after each epoch with the state of their optimizer, found none; give their folder "
    "as `checkpoints`, or choose with the method 'gradient', which trains them where that setting is left out"
)


class Reading(Protocol):
    """What is read of the gradient of each row: `width` values of `dtype`, known by `keys`."""

    keys: tuple[str, ...]
    dim: int | None  # of a sketch, None where none is made
    width: int
    dtype: type[np.floating[Any]]

    def read(
        self,
        gradients: RowGradients,
        rows: Sequence[TokenRow],
        batch_tokens: int,
        precondition: Precondition | None,
    ) -> Iterator[Batch]:
        """Yield the values of rows that have a scored token."""
        ...


class _Sketches(Reading):
    def __init__(self, dim: int) -> None:
        self.keys, self.dim, self.width, self.dtype = (), dim, dim, np.float16

    def read(
        self,
        gradients: RowGradients,
        rows: Sequence[TokenRow],
        batch_tokens: int,
        precondition: Precondition | None,
    ) -> Iterator[Batch]:
        """Yield sketches of length 1."""
        return gradients.compute_batches(rows, batch_tokens=batch_tokens, precondition=precondition)


class Gradient(FeatureProvider):
    """Sketches of the steps that AdamW would take on a row alone: what it does to the adapter.

    At each checkpoint of the adapter the gradient of the row's mean loss goes through AdamW's
    moments, into a sketch of `dim` numbers and to length 1, times the square root of the
    checkpoint's share of the learning rate. The checkpoints stand side by side: the inner product
    with `target_gradient` is the cosine of LESS, averaged over checkpoints by their learning rates
    (Xia et al. 2024, arXiv:2402.04333). A row is read as `loss` reads it.
    """

    name: ClassVar[str] = "gradient"
    passes: ClassVar[str] = "forward and backward over each of the n rows, at each checkpoint"
    _stored_as: ClassVar[str] = "gradient"  # in the cache
    _is_preconditioned: ClassVar[bool] = True

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the model, the checkpoints, what is read of a row, and the fingerprint of all."""
        form = self._describe_form(context)
        about = Loss().describe(context) | form
        how = "-".join((self._stored_as, OWN_RECIPE, RECIPE, *form.values()))
        if self._uses_factors(context):
            about["precondition"], how = "factors", f"{how}-{FACTORS_RECIPE}"
        dtype = _choose_dtype(context, load_row_tokenizer(context))
        if dtype != about["dtype"]:
            about["dtype"], how = dtype, f"{how}-{dtype}"
        return about | {"fingerprint": combine_fingerprints(about["fingerprint"], _find_folder(context).identity, how)}

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n, checkpoints * dim) float16, NaN with its reason without a scored token."""
        tokenizer, dim = load_row_tokenizer(context), context.gradient.dim
        states, shares = self._read_states(context)
        weights = np.sqrt(shares)
        texts = row_texts(dataset)
        folder = Path(tempfile.gettempdir()) if context.cache is None else context.cache.root
        out = empty_array((len(dataset), len(states) * dim), np.float16, folder)
        for number, state in enumerate(states):
            values = context.run_stage(self._make_stage(texts, context, state, number, tokenizer, _Sketches(dim)))
            if values is not None:
                columns = out[:, number * dim : (number + 1) * dim]
                np.multiply(values, weights[number], out=columns, casting="unsafe")
        return self._explain_missing(out, texts, tokenizer, context)

    def estimate_cost(self, dataset: Dataset, context: FeatureContext) -> list[StageCost]:
        """Return what it will take; where no adapter is trained yet, as the base model shows."""
        if _find_folder(context).is_there:
            return [merge_costs(self.name, estimate_stages(self, dataset, context))]
        base = merge_costs(self.name, estimate_stages(Loss(), dataset, context, reads_cache=False))
        times = context.gradient.epochs
        return [
            replace(
                base,
                seconds=None if base.seconds is None else base.seconds * BACKWARD * times,
                tokens=None if base.tokens is None else base.tokens * times,
                bytes=base.n * times * self._count_bytes(context),
                note="a backward pass taken as two forward ones",
            )
        ]

    def _describe_form(self, context: FeatureContext) -> dict[str, str]:
        """Return the settings that the form of the values depends on."""
        return {"dim": str(context.gradient.dim)}

    def _count_bytes(self, context: FeatureContext) -> int:
        """Return the bytes of a row's values at one checkpoint."""
        return context.gradient.dim * 2

    def _uses_factors(self, context: FeatureContext) -> bool:
        return self._is_preconditioned and context.gradient.precondition == "factors"

    def _read_states(self, context: FeatureContext) -> tuple[list[AdapterState], NDArray[np.float64]]:
        """Return the kept states, and the share of each in the learning rates.

        Raises:
            InputError: none was kept.
        """
        from thresher.features.gradients.per_example import AdapterState

        paths = _find_folder(context).epochs()
        if not paths:
            raise InputError(f"{self.name}: {NO_CHECKPOINTS}")
        states = [AdapterState.read(path) for path in paths]
        rates = np.array([state.rate for state in states])
        return states, rates / rates.sum()

    def _make_stage(
        self,
        texts: pl.Series,
        context: FeatureContext,
        state: AdapterState,
        number: int,
        tokenizer: RowTokenizer,
        reading: Reading,
    ) -> Stage:
        """Return the stage of one checkpoint: what is read of each gradient, NaN without loss."""
        loaded: list[RowGradients] = []
        batch_tokens = context.models.batch_tokens or BATCH_TOKENS
        precondition = context.gradient.precondition if self._is_preconditioned else None
        # the factors are those of a sample that follows from the texts, whatever their order
        sample = _sample_texts(texts) if self._uses_factors(context) else []
        own = combine_fingerprints(self.describe(context)["fingerprint"], *reading.keys, str(number), *sample)

        def batches(part: pl.Series) -> Iterator[Batch]:
            if not loaded:  # no model is loaded where the cache has all
                loaded.append(_load_gradients(context, tokenizer, state, number, reading.dim))
                if sample:
                    fine_rows = [each.row for each in tokenizer.tokenize(sample) if not each.problem]
                    loaded[0].fit_factors(fine_rows, batch_tokens=batch_tokens)
            for start in range(0, len(part), WINDOW_ROWS):
                tokenized = tokenizer.tokenize(part[start : start + WINDOW_ROWS].to_list())
                has_problem = np.array([bool(each.problem) for each in tokenized])
                rest, fine = np.flatnonzero(has_problem), np.flatnonzero(~has_problem)
                if len(rest):
                    yield Batch(start + rest, np.full((len(rest), reading.width), np.nan, reading.dtype))
                rows = [tokenized[i].row for i in fine]
                for batch in reading.read(loaded[0], rows, batch_tokens, precondition):
                    tokenizer.lm.n_tokens += sum(rows[i].n_read for i in batch.positions)
                    yield Batch(start + fine[batch.positions], batch.values)

        return Stage(
            name=f"{self.name} at checkpoint {number + 1}",
            texts=texts,
            compute=batches,
            feature=self._stored_as,
            model=tokenizer.lm.name,
            fingerprint=own,
        )

    def _explain_missing(
        self, out: Array, texts: pl.Series, tokenizer: RowTokenizer, context: FeatureContext
    ) -> FeatureValues:
        """Return the values, and why rows have none: these are tokenized once more."""
        lacking = np.flatnonzero(np.isnan(out[:, :1]).any(axis=1))
        problems = np.zeros(len(texts), dtype=np.int64)
        if len(lacking):
            problems[lacking] = [each.problem for each in tokenizer.tokenize(texts.gather(lacking).to_list())]
            note = f"{self.name}: {len(lacking):,} of {len(texts):,} rows have no value"
            context.report_notes(self.name, len(texts), [note])
        notes = {"rows": len(texts), "rows_missing": len(lacking)}
        return FeatureValues(values=out, missing=describe_problems(problems), notes=notes)


class TargetGradient(Gradient):
    """The same without AdamW's moments: which way a row would have the adapter go."""

    name: ClassVar[str] = "target_gradient"
    _stored_as: ClassVar[str] = "gradient_plain"  # from before a renaming
    _is_preconditioned: ClassVar[bool] = False


def _sample_texts(texts: pl.Series) -> list[str]:
    """Return some of the texts, those with the lowest hashes."""
    distinct = sorted(set(texts.to_list()), key=lambda text: xxhash.xxh3_64_intdigest(text.encode()))
    return distinct[:FACTOR_ROWS]


def _load_gradients(
    context: FeatureContext, tokenizer: RowTokenizer, state: AdapterState, number: int, dim: int | None
) -> RowGradients:
    from thresher.features.gradients.per_example import RowGradients
    from thresher.models.causal_lm.language_model import LanguageModel

    adapter = _find_folder(context).adapters[0]
    # not a shared one: its weights are changed
    lm = LanguageModel(str(adapter), device=context.models.device, dtype=_choose_dtype(context, tokenizer))
    if lm.base.folder.resolve() != tokenizer.lm.base.folder.resolve():
        raise InputError(
            f"gradient: the checkpoints in {adapter.parent} are of '{lm.base.name}', and the model is "
            f"'{tokenizer.lm.name}'; give that base as --model"
        )
    return RowGradients(lm, state, dim=dim, number=number)


def _choose_dtype(context: FeatureContext, tokenizer: RowTokenizer) -> str:
    """Return the precision: on a CPU float32 by default, for the directions of single rows."""
    is_default_on_cpu = context.models.dtype is None and tokenizer.lm.device.type == "cpu"
    return "float32" if is_default_on_cpu else tokenizer.lm.dtype


def _find_folder(context: FeatureContext) -> TrainedFolder:
    """Return the folder of the checkpoints, there or planned.

    Raises:
        InputError: none was given, or what was given is not one.
    """
    checkpoints = context.checkpoints
    folder = TrainedFolder.find(checkpoints) if isinstance(checkpoints, str) else checkpoints
    if folder is None:
        where = "" if checkpoints is None else f" in '{checkpoints}'"
        raise InputError(f"gradient: {NO_CHECKPOINTS.replace('found none', f'found none{where}')}")
    return folder
