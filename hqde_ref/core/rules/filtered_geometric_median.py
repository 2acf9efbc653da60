"""HQDE's own rule as it can be proven: reject what lies far out as a whole, then the geometric median of the rest.

m is the geometric median of all rows, s_i the distance of row i from m over all coordinates together, S the
ceil(n / 2)-th smallest of them. Rows with s_i <= max(factor * S, floor) are kept, and never more than
``rejections_max`` rejected.

Source: HQDE clauses 4.3, 4.4 and 4.5 (erratum E10: a mean of per-coordinate ratios scores honest rows 1e7).
Pure: no clock, no randomness, no input or output; arguments are never changed. Filtering never improves the
worst-case bound (n / (n - 2f) becomes (n + f) / (n - 3f)); it buys accuracy against single attacks, and a diagnosis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hqde_ref.core.kernels.gram import Gram, combine_rows, scale_up
from hqde_ref.core.kernels.median_newton import distances_to, find_median, solve_median
from hqde_ref.core.kernels.median_sweeps import SWEEP_ROWS, sweep_median
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count, content_order, require_data
from hqde_ref.core.kernels.selections import round_scores
from hqde_ref.core.rules.geometric_median import geometric_median
from hqde_ref.core.rules.settings import is_size
from hqde_ref.errors import ConfigurationError

__all__ = [
    "Screening",
    "choose_outliers",
    "filtered_geometric_median",
    "gram_subset",
    "resolve_rejections",
    "screen_scores",
]

_RULE = "filtered_geometric_median"
_SURE = 1e-6  # of a score: sweeps do not tell what is nearer to each other


@dataclass(frozen=True, kw_only=True, slots=True)
class Screening:
    """Who was kept, and why.

    kept: indices of the rows kept, ascending.
    scores: per row, its distance from the robust centre; finite.
    limit: rows with a score up to it are kept whatever their number.
    """

    kept: tuple[int, ...]
    scores: tuple[float, ...]
    limit: float


def choose_outliers(rows: Updates, *, rejections_max: int, factor: float = 3.0, floor: float = 0.0) -> Screening:
    """Return which rows to keep: all up to the limit, and of those beyond it the nearest, so few are rejected.

    Args:
        rows: n tensors (d,) or one (n, d) tensor, finite.
        rejections_max: at most so many rows are rejected, 0..n-1.
        factor: a row may lie so many times farther out than the ceil(n / 2)-th nearest; at least 1.
        floor: a distance that is never too far, in units of the rows; at least 0.
    Raises:
        ConfigurationError: a setting is out of its range.
        TooFewContributions, NotFinite, LayoutError: for rows that do not fit.
    """
    given = as_rows(rows, rule=_RULE)
    _check_settings(rejections_max, factor, floor, count=len(given))
    require_data(_RULE, given)
    screening = _sweep(given, rejections_max, factor, floor) if len(given) >= SWEEP_ROWS else None
    if screening is not None:
        return screening
    order, gram, scores = _measure(given)
    return screen_scores(order, gram.unit, scores, rejections_max=rejections_max, factor=factor, floor=floor)


def _sweep(rows: Sequence[Tensor], rejections_max: int, factor: float, floor: float) -> Screening | None:
    """Return what sweeps find, which is good to some 1e-7 of a score; None where they do not settle who is kept."""
    order = content_order(rows)
    swept = sweep_median([rows[index] for index in order], [1.0] * len(rows))
    if swept is None:
        return None
    found = screen_scores(order, 0, swept.far, rejections_max=rejections_max, factor=factor, floor=floor)
    scores = swept.far.sort().values
    last = len(found.kept) - 1
    at_the_limit = (scores - found.limit).abs() <= _SURE * found.limit
    at_the_cut = last + 1 < len(rows) and float(scores[last + 1] - scores[last]) <= _SURE * float(scores[last])
    return None if at_the_cut or bool(at_the_limit.any()) else found


def filtered_geometric_median(
    updates: Updates,
    *,
    faulty_max: int,
    rejections_max: int | None = None,
    factor: float = 3.0,
    floor: float = 0.0,
) -> Tensor:
    """Return the geometric median of the rows that ``choose_outliers`` keeps.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        faulty_max: how many rows may hold anything at all.
        rejections_max: 0..faulty_max, None for ``faulty_max``; with one more, liars may outweigh the honest that are
            left, and the bound does not hold (clause 4.4).
        factor, floor: as for ``choose_outliers``.
    Returns:
        A new row (d,) of the same dtype and device.
    Raises:
        TooFewContributions: unless n > 3 * faulty_max (2 * faulty_max faulty or rejected rows must leave a majority).
        NotFinite, LayoutError, ConfigurationError: for rows or settings that do not fit.
    """
    rows = as_rows(updates, rule=_RULE)
    check_count(_RULE, count=len(rows), faulty_max=faulty_max, per_faulty=3)
    most = resolve_rejections(rejections_max, faulty_max=faulty_max)
    _check_settings(most, factor, floor, count=len(rows))
    if len(rows) >= SWEEP_ROWS:
        chosen = choose_outliers(rows, rejections_max=most, factor=factor, floor=floor).kept
        return geometric_median([rows[index] for index in chosen], faulty_max=0)
    order, gram, scores = _measure(rows)
    screening = screen_scores(order, gram.unit, scores, rejections_max=most, factor=factor, floor=floor)
    kept = set(screening.kept)
    places = [place for place, index in enumerate(order) if index in kept]
    part = gram_subset(gram, places)
    solution = solve_median(part, [1.0] * len(places))
    if solution.near is not None and (gram.by_origin or part.norms[solution.near] > 0.0):
        return geometric_median([rows[index] for index in screening.kept], faulty_max=0)
    if solution.at is not None:
        return rows[order[places[solution.at]]].clone()
    coefficients = torch.zeros_like(gram.norms)
    coefficients[places] = solution.coefficients
    return combine_rows([rows[index] for index in order], gram, coefficients)


def resolve_rejections(rejections_max: int | None, *, faulty_max: int) -> int:
    """Return how many rows may be rejected; arguments and errors as for ``filtered_geometric_median``."""
    most = faulty_max if rejections_max is None else rejections_max
    if isinstance(most, bool) or not isinstance(most, int) or not 0 <= most <= faulty_max:
        raise ConfigurationError(
            setting=f"rejections_max of {_RULE}",
            wanted=f"an integer of 0..faulty_max={faulty_max}",
            got=rejections_max,
            do="reject at most faulty_max contributions (clause 4.4), or raise faulty_max",
        )
    return most


def _check_settings(rejections_max: int, factor: float, floor: float, *, count: int) -> None:
    if isinstance(rejections_max, bool) or not isinstance(rejections_max, int) or not 0 <= rejections_max < count:
        raise ConfigurationError(
            setting=f"rejections_max of {_RULE}",
            wanted=f"an integer of 0..{count - 1}",
            got=rejections_max,
            do="reject at most faulty_max contributions (clause 4.4)",
        )
    if not (is_size(factor) and factor >= 1.0):
        raise ConfigurationError(
            setting=f"factor of {_RULE}", wanted="finite and at least 1", got=factor, do="take 3 unless you know better"
        )
    if not is_size(floor):
        raise ConfigurationError(
            setting=f"floor of {_RULE}",
            wanted="finite and at least 0",
            got=floor,
            do="give a distance in the units of the contributions",
        )


def _measure(rows: Sequence[Tensor]) -> tuple[tuple[int, ...], Gram, Tensor]:
    """Return the content order, the Gram matrix in it, and each row's distance from the geometric median of all."""
    order, gram, solution = find_median(rows, rule=_RULE, weights=[1.0] * len(rows))
    return order, gram, distances_to(gram, solution)


