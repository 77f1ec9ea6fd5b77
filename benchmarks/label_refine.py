"""Does self-training on weak labels (COSINE) help, and does the verdict know?

    python benchmarks/label_refine.py --data DIR     # resumable; writes results/label_refine.json

The weak labels of AG News (15.9 % wrong) and ChemProt (44.6 % wrong), as COSINE's authors publish
them: 2,000 rows with a rule's label, 2,000 more without, five draws. The verdict sees 500 rows of
known label; 2,000 others judge whether it was right. Labels are compared on the rows that are given
out: share right of the given labels, and of the refined ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl
from machine import machine

import thresher as th
from thresher.labeling.weak import refine

SETS = ("agnews", "chemprot")
N_WEAK, N_MORE, N_VERDICT, N_JUDGES, DRAWS = 2000, 2000, 500, 2000, 5
RESULT = Path(__file__).parent / "results/label_refine.json"


def run_draw(rows: pl.DataFrame, draw: int) -> dict:
    """Refine one draw, with a verdict by few rows; judge it by others."""
    order = np.random.default_rng([23, draw]).permutation(len(rows)).tolist()
    cuts = np.cumsum([0, N_WEAK, N_MORE, N_VERDICT, N_JUDGES])
    weak, more, verdict, judges = (rows[order[a:b]] for a, b in zip(cuts, cuts[1:], strict=False))
    truth = dict(zip(rows["text"], rows["true"], strict=True))
    weak_rows = weak.select("text", label="given").to_dicts()
    entry = {}
    for name, test in (("verdict", verdict), ("truth", judges)):
        result = th.refine_labels(
            weak_rows, unlabeled=more.select("text").to_dicts(), eval=test.select("text", label="true").to_dicts()
        )
        entry[name] = result.manifest.content["verdict"]
    parts = (th.load(weak_rows).frame.select("row_id", text="prompt"), th.load(more.select("text")).frame)
    texts = pl.concat([parts[0], parts[1].select("row_id", text="response")])
    table = result.weights.join(texts, on="row_id", how="left")
    learned = table.filter("is_learned")
    right = learned["label"] == pl.Series([truth[text] for text in learned["text"]])
    given = learned.filter(pl.col("given").is_not_null())
    same = given.select((pl.col("given") == pl.Series([truth[t] for t in given["text"]])).mean()).item()
    refined = given.select((pl.col("label") == pl.Series([truth[t] for t in given["text"]])).mean()).item()
    return {
        **entry,
        "given_out": learned.height,
        "right_of_given_out": round(float(right.mean()), 4),
        "given_right": round(same, 4),
        "refined_right": round(refined, 4),
        "weak_right": round(float((weak["given"] == weak["true"]).mean()), 4),
    }


def main() -> None:
    """Run all draws, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {"machine": machine(), "sets": {}}
    if result.setdefault("recipe", refine.RECIPE) != refine.RECIPE:
        raise SystemExit(f"{RESULT} is of {result['recipe']}, and this is {refine.RECIPE}: remove it")
    for name in SETS:
        rows = pl.read_ndjson(given.data / f"noise/noise_{name}_weak.jsonl").unique("text", maintain_order=True)
        rows = rows.select("text", pl.col("given", "true").cast(pl.String))
        entries = result["sets"].setdefault(name, [])
        for draw in range(len(entries), DRAWS):
            entries.append(run_draw(rows, draw))
            print(name, json.dumps(entries[-1]), flush=True)
            RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
