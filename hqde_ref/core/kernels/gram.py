"""Inner products of rows around one that most are near to, and combinations of rows from n coefficients.

Geometric median, Krum, minimum-diameter averaging, mixing, clipping and spectral rules look at the rows only
through this n x n matrix. Rows are centred on one of them that a majority is near to, so that distances keep their
digits whatever offset the rows share; rows of extreme size are scaled by powers of two.

Source: HQDE clauses 4.5 and 4.7; distances as |a|^2 + |b|^2 - 2ab on raw rows lose all digits (erratum of peers).
Pure: no clock, no randomness, no input or output; arguments are never changed. At most a cache-sized block of the
rows is copied at a time, never all n x d. Bits repeat on one torch thread; matrix products on two may differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy
import torch
from torch import Tensor

from hqde_ref.core.kernels.exact_sums import round_once
from hqde_ref.core.kernels.means import blend_rows
from hqde_ref.core.kernels.rows import choose_block_length, content_classes, require_finite, wide_dtype
from hqde_ref.errors import NotFinite

__all__ = ["Gram", "centred_gram", "choose_centre", "combine_rows", "content_gram", "distances", "weighted_medians"]

_SMALL = 1 << 18  # up to so many values, float64 throughout costs nothing that matters
_SAMPLE = 1024
_CHUNKS = 4
_CANDIDATES = 8
_CACHE = 5 << 20
_RECENTRE_MAX = 32
_SPREAD_EXPONENT = 200  # a row 2**200 times farther than most acts by its direction alone


@dataclass(frozen=True, kw_only=True, slots=True)
class Gram:
    """Inner products of the n rows z_i = x_i - centre, taken apart so that no size of a row overflows.

    cosines: (n, n) float64, <z_i, z_j> / (|z_i| |z_j|); 0 in the rows and columns of a zero z_i.
    norms: (n,) float64, |z_i| in units of 2**unit, those beyond 2**200 of the median brought back to it.
    lengths: (n,) float64, |z_i| * 2**-exponents[i].
    exponents: powers of two that the rows are scaled down by before they are multiplied.
    centre: the index of the row that is subtracted.
    """

    cosines: Tensor
    norms: Tensor
    lengths: Tensor
    exponents: tuple[int, ...]
    unit: int
    centre: int


def choose_centre(rows: Sequence[Tensor], weights: Sequence[float]) -> int:
    """Return the index of a row with a small weighted median distance to the others, on a sample of coordinates."""
    sample = torch.nan_to_num(_sample(rows), nan=1e300, posinf=1e300, neginf=-1e300)
    count = min(len(rows), _CANDIDATES)
    candidates = [i * (len(rows) - 1) // max(1, count - 1) for i in range(count)]
    far = torch.stack([_safe_norms(sample - sample[c]) for c in candidates], dim=1)
    return candidates[int(weighted_medians(far, weights).argmin())]


def _sample(rows: Sequence[Tensor]) -> Tensor:
    length = rows[0].numel()
    size = min(_SAMPLE, max(64, (1 << 16) // len(rows)))
    if length <= size:
        return torch.stack(list(rows)).to(torch.float64)
    width = size // _CHUNKS
    starts = [(length - width) * i // (_CHUNKS - 1) for i in range(_CHUNKS)]
    return torch.cat([torch.stack([row[s : s + width] for row in rows]) for s in starts], dim=1).to(torch.float64)


def _safe_norms(differences: Tensor) -> Tensor:
    """Return row norms that do not overflow or vanish on squaring."""
    if differences.shape[1] == 0:
        return differences.new_zeros(len(differences))
    tops = differences.abs().amax(dim=1, keepdim=True).clamp_min(1e-300)
    norms: Tensor = torch.linalg.vector_norm(differences / tops, dim=1) * tops.squeeze(1)
    return norms


def weighted_medians(values: Tensor, weights: Sequence[float]) -> Tensor:
    """Return, per column of ``values`` (n, k), the least value such that those up to it hold half of the weight."""
    ordered, order = values.sort(dim=0, stable=True)
    mass = torch.tensor(weights, dtype=torch.float64, device=values.device)[order].cumsum(0)
    places = (mass < mass[-1] / 2).sum(dim=0)
    return ordered.gather(0, places[None])[0]


def centred_gram(
    rows: Sequence[Tensor],
    *,
    rule: str,
    weights: Sequence[float],
    centre: int | None = None,
) -> Gram:
    """Return the Gram matrix of ``rows`` around a row that half of the weight is near to.

    Args:
        rows: n tensors (d,) of one floating dtype.
        rule: who asks; errors name it.
        weights: n positive numbers: what counts as a majority.
        centre: insist on this row as the centre.
    Raises:
        NotFinite: a row holds NaN or an infinity; it names rows as counted here.
    """
    gram = _gram_around(rows, choose_centre(rows, weights) if centre is None else centre, rule, weights)
    if centre is not None:
        return gram
    for _ in range(_RECENTRE_MAX):
        # The sample may have missed where the centre is an outlier: then another row is much nearer to the rest.
        medians = weighted_medians(distances(gram), weights)
        best = int(medians.argmin())
        if medians[best] >= 0.2 * medians[gram.centre]:
            break
        gram = _gram_around(rows, best, rule, weights)
    return gram


def content_gram(
    rows: Sequence[Tensor], *, rule: str, weights: Sequence[float] | None = None, centre: int | None = None
) -> tuple[tuple[int, ...], Gram]:
    """Return the rows' order by content and the Gram matrix of the rows in that order.

    Equal rows are multiplied once, so that their distance is exactly 0 and their distances to others are equal.

    Args:
        rows, rule: as for ``centred_gram``.
        weights: n positive numbers, None for 1 each; in the order of ``rows``, as ``centre`` is.
        centre: insist on this row, or one equal to it, as the centre.
    Raises:
        NotFinite: a row holds NaN or an infinity; it names rows as counted in ``rows``.
    """
    classes = content_classes(rows)
    masses = [math.fsum(1.0 if weights is None else weights[index] for index in members) for members in classes]
    wanted = None if centre is None else next(place for place, members in enumerate(classes) if centre in members)
    try:
        gram = centred_gram([rows[members[0]] for members in classes], rule=rule, weights=masses, centre=wanted)
    except NotFinite:
        require_finite(rule, rows)
        raise
    owners = [place for place, members in enumerate(classes) for _ in members]
    at = torch.tensor(owners, device=gram.norms.device)
    expanded = replace(
        gram,
        cosines=gram.cosines[at][:, at],
        norms=gram.norms[at],
        lengths=gram.lengths[at],
        exponents=tuple(gram.exponents[owner] for owner in owners),
        centre=owners.index(gram.centre),
    )
    return tuple(index for members in classes for index in members), expanded


def _gram_around(rows: Sequence[Tensor], centre: int, rule: str, weights: Sequence[float]) -> Gram:
    exponents: tuple[int, ...] = (0,) * len(rows)
    products = _products(rows, centre, exponents)
    if not _is_well_scaled(products, centre, rows[0].dtype):
        exponents = _scale_exponents(rows, centre, rule)
        products = _products(rows, centre, exponents)
    lengths = products.diagonal().clamp_min(0.0).sqrt()
    inverse = torch.where(lengths > 0, 1.0 / lengths, 0.0)
    cosines = (products * inverse[:, None] * inverse).clamp_(-1.0, 1.0)
    cosines.diagonal().copy_(lengths > 0)
    unit = _choose_unit(lengths.tolist(), exponents, weights)
    shifts = torch.tensor(
        [float(min(max(e - unit, -_SPREAD_EXPONENT), _SPREAD_EXPONENT)) for e in exponents],
        dtype=torch.float64,
        device=lengths.device,
    )
    return Gram(
        cosines=cosines,
        norms=lengths * torch.exp2(shifts),
        lengths=lengths,
        exponents=exponents,
        unit=unit,
        centre=centre,
    )


def _choose_unit(lengths: list[float], exponents: Sequence[int], weights: Sequence[float]) -> int:
    """Return the binary exponent of the weighted median of the rows' norms, zero rows left out."""
    sized = [(math.log2(length) + e, w) for length, e, w in zip(lengths, exponents, weights, strict=True) if length > 0]
    if not sized:
        return 0
    logs, masses = zip(*sized, strict=True)
    return math.floor(float(weighted_medians(torch.tensor(logs, dtype=torch.float64)[:, None], masses)))


