"""What is timed: a way to compute a result, and whose it is. Runs under the peers' interpreters too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from benchmarks.data import Rows

__all__ = ["Contender", "Contenders", "Make"]

Make: TypeAlias = Callable[[Rows], Callable[[], Any]]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One line of a table.

    who: ``hqde_ref`` or a peer.
    variant: which input or definition; unique within a bench and who. One that starts with "arena" takes the (n, d)
        tensor, any other the separate rows.
    make: from the rows to what is timed; what it does to bring them into its form is not timed.
    oracle: the name of the definition in ``oracles`` that its result is measured against.
    n_max, values_max: skipped for more rows, or more values in all.
    """

    who: str
    variant: str
    make: Make
    oracle: str
    n_max: int = 1_000_000
    values_max: int = 1 << 62

    def takes(self, n: int, d: int) -> bool:
        return n <= self.n_max and n * d <= self.values_max

    def reads(self, rows: Rows) -> Sequence[Tensor]:
        """Return the rows in the memory that this contender takes them from."""
        return rows.arena.unbind(0) if self.variant.startswith("arena") else rows.separate


Contenders: TypeAlias = Mapping[str, tuple[Contender, ...]]
