"""What a trusted node finds when it looks at a contribution itself.

Source: HQDE clauses 0.5, 0.6, 3.3, 6.8. Pure. Nothing that the sender claims is believed: size, layout, digest,
finiteness and magnitude are all measured here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hqde_ref.core.isometry import LARGEST_SHARDED
from hqde_ref.core.kernels.exact_sums import largest_magnitudes, product_limit
from hqde_ref.core.packing import digest, float_blocks, float_tables, is_float, packed_bytes, split_rows
from hqde_ref.messages import Claim, Entry, Layout, Seen

__all__ = ["CORRUPTED", "MISSHAPEN", "NOT_FINITE", "find_too_heavy", "find_too_large", "screen"]

CORRUPTED = "corrupted"
MISSHAPEN = "misshapen"
NOT_FINITE = "not finite"
_NO_TOPS: tuple[float, ...] = ()


def screen(claim: Claim, packed: Tensor, layout: Layout, *, declared: str) -> Seen:
    """Say whether this vector, or shard of one, may be used, and if so how large it is in each float block.

    Args:
        packed: what was received.
        layout: of the shard at hand.
        declared: fingerprint of the layout of the whole vector.
    """
    if packed.dtype != torch.uint8 or packed.dim() != 1:
        kind = f"{str(packed.dtype).removeprefix('torch.')} of {packed.dim()} dimensions"
        wrong = f"{MISSHAPEN}: {kind}, wanted a run of bytes"
        return Seen(worker=claim.worker, reason=wrong, tops=_NO_TOPS, digest="")
    found = digest(packed)
    reason, tops = _misfit(claim, packed, layout, found, declared), _NO_TOPS
    if reason is None:
        tops = _tops(packed, layout, claim.rows)
        bad = [e.name for e, top in zip(_float_entries(layout), tops, strict=True) if not math.isfinite(top)]
        if bad:
            reason, tops = f"{NOT_FINITE}: parameter {bad[0]!r} holds NaN or infinity", _NO_TOPS
    return Seen(worker=claim.worker, reason=reason, tops=tops, digest=found)


def find_too_heavy(tops: Mapping[str, Sequence[float]], masses: Mapping[str, float]) -> dict[str, str]:
    """Who asks for a mass with which an exact sum of all these would leave float64, and why, by worker.

    The sums of those that are left, and of their masses, are finite (see ``exact_sums.choose_grid``).

    Args:
        tops: the magnitudes that a trusted node measured, by worker.
        masses: what each asks for in a weighted mean; finite, above 0.
    """
    most = product_limit(len(tops))
    limit = 2.0**most
    heavy: dict[str, str] = {}
    for worker, mine in tops.items():
        largest = max((1.0, *mine))  # a layout may have no floating entries
        if masses[worker] > limit or masses[worker] * largest > limit:  # an integer may be too large for the product
            heavy[worker] = (
                f"{MISSHAPEN}: its mass {_short(masses[worker])}, times its largest value, is beyond float64: "
                f"at most 2**{most} can be added up for {len(tops)} contributions"
            )
    return heavy


def find_too_large(tops: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Whose values cannot be multiplied with each other in float64, as Gram matrices need it, and why, by worker."""
    largest = {worker: max(mine, default=0.0) for worker, mine in tops.items()}
    return {
        worker: f"{NOT_FINITE}: a value of {top:.3g} cannot be multiplied, at most {LARGEST_SHARDED:g} can"
        for worker, top in largest.items()
        if top > LARGEST_SHARDED
    }


def _short(mass: float) -> str:
    return f"{mass:.3g}" if isinstance(mass, float) or mass < 2**1000 else f"of {mass.bit_length()} bits"


def _tops(packed: Tensor, layout: Layout, rows: int) -> tuple[float, ...]:
    blocks = float_blocks(layout)
    if rows == 1:
        return largest_magnitudes(split_rows(packed, layout)[0], blocks)
    tables = float_tables(packed, layout, rows=rows)
    return tuple(float(torch.stack(torch.aminmax(table)).abs().max()) if table.numel() else 0.0 for table in tables)


def _misfit(claim: Claim, packed: Tensor, layout: Layout, found: str, declared: str) -> str | None:
    if claim.layout != declared:
        return f"{MISSHAPEN}: its layout is {claim.layout}, the round declared {declared}"
    # Clause 6.8, before the size: a tail that was lost on the way proves nothing of the sender, a wrong size does.
    if claim.digest != found:
        return f"{CORRUPTED}: its bytes have digest {found[:12]}, it was sent with {claim.digest[:12]}"
    if packed.numel() != claim.rows * packed_bytes(layout):
        return f"{MISSHAPEN}: {packed.numel()} bytes, the layout has {claim.rows * packed_bytes(layout)}"
    return None


def _float_entries(layout: Layout) -> list[Entry]:
    return [entry for entry in layout.entries if is_float(entry)]
