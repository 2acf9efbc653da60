"""Line charts: accuracy of each variant per round, and the error beside the bound that was proven. Pure.

Places are in per cent of the plot, from its upper left corner, so that a chart fits any width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from hqde_ref.messages import message
from simulator.report_data import VARIANTS, RoundSeen, RunSeen

__all__ = ["Chart", "Line", "Mark", "accuracy_chart", "error_chart", "format_number", "format_share"]

_LABELS_MAX: Final = 12
_DECADES_MAX: Final = 7
_LABELS_APART: Final = 7.5  # per cent of the height


@message
class Mark:
    """A point. ``beyond`` is -1 below the plot, 1 above it, 0 inside."""

    x: float
    y: float
    beyond: int
    tip: str


@message
class Line:
    """A variant's line, in pieces where values are missing; ``pieces`` are in thousandths, for a polyline."""

    variant: str
    slug: str
    marks: tuple[Mark, ...]
    pieces: tuple[str, ...]
    last: str
    label_y: float


@message
class Chart:
    """Lines, labels of both axes, and for each round what was done to it (``faults``) and its ``ratio``."""

    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    down: tuple[tuple[float, str], ...]
    faults: tuple[tuple[float, tuple[str, ...]], ...]
    bound: tuple[str, ...]
    area: tuple[str, ...]
    ratios: tuple[tuple[float, str, str], ...]


def format_number(value: float | None) -> str:
    """Three significant digits; a dash for None."""
    if value is None:
        return "–"
    return _short(value, 3) if math.isfinite(value) else {math.inf: "∞", -math.inf: "−∞"}.get(value, "not a number")


def format_share(value: float | None, digits: int = 3) -> str:
    """A share of one in per cent; a dash for None."""
    if value is None or math.isnan(value):
        return "–"
    return f"{_short(100 * value, digits)}%" if value < 9.99 else "> 999%"


def _short(value: float, digits: int) -> str:
    """Significant digits, and an exponent without padding: 0.0144, 5.63e-7."""
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def accuracy_chart(runs: Sequence[RunSeen]) -> Chart:
    """Accuracy in [0, 1] of every run, over its rounds."""
    place = _across(runs)
    lines = [
        _line(
            run,
            place,
            value=lambda r: r.accuracy,
            level=lambda accuracy: 100 * (1 - accuracy),
            tell=lambda r: f"accuracy {format_share(r.accuracy)}",
            shown=format_share,
        )
        for run in runs
    ]
    return Chart(
        lines=_apart(lines),
        across=_labels(place),
        down=tuple((100.0 - step, f"{step}%") for step in (0, 25, 50, 75, 100)),
        faults=_faults(runs, place),
        bound=(),
        area=(),
        ratios=(),
    )


def error_chart(runs: Sequence[RunSeen]) -> Chart:
    """Distance of the result from the honest mean, on a logarithmic scale; the bound is that of the first run."""
    place = _across(runs)
    low, high = _decades(runs)

    def level(value: float) -> float:
        if value <= 0:
            return math.inf
        return 100 * (high - math.log10(value)) / (high - low) if math.isfinite(value) else -math.inf

    lines = [
        _line(run, place, value=lambda r: r.error, level=level, tell=_tell_error, shown=format_number) for run in runs
    ]
    lead = runs[0] if runs else None
    half = 50 / max(len(place), 1)
    bounds = [(place[r.number], level(r.bound)) for r in lead.rounds if r.bound is not None] if lead else []
    flat = [(max(x - half, 0), min(x + half, 100), min(max(y, 0.0), 100.0)) for x, y in bounds]
    return Chart(
        lines=_apart(lines),
        across=_labels(place),
        down=tuple((100 * (high - power) / (high - low), _power(power)) for power in range(low, high + 1)),
        faults=(),
        bound=tuple(f"{10 * left:.1f},{10 * y:.1f} {10 * right:.1f},{10 * y:.1f}" for left, right, y in flat),
        area=tuple(
            f"{10 * left:.1f},0 {10 * right:.1f},0 {10 * right:.1f},{10 * y:.1f} {10 * left:.1f},{10 * y:.1f}"
            for left, right, y in flat
        ),
        ratios=tuple(
            (place[r.number], format_share(r.ratio, 2), "over" if r.ratio > 1 else "within")
            for r in (lead.rounds if lead else ())
            if r.ratio is not None and len(place) <= _LABELS_MAX
        ),
    )


