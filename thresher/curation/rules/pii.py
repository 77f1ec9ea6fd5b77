"""Personal data and secrets: e-mail and IP addresses, telephone numbers, cards, IBANs, keys."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import polars as pl

from thresher.curation.masking import list_free_texts, list_text_columns, list_values
from thresher.curation.rule import Rows, Rule
from thresher.curation.similarity.duplicate_groups import DUPLICATES
from thresher.curation.verdict import Verdict
from thresher.dataset.normalize import plain_texts
from thresher.errors import MissingExtraError, SettingsError, did_you_mean
from thresher.validation import check_settings

if TYPE_CHECKING:
    from thresher.dataset import Dataset

_ROWS_AT_ONCE = 10_000
PHONE = "phone"
# Rust's regular expressions: their time is linear in the text, whatever it holds. What they find is
# checked below. Words end at ASCII borders, so that what is between Chinese letters without a
# space is found too.
_B = r"(?-u:\b)"
_KEY_NAME = r"[A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
PATTERNS = {
    "key": (
        # a private key up to its end; of one without an end the lines that look like it
        rf"-----BEGIN {_KEY_NAME}(?:(?:[^-]|-[^-])*-----END {_KEY_NAME}|(?:(?:\s|\\[nr])*[A-Za-z0-9+/=]{{16,}})*)|"
        rf"{_B}AKIA[0-9A-Z]{{16}}{_B}|{_B}gh[pousr]_[A-Za-z0-9]{{36,}}|{_B}github_pat_[A-Za-z0-9_]{{22,}}|"
        rf"{_B}sk-[A-Za-z0-9_-]{{20,}}|{_B}xox[abprs]-[A-Za-z0-9-]{{10,}}|{_B}AIza[0-9A-Za-z_-]{{35}}|"
        rf"{_B}hf_[A-Za-z0-9]{{30,}}|{_B}eyJ[A-Za-z0-9_-]{{10,}}\.eyJ[A-Za-z0-9_-]{{10,}}\.[A-Za-z0-9_-]{{10,}}"
    ),
    "email": r"[\p{Latin}0-9_%+][\p{Latin}\p{M}0-9._%+-]*@(?:[\p{Latin}\p{M}0-9-]+\.)+\p{Latin}{2,24}",
    "iban": rf"{_B}[A-Z]{{2}}\d{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?{_B}",
    "credit-card": rf"{_B}\d(?:[ -]?\d){{12,}}{_B}",
    "ip": rf"{_B}(?:\d{{1,3}}\.){{3}}\d{{1,3}}{_B}|(?:[0-9A-Fa-f]{{1,4}}:){{2,7}}(?::?[0-9A-Fa-f]{{1,4}}){{1,7}}",
    PHONE: r"\+?\(?\d[\d ().\-/+]{5,}\d",
}
CARD_DIGITS = (13, 19)
MIN_CARD_PART = 3  # fewest digits in a group of a card number that has other numbers next to it
MAX_PHONE = 40  # characters
IBAN_LENGTHS = (15, 34)
NOT_PERSONAL = ("example.com", "example.org", "example.net")  # reserved for documentation, RFC 2606


@dataclass(frozen=True, kw_only=True)
class Pii(Rule):
    """Find personal data and secrets; report the rows, mask what was found, or drop them.

    Found are e-mail addresses, telephone numbers (valid ones by phonenumbers, Apache-2.0; without a
    `region` only those with a country code), credit cards (Luhn's checksum), IBANs (ISO 7064 mod
    97), public IP addresses, and keys of known forms (AWS, GitHub, OpenAI, Slack, Google, Hugging
    Face, private keys, JSON web tokens). Candidates are found by regular expressions in linear
    time, in every text that a mask can change, and checked one by one.

    A mask puts [EMAIL], [PHONE], [CREDIT-CARD], [IBAN], [IP] or [KEY] in the place of each finding,
    in the columns that the schema reads; the rows as they were are in `masked.jsonl`, which is as
    private as the pool. JSON text and the arguments of tool calls are masked by their members, so
    that they stay JSON; a whole number that is a finding becomes text.

    Cost: a few passes over the texts. Needs: the package phonenumbers, unless `kinds` leaves
    telephone numbers out. Fails: names and postal addresses are not found: no pattern recognizes
    them, and models that do are no light dependency.

    Attributes:
        action: "report" keeps the rows with a finding, "mask" changes their texts, "drop" drops
            them.
        kinds: what to look for: key, email, iban, credit-card, ip, phone.
        region: country whose national telephone numbers are known too, such as "US" or "DE";
            default: none.
    """

    name: ClassVar[str] = "pii"
    is_private: ClassVar[bool] = True
    action: Literal["report", "mask", "drop"] = "mask"
    kinds: tuple[str, ...] = tuple(PATTERNS)
    region: str | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: a kind is unknown, or there is none.
        """
        check_settings(self, self.name)
        unknown = [kind for kind in self.kinds if kind not in PATTERNS]
        if unknown or not self.kinds:
            hint = did_you_mean(str(unknown[0]), PATTERNS) if unknown else ""
            raise SettingsError(f"{self.name}: kinds must be among {', '.join(PATTERNS)}, got {self.kinds!r}{hint}")

    @property
    def precedes(self) -> Mapping[str, str]:
        """The rules for duplicates, if texts are changed."""
        why = "rows masked by an earlier run are compared as masked, but new ones as they are"
        return dict.fromkeys(DUPLICATES if self.action == "mask" else (), why)

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Find personal data, and say of which kind; the explanation does not repeat it."""
        texts = _collect_texts(pool.dataset)
        findings = self._find(texts)
        sentences: list[str | None] = [None] * len(texts)
        for row, items in findings.items():
            counts = Counter(kind for kind, _ in items)
            sentences[row] = "holds " + ", ".join(f"{count} {kind}" for kind, count in counts.items())
        explanation = pl.Series("explanation", sentences, dtype=pl.String)
        is_found = explanation.is_not_null()
        return Verdict.from_frame(
            pl.DataFrame(explanation).select(
                reason=pl.when(pl.lit(is_found) & (self.action == "drop")).then(pl.lit("personal-data")),
                explanation="explanation",
            ),
            is_masked=is_found.to_numpy() if self.action == "mask" else None,
            notes=Counter(kind for items in findings.values() for kind, _ in items),
        )

    def mask(self, texts: pl.Series) -> pl.Series:
        """Return texts with [EMAIL] and the like in the place of each finding, (n,)."""
        values = texts.to_list()
        for row, items in self._find(texts).items():
            for kind, item in items:
                values[row] = values[row].replace(item, f"[{kind.upper()}]")
        return pl.Series(texts.name, values, dtype=pl.String)

    def _find(self, texts: pl.Series) -> dict[int, list[tuple[str, str]]]:
        """Return row -> its findings: kind and text, in the order in which they are replaced.

        A text that two kinds claim counts for the first; of one that holds another the longer comes
        first, and the shorter one follows only if it occurs elsewhere too.
        """
        finders = self._build_finders()
        findings: dict[int, list[tuple[str, str]]] = {}
        rest = texts.to_list()  # without the findings so far
        for kind in (kind for kind in PATTERNS if kind in self.kinds):
            frame = pl.DataFrame({"text": pl.Series(rest, dtype=pl.String)}).with_row_index("row")
            hits = frame.filter(pl.col("text").str.contains(PATTERNS[kind])).select(
                "row", pl.col("text").str.extract_all(PATTERNS[kind])
            )
            for row, candidates in hits.iter_rows():
                items = {item for candidate in dict.fromkeys(candidates) for item in finders[kind](candidate)}
                for item in sorted(items, key=lambda item: (-len(item), item)):
                    if item in rest[row]:
                        findings.setdefault(row, []).append((kind, item))
                        rest[row] = rest[row].replace(item, "\n")
        return findings

    def _build_finders(self) -> Mapping[str, Callable[[str], Sequence[str]]]:
        """Return for each kind what of a candidate is personal."""
        finders: dict[str, Callable[[str], Sequence[str]]] = {
            "key": lambda text: [text],
            "email": lambda text: [] if text.rpartition("@")[2].lower() in NOT_PERSONAL else [text],
            "iban": find_ibans,
            "credit-card": find_cards,
            "ip": lambda text: [text] if is_public_address(text) else [],
        }
        return finders | ({PHONE: self._build_phone_finder()} if PHONE in self.kinds else {})

    def _build_phone_finder(self) -> Callable[[str], Sequence[str]]:
        """Return what finds telephone numbers in a run of digits and separators.

        Raises:
            MissingExtraError: phonenumbers is not installed.
            SettingsError: it does not know the region.
        """
        try:
            import phonenumbers
        except ModuleNotFoundError:
            raise MissingExtraError("phonenumbers", f"the rule '{self.name}'", "pii") from None
        known = phonenumbers.SUPPORTED_REGIONS
        if self.region is not None and self.region not in known:
            hint = did_you_mean(self.region.upper(), known)
            raise SettingsError(
                f"{self.name}: region must be an ISO 3166 code such as 'US' or 'DE', got '{self.region}'{hint}"
            )

        def is_phone(text: str) -> bool:
            if self.region is None and not text.startswith("+"):
                return False
            try:
                number = phonenumbers.parse(text, self.region)
            except phonenumbers.NumberParseException:
                return False
            return bool(phonenumbers.is_valid_number(number))

        def find_phones(run: str) -> list[str]:
            if len(run) <= MAX_PHONE and run.rfind("+") <= 0 and is_phone(run):
                return [run]
            items = [match.raw_string for match in phonenumbers.PhoneNumberMatcher(run, self.region)]
            # numbers with a country code that run into one another: each begins with its plus sign
            for start in re.findall(rf"\+[^+]{{5,{MAX_PHONE}}}", run):
                if not any(start.startswith(item) for item in items):
                    items += next(([part] for part in _iterate_beginnings(start) if is_phone(part)), [])
            return items

        return find_phones


def _collect_texts(rows: Dataset) -> pl.Series:
    """Return what a mask can change of each row, (n,): of a chat also calls and later turns."""
    if rows.kind != "sft":
        texts = plain_texts(rows, "row")
        # what may be JSON is masked by its members
        at = texts.str.contains(r"^\s*[\[{]").arg_true()
        return texts.scatter(at, ["\n".join(list_free_texts(text)) for text in texts.gather(at)]) if len(at) else texts
    names = [name for name in list_text_columns(rows.schema) if name in rows.column_names]
    if any(shard.is_typed for shard in rows.shards):
        parts = (range(start, min(start + _ROWS_AT_ONCE, len(rows))) for start in range(0, len(rows), _ROWS_AT_ONCE))
        each = (list(row.values()) for part in parts for row in list_values(rows, part, names))
    else:
        each = (list(values) for values in zip(*(rows.column(name).to_list() for name in names), strict=True))
    found = ["\n".join(text for value in values for text in list_free_texts(value)) for values in each]
    return pl.Series("text", found, dtype=pl.String)


def _iterate_beginnings(text: str) -> Iterator[str]:
    """Yield a text, and what is left of it without its last group of digits, and so on."""
    while groups := list(re.finditer(r"\d+", text)):
        yield text[: groups[-1].end()]
        text = text[: groups[-1].start()]


def find_cards(text: str) -> list[str]:
    """Return the card numbers in a run of digits, which may hold others, such as an expiry date."""
    if is_card(text):
        return [text]
    parts = [part.span() for part in re.finditer(r"\d+", text)]
    cards, first = [], 0
    while first < len(parts):
        # the longest run of whole groups, from this one on, that is a card; then on after it
        runs = [(last, text[parts[first][0] : parts[last][1]]) for last in _find_card_ends(parts, first)]
        last, card = next(((last, run) for last, run in runs if is_card(run)), (first, ""))
        cards += [card] if card else []
        first = last + 1
    return cards


def _find_card_ends(parts: Sequence[tuple[int, int]], first: int) -> list[int]:
    """Return at which groups of digits a card that begins with `first` can end, the last first."""
    ends, n = [], 0
    for last in range(first, len(parts)):
        size = parts[last][1] - parts[last][0]
        n += size
        if size < MIN_CARD_PART or n > CARD_DIGITS[1]:
            break
        if n >= CARD_DIGITS[0]:
            ends.append(last)
    return ends[::-1]


def find_ibans(text: str) -> list[str]:
    """Return the account number at the beginning of a text; words in capitals may follow it."""
    parts = text.split(" ")
    beginnings = (" ".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next(([each] for each in beginnings if is_iban(each)), [])


def is_card(text: str) -> bool:
    """Tell whether 13 to 19 digits, not all equal, pass Luhn's checksum (ISO/IEC 7812-1)."""
    digits = [int(character) for character in text if character.isdigit()]
    if not CARD_DIGITS[0] <= len(digits) <= CARD_DIGITS[1] or len(set(digits)) < 2:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """Tell whether an account number passes ISO 7064 mod 97-10."""
    plain = text.replace(" ", "")
    if not IBAN_LENGTHS[0] <= len(plain) <= IBAN_LENGTHS[1]:
        return False
    turned = plain[4:] + plain[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


def is_public_address(text: str) -> bool:
    """Tell whether a text is an IP address that is reachable from anywhere."""
    try:
        return ip_address(text).is_global
    except ValueError:
        return False
