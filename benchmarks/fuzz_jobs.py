"""Fuzzed job files and rows: no traceback, no loss, no write outside the output.

    python benchmarks/fuzz_jobs.py [--examples 10000] [--out benchmarks/results/fuzz_jobs.json]

Each example is a job file that hypothesis makes of the sections and keys there are, one in four with something wild in
it, and files of rows of many shapes, some broken. The job runs in this process, once per file. Checked each time:

- it ends in a result, or in one error of ours;
- every row read is accounted for: unusable + known + repeated + new, and new = dropped + in the snapshot;
- no file outside the output folder, the cache and the textfile that the job names appears, changes or goes;
- the snapshot that was there before is there still, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections import Counter
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
]
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
        "source_column": ["prompt"],
    },
    "notify": {"on": ["failure"], "timeout_s": [1], "prometheus": ["metrics/job.prom"]},
    "rows": {"schema": ["prompt-completion", "messages"], "unreadable": ["skip"]},
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
LINE = st.integers(0, 9).flatmap(lambda at: ODD if at == 9 else PAIR)
ROWS = st.lists(LINE, min_size=2, max_size=8)


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
def sections(draw: st.DrawFn) -> str:
    """Return steps and sections of a job file; one in four has one key or value that is wild."""
    lines = [f"[[steps]]\n{step}\n" for step in draw(st.lists(st.sampled_from(STEPS), max_size=2))]
    chosen = {name: {} for name in GOOD}
    for name, keys in GOOD.items():
        for key in draw(st.lists(st.sampled_from(sorted(keys)), max_size=2, unique=True)):
            chosen[name][key] = draw(st.sampled_from(keys[key]))
    if draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(sorted(GOOD)))
        chosen[name][draw(st.sampled_from(sorted(GOOD[name])) | TEXT)] = draw(VALUE)
    for name, found in chosen.items():
        lines += [f"[{name}]\n", *(f"{json.dumps(key)} = {toml(value)}\n" for key, value in found.items())]
    return "".join(lines)


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


def check_run(folder: Path, counts: Counter[str]) -> None:
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
    assert fingerprint(folder, beside) == before, "a file outside the output changed"
    for path in (out / "snapshots").glob("v*"):
        assert path.name not in old or fingerprint(path, set()) == old[path.name], "an old snapshot changed"


def check_counts(counts: dict[str, int], report: dict, out: Path) -> None:
    import polars as pl

    assert counts["read"] == counts["unusable"] + counts["known"] + counts["repeated"] + counts["new"], counts
    if "rows" in counts:
        lost = sum(one["rows"] for one in report["out"] if not one["was_kept"])
        assert counts["new"] == lost + counts["entered"], (counts, report["out"])
        if (out / "latest").exists() and counts["rows"]:
            kept = pl.read_parquet(sorted((out / "latest" / "data").glob("*.parquet")))
            assert kept["thresher_row_id"].is_unique().all()


def write_rows(path: Path, rows: list[object], tail: bytes) -> None:
    lines = [json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n" + tail)


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
    number = 0

    @seed(arguments.seed)
    @settings(
        max_examples=arguments.examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(sections(), st.lists(ROWS, min_size=1, max_size=3), TAIL)
    def example(more: str, nights: list[list[object]], tail: bytes) -> None:
        nonlocal number
        number += 1
        folder = root / "job"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "src").mkdir(parents=True)
        (folder / "job.toml").write_text(job_text(more), errors="replace")
        for night, rows in enumerate(nights):
            write_rows(folder / "src" / f"{night}.jsonl", rows, tail)
            check_run(folder, counts)
        if number % 500 == 0:
            print(f"{number} examples: {dict(counts)}", flush=True)

    began = time.monotonic()
    example()
    result = {"examples": number, "seconds": round(time.monotonic() - began, 1), "runs": dict(counts.most_common())}
    print(json.dumps(result, indent=2))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
