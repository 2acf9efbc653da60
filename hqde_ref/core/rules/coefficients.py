"""Gram-family rules as coefficients: from the rows' inner products to the weights of the rows in the result.

This is what lets them be sharded with the full f < n / 3: every shard adds the products of its own coordinates,
``shard_products``; one place solves for n weights, the functions here; every shard combines its coordinates,
``combine_shard``. Products may be taken around any common point of a shard, since the weights sum to 1.

Source: HQDE clause 3.8; theory page, section 4 ("Gram up, weights down").
Pure: no clock, no randomness, no input or output; arguments are never changed. Ties go to the row listed first, so
rows are listed in one order everywhere (by content, or by worker).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.gram import Gram, distances, gram_of_products
from hqde_ref.core.kernels.median_newton import distances_to, solve_median
from hqde_ref.core.kernels.mixing import mix_gram, mix_rows
from hqde_ref.core.kernels.order_statistics import median_rows
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count
from hqde_ref.core.kernels.selections import krum_order, minimum_diameter_subset, nearest_rows
from hqde_ref.core.rules.filtered_geometric_median import gram_subset, screen_scores
from hqde_ref.core.rules.krum import resolve_neighbours
from hqde_ref.core.rules.spectral import covariance_shares, smallest_spread_rows
from hqde_ref.errors import LayoutError

__all__ = [
    "combine_shard",
    "shard_products",
    "weigh_covariance_filter",
    "weigh_filtered_geometric_median",
    "weigh_geometric_median",
    "weigh_krum",
    "weigh_minimum_diameter",
    "weigh_mixed_geometric_median",
    "weigh_mixed_krum",
    "weigh_multi_krum",
    "weigh_smallest_spread",
]

_STEP = 8192


def shard_products(updates: Updates) -> Tensor:
    """Return the inner products of the rows of a shard around its coordinate-wise lower median, (n, n) float64.

    Exact products of float32 differences, summed over blocks of 8192 coordinates in order: shards cut at multiples
    of 8192 give sums of the same blocks. Any scale of 16- and 32-bit rows fits into float64.

    Raises:
        TooFewContributions, NotFinite, LayoutError: for rows that do not fit.
    """
    rule = "shard_products"
    rows = as_rows(updates, rule=rule)
    middle = median_rows(rows, lower=True, rule=rule)
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=middle.device)
    for low in range(0, middle.numel(), _STEP):
        block = torch.stack([row[low : low + _STEP] for row in rows]).to(torch.float64)
        block -= middle[low : low + _STEP]
        total += block @ block.T
    return total


def combine_shard(updates: Updates, shares: Sequence[float]) -> Tensor:
    """Return sum_i shares[i] * rows[i], (d,) of the rows' dtype, for shares of sum 1; a single 1 gives that row.

    Raises:
        LayoutError: the number of shares is not that of the rows.
        TooFewContributions, LayoutError: for rows that do not fit.
    """
    rule = "combine_shard"
    rows = as_rows(updates, rule=rule)
    if len(shares) != len(rows):
        raise LayoutError(
            what=f"shares of {rule}",
            wanted=f"{len(rows)} (one per row)",
            got=str(len(shares)),
            do="list the same rows as for the products",
        )
    used = [(row, share) for row, share in zip(rows, shares, strict=True) if share != 0.0]
    heaviest = max(range(len(used)), key=lambda place: used[place][1])
    if len(used) == 1:
        return used[0][0].clone()
    matrix = torch.tensor([[share for _, share in used]], dtype=torch.float64, device=rows[0].device)
    return mix_rows([row for row, _ in used], matrix, centre=heaviest)[0].clone()


def _open(rule: str, products: Tensor, faulty_max: int, needed: int | None = None) -> Gram:
    check_count(rule, count=len(products), faulty_max=faulty_max, needed=needed)
    return gram_of_products(products)


def _even(count: int, places: Sequence[int]) -> tuple[float, ...]:
    chosen = frozenset(places)
    return tuple(1.0 / len(chosen) if place in chosen else 0.0 for place in range(count))


def _as_floats(shares: Tensor) -> tuple[float, ...]:
    values: list[float] = shares.tolist()
    return tuple(values)


def weigh_geometric_median(products: Tensor, *, faulty_max: int) -> tuple[float, ...]:
    """Return the rows' weights in their geometric median, at least 0 and of sum 1; errors as for the rule itself."""
    gram = _open("geometric_median", products, faulty_max)
    return _as_floats(solve_median(gram, [1.0] * len(products)).shares)


