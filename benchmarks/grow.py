"""`grow`: does it keep what a writer of known skill gets right, and what does a small model grow?

    OMP_NUM_THREADS=1 python benchmarks/grow.py --data SHARED --work DIR [--rows 24] [--only stub]

SHARED/gsm8k/train.jsonl has GSM8K's questions and answers. `stub`: 500 of them, a writer behind a
server on loopback that is right with probability p; the share of questions with a kept answer
must be 1 - (1 - p)^k within its standard error, pass@1 must be p, a second run must ask nothing and
write the same bytes. `model`: SmolLM2-135M-Instruct on the first `--rows` questions, `accept` and
`own`: what it keeps and why it refuses the rest. Answers are kept in DIR, so a run that was stopped
goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import xxhash
from machine import machine
from stub_server import start_server

RESULT = Path(__file__).parent / "results" / "grow.json"
N_STUB, K = 500, 4
SKILLS = (0.05, 0.3, 0.7)


class Writer:
    """Right with a known probability; every right answer says other numbers on the way."""

    def __init__(self, answers: dict[str, str], skill: float) -> None:
        self.n_calls = 0
        self.answers, self.skill = answers, skill
        self.server = start_server(f"skill-{skill}", self.answer)

    def answer(self, body: dict[str, Any]) -> str:
        """Return the right number or another one, by the seed of the request."""
        self.n_calls += 1
        final = self.answers[body["messages"][-1]["content"]]
        is_right = xxhash.xxh3_64_intdigest(str(body["seed"]).encode()) % 10_000 < self.skill * 10_000
        return f"By way of {body['seed']}.\n#### {final if is_right else final + '1'}"

    def address(self, skill):
        """Return the writer as --model takes it."""
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1?in_flight=8#skill-{skill}"


def read_rows(shared, n):
    """Return the first questions of GSM8K."""
    lines = (Path(shared) / "gsm8k" / "train.jsonl").read_text().splitlines()[:n]
    return [{key: json.loads(line)[key] for key in ("question", "answer")} for line in lines]


def run_stub(rows, work):
    """Return what is kept of writers of known skill."""
    import thresher as th

    answers = {row["question"]: re.sub(r"[^\d-]", "", row["answer"].split("####")[1]) for row in rows}
    results = []
    for skill in SKILLS:
        writer = Writer(answers, skill)
        folders = [work / f"stub-{skill}-{run}" for run in (1, 2)]
        grown, calls = None, []
        for folder in folders:
            grown = th.grow(rows, model=writer.address(skill), encoder="static", n_samples=K, out=folder, force=True)
            calls.append(writer.n_calls)
        writer.server.shutdown()
        share = grown.manifest.content["counts"]["seeds_with_rows"] / len(rows)
        expected = 1 - (1 - skill) ** K
        results.append(
            {
                "skill": skill,
                "answers_each": K,
                "questions": len(rows),
                "kept_share": round(share, 4),
                "expected": round(expected, 4),
                "standard_error": round((expected * (1 - expected) / len(rows)) ** 0.5, 4),
                **grown.manifest.content["facts"],
                "calls": calls[0],
                "calls_of_a_second_run": calls[1] - calls[0],
                "same_bytes": all(
                    (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
                    for name in ("rows.jsonl", "refused.parquet")
                ),
            }
        )
    return results


def run_model(rows, work, how):
    """Return what SmolLM2 grows from some questions."""
    import thresher as th

    began = time.monotonic()
    grown = th.grow(
        rows, how=how, model="smollm2", encoder="static", n_samples=K, max_new_tokens=200, check="number",
        out=work / f"model-{how}-{len(rows)}", force=True,
    )  # fmt: skip
    counts = grown.manifest.content["counts"]
    return {
        "how": how,
        "model": "SmolLM2-135M-Instruct",
        "questions": len(rows),
        "kept": counts["kept"],
        "seeds_with_rows": counts["seeds_with_rows"],
        "answer_from": counts.get("answer_from"),
        "refused_by_reason": counts["refused_by_reason"],
        **grown.manifest.content["facts"],
        "seconds": round(time.monotonic() - began, 1),
    }


def main():
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--only", choices=["stub", "model"])
    arguments = parser.parse_args()
    work = Path(arguments.work)
    work.mkdir(parents=True, exist_ok=True)
    os.environ["THRESHER_CACHE"] = str(work / "cache")
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result["command"] = "python benchmarks/grow.py --data SHARED --work DIR"
    if arguments.only != "model":
        result["stub"] = run_stub(read_rows(arguments.data, N_STUB), work)
    if arguments.only != "stub":
        rows = read_rows(arguments.data, arguments.rows)
        result["model"] = [run_model(rows, work, how) for how in ("accept", "own")]
    result["machine"] = machine()
    print(json.dumps(result, indent=1))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
