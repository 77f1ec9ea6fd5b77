"""Make `data/products`: 5,000 product listings with planted faults, and 1,000 clean ones to test.

    python data/make_products.py [--out FOLDER]

The same bytes come out on every machine: only `random.Random` with a fixed seed draws, and only the
standard library runs. A listing is a product (category, brand, attributes, features) told in the
style of one of four marketplaces. The task is hard on purpose: half of the listings name the
product by a word that three categories share, and sellers mention what belongs to other categories.
What was planted is described in `data/products/README.md`.
"""

from __future__ import annotations

import argparse
import json
import random
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SEED = 20_261_121
FOLDER = Path(__file__).parent / "products"
VOCABULARY = FOLDER / "vocabulary.toml"
N_TRAIN = 5_000
N_TEST = 1_000
PLANTED = {
    "exact-duplicate": 200,
    "near-duplicate": 250,
    "semantic-duplicate": 200,
    "wrong-label": 300,
    "leak": 50,
    "conflict": 100,
}
SHARE_SHARED_NOUN = 0.6  # listings that name the product by a word of the whole family
SHARE_STRAY_CUE = 0.35  # listings that mention a feature of a sister category
SHARE_WRONG_IN_FAMILY = 2 / 3  # wrong labels that name a sister category


@dataclass(frozen=True, kw_only=True)
class Product:
    """What a listing is about."""

    category: str
    noun: str
    brand: str
    series: str
    attributes: tuple[tuple[str, str], ...]  # all that the text says, (name, value)
    features: tuple[str, ...]

    def value(self, name: str) -> str | None:
        """Return the value of an attribute, or None when the listing does not tell it."""
        return dict(self.attributes).get(name)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One listing with its truth."""

    listing_id: str = ""
    text: str
    label: str
    attributes: str
    source: str
    true_label: str
    planted: str = ""
    planted_of: str = ""
    product: Product

    def line(self) -> str:
        """Return the row as one line of JSON."""
        columns = ("listing_id", "text", "label", "attributes", "source", "true_label", "planted", "planted_of")
        return json.dumps({name: getattr(self, name) for name in columns}, ensure_ascii=False) + "\n"


class Catalog:
    """The vocabulary, and draws from it."""

    def __init__(self, rng: random.Random) -> None:
        self.words: dict[str, Any] = tomllib.loads(VOCABULARY.read_text(encoding="utf-8"))
        self.categories = list(self.words["categories"])
        rng.shuffle(self.categories)  # which category is frequent has nothing to do with its family
        self.weights = [1 / rank for rank in range(1, len(self.categories) + 1)]  # Zipf

    def sisters(self, category: str) -> list[str]:
        """Return the other categories of the family."""
        family = self.words["categories"][category]["family"]
        return [name for name in self.categories if name != category and self._family(name) == family]

    def _family(self, category: str) -> str:
        return str(self.words["categories"][category]["family"])

    def product(self, rng: random.Random) -> Product:
        """Draw a product."""
        words = self.words
        category = rng.choices(self.categories, self.weights)[0]
        own, family = words["categories"][category], words["families"][self._family(category)]
        noun = rng.choice(family["nouns"] if rng.random() < SHARE_SHARED_NOUN else own["nouns"])
        features = rng.sample(own["cues"], rng.choices([0, 1, 2], [4, 7, 3])[0])
        features += rng.sample(family["cues"], rng.randint(1, 3)) + rng.sample(words["general"], rng.randint(0, 3))
        if rng.random() < SHARE_STRAY_CUE:
            features.append(rng.choice(words["categories"][rng.choice(self.sisters(category))]["cues"]))
        rng.shuffle(features)
        size = f"{rng.choice(own['sizes'])} {family['unit']}"
        if family["unit"] == "EU":
            size = " ".join(reversed(size.split()))
        attributes = {
            "colour": rng.choice(words["colours"]),
            "material": rng.choice(family["materials"]),
            "size": size,
        }
        mentioned = [(name, value) for name, value in attributes.items() if rng.random() < 0.8]
        brand = rng.choice(words["brands"])
        return Product(
            category=category,
            noun=noun,
            brand=brand,
            series=f"{rng.choice(words['series'])} {rng.randint(1, 99)}",
            attributes=(("brand", brand), *mentioned),
            features=tuple(features),
        )


def bazario(product: Product, words: dict[str, Any], rng: random.Random) -> str:
    """Tell it as a loud shop: capitals, keywords, prices."""
    parts = [product.brand, *(value for _, value in product.attributes[1:]), product.noun, *product.features]
    shouted = [part.upper() if rng.random() < 0.4 else part.title() for part in parts]
    opening = rng.choice(["NEW!! ", "SALE ", "", "", "HOT ", f"-{rng.randrange(10, 70, 5)}% ", "★ "])
    return f"{opening}{' '.join(shouted)} {rng.choice(words['shipping']).upper()} {rng.choice(words['praise'])}"


def kartly(product: Product, words: dict[str, Any], rng: random.Random) -> str:
    """Tell it as a catalog: fields between bars."""
    fields = [f"{product.brand} {product.series}", product.noun.capitalize()]
    details = [f"{name}: {value}" for name, value in product.attributes[1:]]
    rng.shuffle(details)
    fields += [", ".join(details)] if details else []
    fields += ["; ".join(product.features)]
    code = f"{product.brand[:2].upper()}{rng.randint(1000, 99999)}"
    fields.append(rng.choice([f"SKU {code}", f"Art. {code}", words["praise"][rng.randrange(len(words["praise"]))]]))
    return " | ".join(fields)


def lumeshop(product: Product, words: dict[str, Any], rng: random.Random) -> str:
    """Tell it as a boutique: sentences."""
    colour, material, size = (product.value(name) for name in ("colour", "material", "size"))
    described = " ".join(part for part in (colour, material, product.noun) if part)
    opening = rng.choice(
        ["Meet the", "This is the", "Say hello to the", "Discover the", "We love the", "Introducing the"]
    )
    text = f"{opening} {product.brand} {product.series}, a {described}{f' ({size})' if size else ''}. "
    middle = rng.choice(["You get", "It comes with", "Expect", "Features:", "What we like:"])
    text += f"{middle} {', '.join(product.features[:-1]) or product.features[-1]}"
    text += f" and {product.features[-1]}. " if len(product.features) > 1 else ". "
    return text + f"{rng.choice(words['praise']).capitalize()}, {rng.choice(words['shipping'])}."


def oddlot(product: Product, words: dict[str, Any], rng: random.Random) -> str:
    """Tell it as a private seller: lower case, slips, no order."""
    said = [value for _, value in product.attributes[1:]] + list(product.features)
    rng.shuffle(said)
    opening = rng.choice(["selling my", "hi, selling a", "for sale:", "", "giving away a", "have a"])
    text = f"{opening} {product.brand} {product.noun} {', '.join(said)}. {rng.choice(words['used'])}, "
    text += f"{rng.choice(words['used_end'])}. {rng.randint(2, 90)} eur"
    return with_slips(text.lower().strip(), rng, n=rng.randint(0, 3), spared=[value for _, value in product.attributes])


STYLES: dict[str, Callable[[Product, dict[str, Any], random.Random], str]] = {
    "bazario": bazario,
    "kartly": kartly,
    "lumeshop": lumeshop,
    "oddlot": oddlot,
}
SOURCE_WEIGHTS = [4, 3, 2, 2]


def with_slips(text: str, rng: random.Random, *, n: int, spared: list[str]) -> str:
    """Return the text with n words mistyped, but none of the spared values."""
    untouched = {word.lower() for value in spared for word in value.split()}
    words = text.split(" ")
    open_to_slips = [
        i for i, word in enumerate(words) if len(word) > 3 and word.lower().strip(".,;()") not in untouched
    ]
    for i in rng.sample(open_to_slips, min(n, len(open_to_slips))):
        at = rng.randrange(1, len(words[i]) - 1)
        word = words[i]
        words[i] = rng.choice([word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:], swapped(word, at)])
    return " ".join(words)


def swapped(word: str, at: int) -> str:
    """Return the word with two neighboring letters exchanged."""
    return word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :]


def listing(product: Product, source: str, catalog: Catalog, rng: random.Random) -> Row:
    """Tell a product in the style of a marketplace."""
    return Row(
        text=STYLES[source](product, catalog.words, rng),
        label=product.category,
        attributes=json.dumps(dict(product.attributes), sort_keys=True, ensure_ascii=False),
        source=source,
        true_label=product.category,
        product=product,
    )


def clean_rows(n: int, catalog: Catalog, rng: random.Random, seen: set[str]) -> list[Row]:
    """Return n listings of n products, no two with the same text."""
    rows: list[Row] = []
    while len(rows) < n:
        source = rng.choices(list(STYLES), SOURCE_WEIGHTS)[0]
        row = listing(catalog.product(rng), source, catalog, rng)
        if row.text not in seen:
            seen.add(row.text)
            rows.append(row)
    return rows


def other_label(row: Row, catalog: Catalog, rng: random.Random) -> str:
    """Return a label that is not the row's, often one of its family."""
    if rng.random() < SHARE_WRONG_IN_FAMILY:
        return rng.choice(catalog.sisters(row.label))
    return rng.choice([category for category in catalog.categories if category != row.label])


