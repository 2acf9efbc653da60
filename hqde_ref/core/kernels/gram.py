"""Inner products of rows around one that most are near to, and combinations of rows from n coefficients.

Geometric median, Krum, minimum-diameter averaging, mixing, clipping and spectral rules look at the rows only
through this n x n matrix. Rows are centred on one of them that a majority is near to, so that distances keep their
digits whatever offset the rows share; rows of extreme size are scaled by powers of two.

Source: HQDE clauses 4.5 and 4.7; distances as |a|^2 + |b|^2 - 2ab on raw rows lose all digits (erratum of peers).
Pure: no clock, no randomness, no input or output; arguments are never changed. At most a cache-sized block of the
rows is copied at a time, never all n x d. Bits repeat on one torch thread; matrix products on two may differ.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hqde_ref.core.kernels.centres import choose_centre, weighted_medians, work_dtype
from hqde_ref.core.kernels.exact_sums import round_once
from hqde_ref.core.kernels.gram_blocks import (
    centred_blocks,
    is_well_scaled,
    products_around,
    products_by_origin,
    scale_exponents,
)
from hqde_ref.core.kernels.means import blend_rows
from hqde_ref.core.kernels.rows import content_classes, new_row, require_data, require_finite, wide_dtype
from hqde_ref.errors import NotFinite

__all__ = [
    "NEAR",
    "Gram",
    "centre_row",
    "centred_gram",
    "combine_rows",
    "content_distances",
    "content_gram",
    "distances",
    "product_sizes",
    "row_distances",
    "scale_up",
]

_COLUMNS = 64
_RECENTRE_MAX = 32
NEAR = 1e-3  # of squared distances below this share of a product, digits are missing
_LARGE = {torch.float32: 100, torch.float64: 1000}  # 2**unit times a coefficient, and a row, stay finite up to here
_SHARE = 20
_SPREAD_EXPONENT = 480  # a row 2**480 units far acts by its direction alone; squares still add up
_KEPT_EXPONENT = 400  # the most units that a row is far which is kept, so that a row next to it is resolved too


@dataclass(frozen=True, kw_only=True, slots=True)
class Gram:
    """Inner products of the n rows z_i = x_i - centre, taken apart so that no size of a row overflows.

    cosines: (n, n) float64, <z_i, z_j> / (|z_i| |z_j|); 0 in the rows and columns of a zero z_i.
    norms: (n,) float64, |z_i| in units of 2**unit, those beyond 2**480 brought back to it: 2**unit is the weighted
        median, or as much more as the rows that must be told apart need.
    lengths: (n,) float64, |z_i| * 2**-exponents[i].
    exponents: powers of two that the rows are scaled down by before they are multiplied.
    centre: the index of the row that is subtracted, or None where another point was.
    error: relative error of the products.
    by_origin: whether products were taken around the origin and moved afterwards: good to 1e-7 of the greatest, not
        of each.
    """

    cosines: Tensor
    norms: Tensor
    lengths: Tensor
    exponents: tuple[int, ...]
    unit: int
    centre: int | None
    error: float
    by_origin: bool = False


def centred_gram(
    rows: Sequence[Tensor],
    *,
    rule: str,
    weights: Sequence[float],
    centre: int | None = None,
    kept: float = 0.0,
) -> Gram:
    """Return the Gram matrix of ``rows`` around a row that half of the weight is near to.

    Args:
        rows: n tensors (d,) of one floating dtype.
        rule: who asks; errors name it.
        weights: n positive numbers: what counts as a majority.
        centre: insist on this row as the centre.
        kept: so much weight of the nearest rows is told apart by distance, however far the last of them is.
    Raises:
        NotFinite: a row holds NaN or an infinity; it names rows as counted here.
    """
    if centre is not None:
        return _gram_around(rows, centre, rule, weights, kept, by_origin=False)
    gram = _gram_around(rows, choose_centre(rows, weights), rule, weights, kept, by_origin=True)
    every = max(1, len(rows) // _COLUMNS)
    for _ in range(_RECENTRE_MAX):
        # The sample may have missed where the centre is an outlier: then another row is much nearer to the rest.
        far = distances(gram)
        medians = weighted_medians(torch.cat([gram.norms[:, None], far[:, ::every]], dim=1), weights)
        best = int(medians.argmin())
        if medians[best] >= 0.2 * medians[0]:
            break
        gram = _gram_around(rows, (best - 1) * every, rule, weights, kept, by_origin=False)
    return gram


def content_gram(
    rows: Sequence[Tensor],
    *,
    rule: str,
    weights: Sequence[float] | None = None,
    centre: int | None = None,
    kept: float = 0.0,
) -> tuple[tuple[int, ...], Gram]:
    """Return the rows' order by content and the Gram matrix of the rows in that order.

    Equal rows are multiplied once, so that their distance is exactly 0 and their distances to others are equal.

    Args:
        rows, rule, kept: as for ``centred_gram``.
        weights: n positive numbers, None for 1 each; in the order of ``rows``, as ``centre`` is.
        centre: insist on this row, or one equal to it, as the centre.
    Raises:
        NotFinite: a row holds NaN or an infinity; it names rows as counted in ``rows``.
        LayoutError: rows have no data.
    """
    require_data(rule, rows)
    classes = content_classes(rows)
    masses = [math.fsum(1.0 if weights is None else weights[index] for index in members) for members in classes]
    wanted = None if centre is None else next(place for place, members in enumerate(classes) if centre in members)
    try:
        gram = centred_gram(
            [rows[members[0]] for members in classes], rule=rule, weights=masses, centre=wanted, kept=kept
        )
    except NotFinite:
        require_finite(rule, rows)
        raise
    order = tuple(index for members in classes for index in members)
    if len(classes) == len(rows):
        return order, gram
    owners = [place for place, members in enumerate(classes) for _ in members]
    at = torch.tensor(owners, device=gram.norms.device)
    expanded = replace(
        gram,
        cosines=gram.cosines[at][:, at],
        norms=gram.norms[at],
        lengths=gram.lengths[at],
        exponents=tuple(gram.exponents[owner] for owner in owners),
        centre=owners.index(centre_row(gram)),
    )
    return order, expanded


def _gram_around(
    rows: Sequence[Tensor], centre: int, rule: str, weights: Sequence[float], kept: float, *, by_origin: bool
) -> Gram:
    exponents: tuple[int, ...] = (0,) * len(rows)
    products = products_by_origin(rows, centre) if by_origin else None
    by_origin = products is not None
    if products is None:
        products = products_around(rows, centre, exponents)
    if not is_well_scaled(products, centre, rows[0].dtype):
        exponents, by_origin = scale_exponents(rows, centre, rule), False
        products = products_around(rows, centre, exponents)
    error = 2e-7 if work_dtype(rows) == torch.float32 else 1e-15
    return _take_apart(products, exponents, weights, kept, centre=centre, error=error, by_origin=by_origin)


def _take_apart(
    products: Tensor,
    exponents: tuple[int, ...],
    weights: Sequence[float],
    kept: float,
    *,
    centre: int | None,
    error: float,
    by_origin: bool,
) -> Gram:
    lengths = products.diagonal().clamp_min(0.0).sqrt()
    inverse = torch.where(lengths > 0, 1.0 / lengths, 0.0)
    cosines = (products * inverse[:, None] * inverse).clamp_(-1.0, 1.0)
    cosines.diagonal().copy_(lengths > 0)
    unit = _choose_unit(lengths.tolist(), exponents, weights, kept)
    norms = lengths
    if any(exponents) or unit != 0:
        sizes = [math.frexp(length)[1] for length in lengths.tolist()]
        limit = _SPREAD_EXPONENT  # of a row's size in units of 2**unit, not of what it was scaled by
        shifts = [min(max(e + size - unit, -limit), limit) - size for e, size in zip(exponents, sizes, strict=True)]
        norms = torch.ldexp(lengths, torch.tensor(shifts, device=lengths.device))
    return Gram(
        cosines=cosines,
        norms=norms,
        lengths=lengths,
        exponents=exponents,
        unit=unit,
        centre=centre,
        error=error,
        by_origin=by_origin,
    )


def _choose_unit(lengths: list[float], exponents: Sequence[int], weights: Sequence[float], kept: float) -> int:
    """Return the binary exponent of the weighted median of the rows' norms, zero rows left out, or a larger one."""
    logs = [math.log2(length) + e if length > 0 else -math.inf for length, e in zip(lengths, exponents, strict=True)]
    sized = [(log, weight) for log, weight in zip(logs, weights, strict=True) if log > -math.inf]
    if not sized:
        return 0
    sizes, masses = zip(*sized, strict=True)
    middle = float(weighted_medians(torch.tensor(sizes, dtype=torch.float64)[:, None], masses))
    ordered = sorted(zip(logs, weights, strict=True))
    reached = itertools.accumulate(weight for _, weight in ordered)
    last = next((log for (log, _), mass in zip(ordered, reached, strict=True) if mass >= kept), max(sizes))
    return math.floor(max(middle, last - _KEPT_EXPONENT))


