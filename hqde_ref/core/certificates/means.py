"""Certificate of a mean: how far the output is from it, in any coordinate.

Source: HQDE clauses 0.13 and 3.3.
Pure: no clock, no randomness, no input or output; arguments are never changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.certificates.certificate import Certificate, Judged, judge
from hqde_ref.core.kernels.gram import scale_up
from hqde_ref.core.kernels.rows import Updates, check_count, check_weights

__all__ = ["certify_weighted_mean", "farthest_from_mean"]


def certify_weighted_mean(
    updates: Updates, output: Tensor, *, faulty_max: int, weights: Sequence[float] | Tensor | None = None
) -> Certificate:
    """Judge ``output`` as the weighted mean of ``updates``.

    Args:
        updates, output, weights: as for ``certify_geometric_median``, whose errors it raises too.
        faulty_max: for the sake of a common signature; a mean tolerates nobody.
    """
    rule = "weighted_mean"
    judged = judge(rule, updates, output)
    check_count(rule, count=len(judged.rows), faulty_max=faulty_max, per_faulty=0)
    given = check_weights(rule, weights, count=len(judged.rows))
    total = math.fsum(given)
    excess = farthest_from_mean(judged, [weight / total for weight in given])
    trust = "which any of them can lead anywhere" if faulty_max else "of rows that are all trusted"
    return Certificate(
        rule=rule,
        count=len(judged.rows),
        faulty_max=faulty_max,
        excess=excess,
        because=f"the output is at most {excess:.3g} in any coordinate from the mean, {trust}",
    )


def farthest_from_mean(judged: Judged, shares: Sequence[float]) -> float:
    """Return the greatest distance in a coordinate between the output and sum_i shares[i] * rows[i].

    Args:
        judged: n rows and an output.
        shares: n numbers that sum to 1.
    """
    factors = torch.tensor(shares, dtype=torch.float64, device=judged.point.device)
    off = (float(torch.mv(block.T, factors).abs().max()) for block in judged.differences_to(judged.point))
    return scale_up(max(off, default=0.0), judged.unit)
