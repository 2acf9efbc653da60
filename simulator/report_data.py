"""What a report is made of: plain values, checked once when they were read (``simulator.report_reading``).

Source: ``docs/design.md``, traces. Pure: no files, no drawing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final, Literal, get_args

from hqde_ref.messages import message
from simulator.records import Variant

__all__ = ["VARIANTS", "WORLDS", "FaultSeen", "FindingSeen", "RoundSeen", "RunSeen", "Seen", "SpanSeen", "natural"]

WORLDS: Final = ("sim", "ray")
VARIANTS: Final[tuple[Variant, ...]] = get_args(Variant)


@message
class SpanSeen:
    """One request's time at a host, in seconds since the run began."""

    host: str
    node: str
    request: str
    outcome: str
    start: float
    finish: float


@message
class FaultSeen:
    """A fault in force in a round: ``time`` is when it struck; ``lasts`` when it is still on as the round ends."""

    action: str
    hits: tuple[str, ...]
    time: float
    attack: str | None
    lasts: bool


@message
class RoundSeen:
    """One round of one run.

    ``limit`` is the distance from the centre that was allowed, where that is known. ``store`` has a sentence for each
    thing that the weight store did.
    """

    number: int
    began: float
    ended: float
    deadline: float
    kind: Literal["accepted", "refused"]
    reason: str
    rule: str
    used: tuple[str, ...]
    rejected: Mapping[str, str]
    missing: Mapping[str, str]
    byzantine: tuple[str, ...]
    scores: Mapping[str, float]
    limit: float | None
    accuracy: float
    loss: float
    error: float | None
    bound: float | None
    digest: str
    spans: tuple[SpanSeen, ...]
    faults: tuple[FaultSeen, ...]
    store: tuple[str, ...] = ()

    def forgery(self, member: str) -> Literal["", "byzantine", "corrupt"]:
        """Whether what a member sent was replaced by a lie, or damaged on the way."""
        if member not in self.byzantine:
            return ""
        damaged = any(fault.action == "corrupt" and member in fault.hits for fault in self.faults)
        return "corrupt" if damaged else "byzantine"

    @property
    def ratio(self) -> float | None:
        """The error as a share of the proven bound; None when there is no bound, or it is zero and so is the error."""
        if self.error is None or self.bound is None:
            return None
        if self.bound == 0:
            return None if self.error == 0 else math.inf
        return self.error / self.bound


@message
class RunSeen:
    """One trace. ``seats`` gives the host of each node that ever answered."""

    world: str
    variant: Variant
    file: str
    digest: str
    version: str
    rounds: tuple[RoundSeen, ...]
    members: tuple[str, ...]
    hosts: tuple[str, ...]
    seats: Mapping[str, str]


@message
class FindingSeen:
    """What a checker said of a law."""

    law: str
    clause: str
    status: str
    because: str
    round: int | None
    world: str
    variant: str


@message
class Seen:
    """A folder: runs in the order of worlds and variants, findings, and what the scenario says of itself."""

    name: str
    description: str
    seed: str
    runs: tuple[RunSeen, ...]
    findings: tuple[FindingSeen, ...] | None

    @property
    def worlds(self) -> tuple[str, ...]:
        return tuple(world for world in WORLDS if any(run.world == world for run in self.runs))

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple(variant for variant in VARIANTS if any(run.variant == variant for run in self.runs))

    def find(self, world: str, variant: str) -> RunSeen | None:
        return next((run for run in self.runs if (run.world, run.variant) == (world, variant)), None)


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key under which w2 comes before w10."""
    parts = re.findall(r"[0-9]{1,9}|[^0-9]+", name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)
