"""Say whether two versions of thresher write the same files.

    python tools/compare_outputs.py OUT         run the commands, describe their files in OUT
    python tools/compare_outputs.py --diff A B  print what differs; ends with 1 if anything does

Run the first with the Python of each checkout: it tries `python -m thresher` of the Python that
runs it, on the data beside it. What may differ between two runs of one version is left out: times,
paths, versions of packages, random names. OUT gets `files.json` (for each file its parts: the keys
of JSON, the columns of tables, the tensors of weights) and the texts as they are compared.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "data" / "products"
N_POOL, N_TEST = 300, 60
TRAINING = {"max_steps": "3", "batch_size": "8", "max_length": "32"}

COMMANDS = {
    **{
        f"select-{method}": f"select pool.jsonl --method {method} {options} --out select-{method}"
        for method, options in {
            "random": "--budget 20% --seed 3",
            "length": "--budget 4000tok",
            "facility-location": "--budget 20% --encoder static --quota label",
            "k-center": "--budget 50 --encoder static --existing test.jsonl",
            "deft-ucs": "--budget 20% --encoder minilm",
            "difficulty": "--budget 20% --order rank",
            "quality-diversity": "--budget 10% --set quality=length --encoder static",
        }.items()
    },
    "score": "score pool.jsonl --features length,embedding,loss,loss_unconditional,n_scored,n_cut,hidden,"
    "class_probability --out score.parquet",
    "curate-clean": "curate clean pool.jsonl --eval test.jsonl --rules exact-duplicates,near-duplicates,"
    "semantic-duplicates,label-issues,pii --out clean",
    "curate-run": "curate run job.toml",
    "curate-run-more": "curate run job.toml",
    "train": "train select-facility-location --eval test.jsonl --max-steps 4 --batch-size 8 --max-length 32"
    " --out train",
    "curve": "curve pool.jsonl --eval test.jsonl --overlap drop --methods random,facility-location --sizes 20,40,80"
    " --encoder static --seeds 3 {training} --out curve",
    "compare": "compare pool.jsonl --eval test.jsonl --overlap drop --methods random,facility-location,k-center"
    " --budget 10% --encoder static --seeds 3 {training} --out compare",
}
JOB = """
name = "pool"
eval = ["test.jsonl"]
sources = [{ name = "shop", files = ["incoming/*.jsonl"] }]
steps = [
  { rule = "pii" },
  { rule = "length", max_tokens = 4096 },
  { rule = "exact-duplicates" },
  { rule = "near-duplicates", threshold = 0.8 },
]
features = { encoder = "static" }
select = { total = 100 }
output = { folder = "snapshots", keep = 4 }
"""
SECONDS = re.compile(r"(^|_)(seconds|started|finished|created|updated|duration|wall|speed)(_|$)|_s$|per_second")
# Files of times, and pictures that are also there as text.
LEFT_OUT = re.compile(r"\.lock/|history\.sqlite|scan\.json$|\.png$|/latest/|\.tmp")
# When a chunk of the cache is written depends on the clock.
CHUNK = re.compile(r"/chunk-\d+-[0-9a-f]{32}\.safetensors$")
VARYING_TEXT = (
    (re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(\.\d+)?([+-]\d\d:\d\d|Z| UTC)?)?"), "<time>"),
    (re.compile(r"\b(\d[\d.,]* ?(ms|s|min|h|seconds?|minutes?|hours?)\b ?)+"), "<duration>"),
    (re.compile(r"data:[\w/+-]+;base64,[\w+/=]+"), "<picture>"),
)


def run_commands(work: Path) -> None:
    """Run every command in a folder that has the data; stop at the first that fails."""
    for name, n_rows in (("train", N_POOL), ("test", N_TEST)):
        rows = (DATA / f"{name}.jsonl").read_bytes().splitlines(keepends=True)[:n_rows]
        (work / {"train": "pool.jsonl", "test": "test.jsonl"}[name]).write_bytes(b"".join(rows))
    (work / "job.toml").write_text(JOB)
    environment = {
        **os.environ,
        "THRESHER_CACHE": str(work / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    training = " ".join(f"--train {name}={value}" for name, value in TRAINING.items())
    for name, command in COMMANDS.items():
        if command.startswith("curate run"):
            _deliver(work, name)
        started = time.perf_counter()
        words = [sys.executable, "-m", "thresher", *command.format(training=training).split(), "--quiet"]
        done = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, check=False)
        print(f"{time.perf_counter() - started:6.1f} s  {name}", file=sys.stderr, flush=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)}\n{done.stderr}ended with {done.returncode}")


def _deliver(work: Path, name: str) -> None:
    """Put the next part of the pool where the job looks for files."""
    rows = (work / "pool.jsonl").read_bytes().splitlines(keepends=True)
    path = work / "incoming" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(rows[:200] if name == "curate-run" else rows[200:]))


def describe_files(work: Path, out: Path) -> None:
    """Write the parts of every file to `files.json`, and texts as they are compared."""
    files: dict[str, dict[str, str]] = {}
    cached: dict[str, list[bytes]] = {}
    for path in sorted(work.rglob("*")):
        name = path.relative_to(work).as_posix()
        if not path.is_file() or LEFT_OUT.search(name):
            continue
        if CHUNK.search(name):
            cached.setdefault(CHUNK.sub("", name), []).extend(_list_cached_rows(path))
            continue
        files[name] = {part: _shorten(value) for part, value in read_parts(path, work)}
        if path.suffix in {".html", ".md", ".svg"}:
            copy = out / "texts" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(strip_text(path.read_text(), work))
    for name, rows in cached.items():
        files[name] = {"rows": str(len(rows)), "content": _shorten(b"".join(sorted(rows)))}
    (out / "files.json").write_text(json.dumps(files, indent=1, sort_keys=True))


def read_parts(path: Path, work: Path) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a file that may be compared: (key, column, tensor or "content", value)."""
    if path.suffix == ".json":
        yield from flatten_json(json.loads(path.read_bytes()), work)
    elif path.suffix in {".parquet", ".csv"}:
        import polars as pl

        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
        yield "columns", table.columns
        for column in table.get_columns():
            if not SECONDS.search(column.name):
                values = column.cast(pl.String) if column.dtype == pl.Categorical else column
                yield column.name, f"{len(column)} {column.dtype} " + strip_text(repr(values.to_list()), work)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        for name, array in load_file(path).items():
            yield name, f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    elif path.suffix in {".html", ".md", ".svg", ".yaml", ".py", ".txt"}:
        yield "content", strip_text(path.read_text(), work)
    else:
        yield "content", path.read_bytes()


