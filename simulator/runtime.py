"""The same story in virtual time: hosts that queue, crash, hang and crawl; messages that take their time.

Source: ``docs/design.md``, the laws of ``ask``; HQDE section 6. Time is integer nanoseconds; events are ordered by
(time, sequence); nothing iterates over a set. Nodes are the real ones, so what is simulated is the real coordinator.

A host is one server with a queue. A message holds all calls of one ask to a host; its answers come back together. A
crash answers what is in flight with a definite failure, as a broken connection does; a hung host answers nothing. A
request or response that is lost for good is noticed by the caller after a while, as on Ray.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from torch import Tensor

from hqde_ref.messages import (
    CRASHED,
    LATE,
    UNANSWERED,
    Adopt,
    Answer,
    Call,
    Combine,
    Condense,
    Evaluate,
    Failed,
    Forge,
    Muster,
    Node,
    NodeSpec,
    Payload,
    Reply,
    Request,
    Resolve,
    Screen,
    Span,
    Subtotal,
    Train,
    payloads_of,
)
from hqde_ref.runtimes.local import perform_guarded
from hqde_ref.runtimes.naming import hosts_of_nodes
from simulator.copies import Copies
from simulator.streams import stream

__all__ = ["GONE", "Network", "Simulated", "work_of"]

SECOND: Final = 1_000_000_000
RETRANSMIT: Final = 200_000_000  # ns until a lost packet is sent again, as TCP does at first
GONE: Final = object()  # in place of a payload's bytes that are lost
_FOREVER_S: Final = 1e6  # what an infinite deadline means


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Times in nanoseconds.

    ``loss`` is the chance that a message must be sent again, each time; ``lost_requests`` and ``lost_responses`` are
    those that it is lost for good, on the way to a host and back, which the caller learns after ``notice``.
    """

    latency: int = 1_000_000
    jitter: int = 0
    loss: float = 0.0
    lost_requests: float = 0.0
    lost_responses: float = 0.0
    notice: int = 2 * SECOND  # what Ray 2.60 takes


def work_of(request: Request) -> int:
    """Nanoseconds a healthy host takes for a request: of the size seen on live Ray with a small model."""
    match request:
        case Train(steps=steps, start=start, stop=stop):
            return 200_000 * steps + 1_000 * (stop - start)
        case Muster(steps=steps, members=members, slices=slices):
            rows = sum(stop - start for start, stop in slices)
            return (200_000 * steps + 100_000) * len(members) + 1_000 * rows
        case Subtotal(workers=workers):
            return 100_000 * (1 + len(workers))
        case Screen(claims=claims):
            return 100_000 * (1 + sum(claim.rows for claim in claims))
        case Combine(parts=parts):
            return 100_000 * (1 + len(parts))
        case Resolve(rows=rows) | Condense(parts=rows):
            return 400_000 * (1 + len(rows))
        case Adopt() | Evaluate() | Forge():
            return 300_000
        case _:
            return 200_000


@dataclasses.dataclass(slots=True, eq=False)
class _Message:
    host: str
    calls: tuple[Call, ...]
    replies: tuple[Reply, ...] | None = None
    delivered: bool = False


_Place = tuple[_Message, int]  # where a call is: in which message, as which of its calls


@dataclasses.dataclass(slots=True)
class _Host:
    specs: tuple[NodeSpec, ...]
    nodes: dict[str, Node]
    incarnation: int = 0
    alive: bool = True
    paused: bool = False
    factor: float = 1.0
    queue: deque[_Message] = dataclasses.field(default_factory=deque)
    running: _Message | None = None
    began: int = 0  # when the running message was taken up
    started: int = 0  # since when it has been going at the present pace
    left: int = 0  # ns of work that it still needed then
    planned: bool = False  # its finish is among the events
    epoch: int = 0  # counts changes that make a planned finish void


