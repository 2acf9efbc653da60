"""What an ensemble predicts: the mean of its members' outputs, or the mean weighted by their efficiency.

Source: HQDE clause 1.8. Pure: arguments are never changed. A member that is dead, whose outputs are not finite, or
whose efficiency is no positive number where it is needed, is left out and named; nothing is made up for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hqde_ref.errors import LayoutError
from hqde_ref.messages import message

__all__ = ["Prediction", "predict"]


@message
class Prediction:
    """The outputs, of the members' shape and dtype; None where nobody is left. Used and left out partition them."""

    outputs: Tensor | None
    used: tuple[str, ...]
    left_out: Mapping[str, str]


def predict(outputs: Mapping[str, Tensor | None], *, efficiencies: Mapping[str, float] | None) -> Prediction:
    """Combine outputs by member; None is a dead one.

    Args:
        outputs: floating tensors of one shape and dtype.
        efficiencies: by member; None for equal weights.

    Raises:
        LayoutError: for outputs of different shapes or dtypes, or that are not floating.
    """
    left_out = {name: _find_fault(name, outputs[name], efficiencies) for name in sorted(outputs)}
    used = [name for name, fault in left_out.items() if fault is None]
    reasons = {name: fault for name, fault in left_out.items() if fault is not None}
    rows = [row for name in used if (row := outputs[name]) is not None]
    _require_alike(rows)
    if not rows:
        return Prediction(outputs=None, used=(), left_out=reasons)
    weights = torch.tensor([1.0 if efficiencies is None else efficiencies[name] for name in used], dtype=torch.float64)
    table = torch.stack([row.detach().double() for row in rows])
    shares = (weights / weights.sum()).reshape(-1, *[1] * rows[0].dim())
    return Prediction(outputs=(table * shares).sum(dim=0).to(rows[0].dtype), used=tuple(used), left_out=reasons)


def _find_fault(name: str, row: Tensor | None, efficiencies: Mapping[str, float] | None) -> str | None:
    if row is None:
        return "dead: it gives no outputs"
    if not bool(torch.isfinite(row).all()):
        return "not finite: its outputs hold NaN or infinity"
    if efficiencies is not None and not 0.0 < efficiencies[name] < math.inf:
        return f"efficiency: it has {efficiencies[name]!r}, wanted a positive number"
    return None


def _require_alike(rows: list[Tensor]) -> None:
    kinds = {f"{str(row.dtype).removeprefix('torch.')}{tuple(row.shape)}" for row in rows}
    if len(kinds) > 1 or any(not row.is_floating_point() for row in rows):
        got = ", ".join(sorted(kinds))
        raise LayoutError(what="outputs", wanted="one floating dtype and shape", got=got, do="predict the same rows")
