"""What the registry knows of an aggregation rule.

Source: HQDE clauses 4.5, 4.8 and 4.9.
Pure: a value, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor

from hqde_ref.core.certificates import Certificate
from hqde_ref.core.kernels.rows import check_count
from hqde_ref.core.rules.bound import Bound
from hqde_ref.core.rules.settings import settings_of
from hqde_ref.errors import TooFewContributions

__all__ = ["SYMMETRIES", "Rule"]

SYMMETRIES = frozenset(
    {
        "permutation",  # of the rows; for gram rules up to ties of scores
        "translation",  # of all rows by one vector
        "positive_scale",
        "negation",
        "rotation",
        "coordinate_permutation",
        "diagonal_scale",  # of every coordinate by its own factor
        "monotone_map",  # of every coordinate by its own increasing function
        "idempotent",  # equal rows give that row
        "exact_fit",  # n - f equal rows give that row
        "majority_fit",  # more than n / 2 equal rows give that row
        "hull",  # of all rows
        "box",  # the range of all rows in every coordinate
        "honest_box",  # the range of the honest rows in every coordinate
        "monotone",  # raising a coordinate of a row lowers no coordinate of the result
        "lipschitz",  # with constant 1 in the greatest change of a row, coordinate by coordinate
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A rule, when it may be used, and what is proven of it.

    name: its only name here and in scenarios.
    aggregate: (updates, *, faulty_max, and settings) -> row.
    least_contributions: f -> the least number of rows it takes.
    bounds: what is proven of how far it can be led astray; that by the variance first. None of them for a rule that
        a single faulty row leads anywhere, and for one of which nothing is proven. Their constants, and ``kappa``,
        raise as ``require_count`` does.
    symmetries: a subset of ``SYMMETRIES``.
    family: "coordinatewise" rules shard over coordinates; "gram" rules need distances over all of them, and commute
        with translations and rotations; "staged" rules need distances first and then go by coordinates; "mean"
        composes up a tree.
    in_tree: of how many of a node's children it withstands fewer, where it may be applied node by node (clause 3.7);
        None where nothing is proven of that. What keeps to the honest box at every node keeps to it at the root; a
        geometric median stays within a factor of any z, and the factors multiply. Constants kappa do not compose, so
        rules of which nothing else is proven (Krum, MeaMed, mixing, clipping, ...) stay flat or sharded.
    certify: (updates, output, *, faulty_max, and the rule's settings) -> certificate of anybody's output, or None.
    """

    name: str
    aggregate: Callable[..., Tensor]
    least_contributions: Callable[[int], int]
    bounds: tuple[Bound, ...]
    symmetries: frozenset[str]
    family: Literal["mean", "coordinatewise", "gram", "staged"]
    source: str
    certify: Callable[..., Certificate] | None
    description: str
    in_tree: Literal["half"] | None = None

    def __post_init__(self) -> None:
        """Let constants be refused, not wrong, where the rule itself would refuse so few rows."""
        checked = (replace(bound, constant=partial(self._constant, bound.constant)) for bound in self.bounds)
        object.__setattr__(self, "bounds", tuple(checked))

    def _constant(self, constant: Callable[[int, int], float], n: int, f: int) -> float:
        self.require_count(n, f)
        return constant(n, f)

    def require_count(self, n: int, f: int) -> None:
        """Refuse n rows of which f may hold anything, if the rule cannot do with so few.

        Raises:
            ConfigurationError: f is not an integer of at least 0.
            TooFewContributions: n is below ``least_contributions(f)``.
        """
        check_count(self.name, count=n, faulty_max=f, per_faulty=0)
        needed = self.least_contributions(f)
        if n < needed:
            raise TooFewContributions(rule=self.name, faulty_max=f, needed=needed, got=n)

    @property
    def kappa(self) -> Callable[[int, int], float] | None:
        """(n, f) -> constant of |F - mean of the honest|^2 <= kappa * V, or None where nothing is proven."""
        return next((bound.constant for bound in self.bounds if bound.measure == "variance"), None)

    @property
    def settings(self) -> tuple[str, ...]:
        """What changes the result beside rows and faulty_max; all have defaults, which the bounds are for.

        A rule takes weights, one a row, if "weights" is among them.
        """
        return settings_of(self.aggregate)

    @property
    def topologies(self) -> tuple[str, ...]:
        """Where a round may use it."""
        if self.family == "mean":
            return ("flat", "sharded", "tree", "mapreduce")
        return ("flat", "sharded", "tree") if self.in_tree else ("flat", "sharded")
