"""Planted cases in which training hurts, and cases in which nothing is lost: are they called so?

    python benchmarks/row_zero.py --out benchmarks/results/row_zero.json

Sums of two numbers are asked of SmolLM2-135M-Instruct, and listings of products are labelled by
MiniLM. Each case trains once on small rows that are made here, and says what the untouched model
and the general set show. About ten minutes on two cores; finished cases are read back.

One case cannot be seen with 60 test rows: the untouched model does not know the sums either (1 in
20 right), so that learning wrong ones in the right form lowers the loss on the right ones, and 3 of
60 right answers are too few to see them go: six against none, in 120 test rows, would do at this
rate (Bonett and Price's interval). The same case with 400 test rows tells them apart.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import machine

import thresher as th

N_TRAIN, N_TEST, N_MANY = 160, 60, 400
PRODUCTS = Path(__file__).parent.parent / "data" / "products"
Rows = list[dict[str, str]]


def make_sums(n: int, *, seed: int, answer: Callable[[int, random.Random], str]) -> Rows:
    """Return questions for sums with the answers that a case gives them."""
    draw, rows = random.Random(seed), []
    for _ in range(n):
        a, b = draw.randint(10, 60), draw.randint(10, 60)
        rows.append({"prompt": f"What is {a} + {b}?", "completion": answer(a + b, draw)})
    return rows


def make_capitals(places: slice, *, is_wrong: bool = False) -> Rows:
    """Return questions for capitals, answered in a sentence, right or with another capital."""
    pairs = [pair.split(":") for pair in CAPITALS.split(",")][places]
    cities = [city for _, city in pairs]
    if is_wrong:
        cities = cities[7:] + cities[:7]
    return [
        {"prompt": f"What is the capital of {country}?", "completion": f"The capital of {country} is {city}."}
        for (country, _), city in zip(pairs, cities, strict=True)
    ]


def take_products(name: str, n: int, *, is_shuffled: bool = False) -> Rows:
    """Return listings with their label, or with that of another one."""
    lines = (PRODUCTS / name).read_text(encoding="utf-8").splitlines()[:n]
    rows = [{"text": row["text"], "label": row["label"]} for row in map(json.loads, lines)]
    if is_shuffled:
        labels = [row["label"] for row in rows]
        random.Random(0).shuffle(labels)
        rows = [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]
    return rows


def right(total: int, _: random.Random) -> str:
    """Return the sum."""
    return str(total)


def wrong(total: int, draw: random.Random) -> str:
    """Return another number of the same size."""
    return str(draw.choice([number for number in range(20, 121) if number != total]))


def other_form(total: int, _: random.Random) -> str:
    """Return the sum in the form of another program."""
    return json.dumps({"status": "ok", "value": total})


CAPITALS = (
    "France:Paris,Japan:Tokyo,Italy:Rome,Spain:Madrid,Egypt:Cairo,Canada:Ottawa,Cuba:Havana,Peru:Lima,Kenya:Nairobi,"
    "Greece:Athens,Norway:Oslo,Poland:Warsaw,Austria:Vienna,Hungary:Budapest,Portugal:Lisbon,Ireland:Dublin,"
    "Russia:Moscow,China:Beijing,India:New Delhi,Iran:Tehran,Iraq:Baghdad,Syria:Damascus,Turkey:Ankara,Chile:Santiago,"
    "Sweden:Stockholm,Finland:Helsinki,Denmark:Copenhagen,Germany:Berlin,Belgium:Brussels,Romania:Bucharest,"
    "Bulgaria:Sofia,Serbia:Belgrade,Croatia:Zagreb,Ukraine:Kyiv,Nepal:Kathmandu,Thailand:Bangkok,Vietnam:Hanoi,"
    "Cambodia:Phnom Penh,Indonesia:Jakarta,Malaysia:Kuala Lumpur,Mexico:Mexico City,Brazil:Brasilia,"
    "Argentina:Buenos Aires,Colombia:Bogota,Ecuador:Quito,Bolivia:La Paz,Uruguay:Montevideo,Venezuela:Caracas,"
    "Morocco:Rabat,Algeria:Algiers,Tunisia:Tunis,Libya:Tripoli,Ethiopia:Addis Ababa,Ghana:Accra,Senegal:Dakar,"
    "Uganda:Kampala,Zambia:Lusaka,Angola:Luanda,Jordan:Amman,Lebanon:Beirut,Qatar:Doha,Cyprus:Nicosia,Malta:Valletta,"
    "Iceland:Reykjavik,Estonia:Tallinn,Latvia:Riga,Lithuania:Vilnius,Slovakia:Bratislava,Albania:Tirana,Armenia:Yerevan"
)
LANGUAGE = {"eval_generations": N_TEST, "max_new_tokens": 16, "max_length": 128}
# name -> training rows, settings, what the untouched model and the general set shall say
CASES: dict[str, dict[str, Any]] = {
    "wrong facts, one epoch": {
        "rows": lambda: make_capitals(slice(0, 40), is_wrong=True),
        "test": lambda: make_capitals(slice(40, None)),
        "settings": {**LANGUAGE, "epochs": 1.0, "learning_rate": 1e-3, "batch_size": 4},
        "hurts": True,
    },
    "wrong sums in the right form": {
        "rows": lambda: make_sums(N_TRAIN, seed=1, answer=wrong),
        "settings": {**LANGUAGE, "epochs": 1.0, "learning_rate": 1e-3},
        "hurts": True,
    },
    "wrong sums, 400 test rows": {
        "rows": lambda: make_sums(N_TRAIN, seed=1, answer=wrong),
        "test": lambda: make_sums(N_MANY, seed=9, answer=right),
        "settings": {**LANGUAGE, "eval_generations": N_MANY, "epochs": 1.0, "learning_rate": 1e-3},
        "hurts": True,
    },
    "answers of another form": {
        "rows": lambda: make_sums(N_TRAIN, seed=2, answer=other_form),
        "settings": {**LANGUAGE, "epochs": 2.0, "learning_rate": 1e-3},
        "hurts": True,
    },
    "right answers, small steps": {
        "rows": lambda: make_sums(N_TRAIN, seed=3, answer=right),
        "settings": {**LANGUAGE, "epochs": 1.0, "learning_rate": 5e-5},
        "hurts": False,
    },
    "labels shuffled": {
        "rows": lambda: take_products("train.jsonl", 600, is_shuffled=True),
        "eval": lambda: take_products("test.jsonl", 400),
        "settings": {},
        "hurts": True,
    },
    "right labels": {
        "rows": lambda: take_products("train.jsonl", 600),
        "eval": lambda: take_products("test.jsonl", 400),
        "settings": {},
        "hurts": False,
    },
}


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """Train once, and return what was said."""
    is_language = "eval" not in case
    test = (
        case["eval"]()
        if not is_language
        else case["test"]()
        if "test" in case
        else make_sums(N_TEST, seed=9, answer=right)
    )
    model = {"model": "smollm2"} if is_language else {}
    settings = th.TrainSettings(**case["settings"])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "adapter"
        rows, eval_rows = th.load(case["rows"]()), th.load(test)
        metrics = th.train(rows, eval=eval_rows, settings=settings, out=out, **model).metrics
    base, general = metrics["base"], metrics["general"]
    said_to_hurt = base["verdict"] == "worse" or bool(base["contrary"])
    lost = None if general is None else general["lost"]
    return {
        "hurts": case["hurts"],
        "called": said_to_hurt or (general is not None and general["verdict"] == "lost"),
        "by_row_zero": said_to_hurt,
        "sentence": base["sentence"],
        "contrary": base["contrary"],
        "scores": {each["name"]: each["scores"][base["metric"]] for each in base["references"]},
        "trained": metrics["held_out"][base["metric"]],
        "lenient_match": {
            **{each["name"]: each.get("lenient_match") for each in base["references"]},
            "trained": base.get("lenient_match"),
        },
        "forgetting": None if general is None else {"verdict": general["verdict"], **lost},
        "forgetting_sentence": None if general is None else general["sentence"],
    }


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES))
    args = parser.parse_args()
    result = json.loads(args.out.read_text()) if args.out.is_file() else {"cases": {}}
    for name in args.cases:
        if name not in result["cases"]:
            result["cases"][name] = run_case(CASES[name])
            result["machine"] = machine("torch", "transformers", "peft")
            args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        case = result["cases"][name]
        print(f"{name}: {'right' if case['called'] == case['hurts'] else 'WRONG'}; {case['sentence']}")
        print(f"  {case['forgetting_sentence']}; contrary: {case['contrary']}")


if __name__ == "__main__":
    main()
