"""What the rules should give, in float64: slow, obvious, and without a line of the kernels.

Distances are taken from float64 differences to an honest row, which lose no digit at these sizes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from benchmarks.data import Rows

__all__ = ["ORACLES", "honest_scatter"]

_STEP = 1 << 16


def _blocks(rows: Rows) -> Iterator[Tensor]:
    for part in torch.split(rows.arena, _STEP, dim=1):
        yield part.double()


def _by_column(rule: Callable[[Tensor], Tensor]) -> Callable[[Rows], Tensor]:
    return lambda rows: torch.cat([rule(block) for block in _blocks(rows)])


def _median(block: Tensor) -> Tensor:
    ordered = block.sort(dim=0).values
    return (ordered[(len(block) - 1) // 2] + ordered[len(block) // 2]) / 2


def _trimmed(rows: Rows) -> Tensor:
    f = rows.case.faulty
    return _by_column(lambda block: block.sort(dim=0).values[f : len(block) - f].mean(dim=0))(rows)


def _around_median(rows: Rows) -> Tensor:
    left = rows.case.n - rows.case.faulty

    def rule(block: Tensor) -> Tensor:
        order = (block - _median(block)).abs().argsort(dim=0)[:left]
        return block.gather(0, order).mean(dim=0)

    return _by_column(rule)(rows)


def honest_scatter(rows: Rows) -> float:
    """Root mean square distance of the honest rows from their mean."""
    total = 0.0
    for block in _blocks(rows):
        honest = block[rows.honest]
        total += float((honest - honest.mean(dim=0)).square().sum())
    return math.sqrt(total / len(rows.honest))


def _gram(rows: Rows) -> Tensor:
    """Inner products of the differences to the first honest row."""
    total = torch.zeros(rows.case.n, rows.case.n, dtype=torch.float64)
    for block in _blocks(rows):
        away = block - block[rows.honest[0]]
        total += away @ away.T
    return total


def _squares(gram: Tensor) -> Tensor:
    lengths = gram.diagonal()
    return (lengths[:, None] + lengths - 2 * gram).clamp_min(0.0)


def _combine(rows: Rows, shares: Tensor) -> Tensor:
    """First honest row plus the combination of differences to it, for shares of sum 1."""
    middle = rows.honest[0]
    return torch.cat([block[middle] + shares @ (block - block[middle]) for block in _blocks(rows)])


def _weiszfeld(gram: Tensor, honest: list[int]) -> Tensor:
    """Shares of the geometric median, by many plain steps from the mean of the honest rows."""
    shares = torch.zeros(len(gram), dtype=torch.float64)
    shares[honest] = 1.0 / len(honest)
    for _ in range(5000):
        image = gram @ shares
        far = (gram.diagonal() - 2 * image + shares @ image).clamp_min(1e-300).sqrt()
        after = (1.0 / far) / (1.0 / far).sum()
        moved = float((after - shares).abs().max())
        shares = after
        if moved < 1e-16:
            break
    return shares


def _geometric_median(rows: Rows) -> Tensor:
    return _combine(rows, _weiszfeld(_gram(rows), rows.honest))


def _krum(neighbours_less: int) -> Callable[[Rows], Tensor]:
    def rule(rows: Rows) -> Tensor:
        n, f = rows.case.n, rows.case.faulty
        others = _squares(_gram(rows)).fill_diagonal_(torch.inf)
        scores = others.sort(dim=1).values[:, : n - f - neighbours_less].sum(dim=1)
        return _mean_of(rows, scores.argsort()[: n - f].tolist())

    return rule


def _mean_of(rows: Rows, chosen: list[int]) -> Tensor:
    return torch.cat([block[chosen].mean(dim=0) for block in _blocks(rows)])


def _minimum_diameter(rows: Rows) -> Tensor:
    n, f = rows.case.n, rows.case.faulty
    squares = _squares(_gram(rows))
    subsets = torch.tensor(list(itertools.combinations(range(n), n - f)))
    widths = torch.stack([squares[part[:, None], part].max() for part in subsets])
    return _mean_of(rows, subsets[int(widths.argmin())].tolist())


def _mixed_geometric_median(rows: Rows) -> Tensor:
    n, f = rows.case.n, rows.case.faulty
    gram = _gram(rows)
    near = _squares(gram).fill_diagonal_(-1.0).argsort(dim=1)[:, : n - f]
    matrix = torch.zeros_like(gram).scatter_(1, near, 1.0 / (n - f))
    return _combine(rows, _weiszfeld(matrix @ gram @ matrix.T, rows.honest) @ matrix)


def _leave_one_out(rows: Rows) -> Tensor:
    """The document's score of every row: the mean of deviation over spread plus 1e-8, medians without the row."""
    totals = torch.zeros(rows.case.n, dtype=torch.float64)
    for block in _blocks(rows):
        for index in range(rows.case.n):
            others = torch.cat([block[:index], block[index + 1 :]])
            middle = others.median(dim=0).values
            spread = (others - middle).abs().median(dim=0).values
            totals[index] += ((block[index] - middle).abs() / (spread + 1e-8)).sum()
    return totals / rows.case.d


ORACLES: Mapping[str, Callable[[Rows], Tensor]] = {
    "mean": _by_column(lambda block: block.mean(dim=0)),
    "median": _by_column(_median),
    "lower median": _by_column(lambda block: block.sort(dim=0).values[(len(block) - 1) // 2]),
    "trimmed mean": _trimmed,
    "mean around median": _around_median,
    "geometric median": _geometric_median,
    "Multi-Krum of n-f-2 neighbours": _krum(2),
    "Multi-Krum of n-f-1 neighbours": _krum(1),
    "minimum diameter": _minimum_diameter,
    "mixed geometric median": _mixed_geometric_median,
    "leave-one-out scores": _leave_one_out,
}