def _is_well_scaled(products: Tensor, centre: int, dtype: torch.dtype) -> bool:
    """Ask whether no product overflowed and no row but the centre is so short that its products may have vanished."""
    squares = products.diagonal().clone()
    squares[centre] = 1.0
    least = 1e-200 if dtype == torch.float64 else 1e-20
    return bool(torch.isfinite(products).all()) and bool((squares >= least).all())


def _scale_exponents(rows: Sequence[Tensor], centre: int, rule: str) -> tuple[int, ...]:
    """Return e with |x_i - centre| <= 2**e in every coordinate; 0 for a row equal to the centre."""
    found = torch.zeros(len(rows), dtype=torch.float64, device=rows[0].device)
    # Halves, so that the difference of two of the greatest numbers does not overflow.
    ones = (1,) * len(rows)
    for _, _, block in _centred_blocks(rows, centre, ones):
        found = torch.maximum(found, block.abs().amax(dim=1).to(torch.float64))
    tops: list[float] = found.tolist()
    if not all(map(math.isfinite, tops)):
        require_finite(rule, rows)
    widest = 1000 if _work_dtype(rows) == torch.float64 else 126
    return tuple(min(max(math.frexp(top)[1] + 1, -widest), widest + 1) if top else 0 for top in tops)


def _work_dtype(rows: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if len(rows) * rows[0].numel() <= _SMALL else wide_dtype(rows[0].dtype)


def _products(rows: Sequence[Tensor], centre: int, exponents: Sequence[int]) -> Tensor:
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows[0].device)
    for _, _, block in _centred_blocks(rows, centre, exponents):
        # float32 products inside a block, float64 across blocks: relative error some 1e-7.
        total += _self_product(block)
    return total


