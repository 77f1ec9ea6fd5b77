"""Training SmolLM2 on a CPU with rows laid end to end, against rows padded to one length.

    OMP_NUM_THREADS=1 python benchmarks/packing.py --data FOLDER [--rows 100] [--repeats 1]

FOLDER holds dolly_3k. The training part of `smollm2.py` in two ways, in turns, each in a process of
its own: `thresher` pads the rows of a forward pass, which end where padding would rise above a
tenth; `thresher, packed` is `train --packing`. Both clocks are written, and the held-out loss.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import smollm2
from machine import machine

RESULT = Path(__file__).parent / "results/packing.json"
WAYS = ("thresher", "thresher, packed")


def run_way(way: str, given: argparse.Namespace) -> dict:
    """Run one way in a process of its own."""
    command = [sys.executable, __file__, "--data", str(given.data), "--rows", str(given.rows), "--one", way]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print, and write after each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=smollm2.N_ROWS)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    smollm2.N_ROWS, smollm2.N_HELD_OUT = given.rows, given.rows // 2
    if given.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(smollm2.train(given.one, given.data, Path(folder))))
        return
    runs: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(given.repeats):
        for way, each in runs.items():
            each.append(run_way(way, given))
            print(way, json.dumps(each[-1]), flush=True)
            content = {
                "command": f"OMP_NUM_THREADS=1 python benchmarks/packing.py --data FOLDER --rows {given.rows}",
                "rows": given.rows,
                "runs": runs,
                "machine": machine("torch", "transformers", "peft"),
            }
            if all(runs.values()):
                content |= smollm2.summarize("training", runs)
            given.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