def nearly_copied(original: Row, catalog: Catalog, rng: random.Random) -> Row:
    """Return the row with one or two slips and, half of the time, a few words more."""
    spared = [value for _, value in original.product.attributes]
    text = with_slips(original.text, rng, n=rng.randint(1, 2), spared=spared)
    return replace(original, text=f"{text} {rng.choice(catalog.words['praise'])}" if rng.random() < 0.5 else text)


def told_again(original: Row, catalog: Catalog, rng: random.Random) -> Row:
    """Return the same product in the style of another marketplace."""
    source = rng.choice([name for name in STYLES if name != original.source])
    return listing(original.product, source, catalog, rng)


def planted_row(kind: str, original: Row, catalog: Catalog, rng: random.Random, seen: set[str]) -> Row:
    """Return the faulty row of that kind that is made from a clean one."""
    if kind in ("exact-duplicate", "leak"):
        row = original
    elif kind == "conflict":
        row = replace(original, label=other_label(original, catalog, rng))
    else:
        retell = nearly_copied if kind == "near-duplicate" else told_again
        row = retell(original, catalog, rng)
        while row.text in seen:  # a slip may change nothing
            row = retell(original, catalog, rng)
        seen.add(row.text)
    return replace(row, listing_id="", planted=kind, planted_of=original.listing_id)


