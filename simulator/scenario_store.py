"""What a scenario file may say of a weight store.

Source: HQDE clauses 2.6 to 2.9.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, model_validator

from hqde_ref.core.quorums import StorePlan, check_store_plan
from simulator.durations import Duration, lasting
from simulator.faults import Crash, Damage, Fault, Pause
from simulator.targets import Strict

__all__ = ["STATE_KEY", "WeightStore", "needs_store"]

STATE_KEY: Final = "published state"


class WeightStore(Strict):
    """Where the published state is kept from round to round: ``StorePlan``, with each store on a host of its own.

    ``within``: how long a write, a read or a rejoin may take, beside the round's own time.
    """

    stores: Annotated[int, Field(ge=1, le=1000, strict=True)] = 5
    copies: Annotated[int, Field(strict=True)] = 3
    writes: Annotated[int, Field(strict=True)] = 2
    reads: Annotated[int, Field(strict=True)] = 2
    within: Duration = lasting("6s", gt=0.0)

    @model_validator(mode="after")
    def _fits(self) -> WeightStore:
        check_store_plan(self.plan())
        return self

    def plan(self, *, nodes: int = 1) -> StorePlan:
        """Stores are dealt to machines in turn, as hosts are; copies of a key lie on distinct ones where there are."""
        places = range(self.stores)
        return StorePlan(
            stores=tuple(f"s{index}" for index in places),
            copies=self.copies,
            writes=self.writes,
            reads=self.reads,
            domains=tuple(f"n{index % nodes}" for index in places) if nodes > 1 else None,
        )


def needs_store(fault: Fault) -> str | None:
    """Where and why a fault makes no sense without a weight store."""
    match fault:
        case Damage():
            return "action: damage is for what stores hold"
        case Crash(at=at) if at.stage in ("write", "read"):
            return f"at.stage: only a weight store has a stage {at.stage}"
        case Pause(stage="write" | "read" as stage):
            return f"stage: only a weight store has a stage {stage}"
        case _:
            return None
