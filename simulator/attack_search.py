"""Attacks that search: for the point that does most harm, or for the farthest one that still looks honest.

Source: Baruch et al. 2019 and Allouah et al. 2023 (the line-searched a-little-is-enough), Shejwalkar and Houmansadr
2021 (min-max, min-sum), Blanchard et al. 2017 (Krum's score), Fang et al. 2020 (attacks that know the rule).
Pure: randomness comes as a generator. Rules are black boxes: only their results are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hqde_ref.errors import HqdeError
from hqde_ref.messages import message
from simulator.attack_knowledge import (
    Knowledge,
    checked_knowledge,
    guess_result,
    honest_mean,
    honest_rows,
    honest_spread,
)

__all__ = ["Worst", "adaptive", "alie_search", "duplicate", "find_worst_lie", "min_max", "min_sum"]

_BISECTIONS = 40
_FARTHEST = 1e6
_FACTORS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 1e2, 1e3, 1e6)
_RANDOM_DIRECTIONS = 4
_SHORTEST_STEP = 1e-4


@message
class Worst:
    """The worst lie found.

    Attributes:
        lie: what every colluder sends, (d,) float64.
        error: distance of the result from the mean of the honest.
        ratio: that over the bound.
        tried: how often the rule was asked.
    """

    lie: Tensor
    error: float
    ratio: float
    tried: int


def alie_search(known: Knowledge, *, tau_max: float, steps: float) -> Tensor:
    """A little is enough, with the number of deviations (up to ``tau_max``, either side) that moves the result most."""
    rows = honest_rows(known)
    mean, deviation = rows.mean(dim=0), rows.std(dim=0, correction=0)
    taus = [side * tau_max * step / steps for step in range(1, int(steps) + 1) for side in (-1.0, 1.0)]
    return max((mean + tau * deviation for tau in taus), key=lambda lie: _error(known, lie, mean))


def adaptive(known: Knowledge, *, steps: float) -> Tensor:
    """The worst lie that ``steps`` rounds of hill climbing find against the rule."""
    return find_worst_lie(known, steps=int(steps)).lie


def find_worst_lie(known: Knowledge, *, bound: float = 1.0, steps: int = 100) -> Worst:
    """Search for the lie with the largest error over ``bound`` (which honest contributions alone determine).

    A line search along several directions (mean update, deviations, principal axis, widest coordinate, farthest honest
    row, random ones), then hill climbing from the best point with steps that shrink when they fail. Seeded by the
    generator of ``known``: the same knowledge gives the same lie.

    Raises:
        ConfigurationError, LayoutError: for knowledge that does not fit together.
    """
    known = checked_knowledge(known, attack="adaptive")
    mean, spread = honest_mean(known), honest_spread(known) or 1.0
    tried = 0
    best, highest = mean, -1.0
    for direction in _directions(known):
        for factor in _FACTORS:
            for side in (-1.0, 1.0):
                lie = mean + side * factor * spread * direction
                tried, error = tried + 1, _error(known, lie, mean)
                if error > highest:
                    best, highest = lie, error
    length = spread
    for _ in range(steps):
        step = torch.randn(mean.shape, generator=known.generator, dtype=torch.float64)
        lie = best + length * step / step.norm()
        tried, error = tried + 1, _error(known, lie, mean)
        if error > highest:
            best, highest, length = lie, error, 2.0 * length
        else:
            length = max(0.7 * length, _SHORTEST_STEP * spread)
    return Worst(lie=best, error=highest, ratio=highest / bound, tried=tried)


def _error(known: Knowledge, lie: Tensor, mean: Tensor) -> float:
    """Distance of the result from the honest mean; -1 where a rule refuses or returns what is not finite.

    A refusal is the rule's right answer to a lie it notices, so it is no success of the search.
    """
    try:
        result = guess_result(known, lie)
    except HqdeError:
        return -1.0
    error = float((result - mean).norm())
    return error if math.isfinite(error) else -1.0


def _directions(known: Knowledge) -> Iterator[Tensor]:
    """Unit vectors worth trying, none of them zero."""
    rows = honest_rows(known)
    mean = rows.mean(dim=0)
    away = rows - mean
    deviation = rows.std(dim=0, correction=0)
    widest = torch.zeros_like(mean)
    widest[int(deviation.argmax())] = 1.0
    axis = torch.linalg.eigh(away @ away.T).eigenvectors[:, -1] @ away
    farthest = away[int(away.norm(dim=1).argmax())]
    found = [mean - known.base.double(), deviation, widest, axis, farthest]
    found += [
        torch.randn(mean.shape, generator=known.generator, dtype=torch.float64) for _ in range(_RANDOM_DIRECTIONS)
    ]
    for direction in found:
        length = float(direction.norm())
        if length > 0.0:
            yield direction / length


def _farthest_hidden(known: Knowledge, is_hidden: Callable[[Tensor], bool]) -> Tensor:
    """The farthest point along minus the honest deviation that ``is_hidden`` still allows, by bisection."""
    rows = honest_rows(known)
    mean, direction = rows.mean(dim=0), -rows.std(dim=0, correction=0)
    low, high = 0.0, 1.0
    while is_hidden(mean + high * direction) and high < _FARTHEST:
        low, high = high, 2 * high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_hidden(mean + middle * direction) else (low, middle)
    return mean + low * direction


def min_max(known: Knowledge) -> Tensor:
    """As far off as the farthest pair of honest contributions allows."""
    rows = honest_rows(known)
    widest = max(float((row - rows).norm(dim=1).max()) for row in rows)
    return _farthest_hidden(known, lambda point: float((point - rows).norm(dim=1).max()) <= widest)


def min_sum(known: Knowledge) -> Tensor:
    """As far off as the largest sum of squared distances between honest contributions allows."""
    rows = honest_rows(known)

    def total(point: Tensor) -> float:
        return float((point - rows).square().sum())

    largest = max(total(row) for row in rows)
    return _farthest_hidden(known, lambda point: total(point) <= largest)


def duplicate(known: Knowledge) -> Tensor:
    """As far off as identical rows can be and still look like the nearest of neighbours: each other's.

    A crowd of colluders has distance 0 within it, so by Krum's score (n - f - 2 neighbours) any of them beats every
    honest contribution although it lies outside.
    """
    rows, f = honest_rows(known), known.colluders
    neighbours = max(1, len(rows) - 2)  # n - f - 2, n being len(rows) + f
    between = torch.stack([(row - rows).square().sum(dim=1) for row in rows])

    def scores(point: Tensor) -> tuple[float, float]:
        outside = (point - rows).square().sum(dim=1)
        own = float(outside.sort().values[: max(0, neighbours - (f - 1))].sum())
        theirs = torch.cat([between, outside[:, None].expand(-1, f)], dim=1).sort(dim=1).values
        return own, float(theirs[:, 1 : 1 + neighbours].sum(dim=1).min())

    def wins(point: Tensor) -> bool:
        own, best_honest = scores(point)
        return own < best_honest

    return _farthest_hidden(known, wins)
