"""Ask for work that any trusted aggregator can do: try one, and if its host fails or is silent, the next.

Source: HQDE clause 3.6. Deadlines are absolute; the time that is left is divided over the attempts that are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hqde_ref.messages import Call, Failed, Reply, Request, Runtime, message
from hqde_ref.rounds.plans import Seat

__all__ = ["Lost", "Unserved", "ask_somewhere", "prefer_seats"]

ATTEMPTS = 3


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


def ask_somewhere(
    runtime: Runtime, requests: Sequence[Request], *, seats: list[str], until: float
) -> tuple[Reply, ...] | Lost | Unserved:
    """One reply a request, in order. Seats that fail are struck off ``seats``, while one is left."""
    done: dict[int, Reply] = {}
    reason = "no time was left"
    for attempt in range(ATTEMPTS):
        waiting = [index for index in range(len(requests)) if index not in done]
        share = runtime.now() + (until - runtime.now()) / (ATTEMPTS - attempt)
        calls = [Call(node=seats[index % len(seats)], request=requests[index], attempt=attempt) for index in waiting]
        answers = runtime.ask(calls, enough=len(calls), until=share)
        lost: set[str] = set()
        failed: set[str] = set()
        for index, answer in zip(waiting, answers, strict=True):
            match answer.reply:
                case Failed(lost=keys) if keys:
                    lost.update(keys)
                case Failed() as failure:
                    failed.add(answer.node)
                    reason = f"{answer.node}: {failure.reason}"
                case reply:
                    done[index] = reply
        if lost:
            return Lost(keys=frozenset(lost))
        if len(done) == len(requests):
            return tuple(done[index] for index in range(len(requests)))
        if failed.issuperset(seats):
            failed.discard(seats[-1])  # nobody else is left: ask the least used one again
        seats[:] = [seat for seat in seats if seat not in failed]
    return Unserved(reason=reason)
