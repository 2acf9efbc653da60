"""A round with liars against the proven bound of its rule: the one check that many properties of section 4 share."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import target

from properties.declaring import Way
from properties.laws import aggregate, coarsest, flat_row, result_in
from properties.liars import Lied
from properties.subject import Subject
from properties.tolerances import bound_slack
from simulator.proven_bounds import kappa_after

__all__ = ["require_within_bound"]


def require_within_bound(implementation: Subject, way: Way, case: Lied) -> None:
    """|result - mean of honest|^2 <= kappa * variance of honest, over those that arrived (clause 4.5).

    ``hypothesis.target`` climbs towards the bound.
    """
    reply = aggregate(
        implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max, members=case.members
    )
    result = result_in(reply, implementation)
    honest, point = case.honest_rows(), flat_row(result, case.layout)
    mean = honest.mean(axis=0)
    error = float(np.linalg.norm(point - mean))
    deviation = math.sqrt(float(((honest - mean) ** 2).sum(axis=1).mean()))
    # Rejecting more than clause 4.4 allows loosens no bound.
    dropped = min(len(reply.rejected or ()), max(0, case.faulty_max - len(case.silent)))
    kappa = kappa_after(way.rule, arrived=len(case.updates), faulty_max=case.faulty_max, dropped=dropped)
    assert kappa is not None, f"no bound is proven of {way.rule} with {len(case.updates)} contributions"
    slack = bound_slack(coarsest(result, case.layout), top=float(np.abs(honest).max()), size=honest.shape[1])
    bound = math.sqrt(kappa) * deviation
    if deviation > 0 and math.isfinite(error):
        target(error / bound, label="error over bound")
    assert error <= bound * (1 + 1e-9) + slack, (
        f"the result lies {error:.6g} from the mean of the honest, {bound:.6g} is the bound (sigma {deviation:.3g}, "
        f"kappa {kappa:.4g}, {len(case.updates)} arrived, f = {case.faulty_max}; liars: {', '.join(case.liars)})"
    )
