"""A time axis that stays readable: long stretches in which nothing begins or ends are cut short, and say so.

A round in which one host hangs lasts seconds while its work takes milliseconds. Drawn to one scale, the work would be
a hairline. So a stretch without any event that takes up most of the axis becomes a break of fixed width that carries
its true length. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from hqde_ref.messages import message

__all__ = ["Stretch", "Tick", "TimeScale", "format_seconds", "plan_scale"]

BREAK_WIDTH: Final = 7.0  # per cent of the axis
BREAKS_MAX: Final = 4
BREAK_FROM: Final = 0.45  # of what is still drawn to scale
STRETCHES_MIN: Final = 6  # with fewer events there is nothing to make room for
_TICKS: Final = 8
_TICKS_APART: Final = 5.0  # per cent
_LABEL_APART: Final = 11.0  # a break's own label needs more room than a tick's


@message
class Stretch:
    """A piece of the axis: seconds [start, stop] lie at [left, right] per cent; ``broken`` when cut short."""

    start: float
    stop: float
    left: float
    right: float
    broken: bool


@message
class Tick:
    """A label on the axis; a ``minor`` one gives way where there is little room."""

    at: float
    label: str
    minor: bool


@message
class TimeScale:
    """Seconds to per cent of the width, in one or more straight pieces."""

    stretches: tuple[Stretch, ...]

    def at(self, time: float) -> float:
        """Where a time lies, in per cent; times outside the axis lie at its ends."""
        for piece in self.stretches:
            if time <= piece.stop:
                share = (max(time, piece.start) - piece.start) / (piece.stop - piece.start)
                return round(piece.left + share * (piece.right - piece.left), 3)
        return 100.0

    @property
    def breaks(self) -> tuple[Stretch, ...]:
        return tuple(piece for piece in self.stretches if piece.broken)

    def ticks(self) -> tuple[Tick, ...]:
        """Round times since the axis began, on the pieces drawn to scale."""
        origin = self.stretches[0].start
        plain = [piece for piece in self.stretches if not piece.broken]
        step = _nice_step(sum(piece.stop - piece.start for piece in plain) / _TICKS)
        found: list[Tick] = []
        labels = [(piece.left + piece.right) / 2 for piece in self.breaks]
        for piece in plain:
            first, last = math.ceil((piece.start - origin) / step - 1e-9), math.floor((piece.stop - origin) / step)
            for index in range(first, last + 1):
                at = self.at(origin + index * step)
                covered = any(abs(at - label) < _LABEL_APART for label in labels)
                if not covered and (not found or at - found[-1].at >= _TICKS_APART):
                    label = format_seconds(index * step, step=step)
                    found.append(Tick(at=at, label=label, minor=len(found) % 2 == 1))
        return tuple(found)


def plan_scale(moments: Iterable[float], *, begin: float, end: float) -> TimeScale:
    """An axis from ``begin`` to ``end`` on which the moments between them can be told apart."""
    end = end if end > begin else begin + 1e-9
    edges = sorted({begin, end, *(moment for moment in moments if begin < moment < end)})
    lengths = [stop - start for start, stop in pairwise(edges)]
    broken = _choose_breaks(lengths)
    plain = sum(length for index, length in enumerate(lengths) if index not in broken)
    room = 100.0 - BREAK_WIDTH * len(broken)
    pieces: list[Stretch] = []
    at = 0.0
    for index, length in enumerate(lengths):
        width = BREAK_WIDTH if index in broken else room * length / plain
        piece = Stretch(start=edges[index], stop=edges[index + 1], left=at, right=at + width, broken=index in broken)
        at = piece.right
        if pieces and not piece.broken and not pieces[-1].broken:
            before = pieces.pop()
            piece = Stretch(start=before.start, stop=piece.stop, left=before.left, right=piece.right, broken=False)
        pieces.append(piece)
    return TimeScale(stretches=tuple(pieces))


def _choose_breaks(lengths: list[float]) -> frozenset[int]:
    """The longest stretches, one by one, for as long as one of them takes up most of what is left."""
    broken: set[int] = set()
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    for index in order[:BREAKS_MAX]:
        left = sum(length for at, length in enumerate(lengths) if at not in broken)
        if len(lengths) - len(broken) < STRETCHES_MIN or lengths[index] < BREAK_FROM * left:
            break
        broken.add(index)
    return frozenset(broken)


def _nice_step(least: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below ``least``."""
    power = 10.0 ** math.floor(math.log10(max(least, 1e-9)))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= least * (1 - 1e-9)), 10 * power)


def format_seconds(seconds: float, *, step: float | None = None) -> str:
    """A duration for a person: 1.95 s, 23.4 ms, 300 µs. With a step, as many decimals as that step needs."""
    size = abs(seconds) if step is None else max(abs(seconds), step)
    unit, factor = ("s", 1.0) if size >= 1 else ("ms", 1e-3) if size >= 1e-3 else ("µs", 1e-6)
    if step is not None:
        decimals = max(0, -math.floor(math.log10(step / factor) + 1e-9))
        return f"{seconds / factor:.{decimals}f} {unit}" if seconds else "0"
    return f"{float(f'{seconds / factor:.3g}'):g} {unit}" if seconds else "0 s"
