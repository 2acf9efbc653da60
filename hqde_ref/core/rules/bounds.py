"""Proven worst-case constants: |F - mean of the honest|^2 <= kappa * V for every input and any f faulty rows.

n rows, f of them faulty, h = n - f honest ones, V their mean squared distance from their mean. Constants marked tight
are attained by a constructed input (the tests do so).

Source: HQDE clause 4.5; Allouah et al. 2023 (arXiv:2302.01772, Definition 2) for the notion; see each function.
Pure: plain arithmetic. A bound says nothing where its condition on n and f fails; callers check it first.
"""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = [
    "bucketed_kappa",
    "clipped_kappa",
    "filtered_kappa",
    "krum_kappa",
    "lower_median_kappa",
    "mean_around_median_kappa",
    "median_kappa",
    "minimum_diameter_kappa",
    "mixed_kappa",
    "multi_krum_kappa",
    "smallest_spread_kappa",
    "trimmed_kappa",
]


def trimmed_kappa(n: int, f: int) -> float:
    """Trimmed mean, f values a side: f / (n - 2f), the least any rule can have. Tight."""
    return f / (n - 2 * f)


def median_kappa(n: int, f: int) -> float:
    """Coordinate-wise median with midpoints: floor((n - 1) / 2) values trimmed a side. Tight."""
    return _trimmed(n, f, (n - 1) // 2)


def lower_median_kappa(n: int, f: int) -> float:
    """Lower median, and the geometric median: with n even, n / 2 values trimmed on one side. Tight."""
    return _trimmed(n, f, n // 2)


def _trimmed(n: int, f: int, trimmed: int) -> float:
    # No faulty row: still not the mean, so the constant is not 0 (unless nothing is trimmed).
    return trimmed / (n - f - trimmed)


def krum_kappa(n: int, f: int, neighbours: int | None = None) -> float:
    """Krum with q neighbours (n - f - 2): (sqrt(2hq / ((h - 1) m)) + sqrt((h - m) / m))^2 with m = q - f + 1."""
    return multi_krum_kappa(n, f, selected=1, neighbours=neighbours)


def multi_krum_kappa(n: int, f: int, selected: int | None = None, neighbours: int | None = None) -> float:
    """Multi-Krum: the worst number b of faulty rows among the M selected (n - f)."""
    h, q = n - f, n - f - 2 if neighbours is None else neighbours
    m, chosen = q - f + 1, n - f if selected is None else selected

    def root(b: int) -> float:
        g = chosen - b
        faulty = math.sqrt(2 * b * h * q / (chosen * (h - 1) * m)) + b / chosen * math.sqrt((h - m) / m)
        return faulty + math.sqrt(g * (h - g)) / chosen

    if selected == 1:  # the chosen row is faulty, or honest with no better a bound
        return (math.sqrt(2 * h * q / ((h - 1) * m)) + math.sqrt((h - m) / m)) ** 2
    return max(root(b) for b in range(max(0, chosen - h), min(f, chosen) + 1)) ** 2


def minimum_diameter_kappa(n: int, f: int) -> float:
    """Minimum-diameter mean: 8 f^2 / (n - f), from |F - mean| <= 2f / (n - f) * diameter (that one is tight)."""
    return 8 * f * f / (n - f)


def mean_around_median_kappa(n: int, f: int) -> float:
    """MeaMed: 4 (sqrt(f / h) + (f / h) sqrt(kappa of the median))^2."""
    share = f / (n - f)
    return 4.0 * (math.sqrt(share) + share * math.sqrt(median_kappa(n, f))) ** 2


def smallest_spread_kappa(n: int, f: int) -> float:
    """SMEA: 4f / (n - f) (1 + f / (n - 2f))^2, even with the largest covariance eigenvalue in place of V."""
    return 4 * f / (n - f) * (1 + f / (n - 2 * f)) ** 2


def mixed_kappa(n: int, f: int, kappa: float) -> float:
    """Nearest-neighbour mixing before a rule with ``kappa``: 8f / (n - f) (kappa + 1)."""
    return 8 * f / (n - f) * (kappa + 1)


def clipped_kappa(n: int, f: int, kappa: float) -> float:
    """Adaptive clipping before a rule with ``kappa``: kappa + 2f / (n - 2f)."""
    return kappa + 2 * f / (n - 2 * f)


def bucketed_kappa(n: int, f: int, kappa: Callable[[int, int], float], *, size: int) -> float:
    """Bucketing before a rule with ``kappa``: h (k + 1) / m - 1 where k = kappa(n / size, f), m = size (n / size - f).

    Derived here. At most f of the b = ceil(n / size) buckets hold a faulty row; take b - f others, with m honest rows,
    their mean mu' and mean squared distance V' from it. The rule errs by sqrt(k V') at most from mu', since means of
    buckets spread no more than rows do, and h V >= m V' + m h / (h - m) |mu' - mu|^2; so |F - mu| <= sqrt(k V') +
    |mu' - mu| is at most the root of h V (k / m + (h - m) / (m h)) by Cauchy-Schwarz. Tight if k is: the honest rows
    in the spoilt buckets stand together, opposite. Where size does not divide n, the last bucket is of r rows, and
    b - f buckets lie at a squared distance of h V / (r (b - f)) from mu on average: h (k + 1) / (r (b - f)).
    """
    buckets, h = -(-n // size), n - f
    k, last = kappa(buckets, f), n - size * (buckets - 1)
    spread = h * (k + 1) / (last * (buckets - f))
    return spread - 1 if last == size else spread


def filtered_kappa(n: int, f: int) -> float:
    """Geometric median after at most f rejections, any of them: (h - p) / p with p = ceil((n - 3f) / 2)."""
    p = math.ceil((n - 3 * f) / 2)
    return (n - f - p) / p
