"""What became of a property, and of a clause: the seven statuses and what they add up to.

Source: docs/design.md, "The two commands": their words and exit codes are a contract.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

from hqde_ref.messages import Request, message

__all__ = ["STATUSES", "Outcome", "Status", "exit_code", "worst"]

Status: TypeAlias = Literal["HOLDS", "BROKEN", "UNSUPPORTED", "CANNOT_TELL", "ERROR", "EXPECTED_FAILURE", "FIXED"]

# A clause is as bad as its worst property; UNSUPPORTED comes last, since one property that held says more.
STATUSES: Final[tuple[Status, ...]] = (
    "BROKEN",
    "ERROR",
    "CANNOT_TELL",
    "EXPECTED_FAILURE",
    "FIXED",
    "HOLDS",
    "UNSUPPORTED",
)


@message
class Outcome:
    """One property, run.

    Attributes:
        name: of the property, with its parameters in brackets.
        examples: how many were judged until it was decided; rejected ones do not count.
        because: one sentence; None when it holds, unless time was up before all examples were tried.
        counterexample: the requests of the smallest failing example, with their replies, for a person.
        requests: the same as data, for the snippet; never part of the JSON.
    """

    name: str
    status: Status
    examples: int
    seconds: float
    because: str | None = None
    counterexample: str | None = None
    requests: tuple[Request, ...] = ()


def worst(statuses: Iterable[Status]) -> Status:
    """What properties of these statuses make of their clause; without any, nothing can be told."""
    found = frozenset(statuses)
    return next((status for status in STATUSES if status in found), "CANNOT_TELL")


def exit_code(statuses: Iterable[Status]) -> int:
    """0 everything asked held, 1 something is broken, 2 cannot tell or vacuous, 5 the harness or an adapter failed."""
    found = frozenset(statuses)
    if "BROKEN" in found:
        return 1
    if "ERROR" in found:
        return 5
    if "CANNOT_TELL" in found or not found & {"HOLDS", "FIXED", "EXPECTED_FAILURE"}:
        return 2
    return 0
