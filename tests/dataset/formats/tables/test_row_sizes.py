import pyarrow as pa
import pytest

from thresher.dataset.formats.tables.row_sizes import measure_rows

TEXTS = ["", "a", None, "größe", "xyz" * 50, "a"]
LISTS = [[], ["a", "bc"], None, ["größe", None], ["x"] * 9, [""]]


def n_bytes(value):
    """The oracle: what a value holds, in Python."""
    match value:
        case None:
            return 0
        case str():
            return len(value.encode())
        case bytes():
            return len(value)
        case list():
            return sum(map(n_bytes, value))
        case tuple():
            return sum(map(n_bytes, value))
        case dict():
            return sum(map(n_bytes, value.values()))
    raise AssertionError(value)


# functions: what pyarrow makes of Python values imports pandas
ARRAYS = {
    "string": lambda: pa.array(TEXTS),
    "large_string": lambda: pa.array(TEXTS, pa.large_string()),
    "string_view": lambda: pa.array(TEXTS, pa.string_view()),
    "binary": lambda: pa.array([None if text is None else text.encode() for text in TEXTS]),
    "dictionary": lambda: pa.array(TEXTS).dictionary_encode(),
    "list": lambda: pa.array(LISTS),
    "large_list": lambda: pa.array(LISTS, pa.large_list(pa.string())),
    "list_view": lambda: pa.array(LISTS, pa.list_view(pa.string())),
    "struct": lambda: pa.array([None if text is None else {"role": "user", "content": text} for text in TEXTS]),
    "map": lambda: pa.array(
        [[], [("a", "bc")], None, [("a", "b"), ("c", None)], [], [("x", "y")]], pa.map_(*["string"] * 2)
    ),
    "conversations": lambda: pa.array([[{"role": "user", "content": text}] * 3 for text in TEXTS]),
    "list_of_dictionary": lambda: pa.ListArray.from_arrays(
        pa.array([0, 0, 2, 2, 4, 5, 6]), pa.array(TEXTS).dictionary_encode()
    ),
    "null": lambda: pa.nulls(6),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(("start", "length"), [(0, 6), (1, 4), (2, 0), (5, 1)])
def test_rows_have_the_bytes_of_their_values_wherever_they_are_cut(name, start, length):
    array = ARRAYS[name]().slice(start, length)
    assert measure_rows(pa.table({"a": array})).tolist() == [n_bytes(value) for value in array.to_pylist()]


def test_numbers_have_their_width_and_runs_the_bytes_of_their_value():
    runs = pa.RunEndEncodedArray.from_arrays([3, 5], ["a", "bbb"])
    assert measure_rows(pa.table({"a": runs})).tolist() == [1, 1, 1, 3, 3]
    assert measure_rows(pa.table({"a": runs.slice(2, 2)})).tolist() == [1, 3]
    assert measure_rows(pa.table({"a": [1, 2], "b": [1.0, 2.0], "c": [True, False]})).tolist() == [17, 17]
    pairs = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2))
    assert measure_rows(pa.table({"a": pairs.slice(1)})).tolist() == [8, 8]


def test_chunks_follow_one_another():
    column = pa.chunked_array([["a", "bb"], [], ["ccc"]])
    assert measure_rows(pa.table({"a": column, "b": column})).tolist() == [2, 4, 6]
