"""A runtime in virtual time, in this process, whose hosts can die, hang and be slow: for rounds with faults on demand.

Source: docs/design.md, the laws of ``ask``. A host is one server: messages are worked off in the order of arrival, and
a node's work is done at once but takes effect when its time is over. Nothing happens unless somebody asks; whoever
wants faults is called when a message reaches a host, and strikes through ``crash``, ``hang``, ``delay`` and ``lose``.

The caller never holds a vector: payloads come back as handles, which only hosts and ``fetch`` open.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

from hqde_ref import wire
from hqde_ref.messages import (
    CRASHED,
    LATE,
    Answer,
    Call,
    Failed,
    Node,
    NodeSpec,
    Payload,
    Reply,
    Request,
    payloads_of,
    replace_payloads,
)
from hqde_ref.runtimes.local import perform_guarded
from hqde_ref.runtimes.naming import hosts_of_nodes

__all__ = ["Frail"]

LATENCY_S = 0.001  # of a message, each way
FOREVER_S = 1e6  # what an infinite deadline means
LOST = Failed(reason="the answer was lost on the way", definite=False)


class _Handle:
    """A vector that lies with the hosts."""

    __slots__ = ("vector",)

    def __init__(self, vector: Tensor) -> None:
        self.vector = vector


@dataclasses.dataclass(slots=True, eq=False)
class _Message:
    """Calls of one ask to one host; its replies count once ``due`` is reached."""

    calls: tuple[Call, ...]
    replies: tuple[Reply, ...] = ()
    due: float = math.inf


@dataclasses.dataclass(slots=True)
class _Host:
    specs: tuple[NodeSpec, ...]
    nodes: dict[str, Node]
    incarnation: int = 0
    alive: bool = True
    hangs: bool = False
    delay_s: float = 0.0
    loses: bool = False
    free_at: float = 0.0
    queue: list[_Message] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class Traffic:
    """What went over the wires: bytes to and from the caller; the most vectors into and out of one request."""

    bytes: int = 0
    most_received: int = 0
    most_sent: int = 0


class Frail:
    """Nodes on hosts that can fail.

    Args:
        hosts: which nodes each host carries.
        seconds_of: how long a healthy host takes for a request.
        on_arrival: called with the host's name and each request that reaches it, before it is worked on.
        is_counted: whether vectors in and out of this request count in ``traffic``.
    """

    def __init__(
        self,
        hosts: Mapping[str, Sequence[NodeSpec]],
        *,
        seconds_of: Callable[[Request], float] = lambda request: LATENCY_S,
        on_arrival: Callable[[str, Request], None] = lambda host, request: None,
        is_counted: Callable[[Request], bool] = lambda request: True,
    ) -> None:
        self._hosts = {name: _Host(specs=tuple(specs), nodes=_build(specs, 0)) for name, specs in hosts.items()}
        self._host_of = hosts_of_nodes(hosts)
        self._seconds_of, self._on_arrival, self._is_counted = seconds_of, on_arrival, is_counted
        self._now = 0.0
        self._flying: list[_Message] = []
        self.traffic = Traffic()

    # ---------------------------------------------------------------------------------------------- Runtime

    def now(self) -> float:
        return self._now

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        end = max(min(until, self._now + FOREVER_S), self._now)
        self._flying = [message for message in self._flying if message.due > self._now]
        self._send(calls)
        messages = [self._find(call) for call in calls]
        moments = sorted({self._now, *(message.due for message in messages if message is not None)})
        over = (moment for moment in moments if moment <= end and _is_over(calls, messages, enough, moment))
        self._now = next(over, end)
        return tuple(
            Answer(node=call.node, reply=_reply_at(call, message, self._now))
            for call, message in zip(calls, messages, strict=True)
        )

    def fetch(self, payload: Payload) -> Tensor:
        vector: Tensor = payload.ref.vector.clone()
        return vector

    def lend(self, key: str, vector: Tensor) -> Payload:
        """A vector from outside, as a handle that hosts can open."""
        return Payload(key=key, ref=_Handle(vector), nbytes=vector.nbytes)

    # ---------------------------------------------------------------------------------------------- faults

    def is_up(self, host: str) -> bool:
        """Whether the host works, be it slowly."""
        return self._hosts[host].alive and not self._hosts[host].hangs

    def crash(self, host: str) -> None:
        """The host's process ends; what it has not answered is answered by a broken connection."""
        state = self._hosts[host]
        state.alive, state.hangs, state.delay_s, state.loses = False, False, 0.0, False
        lost = [*state.queue, *(m for m in self._flying if m.due > self._now and self._is_at(m, host))]
        for message in lost:
            self._break(message)
        state.queue.clear()

    def restart(self, host: str) -> None:
        """A fresh process with fresh nodes, where there was an end."""
        state = self._hosts[host]
        if not state.alive:
            state.incarnation += 1
            state.nodes = _build(state.specs, state.incarnation)
            state.alive, state.free_at = True, self._now

    def hang(self, host: str) -> None:
        """What reaches the host from now on waits."""
        self._hosts[host].hangs = True

    def resume(self, host: str) -> None:
        """The host works off what waited, and is as fast as ever."""
        state = self._hosts[host]
        state.hangs, state.delay_s, waiting = False, 0.0, list(state.queue)
        state.queue.clear()
        state.free_at = min(state.free_at, self._now + LATENCY_S)
        for message in self._flying:
            if self._is_at(message, host) and not math.isinf(message.due):
                message.due = min(message.due, self._now + 2 * LATENCY_S)
        for message in waiting:
            self._work_off(state, message)

    def delay(self, host: str, seconds: float) -> None:
        """The next message takes the host so much longer."""
        self._hosts[host].delay_s += seconds

    def lose(self, host: str) -> None:
        """The answers to the next message get lost on the way: it is worked off all the same."""
        self._hosts[host].loses = True

    # ---------------------------------------------------------------------------------------------- messages

    def _send(self, calls: Iterable[Call]) -> None:
        groups: dict[str, list[Call]] = {}
        for call in calls:
            host = self._host_of.get(call.node)
            if host is not None and self._find(call) is None and call not in groups.setdefault(host, []):
                groups[host].append(call)
        for host, group in groups.items():
            if group:
                self._flying.append(self._deliver(host, _Message(calls=tuple(group))))

    def _deliver(self, host: str, message: _Message) -> _Message:
        state = self._hosts[host]
        self.traffic.bytes += sum(_size(call.request) for call in message.calls)
        for call in message.calls:
            if self.is_up(host):
                self._on_arrival(host, call.request)
        if not state.alive:
            self._break(message)
        elif state.hangs:
            state.queue.append(message)
        else:
            self._work_off(state, message)
        return message

    def _break(self, message: _Message) -> None:
        message.replies, message.due = tuple(CRASHED for _ in message.calls), self._now + 2 * LATENCY_S

    def _work_off(self, state: _Host, message: _Message) -> None:
        message.replies = tuple(self._perform(state, call) for call in message.calls)
        if state.loses:
            message.replies, state.loses = tuple(LOST for _ in message.calls), False
        seconds = sum(self._seconds_of(call.request) for call in message.calls)
        state.free_at = max(state.free_at, self._now + LATENCY_S) + seconds + state.delay_s
        state.delay_s = 0.0
        message.due = state.free_at + LATENCY_S

    def _perform(self, state: _Host, call: Call) -> Reply:
        opened = replace_payloads(call.request, lambda p: dataclasses.replace(p, ref=p.ref.vector))
        reply = perform_guarded(state.nodes.get(call.node), dataclasses.replace(call, request=opened))
        closed = replace_payloads(reply, lambda p: dataclasses.replace(p, ref=_Handle(p.ref)))
        self.traffic.bytes += _size(closed)
        if self._is_counted(call.request):
            received, sent = (len({p.key for p in payloads_of(message)}) for message in (call.request, reply))
            self.traffic.most_received = max(self.traffic.most_received, received)
            self.traffic.most_sent = max(self.traffic.most_sent, sent)
        return closed

    def _is_at(self, message: _Message, host: str) -> bool:
        return self._host_of.get(message.calls[0].node) == host

    def _find(self, call: Call) -> _Message | None:
        return next((message for message in self._flying if call in message.calls), None)


def _size(message: object) -> int:
    """Bytes of a message as JSON; of a tensor in it, which should not be there, its own."""
    tensors: dict[str, Tensor] = {}
    line = wire.dumps(replace_payloads(message, lambda p: dataclasses.replace(p, ref=None)), tensors)
    return len(line.encode()) + sum(tensor.nbytes for tensor in tensors.values())


def _is_over(calls: Sequence[Call], messages: Sequence[_Message | None], enough: int, moment: float) -> bool:
    settled = all(message is None or message.due <= moment for message in messages)
    replies = (_reply_at(call, message, moment) for call, message in zip(calls, messages, strict=True))
    return settled or sum(not isinstance(reply, Failed) for reply in replies) >= enough


def _reply_at(call: Call, message: _Message | None, moment: float) -> Reply:
    if message is None:
        return Failed(reason=f"there is no node {call.node!r}", definite=True)
    return message.replies[message.calls.index(call)] if message.due <= moment else LATE


def _build(specs: Iterable[NodeSpec], incarnation: int) -> dict[str, Node]:
    return {spec.name: spec.build(incarnation) for spec in specs}
