"""What a liar works with, and what it takes the aggregation for.

Pure: randomness comes as a generator. Nothing here imports an aggregation rule: an adversary that aims at one brings it
along as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from hqde_ref.messages import message

__all__ = ["Aggregation", "Knowledge", "guess_result", "honest_mean", "honest_rows", "honest_spread"]

# From all contributions (float64 rows) to the result.
Aggregation: TypeAlias = Callable[[Sequence[Tensor]], Tensor]


@message
class Knowledge:
    """What an omniscient adversary works with.

    Attributes:
        honest: contributions of the honest in this round, at least one; float rows (d,) of one dtype.
        base: the state that the round started from.
        generator: the attack's own random stream.
        colluders: how many will send what is forged.
        rule: the aggregation that a searching attack aims at; None for a coordinate-wise median of its own.
    """

    honest: Sequence[Tensor]
    base: Tensor
    generator: torch.Generator
    colluders: int = 1
    rule: Aggregation | None = None


def honest_rows(known: Knowledge) -> Tensor:
    """The honest contributions, (h, d) float64."""
    return torch.stack([row.double() for row in known.honest])


def honest_mean(known: Knowledge) -> Tensor:
    """Their mean, (d,) float64."""
    return honest_rows(known).mean(dim=0)


def honest_spread(known: Knowledge) -> float:
    """Root mean square distance of the honest from their mean."""
    rows = honest_rows(known)
    return float((rows - rows.mean(dim=0)).square().sum(dim=1).mean().sqrt())


def guess_result(known: Knowledge, lie: Tensor) -> Tensor:
    """What the rule gives, (d,) float64, if every colluder sends ``lie``."""
    contributions = [*(row.double() for row in known.honest), *[lie] * known.colluders]
    if known.rule is not None:
        return known.rule(contributions).double()
    ordered = torch.stack(contributions).sort(dim=0).values
    count = len(contributions)
    middle: Tensor = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return middle
