"""Make `data/instructions`: 300 instruction rows of ten tasks, and other rows of one of them.

    python data/make_instructions.py [--out FOLDER]

The same bytes come out on every machine: only `random.Random` with a fixed seed draws, and only the
standard library runs. The pool holds thirty rows of each task, in a mixed order. The target task is
to extract the attributes of a product listing as JSON: its rows are made from the listings of
`data/products` without a planted fault, those of `target.jsonl` and `test.jsonl` from its test part
and those of the pool from its training part.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

SEED = 20_261_130
PRODUCTS = Path(__file__).parent / "products"
FOLDER = Path(__file__).parent / "instructions"
N_EACH, N_TARGET, N_TEST = 30, 20, 60
TARGET_TASK = "extract-attributes"

NAMES = ("Ada", "Ben", "Chloe", "Dario", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Luca")
THINGS = ("apples", "stamps", "marbles", "postcards", "pencils", "shells", "buttons", "tickets", "cards", "beads")
WORDS = ("river", "candle", "meadow", "anchor", "violin", "pepper", "winter", "basket", "lantern", "orchid", "tunnel")
WORDS += ("harbor", "saddle", "yellow", "mirror", "garden", "kettle", "ladder", "needle", "oyster", "pillow", "quartz")
UNITS = (("kilometers", "meters", 1000), ("hours", "minutes", 60), ("kilograms", "grams", 1000), ("weeks", "days", 7))
UNITS += (("meters", "centimeters", 100), ("liters", "milliliters", 1000), ("minutes", "seconds", 60))
PLACES = ("library", "museum", "bakery", "swimming pool", "post office", "garden center", "town hall", "cinema")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PROBLEMS = ("arrived with a scratch", "is the wrong size", "has not arrived yet", "does not switch on", "lacks a part")
REMEDIES = {
    "arrived with a scratch": "send you a new one at no cost",
    "is the wrong size": "exchange it for the size you need",
    "has not arrived yet": "trace the parcel and write to you by tomorrow",
    "does not switch on": "repair or replace it under the warranty",
    "lacks a part": "post the missing part today",
}

Row = dict[str, str]
Listing = dict[str, Any]


def extract_attributes(listing: Listing, rng: random.Random) -> Row:
    """Return the target task."""
    return _row("Extract the attributes of this listing as JSON with sorted keys.", listing, listing["attributes"])


def name_category(listing: Listing, rng: random.Random) -> Row:
    """Return a classification."""
    return _row("Name the category of this listing.", listing, str(listing["true_label"]).replace("-", " "))


def list_mentions(listing: Listing, rng: random.Random) -> Row:
    """Return a listing's attributes in one plain sentence: a near relative of the target task."""
    values = json.loads(listing["attributes"])
    brand = values.pop("brand", "an unknown brand")
    parts = [f"its {name} is {value}" for name, value in values.items()]
    text = f"The product is from {brand}" + (f", and {' and '.join(parts)}." if parts else ".")
    return _row("Say in one sentence what this listing tells about the product.", listing, text)


def solve_sum(listing: Listing, rng: random.Random) -> Row:
    """Return a word problem with one step."""
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    n, more, is_gain = rng.randint(20, 90), rng.randint(3, 19), rng.random() < 0.5
    verb, total = ("gets", n + more) if is_gain else ("gives away", n - more)
    sign = "+" if is_gain else "-"
    question = f"{name} has {n} {thing} and {verb} {more}. How many {thing} does {name} have now?"
    return {"instruction": question, "input": "", "output": f"{n} {sign} {more} = {total}. {name} has {total} {thing}."}


def convert_unit(listing: Listing, rng: random.Random) -> Row:
    """Return a conversion of units."""
    large, small, factor = rng.choice(UNITS)
    n = rng.randint(2, 40)
    answer = f"{n} {large} are {n * factor:,} {small}."
    return {"instruction": f"Convert {n} {large} to {small}.", "input": "", "output": answer}


