"""A row that most rows are near to, and whether most lie wide apart: looked up on a sample of coordinates.

Source: HQDE clause 4.7: distances keep their digits only around such a row.
Pure: no clock, no randomness, no input or output; arguments are never changed. A sample can miss what it does not
see, so ``gram`` checks the choice on all coordinates afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.rows import wide_dtype

__all__ = ["choose_centre", "is_wide_sample", "weighted_medians", "work_dtype"]

_SMALL = 1 << 18  # up to so many values, float64 throughout costs nothing that matters
_SAMPLE = 1024
_CHUNKS = 4
_CANDIDATES = 8
_PROBES = 256


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


def is_wide_sample(rows: Sequence[Tensor], centre: int) -> bool:
    """Ask whether, on some coordinates, most rows lie as far from row ``centre`` as that from the origin."""
    if work_dtype(rows) == torch.float64:
        return False  # there a subtraction costs nothing that matters
    step = max(1, rows[0].numel() // _PROBES)
    probe = torch.stack([row[::step] for row in rows]).to(torch.float32)
    scatter = torch.linalg.vector_norm(probe - probe[centre], dim=1).median()
    return bool(scatter >= torch.linalg.vector_norm(probe[centre]))


def work_dtype(rows: Sequence[Tensor]) -> torch.dtype:
    """Return the dtype that products of such rows are taken in: float64 for few values and for float64 rows."""
    return torch.float64 if len(rows) * rows[0].numel() <= _SMALL else wide_dtype(rows[0].dtype)
