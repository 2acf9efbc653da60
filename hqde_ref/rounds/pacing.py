"""How long hosts took lately, so that the next round's inner nodes stay off slow ones.

Source: HQDE clause 3.9. No clock of its own: times come from the ``Span`` of every request, which each runtime shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hqde_ref.core.trees import find_slow, typical_time
from hqde_ref.messages import Contribution, Muster, Mustered, Span, Train
from hqde_ref.rounds.asking import is_silent
from hqde_ref.rounds.plans import Crowding, RoundPlan, Seat

__all__ = ["Timekeeper", "carriers", "slow_aggregators"]

_WORK = {Train.__name__: Contribution.__name__, Muster.__name__: Mustered.__name__}


class Timekeeper:
    """What training took at each node in the last round in which it answered; give ``note`` to a runtime's ``observe``.

    Training is what every host does in every round, in equal shares; what inner nodes do depends on the tree.
    """

    def __init__(self) -> None:
        self._fresh: dict[str, float] = {}
        self._known: dict[str, float] = {}

    def note(self, span: Span) -> None:
        """A repeated request gets a contribution that is ready, so the longest counts."""
        if _WORK.get(span.request) == span.outcome and span.finish > span.start:
            self._fresh[span.node] = max(self._fresh.get(span.node, 0.0), span.finish - span.start)

    def pace(self, seats: Sequence[Seat], crowds: Sequence[Crowding] = ()) -> dict[str, float]:
        """Seconds that a member's training took beside each aggregator, where it is known. Asked once a round."""
        self._known |= self._fresh
        self._fresh = {}
        members = {
            member: self._known[crowd.node] / max(len(crowd.members), 1)
            for crowd in crowds
            if crowd.node in self._known
            for member in crowd.members
        }
        times = self._known | members
        beside = {seat.aggregator: [times[member] for member in seat.beside if member in times] for seat in seats}
        return {aggregator: sum(mine) / len(mine) for aggregator, mine in beside.items() if mine}


def slow_aggregators(plan: RoundPlan) -> frozenset[str]:
    """Those beside whom training took longer than the policy puts up with."""
    factor = plan.policy.slow_factor
    return frozenset() if factor is None else find_slow(plan.pace, factor=factor)


def carriers(plan: RoundPlan, *, present: Iterable[str]) -> Mapping[str, float]:
    """Who may carry inner nodes, and its time; nobody, where times have no say. One never measured is as usual."""
    if plan.policy.slow_factor is None or not plan.pace:
        return {}
    answered, slow, typical = frozenset(present), slow_aggregators(plan), typical_time(plan.pace)
    return {
        seat.aggregator: plan.pace.get(seat.aggregator, typical)
        for seat in plan.seats
        if seat.aggregator not in slow and not is_silent(seat, answered)
    }