def _tell_error(seen: RoundSeen) -> str:
    bound = "no bound is promised" if seen.bound is None else f"bound {format_number(seen.bound)}"
    ratio = "" if seen.ratio is None else f": {format_share(seen.ratio)} of it"
    return f"error {format_number(seen.error)}, {bound}{ratio}"


# ------------------------------------------------------------------------------------------------ places


def _across(runs: Sequence[RunSeen]) -> dict[int, float]:
    """Where each round lies: the middle of its column."""
    numbers = sorted({r.number for run in runs for r in run.rounds})
    return {number: round(100 * (index + 0.5) / len(numbers), 3) for index, number in enumerate(numbers)}


def _labels(place: dict[int, float]) -> tuple[tuple[float, str], ...]:
    step = -(-len(place) // _LABELS_MAX) or 1
    return tuple((x, str(number)) for index, (number, x) in enumerate(place.items()) if index % step == 0)


def _faults(runs: Sequence[RunSeen], place: dict[int, float]) -> tuple[tuple[float, tuple[str, ...]], ...]:
    """What hit each round, in the first run that any fault hit."""
    hit = next((run for run in runs if any(r.faults for r in run.rounds)), None)
    if hit is None or len(place) > 2 * _LABELS_MAX:
        return ()
    return tuple((place[r.number], tuple(sorted({fault.action for fault in r.faults}))) for r in hit.rounds if r.faults)


def _decades(runs: Sequence[RunSeen]) -> tuple[int, int]:
    """The powers of ten that hold the first run's errors and bounds, and the others' as far as there is room."""
    lead = [v for run in runs[:1] for r in run.rounds for v in (r.error, r.bound)]
    every = [v for run in runs for r in run.rounds for v in (r.error, r.bound)]
    logs = [math.log10(v) for v in every if v is not None and 0 < v < math.inf] or [0.0]
    leading = [math.log10(v) for v in lead if v is not None and 0 < v < math.inf] or logs
    high = math.ceil(max(logs) + 1e-9)
    low = math.floor(min(leading) - 1e-9)
    return max(low, high - _DECADES_MAX), max(high, low + 1)


def _power(power: int) -> str:
    return f"{10.0**power:g}" if -4 < power < 5 else f"1e{power}"


def _line(
    run: RunSeen,
    place: dict[int, float],
    *,
    value: Callable[[RoundSeen], float | None],
    level: Callable[[float], float],
    tell: Callable[[RoundSeen], str],
    shown: Callable[[float | None], str],
) -> Line:
    marks: list[Mark] = []
    pieces: list[list[str]] = [[]]
    for seen in run.rounds:
        number = value(seen)
        y = math.nan if number is None else level(number)
        if math.isnan(y):
            pieces.append([])
            continue
        inside = min(max(y, 0.0), 100.0)
        beyond = (y < 0) - (y > 100)
        tip = f"round {seen.number}, {run.variant}: {tell(seen)}"
        marks.append(Mark(x=place[seen.number], y=round(inside, 2), beyond=beyond, tip=tip))
        pieces[-1].append(f"{10 * place[seen.number]:.1f},{10 * inside:.1f}")
    return Line(
        variant=run.variant,
        slug=f"v{VARIANTS.index(run.variant)}",
        marks=tuple(marks),
        pieces=tuple(" ".join(piece) for piece in pieces if len(piece) > 1),
        last=shown(value(run.rounds[-1])) if run.rounds else "–",
        label_y=marks[-1].y if marks else 100.0,
    )


def _apart(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The lines, in their order, with the labels at their ends moved so far that none covers another."""
    order = sorted(range(len(lines)), key=lambda index: lines[index].label_y)
    places = [lines[index].label_y for index in order]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + _LABELS_APART)
    over = max(0.0, (places[-1] if places else 0.0) - 100.0)
    for index in range(len(places) - 1, -1, -1):
        roof = 100.0 if index == len(places) - 1 else places[index + 1] - _LABELS_APART
        places[index] = min(places[index], roof) if over else places[index]
    moved = dict(zip(order, places, strict=True))
    return tuple(
        Line(
            variant=line.variant,
            slug=line.slug,
            marks=line.marks,
            pieces=line.pieces,
            last=line.last,
            label_y=round(moved[index], 2),
        )
        for index, line in enumerate(lines)
    )
