"""How scored candidates, or pairs, become preference rows: every choice by name, and none of them silent."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from bnf_align.records import BadInput

OF_PAIRS = ("margin", "pairing_ratio", "near_identical")
OF_THUMBS = ("threshold", "top", "bottom", "repeats")


@dataclass(frozen=True)
class Choice:
    """How rows are selected.

    Raises:
        BadInput: For shares and ratios outside 0..1, or more than one way to make thumbs.
    """

    unpaired: bool = False
    """Thumbs instead of pairs: needs `threshold`, or `top` and `bottom`."""
    threshold: float | None = None
    """Scores from here on are ups, others downs."""
    top: float | None = None
    """The best share of all candidates are ups ..."""
    bottom: float | None = None
    """... and the worst share downs; what lies between is left out."""
    repeats: str = "keep"
    """Candidates of a prompt that say the same: "keep" them all as thumbs, or "drop" all but the first. Then an
    answer no longer counts as often as the model gave it: in the quickstart's world, where right answers repeat and
    wrong ones differ, 2,854 ups of 5,000 thumbs became 988 of some 3,000, and the model collapsed."""
    margin: float = 0.0
    """A pair's scores must differ by more than this."""
    pairing_ratio: float = 1.0
    """Share of the pairs that stay pairs; of each other one a side is left out at random, of half the chosen one."""
    balance: bool = False
    """Leave out thumbs of the more frequent kind at random until both are equally many."""
    near_identical: str = "keep"
    """Near-identical pairs: "keep" or "drop" them; they are counted either way."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("top", "bottom", "pairing_ratio"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise BadInput(f"{_flag(name)} {value}: a share lies between 0 and 1.")
        if self.near_identical not in ("keep", "drop"):
            raise BadInput(f"--near-identical {self.near_identical}: choose keep or drop.")
        if self.repeats not in ("keep", "drop"):
            raise BadInput(f"--repeats {self.repeats}: choose keep or drop.")
        if not 0 <= self.margin < math.inf:
            raise BadInput(f"--margin {self.margin}: a pair whose sides score alike says nothing; choose 0 or more.")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise BadInput(f"--threshold {self.threshold}: no score is compared with that; choose a number.")
        self._only_its_own()
        given = [value is not None for value in (self.threshold, self.top, self.bottom)]
        shares = all(given[1:])
        if self.unpaired and given not in ([True, False, False], [False, True, True]):
            raise BadInput("--unpaired needs one way to tell ups from downs: --threshold T, or --top and --bottom.")
        if self.unpaired and shares and (self.top or 0) + (self.bottom or 0) > 1:
            raise BadInput("--top and --bottom together are more than all candidates.")

    def _only_its_own(self) -> None:
        """A setting of the other kind of rows would do nothing, unsaid."""
        others = OF_PAIRS if self.unpaired else OF_THUMBS
        defaults = {entry.name: entry.default for entry in fields(self)}
        if set_ := [name for name in others if getattr(self, name) != defaults[name]]:
            kind = "pairs, and --unpaired makes none" if self.unpaired else "--unpaired, which was not given"
            raise BadInput(f"{_flag(set_[0])} is for {kind}.")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
