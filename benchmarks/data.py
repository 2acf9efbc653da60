"""What is aggregated: seeded rows with outliers, the same in every process.

Runs under the peers' interpreters too: torch and the standard library only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FAR", "HARD", "KINDS", "NEAR", "PLAIN", "Case", "Rows", "make_rows"]

PLAIN = "plain"
HARD = "offset 1, scatter 1e-3"
FAR = "offset 1, scatter 1e-3, outliers 1e30"
NEAR = "offset 1, scatter 1e-3, no outliers"
KINDS = (PLAIN, HARD, FAR, NEAR)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One table line: a bench at a size.

    faulty: how many rows are outliers, and what the rules are told.
    kind: PLAIN (standard normal, outliers 50 times as long), HARD (offset 1, scatter 1e-3, outliers as far off again as
        the offset), FAR (the same with outliers of 1e30) or NEAR (the same with none, so a selection is close).
    """

    bench: str
    n: int
    d: int
    faulty: int
    kind: str = PLAIN
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The data in both forms: one (n, d) tensor, and n tensors of their own."""

    case: Case
    arena: Tensor
    separate: list[Tensor]

    @property
    def shares(self) -> Tensor:
        """One n-th for each."""
        return torch.full((self.case.n,), 1.0 / self.case.n)

    @property
    def honest(self) -> list[int]:
        return [index for index in range(self.case.n) if index not in outliers(self.case)]


def outliers(case: Case) -> set[int]:
    """Which rows are outliers: spread over the order of arrival."""
    if case.kind == NEAR:
        return set()
    order = torch.randperm(case.n, generator=torch.Generator().manual_seed(case.seed + 1)).tolist()
    return set(order[: case.faulty])


def make_rows(case: Case) -> Rows:
    """The rows of a case, float32."""
    arena = torch.empty(case.n, case.d)
    generator = torch.Generator().manual_seed(case.seed)
    far = outliers(case)
    for index, row in enumerate(arena):
        row.normal_(generator=generator)
        if case.kind == PLAIN:
            row.mul_(50.0 if index in far else 1.0)
            continue
        row.mul_(1e-3).add_(1.0)
        if index in far:
            row.mul_(1e30 / math.sqrt(case.d) if case.kind == FAR else 2.0)
    return Rows(case=case, arena=arena, separate=[row.clone() for row in arena])
