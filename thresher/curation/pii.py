"""Personal data and secrets: e-mail addresses, telephone numbers, cards, accounts, addresses of machines, keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import ClassVar

import numpy as np
import polars as pl

from thresher.checks import check_one_of
from thresher.curation.normalise import plain_texts
from thresher.curation.rule import Rows
from thresher.curation.verdict import Verdict
from thresher.errors import MissingExtraError, SettingsError, did_you_mean

ACTIONS = ("report", "mask", "drop")
PHONE = "phone"
# Rust's regular expressions: their time is linear in the text, whatever it holds. What they find is checked below.
PATTERNS = {
    "key": (
        r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,255}\b|"
        r"\bgithub_pat_[A-Za-z0-9_]{22,255}\b|\bsk-[A-Za-z0-9_-]{20,200}\b|\bxox[abprs]-[A-Za-z0-9-]{10,200}\b|"
        r"\bAIza[0-9A-Za-z_-]{35}\b|\bhf_[A-Za-z0-9]{30,64}\b|"
        r"\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,1000}"
    ),
    "email": r"\b[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b",
    "iban": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
    "credit-card": r"\b\d(?:[ -]?\d){12,18}\b",
    "ip": r"\b(?:\d{1,3}\.){3}\d{1,3}\b|(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,7}",
    PHONE: r"\+?\(?\d[\d ().\-/]{5,22}\d",
}
IBAN_LENGTHS = (15, 34)
NOT_PERSONAL = ("example.com", "example.org", "example.net")  # reserved for documentation, RFC 2606


@dataclass(frozen=True, kw_only=True)
class Pii:
    """Find personal data and secrets; report the rows, mask what was found, or drop them.

    Found are e-mail addresses, telephone numbers (valid ones by phonenumbers, Apache-2.0; without a `region` only
    those with a country code), credit cards (Luhn's checksum), IBANs (ISO 7064 mod 97), public IP addresses, and keys
    of known forms (AWS, GitHub, OpenAI, Slack, Google, Hugging Face, private keys, JSON web tokens). Candidates are
    found by regular expressions in linear time, in the prompt and the response, and checked one by one.

    A mask puts [EMAIL], [PHONE], [CREDIT-CARD], [IBAN], [IP] or [KEY] in the place of each finding, in the columns that
    the schema reads; the rows as they were stand in `masked.jsonl`, which is as private as the pool.

    Cost: a few passes over the texts. Needs: the package phonenumbers, unless `kinds` leaves telephone numbers out.
    Fails: names and postal addresses are not found: no pattern tells them, and models that do are no light dependency.

    Attributes:
        action: "report" keeps the rows with a finding, "mask" changes their texts, "drop" drops them.
        kinds: what to look for: key, email, iban, credit-card, ip, phone.
        region: country whose national telephone numbers are known too, such as "US" or "DE"; not set: none.
    """

    name: ClassVar[str] = "pii"
    is_private: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()

    action: str = "mask"
    kinds: tuple[str, ...] = tuple(PATTERNS)
    region: str | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: a kind is unknown, or there is none.
        """
        check_one_of(self.name, "action", self.action, ACTIONS)
        unknown = [kind for kind in self.kinds if kind not in PATTERNS]
        if unknown or not self.kinds:
            hint = did_you_mean(str(unknown[0]), PATTERNS) if unknown else ""
            raise SettingsError(f"{self.name}: kinds must be among {', '.join(PATTERNS)}, got {self.kinds!r}{hint}")

    def check(
        self,
        pool: Rows,
        *,
        existing: Rows | None,
        eval: Rows | None,  # noqa: A002
        rng: np.random.Generator,
    ) -> Verdict:
        """Find, and say what was found where; the finding itself is not repeated in the explanation."""
        texts = plain_texts(pool.dataset, "row")
        found = self._found(texts)
        told: list[str | None] = [None] * len(texts)
        for row, items in found.items():
            kinds = [kind for kind, _ in items]
            told[row] = "holds " + ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        explanation = pl.Series("explanation", told, dtype=pl.String)
        has = explanation.is_not_null()
        drop = has if self.action == "drop" else pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(texts))
        reason = pl.select(pl.when(pl.lit(drop)).then(pl.lit("personal-data"))).to_series()
        kinds = [kind for items in found.values() for kind, _ in items]
        return Verdict(
            reason=reason,
            explanation=explanation,
            is_masked=has.to_numpy() if self.action == "mask" else None,
            notes={kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        )

    def mask(self, texts: pl.Series) -> pl.Series:
        """Return texts with [EMAIL] and the like in the place of each finding, (n,)."""
        values = texts.to_list()
        for row, items in self._found(texts).items():
            for kind, item in sorted(items, key=lambda pair: -len(pair[1])):  # a longer one may hold a shorter one
                values[row] = values[row].replace(item, f"[{kind.upper()}]")
        return pl.Series(texts.name, values, dtype=pl.String)

    def _found(self, texts: pl.Series) -> dict[int, list[tuple[str, str]]]:
        """Return row -> what was found there: kind and text. A text that two kinds claim counts for the first."""
        is_valid = self._checks()
        found: dict[int, list[tuple[str, str]]] = {}
        for kind in (kind for kind in PATTERNS if kind in self.kinds):
            frame = texts.alias("text").to_frame().with_row_index("row")
            hits = (
                frame.filter(pl.col("text").str.contains(PATTERNS[kind]))
                .select("row", pl.col("text").str.extract_all(PATTERNS[kind]))
                .explode("text")
                .unique(maintain_order=True)
            )
            for row, item in hits.iter_rows():
                mine = found.get(row, [])
                if is_valid[kind](item) and not any(item in other for _, other in mine):
                    found.setdefault(row, []).append((kind, item))
        return found

    def _checks(self) -> Mapping[str, Callable[[str], bool]]:
        """Return for each kind how a candidate is checked.

        Raises:
            MissingExtraError: telephone numbers are wanted and phonenumbers is not installed.
        """
        checks: dict[str, Callable[[str], bool]] = {
            "key": lambda _: True,
            "email": lambda text: text.rpartition("@")[2].lower() not in NOT_PERSONAL,
            "iban": is_iban,
            "credit-card": is_card,
            "ip": is_public_address,
        }
        if PHONE in self.kinds:
            try:
                import phonenumbers
            except ModuleNotFoundError:
                raise MissingExtraError("phonenumbers", f"the rule '{self.name}'", "pii") from None

            def is_phone(text: str) -> bool:
                if self.region is None and not text.startswith("+"):
                    return False
                try:
                    number = phonenumbers.parse(text, self.region)
                except phonenumbers.NumberParseException:
                    return False
                return bool(phonenumbers.is_valid_number(number))

            checks[PHONE] = is_phone
        return checks


def is_card(text: str) -> bool:
    """Tell whether 13 to 19 digits pass Luhn's checksum (ISO/IEC 7812-1); a run of one digit is none."""
    digits = [int(character) for character in text if character.isdigit()]
    if len(set(digits)) < 2:
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
