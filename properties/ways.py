"""Every rule in every topology that the suite knows, and rounds that a way can aggregate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

from properties.declaring import Way
from properties.liars import Lied, lied_rounds
from properties.oracles import ROBUST
from properties.strategies import FLOATS, Faulted, Round, broken_rounds, rounds

__all__ = ["MEAN_WAYS", "ROBUST_WAYS", "WAYS", "faulted_for", "lied_for", "rounds_for", "spare_of"]

MEAN_WAYS: Final = (Way("weighted_mean", "flat"), Way("weighted_mean", "tree"))
ROBUST_WAYS: Final = tuple(Way(rule, "flat") for rule in ROBUST)
WAYS: Final = MEAN_WAYS + ROBUST_WAYS


def spare_of(way: Way) -> int:
    """The rule needs 2f + 1 contributions and this many more."""
    return ROBUST[way.rule].spare if way.rule in ROBUST else 0


def _faulty(way: Way) -> st.SearchStrategy[int]:
    return st.integers(0, 2) if way.rule in ROBUST else st.just(0)


def rounds_for(way: Way, *, dtypes: Sequence[str] = FLOATS, least: int = 1) -> st.SearchStrategy[Round]:
    """Whole contributions, enough of them for the rule with some f."""

    def of(faulty_max: int) -> st.SearchStrategy[Round]:
        fewest = max(least, 3 * faulty_max + 1 + spare_of(way))
        return rounds(least=fewest, most=fewest + 8, dtypes=dtypes, faulty_max=faulty_max)

    return _faulty(way).flatmap(of)


def faulted_for(
    way: Way, *, kinds: Sequence[str] = ("not finite", "misshapen"), bad_at_least: int = 1
) -> st.SearchStrategy[Faulted]:
    """Rounds with bad, silent and repeated contributions, of which enough are whole for the rule with some f."""

    def of(faulty_max: int) -> st.SearchStrategy[Faulted]:
        fewest = 3 * faulty_max + 1 + spare_of(way)
        return broken_rounds(least=fewest, faulty_max=faulty_max, kinds=kinds, bad_at_least=bad_at_least)

    return _faulty(way).flatmap(of)


def lied_for(
    way: Way,
    *,
    lying: bool | None = None,
    silent: bool = False,
    equal_honest: bool = False,
    dtypes: Sequence[str] = ("float32", "float64"),
) -> st.SearchStrategy[Lied]:
    """Rounds with liars that the rule has to withstand."""
    return lied_rounds(spare=spare_of(way), lying=lying, silent=silent, equal_honest=equal_honest, dtypes=dtypes)
