"""What a quickstart found, for a terminal: a table of before and after, and one sentence that says what it means."""

from __future__ import annotations

from collections.abc import Mapping

from bnf_align.lab.measure import Change, Estimate

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
"""Measurements in nats per token, of the base's own answers to held-out prompts."""

TOLERATED_TAX = 0.02
"""A loss of the second skill that must be excluded before the alignment may be called free."""


def table(measures: Mapping[str, Change]) -> str:
    """One line per measurement: before, after, and the change with its 95 % interval."""
    rows = [_row(ACCURACIES[name], measures[name], 100, 1, " %") for name in ACCURACIES]
    rows += [_row(LOGPS[name], measures[name], 1, 3, "") for name in LOGPS if name in measures]
    head = f"{'':36}{'before':>9}  {'after':>9}  {'change':>9}   95 % interval"
    return "\n".join([head, "-" * len(head), *rows])


def _row(title: str, found: Change, scale: int, digits: int, unit: str) -> str:
    before, after = (f"{scale * side.mean:.{digits}f}{unit}" for side in (found.before, found.after))
    change = found.change
    low, high = f"{scale * change.low:+.{digits}f}", f"{scale * change.high:+.{digits}f}"
    return f"{title:<36}{before:>9}  {after:>9}  {scale * change.mean:>+9.{digits}f}   {low} to {high}"


def conclusion(measures: Mapping[str, Change], prompts: int) -> str:
    """One sentence: whether the trained skill improved, whether that cost the other skill or the greedy answers.

    Args:
        measures: Every measurement of `ACCURACIES`.
        prompts: How many prompts each is the mean over.
    """
    gain, tax, greedy = (measures[name].change for name in ("math sampled", "sort sampled", "math greedy"))
    if gain.low > 0:
        verdict = "BNF raised the accuracy of sampled math answers"
    elif gain.high < 0:
        verdict = "BNF lowered the accuracy of sampled math answers"
    else:
        verdict = "no effect of BNF on sampled math answers can be told from chance"
    # Where all of n prompts agree the bootstrap sees no spread, yet up to 3 in n may differ (the rule of three).
    excluded = "excludes" if tax.low > -TOLERATED_TAX and prompts * TOLERATED_TAX > 3 else "does not exclude"
    sentence = (
        f"On {prompts:,} fresh prompts {verdict}: {_points(gain)}; sort, the skill without feedback, changed by "
        f"{_points(tax)}, which {excluded} a loss of {100 * TOLERATED_TAX:.0f} points"
    )
    if greedy.high < 0:
        sentence += f"; greedy math answers got worse, {_points(greedy)}"
    return sentence + "."


def _points(change: Estimate) -> str:
    return f"{100 * change.mean:+.1f} points (95 % interval {100 * change.low:+.1f} to {100 * change.high:+.1f})"
