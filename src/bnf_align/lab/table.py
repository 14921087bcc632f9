"""What a quickstart found, for a terminal: a table of before and after, and one sentence that says what it means."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from bnf_align.evaluation.ranks import half_up

ACCURACIES = {
    "math sampled": "math, sampled at T = 0.8",
    "math greedy": "math, greedy",
    "sort sampled": "sort, sampled: not in the feedback",
    "sort greedy": "sort, greedy: not in the feedback",
}
"""Measurements that are shares of prompts answered right, and what the table calls them."""

LOGPS = {
    "logps up": "log-prob. per token, right answers",
    "logps down": "log-prob. per token, wrong answers",
}
"""Measurements in nats per token, of the base's own answers to fresh prompts."""

TOLERATED_TAX = 0.02
"""A loss of the second skill that must be excluded before the alignment may be called free."""


def table(result: Mapping[str, Any]) -> str:
    """The contents of `quickstart.json` for a person: one line per measurement, and what they mean."""
    head = f"{'':36}{'before':>9}  {'after':>9}  {'change':>9}   95 % interval"
    measures = result["measures"]
    rows = [_row(title, measures[name], 100, 1, " %") for name, title in ACCURACIES.items()]
    rows += [_row(title, measures[name], 1, 3, "") for name, title in LOGPS.items() if name in measures]
    conclusion = textwrap.fill(result["conclusion"], len(head))
    counts, seconds = result["preferences"], sum(result["seconds"].values())
    heading = (
        f"A tiny model was given {counts['ups']:,} thumbs up and {counts['downs']:,} thumbs down for its own answers "
        f"to math.\n{result['settings']['steps']} steps of BNF, seed {result['seed']}, {seconds:.0f} seconds in all:"
    )
    return "\n".join(["", heading, "", head, "-" * len(head), *rows, "", conclusion, "", methods(result)])


def methods(result: Mapping[str, Any]) -> str:
    """A line for each method: what it gave on the same prompts, and how far that is from BNF."""
    head = f"{'method':<16}{'math, sampled':>15}   {'against BNF (95 % interval)':<29}{'sort, sampled':>13}  health"
    lines = []
    for method, found in result["methods"].items():
        math, sort = (f"{100 * found[f'{skill} sampled']['after']['mean']:.1f} %" for skill in ("math", "sort"))
        mean, low, high = (
            f"{100 * found['math sampled']['against_bnf'][end]:+.1f}" for end in ("mean", "low", "high")
        )
        against = "" if method == "bnf" else f"{mean} ({low} to {high})"
        lines.append(f"{method:<16}{math:>15}   {against:<29}{sort:>13}  {result['health'].get(method, '')}")
    note = (
        "The same steps, answers per step and learning rate for all, none of them tuned, one seed: `bnf-align "
        "compare` tunes each method and uses several seeds."
    )
    return "\n".join([head, "-" * len(head), *(line.rstrip() for line in lines), "", textwrap.fill(note, len(head))])


def _row(title: str, found: Mapping[str, Mapping[str, float]], scale: int, digits: int, unit: str) -> str:
    before, after = (f"{half_up(scale * found[side]['mean'], digits)}{unit}" for side in ("before", "after"))
    change, low, high = (_signed(scale * found["change"][end], digits) for end in ("mean", "low", "high"))
    return f"{title:<36}{before:>9}  {after:>9}  {change:>9}   {low} to {high}"


def conclude(measures: Mapping[str, Any], prompts: int) -> str:
    """One sentence: whether the trained skill improved, whether that cost the other skill or the greedy answers.

    Each of the `measures` of `quickstart.json` that is an accuracy is the mean over so many `prompts`.
    """
    gain, tax, greedy = (measures[name]["change"] for name in ("math sampled", "sort sampled", "math greedy"))
    if gain["low"] > 0:
        verdict = "BNF raised the accuracy of sampled math answers"
    elif gain["high"] < 0:
        verdict = "BNF lowered the accuracy of sampled math answers"
    else:
        verdict = "no effect of BNF on sampled math answers can be told from chance"
    # Where all of n prompts agree the bootstrap sees no spread, yet up to 3 in n may differ (the rule of three).
    excluded = tax["low"] > -TOLERATED_TAX and prompts * TOLERATED_TAX > 3
    sentence = (
        f"On {prompts:,} fresh prompts {verdict}: {_points(gain)}; sort, the skill without feedback, changed by "
        f"{_points(tax)}, which {'excludes' if excluded else 'does not exclude'} a loss of 2 points"
    )
    if greedy["high"] < 0:
        sentence += f"; greedy math answers got worse, {_points(greedy)}"
    return sentence + "."


def _points(change: Mapping[str, float]) -> str:
    mean, low, high = (_signed(100 * change[end]) for end in ("mean", "low", "high"))
    return f"{mean} points (95 % interval {low} to {high})"


def _signed(value: float, digits: int = 1) -> str:
    shown = half_up(value, digits)  # as the report rounds
    return shown if shown.startswith("-") else f"+{shown}"
