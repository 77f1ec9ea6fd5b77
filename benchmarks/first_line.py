"""How soon a command says something: seconds until the rows are read, and until the plan is told.

    python benchmarks/first_line.py --out benchmarks/results/first_line.json

Each command starts in a process of its own, on the products of this repository, and is ended once
it has told its plan (or its first line, where it has no plan).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
TRAIN, TEST = (str(ROOT / "data/products" / name) for name in ("train.jsonl", "test.jsonl"))
POOL, ASKED = (str(ROOT / "data/instructions" / name) for name in ("pool.jsonl", "test.jsonl"))
COMMANDS = {  # words, and whether a plan follows the rows
    "select": (["select", TRAIN, "--budget", "10%", "--method", "facility-location", "--encoder", "static"], False),
    "curate clean": (["curate", "clean", TRAIN], False),
    "train": (["train", TRAIN, "--eval", TEST], False),
    "curve": (["curve", TRAIN, "--eval", TEST, "--overlap", "drop"], True),
    "compare": (["compare", TRAIN, "--eval", TEST, "--methods", "length", "--overlap", "drop"], True),
    "tune": (["tune", TRAIN, "--eval", TEST, "--trials", "4", "--overlap", "drop"], True),
    "advise": (["advise", TRAIN, "--eval", TEST], False),
    "mix": (["mix", TRAIN, "--eval", TEST, "--by", "source", "--overlap", "drop"], True),
    "base sources": (["base", "sources", POOL, "--candidate", ASKED], False),
    "base rank": (["base", "rank", TRAIN, "--models", "minilm,static"], False),
    "label ask": (["label", "ask", str(ROOT / "data/products/open.jsonl")], False),
    "grow": (["grow", POOL, "--model", "tiny"], False),
    "correct": (["correct", POOL, "--model", "tiny", "--judge", "tiny"], False),
}


def time_lines(words: list[str], folder: Path, *, has_plan: bool) -> dict[str, float | None]:
    """Return the seconds until the first line and until the plan; None where it never came."""
    began, seconds = time.monotonic(), {"first": None, "plan": None}
    command = [sys.executable, "-m", "thresher", *words, "--out", str(folder / "out")]
    environment = {**os.environ, "THRESHER_CACHE": str(folder / "cache")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    for line in process.stderr or ():
        passed = round(time.monotonic() - began, 2)
        seconds["first"] = seconds["first"] or passed
        if line.startswith("plan: "):
            seconds["plan"] = passed
        if seconds["plan"] or not has_plan:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return seconds


def main() -> None:
    """Time every command, and write the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    results = {}
    for name, (words, has_plan) in COMMANDS.items():
        times = []
        for _ in range(arguments.repeats):
            with tempfile.TemporaryDirectory() as folder:
                if name == "label ask":
                    lines = Path(TRAIN).read_text().splitlines()[:2000]
                    rows = [json.loads(line) for line in lines]
                    given = [
                        {"text": row["text"], "label": row["label"] if i < 50 else None} for i, row in enumerate(rows)
                    ]
                    words = ["label", "ask", str(Path(folder) / "open.jsonl")]
                    Path(words[2]).write_text("".join(json.dumps(row) + "\n" for row in given))
                times.append(time_lines(words, Path(folder), has_plan=has_plan))
        results[name] = {
            key: statistics.median(each[key] for each in times) if all(each[key] for each in times) else None
            for key in ("first", "plan")
        }
        print(name, results[name], flush=True)
    content = {"repeats": arguments.repeats, "load": os.getloadavg()[0], "seconds": results}
    arguments.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
