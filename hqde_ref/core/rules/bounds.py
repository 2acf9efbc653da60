"""Proven worst-case constants, for every input and any f faulty rows.

n rows, f of them faulty, h = n - f honest ones, V their mean squared distance from their mean mu; F the result. The
``..._kappa`` are those of |F - mu|^2 <= kappa V; what the others multiply is in ``bound.MEASURES``. Constants called
tight are attained by a constructed input, or as nearly as one likes (the tests do so).

Source: HQDE clause 4.5; Allouah et al. 2023 (arXiv:2302.01772, Definition 2) for the notion; see each function.
Pure: plain arithmetic. A bound says nothing where its condition on n and f fails; callers check it first.
"""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = [
    "bucketed_kappa",
    "bulyan_kappa",
    "centred_clipping_kappa",
    "clipped_kappa",
    "filtered_distances",
    "filtered_kappa",
    "filtered_radius",
    "geometric_median_distances",
    "geometric_median_radius",
    "krum_kappa",
    "lower_median_kappa",
    "lower_median_range",
    "mean_around_median_kappa",
    "mean_around_median_range",
    "median_kappa",
    "median_range",
    "minimum_diameter",
    "minimum_diameter_kappa",
    "mixed_kappa",
    "multi_krum_kappa",
    "smallest_spread_kappa",
    "trimmed_kappa",
    "trimmed_range",
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


def trimmed_range(n: int, f: int) -> float:
    """Trimmed mean, by coordinates: f of h honest values at one end, the others at the other. Tight."""
    return f / (n - f)


def median_range(n: int, f: int) -> float:
    """Coordinate-wise median with midpoints, by coordinates: as ``trimmed_range``. Tight."""
    return ((n - 1) // 2) / (n - f)


def lower_median_range(n: int, f: int) -> float:
    """Lower median, by coordinates: with n even, n / 2 honest values may lie above it. Tight."""
    return (n // 2) / (n - f)


def geometric_median_radius(n: int, f: int) -> float:
    """Geometric median: h / sqrt(h^2 - f^2) of the honest radius around any z (Minsker 2015, Lemma 2.1). Tight.

    Honest rows on a circle around z, seen from the median under one angle, whose pull the faulty ones outweigh.
    """
    h = n - f
    return h / math.sqrt(h * h - f * f)


def geometric_median_distances(n: int, f: int) -> float:
    """Geometric median: 1 / ceil((n - 2f) / 2) of the sum of honest distances from any z. Tight.

    At F, delta away from z, let c_i be the cosine between the directions to an honest x_i and to z, or any number in
    [-1, 1] if x_i = F. F is a median only if the c_i add up to f at most. x_i is delta sqrt(1 - c_i^2) from z at least
    if c_i > 0, delta otherwise, which is concave in c_i; so the sum is least where all c_i but one are 1 or -1, and
    then ceil((n - 2f) / 2) honest rows are delta from z. With n even this is the 2 / (n - 2f) of Chen, Su, Xu 2017.
    """
    return 1 / math.ceil((n - 2 * f) / 2)


def filtered_radius(n: int, f: int) -> float:
    """The geometric median of n - f rows or more that are left after rejections, f of them faulty still."""
    return geometric_median_radius(n - f, f)


def filtered_distances(n: int, f: int) -> float:
    """The geometric median of n - f rows or more that are left after rejections, f of them faulty still."""
    return geometric_median_distances(n - f, f)


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


def minimum_diameter(n: int, f: int) -> float:
    """Minimum-diameter mean: 2f / (n - f) of the honest diameter (Farhadkhani et al. 2022). Tight."""
    return 2 * f / (n - f)


def minimum_diameter_kappa(n: int, f: int) -> float:
    """Minimum-diameter mean: 8 f^2 / (n - f), since the square of the diameter is 2 h V at most."""
    return 8 * f * f / (n - f)


def mean_around_median_range(n: int, f: int) -> float:
    """MeaMed, by coordinates: 2f / (n - f) (Farhadkhani et al. 2022). Tight."""
    return 2 * f / (n - f)


def mean_around_median_kappa(n: int, f: int) -> float:
    """MeaMed: 4 (sqrt(f / h) + (f / h) sqrt(kappa of the median))^2."""
    share = f / (n - f)
    return 4.0 * (math.sqrt(share) + share * math.sqrt(median_kappa(n, f))) ** 2


def bulyan_kappa(n: int, f: int) -> float:
    """Bulyan: (sqrt(k) + sqrt(h (1 + k) / (n - 4f)))^2, k being the constant of the median of the n - 2f chosen rows.

    Among those are n - 3f honest ones at least, so that of the n - 4f values averaged the i-th nearest to the median m
    is no farther from it than the i-th nearest honest one. Their mean distance is thus, by Cauchy-Schwarz in each
    coordinate, at most the root of h (V_j + (m_j - mu_j)^2) / (n - 4f); and with 2f honest rows left out and f faulty
    ones chosen, k = (h - p) / p with p = ceil((n - 4f) / 2).
    """
    h, resting = n - f, math.ceil((n - 4 * f) / 2)
    k = (h - resting) / resting
    return (math.sqrt(k) + math.sqrt(h * (1 + k) / (n - 4 * f))) ** 2


def centred_clipping_kappa(n: int, f: int) -> float:
    """Centred clipping, a step from the median v with constant k, to the median distance r from it.

    With d_i = |x_i - v|, n |F - mu| <= f |v - mu| + f r + the sum over the honest of max(0, d_i - r). At least
    q = floor(n / 2) + 1 - f honest rows are not within r; let there be p. The last two terms are at most max(f, p) / p
    times the sum of their d_i, so at most max(f / sqrt(q), sqrt(h)) times the root of the sum of all squares,
    h V + h |v - mu|^2 <= h (1 + k) V.
    """
    h, k, beyond = n - f, median_kappa(n, f), n // 2 + 1 - f
    pull = max(f / math.sqrt(beyond), math.sqrt(h)) * math.sqrt(h * (1 + k))
    return ((f * math.sqrt(k) + pull) / n) ** 2


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
