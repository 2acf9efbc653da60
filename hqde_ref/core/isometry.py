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

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.exact_sums import round_once
from hqde_ref.core.kernels.rows import choose_block_length
from hqde_ref.core.rules import RULES, get_rule
from hqde_ref.core.rules.coordinate_median import lower_coordinate_median
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import message

__all__ = ["Embedding", "add_grams", "blend", "can_shard", "embed", "express", "partial_gram", "require_shardable"]

_NOISE = 1e-13  # eigenvalues of a correlation matrix below this are rounding
_LARGEST = 1e150  # beyond, float64 products overflow


def can_shard(rule: str) -> bool:
    """Whether a rule can be computed from shards: coordinate by coordinate, or from distances alone."""
    entry = get_rule(rule)
    return entry.family != "gram" or {"translation", "rotation"} <= entry.symmetries


def require_shardable(rule: str) -> None:
    """Refuse a rule that needs whole rows.

    Raises:
        ConfigurationError: naming those that do not.
    """
    if not can_shard(rule):
        raise ConfigurationError(
            setting="rule of a sharded round",
            wanted=f"one of {', '.join(sorted(name for name in RULES if can_shard(name)))}",
            got=rule,
            do="use topology flat for this rule",
        )


def _centred_blocks(rows: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks (n, B) of the rows around their coordinate-wise lower median, in float64, each with that median (B,).

    The centre needs no agreement between shards: each has the part of the same vector.
    """
    length, width = rows[0].numel(), choose_block_length(rows[0], rows_held=4 * len(rows), least=1024)
    for start in range(0, length, width):
        pieces = [row[start : start + width] for row in rows]
        centre = lower_coordinate_median(pieces, faulty_max=0).to(torch.float64)
        yield torch.stack([piece.to(torch.float64) for piece in pieces]).sub_(centre), centre


def partial_gram(rows: Sequence[Tensor]) -> Tensor:
    """Inner products (n, n) float64 of these shards of n rows around their lower median.

    Raises:
        ConfigurationError: for values beyond 1e150, whose products a float64 does not hold.
    """
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for block, _ in _centred_blocks(rows):
        if block.numel() and float(block.abs().max()) > _LARGEST:
            raise ConfigurationError(
                setting="values of a sharded round",
                wanted="at most 1e150",
                got=float(block.abs().max()),
                do="scale them",
            )
        gram += block @ block.T
    return gram


def add_grams(parts: Sequence[Tensor]) -> Tensor:
    """The sum of partial Gram matrices, in the order given."""
    return torch.stack(list(parts)).sum(dim=0)


@message
class Embedding:
    """n points that lie to each other as the rows do.

    Attributes:
        points: (n, n) float64; row i is ``lengths[i]`` times ``units[i]``.
        units: (n, n), of length 1 (0 for a row that is the centre).
        lengths: (n,), distance of each row from the centre.
    """

    points: Tensor
    units: Tensor
    lengths: Tensor


def embed(gram: Tensor, *, contents: Sequence[str]) -> Embedding:
    """Points with this Gram matrix; rows of equal content get equal points.

    Directions and lengths are kept apart, so that rows of any size keep their digits.
    """
    firsts = [contents.index(content) for content in contents]
    lengths = gram.diagonal().clamp_min(0.0).sqrt()[firsts]
    inverse = torch.where(lengths > 0, 1.0 / lengths.clamp_min(1e-300), 0.0)
    cosines = (gram[firsts][:, firsts] * inverse[:, None] * inverse[None, :]).clamp(-1.0, 1.0)
    values, vectors = torch.linalg.eigh((cosines + cosines.T) / 2)
    spread = torch.where(values > _NOISE * len(contents), values.clamp_min(0.0).sqrt(), 0.0)
    units = (vectors * spread)[firsts]
    norms = torch.linalg.vector_norm(units, dim=1, keepdim=True)
    units = torch.where(norms > 0, units / norms.clamp_min(1e-300), 0.0)
    return Embedding(points=lengths[:, None] * units, units=units, lengths=lengths)


def express(point: Tensor, embedding: Embedding) -> tuple[float, ...]:
    """Multipliers m (n,) with point = sum of m_i times row i's distance from the centre."""
    n = len(embedding.lengths)
    equal = (embedding.points == point).all(dim=1).nonzero().flatten().tolist()
    if equal:
        return tuple(float(index == equal[0]) for index in range(n))
    found = torch.linalg.lstsq(embedding.units.T, point[:, None], driver="gelsd").solution[:, 0]
    return tuple(torch.where(embedding.lengths > 0, found / embedding.lengths.clamp_min(1e-300), 0.0).tolist())


def blend(rows: Sequence[Tensor], multipliers: Sequence[float]) -> Tensor:
    """c + sum of m_i (x_i - c) with c the lower median of these shards; one rounding to the rows' dtype."""
    if 1.0 in multipliers and sum(m != 0.0 for m in multipliers) == 1:
        return rows[list(multipliers).index(1.0)].clone()
    weights = torch.tensor(multipliers, dtype=torch.float64)
    pieces = [centre + weights @ block for block, centre in _centred_blocks(rows)]
    whole = torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.float64)
    return round_once(whole, rows[0].dtype)
