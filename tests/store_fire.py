"""Many acknowledged writes while stores keep dying: the same loop in virtual time and on real processes."""

from __future__ import annotations

from typing import Protocol

from hqde_ref.core.quorums import StorePlan
from hqde_ref.messages import Acknowledged, Joined, Runtime
from hqde_ref.rounds.rejoining import rejoin
from hqde_ref.rounds.storing import Writer
from simulator.streams import stream
from tests.stores import read_text, write_text

WITHIN_S = 30.0  # one dead store delays nobody: only a crowded machine comes near this


class Besieged(Protocol):
    """Stores that can be killed and started again."""

    plan: StorePlan

    @property
    def world(self) -> Runtime: ...

    def kill(self, store: str) -> None: ...

    def restart(self, store: str) -> None: ...


def under_fire(
    fleet: Besieged, writes: int, *, kill_every: int, seed: int, fresh_writer: str = "w"
) -> tuple[int, list[str]]:
    """(acknowledged, what was wrong): a store is killed every so often and brought back; in the end all is read."""
    writer, draw = Writer(fresh_writer), stream(seed, "store under fire")
    newest: dict[str, str] = {}
    problems: list[str] = []
    acknowledged = 0
    down: str | None = None

    def check(key: str) -> None:
        found = read_text(fleet.world, fleet.plan, key, within_s=WITHIN_S)
        if found != newest[key]:
            problems.append(f"{key} is {found}, wanted {newest[key]!r}")

    for number in range(1, writes + 1):
        key = f"k{draw.randrange(97)}"
        outcome = write_text(fleet.world, fleet.plan, writer, key, str(number), within_s=WITHIN_S)
        if isinstance(outcome, Acknowledged):
            acknowledged += 1
            newest[key] = str(number)
        else:
            problems.append(f"write {number}: {outcome.reason}")
        if number % 10 == 0:
            check(draw.choice(sorted(newest)))
        if number % kill_every == 0:
            down = draw.choice(fleet.plan.stores)
            fleet.kill(down)
        elif down is not None and number % kill_every == kill_every // 4:
            fleet.restart(down)
            outcome_of_rejoining = rejoin(fleet.world, fleet.plan, down, until=fleet.world.now() + WITHIN_S)
            if not isinstance(outcome_of_rejoining, Joined):
                problems.append(str(outcome_of_rejoining))
            down = None
    for key in sorted(newest):
        check(key)
    return acknowledged, problems
