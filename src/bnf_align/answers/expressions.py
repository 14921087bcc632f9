r"""Whether two final answers are the same number or expression, however each is written.

Numbers are compared exactly, and all else by math-verify (https://github.com/huggingface/Math-Verify), which reads
LaTeX. What is taken away before: currency signs, units and other words, thousands marks (`1,000`, `1{,}000`,
`1\,000`, `1 000`, `1'000`), the left side of an equation. `docs/making-data.md` has a table.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from decimal import Decimal
from fractions import Fraction

SECONDS = 5
"""That math-verify may take for one expression."""
LONGEST = 1_000
"""Characters. No final answer is as long, and the patterns below are not made for more."""
SIGNS = str.maketrans(dict.fromkeys("−–—‐‑‒﹣－", "-") | dict.fromkeys("°\u200b\u200c\u200d\u2060\ufeff", ""))
DECORATION = re.compile(r"\*\*|\\\$|\\[()\[\]]|\^\s*\\circ|\^\{\s*\\circ\s*\}|\\(?:left|right|displaystyle)(?![a-z])")
WRITTEN_AS_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|boxed)\s*\{([^{}]*)\}")
THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,|\\[,;:! ]|[ '’_\u00a0\u2009\u202f])(?=\d{3}(?!\d))")
SPACES = re.compile(r"(?<!\\)\\[,;:! ]|~|\\q?quad(?![a-z])|`")
"""LaTeX's, where no thousands follow, and the marks of code."""
DOTS_FOR_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{3}){2,}(?![\d.])|(?<![\d.])\d{1,3}(?:\.\d{3})+,\d+")
LAKHS = re.compile(r"(?<![\d.,(\[])[1-9]\d?(?:,\d\d)+(?=,\d{3}(?![\d,]))")
"""12,34,567: from the thousands on Indian notation marks every two digits."""
MIXED = re.compile(r"(?<![\d.])(\d+)\s+(\d+)\s*/\s*(\d+)")
EXPONENT = re.compile(r"(?<=\d)[eE]([+-]?\d+)(?!\w)")
MINUS = re.compile(r"\b(?:minus|negative)\s+(?=[\d.])")
SCALE = re.compile(
    r"(?<![\d./])((?:\d++\s+)?\d++\s*/\s*\d++|\d++(?:\.\d++)?)\s*(hundred|thousand|million|billion|trillion|dozen)s?\b",
    re.IGNORECASE,
)
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
POWER = re.compile(r"(?<=\d)\s+(squared|cubed)\b(?!\s+[A-Za-z])")
"""Not of `25 squared feet`."""
HEXADECIMAL = re.compile(r"(?<![\w.])0[xX]([\da-fA-F]+)\b")
BASE = re.compile(r"\d_\{?\d+\}?")
"""A number and its base: `1010_2`."""
NOT_THE_NUMBER = re.compile(
    r"\b(?:not|(?:less|fewer|more|greater|other|larger|smaller)\s+than|at\s+(?:least|most)|or\s+equal\s+to|up\s+to"
    r"|under|(?<!\d\s)over|below|above|almost|nearly|half(?:\s+of)?|twice|double|triple)\s+-?\d"
    r"|\d\W*\bor\b.*\d|\d\s+and\s+(?:a|one|two|three)\s+(?:half|halves|thirds?|quarters?|fifths?)\b"
)
"""A bound, a denial, a multiple, or a choice of two: no number is stated."""
TAKEN_BACK = re.compile(
    r"\d\W+(?:no\W+(?:wait\W+)?[$€£]?-?\d|wait\b|actually\W+[$€£]?-?\d|is\s+(?:wrong|incorrect|not)\b)", re.IGNORECASE
)
TIMES = re.compile(r"(?<=\d)\s*[x×]\s*(?=10\^)")
ASIDE = re.compile(r"(?<=\d)\s+\((?:[^()]*[A-Za-z]{2}[^()]*|[\d\s+*/.=×-]+)\)\s*$")
"""A remark after a number: 18 (9 + 9), 18 (since 2 * 9 = 18)."""
EQUALS = re.compile(r"(?<![<>!:])=(?!=)|\\approx(?![a-z])|≈")
CLAUSE = re.compile(r"[;,.(]\s|\s\(|\b(?:because|since|as|for|which|that|so|when|if|after|given|but|where)\b")
"""What a sentence goes on with after its answer."""
PERCENT = re.compile(r"\\?%|\bper\s?cent\b")
WORD = re.compile(r"(?<![\\A-Za-z])(?!(?:sin|cos|tan|log|ln|exp|sqrt|pi|inf)\b)[^\W\d_]{2,}(?:\s*\^\{?-?\d+\}?)?")
UNIT = re.compile(r"(?<=\d)(?:\s+[mscglhdLtCFKNJWVA](?:\^\{?-?\d+\}?)?(?:/[a-z])?|m\^\{?[23]\}?)$")
"""A letter after a number and a space (5 m, 3 s), or metres to a power (25m²)."""
PERCENTAGE = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))\\?(%?)")
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")


