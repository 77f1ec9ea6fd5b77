"""Scanners find the rows that a slow reader finds, wherever the chunks are cut."""

import csv
import io
import json
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.dataset.formats import csv_spans
from thresher.dataset.formats.csv_spans import CsvScanner
from thresher.dataset.formats.json_array_spans import ArrayScanner
from thresher.dataset.formats.spans import LineScanner

json_value = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(), st.sampled_from(['"', "\\", '\\"', "],[", "{}"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


def scanned(scanner, content, cuts):
    edges = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    for start, end in zip(edges, edges[1:], strict=False):
        scanner.feed(content[start:end])
    spans = scanner.finish()
    return [content[start:end] for start, end in zip(spans.start, spans.end, strict=True)], spans


@settings(deadline=None)
@given(values=st.lists(json_value, max_size=6), cuts=st.lists(st.integers(0, 500)), indent=st.sampled_from([None, 1]))
def test_elements_of_an_array_are_those_of_the_json_module(values, cuts, indent):
    content = json.dumps(values, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    elements, spans = scanned(ArrayScanner(), content, cuts)
    assert [json.loads(element.decode("utf-8", "surrogatepass")) for element in elements] == values
    assert not spans.faults


cell = st.text(st.sampled_from('ab",\n;x '), max_size=6)


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(cell, min_size=2, max_size=3), max_size=6),
    cuts=st.lists(st.integers(0, 200)),
    line_feed=st.sampled_from(["\n", "\r\n"]),
    n_interpreted=st.sampled_from([0, 20, 10**6]),
)
def test_records_are_those_of_the_csv_module(rows, cuts, line_feed, n_interpreted):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator=line_feed).writerows(rows)
    content = buffer.getvalue().encode()
    with mock.patch.object(csv_spans, "_SMALL_BYTES", n_interpreted):  # compiled code goes on
        records, spans = scanned(CsvScanner(","), content, cuts)
    assert [next(csv.reader([record.decode()])) for record in records] == rows
    assert spans.n_fields.tolist() == [len(row) for row in rows]
    lines = [1 + content[:start].count(b"\n") for start in spans.start.tolist()]
    assert spans.line.tolist() == lines


@given(content=st.binary(max_size=60), cuts=st.lists(st.integers(0, 60)))
def test_lines_are_those_of_split(content, cuts):
    lines, spans = scanned(LineScanner(), content, cuts)
    expected = content.split(b"\n")
    assert lines == (expected[:-1] if expected[-1] == b"" else expected)
    assert spans.line.tolist() == list(range(1, len(lines) + 1))
