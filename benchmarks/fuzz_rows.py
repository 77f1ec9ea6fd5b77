"""Fuzzed bytes, guided by coverage: what the readers of rows and job files make of any bytes.

    pip install atheris
    python benchmarks/fuzz_rows.py [--seconds 600] [--seed 1] [--out FILE]

atheris (Apache-2.0) mutates bytes towards lines of code that were not reached before, with some
good files to begin with. The first byte says what the others are: JSON lines, a JSON array, CSV,
TSV, gzip, Parquet, Arrow, or a job file. Checked each time:

- the bytes are read, or refused by one error of ours;
- every row read is usable or rejected with a reason;
- rows of text files, written again and read again, are the same rows;
- the smaller `max_row_bytes` of a second read sets rows aside, and loses none.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".parquet", ".arrow", ".toml")
TEXT = (".jsonl", ".json", ".csv", ".tsv")
PAIRS = [{"prompt": "ask", "completion": "say", "n": 1}, {"prompt": "é\u2028", "completion": "x", "n": None}]
CHAT = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
JOB = b'seed = 1\n[[sources]]\nfiles = ["a"]\n[[steps]]\nrule = "length"\nmin_tokens = 3\n[output]\nfolder = "out"\n'
MAX_BYTES = 2048


def beginnings() -> list[bytes]:
    """Return good files, each behind the byte of its kind."""
    import pyarrow as pa
    import pyarrow.parquet

    lines = b"".join(json.dumps(row).encode() + b"\n" for row in PAIRS + CHAT)
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"]})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pyarrow.parquet.write_table(table, parquet, compression="none")
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    contents = {
        ".jsonl": lines,
        ".json": json.dumps(PAIRS).encode(),
        ".csv": b'text,label\n"a ""b""\n c",x\r\nd,=1+1\n',
        ".tsv": b"text\tlabel\na\tx\n",
        ".jsonl.gz": gzip.compress(lines),
        ".parquet": parquet.getvalue(),
        ".arrow": arrow.getvalue(),
        ".toml": JOB,
    }
    return [bytes([SUFFIXES.index(suffix)]) + content for suffix, content in contents.items()]


def check_bytes(content: bytes, folder: Path) -> None:
    """Read bytes as the kind of file that the first byte says, and check what came of it."""
    from thresher.errors import ThresherError

    if not content:
        return
    suffix = SUFFIXES[content[0] % len(SUFFIXES)]
    path = folder / f"rows{suffix}"
    path.write_bytes(content[1:])
    try:
        check_job(path) if suffix == ".toml" else check_rows(path, suffix)
    except ThresherError as error:
        said = str(error)
        assert said, "an error must say something"
        assert len(said) < 20_000, "an error must be short"
    finally:
        path.unlink()


def check_job(path: Path) -> None:
    from thresher.jobs.job_file import read_job

    job = read_job(path)
    assert job.name
    assert job.settings.sources


def check_rows(path: Path, suffix: str) -> None:
    import numpy as np

    from thresher.dataset import load

    rows = load(path)
    assert rows.n_read == len(rows) + rows.rejected.height, "a row was lost"
    assert rows.frame["row_id"].is_unique().all()
    every = np.arange(len(rows))
    assert len(rows.rows(every)) == len(rows)
    rows.texts()
    if suffix in TEXT:
        written = rows.write(every, path.parent, "again")
        again = load(written, schema=rows.schema)
        written.unlink()
        assert again.frame.select("row_id", "prompt", "response").equals(
            rows.frame.select("row_id", "prompt", "response")
        ), "written and read again, the rows are others"
    small = load(path, schema=rows.schema, max_row_bytes=40)
    assert small.n_read == rows.n_read, "a limit lost rows"


def fuzz(arguments: list[str]) -> None:
    """Fuzz in this process, which libFuzzer ends."""
    import importlib
    import pkgutil

    import atheris

    # numba takes no instrumented code
    compiled = [f"thresher.dataset.formats.{name}" for name in ("json_array_spans", "csv_spans")]
    with atheris.instrument_imports(include=["thresher"], exclude=[*compiled, "thresher.numeric.numba_jit"]):
        import thresher.dataset
        import thresher.jobs.job_file  # noqa: F401 - imported to be instrumented

        for module in pkgutil.walk_packages(thresher.dataset.__path__, "thresher.dataset."):
            importlib.import_module(module.name)
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="thresher-fuzz-"))
    atheris.Setup([sys.argv[0], *arguments], lambda content: check_bytes(content, folder))
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--inside", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside is not None:
        fuzz(arguments.inside)
        return
    try:
        import atheris  # noqa: F401 - only asked for
    except ImportError:
        print("skipped: atheris is not installed; pip install atheris (Linux, CPython up to 3.13)")
        return
    with tempfile.TemporaryDirectory(prefix="thresher-corpus-") as corpus:
        for number, content in enumerate(beginnings()):
            Path(corpus, f"good-{number}").write_bytes(content)
        limits = [f"-max_total_time={arguments.seconds}", f"-max_len={MAX_BYTES}", f"-seed={arguments.seed}"]
        limits += ["-timeout=60", "-rss_limit_mb=4096", "-print_final_stats=1", f"-artifact_prefix={os.getcwd()}/"]
        done = subprocess.run(
            [sys.executable, __file__, "--inside", corpus, *limits], stderr=subprocess.PIPE, text=True, check=False
        )
        n_corpus = len(os.listdir(corpus))
    print(done.stderr[-4000:])
    covered = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr)
    ran = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    result = {
        "engine": "atheris",
        "inputs": int(ran[1]) if ran else None,
        "seconds": arguments.seconds,
        "seed": arguments.seed,
        "covered_edges": int(covered[-1][0]) if covered else None,
        "inputs_that_reached_something_new": n_corpus,
        "failed": done.returncode != 0,
    }
    print(json.dumps(result, indent=2))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
