"""Likely personal data and secrets in texts, found and masked. A help, not a guarantee.

Patterns find what is written in the usual ways and nothing else: no names, no addresses. Numbers that are more often
something else (a bare row of digits, a date, a decimal, an operand) are left alone: a mask over them spoils code and
maths. What has a check digit or a numbering plan has to pass it: cards, IBANs, phone numbers.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import phonenumbers

from bnf_align.data.doctor.secrets import SECRETS, find_secrets
from bnf_align.data.ledger import Ledger
from bnf_align.records import Finding, rows_text

EMAIL, PHONE, CARD = "e-mail address", "phone number", "card number"
IBAN, SSN = "IBAN", "US social security number"
MASKS = {EMAIL: "[e-mail]", PHONE: "[phone]", CARD: "[card]", IBAN: "[iban]", SSN: "[ssn]"}
MASKS |= dict.fromkeys(SECRETS, "[secret]")
TEXTS = ("prompt", "completion", "chosen", "rejected", "messages", "reason")
"""Columns in which everything is looked for. In others (ids, dates, raters) a digit is no phone number."""
ANYWHERE = (EMAIL, *SECRETS)
"""What is looked for in every column."""

# From the @ on, which is found at the speed of memory; what stands before it is looked at then.
DOMAIN = re.compile(r"@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w-])")
MAILBOX = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}\Z")
# It starts with a digit, which the engine looks for at the speed of memory; what may stand around it is checked after.
DIGITS = re.compile(r"[0-9](?:[ ()./-]{0,3}[0-9]){7,22}")
NO_DIGITS = bytes(set(range(256)) - set(b"0123456789"))
PART_OF_MORE = re.compile(r"[\w.,@/:=&?#%$€£^*_\[-]")
GOES_ON = re.compile(r"[\w%@=]|[.,/:-]\d")
CARD_FORM = re.compile(  # not the digits of a decimal
    r"(?<![\w.,])(?:[2-6]\d{12,18}|[2-6]\d{3}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|3\d{3}([ -])\d{6}\2\d{4,5})"
    r"(?!\w|[.,]\d)"
)
OPERATOR = r"(?:[-+*/^=<>×÷·≈−]|\\(?:times|cdot|div|approx))"
OPERATOR_BEFORE = re.compile(rf"(?:[\d)}}\]]|\b[A-Za-z])[ \t]*{OPERATOR}[ \t]*$")
OPERATOR_AFTER = re.compile(rf"[ \t]*{OPERATOR}[ \t]*[\d(\\]")
IBAN_FORM = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
SSN_FORM = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\d-])")
PHONE_FORM = re.compile(
    r"\+\d{1,3}[ ./-]?(?:\(\d{1,5}\)|\d)[\d ()./-]{5,16}"  # +49 (0)171 1234567
    r"|00[1-9]\d{0,2}[ /-]\d[\d ()/-]{6,16}"  # 0044 20 7946 0958
    r"|\(?0\d{1,4}\)?[ /-]{1,3}\d[\d -]{4,11}"  # 0171 1234567, (020) 7946 0958
    r"|0\d(?:[ .]\d\d){4}"  # 01 23 45 67 89
    r"|(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[.-]\d{4}"  # (212) 555-0123
)
REGIONS = ("GB", "DE", "FR", "IT", "NL", "BE", "CH", "AT", "SE", "PL", "AU", "NZ", "IN", "JP", "KR", "CN", "ZA", "BR")
"""Whose numbers are looked for where none says its country and it begins with a 0; else it is North America's."""
DATE = re.compile(r"\d{1,4}([./-])\d{1,2}\1\d{1,4}\b")


class Span(NamedTuple):
    """One place in a text."""

    kind: str
    start: int
    end: int


def find(text: str) -> list[Span]:
    """What is likely personal in a text, from left to right.

    Example:
        >>> find("Call (212) 555-0123 on 2024-01-02 10:30")
        [Span(kind='phone number', start=5, end=19)]
    """
    found = [Span(*secret) for secret in find_secrets(text)]
    if "@" in text:
        found += _addresses(text)
    # To count digits takes a fraction of the time of looking for eight in a row; every country's IBAN has them, too.
    if len(text.encode(errors="replace").translate(None, NO_DIGITS)) >= 8 and (numbers := list(DIGITS.finditer(text))):
        found += _ibans(text)
        found += [number for match in numbers if (number := _number(text, *match.span()))]
    apart: list[Span] = []
    for span in sorted(found, key=lambda span: span.start):
        if apart and span.start < apart[-1].end:  # under one mask, so that no half of a secret is left
            apart[-1] = apart[-1]._replace(end=max(span.end, apart[-1].end))
        else:
            apart.append(span)
    return apart


def redact(text: str, kinds: tuple[str, ...] = tuple(MASKS)) -> str:
    """A text with a mask over what is likely personal or secret.

    Example:
        >>> redact("Ann <ann@example.org> pays with 4111 1111 1111 1111")
        'Ann <[e-mail]> pays with [card]'
    """
    return str(_masked(text, kinds, Counter()))


def redact_row(row: Mapping[str, Any]) -> tuple[dict[str, Any], Counter[str]]:
    """A row with masks in its texts, and in others over e-mail addresses and secrets; and how many of each kind.

    A rater's name may be an address; an id of many digits must stay what it is.
    """
    counts: Counter[str] = Counter()
    kinds = {name: tuple(MASKS) if name in TEXTS else ANYWHERE for name in row}
    return {name: _masked(value, kinds[name], counts) for name, value in row.items()}, counts


