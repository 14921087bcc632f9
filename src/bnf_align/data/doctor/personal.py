"""Likely personal data in texts: e-mail addresses, phone numbers, card numbers. A help, not a guarantee.

Patterns find what is written in the usual ways and nothing else: no names, no addresses. Numbers that are more often
something else (a bare row of digits, a date, a decimal) are left alone: a mask over them spoils code and maths.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

EMAIL, PHONE, CARD = "e-mail address", "phone number", "card number"
MASKS = {EMAIL: "[e-mail]", PHONE: "[phone]", CARD: "[card]"}
TEXTS = ("prompt", "completion", "chosen", "rejected", "messages", "reason")
"""Columns in which everything is looked for. In others (ids, dates, raters) a digit is no phone number."""

# The look-behind lets only the beginning of a word start a match: without it a megabyte of letters takes hours.
ADDRESS = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w-])")
# It starts with a digit, which the engine looks for at the speed of memory; what may stand around it is checked after.
DIGITS = re.compile(r"[0-9](?:[ ()./-]{0,3}[0-9]){7,22}")
PART_OF_MORE = re.compile(r"[\w.,@/:=&?#%$€£^*_\[-]")
GOES_ON = re.compile(r"[\w%@=]|[.,/:-]\d")
CARD_FORM = re.compile(
    r"\b(?:[2-6]\d{12,18}|[2-6]\d{3}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|3\d{3}([ -])\d{6}\2\d{4,5})\b"
)
PHONE_FORM = re.compile(
    r"\+\d{1,3}[ ./-]?(?:\(\d{1,5}\)|\d)[\d ()./-]{5,16}"  # +49 (0)171 1234567
    r"|00[1-9]\d{0,2}[ /-]\d[\d ()/-]{6,16}"  # 0044 20 7946 0958
    r"|\(?0\d{1,4}\)?[ /-]{1,3}\d[\d -]{4,11}"  # 0171 1234567, (020) 7946 0958
    r"|0\d(?:[ .]\d\d){4}"  # 01 23 45 67 89
    r"|(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[.-]\d{4}"  # (212) 555-0123
)
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
    found = [Span(EMAIL, *match.span()) for match in ADDRESS.finditer(text)] if "@" in text else []
    for match in DIGITS.finditer(text):
        number = _number(text, *match.span())
        if number and not any(other.start < number.end and number.start < other.end for other in found):
            found.append(number)
    return sorted(found, key=lambda span: span.start)


def redact(text: str) -> str:
    """A text with a mask over what is likely personal.

    Example:
        >>> redact("Ann <ann@example.org> pays with 4111 1111 1111 1111")
        'Ann <[e-mail]> pays with [card]'
    """
    return _redacted(text, tuple(MASKS), Counter())


def redact_row(row: Mapping[str, Any]) -> tuple[dict[str, Any], Counter[str]]:
    """A row with masks in its texts, and in other columns over e-mail addresses; and how many of each kind.

    A rater's name may be an address; an id of many digits must stay what it is.
    """
    counts: Counter[str] = Counter()
    kinds = {name: tuple(MASKS) if name in TEXTS else (EMAIL,) for name in row}
    return {name: _masked(value, kinds[name], counts) for name, value in row.items()}, counts


def _masked(value: Any, kinds: tuple[str, ...], counts: Counter[str]) -> Any:
    if isinstance(value, str):
        return _redacted(value, kinds, counts)
    if isinstance(value, list):
        return [_masked(part, kinds, counts) for part in value]
    return {key: _masked(part, kinds, counts) for key, part in value.items()} if isinstance(value, dict) else value


def _redacted(text: str, kinds: tuple[str, ...], counts: Counter[str]) -> str:
    parts, end = [], 0
    for kind, start, stop in find(text):
        if kind in kinds:
            parts += [text[end:start], MASKS[kind]]
            end = stop
            counts[kind] += 1
    return "".join([*parts, text[end:]])


def _number(text: str, start: int, end: int) -> Span | None:
    """What a row of digits and separators is, with the + or ( before it; None if it is part of something else."""
    while start and text[start - 1] in "+(":
        start -= 1
    if GOES_ON.match(text, end) or (start and PART_OF_MORE.match(text, start - 1)):
        return None
    for match in CARD_FORM.finditer(text, start, end):
        if _luhn(re.sub(r"\D", "", match[0])):
            return Span(CARD, *match.span())
    digits = sum(character.isdigit() for character in text[start:end])
    if 8 <= digits <= 15 and PHONE_FORM.fullmatch(text, start, end) and not DATE.search(text, start, end):
        return Span(PHONE, start, end)
    return None


def _luhn(digits: str) -> bool:
    """Whether the check digit of a card number is right (ISO/IEC 7812-1), and it is not one digit over and over."""
    doubled = [int(digit) * (1 + position % 2) for position, digit in enumerate(reversed(digits))]
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0 and len(set(digits)) > 1
