"""Every rule in every topology that the suite knows, and rounds that a way can aggregate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from hypothesis import strategies as st

from properties.declaring import Way
from properties.liars import ATTACKS, Lied, lied_rounds
from properties.robust_rules import ROBUST, RULES, UNPROVEN, RobustRule
from properties.strategies import FLOATS, Faulted, Round, broken_rounds, rounds
from simulator.proven_bounds import least_contributions

__all__ = [
    "MEAN_WAYS",
    "ROBUST_WAYS",
    "SHARDED_WAYS",
    "WAYS",
    "faulted_for",
    "fewest",
    "lied_for",
    "rounds_for",
    "ways_where",
]

MEAN_WAYS: Final = tuple(Way("weighted_mean", topology) for topology in ("flat", "tree", "mapreduce", "sharded"))
SHARDED_WAYS: Final = tuple(
    Way(rule, "sharded") for rule in ("geometric_median", "trimmed_mean", "krum", "mixed_trimmed_mean")
)
ROBUST_WAYS: Final = tuple(Way(rule, "flat") for rule in ROBUST) + SHARDED_WAYS
WAYS: Final = MEAN_WAYS + ROBUST_WAYS + tuple(Way(rule, "flat") for rule in UNPROVEN)


def ways_where(holds: Callable[[RobustRule], object]) -> list[Way]:
    """Those whose rule is like this; of the means the flat one, since whether a mean composes is section 3."""
    return [way for way in WAYS if way not in MEAN_WAYS[1:] and holds(RULES[way.rule])]


def fewest(way: Way, faulty_max: int) -> int:
    """Fewest members of a round that is to tolerate f by this rule: 3f < n, and what the rule itself needs.

    Three at least for a robust rule: among two nobody can say who is the outlier, and refusing them is no fault.
    """
    if way in MEAN_WAYS:
        return 1
    return max(3, 3 * faulty_max + 1, least_contributions(way.rule, faulty_max))


def _faulty(way: Way) -> st.SearchStrategy[int]:
    return st.just(0) if way in MEAN_WAYS else st.integers(0, 2)


def rounds_for(way: Way, *, dtypes: Sequence[str] = FLOATS, least: int = 1) -> st.SearchStrategy[Round]:
    """Whole contributions, enough of them for the rule with some f."""

    def of(faulty_max: int) -> st.SearchStrategy[Round]:
        count = max(least, fewest(way, faulty_max))
        return rounds(least=count, most=count + 8, dtypes=dtypes, faulty_max=faulty_max)

    return _faulty(way).flatmap(of)


def faulted_for(
    way: Way, *, kinds: Sequence[str] = ("not finite", "misshapen"), bad_at_least: int = 1
) -> st.SearchStrategy[Faulted]:
    """Rounds with bad, silent and repeated contributions, of which enough are whole for the rule with some f."""

    def of(faulty_max: int) -> st.SearchStrategy[Faulted]:
        count = fewest(way, faulty_max)
        return broken_rounds(least=count, faulty_max=faulty_max, kinds=kinds, bad_at_least=bad_at_least)

    return _faulty(way).flatmap(of)


def lied_for(
    way: Way,
    *,
    lying: bool | None = None,
    silent: bool = False,
    equal_honest: bool = False,
    attacks: Sequence[str] = ATTACKS,
) -> st.SearchStrategy[Lied]:
    """Rounds with liars that the rule has to withstand."""
    rule = RULES[way.rule]
    return lied_rounds(
        least=partial(least_contributions, way.rule),
        most_faulty=min(3, rule.faulty_most),
        lying=lying,
        silent=silent,
        equal_honest=equal_honest,
        attacks=attacks,
    )
