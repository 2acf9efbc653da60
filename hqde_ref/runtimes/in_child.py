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


class InChild:
    """A runtime whose hosts are guarded child processes; each serves an object with ``node(name, incarnation)``.

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
            late = (
                "no answer by the deadline"
                if time.monotonic() >= until
                else "not waited for: there were enough replies"
            )
            silent = Failed(reason=late, definite=False)
            return tuple(
                Answer(node=call.node, reply=ticket.reply() or silent)
                for call, ticket in zip(calls, tickets, strict=True)
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
                host.close()

    def __enter__(self) -> InChild:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _post(self, calls: Sequence[Call]) -> list[_Ticket]:
        """Where the reply to each call will be: in a message that is on its way already, or in a new one."""
        self._in_flight = [ticket for ticket in self._in_flight if ticket.posted.replies is None]
        new: dict[str, list[Call]] = {}
        for call in calls:
            own = new.setdefault(self._host_of(call.node), [])
            if not any(_is_same(call, ticket.call) for ticket in self._in_flight) and not any(
                _is_same(call, one) for one in own
            ):
                own.append(call)
        for name, own in new.items():
            if own:
                posted = self._hosts[name].post([(call.node, call.request) for call in own])
                self._in_flight += [_Ticket(call=call, posted=posted, place=place) for place, call in enumerate(own)]
        return [next(ticket for ticket in self._in_flight if _is_same(call, ticket.call)) for call in calls]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
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
