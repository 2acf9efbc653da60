"""Ask for work that any trusted aggregator can do: try one, and if its host fails or is silent, the next.

Source: HQDE clause 3.6. Deadlines are absolute. All that is asked here is pure, so it may be done twice: an aggregator
that straggles is hedged, that is, the same request also goes to another as another attempt, and the first reply counts.
The call that straggles is not sent again but joined; should its host go on meanwhile, its reply is as good.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hqde_ref.messages import LATE, Answer, Call, Failed, Reply, Request, Runtime, message
from hqde_ref.rounds.plans import RoundPlan, Seat

__all__ = ["TICK_S", "Desk", "Lost", "Unserved", "ask_somewhere", "prefer_seats"]

TICK_S = 1e-6  # clocks tick: a runtime that waited until a moment may read a little less
LOAD_SHARE = 0.5  # of the time that is left, before a payload that does not come is lost: then one can go on without it
ATTEMPTS = 5  # of a request that nobody answers; one that fails goes on to every aggregator there is


@message
class Lost:
    """Payloads that a request named and that are gone; the story has to go on without them."""

    keys: frozenset[str]


@message
class Unserved:
    """No aggregator did the work in time; the last reason given."""

    reason: str


def prefer_seats(seats: Sequence[Seat], *, present: Iterable[str]) -> list[str]:
    """Aggregators in the order to try them: those first whose neighbours answered in this round."""
    answered = frozenset(present)
    silent = [bool(seat.beside) and answered.isdisjoint(seat.beside) for seat in seats]
    order = sorted(range(len(seats)), key=lambda index: (silent[index], index))
    return [seats[index].aggregator for index in order]


@message
class Desk:
    """What every step of a round needs in order to ask; ``seats`` changes: see ``ask_somewhere``."""

    runtime: Runtime
    plan: RoundPlan
    seats: list[str]
    until: float

    def ask(self, requests: Sequence[Request]) -> tuple[Reply, ...] | Lost | Unserved:
        hedge = self.plan.policy.hedge_after_s
        return ask_somewhere(self.runtime, requests, seats=self.seats, until=self.until, hedge_after_s=hedge)


class _Errand:
    """One request on its way to a reply: who was asked, and which of the calls are still out."""

    def __init__(self, index: int, request: Request, load_until: float) -> None:
        self.request = request
        self._index = index
        self._load_until = load_until
        self.asked: list[str] = []
        self.out: list[Call] = []
        self.reply: Reply = None

    def send(self, seats: Sequence[str]) -> bool:
        """Ask the next aggregator that was not asked yet; a lone one is asked again. False if there is nobody."""
        order = [seats[(self._index + step) % len(seats)] for step in range(len(seats))]
        fresh = [seat for seat in order if seat not in self.asked]
        if not fresh and (self.out or len(self.asked) >= ATTEMPTS):
            return False
        node, attempt = (fresh or order)[0], len(self.asked)
        call = Call(node=node, request=self.request, attempt=attempt, until=self._load_until)
        self.asked.append(call.node)
        self.out.append(call)
        return True


class _Trip:
    """What an ask brought home, summed up over its errands."""

    def __init__(self) -> None:
        self.lost: set[str] = set()
        self.failed: list[str] = []
        self.reason = "no time was left"

    def note(self, errand: _Errand, call: Call, reply: Reply) -> None:
        match reply:
            case Failed(lost=keys) if keys:
                self.lost.update(keys)
            case Failed() as failure:
                self.reason = f"{call.node}: {failure.reason}"
                if failure != LATE:
                    errand.out.remove(call)
                if failure.definite:  # else a message was lost on the way: that says nothing against the aggregator
                    self.failed.append(call.node)
            case _:
                errand.reply = reply


def ask_somewhere(
    runtime: Runtime, requests: Sequence[Request], *, seats: list[str], until: float, hedge_after_s: float
) -> tuple[Reply, ...] | Lost | Unserved:
    """One reply a request, in order.

    Args:
        seats: aggregators in the order to try them. Those that fail are struck off, while one is left; those that had
            to be hedged go to the end, for whoever asks next.
        hedge_after_s: how long an aggregator may be silent before its work also goes to the next.
    """
    now = runtime.now()
    load_until = now + LOAD_SHARE * (until - now)
    errands = [_Errand(index, request, load_until) for index, request in enumerate(requests)]
    trip = _Trip()
    hedge_at = now + hedge_after_s
    while waiting := [errand for errand in errands if errand.reply is None]:
        for errand in waiting:
            if not errand.out and not errand.send(seats):
                return Unserved(reason=trip.reason)
        may_hedge = any(len(errand.asked) < min(ATTEMPTS, len(seats)) for errand in waiting)
        for errand, call, answer in _ask(runtime, waiting, until=min(until, hedge_at) if may_hedge else until):
            trip.note(errand, call, answer.reply)
        if trip.lost:
            return Lost(keys=frozenset(trip.lost))
        _strike(seats, trip.failed)
        silent = [errand for errand in waiting if errand.reply is None and errand.out]
        if silent and runtime.now() >= until - TICK_S:
            return Unserved(reason=trip.reason)
        if silent and may_hedge and runtime.now() >= hedge_at - TICK_S:
            _hedge(silent, seats)
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


def _hedge(silent: Sequence[_Errand], seats: list[str]) -> None:
    """Send what is overdue to the next aggregator too, and let the slow ones be the last to be asked from now on."""
    slow = frozenset(call.node for errand in silent for call in errand.out)
    seats[:] = [seat for seat in seats if seat not in slow] + [seat for seat in seats if seat in slow]
    for errand in silent:
        if len(errand.asked) < ATTEMPTS:
            errand.send(seats)
