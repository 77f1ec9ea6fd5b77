"""Duplicates and leaks behind text that rows share: precision and recall by how many share it.

    python benchmarks/wrappers.py

Pools of 80 made questions of 14 words with 20 copies (one word changed, the answer in capitals) get
random wrappers in four languages: text before, behind or around a question, or examples. Measured
are near-duplicates (default settings) of the pool

- bare, behind one wrapper, and behind two, of half of the rows each;
- behind 5 to 27 wrappers, so that few rows share one: copies behind the wrapper of their original,
  and copies behind another one;

and contamination, for questions of 3 and of 14 words: 20 of 40 rows of an evaluation set behind
one wrapper stand in a pool of 80 rows behind another. Smaller evaluation sets have fewer rows that
share their wrapper.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import polars as pl
from machine import machine

import thresher as th
from thresher.curation.pipeline import apply_rules
from thresher.curation.rule import create

RESULT = Path(__file__).parent / "results" / "wrappers.json"
N_POOLS = 200
LANGUAGES = (
    "the of and to in is you that it was for on are as with his they at be this have from",
    "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch",
    "и в не на я быть он с что а по это она этот к но они мы весь который",
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生",
)
WORDS = [
    a + b
    for a in ["ka", "lo", "mi", "ru", "ten", "vas", "ol", "pre"]
    for b in ["dan", "mer", "sit", "fol", "gra", "ne"]
]
Row = dict[str, str]
Wrapper = tuple[str, str]


def draw_wrapper(rng: random.Random) -> Wrapper:
    """Return text to put before and behind a question."""
    language = rng.choice(LANGUAGES)

    def write(longest: int) -> str:
        words, joint = (language.split(), " ") if " " in language else (language, "")
        return joint.join(rng.choices(words, k=rng.randint(1, longest))).capitalize() + rng.choice(".!?:。")

    kind, prefix, suffix = rng.choice(["before", "behind", "around", "examples"]), "", ""
    if kind in ("before", "around"):
        prefix = " ".join(write(12) for _ in range(rng.randint(1, 8))) + rng.choice([" ", "\n\n", "\nInput: "])
    if kind in ("behind", "around"):
        suffix = rng.choice([" ", "\n"]) + " ".join(write(10) for _ in range(rng.randint(1, 3)))
    if kind == "examples":
        prefix = "".join(f"Q: {write(10)}\nA: {write(5)}\n\n" for _ in range(rng.randint(1, 4))) + "Q: "
        suffix = "\nA:"
    return prefix, suffix


def build_pool(rng: random.Random) -> list[Row]:
    """Return 80 rows and 20 copies, whose ids name the original."""
    rows = [
        {"id": str(i), "prompt": " ".join(rng.choices(WORDS, k=14)), "completion": f"{rng.choice(WORDS)} {i}"}
        for i in range(80)
    ]
    for row in rng.sample(rows, 20):
        words = row["prompt"].split()
        words[rng.randrange(len(words))] += "s"
        rows.append({"id": f"copy {row['id']}", "prompt": " ".join(words), "completion": row["completion"].upper()})
    rng.shuffle(rows)
    return rows


def measure_duplicates(rows: list[Row], choose: Callable[[Row], Wrapper]) -> tuple[float, float]:
    """Return precision and recall of the copies, behind the wrapper that is chosen for each row."""
    wrapped = [{**row, "prompt": row["prompt"].join(choose(row))} for row in rows]
    result = apply_rules(th.load(pl.DataFrame(wrapped), id_column="id"), [create("near-duplicates")])
    pairs = result.dropped.select("row_id", "duplicate_of").rows()
    right = sum(one.split()[-1] == two.split()[-1] for one, two in pairs)
    return right / len(pairs) if pairs else 1.0, right / 20


def measure_leaks(rng: random.Random, n_words: int, n_test: int) -> tuple[float, float]:
    """Return precision and recall of leaks; half of the evaluation rows stand in the pool."""
    questions = list(dict.fromkeys(" ".join(rng.choices(WORDS, k=n_words)) for _ in range(130)))
    ours, theirs = draw_wrapper(rng), draw_wrapper(rng)
    rows = [
        {"id": str(i), "completion": f"{rng.choice(WORDS)} {i}", "prompt": q} for i, q in enumerate(questions[:120])
    ]
    pool = [{**row, "prompt": row["prompt"].join(ours)} for row in rows[:80]]
    first = 80 - n_test // 2
    test = [{**row, "prompt": row["prompt"].join(theirs)} for row in rows[first : first + n_test]]
    sides = [th.load(pl.DataFrame(side), id_column="id") for side in (pool, test)]
    dropped = set(apply_rules(sides[0], [create("contamination")], eval=sides[1]).dropped["row_id"])
    right = len(dropped & {str(i) for i in range(first, 80)})
    return right / len(dropped) if dropped else 1.0, right / (n_test // 2)


def average(pairs: list[tuple[float, float]]) -> dict[str, float]:
    precision, recall = ([pair[side] for pair in pairs] for side in (0, 1))
    values = {"precision": sum(precision) / len(pairs), "recall": sum(recall) / len(pairs)}
    return {name: round(value, 4) for name, value in values.items()} | {
        "lowest_recall": min(recall),
        "n": len(pairs),
    }


def main() -> None:
    seeds = range(N_POOLS)
    result: dict[str, object] = {"machine": machine("polars", "rensa"), "duplicates": {}, "leaks": {}}
    for n in (0, 1, 2, 5, 10, 16, 27):
        for is_moved in (False, True) if n > 1 else (False,):
            pairs = []
            for seed in seeds:
                rng = random.Random(seed)
                rows, wrappers = build_pool(rng), [draw_wrapper(rng) for _ in range(n)] or [("", "")]

                def choose(row: Row, wrappers: list[Wrapper] = wrappers, step: int = int(is_moved)) -> Wrapper:
                    moved = step if row["id"].startswith("copy") else 0
                    return wrappers[(int(row["id"].split()[-1]) + moved) % len(wrappers)]

                pairs.append(measure_duplicates(rows, choose))
            name = f"{n} wrappers" + (", copies behind another one" if is_moved else "")
            result["duplicates"][name] = average(pairs)
            print(f"{name:<42} {result['duplicates'][name]}", flush=True)
    for n_words in (3, 14):
        for n_test in (40, 16, 8, 4):
            pairs = [measure_leaks(random.Random(seed), n_words, n_test) for seed in seeds]
            name = f"{n_words} words, {n_test} evaluation rows"
            result["leaks"][name] = average(pairs)
            print(f"{name:<42} {result['leaks'][name]}", flush=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
