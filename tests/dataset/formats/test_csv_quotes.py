"""Lone quotes swallow no lines, and real line feeds in quotes stay."""

import csv

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thresher.dataset import load

FAST = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_texts(path):
    rows = load(path)
    assert rows.n_rejected == 0
    return rows.frame.select("prompt", "response").rows()


def write_plain(path, rows, delimiter="\t", end="\n"):
    lines = ["label" + delimiter + "text", *(f"{label}{delimiter}{text}" for text, label in rows)]
    path.write_bytes((end.join(lines) + end).encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "delimiter"), [("rows.tsv", "\t"), ("rows.csv", ",")])
def test_lines_between_two_lone_quotes_are_rows(tmp_path, name, delimiter, end):
    rows = [(f"message {i}", "spam" if i % 3 else "ham") for i in range(60)]
    for at, text in ((10, '"see you'), (25, 'he said so"'), (40, '"and "again'), (41, '"well" he said'), (58, '"last')):
        rows[at] = (text, "ham")
    path = write_plain(tmp_path / name, rows, delimiter, end)
    assert read_texts(path) == rows
    [note] = load(path).notes
    assert "in one place a quote ran over lines that are rows each, 16 in all" in note
    copy = load(path).write([58, 10, 11, 40], tmp_path, "copy")
    assert read_texts(copy) == [rows[58], rows[10], rows[11], rows[40]]
    assert load(path).rows([10])[0]["text"] == '"see you'
    assert load(path).frame["line"].to_list() == list(range(2, 62))


def test_a_line_that_is_no_row_between_them_is_rejected_alone(tmp_path):
    rows = [(f"message {i}", "spam" if i % 3 else "ham") for i in range(30)]
    rows[5], rows[15], rows[9] = ('"open', "ham"), ('close"', "spam"), ("one\tmore", "ham")
    loaded = load(write_plain(tmp_path / "rows.tsv", rows))
    assert len(loaded) == 29
    assert loaded.rejected.select("line", "reason").rows() == [
        (11, "a row must have 2 fields like the header, found 3")
    ]


def test_quoted_prose_over_several_lines_stays_one_row(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        'text,label\n"Hello, Bob\nbye",1\n"a, b\nc, d\ne",0\n' + "".join(f"t {i},{i % 2}\n" for i in range(20))
    )
    assert read_texts(path)[:2] == [("Hello, Bob\nbye", "1"), ("a, b\nc, d\ne", "0")]
    assert load(path).notes == ()
    prose = tmp_path / "prose.csv"
    prose.write_text('prompt,completion\n"Dear all\nyours, me","yes, that\nis so"\n' + 'a,"b\nc, d"\n' * 3)
    assert read_texts(prose) == [("Dear all\nyours, me", "yes, that\nis so")] + [("a", "b\nc, d")] * 3


@FAST
@given(
    texts=st.lists(
        st.text(st.sampled_from('ab ",\n\té'), min_size=1).map(lambda text: f"x{text}"), min_size=1, max_size=20
    ),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    is_first=st.booleans(),
)
def test_what_a_csv_writer_wrote_is_read_as_it_was(tmp_path, texts, quoting, is_first):
    path = tmp_path / "rows.csv"
    rows = [(text, "spam" if i % 2 else "ham") for i, text in enumerate(texts)]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, quoting=quoting, lineterminator="\n")
        writer.writerows([row if is_first else row[::-1] for row in [("text", "label"), *rows]])
    assert read_texts(path) == rows


@FAST
@given(quotes=st.lists(st.sampled_from(["", '"%s', '%s"', 'a "%s" b', '"%s" b', 'a" %s']), min_size=6, max_size=30))
def test_lines_of_a_writer_that_never_quotes_are_rows_or_rejected(tmp_path, quotes):
    rows = [((quote or "%s") % f"text {i}", "ham" if i % 2 else "spam") for i, quote in enumerate(quotes)]
    loaded = load(
        write_plain(tmp_path / "rows.tsv", [(f"line {i}", "ham" if i % 2 else "spam") for i in range(10)] + rows)
    )
    assert loaded.n_read == len(rows) + 10, "no line is swallowed"
    assert all("\n" not in text for text in loaded.frame["prompt"])


@pytest.mark.parametrize("text", ["x\t\n", "x\t\n0"])
def test_a_quoted_text_with_the_delimiter_and_a_line_end_stays_one_row(tmp_path, text):
    rows = [("x0", "l")] * 4 + [(text, "l")]
    path = tmp_path / "rows.tsv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([("text", "label"), *rows])
    assert load(path).frame["prompt"].to_list() == [text for text, _ in rows]
