"""An implementation under watch: it answers requests as before, and what was asked is remembered.

Source: docs/design.md, "The two commands". A property speaks to its implementation through this only, so a crash, a
hang and a refusal mean the same everywhere, and the requests of a failing example can be shown and written down.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hqde_ref.messages import Failed, Implementation, Node, Reply, Request, message

__all__ = ["AdapterFault", "Asked", "CannotTell", "Enough", "Fell", "Subject"]

FALL_BUDGET_S = 15.0  # what calls that end in a crash or a limit may take of one property, all together
_WIRE = "WireError"
_ADAPTER = "AdapterError"


class CannotTell(BaseException):
    """The reply lacks what the clause is about. No ``Exception``: Hypothesis must not search for more of these."""


class Enough(BaseException):
    """No time for more examples of this property."""


class AdapterFault(Exception):
    """The adapter between the harness and the implementation failed, not the implementation."""


class Fell(AssertionError):
    """The implementation fell over, or was ended by its guard, where it owed an answer."""


@message
class Asked:
    """A request of the current example, and its reply; None while there is none."""

    request: Request
    reply: Reply | None


class Subject:
    """Wraps an implementation; starts nodes and remembers what the current example asked of them.

    Attributes:
        in_process: it runs in this process, so traces that it leaves here can be seen.
        asked: requests and replies of the current example, in order.
        until: on ``time.monotonic()``; an example that begins later ends the property.
    """

    def __init__(self, implementation: Implementation, *, in_process: bool = True) -> None:
        self._implementation = implementation
        self.in_process = in_process
        self.name, self.version = implementation.name, implementation.version
        self.supports: frozenset[type] = implementation.supports
        pairs: frozenset[tuple[str, str]] | None = getattr(implementation, "rules", None)
        self.rules = pairs
        self.asked: list[Asked] = []
        self.until = float("inf")
        self._fallen_s = 0.0

    def start(self) -> WatchedNode:
        """A node in a fresh state."""
        return WatchedNode(self._implementation.start(), self._perform)

    def begin_property(self, *, within_s: float) -> None:
        """Give the next property its time."""
        self.until, self._fallen_s, self.asked = time.monotonic() + within_s, 0.0, []

    def begin_example(self) -> None:
        """Forget the last example.

        Raises:
            Enough: when the property's time is over.
        """
        if time.monotonic() > self.until:
            raise Enough("time was up")
        self.asked = []

    def _perform(self, node: Node, request: Request) -> Reply:
        self.asked.append(Asked(request=request, reply=None))
        began = time.monotonic()
        try:
            reply = node.perform(request)
        except Exception as error:
            reply = Failed(reason=f"{type(error).__name__}: {' '.join(str(error).split())}", definite=True)
        self.asked[-1] = Asked(request=request, reply=reply)
        if isinstance(reply, Failed):
            self._note_fall(reply, time.monotonic() - began)
        return reply

    def _note_fall(self, reply: Failed, seconds: float) -> None:
        if reply.reason.startswith(_ADAPTER):
            raise AdapterFault(reply.reason)
        self._fallen_s += seconds
        if self._fallen_s > FALL_BUDGET_S:
            # Smaller examples would take as long again, each.
            raise Enough(reply.reason)


def was_stopped_by_wire(reply: Reply) -> bool:
    """The request's very types were refused on the way to another process; the implementation never saw it."""
    return isinstance(reply, Failed) and reply.reason.startswith(_WIRE)


class WatchedNode:
    """A node of a subject."""

    def __init__(self, node: Node, perform: Callable[[Node, Request], Reply]) -> None:
        self._node, self._perform = node, perform

    def perform(self, request: Request, /) -> Reply:
        """The node's reply; ``Failed`` where it raised."""
        return self._perform(self._node, request)
