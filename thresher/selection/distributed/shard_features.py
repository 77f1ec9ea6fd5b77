"""Features of a pool, shard by shard, through the same `compute` as on one machine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from thresher.artifacts.folder import atomic_file
from thresher.cache.memory_map import empty_array
from thresher.dataset import Dataset
from thresher.errors import InputError
from thresher.features.compute import COLUMN, NO_NUMBER, NUMBER, column_values, compute
from thresher.features.container import Features
from thresher.features.context import FeatureContext
from thresher.features.registry import needs_whole_pool
from thresher.numeric.arrays import Array
from thresher.selection.distributed.sharded_pool import ShardedPool, ShardReader
from thresher.selection.distributed.stage import FILES, Record, shard_name

Facts = Sequence[Mapping[str, Any]]  # of each shard, from the metadata of its feature file

FACTS = "thresher"  # entry of a feature file's metadata
REASON = "missing/"  # prefix of the (n,) int32 codes of reasons, 0 for a row that has a value
USABLE = 0.6  # of the free memory, for the features of all rows; the method needs memory too


@dataclass(frozen=True, kw_only=True)
class MeasureShard:
    """Computes features of a shard and writes them to one file."""

    reader: ShardReader
    needs: frozenset[str]
    context: FeatureContext
    folder: Path
    name: str = "features"
    memory_bytes: int = 0

    @property
    def has_model(self) -> bool:
        """Whether a feature is computed by a model."""
        return bool(load_models(self.needs, self.context))

    @property
    def can_use_gpu(self) -> bool:
        """Whether a model would run on a GPU: not the static encoder, nor on another device."""
        from thresher.models.encoders.static import StaticEncoder

        device = self.context.models.device
        is_wanted = device is None or device.startswith("cuda")
        return is_wanted and not all(
            isinstance(model, StaticEncoder) for model in load_models(self.needs, self.context)
        )

    def load_models(self) -> object:
        """Return the models, which load when first used, so that they live on between shards."""
        return load_models(self.needs, self.context)

    def __call__(self, number: int) -> Record:
        """Write the feature file of a shard."""
        rows = self.reader.rows(number)
        columns = {name for name in self.needs if name.startswith(COLUMN)}
        lacking = self._find_lacking(rows)
        features = compute(rows, self.needs - columns - lacking, self.context)
        arrays: dict[str, Array] = dict(features.arrays)
        missing = dict(features.missing)
        for name in lacking:
            arrays[name] = np.full(len(rows), np.nan)
            reason = NO_NUMBER.format(name.removeprefix(NUMBER))
            missing[name] = pl.Series("missing", [reason], dtype=pl.String).new_from_index(0, len(rows))
        values = {}
        for name in sorted(columns):
            arrays[name], values[name] = self._encode_column(rows, name.removeprefix(COLUMN))
        facts: dict[str, Any] = {"values": values, "notes": features.notes, "reasons": {}}
        for name, reasons in missing.items():
            known = sorted(set(reasons.drop_nulls().to_list()))
            facts["reasons"][name] = known
            codes = {reason: code for code, reason in enumerate(known, start=1)}
            arrays[REASON + name] = np.array([codes.get(reason, 0) for reason in reasons.to_list()], np.int32)
        written = features_path(self.folder, number)
        with atomic_file(written) as path:
            save_file({name: _plain(array) for name, array in arrays.items()}, path, {FACTS: json.dumps(facts)})
        shapes = {name: [str(array.dtype), list(array.shape[1:])] for name, array in arrays.items()}
        notes = {name: dict(counts) for name, counts in features.notes.items()}
        return {FILES: [written], "rows": len(rows), "shapes": shapes, "notes": notes}

    def _find_lacking(self, rows: Dataset) -> set[str]:
        """Return the features that are numbers of a column that only other shards have."""
        own = set(_list_columns(rows))
        names = {name for name in self.needs if name.startswith(NUMBER)}
        return {
            name
            for name in names
            if name.removeprefix(NUMBER) in self.reader.column_names and name.removeprefix(NUMBER) not in own
        }

    def _encode_column(self, rows: Dataset, name: str) -> tuple[NDArray[np.int64], list[str]]:
        """Return the codes of a column's values in this shard, and the values."""
        is_own = name in _list_columns(rows)
        if not is_own and name in self.reader.column_names and not (name == "label" and rows.kind == "classification"):
            values = pl.Series(name, [""], dtype=pl.String).new_from_index(0, len(rows))
        else:
            values = column_values(rows, name)
        known = values.unique().sort()
        codes = values.rank("dense").to_numpy().astype(np.int64) - 1
        return codes, known.to_list()


def _list_columns(rows: Dataset) -> Sequence[str]:
    """Return the names of the columns; a shard without rows may name some, and has none."""
    return rows.column_names if len(rows) else ()


def load_models(needs: frozenset[str], context: FeatureContext) -> list[object]:
    """Return the encoder and the language model of features, which keep their weights in memory."""
    from thresher.features.compute import fingerprints

    models: list[object] = []
    about = fingerprints(needs, context)
    if any("encoder" in entry for entry in about.values()):
        models.append(context.load_encoder())
    if any("model" in entry for entry in about.values()):
        from thresher.models.server_address import is_server

        if not is_server(context.models.model):
            models.append(context.load_language_model())
    return models


