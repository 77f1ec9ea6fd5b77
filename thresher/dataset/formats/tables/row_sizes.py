"""How many bytes each row of an Arrow table stands for, however it shares them with others.

A dictionary, a run or a view stands for its value wherever it occurs: a million rows may share one
text of a megabyte, and become a million texts when they are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from thresher.numeric.arrays import Int64

_VIEW_BYTES = 16  # of a view, of which the first four are its length


def measure_rows(table: pa.Table) -> Int64:
    """Return the bytes of the values of each row, (n,) int64; nulls have none."""
    total = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        first = 0
        for chunk in column.chunks:
            total[first : first + len(chunk)] += _measure(chunk)
            first += len(chunk)
    return total


def _measure(values: Any) -> Int64:
    """Return the bytes of each value of an array, (n,) int64."""
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return _measure(values.storage)
    if pa.types.is_dictionary(kind):
        return _measure_dictionary(values)
    if pa.types.is_run_end_encoded(kind):
        return _measure_runs(values)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return _measure_views(values)
    if pa.types.is_struct(kind):
        fields = (values.field(i) for i in range(kind.num_fields))
        return sum(map(_measure, fields), np.zeros(len(values), np.int64))
    if pa.types.is_fixed_size_list(kind):
        first = values.offset * kind.list_size
        inner = _measure(values.values.slice(first, len(values) * kind.list_size))
        sizes: Int64 = inner.reshape(len(values), kind.list_size).sum(axis=1)
        return sizes
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        starts, lengths = _numbers(values.offsets), _numbers(values.sizes)
        return _measure_lists(values.values, starts, starts + lengths)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        offsets = _numbers(values.offsets)
        inner = values.values if not pa.types.is_map(kind) else _join_map(values)
        return _measure_lists(inner, offsets[:-1], offsets[1:])
    return _measure_plain(values)


def _measure_plain(values: Any) -> Int64:
    kind = values.type
    if pa.types.is_null(kind):
        return np.zeros(len(values), np.int64)
    try:
        n_bits = kind.bit_width
    except ValueError:
        n_bits = None
    if n_bits is not None:
        return np.full(len(values), -(-n_bits // 8), np.int64)
    if pa.types.is_union(kind):
        return np.full(len(values), -(-values.nbytes // max(1, len(values))), np.int64)
    import pyarrow.compute as pc  # takes as long as reading a thousand rows

    return _numbers(pc.binary_length(values))


def _measure_dictionary(values: Any) -> Int64:
    sizes = np.append(_measure(values.dictionary), 0)  # the last for nulls
    each: Int64 = sizes[_numbers(values.indices, null=len(sizes) - 1)]
    return each


def _measure_runs(values: Any) -> Int64:
    ends = _numbers(values.run_ends)
    at = np.searchsorted(ends, values.offset + np.arange(len(values)), side="right")
    sizes: Int64 = _measure(values.values)[at]
    return sizes


def _measure_views(values: Any) -> Int64:
    validity, views = values.buffers()[:2]
    lengths = np.frombuffer(views, np.int32)[:: _VIEW_BYTES // 4][values.offset : values.offset + len(values)]
    if validity is not None:
        lengths = np.where(values.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    return lengths.astype(np.int64)


def _measure_lists(inner: Any, starts: Int64, ends: Int64) -> Int64:
    if len(starts) == 0:
        return np.zeros(0, np.int64)
    low, high = int(starts.min()), int(ends.max())
    sums = np.concatenate([[0], np.cumsum(_measure(inner.slice(low, max(0, high - low))))]).astype(np.int64)
    last = len(sums) - 1
    return sums[np.clip(ends - low, 0, last)] - sums[np.clip(starts - low, 0, last)]


def _join_map(values: Any) -> Any:
    return pa.StructArray.from_arrays([values.keys, values.items], names=["key", "value"])


def _numbers(values: Any, *, null: int = 0) -> Int64:
    filled = values.fill_null(null) if values.null_count else values
    numbers: Int64 = filled.to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers
