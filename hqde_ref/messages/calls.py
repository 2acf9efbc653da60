"""Calls, answers, and the protocols ``Node`` and ``Runtime``.

Source: HQDE section 6; ``docs/design.md`` has the laws of ``ask``.
Data only: nothing here computes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from hqde_ref.messages.vectors import Payload, message

__all__ = [
    "CRASHED",
    "LATE",
    "UNANSWERED",
    "UNKNOWN",
    "Answer",
    "Call",
    "Failed",
    "Node",
    "NodeSpec",
    "Reply",
    "Request",
    "Runtime",
    "Span",
]

Request: TypeAlias = Any  # one of the requests of this package; a Node answers those it supports
Reply: TypeAlias = Any


@message
class Failed:
    """A call without a reply.

    Attributes:
        definite: True when it is known that no reply will come; False when time ran out.
        lost: keys of payloads that the request named and that could not be had.
        refused: the node itself refused the request as it stands; another would too.
    """

    reason: str
    definite: bool
    lost: tuple[str, ...] = ()
    refused: bool = False


UNKNOWN = "unknown: this node has adopted no state yet"
LATE = Failed(reason="late", definite=False)  # the call is still out: an equal one joins it
CRASHED = Failed(reason="crashed", definite=True)
UNANSWERED = Failed(reason="unreachable", definite=False)  # the call or its answer was lost on the way


@message
class Call:
    """A request to a node. An equal call joins the one in flight; another attempt is another call.

    Attributes:
        until: when the request's payloads need no longer be waited for; None: when the ask ends that sends it.
    """

    node: str
    request: Request
    attempt: int = 0
    until: float | None = dataclasses.field(default=None, compare=False)


@message
class Answer:
    """What became of a call: a reply, or ``Failed``."""

    node: str
    reply: Reply


@message
class Span:
    """One request's time at a host, for whoever watches a runtime.

    Attributes:
        start, finish: seconds on the runtime's clock.
        outcome: name of the reply's type.
    """

    host: str
    node: str
    request: str
    start: float
    finish: float
    outcome: str


class Node(Protocol):
    """A handler: no clock, no randomness of its own, no calls outward."""

    def perform(self, request: Request, /) -> Reply: ...


class NodeSpec(Protocol):
    """A node as data, from which its host builds it afresh after every restart."""

    @property
    def name(self) -> str: ...

    def build(self, incarnation: int, /) -> Node: ...


class Runtime(Protocol):
    """Carries calls to nodes. See ``docs/design.md`` for the laws of ``ask``."""

    def now(self) -> float:
        """Seconds on this runtime's clock."""
        ...

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        """One answer a call, in the order of the calls; ends at ``enough`` replies or at time ``until``."""
        ...

    def fetch(self, payload: Payload) -> Tensor:
        """The vector itself, copied to the caller: for whoever owns the result, never for a story."""
        ...
