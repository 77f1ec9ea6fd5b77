"""Any file at all: no traceback, exit 0 or 2, and every row accounted for."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thresher.cli.main import main

TEXT = st.text(max_size=20)
VALUE = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.lists(TEXT, max_size=2), st.just({}))
GOOD = st.fixed_dictionaries({"instruction": st.text(min_size=1, max_size=20), "input": TEXT, "output": st.just("yes")})
ODD = st.dictionaries(
    st.sampled_from(["instruction", "input", "output", "text", "label", "messages"]), VALUE, max_size=4
)
CHAT = st.fixed_dictionaries(
    {
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": VALUE}), max_size=3
        )
    }
)
DAMAGE = st.one_of(
    st.binary(max_size=30),
    st.just(b"\xef\xbb\xbf{}"),
    st.just(b'{"a": NaN}'),
    st.just(b"[]"),
    st.just(b'{"a"'),
    st.just(b""),
)


def encoded(row):
    try:
        return json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(row).encode()


LINE = st.one_of(GOOD.map(encoded), GOOD.map(encoded), ODD.map(encoded), CHAT.map(encoded), DAMAGE)
JSONL = st.lists(LINE, max_size=12).map(b"\n".join)
ARRAY = st.lists(LINE, max_size=8).map(lambda lines: b"[" + b",\n".join(lines) + b"]")
CELL = st.one_of(
    TEXT.map(lambda text: text.encode("utf-8", "replace")), st.binary(max_size=6), st.just(b'"open'), st.just(b'"a,b"')
)
CSV = st.lists(st.lists(CELL, min_size=1, max_size=3).map(b",".join), max_size=8).map(
    lambda lines: b"text,label\n" + b"\n".join(lines)
)
FILE = st.one_of(
    st.tuples(JSONL, st.just(".jsonl")),
    st.tuples(ARRAY, st.just(".json")),
    st.tuples(CSV, st.sampled_from([".csv", ".tsv"])),
    st.tuples(
        st.binary(max_size=60),
        st.sampled_from([".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".csv.zst", ".jsonl.bz2"]),
    ),
)


def check(content, suffix, method):
    with tempfile.TemporaryDirectory() as folder:
        pool, out = Path(folder, f"pool{suffix}"), Path(folder, "out")
        pool.write_bytes(content)
        code = main(["select", str(pool), "--method", method, "--budget", "50%", "--out", str(out), "--quiet"])
        assert pool.read_bytes() == content
        if code == 2:
            assert not out.exists()
            return
        assert code == 0
        counts = json.loads((out / "manifest.json").read_bytes())["counts"]
        assert counts["kept"] + counts["dropped"] + counts["rejected"] == counts["read"]
        assert sum(counts["rejected_by_reason"].values()) == counts["rejected"]
        assert sum(counts["dropped_by_reason"].values()) == counts["dropped"]
        assert len((out / "rejected.jsonl").read_bytes().splitlines()) == counts["rejected"]


RULES = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@settings(max_examples=150, **RULES)
@given(FILE)
def test_malformed_files_are_refused_or_accounted_for(file):
    check(*file, method="random")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=1000, **RULES)
@given(FILE, st.sampled_from(["random", "length"]))
def test_a_thousand_malformed_files_are_refused_or_accounted_for(file, method):
    check(*file, method=method)
