"""Ask for work that any trusted aggregator can do: try one, and if its host fails or is silent, the next.

Source: HQDE clause 3.6. Deadlines are absolute. All that is asked here is pure, so it may be done twice: an aggregator
that straggles is hedged, that is, the same request also goes to another as another attempt, and the first reply counts.
The call that straggles is not sent again but joined; should its host go on meanwhile, its reply is as good.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from hqde_ref.messages import LATE, Answer, Call, Failed, Reply, Request, Runtime, message
from hqde_ref.rounds.plans import RoundPlan, Seat

__all__ = ["ATTEMPTS", "LOAD_SHARE", "TICK_S", "Desk", "Lost", "Unserved", "ask_somewhere", "is_silent", "prefer_seats"]

TICK_S = 1e-6  # clocks tick: a runtime that waited until a moment may read a little less
LOAD_SHARE = 0.5  # of the time that is left, before a payload that does not come is lost: then one can go on without it
ATTEMPTS = 20  # of a request at one node, lost or failed; deadlines end it sooner, unless that is noticed at once
HEDGES_MAX = 5  # of a request: so many copies of it may be out


@message
class Lost:
    """Payloads that a request named and that could not be had, by key, and why; the story has to go on without them."""

    reasons: Mapping[str, str]


@message
class Unserved:
    """Nobody did the work: no aggregator in time, or one refused it as it stands. The reason is a whole sentence."""

    reason: str


def is_silent(seat: Seat, answered: frozenset[str]) -> bool:
    """Whether nobody on this aggregator's host answered in this round."""
    return bool(seat.beside) and answered.isdisjoint(seat.beside)


def prefer_seats(seats: Sequence[Seat], *, present: Iterable[str], slow: Collection[str] = ()) -> list[str]:
    """Aggregators in the order to try them: those first whose neighbours answered, and who were not slow of late."""
    answered = frozenset(present)
    ranked = sorted(seats, key=lambda seat: (is_silent(seat, answered), seat.aggregator in slow))
    return [seat.aggregator for seat in ranked]


@message
class Desk:
    """What every step of a round needs in order to ask; ``seats`` and ``hedged`` change: see ``ask_somewhere``.

    ``carriers`` are the aggregators among which measured times deal the inner nodes of a tree; empty: times do not.
    """

    runtime: Runtime
    plan: RoundPlan
    seats: list[str]
    until: float
    carriers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    hedged: set[str] = dataclasses.field(default_factory=set)

    def ask(self, requests: Sequence[Request], *, at: Sequence[str] = ()) -> tuple[Reply, ...] | Lost | Unserved:
        """``at``: whom to ask first, one a request."""
        return ask_somewhere(
            self.runtime,
            requests,
            seats=self.seats,
            until=self.until,
            hedge_after_s=self.plan.policy.hedge_after_s,
            at=at,
            hedged=self.hedged,
        )


class _Errand:
    """One request on its way to a reply: who was asked, and which of the calls are still out."""

    def __init__(self, index: int, request: Request, load_until: float, first: str | None) -> None:
        self.request = request
        self._index = index
        self._first = first
        self._load_until = load_until
        self.asked: list[str] = []
        self.out: list[Call] = []
        self.reply: Reply = None

    def send(self, seats: Sequence[str], silent: Collection[str]) -> bool:
        """Ask the aggregator that was asked least and has none of this out, in turn, the silent ones last.

        Returns False if there is nobody.
        """
        awake = [seat for seat in seats if seat not in silent]
        order = [awake[(self._index + step) % len(awake)] for step in range(len(awake))]
        order += [seat for seat in seats if seat in silent]
        if self._first in seats:
            order.sort(key=lambda seat: seat != self._first)
        free = self._free(order)
        if not free:
            return False
        node, attempt = min(free, key=self.asked.count), len(self.asked)
        call = Call(node=node, request=self.request, attempt=attempt, until=self._load_until)
        self.asked.append(call.node)
        self.out.append(call)
        return True

    def may_hedge(self, seats: Sequence[str]) -> bool:
        """Whether somebody is left to ask as well; one whose message got lost is, those that failed are struck off."""
        return len(self.out) < HEDGES_MAX and bool(self._free(seats))

    def _free(self, seats: Sequence[str]) -> list[str]:
        out = {call.node for call in self.out}
        return [seat for seat in seats if seat not in out and self.asked.count(seat) < ATTEMPTS]


