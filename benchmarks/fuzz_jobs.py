"""Fuzzed job files and rows: no traceback, no loss, no write outside the output.

    python benchmarks/fuzz_jobs.py [--examples 10000] [--seed 0] [--out FILE.json]

Each example is a job file and the files of one to three nights, made by hypothesis. A job file is
made of the sections and keys there are, one in four with something wild in it, one in twelve of
bytes alone: anything, or a job file with a piece replaced. Rows are pairs or rows with labels, odd
ones among them, as JSON lines (plain, gzip or zstd), a JSON array, CSV or Parquet; one file in
twelve is bytes alone under any of these names. The job runs in this process, once per night.
Checked each time:

- it ends in a result, or in one error of thresher;
- every row written is read where the file is whole;
- every row read is accounted for: unusable + known + repeated + new, and new = dropped + in the
  snapshot;
- no file outside the output folder, the cache and the textfile that the job names appears, changes
  or goes;
- the snapshot that was there before is there still, byte for byte.

The disk is not part of it: TMPDIR=/dev/shm makes it several times as fast.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from thresher.errors import ThresherError

NASTY = [
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    "${HOME}",
    "a\u0000b",
    "=cmd|'/C calc'!A0",
    "\u202e",
    "\ud800",
    "~",
    "",
]
WORDS = st.sampled_from([*NASTY, "out", "src/*.jsonl", "near-duplicates", "30%", "en", "x" * 300])
TEXT = WORDS | st.text(max_size=20)
VALUE = st.one_of(TEXT, st.integers(-5, 50), st.floats(allow_nan=True), st.booleans(), st.lists(TEXT, max_size=2))
STEPS = [
    'rule = "exact-duplicates"',
    'rule = "near-duplicates"\nthreshold = 0.5',
    'rule = "length"\nmin_tokens = 3',
    'rule = "repetition"\nreport = true',
    'rule = "conflicts"',
    'rule = "pii"\nkinds = ["email", "key"]',
    'rule = "expression"\nwhere = "LENGTH(prompt) > 2"',
]
LABEL_STEPS = ['rule = "label-issues"', 'rule = "conflicts"\nkeep = "first"']
GOOD: dict[str, dict[str, list[object]]] = {
    "select": {
        "method": ["facility-location", "random", "length", "k-center"],
        "budget": ["50%", 2, 0.9, "6tok", "score>0"],
        "total": [1, 2, 5],
        "cap": ["method", "facility-location"],
    },
    "gates": {
        "measure": ["psi", "jensen-shannon"],
        "of": ["snapshot", "incoming"],
        "lengths": [{"warn": 0.01}, {"fail": 0.2}],
        "topics": [{"fail": 0.5}],
        "n_topics": [0, 2],
        "min_rows": [1],
        "max_unusable_share": [0.5],
        "source_column": ["source"],
    },
    "notify": {"on": ["failure"], "timeout_s": [1], "prometheus": ["metrics/job.prom"]},
    "rows": {"unreadable": ["skip"], "max_row_bytes": [60]},
}
CELL = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "odd"]), "content": CELL})
FULL = st.text(min_size=1, max_size=30)
MORE = {"source": CELL, "../x": CELL, "thresher_row_id": CELL, "other_columns": CELL}
PAIR = st.fixed_dictionaries({"prompt": FULL, "completion": FULL}, optional=MORE)
ODD = st.one_of(
    st.fixed_dictionaries({"messages": st.lists(TURN, max_size=3)}), st.dictionaries(TEXT, CELL, max_size=4), CELL
)
LABELED = st.fixed_dictionaries({"text": FULL, "label": st.sampled_from(["a", "b", "=c"])}, optional=MORE)
SUFFIXES = ["jsonl", "jsonl.gz", "jsonl.zst", "json", "csv", "parquet"]


def make_rows(good: st.SearchStrategy) -> st.SearchStrategy:
    """Return lists of rows of which one in ten is odd."""
    line = st.integers(0, 9).flatmap(lambda at: ODD if at == 9 else good)
    return st.lists(line, min_size=2, max_size=8)


@dataclass(frozen=True)
class Night:
    """One file: its ending, its bytes, and how many rows it holds; None where nobody can say."""

    suffix: str
    content: bytes
    n_rows: int | None


def as_jsonl(rows: list[object], tail: bytes) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows) + tail


def as_csv(rows: list[object]) -> bytes:
    """Return the rows that are objects as CSV, whatever they hold as text."""
    flat = [row for row in rows if isinstance(row, dict)]
    names = list(dict.fromkeys(name for row in flat for name in row)) or ["prompt", "completion"]
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(names)
    writer.writerows([[row.get(name, "") for name in names] for row in flat])
    return file.getvalue().encode(errors="replace")


def as_parquet(rows: list[object]) -> bytes:
    """Return the rows that are objects as Parquet; values without a type become JSON text."""
    import pyarrow as pa
    import pyarrow.parquet

    flat = [row for row in rows if isinstance(row, dict)]
    names = list(dict.fromkeys(name for row in flat for name in row)) or ["prompt"]
    columns = {}
    for name in names:
        values = [row.get(name) for row in flat]
        try:
            column = pa.array(values)
            if "{}" in repr(values):
                raise TypeError("Parquet holds no empty struct")
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            column = pa.array([json.dumps(value) for value in values])
        columns[name.encode(errors="replace").decode()] = column
    file = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def delivered(suffix: str, rows: list[object], tail: bytes) -> Night:
    """Return rows as a file of a kind."""
    if suffix == "json":
        return Night(suffix, json.dumps(rows).encode() + tail, None)
    if suffix == "csv":
        return Night(suffix, as_csv(rows), None)
    if suffix == "parquet":
        return Night(suffix, as_parquet(rows), sum(isinstance(row, dict) for row in rows))
    content = as_jsonl(rows, tail)
    n_rows = None if tail else len(rows)
    if suffix == "jsonl.gz":
        content = gzip.compress(content)
    elif suffix == "jsonl.zst":
        import zstandard

        content = zstandard.compress(content)
    return Night(suffix, content, n_rows)


@st.composite
def nights(draw: st.DrawFn, good: st.SearchStrategy) -> Night:
    """Return the file of a night."""
    suffix = draw(st.sampled_from(["jsonl", *SUFFIXES]))
    if draw(st.integers(0, 11)) == 0:
        return Night(suffix, draw(st.binary(max_size=300)), None)
    tail = draw(TAIL)
    return delivered(suffix, draw(make_rows(good)), tail)


def toml(value: object) -> str:
    """Return a value as TOML, as well as it can be said there."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return repr(value)


