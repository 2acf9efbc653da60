"""Which rows to keep, from the n x n matrix of their distances alone.

Source: HQDE clauses 0.3 and 4.5; Blanchard et al. 2017 (Krum, arXiv:1703.02757); El Mhamdi et al. 2018 (minimum
diameter, arXiv:1802.07927).
Pure: no clock, no randomness, no input or output; arguments are never changed. Numbers are compared after rounding
to 40 bits, so that ties are seen as ties; in the end the row listed first wins, so callers list rows in content order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "krum_order",
    "lowest_scores",
    "minimum_diameter_subset",
    "nearest_rows",
    "round_scores",
]

_BITS = 40


def round_scores(values: Tensor) -> Tensor:
    """Return float64 ``values`` rounded to 40 significant bits."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.round(mantissa * 2.0**_BITS), exponent - _BITS)


def lowest_scores(scores: Tensor, count: int, *, totals: Tensor | None = None) -> tuple[int, ...]:
    """Return the places of the ``count`` lowest scores; among equals the lower total first, then the earlier place."""
    first = torch.arange(len(scores), device=scores.device)
    if totals is not None:
        first = torch.argsort(round_scores(totals), stable=True)
    order: list[int] = first[torch.argsort(round_scores(scores)[first], stable=True)][:count].tolist()
    return tuple(order)


def krum_order(squares: Tensor, *, neighbours: int) -> tuple[int, ...]:
    """Return the places of all rows by Krum score: the sum of the ``neighbours`` smallest squared distances to others.

    Equal scores are no rarity (with one neighbour, nearest rows always share theirs): the sum over all rows decides
    next, then the place.

    Args:
        squares: (n, n) squared distances, 0 on the diagonal.
        neighbours: 1..n-1, the row itself not counted.
    """
    others = squares.clone().fill_diagonal_(torch.inf)
    if others.device.type == "cpu":
        others.numpy().sort(axis=1)  # several times as fast as torch
    else:
        others = others.sort(dim=1).values
    scores = others[:, :neighbours].sum(dim=1)
    return lowest_scores(scores, len(scores), totals=squares.sum(dim=1))


def nearest_rows(squares: Tensor, *, count: int) -> Tensor:
    """Return, per row, the places of its ``count`` nearest rows, itself among them, (n, count); earlier ones first."""
    own_first = round_scores(squares).fill_diagonal_(-1.0)
    return torch.argsort(own_first, dim=1, stable=True)[:, :count]


def minimum_diameter_subset(squares: Tensor, *, size: int) -> tuple[tuple[int, ...], float]:
    """Return the places of ``size`` rows of the least possible diameter, exactly, and that diameter squared.

    A diameter is possible if the graph of longer pairs has a vertex cover of n - size rows. The search over covers
    takes time exponential in n - size at worst, and little where outliers stand out.
    """
    table: list[list[float]] = round_scores(squares).tolist()
    count = len(table)
    diameters = sorted({0.0} | {table[i][j] for i in range(count) for j in range(i)})
    low, high, best = 0, len(diameters) - 1, frozenset[int]()
    while low < high:
        middle = (low + high) // 2
        cover = _cover(_too_far(table, diameters[middle]), count - size)
        if cover is None:
            low = middle + 1
        else:
            high, best = middle, cover
    kept = [place for place in range(count) if place not in best][:size]
    return tuple(kept), diameters[low]


def _too_far(table: Sequence[Sequence[float]], limit: float) -> dict[int, frozenset[int]]:
    places = range(len(table))
    return {i: frozenset(j for j in places if j != i and table[i][j] > limit) for i in places}


def _cover(graph: dict[int, frozenset[int]], budget: int) -> frozenset[int] | None:
    """Return at most ``budget`` vertices that touch every edge of ``graph``, or None if there are none."""
    busiest = max(graph, key=lambda vertex: len(graph[vertex]), default=None)
    if busiest is None or not graph[busiest]:
        return frozenset()
    edges = sum(map(len, graph.values())) // 2
    if budget == 0 or len(graph[busiest]) * budget < edges:
        return None
    # Either the busiest vertex is in the cover, or all its neighbours are.
    for chosen in (frozenset({busiest}), graph[busiest]):
        if len(chosen) <= budget:
            rest = _cover({v: near - chosen for v, near in graph.items() if v not in chosen}, budget - len(chosen))
            if rest is not None:
                return rest | chosen
    return None
