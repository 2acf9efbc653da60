"""Spectral rules: the mean of a subset, or of weighted rows, whose covariance has a small largest eigenvalue.

Source: HQDE clause 4.5; Allouah et al. 2023 (SMEA, ICML) for the subset, with a proven bound; Allouah et al. 2025
(CAF, covariance-bound agnostic filter) for the weights, whose constant is not proven here.
Pure: no clock, no randomness, no input or output; arguments are never changed. Eigenvalues are those of n x n
matrices, computed to the last digit (one power step from a random start, as in a peer, voids the method).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from hqde_ref.core.kernels.gram import Gram, combine_rows, content_gram
from hqde_ref.core.kernels.means import average_rows
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count
from hqde_ref.core.kernels.selections import lowest_scores
from hqde_ref.errors import ConfigurationError

__all__ = ["covariance_filter", "covariance_shares", "smallest_spread_mean", "smallest_spread_rows"]

_SUBSETS_MAX = 200_000
_STEPS_MAX = 10_000_000_000  # an eigenvalue of m rows takes some m ** 3: half a minute in all
_VALUES = 1 << 21  # in the matrices that are decomposed at once


def smallest_spread_mean(updates: Updates, *, faulty_max: int) -> Tensor:
    """Return the mean of the n - f rows whose covariance has the smallest largest eigenvalue (SMEA), by trying all.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        faulty_max: f, how many rows may hold anything at all.
    Returns:
        A new row (d,) of the same dtype and device.
    Raises:
        TooFewContributions: unless n > 2 * faulty_max.
        ConfigurationError: there are more than 200,000 subsets of m = n - f rows, or 1e10 / m ** 3.
        NotFinite, LayoutError: for rows that do not fit.
    """
    rule = "smallest_spread_mean"
    rows = as_rows(updates, rule=rule)
    count = len(rows)
    check_count(rule, count=count, faulty_max=faulty_max)
    order, gram = content_gram(rows, rule=rule, kept=len(rows) - faulty_max)
    return average_rows([rows[order[place]] for place in smallest_spread_rows(gram, faulty_max=faulty_max)])


def smallest_spread_rows(gram: Gram, *, faulty_max: int) -> tuple[int, ...]:
    """Return the places of the n - f rows whose covariance has the smallest largest eigenvalue.

    Raises:
        ConfigurationError: there are more than 200,000 subsets of m = n - f rows, or 1e10 / m ** 3.
    """
    count = len(gram.norms)
    subsets = math.comb(count, faulty_max)
    if subsets > _SUBSETS_MAX or subsets * (count - faulty_max) ** 3 > _STEPS_MAX:
        raise ConfigurationError(
            setting="number of subsets that smallest_spread_mean tries",
            got=subsets,
            wanted=f"at most {min(_SUBSETS_MAX, _STEPS_MAX // (count - faulty_max) ** 3)} of {count - faulty_max} rows",
            do="use covariance_filter or another rule",
        )
    products = _products(gram)
    choices = torch.tensor(list(itertools.combinations(range(count), count - faulty_max)))
    at_once = max(1, _VALUES // choices.shape[1] ** 2)
    spreads = torch.cat([_largest_eigenvalues(products, part) for part in torch.split(choices, at_once)])
    best: list[int] = choices[lowest_scores(spreads, 1)[0]].tolist()
    return tuple(best)


def _products(gram: Gram) -> Tensor:
    return (gram.norms[:, None] * gram.norms) * gram.cosines


def _largest_eigenvalues(products: Tensor, choices: Tensor) -> Tensor:
    """Return the largest eigenvalue of the covariance of each choice of rows, (number of choices,)."""
    part = products[choices[:, :, None], choices[:, None, :]]
    mean = part.mean(dim=1, keepdim=True)
    centred = part - mean - mean.transpose(1, 2) + mean.mean(dim=2, keepdim=True)
    largest: Tensor = torch.linalg.eigvalsh(centred)[:, -1].clamp_min(0.0) / choices.shape[1]
    return largest


def covariance_filter(updates: Updates, *, faulty_max: int) -> Tensor:
    """Return the weighted mean with the smallest spread seen while rows lose weight along the widest direction (CAF).

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        faulty_max: f; rows lose weight until n - 2f of it is left.
    Returns:
        A new row (d,) of the same dtype and device.
    Raises:
        TooFewContributions: unless n > 2 * faulty_max.
        NotFinite, LayoutError, ConfigurationError: for rows that do not fit.
    """
    rule = "covariance_filter"
    rows = as_rows(updates, rule=rule)
    check_count(rule, count=len(rows), faulty_max=faulty_max)
    order, gram = content_gram(rows, rule=rule, kept=len(rows) - faulty_max)
    shares = covariance_shares(gram, faulty_max=faulty_max)
    return combine_rows([rows[index] for index in order], gram, shares * gram.norms)


def covariance_shares(gram: Gram, *, faulty_max: int) -> Tensor:
    """Return the rows' shares, (n,) of sum 1, in the weighted mean that ``covariance_filter`` gives."""
    products = _products(gram)
    count = len(gram.norms)
    weights = torch.ones(count, dtype=torch.float64, device=products.device)
    best, smallest = weights / weights.sum(), torch.inf
    while float(weights.sum()) > count - 2 * faulty_max:
        shares = weights / weights.sum()
        spread, squares = _widest_direction(products, shares)
        if spread < smallest:
            best, smallest = shares, spread
        if spread <= 0.0:
            break
        reach = squares[weights > 0].max()
        # The row that reaches farthest loses all its weight, so the loop ends after at most n rounds.
        weights = weights * torch.where(squares >= reach, 0.0, 1.0 - squares / reach)
    return best


def _widest_direction(products: Tensor, shares: Tensor) -> tuple[float, Tensor]:
    """Return the largest eigenvalue of the weighted covariance and each row's squared reach along its eigenvector."""
    means = products @ shares
    centred = products - means[:, None] - means + shares @ means
    roots = shares.sqrt()
    values, vectors = torch.linalg.eigh(roots[:, None] * centred * roots)
    spread = float(values[-1])
    if spread <= 1e-14 * float(products.diagonal()[shares > 0].max()):
        return 0.0, torch.zeros_like(shares)
    # <v, z_i - mean> for v = sum_j roots_j u_j (z_j - mean) / sqrt(spread)
    reach = centred @ (roots * vectors[:, -1]) / math.sqrt(spread)
    return spread, reach**2
