"""What is proven of every robust rule that the suite knows: its bound, its condition and its symmetries.

Source: HQDE clauses 4.5, 4.6, 4.8 and 4.9. n contributions of which f may be anything, h = n - f honest ones, V their
mean squared distance from their mean. Written without a look at the core: judges do not borrow from the judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from hqde_ref.messages import message

__all__ = ["ROBUST", "UNPROVEN", "RobustRule", "kappa_after"]


def _majority(f: int) -> int:
    return 2 * f + 1


@message
class RobustRule:
    """What is proven of a rule.

    Attributes:
        kappa: (n, f) to the constant in |result - honest mean|^2 <= kappa * V, all n arrived and kept; None where
            nothing is proven.
        kappa_dropped: (n, f, c) to the constant for all honest that arrived when c rows were dropped, where a sharper
            one is proven than follows from ``kappa``.
        least: f to the fewest contributions it takes.
        translates, negates, rotates: shifting, negating or turning all contributions does so to the result.
        ties: distinct contributions often score alike, so that the tie-break by content shows in its symmetries.
        faulty_most: for how many liars it can be computed in the time of a test.
    """

    kappa: Callable[[int, int], float] | None
    kappa_dropped: Callable[[int, int, int], float] | None = None
    least: Callable[[int], int] = _majority
    translates: bool = True
    negates: bool = True
    rotates: bool = True
    ties: bool = False
    faulty_most: int = 40


def _geometric_median(n: int, f: int) -> float:
    return n / (n - 2 * f) if n % 2 == 0 else (n - 1) / (n + 1 - 2 * f)


def _geometric_median_dropped(n: int, f: int, c: int) -> float:
    # The liars and the dropped hold the median away from the honest mean only if this many honest rows sit at it.
    resting = math.ceil((n - c - 2 * f) / 2)
    return (n - f - resting) / resting


def _coordinate_median(n: int, f: int) -> float:
    return (n - 2) / (n + 2 - 2 * f) if n % 2 == 0 else (n - 1) / (n + 1 - 2 * f)


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


def _mixed(kappa: Callable[[int, int], float]) -> Callable[[int, int], float]:
    return lambda n, f: 8 * f / (n - f) * (kappa(n, f) + 1)


def _krum_least(f: int) -> int:
    return 2 * f + 3


ROBUST: Final[Mapping[str, RobustRule]] = {
    "geometric_median": RobustRule(kappa=_geometric_median, kappa_dropped=_geometric_median_dropped),
    "filtered_geometric_median": RobustRule(
        kappa=lambda n, f: _geometric_median_dropped(n, f, f), least=lambda f: 3 * f + 1
    ),
    "coordinate_median": RobustRule(kappa=_coordinate_median, rotates=False),
    "lower_coordinate_median": RobustRule(kappa=_geometric_median, rotates=False, negates=False),
    "trimmed_mean": RobustRule(kappa=_trimmed_mean, rotates=False),
    "mean_around_median": RobustRule(kappa=_mean_around_median, rotates=False),
    "krum": RobustRule(kappa=_krum, least=_krum_least),
    "multi_krum": RobustRule(kappa=_multi_krum, least=_krum_least),
    "minimum_diameter_mean": RobustRule(kappa=lambda n, f: 8 * f * f / (n - f), ties=True, faulty_most=3),
    "smallest_spread_mean": RobustRule(kappa=lambda n, f: 4 * f / (n - f) * (1 + f / (n - 2 * f)) ** 2, faulty_most=3),
    "mixed_trimmed_mean": RobustRule(kappa=_mixed(_trimmed_mean), rotates=False),
    "mixed_geometric_median": RobustRule(kappa=_mixed(_geometric_median)),
    "mixed_krum": RobustRule(kappa=_mixed(_krum), least=_krum_least, ties=True),
    "clipped_trimmed_mean": RobustRule(
        kappa=lambda n, f: _trimmed_mean(n, f) + 2 * f / (n - 2 * f), translates=False, rotates=False
    ),
}

# Rules that are offered, but not as robust for f < n/3: section 0 binds them, the bounds do not.
UNPROVEN: Final[Mapping[str, RobustRule]] = {
    "covariance_filter": RobustRule(kappa=None),
    "bulyan": RobustRule(kappa=None, least=lambda f: 4 * f + 3, rotates=False),
    "centred_clipping": RobustRule(kappa=None, rotates=False),
}


def kappa_after(rule: str, *, arrived: int, faulty_max: int, dropped: int) -> float:
    """The constant with respect to all honest that arrived, when ``dropped`` rows were left out, honest ones perhaps.

    The honest that are left have at most h/(h - c) times the variance, and their mean is at most sqrt(c/(h - c)) sigma
    from everyone's.
    """
    known = ROBUST[rule]
    if known.kappa_dropped is not None:
        return known.kappa_dropped(arrived, faulty_max, dropped)
    assert known.kappa is not None
    honest, left = arrived - faulty_max, arrived - faulty_max - dropped
    inner = known.kappa(arrived - dropped, faulty_max)
    return (math.sqrt(inner * honest / left) + math.sqrt(dropped / left)) ** 2
