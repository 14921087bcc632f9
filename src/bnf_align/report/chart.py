"""Where the lines, ticks and marks of a picture lie; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from bnf_align.records import is_number

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 46
STRIP = 8
"""Height of the strip that says the health of each log line."""
MOST = 500
"""Points of a line that are drawn; of longer ones every so manyth."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One line: its name and where it goes, with a gap wherever a value is missing or not finite."""

    name: str
    paths: list[str]
    dots: list[tuple[float, float]]
    """Of values that have no neighbour to be joined with."""
    last: str


@dataclass(frozen=True)
class Picture:
    """A line chart, in units of `WIDTH` by `HEIGHT`."""

    title: str
    unit: str
    alt: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    guides: list[tuple[float, str, str]] = field(default_factory=list)
    """Height, text and colour of a threshold."""
    strip: list[tuple[float, float, str]] = field(default_factory=list)
    """From, width and colour of neighbouring log lines of one health."""


def line_chart(
    title: str,
    unit: str,
    history: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
    guides: Mapping[str, tuple[float, str]] | None = None,
    ends: tuple[float, ...] = (),
) -> Picture | None:
    """Metrics of a run over its steps. None where no log line has one of them.

    Args:
        title: What is drawn.
        unit: Of the values.
        history: Log lines with `step`, `colour` and metrics.
        names: Metric -> what its line is called.
        guides: Text of a threshold -> its value and colour; drawn where it lies in the picture.
        ends: Values that the picture shows in any case, such as 0 and 1 of a probability.
    """
    found = {shown: _points(history, name) for name, shown in names.items()}
    found = {name: points for name, points in found.items() if any(math.isfinite(y) for _, y in points)}
    if not found:
        return None
    ys = [*ends, *(y for points in found.values() for _, y in points if math.isfinite(y))]
    first, last = history[0]["step"], history[-1]["step"]
    low, high = padded(ys)
    x_of, y_of = scale(first, last, LEFT, WIDTH - RIGHT), scale(low, high, HEIGHT - BOTTOM, TOP)
    lines = [_line(name, points, x_of, y_of) for name, points in found.items()]
    ends_at = "; ".join(f"{one.name} ends at {one.last}" for one in lines)
    return Picture(
        title,
        unit,
        f"{title} ({unit}) from step {first} to {last}: {ends_at}.",
        lines,
        [(x_of(tick), tick_text(tick)) for tick in ticks(first, last, whole=True)],
        [(y_of(tick), tick_text(tick)) for tick in ticks(low, high)],
        [(y_of(value), text, colour) for text, (value, colour) in (guides or {}).items() if low <= value <= high],
        _strip(history, x_of),
    )


def padded(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis, a little beyond the values."""
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or max(abs(high), 1.0) / 10
    return low - room, high + room


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Round numbers between two."""
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(5, integer=whole).tick_values(low, high)
    return [float(tick) for tick in found if low <= tick <= high]


def tick_text(value: float) -> str:
    """A round number as it is read."""
    return f"{0.0 if abs(value) < 1e-12 else value:,.6g}".replace("-", "−")


def scale(low: float, high: float, start: float, end: float) -> Any:
    """What places a value between two ends of the picture."""
    span = (high - low) or 1.0
    return lambda value: round(start + (value - low) / span * (end - start), 1)


def _points(history: Sequence[Mapping[str, Any]], name: str) -> Points:
    values = ((line["step"], line[name]) for line in history if name in line)
    return [(x, y if is_number(y) else math.nan) for x, y in values]


def _line(name: str, points: Points, x_of: Any, y_of: Any) -> Line:
    kept = points[:: -(-len(points) // MOST)]
    drawn = [*kept, *points[-1:]] if kept[-1] != points[-1] else list(kept)
    parts = [list(part) for finite, part in groupby(drawn, lambda point: math.isfinite(point[1])) if finite]
    paths = [" ".join(f"{x_of(x)},{y_of(y)}" for x, y in part) for part in parts if len(part) > 1]
    dots = [(x_of(x), y_of(y)) for part in parts if len(part) == 1 for x, y in part]
    end = points[-1][1]
    last = f"{end:.3g}".replace("-", "−") if math.isfinite(end) else "a value that is not finite"
    return Line(name, paths, dots, last)


def _strip(history: Sequence[Mapping[str, Any]], x_of: Any) -> list[tuple[float, float, str]]:
    """Each log line colours the steps since the one before it."""
    found: list[tuple[float, float, str]] = []
    start: float = LEFT
    for colour, lines in groupby((line for line in history if "colour" in line), lambda line: line["colour"]):
        end = x_of(list(lines)[-1]["step"])
        found.append((round(start, 1), round(max(end - start, 1.0), 1), str(colour)))
        start = end
    return found
