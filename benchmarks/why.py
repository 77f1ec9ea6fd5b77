"""Does `why` find planted rows, and does its proof hold for them and not for random ones?

    python benchmarks/why.py --data FOLDER --work FOLDER

Banking77: 1,000 rows, of one intent 10 rows have the label of another. Asked is the first test
question of that intent which the adapter answers with the planted label. The score is the area
under the ROC curve for planted rows first, over all 1,000. The proof trains again 5 times without
the 10 suspects, 5 times without 10 random rows, and 5 times without other random ones.
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
    ("request_refund", "country_support"),
)
N_ROWS, N_PLANTED = 1000, 10


def plant(data: Path, intent: str, wrong: str, seed: int) -> tuple[pl.DataFrame, list[str]]:
    """Return 1,000 training rows with a column `planted`, and test questions of the intent."""
    train, test = (pl.read_csv(data / "banking77" / f"{part}.csv") for part in ("train", "test"))
    rng = np.random.default_rng(seed)
    own = train.filter(pl.col("category") == intent).sample(N_PLANTED, seed=seed)
    others = train.filter(pl.col("category") != intent)
    others = others[rng.permutation(len(others))[: N_ROWS - N_PLANTED].tolist()]
    planted = own.with_columns(category=pl.lit(wrong), planted=True)
    rows = pl.concat([planted, others.with_columns(planted=False)]).rename({"category": "label"})
    return rows[rng.permutation(len(rows)).tolist()], test.filter(pl.col("category") == intent)["text"].to_list()


def run_case(data: Path, intent: str, wrong: str, proofs: int, work: Path) -> dict[str, Any]:
    """Train, ask, and return how the planted rows are ranked, and the proof.

    Adapter and proof stay in `work`, so that a killed run goes on.
    """
    from sklearn.metrics import roc_auc_score

    import thresher as th

    rows, questions = plant(data, intent, wrong, seed=0)
    began = time.perf_counter()
    work.mkdir(parents=True, exist_ok=True)
    path = work / "rows.jsonl"
    rows.select("text", "label").write_ndjson(path)
    # the intent itself is no label of the adapter
    asked = [{"text": question, "label": wrong} for question in questions[:20]]
    adapter = th.train(path, eval=asked, out=work / "adapter", settings=th.TrainSettings(max_steps=120))
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
        **({"proof": found.content["proof"], "verdict": found.content["verdict"]} if proofs else {}),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Run each case that is not in the result file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/why.json"))
    parser.add_argument("--proofs", type=int, default=5)
    parser.add_argument("--work", type=Path, required=True, help="keeps adapters and what is proven so far")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.is_file() else []
    for intent, wrong in CASES:
        done = next((each for each in results if each["intent"] == intent), None)
        if done is None or (options.proofs and done["answered_wrongly"] and "proof" not in done):
            found = run_case(options.data, intent, wrong, options.proofs, options.work / intent)
            results = [each for each in results if each is not done] + [found]
            options.out.write_text(json.dumps(results, indent=1) + "\n")
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
