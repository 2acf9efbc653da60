"""How far a result may be from the exact one: every tolerance of the suite, derived from n, d and dtype.

Written without a look at the core. Wherever a law is exact, its property compares bits and none of this is used.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

__all__ = [
    "NEAR",
    "ROUNDOFF",
    "WIDE",
    "average_slack",
    "bound_slack",
    "coarser",
    "even_shares",
    "mean_tolerance",
    "rounding",
    "symmetry_slack",
]

ROUNDOFF: Final = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
LEAST: Final = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 2.0**-1074}
# Clause 0.9: half precision is accumulated in float32 at least.
WIDE: Final = {"float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64"}
# A score or a share that is computed from a handful of float64 operations.
NEAR: Final = 1e-12
# What an iteration's stop may leave undone, as a part of the contributions' spread.
UNSETTLED: Final = 1e-6


def coarser(one: str, other: str) -> str:
    """Of two dtypes the one with fewer digits: a result of the wrong type breaks clause 0.2, not a bound."""
    return max(one, other, key=ROUNDOFF.__getitem__)


def mean_tolerance(dtype: str, *, count: int, top: float) -> Fraction:
    """How far any sensible order of summing leaves a mean of ``count`` values up to ``top`` from the exact one.

    Products, sums and a quotient in the wide type (n + 2 roundings of at most top each, Higham 2002, section 4.2), and
    one rounding to ``dtype`` at the end; twice of that, since masses are rounded too.
    """
    wide = 2 * (count + 2) * ROUNDOFF[WIDE[dtype]]
    return Fraction((wide + ROUNDOFF[dtype]) * top) + 2 * Fraction(LEAST[dtype])


def rounding(dtype: str, *, top: float, size: int) -> float:
    """Euclidean norm of the rounding of ``size`` values up to ``top`` to ``dtype``."""
    return math.sqrt(max(size, 1)) * (ROUNDOFF[dtype] * top + LEAST[dtype])


def bound_slack(dtype: str, *, top: float, size: int) -> float:
    """What a proven bound may be missed by: the rounding of inputs' differences and of the output, a few times over."""
    return 8.0 * rounding(dtype, top=top, size=size)


def even_shares(count: int, *, share: float) -> tuple[int, int]:
    """The least and the most of ``count`` keys that a store gets which wins each with this chance: six deviations."""
    wide = 6.0 * math.sqrt(count * share * (1.0 - share))
    return math.ceil(count * share - wide), math.floor(count * share + wide)


def average_slack(dtype: str, *, count: int, top: float) -> float:
    """Rounding of an average of averages of ``count`` values up to ``top``, or of two averages side by side."""
    return float(2 * mean_tolerance(dtype, count=count, top=top))


def symmetry_slack(dtype: str, *, spread: float, top: float, size: int) -> float:
    """How far apart one result may lie when it is computed in two coordinate systems, in the larger of them."""
    return UNSETTLED * spread + bound_slack(dtype, top=top, size=size)
