"""Coordinate-wise trimmed mean: each coordinate's mean without its smallest and largest values.

Trimming faulty_max values on either side has the best worst-case bound any rule can have: kappa = f / (n - 2f).

Source: HQDE clause 4.5; Yin et al. 2018, Definition 2 (arXiv:1803.01498); Allouah et al. 2023 (arXiv:2302.01772).
Pure: no clock, no randomness, no input or output; arguments are never changed. It averages what is left, so it is
never as near to one contribution as a median is.
"""

from __future__ import annotations

from torch import Tensor

from hqde_ref.core.kernels.compiled import Backend
from hqde_ref.core.kernels.order_statistics import mean_of_middle
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count
from hqde_ref.errors import ConfigurationError, TooFewContributions

__all__ = ["resolve_trimmed", "trimmed_mean"]

_RULE = "trimmed_mean"


def trimmed_mean(
    updates: Updates, *, faulty_max: int, trimmed: int | None = None, backend: Backend = "eager"
) -> Tensor:
    """Return the mean of each coordinate without its ``trimmed`` smallest and ``trimmed`` largest values.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        faulty_max: how many rows may hold anything at all.
        trimmed: values left out on either side, at least ``faulty_max``, which it is by default.
        backend: "compiled" for torch.compile where there is a compiler: the same bits, faster once compiled.
    Returns:
        A new row (d,) of the same dtype and device, inside the range of the values kept.
    Raises:
        TooFewContributions: unless n > 2 * trimmed.
        ConfigurationError: ``trimmed`` is below ``faulty_max``.
        NotFinite, LayoutError: for rows that do not fit.
    """
    rows = as_rows(updates, rule=_RULE)
    left_out = resolve_trimmed(trimmed, count=len(rows), faulty_max=faulty_max)
    return mean_of_middle(rows, trimmed=left_out, rule=_RULE, backend=backend)


def resolve_trimmed(trimmed: int | None, *, count: int, faulty_max: int) -> int:
    """Return how many of ``count`` values are left out on either side; arguments and errors as for ``trimmed_mean``."""
    check_count(_RULE, count=count, faulty_max=faulty_max)
    left_out = faulty_max if trimmed is None else trimmed
    if isinstance(left_out, bool) or not isinstance(left_out, int) or left_out < faulty_max:
        raise ConfigurationError(
            setting=f"trimmed of {_RULE}",
            got=trimmed,
            wanted=f"an integer of at least faulty_max={faulty_max}",
            do="trim at least as many values a side as rows may be faulty",
        )
    if count < 2 * left_out + 1:
        raise TooFewContributions(
            rule=_RULE, setting="trimmed", faulty_max=left_out, needed=2 * left_out + 1, got=count
        )
    return left_out
