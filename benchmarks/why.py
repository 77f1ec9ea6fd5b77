"""Does `why` find planted rows, and does its proof hold for them and not for random ones?

    python benchmarks/why.py --data FOLDER --work FOLDER

Banking77, MiniLM: of one intent 10 rows have the label of another. Asked is the first test question
of that intent which the adapter answers with the planted label. The score is the area under the ROC
curve for planted rows first, over 1,000 rows after 120 steps of 16. The proof is made on 200 rows
and 40 steps of 8, because it trains 12 times: 4 times without the 10 suspects, 4 times without 10
random rows, and 4 times without 10 other random ones.

    python benchmarks/why.py --data FOLDER --work FOLDER --partly

Adds the area where only 10 of an intent's 25 rows have the wrong label, and where all 10 have, by
the cosine of the gradients and by the score that was used before: preconditioned by the damped
second moment of the rows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

CASES = (
    ("card_arrival", "lost_or_stolen_card"),
    ("exchange_rate", "atm_support"),
    ("pin_blocked", "top_up_failed"),
)
N_PLANTED = 10
RANKED, PROVEN = (1000, 120, 16), (200, 40, 8)  # rows, steps and rows of a step
PAIRS = (
    *((intent, wrong) for intent, wrong in (CASES[1], CASES[0], CASES[2])),
    ("card_not_working", "declined_card_payment"),
    ("age_limit", "country_support"),
)
N_OTHERS, N_EACH = 8, 25
DAMPING = 10.0  # of the earlier score, times the mean second moment


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


def score_preconditioned(rows: Any, answer: Any) -> Any:
    """Return the earlier score of each row: (n,)."""
    g = rows.astype(np.float64)
    moments = g.T @ g / len(g)
    chol = np.linalg.cholesky(moments + DAMPING * np.trace(moments) / len(moments) * np.eye(len(moments)))
    whitened = np.linalg.solve(chol, g.T).T
    pull = whitened @ np.linalg.solve(chol, answer.astype(np.float64))
    return pull / np.maximum(np.linalg.norm(whitened, axis=1), 1e-12)


def rank_partly(data: Path, number: int, keeps_right: bool, work: Path) -> dict[str, Any]:
    """Return the areas for one pair of intents, by both scores."""
    import random

    from sklearn.metrics import roc_auc_score

    import thresher as th
    from thresher.experiments.attribution import why
    from thresher.experiments.attribution.row_influence import GradientSketcher, score_rows

    intent, wrong = PAIRS[number]
    train, test = (pl.read_csv(data / "banking77" / f"{part}.csv").to_dicts() for part in ("train", "test"))
    draw = random.Random(number)
    others = [name for name in sorted({row["category"] for row in train}) if name not in (intent, wrong)]
    rows = []
    for name in (intent, wrong, *draw.sample(others, N_OTHERS)):
        own = [row for row in train if row["category"] == name]
        draw.shuffle(own)
        n_kept = N_PLANTED if name == intent and not keeps_right else N_EACH
        rows += [
            {"text": row["text"], "label": wrong if name == intent and i < N_PLANTED else name}
            | {"planted": name == intent and i < N_PLANTED}
            for i, row in enumerate(own[:n_kept])
        ]
    draw.shuffle(rows)
    planted = {row["text"] for row in rows if row.pop("planted")}
    path = work / f"partly-{number}-{keeps_right}"
    settings = th.TrainSettings(max_steps=60, batch_size=8)
    adapter = th.train(rows, out=path, force=True, settings=settings)
    context = why._resolve(adapter, why.load_rows(rows), None)
    sketcher = GradientSketcher(
        why.load_trained_model(context, adapter.path), task=context.task, dim=2048, device="cpu"
    )
    examples = why.tokenize_rows(context, context.split.train)
    sketches = sketcher.sketch_all(examples.rows)
    question = next(row["text"] for row in test if row["category"] == intent)
    answer = sketcher.sketch(why._ask(context, question, wrong).examples.rows[0])
    is_planted = [context.split.train.frame["prompt"][int(i)] in planted for i in examples.position]
    scores = {"cosine": score_rows, "preconditioned": score_preconditioned}
    areas = {name: float(roc_auc_score(is_planted, score(sketches, answer))) for name, score in scores.items()}
    return {"intent": intent, "wrong": wrong, "keeps_right_rows": keeps_right, "n": len(is_planted), **areas}


def main() -> None:
    """Run each case that is not in the result file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/why.json"))
    parser.add_argument("--proofs", type=int, default=4)
    parser.add_argument("--work", type=Path, required=True, help="keeps adapters and what is proven so far")
    parser.add_argument("--partly", action="store_true", help="only a part of the intent has the wrong label")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.is_file() else {"ranked": [], "proven": []}
    if options.partly:
        options.work.mkdir(parents=True, exist_ok=True)
        done = results.setdefault("partly", [])
        for keeps_right, number in [(keeps, n) for keeps in (True, False) for n in range(len(PAIRS))][len(done) :]:
            done.append(rank_partly(options.data, number, keeps_right, options.work))
            options.out.write_text(json.dumps(results, indent=1) + "\n")
            print(json.dumps(done[-1]), flush=True)
        return
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
