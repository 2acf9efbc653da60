"""A round with liars against the proven bounds of its rule, which many properties of section 4 share.

Written without a look at the core: the constants here and in ``simulator.proven_bounds`` are the judges' own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from hypothesis import target

from properties.declaring import Way
from properties.laws import aggregate, coarsest, flat_row, result_in
from properties.liars import Lied
from properties.subject import Subject
from properties.tolerances import bound_slack
from simulator.proven_bounds import kappa_after, least_contributions

__all__ = ["BESIDE_KAPPA", "require_within_bound", "require_within_the_bound_beside"]

Rows = npt.NDArray[np.float64]

# What is proven beside kappa: how far a result may lie from the mean of the honest, for each of what, as (n, f) says,
# n being those who were used. By the covariance it is squares that are compared.
BESIDE_KAPPA: Final[Mapping[str, tuple[str, Callable[[int, int], float]]]] = {
    "coordinate_median": ("range", lambda n, f: (n - 1 if n % 2 else n - 2) / (2 * (n - f))),
    "lower_coordinate_median": ("range", lambda n, f: (n - 1 if n % 2 else n) / (2 * (n - f))),
    "trimmed_mean": ("range", lambda n, f: f / (n - f)),
    "mean_around_median": ("range", lambda n, f: 2 * f / (n - f)),
    "minimum_diameter_mean": ("diameter", lambda n, f: 2 * f / (n - f)),
    "smallest_spread_mean": ("covariance", lambda n, f: 4 * f / (n - f) * (1 + f / (n - 2 * f)) ** 2),
    "geometric_median": ("distances", lambda n, f: 2 / (n - 2 * f if n % 2 == 0 else n - 2 * f + 1)),
}


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


def require_within_the_bound_beside(implementation: Subject, way: Way, case: Lied) -> None:
    """The other bound of the rule, of those who were used: rejecting somebody else is not judged here."""
    reply = aggregate(
        implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max, members=case.members
    )
    result = result_in(reply, implementation)
    used = set(case.rows if reply.used is None else reply.used)
    least = least_contributions(way.rule, case.faulty_max)
    assert len(used) >= least, (
        f"{len(used)} of {len(case.rows)} contributions were used, with which nothing is proven of {way.rule}; "
        f"{least} withstand {case.faulty_max} liars"
    )
    honest = np.stack([case.rows[worker] for worker in case.honest if worker in used])
    measure, constant = BESIDE_KAPPA[way.rule]
    away = np.abs(flat_row(result, case.layout) - honest.mean(axis=0))
    factor = constant(len(used), case.faulty_max)
    allowed = (math.sqrt(factor) if measure == "covariance" else factor) * _spread(measure, honest)
    slack = bound_slack(coarsest(result, case.layout), top=float(np.abs(honest).max()), size=honest.shape[1])
    if measure != "range":
        away = np.array([np.linalg.norm(away)])
    over = away - allowed * (1 + 1e-9) - slack
    if (allowed > 0).all() and np.isfinite(away).all():
        target(float((away / allowed).max()), label="error over bound")
    worst = int(over.argmax())
    where = f" in coordinate {worst}" if measure == "range" else ""
    assert over[worst] <= 0, (
        f"the result lies {away[worst]:.6g} from the mean of the honest{where}, {allowed[worst]:.6g} is the bound "
        f"({measure}; {len(used)} used, f = {case.faulty_max}; liars: {', '.join(case.liars)})"
    )


def _spread(measure: str, honest: Rows) -> Rows:
    """(d,) by coordinate, or (1,)."""
    mean = honest.mean(axis=0)
    match measure:
        case "range":
            return np.asarray(np.ptp(honest, axis=0))
        case "diameter":
            return np.array([max(float(np.linalg.norm(one - other)) for one in honest for other in honest)])
        case "covariance":
            return np.array([np.linalg.norm(honest - mean, ord=2) / math.sqrt(len(honest))])
        case _:
            return np.array([np.linalg.norm(honest - mean, axis=1).sum()])
