"""Weighted mean: the rule that tolerates no faulty contribution, and what all others are measured against.

Source: HQDE clauses 2.2, 3.3, 3.4; Blanchard et al. 2017, Lemma 1, for why one faulty row owns it.
Pure: no clock, no randomness, no input or output; arguments are never changed. It is never offered as robust.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.compiled import Backend, build_weighted_mean, is_compiled
from hqde_ref.core.kernels.exact_sums import exact_weighted_mean
from hqde_ref.core.kernels.means import blend_rows, clamp_finite, multiply_arena
from hqde_ref.core.kernels.rows import (
    Updates,
    as_rows,
    check_arena,
    check_count,
    check_weights,
    is_finite_row,
    new_row,
    require_data,
    require_finite,
    wide_dtype,
)
from hqde_ref.errors import NotFinite

__all__ = ["fast_weighted_mean", "weighted_mean"]

_RULE = "weighted_mean"


def weighted_mean(updates: Updates, *, faulty_max: int = 0, weights: Sequence[float] | Tensor | None = None) -> Tensor:
    """Return the weighted mean with bits that do not depend on order, list or arena, or any tree over the rows.

    That costs accuracy where coordinates differ much in size: all summands are rounded to one grid, so that a
    coordinate may be off by n * 2^-51 of the greatest entry of all rows, and one below that may come out as 0. Where
    each is to have its own digits, take ``fast_weighted_mean``, or ``exact_weighted_mean`` with a grid a block.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        faulty_max: accepted for the sake of a common signature; no number of faulty rows is tolerated.
        weights: n positive numbers, None for 1 each.
    Returns:
        A new row (d,) of the same dtype and device.
    Raises:
        TooFewContributions, LayoutError, NotFinite, ConfigurationError: for rows or weights that do not fit.
    """
    rows = as_rows(updates, rule=_RULE)
    check_count(_RULE, count=len(rows), faulty_max=faulty_max, per_faulty=0)
    given = check_weights(_RULE, weights, count=len(rows))
    require_data(_RULE, rows)
    try:
        return exact_weighted_mean(rows, given)
    except NotFinite:
        require_finite(_RULE, rows)  # by the name of what the caller uses
        raise


def fast_weighted_mean(
    updates: Updates, *, weights: Sequence[float] | Tensor | None = None, backend: Backend = "eager"
) -> Tensor:
    """Return the weighted mean at the speed of memory; the order of the rows shows in the last bits.

    Accumulates in float32 for 16-bit rows. Same arguments, result and errors as ``weighted_mean``. An (n, d) tensor
    is read by matrix products, a list in cache-sized blocks.

    Args:
        backend: "compiled" for one loop over either by torch.compile, where there is a compiler; its last bits differ.
    """
    rows: Sequence[Tensor] | None = None
    if backend == "eager" and isinstance(updates, Tensor) and updates.dtype == wide_dtype(updates.dtype):
        check_arena(updates, rule=_RULE)  # a thousand views of rows would take as long as the product
        arena = updates.detach()
        if weights is None:  # a thousand numbers of a list take a tenth of the time that their rows take
            shares = arena.new_full((len(arena),), 1.0 / len(arena))
        else:
            shares = torch.tensor(_shares(weights, len(arena)), dtype=arena.dtype, device=arena.device)
        result = multiply_arena(arena, shares)
    else:
        rows = as_rows(updates, rule=_RULE)
        result = _blend(rows, _shares(weights, len(rows)), backend)
    # A row that is not finite leaves a result that is not; only then are the rows looked at.
    if not is_finite_row(result):
        require_finite(_RULE, as_rows(updates, rule=_RULE) if rows is None else rows)  # an iterator gives them once
        clamp_finite(result)
    return result


def _blend(rows: Sequence[Tensor], shares: list[float], backend: Backend) -> Tensor:
    first = rows[0]
    kernel = (
        build_weighted_mean(len(rows), first.dtype, first.device) if is_compiled(backend, rows, rule=_RULE) else None
    )
    if kernel is None:
        return blend_rows(rows, shares)
    result = new_row(first)
    kernel(list(rows), torch.tensor(shares, dtype=first.dtype, device=first.device), result)
    return result


def _shares(weights: Sequence[float] | Tensor | None, count: int) -> list[float]:
    given = check_weights(_RULE, weights, count=count)
    total = math.fsum(given)
    return [weight / total for weight in given]
