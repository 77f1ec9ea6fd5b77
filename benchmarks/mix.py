"""Shares of three real sources, and replay under a bound on forgetting, by a small model.

    python benchmarks/mix.py --data FOLDER --work FOLDER

`sources`: 150 short rows each of WikiSQL, Dolly and GSM8K, mixes of up to 96 rows, measured on 30
other rows of WikiSQL and 30 of Dolly: GSM8K is of no use, and equal shares waste a third.
`replay`: WikiSQL and GSM8K, measured on 30 other rows of each, and Dolly as replay; what is lost is
measured on 60 of the 300 embedded general rows, and must stay below the bound. `forgetting`:
WikiSQL and Dolly, measured on 30 other rows of WikiSQL, and GSM8K as replay; what is lost is
measured on 30 other rows of GSM8K, which the model had learned. The language model `tiny` has
learned Dolly and GSM8K, and no SQL. Cells are kept, so a killed run goes on.
"""

from __future__ import annotations

import argparse
import bz2
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

Rows = list[dict[str, str]]
LIMIT = 250  # letters of a question, and of an answer


def read_source(data: Path, name: str) -> Rows:
    """Return short rows of a data set, in random order."""
    if name == "wikisql":
        with bz2.open(data / "wikisql" / "wikisql.json.bz2") as file:
            table = json.loads(file.read())
        pairs = [(each["sentences"][0]["text"], each["sql-original"][0]) for each in table]
    elif name == "dolly":
        table = json.loads((data / "dolly_3k" / "dolly_3k.json").read_text())
        pairs = [(row["instruction"], row["output"]) for row in table if not row.get("input")]
    else:
        lines = (data / "gsm8k" / "train.jsonl").read_text().splitlines()
        pairs = [(row["question"], row["answer"]) for row in map(json.loads, lines)]
    short = [(asked, said) for asked, said in pairs if len(asked) < LIMIT and 0 < len(said) < LIMIT]
    order = np.random.default_rng(0).permutation(len(short))[:180]
    return [{"prompt": short[i][0], "completion": short[i][1], "source": name} for i in order]


def run(name: str, data: Path, work: Path, forget: float) -> dict[str, Any]:
    """Mix, and return what the command says."""
    from adapters import write_general

    import thresher as th

    rows = {each: read_source(data, each) for each in ("wikisql", "dolly", "gsm8k")}
    measured, pooled = ("wikisql", "dolly"), ("wikisql", "dolly", "gsm8k")
    more: dict[str, Any] = {"general": "none"}
    work.mkdir(parents=True, exist_ok=True)
    if name == "replay":
        measured, pooled = ("wikisql", "gsm8k"), ("wikisql", "gsm8k")
        replay = [{key: row[key] for key in ("prompt", "completion")} for row in rows["dolly"][:150]]
        more = {"general": str(write_general(work)), "replay": replay, "forget": forget}
    elif name == "forgetting":
        measured, pooled = ("wikisql",), ("wikisql", "dolly")
        known = [{key: row[key] for key in ("prompt", "completion")} for row in rows["gsm8k"]]
        general = work / "known.jsonl"
        general.write_text("".join(json.dumps(row) + "\n" for row in known[150:]))
        more = {"general": str(general), "replay": known[:150], "forget": forget}
    began = time.perf_counter()
    found = th.mix(
        [row for each in pooled for row in rows[each][:150]],
        eval=[row for each in measured for row in rows[each][150:]],
        model="tiny",
        rows=96,
        mixes=16,
        seeds=3,
        workers=1,
        settings=th.TrainSettings(epochs=2.0, min_steps=1, max_length=256, batch_size=8, learning_rate=2e-3),
        out=work / name,
        on_progress=lambda each: print(name, each.stage, each.done, each.total, flush=True),
        **more,
    )
    content = found.content
    kept = (
        "answer",
        "metric",
        "n_rows",
        "mixes",
        "sources",
        "share_of_mixes",
        "expected_forgetting",
        "allowed",
        "forgetting",
    )
    mixes = found.table.drop("reason").to_dicts()
    seconds = round(time.perf_counter() - began, 1)
    return {**{key: content[key] for key in kept}, "verdict": content["verdict"], "table": mixes, "seconds": seconds}


def main() -> None:
    """Run each that is not in the result file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--forget", type=float, default=0.02)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mix.json"))
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for name in ("sources", "replay", "forgetting"):
        if name not in results:
            results[name] = run(name, options.data, options.work, options.forget)
            options.out.write_text(json.dumps(results, indent=1) + "\n")
        print(name, results[name]["answer"], results[name]["expected_forgetting"])


if __name__ == "__main__":
    main()