@st.composite
def sections(draw: st.DrawFn, steps: list[str]) -> str:
    """Return steps and sections of a job file; one in four has one key or value that is wild."""
    lines = [f"[[steps]]\n{step}\n" for step in draw(st.lists(st.sampled_from(steps), max_size=2))]
    chosen = {name: {} for name in GOOD}
    for name, keys in GOOD.items():
        for key in draw(st.lists(st.sampled_from(sorted(keys)), max_size=2, unique=True)):
            chosen[name][key] = draw(st.sampled_from(keys[key]))
    if draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(sorted(GOOD)))
        chosen[name][draw(st.sampled_from(sorted(GOOD[name])) | TEXT)] = draw(VALUE)
    for name, keys in chosen.items():
        lines += [f"[{name}]\n", *(f"{json.dumps(key)} = {toml(value)}\n" for key, value in keys.items())]
    return "".join(lines)


@st.composite
def examples(draw: st.DrawFn) -> tuple[bytes, list[Night]]:
    """Return a job file and the files of its nights."""
    is_labeled = draw(st.booleans())
    job = job_text(draw(sections([*STEPS, *(LABEL_STEPS if is_labeled else [])]))).encode(errors="replace")
    if draw(st.integers(0, 11)) == 0:
        piece = draw(st.binary(max_size=100))
        at, length = draw(st.integers(0, len(job))), draw(st.integers(0, 40))
        job = draw(st.sampled_from([piece, job[:at] + piece + job[at + length :]]))
    good = LABELED if is_labeled else PAIR
    return job, draw(st.lists(nights(good), min_size=1, max_size=3))