def expression(text: str) -> str | None:
    r"""The number or expression that a final answer states, without units and marks; None where it states none.

    Example:
        >>> expression("$9{,}500 a year"), expression("x = 3 1/2"), expression("Paris"), expression("3 or 4 eggs")
        ('9500', '3\\frac{1}{2}', None, None)
    """
    text = DECORATION.sub(" ", text.strip()).translate(SIGNS) if len(text) <= LONGEST else ""
    text = WRITTEN_AS_TEXT.sub(r" \1 ", "".join(map(_in_ascii, text)))
    text = HEXADECIMAL.sub(lambda found: str(int(found[1], 16)), MINUS.sub("-", text))
    text = LAKHS.sub(lambda found: found[0].replace(",", ""), text)
    text = SPACES.sub(" ", THOUSANDS.sub("", text)).strip()
    text = DOTS_FOR_THOUSANDS.sub(lambda found: found[0].replace(".", "").replace(",", "."), text)
    text = SCALE.sub(lambda found: _scaled(found[1], SCALES[found[2].lower()]), text)
    text = POWER.sub(lambda found: {"squared": "^2", "cubed": "^3"}[found[1]], text)
    taken_back, text = TAKEN_BACK.search(text), ASIDE.sub("", TIMES.sub(r"\\times ", text))
    told = CLAUSE.split(text.strip() + " ")[0]
    if taken_back or NOT_THE_NUMBER.search(told if re.search(r"\d", told) else text):
        return None
    text = MIXED.sub(r"\1\\frac{\2}{\3}", PERCENT.sub("%", EXPONENT.sub(r"\\times 10^{\1}", text)))
    sides = EQUALS.split(text)
    text = next((side for side in reversed(sides) if re.search(r"\d", side)), sides[-1])
    if WORD.search(text):
        told = WORD.sub(" ", CLAUSE.split(text.strip() + " ")[0])
        told = told if re.search(r"\d", told) else WORD.sub(" ", text)
        pieces = [piece for piece in told.split() if re.search(r"\d", piece)]
        text = pieces[0].strip(".,:;!?()/") if len(pieces) == 1 else ""
    text = " ".join(text.split()).rstrip(".,;:!? ")
    return re.sub(r"^([+-])\s+(?=\d)|(?<=\d)\s+(?=%)", r"\1", text) or None


def _scaled(number: str, scale: int) -> str:
    """A decimal, a fraction or a mixed fraction, so many times."""
    if "/" not in number:
        return f"{Decimal(number) * scale:f}"
    whole, over, under = re.fullmatch(r"(?:(\d+)\s+)?(\d+)\s*/\s*(\d+)", number).groups()  # type: ignore[union-attr]
    return str(scale * (int(whole or 0) + Fraction(int(over), int(under)))) if int(under) else number


def _in_ascii(character: str) -> str:
    """A fraction or a raised digit in one character (`½`, `²`) as several, and a currency sign as none."""
    if unicodedata.category(character) == "Sc" and character not in "¢￠":  # a cent is no dollar
        return ""
    kind = unicodedata.decomposition(character).partition(" ")[0]
    if kind == "<fraction>":
        return " " + unicodedata.normalize("NFKC", character).replace("\u2044", "/")
    return f"^{unicodedata.digit(character)}" if kind == "<super>" and character.isdigit() else character


def same_expression(answer: str | None, gold: str) -> bool:
    """Whether two results of `expression` have the same value."""
    if answer is None:
        return False
    if NUMBER.fullmatch(answer) and NUMBER.fullmatch(gold):
        return Fraction(answer) == Fraction(gold)
    if all(shares := [PERCENTAGE.fullmatch(one) for one in (answer, gold)]) and "%" in answer + gold:
        # A per cent is both 12.5 and 0.125.
        one, other = ({value := Fraction(share[1]), value / (100 if share[2] else 1)} for share in shares if share)
        return not one.isdisjoint(other)
    if BASE.search(answer + gold):  # math-verify reads no base
        return re.sub(r"[{} ]", "", answer) == re.sub(r"[{} ]", "", gold)
    bare = UNIT.sub("", answer) if not re.search(r"[A-Za-z]", gold) else answer
    return equivalent(bare, gold)


def equivalent(answer: str, gold: str) -> bool:
    """Whether both are the same expression for math-verify, read as LaTeX; a per cent is both 50 and 0.5."""
    from math_verify import LatexExtractionConfig, parse, verify

    # Its other way of reading hands digits and operators to sympy's `parse_expr`, which runs them as Python. Its
    # time limit is a signal, which only the main thread can have.
    seconds = SECONDS if threading.current_thread() is threading.main_thread() else None
    wanted, found = (
        parse(f"${text.strip().strip('$')}$", [LatexExtractionConfig()], parsing_timeout=seconds)
        for text in (gold, answer)
    )
    return bool(verify(wanted, found, timeout_seconds=seconds))
