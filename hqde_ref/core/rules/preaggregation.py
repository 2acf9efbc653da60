"""What the registry knows of a pre-aggregation: a change of the rows before a rule is applied to them.

Source: HQDE clauses 4.5, 4.8 and 4.9.
Pure: a value, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from hqde_ref.core.rules.settings import settings_of

__all__ = ["PreAggregation"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PreAggregation:
    """A pre-aggregation, when it may be used, and what it does to what is proven of a rule after it.

    name: its only name.
    prepare: (updates, *, faulty_max, and settings) -> rows for the rule, of which again faulty_max may be anything.
    least_contributions: f -> the least number of rows it takes; the rule after it must have enough of what is left.
    left: (n, and settings) -> how many rows are left.
    kappa: (n, f, kappa of the rule, and settings) -> kappa of both together, the rule's own being a function of
        the number of rows left and f; or None where nothing is proven.
    bound: the same in words, k standing for the rule's own kappa.
    symmetries: those of ``SYMMETRIES`` that both together keep if the rule has them.
    family: what it needs in order to be sharded: nothing ("coordinatewise"), distances ("gram"), or distances from
        a point that moves with nothing ("staged").
    """

    name: str
    prepare: Callable[..., tuple[Tensor, ...]]
    least_contributions: Callable[[int], int]
    left: Callable[..., int]
    kappa: Callable[..., float] | None
    bound: str
    symmetries: frozenset[str]
    family: Literal["coordinatewise", "gram", "staged"]
    source: str
    description: str

    @property
    def settings(self) -> tuple[str, ...]:
        """What it takes beside rows and faulty_max."""
        return settings_of(self.prepare)
