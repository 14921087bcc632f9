"""What became better or worse, as the records say it, and the sentence that a page begins with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from bnf_align.report.comparison import FEW
from bnf_align.report.inputs import Document
from bnf_align.report.subjects import method_of
from bnf_align.report.table import Change, Value
from bnf_align.report.tax import Pair

FOUND = {"better": "Better", "worse": "Worse", "none": "No difference found"}
SYMBOLS = {"green": "●", "amber": "▲", "red": "■"}
"""So that colour alone says nothing."""
UNKNOWN = "?"
BY_INTERVAL = "the 95 % interval over prompts leaves out 0"
BY_HOLM = "p < 0.05 over prompts and seeds, corrected for all differences of the comparison"
BY_ITEMS = "p < 0.05 in McNemar's exact test on the same items"


def changes_of(documents: Iterable[Document], pairs: Iterable[Pair]) -> list[Change]:
    """Every before and after of the records: of quickstarts, comparisons with their base, results with their items."""
    readers = {"quickstart": _of_quickstart, "comparison": _of_comparison}
    found = [change for one in documents if one.kind in readers for change in readers[one.kind](one)]
    return found + list(_of_results(pairs))


def _of_quickstart(document: Document) -> Iterator[Change]:
    for name, found in document.data["measures"].items():
        outcome = not name.startswith("logps")  # an accuracy; where answers are to go, their likelihood does not say
        scale, digits = (100, 1) if outcome else (1, 3)
        before, after, difference = (Value.of(found[which], scale) for which in ("before", "after", "change"))
        low, high = found["change"]["low"], found["change"]["high"]
        verdict: Any = ("better" if low > 0 else "worse" if high < 0 else "none") if outcome else ""
        unit, shown = ("%", name) if outcome else ("nats per token", name.replace("logps", "log-probability of"))
        test = BY_INTERVAL if outcome else "a likelihood, which is neither better nor worse"
        yield Change("BNF", shown, unit, digits, before, after, difference, verdict, str(document.path), test)


def _of_comparison(document: Document) -> Iterator[Change]:
    record = document.data
    measures = {one["name"]: one for one in record["measures"]}
    for one in record["differences"]:
        if one["second"] != "base":
            continue
        measure, name = measures[one["measure"]], one["first"]
        before, after = (Value.of(record["methods"][of]["values"][one["measure"]]) for of in ("base", name))
        difference = Value(one["difference"], one["low"], one["high"])
        verdict: Any = ("better" if one["difference"] > 0 else "worse") if one["real"] else "none"
        about = (method_of(name), one["measure"], measure["unit"], measure["digits"])
        yield Change(*about, before, after, difference, verdict, str(document.path), BY_HOLM)


def _of_results(pairs: Iterable[Pair]) -> Iterator[Change]:
    for measure, subject, base, found in pairs:
        if found is None:
            continue
        before, after = (None if (value := measure.value(one)) is None else Value(value) for one in (base, subject))
        difference = Value(*(100 * value for value in (found.difference, *found.interval)))
        verdict: Any = ("better" if found.difference > 0 else "worse") if found.p_value < 0.05 else "none"
        file = str(subject.results[measure.task].path)
        yield Change(subject.label, measure.name, "%", 1, before, after, difference, verdict, file, BY_ITEMS)


@dataclass(frozen=True)
class Trained:
    """One training, and how it says that it is."""

    folder: str
    method: str
    colour: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """What a colleague reads first."""

    headline: str
    colour: str
    """Of the health of what was trained: `green`, `amber`, `red`, or empty where no record says it."""
    trust: list[tuple[str, str]]
    """Symbol and sentence, of everything that bears on whether to believe the numbers."""


def verdict_of(changes: Sequence[Change], documents: Sequence[Document]) -> Verdict:
    """The first sentence of a page, and what it stands on."""
    trained = _trained(documents)
    named = {one.method for one in changes}
    of_these = [one for one in trained if one.method in named] or trained  # those that the changes are of, if known
    return Verdict(
        f"{_headline(changes, documents)}.{_trust(of_these)}",
        _worst(of_these),
        [*_health(trained), *_caveats(changes, documents)],
    )


def _headline(changes: Sequence[Change], documents: Sequence[Document]) -> str:
    several = len({one.method for one in changes}) > 1
    said = []
    for found, word in FOUND.items():
        by_measure: dict[str, list[Change]] = {}
        for one in changes:
            if one.found == found:
                by_measure.setdefault(one.measure, []).append(one)
        parts = [
            f"{measure} with {_listed([one.method for one in own])}" if several and found != "none" else _moved(own[0])
            for measure, own in by_measure.items()
        ]
        if found == "none":  # of a measure in which one method differs, the others say nothing here
            named = {one.measure for one in changes if one.found in ("better", "worse")}
            parts = [measure for measure in by_measure if measure not in named]
        if parts:
            said.append(f"{word} {'in' if found == 'none' else 'at'} {_listed(parts)}")
    if said and not any(one.found == "worse" for one in changes):
        said.append("nothing that was measured got worse")
    if not said:
        said.append("Whether answers became better was not measured")
    sentence = "; ".join([said[0], *(part[0].lower() + part[1:] for part in said[1:])])
    running = [one.data for one in documents if one.kind == "health" and not one.data.get("finished", True)]
    if running:
        steps = running[0].get("max_steps") or "an unknown number"
        sentence = f"Training is at step {running[0].get('step')} of {steps}"
    elif not documents:
        sentence = "Nothing is recorded here yet"
    return sentence


def _trust(trained: Sequence[Trained]) -> str:
    if not trained:
        return ""
    worst, one = _worst(trained), len(trained) == 1
    if worst == "green":
        return " The training looks healthy." if one else f" All {len(trained)} trainings look healthy."
    count = sum(found.colour == worst for found in trained)
    who = "The training is" if one else f"{count} of {len(trained)} trainings {'is' if count == 1 else 'are'}"
    return (
        f" {who} {worst}: {'do not trust it as it is' if worst == 'red' else 'look at answers before you trust it'}."
    )


def _moved(change: Change) -> str:
    if change.before is None or change.after is None:
        return change.measure
    before, after = (Value(one.mean).text(change.digits) for one in (change.before, change.after))
    return f"{change.measure} ({before} → {after}\u00a0{change.unit})"


def _trained(documents: Sequence[Document]) -> list[Trained]:
    """Every training that says how it is, by its run.json, or by its health.json while there is none."""
    found: dict[str, Trained] = {}
    for one in sorted(documents, key=lambda one: one.kind):  # health before run
        folder = str(one.path.parent)
        if one.kind == "health" and one.data["colour"] in SYMBOLS:
            found[folder] = Trained(folder, "", one.data["colour"], one.data["text"])
        if one.kind == "run" and one.data.get("health") in SYMBOLS:
            method = method_of(one.data["loss_type"])
            found[folder] = Trained(folder, method, one.data["health"], one.data.get("verdict", ""))
    return list(found.values())


def _worst(trained: Sequence[Trained]) -> str:
    return max((one.colour for one in trained), key=list(SYMBOLS).index, default="")


def _health(trained: Sequence[Trained]) -> list[tuple[str, str]]:
    if not trained:
        return [(UNKNOWN, "The health of the training is not recorded.")]
    if len(trained) <= 3:
        names = [f"{one.method or PurePath(one.folder).name}: " if len(trained) > 1 else "" for one in trained]
        return [(SYMBOLS[one.colour], f"{name}{one.text}") for name, one in zip(names, trained, strict=True)]
    of = {colour: [PurePath(one.folder).name for one in trained if one.colour == colour] for colour in SYMBOLS}
    named = [
        f"{len(own)} {colour}{'' if colour == 'green' else f' ({_listed(own)})'}" for colour, own in of.items() if own
    ]
    return [(SYMBOLS[_worst(trained)], f"Health of {len(trained)} trainings: {', '.join(named)}.")]


def _caveats(changes: Sequence[Change], documents: Sequence[Document]) -> Iterator[tuple[str, str]]:
    for one in documents:
        if one.kind == "comparison":
            seeds = len(one.data["seeds"])
            prompts = ", ".join(f"{found['name']} on {found['prompts']:,} prompts" for found in one.data["measures"])
            enough = "" if seeds >= FEW else f" Fewer than {FEW}: another seed may come out otherwise."
            yield ("●" if seeds >= FEW else "▲", f"{seeds} seeds were trained and measured: {prompts}.{enough}")
        if one.kind == "quickstart":
            yield "▲", f"One seed was trained ({one.data.get('seed')}): another may come out otherwise."
        if one.kind == "quickstart" and one.data["conclusion"]:
            yield "–", str(one.data["conclusion"])
    if not changes:
        yield (
            UNKNOWN,
            "No record here has a before and an after: a comparison, or results with their items and a base.",
        )
    if unread := [one for one in documents if one.kind == "unread"]:
        yield "▲", f"Files that could not be read: {_listed([str(one.path) for one in unread])}."


def _listed(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