TAIL = st.just(b"") | st.binary(max_size=20)


def job_text(more: str) -> str:
    return f'[[sources]]\nfiles = ["src/*"]\n[features]\nencoder = "static"\n[output]\nfolder = "out"\nkeep = 2\n{more}'


def fingerprint(root: Path, beside: set[Path]) -> dict[str, str]:
    """Return a hash of every file below a folder, but for those in some folders."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not any(path.is_relative_to(one) for one in beside)
    }


def check_run(folder: Path, files: dict[str, Night], spent: set[bytes], counts: Counter[str]) -> None:
    """Run the job of a folder once, and check what came of it.

    Args:
        folder: with `job.toml` and `src`.
        files: name -> what lies in `src`.
        spent: contents that earlier runs have read; those that this one reads are added.
        counts: how runs ended, which this one is added to.
    """
    from thresher.jobs import run_job

    out = folder / "out"
    beside = {out, folder / "metrics"}
    before = fingerprint(folder, beside)
    old = {path.name: fingerprint(path, set()) for path in (out / "snapshots").glob("v*")}
    try:
        result = run_job(folder / "job.toml")
    except ThresherError as error:
        counts[type(error).__name__] += 1
        if "\n" in str(error).strip() and "problems:" not in str(error):
            raise AssertionError(f"an error of several lines: {error}") from error
    else:
        counts[result.outcome] += 1
        check_counts(result.report["counts"], result.report, out)
        check_read(result.report, files, spent)
        if result.outcome in ("done", "nothing-new"):
            spent |= {night.content for night in files.values()}
    assert fingerprint(folder, beside) == before, "a file outside the output changed"
    for path in (out / "snapshots").glob("v*"):
        assert path.name not in old or fingerprint(path, set()) == old[path.name], "an old snapshot changed"


def check_read(report: dict, files: dict[str, Night], spent: set[bytes]) -> None:
    """Check that every row was read of new files, where all of them are whole."""
    fresh = [night for night in files.values() if night.content not in spent]
    if report.get("skipped") or any(night.n_rows is None for night in fresh):
        return
    assert report["counts"]["read"] == sum(night.n_rows for night in fresh), (report["counts"], fresh)


def check_counts(counts: dict[str, int], report: dict, out: Path) -> None:
    import polars as pl

    assert counts["read"] == counts["unusable"] + counts["known"] + counts["repeated"] + counts["new"], counts
    if "rows" in counts:
        lost = sum(one["rows"] for one in report["out"] if not one["was_kept"])
        assert counts["new"] == lost + counts["entered"], (counts, report["out"])
        if (out / "latest").exists() and counts["rows"]:
            snapshot = pl.read_parquet(sorted((out / "latest" / "data").glob("*.parquet")))
            assert snapshot["thresher_row_id"].is_unique().all()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="thresher-fuzz-"))
    os.environ["THRESHER_CACHE"] = str(root / "cache")
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    number = 0

    @seed(arguments.seed)
    @settings(
        max_examples=arguments.examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(examples())
    def example(job_and_nights: tuple[bytes, list[Night]]) -> None:
        nonlocal number
        number += 1
        job, delivered_nights = job_and_nights
        folder = root / "job"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "src").mkdir(parents=True)
        (folder / "job.toml").write_bytes(job)
        files: dict[str, Night] = {}
        spent: set[bytes] = set()
        for at, night in enumerate(delivered_nights):
            name = f"{at}.{night.suffix}"
            (folder / "src" / name).write_bytes(night.content)
            files[name] = night
            kinds[night.suffix] += 1
            check_run(folder, files, spent, counts)
        if number % 500 == 0:
            print(f"{number} examples: {dict(counts)}", flush=True)

    began = time.monotonic()
    example()
    result = {"examples": number, "seconds": round(time.monotonic() - began, 1), "runs": dict(counts.most_common())}
    result["files"] = dict(kinds.most_common())
    result["seed"] = arguments.seed
    print(json.dumps(result, indent=2))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