def weigh_filtered_geometric_median(products: Tensor, *, faulty_max: int) -> tuple[float, ...]:
    """Return the rows' weights in the geometric median of those kept; a rejected row has weight 0."""
    gram = _open("filtered_geometric_median", products, faulty_max, 3 * max(faulty_max, 0) + 1)
    count = len(products)
    scores = distances_to(gram, solve_median(gram, [1.0] * count))
    kept = screen_scores(range(count), gram, scores, rejections_max=faulty_max).kept
    shares = torch.zeros_like(gram.norms)
    shares[list(kept)] = solve_median(gram_subset(gram, kept), [1.0] * len(kept)).shares
    return _as_floats(shares)


def weigh_krum(products: Tensor, *, faulty_max: int) -> tuple[float, ...]:
    """Return 1.0 for the row that Krum (n - f - 2 neighbours) chooses and 0.0 for the others."""
    return _even(len(products), _krum_places("krum", products, faulty_max)[:1])


def weigh_multi_krum(products: Tensor, *, faulty_max: int) -> tuple[float, ...]:
    """Return equal weights of the n - f rows with the lowest Krum scores."""
    return _even(len(products), _krum_places("multi_krum", products, faulty_max)[: len(products) - faulty_max])


def _krum_places(rule: str, products: Tensor, faulty_max: int) -> tuple[int, ...]:
    gram = _open(rule, products, faulty_max, 2 * max(faulty_max, 0) + 3)
    neighbours = resolve_neighbours(rule, None, count=len(products), faulty_max=faulty_max)
    return krum_order(distances(gram) ** 2, neighbours=neighbours)


def weigh_minimum_diameter(products: Tensor, *, faulty_max: int) -> tuple[float, ...]:
    """Return equal weights of the n - f rows of least diameter."""
    gram = _open("minimum_diameter_mean", products, faulty_max)
    places, _ = minimum_diameter_subset(distances(gram) ** 2, size=len(products) - faulty_max)
    return _even(len(products), places)


def weigh_smallest_spread(products: Tensor, *, faulty_max: int) -> tuple[float, ...]:
    """Return equal weights of the n - f rows whose covariance has the smallest largest eigenvalue."""
    gram = _open("smallest_spread_mean", products, faulty_max)
    return _even(len(products), smallest_spread_rows(gram, faulty_max=faulty_max))


def weigh_covariance_filter(products: Tensor, *, faulty_max: int) -> tuple[float, ...]:
    """Return the rows' weights in the covariance filter's mean."""
    return _as_floats(covariance_shares(_open("covariance_filter", products, faulty_max), faulty_max=faulty_max))


def weigh_mixed_geometric_median(products: Tensor, *, faulty_max: int) -> tuple[float, ...]:
    """Return the rows' weights in the geometric median of their nearest-neighbour mixtures."""
    gram, matrix = _mixed("mixed_geometric_median", products, faulty_max)
    distinct, copies = torch.unique(matrix, dim=0, return_counts=True)
    return _as_floats(solve_median(mix_gram(gram, distinct), copies.tolist()).shares @ distinct)


def weigh_mixed_krum(products: Tensor, *, faulty_max: int) -> tuple[float, ...]:
    """Return the rows' weights in the mixture that Krum chooses."""
    rule = "mixed_krum"
    gram, matrix = _mixed(rule, products, faulty_max, 2 * max(faulty_max, 0) + 3)
    neighbours = resolve_neighbours(rule, None, count=len(products), faulty_max=faulty_max)
    best = krum_order(distances(mix_gram(gram, matrix)) ** 2, neighbours=neighbours)[0]
    return _as_floats(matrix[best])


def _mixed(rule: str, products: Tensor, faulty_max: int, needed: int | None = None) -> tuple[Gram, Tensor]:
    gram = _open(rule, products, faulty_max, needed)
    kept = len(products) - faulty_max
    near = nearest_rows(distances(gram) ** 2, count=kept)
    return gram, torch.zeros_like(gram.cosines).scatter_(1, near, 1.0 / kept)