def features_path(folder: Path, number: int) -> Path:
    """Return where the features of a shard lie."""
    return folder / f"{shard_name(number)}.safetensors"


def _plain(array: Array) -> Array:
    if array.dtype.names is not None:
        raise AssertionError("features of pairs are computed on the driver")
    return np.ascontiguousarray(array)


def list_shard_features(needs: frozenset[str], kind: str) -> frozenset[str]:
    """Return the features that shards can compute; the others need all rows at once."""
    return frozenset(name for name in needs if name.startswith((COLUMN, NUMBER)) or not needs_whole_pool(name, kind))


def read_features(path: Path, names: Sequence[str] | None = None) -> tuple[dict[str, Array], Mapping[str, Any]]:
    """Return the arrays of a feature file and its facts."""
    with safe_open(path, framework="numpy") as file:
        facts: Mapping[str, Any] = json.loads(file.metadata()[FACTS])
        keys = list(file.keys()) if names is None else names
        return {name: file.get_tensor(name) for name in keys}, facts


def count_bytes(records: Sequence[Record]) -> int:
    """Return the bytes of the features of all shards together."""
    total = 0
    for record in records:
        for dtype, shape in record["shapes"].values():
            total += record["rows"] * np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
    return total


def gather_features(
    pool: ShardedPool, work: MeasureShard, records: Sequence[Record], scratch: Path
) -> tuple[Features, dict[str, list[str]]]:
    """Join the features of all shards, sorted by id; return also the values of each column's codes.

    Args:
        pool: whose features they are.
        work: that computed them.
        records: of it.
        scratch: folder for arrays larger than memory.

    Raises:
        InputError: they do not fit into the memory of this machine.
    """
    from thresher.numeric.memory import available_bytes

    needed, free = count_bytes(records), available_bytes()
    if free is not None and needed > USABLE * free:
        raise InputError(
            f"engine ray: the features of {len(pool):,} rows take {needed / 1e9:.1f} GB on the driver, and "
            f"{free / 1e9:.1f} GB are free there; choose a machine with more memory, or facility-location with "
            f"--partitions N"
        )
    arrays: dict[str, Array] = {}
    facts = []
    for number, record in enumerate(records):
        shard_arrays, about = read_features(features_path(work.folder, number))
        facts.append(about)
        at = pool.rank[pool.shard(number)]
        for name, array in shard_arrays.items():
            if name not in arrays:
                arrays[name] = empty_array((len(pool), *array.shape[1:]), array.dtype, scratch)
            if record["rows"]:
                arrays[name][at] = array
    values = _unify_codes(pool, arrays, facts)
    missing = _unify_reasons(pool, arrays, facts)
    row_id = pool.row_id.gather(pool.order)
    return Features(row_id=row_id, arrays=arrays, missing=missing, notes=sum_notes(records)), values


def sum_notes(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Return the facts about features that a manifest tells, added up over the shards."""
    notes: dict[str, Counter[str]] = {}
    for record in records:
        for name, counts in record["notes"].items():
            notes.setdefault(name, Counter()).update(counts)
    return {name: dict(counts) for name, counts in notes.items()}


def _unify_codes(
    pool: ShardedPool, arrays: dict[str, Array], facts: Sequence[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Give the values of each column the codes that they have among the values of all shards."""
    united: dict[str, list[str]] = {}
    for name in [name for name in arrays if name.startswith(COLUMN)]:
        united[name] = sorted({value for about in facts for value in about["values"][name]})
        for number, about in enumerate(facts):
            code = np.searchsorted(np.array(united[name], object), np.array(about["values"][name], object))
            at = pool.rank[pool.shard(number)]
            if len(at):
                arrays[name][at] = code[arrays[name][at]]
    return united


def _unify_reasons(
    pool: ShardedPool, arrays: dict[str, Array], facts: Sequence[Mapping[str, Any]]
) -> dict[str, pl.Series]:
    missing = {}
    for key in [name for name in arrays if name.startswith(REASON)]:
        name, codes = key.removeprefix(REASON), arrays.pop(key).astype(np.int64)
        known = sorted({reason for about in facts for reason in about["reasons"].get(name, ())})
        for number, about in enumerate(facts):
            own = np.array([0, *(1 + known.index(reason) for reason in about["reasons"][name])])
            at = pool.rank[pool.shard(number)]
            codes[at] = own[codes[at]]
        missing[name] = pl.Series("missing", [None, *known], dtype=pl.String).gather(codes)
    return missing


def build_worker_context(context: FeatureContext) -> FeatureContext:
    """Return the context as nodes get it.

    Their feature files are what a cache would be, nobody watches, and a worker sees its own GPU
    alone, as the first.
    """
    device = context.models.device
    if device is not None and device.startswith("cuda"):
        device = "cuda"
    return replace(context.with_models(device=device), cache=None, on_progress=None)