def _masked(value: Any, kinds: tuple[str, ...], counts: Counter[str]) -> Any:
    if isinstance(value, list):
        return [_masked(part, kinds, counts) for part in value]
    if isinstance(value, dict):
        return {key: _masked(part, kinds, counts) for key, part in value.items()}
    if not isinstance(value, str):
        return value
    parts, end = [], 0
    for kind, start, stop in find(value):
        if kind in kinds:
            parts += [value[end:start], MASKS[kind]]
            end = stop
            counts[kind] += 1
    return "".join([*parts, value[end:]])


def _number(text: str, start: int, end: int) -> Span | None:
    """What a row of digits and separators is, with the + or ( before it; None if it is part of something else."""
    while start and text[start - 1] in "+(":
        start -= 1
    labelled = text[start - 1 : start] == ":" and text[start - 2 : start - 1].isalpha()
    if GOES_ON.match(text, end) or (start and not labelled and PART_OF_MORE.match(text, start - 1)):
        return None
    for match in CARD_FORM.finditer(text, start, end):
        begin, stop = match.span()
        summed = OPERATOR_BEFORE.search(text[max(begin - 24, 0) : begin]) or OPERATOR_AFTER.match(text, stop)
        if _luhn(re.sub(r"\D", "", match[0])) and not summed:
            return Span(CARD, begin, stop)
    if ssn := SSN_FORM.search(text, start, end):
        return Span(SSN, *ssn.span())
    digits = sum(character.isdigit() for character in text[start:end])
    if not 8 <= digits <= 15 or DATE.search(text, start, end) or not PHONE_FORM.fullmatch(text, start, end):
        return None
    return Span(PHONE, start, end) if _in_numbering_plan(text[start:end]) else None


def _addresses(text: str) -> Iterator[Span]:
    for domain in DOMAIN.finditer(text):
        if mailbox := MAILBOX.search(text[max(domain.start() - 65, 0) : domain.start()]):
            yield Span(EMAIL, domain.start() - len(mailbox[0]), domain.end())


def _ibans(text: str) -> Iterator[Span]:
    """Account numbers whose check digits are right (ISO 13616: modulo 97), at their ends or before other capitals."""
    for match in IBAN_FORM.finditer(text):
        for group in reversed(list(re.finditer(r"[A-Z0-9]+", match[0]))):
            account = re.sub(r"[ -]", "", match[0][: group.end()])
            digits = "".join(str(int(character, 36)) for character in account[4:] + account[:4])
            if 15 <= len(account) <= 34 and int(digits) % 97 == 1:
                yield Span(IBAN, match.start(), match.start() + group.end())
                break


def _in_numbering_plan(number: str) -> bool:
    """Whether a country gives such numbers: the one it names, or one of those that write numbers in its form."""
    regions: tuple[str | None, ...] = REGIONS if number.lstrip("(").startswith("0") else ("US",)
    if number.startswith(("+", "00")):
        number, regions = "+" + number.removeprefix("00").removeprefix("+"), (None,)
    for region in regions:
        with suppress(phonenumbers.NumberParseException):
            if phonenumbers.is_valid_number(phonenumbers.parse(number, region)):
                return True
    return False


def _luhn(digits: str) -> bool:
    """Whether the check digit of a card number is right (ISO/IEC 7812-1), and it is not one digit over and over."""
    doubled = [int(digit) * (1 + position % 2) for position, digit in enumerate(reversed(digits))]
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0 and len(set(digits)) > 1


SAID = {
    "secrets": "likely keys and tokens ({}): {}. Whoever has the file, or hears them from the model, can use them: "
    "revoke them where they were made; --fix OUT --redact writes the rows with masks over them",
    "personal_data": "likely personal data ({}): {}. A model can learn it by heart; "
    "--fix OUT --redact writes the rows with masks over it",
}


class Privacy:
    """Looks for personal data and secrets in all texts of rows."""

    def __init__(self) -> None:
        self._rows: dict[str, array] = defaultdict(lambda: array("q"))

    def add(self, number: int, texts: Iterable[str]) -> None:
        """Look through the texts of the row with a number."""
        for kind in {found.kind for found in find("\n".join(texts))}:
            self._rows[kind].append(number)

    def findings(self, ledger: Ledger) -> list[Finding]:
        """The rows kept that have any, and how many have each kind."""
        kept = ledger.numbers[ledger.kept]
        found: dict[str, dict[str, np.ndarray]] = {name: {} for name in SAID}
        for kind, numbers in self._rows.items():
            if len(rows := np.intersect1d(np.array(numbers), kept)):
                found["secrets" if kind in SECRETS else "personal_data"][kind] = rows
        findings = []
        for name, kinds in found.items():
            if kinds:
                everywhere = np.unique(np.concatenate(list(kinds.values()))).tolist()
                listed = ", ".join(f"{kind} in {len(rows):,}" for kind, rows in kinds.items())
                figures = {kind: float(len(rows)) for kind, rows in kinds.items()}
                text = SAID[name].format(listed, rows_text(everywhere))
                findings.append(Finding(name, text, everywhere, figures=figures))
        return findings