def sort_words(listing: Listing, rng: random.Random) -> Row:
    """Return words in the order of the alphabet."""
    words = rng.sample(WORDS, 6)
    return {"instruction": "Sort these words alphabetically.", "input": _join(words), "output": _join(sorted(words))}


def reverse_words(listing: Listing, rng: random.Random) -> Row:
    """Return a list of words from its end."""
    words = rng.sample(WORDS, 5)
    return {"instruction": "Write this list in reverse order.", "input": _join(words), "output": _join(words[::-1])}


def write_date(listing: Listing, rng: random.Random) -> Row:
    """Return a date in words."""
    day = date(2020, 1, 1) + timedelta(days=rng.randrange(3000))
    answer = f"{day:%A}, {day:%B} {day.day}, {day.year}"
    return {"instruction": "Write this date in words, with its weekday.", "input": day.isoformat(), "output": answer}


def answer_complaint(listing: Listing, rng: random.Random) -> Row:
    """Return a reply to a customer."""
    name, problem, order = rng.choice(NAMES), rng.choice(PROBLEMS), rng.randint(10_000, 99_999)
    mail = f"Hello, my order {order} {problem}. What can you do? {name}"
    reply = f"Dear {name}, we are sorry that your order {order} {problem}. We will {REMEDIES[problem]}."
    return {"instruction": "Answer this customer politely in two sentences.", "input": mail, "output": reply}


def tell_opening_hours(listing: Listing, rng: random.Random) -> Row:
    """Return an answer from a short text."""
    place, first = rng.choice(PLACES), rng.randrange(4)
    opens, closes, closed = rng.randint(7, 11), rng.randint(4, 9), DAYS[rng.randrange(first + 3, 7)]
    text = (
        f"The {place} is open from {DAYS[first]} to {DAYS[first + 2]}, {opens} a.m. to {closes} p.m. On {closed} it is "
        f"closed."
    )
    if rng.random() < 0.5:
        question, answer = f"When does the {place} close on {DAYS[first + 1]}?", f"It closes at {closes} p.m."
    else:
        question, answer = f"Is the {place} open on {closed}?", f"No, on {closed} the {place} is closed."
    return {"instruction": question, "input": text, "output": answer}


TASKS: dict[str, Callable[[Listing, random.Random], Row]] = {
    TARGET_TASK: extract_attributes,
    "name-category": name_category,
    "list-mentions": list_mentions,
    "solve-sum": solve_sum,
    "convert-unit": convert_unit,
    "sort-words": sort_words,
    "reverse-words": reverse_words,
    "write-date": write_date,
    "answer-complaint": answer_complaint,
    "tell-opening-hours": tell_opening_hours,
}


def read_listings(name: str) -> list[Listing]:
    """Return the listings of a file without a planted fault."""
    lines = (PRODUCTS / name).read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if not row["planted"]]


def make() -> dict[str, list[Row]]:
    """Return the rows of each file, no row twice."""
    rng = random.Random(SEED)
    train, test = iter(read_listings("train.jsonl")), iter(read_listings("test.jsonl"))
    seen: set[tuple[str, str]] = set()
    pool: list[Row] = []
    for task, write_row in TASKS.items():
        n_end = len(pool) + N_EACH
        while len(pool) < n_end:
            row = {"task": task, **write_row(next(train), rng)}
            if (row["instruction"], row["input"]) not in seen:
                seen.add((row["instruction"], row["input"]))
                pool.append(row)
    rng.shuffle(pool)
    others = [{"task": TARGET_TASK, **extract_attributes(next(test), rng)} for _ in range(N_TARGET + N_TEST)]
    return {"pool": pool, "target": others[:N_TARGET], "test": others[N_TARGET:]}


def _row(instruction: str, listing: Listing, output: str) -> Row:
    return {"instruction": instruction, "input": listing["text"], "output": output}


def _join(words: list[str]) -> str:
    return ", ".join(words)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER)
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in make().items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_bytes(lines.encode())
        print(f"{folder / name}.jsonl: {len(rows)} rows")


if __name__ == "__main__":
    main()