class Simulated:
    """A runtime in virtual time.

    Args:
        hosts: which nodes each host carries.
        seed: of the network's streams.
        observe: called with a ``Span`` for every request that a host finished and answered.
        spared: hosts whose messages are never lost, since they are the harness's own.
        machines: which hosts each machine carries; without it they share one that is never lost.
    """

    def __init__(
        self,
        hosts: Mapping[str, tuple[NodeSpec, ...]],
        *,
        seed: int = 0,
        network: Network | None = None,
        work: Callable[[Request], int] = work_of,
        observe: Callable[[Span], None] | None = None,
        spared: Sequence[str] = (),
        machines: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._time = 0
        self._sequence = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._network = network or Network()
        self._draw = stream(seed, "network")
        self._draw_lost = stream(seed, "lost messages")
        self._spared = frozenset(spared)
        self._unanswered: set[str] = set()
        self._machines = machines or {}
        self._copies = Copies({host: machine for machine, held in self._machines.items() for host in held})
        self._work = work
        self._observe = observe
        self._flying: list[_Message] = []
        self._hosts = {host: _Host(tuple(specs), _build(specs, 0)) for host, specs in hosts.items()}
        self._host_of = hosts_of_nodes(hosts)

    # ---------------------------------------------------------------------------------------------- Runtime

    def now(self) -> float:
        return self._time / SECOND

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        end = max(round(min(until, self.now() + _FOREVER_S) * SECOND), self._time)
        self._send_new(calls)
        flying = _index(self._flying)
        places = [_find(flying, call) for call in calls]
        while not _is_enough(places, enough) and self._events and self._events[0][0] <= end:
            self._step()
        if not _is_enough(places, enough):
            self._time = end
        answers = tuple(
            Answer(node=call.node, reply=_reply_at(place, call)) for call, place in zip(calls, places, strict=True)
        )
        self._flying = [message for message in self._flying if not message.delivered]
        return answers

    def _send_new(self, calls: Sequence[Call]) -> None:
        """One message a host, with the calls that no equal one in flight stands for."""
        flying = _index(self._flying)
        groups: dict[str, list[Call]] = {}
        new: dict[tuple[str, int], list[Call]] = {}
        for call in calls:
            host = self._host_of.get(call.node)
            twins = new.setdefault((call.node, call.attempt), [])
            if host is not None and _find(flying, call) is None and call not in twins:
                twins.append(call)
                groups.setdefault(host, []).append(call)
        for host, group in groups.items():
            self._send(_Message(host=host, calls=tuple(group)))

    def fetch(self, payload: Payload) -> Tensor:
        vector: Tensor = payload.ref.clone()
        return vector

    # ---------------------------------------------------------------------------------------------- faults

    def crash(self, host: str) -> None:
        """The host's process ends; what it was asked is answered by a broken connection."""
        state = self._hosts[host]
        state.alive, state.paused, state.factor = False, False, 1.0
        state.planned = False
        state.epoch += 1
        lost = [*([state.running] if state.running else []), *state.queue]
        state.running = None
        state.queue.clear()
        for message in lost:
            self._answer(message, tuple(CRASHED for _ in message.calls))

    def remove(self, machine: str) -> None:
        """All hosts of a machine crash at once, and objects of which it held the only copy are gone."""
        for host in self._machines[machine]:
            if self._hosts[host].alive:
                self.crash(host)
        self._copies.drop(machine)

    def restart(self, host: str) -> None:
        """A fresh process with fresh nodes."""
        state = self._hosts[host]
        state.alive = True
        state.incarnation += 1
        state.nodes = _build(state.specs, state.incarnation)

    def pause(self, host: str) -> None:
        """The host stops where it is, as under SIGSTOP."""
        state = self._hosts[host]
        self._bank(state)
        state.paused = True

    def resume(self, host: str) -> None:
        """The host goes on where it stopped, as under SIGCONT."""
        state = self._hosts[host]
        state.paused = False
        self._go_on(host)

    def slow(self, host: str, factor: float) -> None:
        """From now on the host takes ``factor`` times as long; 1 heals."""
        state = self._hosts[host]
        self._bank(state)
        state.factor = factor
        self._go_on(host)

    def take_unanswered(self) -> set[str]:
        """Hosts to or from which a message was lost since this was last asked."""
        found, self._unanswered = self._unanswered, set()
        return found

    # ---------------------------------------------------------------------------------------------- events

    def _at(self, time: int, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (time, self._sequence, action))

    def _step(self) -> None:
        self._time, _, action = heapq.heappop(self._events)
        action()

    def _travel(self, host: str) -> int:
        """Nanoseconds on the way to or from a host; a lost packet is sent again, later each time."""
        time, again = 0, RETRANSMIT
        loss = 0.0 if host in self._spared else self._network.loss
        while loss and self._draw.random() < loss:
            time += again
            again *= 2
        return (
            time
            + self._network.latency
            + (self._draw.randrange(self._network.jitter + 1) if self._network.jitter else 0)
        )

    def _is_lost(self, host: str, chance: float) -> bool:
        return chance > 0 and host not in self._spared and self._draw_lost.random() < chance

    def _send(self, message: _Message) -> None:
        self._flying.append(message)
        if self._is_lost(message.host, self._network.lost_requests):
            self._leave_unanswered(message)
        else:
            self._at(self._time + self._travel(message.host), lambda: self._arrive(message))

    def _arrive(self, message: _Message) -> None:
        state = self._hosts[message.host]
        if not state.alive:
            self._answer(message, tuple(CRASHED for _ in message.calls))
            return
        state.queue.append(message)
        self._go_on(message.host)

    def _go_on(self, host: str) -> None:
        """Start or continue work, if there is any and the host can; work that is going on is left alone."""
        state = self._hosts[host]
        if state.paused or not state.alive or state.planned:
            return
        if state.running is None:
            if not state.queue:
                return
            state.running = state.queue.popleft()
            state.began = self._time
            state.left = sum(self._work(call.request) for call in state.running.calls)
        state.started = self._time
        state.planned = True
        state.epoch += 1
        epoch = state.epoch
        self._at(self._time + round(state.left * state.factor), lambda: self._finish(host, epoch))

    def _bank(self, state: _Host) -> None:
        """Note how much of the running work is done, before the pace changes."""
        if state.running is not None and not state.paused:
            state.left = max(0, state.left - round((self._time - state.started) / state.factor))
            state.planned = False
            state.epoch += 1

    def _finish(self, host: str, epoch: int) -> None:
        state = self._hosts[host]
        if state.epoch != epoch or state.running is None:
            return
        message, state.running, state.planned = state.running, None, False
        replies = tuple(self._perform(state, host, call) for call in message.calls)
        if self._is_lost(host, self._network.lost_responses):
            self._leave_unanswered(message)
        else:
            if self._observe is not None:
                self._show(message, replies, state.began)
            self._answer(message, replies)
        self._go_on(host)

    def _perform(self, state: _Host, host: str, call: Call) -> Reply:
        named = tuple(payloads_of(call.request))
        if gone := tuple(p.key for p in named if p.ref is GONE or self._copies.is_gone(p)):
            return Failed(reason="payload lost", definite=True, lost=gone)
        self._copies.read(host, named)
        reply = perform_guarded(state.nodes.get(call.node), call)
        self._copies.make(host, payloads_of(reply))
        return reply

    def _show(self, message: _Message, replies: tuple[Reply, ...], began: int) -> None:
        assert self._observe is not None
        works = [self._work(call.request) for call in message.calls]
        at, scale = began, (self._time - began) / max(sum(works), 1)
        for call, reply, work in zip(message.calls, replies, works, strict=True):
            span = Span(
                host=message.host,
                node=call.node,
                request=type(call.request).__name__,
                start=at / SECOND,
                finish=(at + work * scale) / SECOND,
                outcome=type(reply).__name__,
            )
            at += round(work * scale)
            self._observe(span)

    def _answer(self, message: _Message, replies: tuple[Reply, ...]) -> None:
        message.replies = replies
        self._at(self._time + self._travel(message.host), lambda: _deliver(message))

    def _leave_unanswered(self, message: _Message) -> None:
        """The message or its answer is lost: the caller notices, and cannot tell which."""
        self._unanswered.add(message.host)
        message.replies = tuple(UNANSWERED for _ in message.calls)
        self._at(self._time + self._network.notice, lambda: _deliver(message))


def _deliver(message: _Message) -> None:
    message.delivered = True


def _index(messages: Sequence[_Message]) -> dict[tuple[str, int], list[_Place]]:
    """Calls that are not answered yet, by node and attempt: requests hold objects that cannot be hashed."""
    found: dict[tuple[str, int], list[_Place]] = {}
    for message in messages:
        if not message.delivered:
            for place, call in enumerate(message.calls):
                found.setdefault((call.node, call.attempt), []).append((message, place))
    return found


def _find(flying: Mapping[tuple[str, int], Sequence[_Place]], call: Call) -> _Place | None:
    near = flying.get((call.node, call.attempt), ())
    return next(((message, place) for message, place in near if message.calls[place] == call), None)


def _is_enough(places: Sequence[_Place | None], enough: int) -> bool:
    waiting = good = 0
    for found in places:
        if found is None:
            continue
        message, place = found
        if not message.delivered or message.replies is None:
            waiting += 1
        elif not isinstance(message.replies[place], Failed):
            good += 1
    return not waiting or good >= enough


def _reply_at(found: _Place | None, call: Call) -> Reply:
    if found is None:
        return Failed(reason=f"there is no node {call.node!r}", definite=True)
    message, place = found
    if not message.delivered or message.replies is None:
        return LATE
    return message.replies[place]


def _build(specs: Sequence[NodeSpec], incarnation: int) -> dict[str, Node]:
    return {spec.name: spec.build(incarnation) for spec in specs}
