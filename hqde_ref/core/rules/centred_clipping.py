"""Centred clipping: from a reference point, the mean of the steps towards all contributions, each cut to a radius.

Source: HQDE clause 4.5; Karimireddy et al. 2021 (arXiv:2012.10333).
Pure: no clock, no randomness, no input or output; arguments are never changed. With a given reference and radius the
rule is not translation or scale equivariant and its error grows with the distance of the reference; with the
defaults (coordinate-wise median, median distance) it is both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.gram import Gram, centred_gram, combine_rows, scale_up
from hqde_ref.core.kernels.order_statistics import median_rows
from hqde_ref.core.kernels.rows import (
    Updates,
    as_rows,
    check_count,
    content_order,
    require_data,
    require_finite,
    require_finite_part,
)
from hqde_ref.core.rules.settings import is_size
from hqde_ref.errors import ConfigurationError, LayoutError, require_integer

__all__ = ["centred_clipping", "clipping_multipliers"]

_RULE = "centred_clipping"


def centred_clipping(
    updates: Updates, *, faulty_max: int, reference: Tensor | None = None, radius: float | None = None, steps: int = 1
) -> Tensor:
    """Return the point after ``steps`` moves v <- v + mean_i cut(x_i - v), cut shortening a vector to ``radius``.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        faulty_max: how many rows may hold anything at all.
        reference: where to start, (d,) of the rows' dtype and device; None for the coordinate-wise median.
        radius: finite and at least 0; None for the ceil(n / 2)-th smallest distance from the start.
        steps: how many moves, at least 1.
    Returns:
        A new row (d,) of the same dtype and device.
    Raises:
        TooFewContributions: unless n > 2 * faulty_max.
        NotFinite, LayoutError, ConfigurationError: for rows or settings that do not fit.
    """
    rows = as_rows(updates, rule=_RULE)
    check_count(_RULE, count=len(rows), faulty_max=faulty_max)
    _check_settings(radius, steps)
    if reference is not None:
        _check_reference(reference, rows)
    require_data(_RULE, rows)
    if rows[0].numel() == 0:
        return rows[0].clone()  # a layout without floating entries: nothing to move
    start = median_rows(rows, lower=False, rule=_RULE) if reference is None else reference.detach()
    if reference is not None:
        require_finite(_RULE, rows)
        require_finite_part(_RULE, "the reference", start, do="start from a finite row, or leave it out for the median")
    # The rows and the start, around the start: all iterates are combinations of them.
    points = [*(rows[index] for index in content_order(rows)), start]
    gram = centred_gram(points, rule=_RULE, weights=[1.0] * len(points), centre=len(rows))
    return combine_rows(points, gram, _move(gram, radius, steps))


def clipping_multipliers(rows: Sequence[Tensor], start: Tensor, *, faulty_max: int) -> Tensor:
    """Return m (n,) float64 with result - start = sum_i m_i (x_i - start), of one step to the default radius.

    Args and Raises: as for ``centred_clipping``, ``start`` being the reference.
    """
    check_count(_RULE, count=len(rows), faulty_max=faulty_max)
    gram = centred_gram([*rows, start], rule=_RULE, weights=[1.0] * (len(rows) + 1), centre=len(rows))
    shifts = torch.tensor(gram.exponents, dtype=torch.float64, device=gram.lengths.device) - gram.unit
    far = gram.lengths * torch.exp2(shifts)
    return torch.where(far > 0, _move(gram, None, 1) / far.clamp_min(1e-300), 0.0)[:-1]


def _move(gram: Gram, radius: float | None, steps: int) -> Tensor:
    """Return the coefficients of the point reached, (n + 1,) along the directions from the last row, the start."""
    count = len(gram.norms) - 1
    coefficients = torch.zeros_like(gram.norms)
    limit = _relative_radius(radius, gram.norms[:-1], gram.unit)
    for _ in range(steps):
        along = gram.cosines @ coefficients
        squares = gram.norms**2 - 2.0 * gram.norms * along + coefficients @ along
        far = squares.clamp_min(0.0).sqrt()[:-1]
        shares = torch.where(far > limit, limit / torch.where(far > limit, far, 1.0), 1.0) / count
        coefficients = coefficients * (1.0 - shares.sum())
        coefficients[:-1] += shares * gram.norms[:-1]
    return coefficients


def _check_reference(reference: Tensor, rows: Sequence[Tensor]) -> None:
    what, row = f"reference of {_RULE}", rows[0]
    if not isinstance(reference, Tensor):
        raise LayoutError(what=what, wanted="a torch tensor", got=type(reference).__name__, do="pass a row")
    if reference.is_nested or reference.layout != torch.strided:
        got = "a nested tensor" if reference.is_nested else f"a {reference.layout} one"
        raise LayoutError(what=what, wanted="a dense row", got=got, do="call to_dense() first")
    if (reference.shape, reference.dtype, reference.device) != (row.shape, row.dtype, row.device):
        raise LayoutError(
            what=what,
            wanted=f"{tuple(row.shape)} {row.dtype} on {row.device}",
            got=f"{tuple(reference.shape)} {reference.dtype} on {reference.device}",
            do="start from a row of the same layout",
        )


def _check_settings(radius: float | None, steps: int) -> None:
    if radius is not None and not is_size(radius):
        raise ConfigurationError(
            setting=f"radius of {_RULE}",
            wanted="finite and at least 0",
            got=radius,
            do="leave it out for the median distance",
        )
    require_integer(f"steps of {_RULE}", steps, least=1, do="move at least once")


def _relative_radius(radius: float | None, norms: Tensor, unit: int) -> float:
    if radius is not None:
        return scale_up(radius, -unit)
    return float(norms.sort().values[(len(norms) - 1) // 2])
