"""The constants that are proven of robust rules, for judging rounds and for the properties of rules.

Source: HQDE clauses 4.2, 4.4, 4.5 and 4.9. n contributions of which f may be anything, h = n - f honest ones, V their
mean squared distance from their mean: |result - honest mean|^2 <= kappa * V. Written without a look at the core: a
judge does not borrow from the judged, least of all the constant it says it keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hqde_ref.messages import Accepted, Policy

__all__ = ["PROVEN", "hidden_max", "kappa_after", "kappa_of", "least_contributions", "tree_tolerance"]

_Kappa = Callable[[int, int], float]
_PROVEN_LIES = ("not finite", "misshapen")  # such a contribution is Byzantine beyond doubt
_OUTLIER = "outlier"


def _geometric_median(n: int, f: int) -> float:
    return n / (n - 2 * f) if n % 2 == 0 else (n - 1) / (n + 1 - 2 * f)


def _geometric_median_dropped(n: int, f: int, c: int) -> float:
    # The liars and the dropped hold the median away from the honest mean only if this many honest rows sit at it.
    resting = math.ceil((n - c - 2 * f) / 2)
    return (n - f - resting) / resting


def _coordinate_median(n: int, f: int) -> float:
    return (n - 2) / (n + 2 - 2 * f) if n % 2 == 0 else (n - 1) / (n + 1 - 2 * f)


def _trimmed_mean_dropped(n: int, f: int, c: int) -> float:
    return (f + c) / (n - 2 * f - c)


def _trimmed_mean(n: int, f: int) -> float:
    return f / (n - 2 * f)


def _mean_around_median(n: int, f: int) -> float:
    share = f / (n - f)
    return 4 * (math.sqrt(share) + share * math.sqrt(_coordinate_median(n, f))) ** 2


def _krum(n: int, f: int) -> float:
    """Krum's score over its n - f - 2 nearest; m honest rows at least are among them and itself."""
    h, near = n - f, n - f - 2
    m = near - f + 1
    return (math.sqrt(2 * h * near / ((h - 1) * m)) + math.sqrt((h - m) / m)) ** 2


def _multi_krum(n: int, f: int) -> float:
    """The mean of the n - f lowest scores, the worst number of liars among them."""
    h, near = n - f, n - f - 2
    m, chosen = near - f + 1, n - f
    worst = 0.0
    for liars in range(f + 1):
        honest = chosen - liars
        lied = math.sqrt(2 * liars * h * near / (chosen * (h - 1) * m)) + liars / chosen * math.sqrt((h - m) / m)
        worst = max(worst, lied + math.sqrt(honest * (h - honest)) / chosen)
    return worst**2


def _bulyan(n: int, f: int) -> float:
    """The mean of the n - 4f values nearest to a median of n - 2f rows, honest ones perhaps missing among them."""
    honest, median = n - f, _geometric_median_dropped(n, f, 2 * f)
    return (math.sqrt(median) + math.sqrt(honest * (1 + median) / (n - 4 * f))) ** 2


def _centred_clipping(n: int, f: int) -> float:
    """From a median, off by k: all pulls together are at most those of honest rows, the liars' cut to the radius."""
    honest, median, beyond = n - f, _coordinate_median(n, f), n // 2 + 1 - f
    pulls = math.sqrt(honest * (1 + median)) * max(f / math.sqrt(beyond), math.sqrt(honest))
    return ((f * math.sqrt(median) + pulls) / n) ** 2


def _mixed(kappa: _Kappa) -> _Kappa:
    return lambda n, f: 8 * f / (n - f) * (kappa(n, f) + 1)


