"""Rules that see rows only through their distances, applied to vectors that no node holds whole.

Each reducer makes the Gram matrix of its shard of the rows; these add up to the Gram matrix of the whole rows. From it,
n points in n dimensions are made that lie to each other exactly as the rows do. A rule that commutes with translations
and rotations gives the point that stands to them as its result stands to the rows; that point's coordinates along the
points say how every shard has to be combined. So the rule's own code runs, on n x n numbers, and so does its
certificate. Where a rule breaks ties by content, it may choose another of equals than on the rows themselves.

Source: HQDE clause 3.8; the sharding is that of clause 3.8's theory (Gram up, weights down).
Pure: arguments are never changed. At most a cache-sized block of rows is copied at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.exact_sums import round_once
from hqde_ref.core.kernels.gram import centre_row, content_gram
from hqde_ref.core.kernels.gram_blocks import centred_blocks
from hqde_ref.core.kernels.rows import new_row, wide_dtype
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import message

__all__ = [
    "LARGEST_SHARDED",
    "Embedding",
    "add_grams",
    "blend",
    "embed",
    "express",
    "partial_gram",
]

_NOISE = 1e-13  # eigenvalues of a correlation matrix below this are rounding
_LARGEST = 1e150  # beyond, float64 products overflow
_SMALLEST = 1e-140  # of the greatest distance: below, products lose digits, and then vanish
LARGEST_SHARDED = 1e140  # of a value in a sharded round: rows of so large ones still have lengths below that
_FEW = 1 << 18  # up to so many values, float64 throughout costs nothing that matters


def partial_gram(rows: Sequence[Tensor]) -> tuple[Tensor, int]:
    """Inner products (n, n) float64 of these shards of n rows around one that most are near to, and which one that is.

    Every shard may have a centre of its own: together they are one point near the rows.

    Raises:
        ConfigurationError: for values beyond 1e150, whose products a float64 does not hold.
    """
    if rows[0].numel() == 0:
        return torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows[0].device), 0
    order, gram = content_gram(rows, rule="sharded round")
    exponents = torch.tensor(gram.exponents, dtype=torch.float64, device=gram.lengths.device)
    lengths = gram.lengths * torch.exp2(exponents)
    if float(lengths.max()) > _LARGEST:
        raise ConfigurationError(
            setting="values of a sharded round", wanted="at most 1e150", got=float(lengths.max()), do="scale them"
        )
    places = torch.argsort(torch.tensor(order, device=gram.lengths.device))
    # What would vanish is kept just large enough for ``embed`` to see that it was there.
    lengths = torch.where(lengths > 0, lengths.clamp_min(_SMALLEST * 1e-5), 0.0)
    products = gram.cosines * lengths[:, None] * lengths
    return products[places][:, places], order[centre_row(gram)]


def add_grams(parts: Sequence[Tensor]) -> Tensor:
    """The sum of partial Gram matrices, in the order given."""
    return torch.stack(list(parts)).sum(dim=0)


@message
class Embedding:
    """n points that lie to each other as the rows do.

    Attributes:
        points: (n, m) float64, m different contents; row i is ``lengths[i]`` times its content's unit.
        units: (m, m), one of length 1 for each content (of no account for one that is the centre).
        lengths: (n,), distance of each row from the centre.
        inverse: (m, m), which takes a point to the multiples of the units that add up to it.
        firsts: for each unit the first row of its content.
    """

    points: Tensor
    units: Tensor
    lengths: Tensor
    inverse: Tensor
    firsts: tuple[int, ...]


def embed(gram: Tensor, *, contents: Sequence[str]) -> Embedding:
    """Points with this Gram matrix; rows of equal content get equal points.

    Directions and lengths are kept apart, so that rows of any size keep their digits.

    Raises:
        ConfigurationError: no row is farther than 1e-140 from the centre, though some are not at it.
    """
    found: dict[str, int] = {}
    for row, content in enumerate(contents):
        found.setdefault(content, row)
    firsts, places = list(found.values()), {content: place for place, content in enumerate(found)}
    owners = [places[content] for content in contents]
    lengths = gram.diagonal().clamp_min(0.0).sqrt()[firsts]
    if 0.0 < float(lengths.max()) < _SMALLEST:
        raise ConfigurationError(
            setting="greatest distance in a sharded round",
            wanted=f"at least {_SMALLEST:g}",
            got=f"{float(lengths.max()):.1e} or less",
            do="scale the contributions up, or aggregate them flat",
        )
    inverse = torch.where(lengths > 0, 1.0 / lengths.clamp_min(1e-300), 0.0)
    cosines = (gram[firsts][:, firsts] * inverse[:, None] * inverse[None, :]).clamp(-1.0, 1.0)
    units, backwards = _factorise((cosines + cosines.T) / 2)
    return Embedding(
        points=(lengths[:, None] * units)[owners],
        units=units,
        lengths=lengths[owners],
        inverse=backwards,
        firsts=tuple(firsts),
    )


def _factorise(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """Units (m, m) with these cosines, and the matrix that takes a point to multiples of them."""
    regular = cosines.clone()
    regular.diagonal().fill_(1.0)  # also of a row that is the centre, which has no direction
    lower, info = torch.linalg.cholesky_ex(regular)
    if int(info) == 0:
        identity = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        return lower, torch.linalg.solve_triangular(lower, identity, upper=False).T
    values, vectors = torch.linalg.eigh(cosines)
    spread = torch.where(values > _NOISE * len(values), values.clamp_min(0.0).sqrt(), 0.0)
    return vectors * spread, vectors * torch.where(spread > 0, 1.0 / spread.clamp_min(1e-300), 0.0)


def express(point: Tensor, embedding: Embedding) -> tuple[float, ...]:
    """Multipliers m (n,) with point = sum of m_i times row i's distance from the centre."""
    n = len(embedding.lengths)
    equal = (embedding.points == point).all(dim=1).nonzero().flatten().tolist()
    if equal:
        return tuple(float(index == equal[0]) for index in range(n))
    found = embedding.inverse @ point
    lengths = embedding.lengths[list(embedding.firsts)]
    multipliers = torch.zeros_like(embedding.lengths)
    multipliers[list(embedding.firsts)] = torch.where(lengths > 0, found / lengths.clamp_min(1e-300), 0.0)
    return tuple(multipliers.tolist())


def blend(rows: Sequence[Tensor], multipliers: Sequence[float], *, centre: int) -> Tensor:
    """c + sum of m_i (x_i - c) with c the row ``centre`` of these shards; one rounding to the rows' dtype."""
    if 1.0 in multipliers and sum(m != 0.0 for m in multipliers) == 1:
        return rows[list(multipliers).index(1.0)].clone()
    few = len(rows) * rows[0].numel() <= _FEW
    whole = _blend(rows, multipliers, centre, torch.float64 if few else wide_dtype(rows[0].dtype))
    if not bool(torch.isfinite(whole).all()):  # a difference overflowed
        whole = _blend(rows, multipliers, centre, torch.float64)
    return round_once(whole, rows[0].dtype) if whole.dtype == torch.float64 else whole.to(rows[0].dtype)


def _blend(rows: Sequence[Tensor], multipliers: Sequence[float], centre: int, dtype: torch.dtype) -> Tensor:
    weights = torch.tensor(multipliers, dtype=dtype, device=rows[0].device)
    result = new_row(rows[0], dtype=dtype)
    for low, high, block in centred_blocks(rows, centre, (0,) * len(rows), dtype=dtype):
        torch.mv(block.T, weights, out=result[low:high]).add_(rows[centre][low:high])
    return result