def with_ids(rows: list[Row], prefix: str) -> list[Row]:
    """Return the rows with listing ids in their order."""
    return [replace(row, listing_id=f"{prefix}{number:05d}") for number, row in enumerate(rows, start=1)]


def make() -> tuple[list[Row], list[Row]]:
    """Return the training and the test rows."""
    rng = random.Random(SEED)
    catalog = Catalog(rng)
    seen: set[str] = set()
    test = with_ids(clean_rows(N_TEST, catalog, rng, seen), "te")
    n_copies = sum(number for kind, number in PLANTED.items() if kind != "wrong-label")
    originals = with_ids(clean_rows(N_TRAIN - n_copies, catalog, rng, seen), "tr")
    n_wrong = PLANTED["wrong-label"]
    wrong = [replace(row, label=other_label(row, catalog, rng), planted="wrong-label") for row in originals[:n_wrong]]
    clean = originals[n_wrong:]
    copies: list[Row] = []
    for kind, number in PLANTED.items():
        if kind != "wrong-label":
            sources = rng.sample(test if kind == "leak" else clean, number)
            copies += [planted_row(kind, row, catalog, rng, seen) for row in sources]
    rows = wrong + clean + copies
    rng.shuffle(rows)
    shuffled = with_ids(rows, "tr")  # anew: the first ids told which rows were planted
    new_id = {old.listing_id: new.listing_id for old, new in zip(rows, shuffled, strict=True) if old.listing_id}
    return [replace(row, planted_of=new_id.get(row.planted_of, row.planted_of)) for row in shuffled], test


def write(folder: Path) -> None:
    """Write train.jsonl and test.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in zip(("train", "test"), make(), strict=True):
        (folder / f"{name}.jsonl").write_bytes("".join(row.line() for row in rows).encode())


def main() -> None:
    """Write the data set."""
    parser = argparse.ArgumentParser(description="Make the product listings.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