# (n, f) to the constant, all n arrived and kept. That of centred clipping is for a start at the coordinate-wise median
# and a radius of the median distance: rounds have no other, and implementations that may are not asked for it.
PROVEN: Final[Mapping[str, _Kappa]] = {
    "geometric_median": _geometric_median,
    "blockwise_geometric_median": _geometric_median,  # squares of errors and variances add over blocks
    "filtered_geometric_median": lambda n, f: _geometric_median_dropped(n, f, f),
    "coordinate_median": _coordinate_median,
    "lower_coordinate_median": _geometric_median,
    "trimmed_mean": _trimmed_mean,
    "mean_around_median": _mean_around_median,
    "krum": _krum,
    "multi_krum": _multi_krum,
    "bulyan": _bulyan,
    "centred_clipping": _centred_clipping,
    "minimum_diameter_mean": lambda n, f: 8 * f * f / (n - f),
    "smallest_spread_mean": lambda n, f: 4 * f / (n - f) * (1 + f / (n - 2 * f)) ** 2,
    "mixed_trimmed_mean": _mixed(_trimmed_mean),
    "mixed_geometric_median": _mixed(_geometric_median),
    "mixed_krum": _mixed(_krum),
    "clipped_trimmed_mean": lambda n, f: _trimmed_mean(n, f) + 2 * f / (n - 2 * f),
}
# Sharper where rows were dropped, honest ones perhaps, than what follows from the constant of the rows that are left.
_DROPPED: Final[Mapping[str, Callable[[int, int, int], float]]] = {
    "geometric_median": _geometric_median_dropped,
    "blockwise_geometric_median": _geometric_median_dropped,
    "filtered_geometric_median": lambda n, f, c: _geometric_median_dropped(n, f, f),  # it drops at most f by itself
    "lower_coordinate_median": _geometric_median_dropped,
    "trimmed_mean": _trimmed_mean_dropped,
}
_LEAST: Final[Mapping[str, Callable[[int], int]]] = {
    "filtered_geometric_median": lambda f: 3 * f + 1,
    "krum": lambda f: 2 * f + 3,
    "multi_krum": lambda f: 2 * f + 3,
    "mixed_krum": lambda f: 2 * f + 3,
    "bulyan": lambda f: 4 * f + 3,
}


def least_contributions(rule: str, faulty_max: int) -> int:
    """The fewest usable contributions with which a rule withstands ``faulty_max`` liars among them."""
    least = _LEAST.get(rule)
    return 2 * faulty_max + 1 if least is None else least(faulty_max)


def tree_tolerance(there: Sequence[bool], branching: int) -> int:
    """How many liars a tree of medians survives wherever they sit; of its leaves, some are there and some are not."""
    costs = [int(leaf) for leaf in there]
    while len(costs) > 1:
        groups = [[cost for cost in costs[at : at + branching] if cost] for at in range(0, len(costs), branching)]
        costs = [sum(sorted(group)[: (len(group) + 1) // 2]) for group in groups]
    return max(0, costs[0] - 1)


def hidden_max(faulty_max: int, rejected: Mapping[str, str]) -> int:
    """How many liars may still be among the contributions: one that was found out counts once (clause 4.2)."""
    return max(0, faulty_max - sum(reason.startswith(_PROVEN_LIES) for reason in rejected.values()))


def kappa_after(rule: str, *, arrived: int, faulty_max: int, dropped: int) -> float | None:
    """The constant with respect to all honest that arrived, when ``dropped`` of the rows were left out.

    None where nothing is proven: of the rule, or with so few rows.
    """
    inner = PROVEN.get(rule)
    left = arrived - dropped
    if rule in _DROPPED:
        return _DROPPED[rule](arrived, faulty_max, dropped) if left > 2 * faulty_max else None
    if inner is None or left < least_contributions(rule, faulty_max):
        return None
    # The honest that are left have at most h/(h - c) times the variance, and their mean is at most sqrt(c/(h - c))
    # sigma from everyone's.
    honest, rest = arrived - faulty_max, left - faulty_max
    return (math.sqrt(inner(left, faulty_max) * honest / rest) + math.sqrt(dropped / rest)) ** 2


def kappa_of(verdict: Accepted, *, policy: Policy, members: int) -> float | None:
    """What must hold of a round's result by the policy that was asked for; None where nothing is proven."""
    if policy.topology == "tree":  # what holds node by node is no kappa
        return None
    outliers = sum(reason.startswith(_OUTLIER) for reason in verdict.rejected.values())
    arrived = len(verdict.used) + outliers
    allowed = max(0, policy.faulty_max - (members - arrived))  # rejecting more (clause 4.4) loosens no bound
    return kappa_after(
        policy.rule,
        arrived=arrived,
        faulty_max=hidden_max(policy.faulty_max, verdict.rejected),
        dropped=min(outliers, allowed),
    )