def _list_cached_rows(path: Path) -> list[bytes]:
    """Return the bytes of each row of a chunk of the cache: its key and its values."""
    from safetensors.numpy import load_file

    arrays = [array for _, array in sorted(load_file(path).items())]
    return [b"".join(array[row].tobytes() for array in arrays) for row in range(len(arrays[0]))]


def flatten_json(value: Any, work: Path, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a JSON document by dotted key, without what varies between runs."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            path = strip_text(name, work)
            if name not in {"run", "versions"} and not SECONDS.search(name):
                yield from flatten_json(item, work, f"{key}.{path}" if key else path)
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        for number, item in enumerate(value):
            yield from flatten_json(item, work, f"{key}[{number}]")
    else:
        yield key, strip_text(json.dumps(value, ensure_ascii=False), work)


def strip_text(text: str, work: Path) -> str:
    """Replace what varies between two runs: places, times, durations and pictures."""
    text = text.replace(str(work), "<work>")
    for pattern, replacement in VARYING_TEXT:
        text = pattern.sub(replacement, text)
    # The ratios and bars in one line with a duration are made of it.
    lines = text.split("\n")
    return "\n".join(re.sub(r"\d[\d.]*", "<number>", line) if "<duration>" in line else line for line in lines)


def _shorten(value: Any) -> str:
    """Return a short value itself, so that a difference can be read; else its start and hash."""
    raw = value if isinstance(value, bytes) else str(value).encode()
    if len(raw) <= 80 and not isinstance(value, bytes):
        return str(value)
    head = "" if isinstance(value, bytes) else f"{' '.join(str(value)[:40].split())}... "
    return head + hashlib.sha256(raw).hexdigest()[:16]


def list_differences(before: Path, after: Path) -> Iterator[str]:
    """Yield a line for each file or part of a file that only one side has or that differs."""
    old, new = (json.loads((folder / "files.json").read_text()) for folder in (before, after))
    added = [name for name in new if name not in old]
    for name in sorted(old.keys() - new.keys()):
        if twin := next((other for other in added if new[other] == old[name]), None):
            added.remove(twin)
            yield f"{name}: renamed to {twin}, same content"
            old[twin] = old.pop(name)
    for name in sorted(old.keys() | new.keys()):
        if name not in new or name not in old:
            yield f"{name}: only {'before' if name in old else 'after'}"
        elif old[name] != new[name]:
            yield f"{name}:"
            yield from _list_part_differences(old[name], new[name])
            texts = [folder / "texts" / name for folder in (before, after)]
            if all(text.exists() for text in texts):
                lines = difflib.unified_diff(*(text.read_text().splitlines() for text in texts), n=0, lineterm="")
                yield from (f"    {line[:160]}" for line in islice(lines, 2, 40) if not line.startswith("@@"))


def _list_part_differences(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Yield what was renamed, removed, added and changed in one file."""
    added = [part for part in new if part not in old]
    for part, value in old.items():
        if part in new:
            if value != new[part]:
                yield f"    {part}: {value} -> {new[part]}"
            continue
        twins = [other for other in added if new[other] == value]
        twin = max(twins, key=lambda other: SequenceMatcher(None, part, other).ratio(), default=None)
        if twin is None:
            yield f"    {part}: gone (was {value})"
        else:
            added.remove(twin)
            yield f"    {part}: renamed to {twin}, same content"
    yield from (f"    {part}: new, {new[part]}" for part in added)


def main() -> int:
    """Run the commands, or compare two runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, help="folder for the description of what was written")
    parser.add_argument("--diff", nargs=2, type=Path, metavar=("A", "B"), help="compare two such folders")
    parser.add_argument("--keep", type=Path, help="run in this new folder and leave it there")
    options = parser.parse_args()
    if options.diff:
        differences = list(list_differences(*options.diff))
        print("\n".join(differences) or "no differences")
        return int(bool(differences))
    if options.out is None:
        parser.error("give OUT, or --diff A B")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = (options.keep or Path(folder)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        run_commands(work)
        describe_files(work, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
