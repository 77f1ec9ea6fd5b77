"""Does `why` find planted rows, and does its proof hold for them and not for random ones?

    python benchmarks/why.py --data FOLDER --work FOLDER

Banking77, MiniLM: of one intent 10 rows have the label of another. Asked is the first test question
of that intent which the adapter answers with the planted label. The score is the area under the ROC
curve for planted rows first, over 1,000 rows after 120 steps of 16. The proof is made on 200 rows
and 40 steps of 8, because it trains 12 times: 4 times without the 10 suspects, 4 times without 10
random rows, and 4 times without 10 other random ones.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

# the damping of the scores was chosen on the second and the third
CASES = (
    ("card_arrival", "lost_or_stolen_card"),
    ("exchange_rate", "atm_support"),
    ("pin_blocked", "top_up_failed"),
)
N_PLANTED = 10
RANKED, PROVEN = (1000, 120, 16), (200, 40, 8)  # rows, steps and rows of a step


def plant(data: Path, intent: str, wrong: str, n_rows: int) -> tuple[pl.DataFrame, list[str]]:
    """Return training rows with a column `planted`, and test questions of the intent."""
    train, test = (pl.read_csv(data / "banking77" / f"{part}.csv") for part in ("train", "test"))
    rng = np.random.default_rng(0)
    own = train.filter(pl.col("category") == intent).sample(N_PLANTED, seed=0)
    others = train.filter(pl.col("category") != intent)
    others = others[rng.permutation(len(others))[: n_rows - N_PLANTED].tolist()]
    planted = own.with_columns(category=pl.lit(wrong), planted=True)
    rows = pl.concat([planted, others.with_columns(planted=False)]).rename({"category": "label"})
    return rows[rng.permutation(len(rows)).tolist()], test.filter(pl.col("category") == intent)["text"].to_list()


def run_case(data: Path, intent: str, wrong: str, proofs: int, work: Path) -> dict[str, Any]:
    """Train, ask, and return how the planted rows are ranked, and the proof.

    Adapter and proof stay in `work`, so that a killed run goes on.
    """
    from sklearn.metrics import roc_auc_score

    import thresher as th

    n_rows, steps, batch = PROVEN if proofs else RANKED
    rows, questions = plant(data, intent, wrong, n_rows)
    began = time.perf_counter()
    work.mkdir(parents=True, exist_ok=True)
    path = work / "rows.jsonl"
    rows.select("text", "label").write_ndjson(path)
    # the intent itself is no label of the adapter
    asked = [{"text": question, "label": wrong} for question in questions[:20]]
    adapter = th.train(
        path, eval=asked, out=work / "adapter", settings=th.TrainSettings(max_steps=steps, batch_size=batch)
    )
    answers = pl.read_parquet(adapter.path / "predictions.parquet")
    mistaken = set(answers.filter(pl.col("prediction") == wrong)["row_id"])
    question = next((row["prompt"] for row in th.load(asked).frame.to_dicts() if row["row_id"] in mistaken), None)
    if question is None:
        return {"intent": intent, "answered_wrongly": False}
    found = th.why(adapter.path, question, data=path, proofs=proofs, out=work / f"why-{proofs}")
    planted = set(rows.filter("planted")["text"])
    is_planted = [text in planted for text in found.rows["prompt"]]
    return {
        "intent": intent,
        "wrong": wrong,
        "question": question,
        "answered_wrongly": True,
        "n": len(is_planted),
        "auroc": float(roc_auc_score(is_planted, found.rows["score"])),
        "planted_in_first_10": int(sum(is_planted[:10])),
        "steps": steps,
        "proof": found.content["proof"],
        "verdict": found.content["verdict"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Run each case that is not in the result file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/why.json"))
    parser.add_argument("--proofs", type=int, default=4)
    parser.add_argument("--work", type=Path, required=True, help="keeps adapters and what is proven so far")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.is_file() else {"ranked": [], "proven": []}
    for intent, wrong in CASES:
        for name, proofs in (("ranked", 0), ("proven", options.proofs)):
            if any(each["intent"] == intent for each in results[name]):
                continue
            found = run_case(options.data, intent, wrong, proofs, options.work / f"{name}-{intent}")
            results[name].append(found)
            options.out.write_text(json.dumps(results, indent=1) + "\n")
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