def screen_scores(
    order: Sequence[int], unit: int, scores: Tensor, *, rejections_max: int, factor: float = 3.0, floor: float = 0.0
) -> Screening:
    """Return which rows to keep, ``scores[place]`` times 2**unit being that of row ``order[place]``."""
    count = len(order)
    rounded = round_scores(scores)
    middle = float(rounded.sort().values[(count + 1) // 2 - 1])
    limit = max(factor * middle, scale_up(floor, -unit))
    ranked: list[int] = torch.argsort(rounded, stable=True).tolist()
    inside = int((rounded <= limit).sum())
    kept = ranked[: max(inside, count - rejections_max)]
    found = [0.0] * count
    for place, score in enumerate(scores.tolist()):
        found[order[place]] = scale_up(score, unit)
    return Screening(
        kept=tuple(sorted(order[place] for place in kept)), scores=tuple(found), limit=scale_up(limit, unit)
    )


def gram_subset(gram: Gram, places: Sequence[int]) -> Gram:
    """Return the Gram matrix of some rows around the same centre, which need not be one of them."""
    at = torch.tensor(places, device=gram.norms.device)
    return replace(
        gram,
        cosines=gram.cosines[at][:, at],
        norms=gram.norms[at],
        lengths=gram.lengths[at],
        exponents=tuple(gram.exponents[place] for place in places),
    )