def scale_up(value: float, exponent: int) -> float:
    """Return value * 2**exponent, at most the greatest float."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return sys.float_info.max


def distances(gram: Gram) -> Tensor:
    """Return |x_i - x_j|, (n, n) float64, in units of 2**gram.unit; exactly symmetric, 0 on the diagonal."""
    r = gram.norms
    squares = (r[:, None] - r) ** 2 + 2.0 * (r[:, None] * r) * (1.0 - gram.cosines)
    result = torch.maximum(squares, squares.T).clamp_min_(0.0).sqrt_()
    return result.fill_diagonal_(0.0)


def product_sizes(gram: Gram) -> Tensor:
    """Return the squared lengths, (n,), that squared distances to each row err in proportion to.

    Around the origin products err by the squares of the rows' own lengths, most of them like a usual distance.
    """
    squares = gram.norms**2
    return squares + squares.median() if gram.by_origin else squares


def row_distances(rows: Sequence[Tensor], gram: Gram, *, rule: str) -> Tensor:
    """Return ``distances``, those of rows next to each other but far from the centre measured from one of them.

    Args:
        rows: n tensors (d,), in the order of ``gram``, whose centre is one of them.
        rule: who asks; errors name it.
    """
    far, sizes = distances(gram), product_sizes(gram)
    unsure = far**2 < NEAR * torch.maximum(sizes[:, None], sizes)
    unsure.fill_diagonal_(False)
    while bool(unsure.any()):
        pivot = int(unsure.sum(dim=1).argmax())
        near = [pivot, *unsure[pivot].nonzero().flatten().tolist()]
        part = centred_gram([rows[place] for place in near], rule=rule, weights=[1.0] * len(near), centre=0)
        found = torch.ldexp(distances(part), torch.tensor(part.unit - gram.unit, device=far.device))
        at = torch.tensor(near, device=far.device)
        own = product_sizes(part)
        sure = distances(part) ** 2 >= NEAR * torch.maximum(own[:, None], own)
        sure[0], sure[:, 0] = True, True
        mend = unsure[at][:, at] & sure
        far[at[:, None], at] = torch.where(mend, found, far[at][:, at])
        unsure[at[:, None], at] &= ~mend
    return far


def content_distances(rows: Sequence[Tensor], *, rule: str, kept: int) -> tuple[tuple[int, ...], Tensor]:
    """Return the rows' order by content, and ``row_distances`` in it, in a unit of their own.

    Args and Raises: as for ``content_gram``.
    """
    order, gram = content_gram(rows, rule=rule, kept=kept)
    return order, row_distances([rows[index] for index in order], gram, rule=rule)


def centre_row(gram: Gram) -> int:
    """Return the index of the row that is the centre; there must be one."""
    assert gram.centre is not None
    return gram.centre


def combine_rows(rows: Sequence[Tensor], gram: Gram, coefficients: Tensor) -> Tensor:
    """Return centre + 2**unit * sum_j coefficients[j] * direction_j, (d,) of the rows' dtype.

    direction_j is the unit vector from the centre to row j; a row-space coefficient is one times ``gram.norms[j]``.
    """
    centre = centre_row(gram)
    usable = gram.lengths > 0
    multipliers = torch.where(usable, coefficients / torch.where(usable, gram.lengths, 1.0), 0.0)
    if _is_wide(rows, gram):
        multipliers *= 2.0**gram.unit
        multipliers[centre] = 1.0 - multipliers.sum()
        return blend_rows(rows, multipliers.tolist())
    result = new_row(rows[0])
    for low, high, block in centred_blocks(rows, centre, gram.exponents):
        part = _lay(torch.mv(block.T, multipliers.to(block.dtype)), gram.unit, rows[centre][low:high])
        result[low:high] = round_once(part, result.dtype) if part.dtype == torch.float64 else part
    return result


def _lay(part: Tensor, unit: int, middle: Tensor) -> Tensor:
    """Return middle + 2**unit * part, (m,), whose terms may be beyond the numbers of its type; ``part`` is used up."""
    if unit <= _LARGE[part.dtype]:
        return part.mul_(2.0**unit).add_(middle)
    # Half the factor at a time, in float64 and there in small shares of the unit: only the sum need be finite.
    greatest = torch.finfo(middle.dtype).max  # which rounding may carry a mean of the greatest numbers beyond
    wide = part.to(torch.float64).mul_(2.0 ** (unit // 2)).mul_(2.0 ** (unit - unit // 2 - _SHARE))
    return wide.add_(middle.to(torch.float64) * 2.0**-_SHARE).mul_(2.0**_SHARE).clamp_(-greatest, greatest)


def _is_wide(rows: Sequence[Tensor], gram: Gram) -> bool:
    """Ask whether rows lie as far apart as from the origin: then a plain sum of them loses no digit, and is faster."""
    if work_dtype(rows) == torch.float64 or any(gram.exponents):
        return False
    middle = rows[centre_row(gram)].to(wide_dtype(rows[0].dtype))
    return float(torch.dot(middle, middle)) <= 4.0 * 4.0**gram.unit