class _Trip:
    """What an ask brought home, summed up over its errands."""

    def __init__(self) -> None:
        self.lost: dict[str, str] = {}
        self.failed: list[str] = []
        self.reason = "no time was left"
        self.refusal: str | None = None

    def note(self, errand: _Errand, call: Call, reply: Reply) -> None:
        match reply:
            case Failed(lost=keys, reason=reason) if keys:
                self.lost |= dict.fromkeys(keys, reason)
            case Failed(refused=True, reason=reason):
                self.refusal = f"{call.node} refused its work: {reason.removesuffix('.')}"
            case Failed() as failure:
                self.reason = f"{call.node}: {failure.reason}"
                if failure != LATE:
                    errand.out.remove(call)
                if failure.definite:  # else a message was lost on the way: that says nothing against the aggregator
                    self.failed.append(call.node)
            case _:
                errand.reply = reply


def ask_somewhere(
    runtime: Runtime,
    requests: Sequence[Request],
    *,
    seats: list[str],
    until: float,
    hedge_after_s: float,
    at: Sequence[str] = (),
    hedged: set[str] | None = None,
) -> tuple[Reply, ...] | Lost | Unserved:
    """One reply a request, in order.

    Args:
        seats: aggregators in the order to try them. Those that fail are struck off, while one is left.
        hedge_after_s: how long an aggregator may be silent before its work also goes to the next.
        at: whom to ask first, one a request; without it requests are dealt to the seats in turn.
        hedged: who was silent for so long already: nothing is dealt to them while there are others, so that one that
            hangs costs a round one delay, however many requests there are. Others that are silent are added.
    """
    assert len(at) in (0, len(requests))
    now = runtime.now()
    load_until = now + LOAD_SHARE * (until - now)
    hedged = set() if hedged is None else hedged
    firsts = [None if first in hedged else first for first in at] or [None] * len(requests)
    errands = [
        _Errand(index, request, load_until, first)
        for index, (request, first) in enumerate(zip(requests, firsts, strict=True))
    ]
    trip = _Trip()
    hedge_at = now + hedge_after_s
    while waiting := [errand for errand in errands if errand.reply is None]:
        for errand in waiting:
            if not errand.out and not errand.send(seats, hedged):
                return Unserved(reason=f"no aggregator did its work in {len(errand.asked)} attempts ({trip.reason})")
        for errand, call, answer in _ask(runtime, waiting, until=min(until, hedge_at)):
            trip.note(errand, call, answer.reply)
        if trip.lost:
            return Lost(reasons=trip.lost)
        if trip.refusal is not None:  # no other aggregator would take it either
            return Unserved(reason=trip.refusal)
        _strike(seats, trip.failed)
        silent = [errand for errand in waiting if errand.reply is None and errand.out]
        if silent and runtime.now() >= until - TICK_S:
            return Unserved(reason=f"no aggregator did its work in time ({trip.reason})")
        if runtime.now() >= hedge_at - TICK_S:
            _hedge(silent, seats, hedged)
            hedge_at = runtime.now() + hedge_after_s
    return tuple(errand.reply for errand in errands)


def _ask(runtime: Runtime, errands: Sequence[_Errand], *, until: float) -> Iterator[tuple[_Errand, Call, Answer]]:
    """Ask all that is out; over when so many replies are in as there are errands, be it that some came twice."""
    pairs = [(errand, call) for errand in errands for call in errand.out]
    answers = runtime.ask([call for _, call in pairs], enough=len(errands), until=until)
    for (errand, call), answer in zip(pairs, answers, strict=True):
        yield errand, call, answer


def _strike(seats: list[str], failed: Sequence[str]) -> None:
    gone = frozenset(failed)
    if gone.issuperset(seats):
        gone -= {seats[-1]}  # nobody else is left: the least used one may be asked again
    seats[:] = [seat for seat in seats if seat not in gone]


def _hedge(silent: Sequence[_Errand], seats: Sequence[str], hedged: set[str]) -> None:
    """Send what is overdue to the next aggregator too; those that are slow are the last to be asked from now on."""
    hedged.update(call.node for errand in silent for call in errand.out)
    for errand in silent:
        if errand.may_hedge(seats):
            errand.send(seats, hedged)
