"""Clipping: contributions longer than a limit are shortened to it before a rule is applied.

Source: HQDE clause 4.5; Allouah et al. 2024 (adaptive robust clipping, arXiv:2405.14432): kappa grows by 2f / (n - 2f).
Pure: no clock, no randomness, no input or output; arguments are never changed. Lengths are measured from the origin,
so nothing here is translation equivariant; a static limit is not scale equivariant either. A shortened row may leave
the range of all rows, and so may a result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.order_statistics import mean_of_middle
from hqde_ref.core.kernels.row_norms import row_norms
from hqde_ref.core.kernels.rows import (
    Updates,
    as_rows,
    check_count,
    choose_block_length,
    cut_blocks,
    new_row,
    require_data,
    require_finite,
    wide_dtype,
)
from hqde_ref.core.rules.settings import is_size
from hqde_ref.errors import ConfigurationError

__all__ = [
    "adaptive_limit",
    "clip_adaptively",
    "clip_rows",
    "clipped_trimmed_mean",
    "clipping_factors",
    "shorten_rows",
    "trim_shortened",
]

_CLIPPED = "clipped_trimmed_mean"
_LARGE_UNIT = 2.0**100


def clip_rows(updates: Updates, *, limit: float) -> tuple[Tensor, ...]:
    """Return the rows, those longer than ``limit`` (Euclidean norm) shortened to it; shorter ones are not copied.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        limit: finite and at least 0.
    Raises:
        ConfigurationError: the limit is not finite or below 0.
        TooFewContributions, NotFinite, LayoutError: for rows that do not fit.
    """
    rule = "static_clipping"
    rows = as_rows(updates, rule=rule)
    if not is_size(limit):
        raise ConfigurationError(
            setting=f"limit of {rule}",
            wanted="finite and at least 0",
            got=limit,
            do="give a length in the units of the contributions",
        )
    require_data(rule, rows)
    require_finite(rule, rows)
    lengths, unit = _measure(rows)
    return shorten_rows(rows, _factors(lengths, limit / unit))


def clip_adaptively(updates: Updates, *, faulty_max: int) -> tuple[Tensor, ...]:
    """Return the rows with the floor(2 f (n - f) / n) longest shortened to the length of the next longest.

    Raises:
        TooFewContributions: unless n > 2 * faulty_max.
        NotFinite, LayoutError, ConfigurationError: for rows that do not fit.
    """
    rule = "adaptive_clipping"
    rows = as_rows(updates, rule=rule)
    check_count(rule, count=len(rows), faulty_max=faulty_max)
    require_data(rule, rows)
    require_finite(rule, rows)
    return shorten_rows(rows, clipping_factors(_measure(rows)[0], faulty_max=faulty_max))


def clipped_trimmed_mean(updates: Updates, *, faulty_max: int) -> Tensor:
    """Return the trimmed mean of adaptively clipped rows; arguments, result and errors as for ``trimmed_mean``."""
    rows = as_rows(updates, rule=_CLIPPED)
    check_count(_CLIPPED, count=len(rows), faulty_max=faulty_max)
    require_data(_CLIPPED, rows)
    require_finite(_CLIPPED, rows)
    return trim_shortened(rows, clipping_factors(_measure(rows)[0], faulty_max=faulty_max), faulty_max=faulty_max)


def trim_shortened(rows: Sequence[Tensor], factors: Sequence[float], *, faulty_max: int) -> Tensor:
    """Return the trimmed mean, (d,), of rows times their factors, shortened block by block and rounded once."""
    result, wide = new_row(rows[0]), wide_dtype(rows[0].dtype)
    step, low = choose_block_length(rows[0], rows_held=2 * len(rows)), 0
    for pieces in cut_blocks(rows, step):
        shortened = shorten_rows([piece.to(wide) for piece in pieces], factors)
        high = low + pieces[0].numel()
        result[low:high] = mean_of_middle(shortened, trimmed=faulty_max, rule=_CLIPPED)
        low = high
    return result


def adaptive_limit(norms: Sequence[float], *, faulty_max: int) -> float:
    """Return the length that all but the floor(2 f (n - f) / n) longest rows keep to."""
    count = len(norms)
    clipped = 2 * faulty_max * (count - faulty_max) // count
    return sorted(norms, reverse=True)[clipped]


def clipping_factors(norms: Sequence[float], *, faulty_max: int) -> list[float]:
    """Return by what each row of these lengths is multiplied so that none is longer than ``adaptive_limit``."""
    return _factors(norms, adaptive_limit(norms, faulty_max=faulty_max))


def _measure(rows: Sequence[Tensor]) -> tuple[tuple[float, ...], float]:
    """Return the rows' lengths and the unit they are in: 1, but where a length is beyond float64."""
    lengths = row_norms(rows)
    return (lengths, 1.0) if all(map(math.isfinite, lengths)) else (row_norms(rows, unit=_LARGE_UNIT), _LARGE_UNIT)


def _factors(norms: Sequence[float], limit: float) -> list[float]:
    return [1.0 if norm <= limit else limit / norm for norm in norms]


def shorten_rows(rows: Sequence[Tensor], factors: Sequence[float]) -> tuple[Tensor, ...]:
    """Return the rows times their factors; those of factor 1 are not copied."""
    return tuple(row if factor == 1.0 else _shorten(row, factor) for row, factor in zip(rows, factors, strict=True))


def _shorten(row: Tensor, factor: float) -> Tensor:
    # Two factors, since one may be smaller than the least float32 while the product is not.
    fraction, exponent = math.frexp(factor)
    half = exponent // 2
    return torch.mul(row, fraction * 2.0**half).mul_(2.0 ** (exponent - half))
