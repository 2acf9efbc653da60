"""What befalls messages between a story and its runtime: requests that come twice, payloads that get lost.

A decorator of the runtime, as ``simulator.adversary``: neither the story nor the nodes know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence

from torch import Tensor

from hqde_ref.messages import Answer, Call, Contribution, Payload, Runtime, Train

__all__ = ["Mishaps"]

_SECOND = 1_000  # attempts beyond it are second deliveries: a story tries less often


class Mishaps:
    """A runtime in which some members get ``Train`` twice, and what some send is lost.

    ``doubled`` and ``bereft`` collect whom it really befell.
    """

    def __init__(
        self, inner: Runtime, *, twice: Collection[str], lost: Collection[str], lose: Callable[[Payload], Payload]
    ) -> None:
        self._inner = inner
        self._twice = frozenset(twice)
        self._lost = frozenset(lost)
        self._lose = lose
        self._gone: dict[str, Payload] = {}
        self.doubled: set[str] = set()
        self.bereft: set[str] = set()

    def now(self) -> float:
        return self._inner.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self._inner.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        again = [
            dataclasses.replace(call, attempt=call.attempt + _SECOND)
            for call in calls
            if call.node in self._twice and isinstance(call.request, Train)
        ]
        answers = self._inner.ask([*calls, *again], enough=enough + len(again), until=until)
        second = {a.node: a for a in answers[len(calls) :] if isinstance(a.reply, Contribution)}
        self.doubled |= second.keys()
        # The story is given the second answer: it would show if asking twice trained twice (clause 6.2).
        return tuple(self._bereave(second.get(answer.node, answer)) for answer in answers[: len(calls)])

    def _bereave(self, answer: Answer) -> Answer:
        if answer.node not in self._lost or not isinstance(answer.reply, Contribution):
            return answer
        for payload in answer.reply.payloads:
            if payload.key not in self._gone:
                self._gone[payload.key] = self._lose(payload)
        self.bereft.add(answer.node)
        gone = tuple(self._gone[payload.key] for payload in answer.reply.payloads)
        return dataclasses.replace(answer, reply=dataclasses.replace(answer.reply, payloads=gone))
