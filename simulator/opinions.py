"""What a judge says of a law in one round, and what follows for a run.

Each judge decides; what its opinions come to is the same for every law.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from hqde_ref.messages import message

__all__ = ["Apart", "Broken", "Excused", "Opinion", "Status", "conclude_law", "in_all", "in_rounds"]

Status: TypeAlias = Literal["HOLDS", "BROKEN", "CANNOT_TELL"]


@message
class Broken:
    """The law did not hold."""

    why: str


@message
class Excused:
    """The law would not have held, were it not for ``excuse``: nobody can tell."""

    why: str
    excuse: str


@message
class Apart:
    """The law says nothing of such a round, and why."""

    why: str


Opinion = Broken | Excused | Apart | None  # None: the law held


def conclude_law(opinions: Mapping[int, Opinion]) -> tuple[Status, str, int | None]:
    """What the opinions of all rounds, by number, come to: the status, a sentence, and the round that broke the law."""
    for number, opinion in opinions.items():
        if isinstance(opinion, Broken):
            return "BROKEN", opinion.why, number
    excused = [(number, opinion) for number, opinion in opinions.items() if isinstance(opinion, Excused)]
    if excused:
        number, first = excused[0]
        told = f"not judged in {len(excused)} of {len(opinions)} rounds because {first.excuse}"
        return "CANNOT_TELL", f"{told}; round {number}: {first.why}", None
    apart = [opinion for opinion in opinions.values() if isinstance(opinion, Apart)]
    if not apart:
        return "HOLDS", in_all(len(opinions)), None
    why = " or ".join(dict.fromkeys(opinion.why for opinion in apart))
    if len(apart) == len(opinions):
        whole = "the only round cannot" if len(opinions) == 1 else f"none of {len(opinions)} rounds can"
        return "CANNOT_TELL", f"{whole} be judged: {why}", None
    held = len(opinions) - len(apart)
    return "HOLDS", f"in {held} of {len(opinions)} rounds; the others cannot be judged: {why}", None


def in_all(rounds: int) -> str:
    return "in the only round" if rounds == 1 else f"in all {rounds} rounds"


def in_rounds(rounds: int) -> str:
    return "in one round" if rounds == 1 else f"in {rounds} rounds"
