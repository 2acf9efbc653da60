"""A row that most rows are near to, and whether most lie wide apart: looked up on a sample of coordinates.

Source: HQDE clause 4.7: distances keep their digits only around such a row.
Pure: no clock, no randomness, no input or output; arguments are never changed. A sample can miss what it does not
see, so ``gram`` checks the choice on all coordinates afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hqde_ref.core.kernels.rows import wide_dtype

__all__ = ["choose_centre", "is_wide_sample", "weighted_medians", "work_dtype"]

_SMALL = 1 << 18  # up to so many values, float64 throughout costs nothing that matters
_SAMPLE = 512
_CHUNKS = 4
_CANDIDATES = 8
_PROBES = 256
_FAR = 1e300


def choose_centre(rows: Sequence[Tensor], weights: Sequence[float]) -> int:
    """Return the index of a row with a small weighted median distance (l1) to the others, on sampled coordinates."""
    # Sums of absolute values, not squares: none that decides vanishes, and a 4096th of them does not overflow.
    sample = torch.nan_to_num(_sample(rows), nan=_FAR, posinf=_FAR, neginf=-_FAR).mul_(2.0**-12)
    count = min(len(rows), _CANDIDATES)
    candidates = [i * (len(rows) - 1) // max(1, count - 1) for i in range(count)]
    far = torch.cdist(sample, sample[candidates], p=1.0)
    return candidates[int(weighted_medians(far, weights).argmin())]


def _sample(rows: Sequence[Tensor]) -> Tensor:
    length = rows[0].numel()
    size = min(_SAMPLE, max(64, (1 << 16) // len(rows)))
    if length <= size:
        return torch.stack(list(rows)).to(torch.float64)
    width = size // _CHUNKS
    starts = [(length - width) * i // (_CHUNKS - 1) for i in range(_CHUNKS)]
    return torch.cat([torch.stack([row[s : s + width] for row in rows]) for s in starts], dim=1).to(torch.float64)


def weighted_medians(values: Tensor, weights: Sequence[float]) -> Tensor:
    """Return, per column of ``values`` (n, k), the least value such that those up to it hold half of the weight."""
    table = values.cpu().numpy()  # small: NumPy takes a third of torch's time
    order = table.argsort(axis=0, kind="stable")
    mass = np.asarray(weights, dtype=np.float64)[order].cumsum(axis=0)
    places = (mass < mass[-1] / 2).sum(axis=0)
    found = np.take_along_axis(table, np.take_along_axis(order, places[None], axis=0), axis=0)[0]
    return torch.from_numpy(found).to(values.device)


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