def _self_product(block: Tensor) -> Tensor:
    """Return block @ block.T; NumPy computes one triangle of it only, which torch has no call for."""
    if block.device.type != "cpu":
        return block @ block.T
    array = block.numpy()
    return torch.from_numpy(numpy.dot(array, array.T))  # unlike @, it does not warn where products overflow


def _centred_blocks(rows: Sequence[Tensor], centre: int, exponents: Sequence[int]) -> Iterator[tuple[int, int, Tensor]]:
    """Yield (low, high, block) with block[i] = (rows[i] - rows[centre]) * 2**-exponents[i]; the buffer is reused."""
    length, dtype = rows[0].numel(), _work_dtype(rows)
    step = choose_block_length(rows[0], rows_held=len(rows), cache_bytes=_CACHE, least=1024)
    buffer = torch.empty(len(rows) * min(step, length), dtype=dtype, device=rows[0].device)
    plain = rows[0].dtype == dtype and not any(exponents)
    low = 0
    for pieces in zip(*(torch.split(row, step) for row in rows), strict=True):
        size = pieces[0].numel()
        block = buffer[: len(rows) * size].view(len(rows), size)
        if plain:
            torch.stack(pieces, out=block)
            block.sub_(pieces[centre])
        else:
            for piece, exponent, out in zip(pieces, exponents, block.unbind(0), strict=True):
                _write_difference(piece, pieces[centre].to(dtype), exponent, out)
        yield low, low + size, block
        low += size


def _write_difference(row: Tensor, middle: Tensor, exponent: int, out: Tensor) -> None:
    out.copy_(row)
    if exponent > 0:  # scale down first: the difference itself may overflow
        out.mul_(2.0**-exponent).sub_(middle * 2.0**-exponent)
    else:  # scale up last: the rows themselves may overflow
        out.sub_(middle).mul_(2.0**-exponent)


def distances(gram: Gram) -> Tensor:
    """Return |x_i - x_j|, (n, n) float64, in units of 2**gram.unit; exactly symmetric, 0 on the diagonal."""
    r = gram.norms
    squares = (r[:, None] - r) ** 2 + 2.0 * (r[:, None] * r) * (1.0 - gram.cosines)
    result = torch.maximum(squares, squares.T).clamp_min_(0.0).sqrt_()
    return result.fill_diagonal_(0.0)


def combine_rows(rows: Sequence[Tensor], gram: Gram, coefficients: Tensor) -> Tensor:
    """Return centre + 2**unit * sum_j coefficients[j] * direction_j, (d,) of the rows' dtype.

    direction_j is the unit vector from the centre to row j; a row-space coefficient is one times ``gram.norms[j]``.
    """
    usable = gram.lengths > 0
    multipliers = torch.where(usable, coefficients / torch.where(usable, gram.lengths, 1.0), 0.0)
    if _is_wide(rows, gram):
        multipliers *= 2.0**gram.unit
        multipliers[gram.centre] = 1.0 - multipliers.sum()
        return blend_rows(rows, multipliers.tolist())
    result = torch.empty(rows[0].numel(), dtype=rows[0].dtype, device=rows[0].device)
    for low, high, block in _centred_blocks(rows, gram.centre, gram.exponents):
        part = torch.mv(block.T, multipliers.to(block.dtype)).mul_(2.0**gram.unit)
        part.add_(rows[gram.centre][low:high])
        result[low:high] = round_once(part, result.dtype) if part.dtype == torch.float64 else part
    return result


def _is_wide(rows: Sequence[Tensor], gram: Gram) -> bool:
    """Ask whether rows lie as far apart as from the origin: then a plain sum of them loses no digit, and is faster."""
    if _work_dtype(rows) == torch.float64 or any(gram.exponents):
        return False
    middle = rows[gram.centre].to(wide_dtype(rows[0].dtype))
    return float(torch.dot(middle, middle)) <= 4.0 * 4.0**gram.unit
