"""A runtime whose hosts are guarded child processes, and the way to foreign implementations.

Source: the laws of ``ask`` in docs/design.md; HQDE clauses 0.7, 0.12 and 1.2.
The protocol between parent and child is written down at the head of ``protocol.py``. No threads: answers are read while
somebody asks.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from torch import Tensor

from hqde_ref.errors import RuntimeFault
from hqde_ref.messages import Answer, Call, Failed, Payload, Reply
from hqde_ref.runtimes.child import Limits
from hqde_ref.runtimes.child_host import Command, Host, Posted, python_command, wait_until
from hqde_ref.runtimes.foreign import ForeignImplementation, ForeignNode

__all__ = ["Command", "ForeignImplementation", "ForeignNode", "InChild", "Limits", "python_command"]


LATE = Failed(reason="late", definite=False)


class InChild:
    """A runtime whose hosts are guarded child processes.

    Args:
        hosts: the command of each host. What it serves is asked for ``node(name, incarnation)`` if it has that, which
            may be None, else for ``start()``.
        host_of: the host of a node; an unknown host or a ``LookupError`` says that there is no such node.
        limits: of each host; a message may take ``call_within_s`` for each of its calls.
    Raises:
        RuntimeFault: naming the hosts that did not start within their limit (clause 1.2).
    """

    def __init__(
        self, hosts: Mapping[str, Command], host_of: Callable[[str], str], *, limits: Limits | None = None
    ) -> None:
        self._host_of = host_of
        self._lock = threading.RLock()
        self._in_flight: list[_Ticket] = []
        self._hosts = {name: Host(command, limits or Limits()) for name, command in hosts.items()}
        everyone = tuple(self._hosts.values())
        try:
            for host in everyone:
                host.start()
            wait_until(everyone, math.inf, lambda: all(host.hello or host.trouble for host in everyone))
            if lost := [f"{name} ({host.trouble})" for name, host in self._hosts.items() if host.hello is None]:
                raise RuntimeFault(what="child hosts", problem=f"{', '.join(lost)} did not start", do="run one by hand")
        except BaseException:
            self.close()
            raise

    def now(self) -> float:
        """Seconds on the monotonic clock of this machine."""
        return time.monotonic()

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        """One answer a call, in the order of the calls; one message a host; equal calls in flight are joined."""
        with self._lock:
            tickets = self._post(calls)

            def done() -> bool:
                replies = [ticket.reply() for ticket in tickets]
                good = sum(reply is not None and not isinstance(reply, Failed) for reply in replies)
                return good >= enough or None not in replies

            wait_until(tuple(self._hosts.values()), until, done)
            replies = [ticket.reply() for ticket in tickets]
            self._in_flight = [one for one in self._in_flight if one.reply() is None or one not in tickets]
            return tuple(
                Answer(node=call.node, reply=reply or LATE) for call, reply in zip(calls, replies, strict=True)
            )

    def fetch(self, payload: Payload) -> Tensor:
        """The vector itself, copied."""
        vector: Tensor = payload.ref
        return vector.clone()

    def processes(self) -> Mapping[str, int]:
        """The process of each host that runs now."""
        return {name: child.program() for name, host in self._hosts.items() for child in host.running}

    def close(self) -> None:
        """End every host and everything that it started."""
        with self._lock:
            for host in self._hosts.values():
                host.ask_to_stop()
            for host in self._hosts.values():
                host.close()

    def __enter__(self) -> InChild:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _post(self, calls: Sequence[Call]) -> list[_Ticket]:
        """Where the reply to each call will be: in a message that is on its way already, or in a new one.

        Late replies that came in meanwhile are forgotten, unless a call asks for one again.
        """
        tickets = [
            one for one in self._in_flight if one.reply() is None or any(_is_same(call, one.call) for call in calls)
        ]
        new: dict[Host, list[Call]] = {}
        for call in calls:
            if any(_is_same(call, ticket.call) for ticket in tickets):
                continue
            host = self._host(call.node)
            if host is None:
                nowhere = Failed(reason=f"there is no node {call.node!r}", definite=True)
                tickets.append(_Ticket(call=call, posted=Posted(id=0, calls=(), replies=(nowhere,)), place=0))
            elif not any(_is_same(call, one) for one in new.setdefault(host, [])):
                new[host].append(call)
        for host, own in new.items():
            posted = host.post([(call.node, call.request) for call in own])
            tickets += [_Ticket(call=call, posted=posted, place=place) for place, call in enumerate(own)]
        self._in_flight = tickets
        return [next(ticket for ticket in tickets if _is_same(call, ticket.call)) for call in calls]

    def _host(self, node: str) -> Host | None:
        try:
            return self._hosts.get(self._host_of(node))
        except LookupError:
            return None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ticket:
    """Where the reply to a call in flight will be."""

    call: Call
    posted: Posted
    place: int

    def reply(self) -> Reply | None:
        return None if self.posted.replies is None else self.posted.replies[self.place]


def _is_same(one: Call, other: Call) -> bool:
    """Equal calls; tensors inside a request (foreign requests have them) are the same only as one object."""
    if one is other:
        return True
    try:
        return one == other
    except RuntimeError:  # torch: the truth value of a tensor with several values
        return False
