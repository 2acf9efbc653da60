"""The simplest runtime: direct calls in this process, in order. Nothing fails but a node's own refusal.

It is also the executable form of the laws of ``ask``: other runtimes must agree with it where nothing goes wrong.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from torch import Tensor

from hqde_ref.errors import HqdeError
from hqde_ref.messages import LATE, Answer, Call, Failed, Node, NodeSpec, Payload, Reply
from hqde_ref.runtimes.naming import hosts_of_nodes

__all__ = ["Local", "perform_guarded"]


def perform_guarded(node: Node | None, call: Call) -> Reply:
    """A node's reply; its own refusals become ``Failed``, its bugs stay exceptions."""
    if node is None:
        return Failed(reason=f"there is no node {call.node!r}", definite=True)
    try:
        return node.perform(call.request)
    except HqdeError as error:
        return Failed(reason=f"{type(error).__name__}: {error}", definite=True, refused=True)


class Local:
    """Nodes in this process. ``hosts`` maps a host to the nodes it carries; here it only groups them."""

    def __init__(self, hosts: dict[str, tuple[NodeSpec, ...]] | Iterable[NodeSpec]) -> None:
        groups = hosts if isinstance(hosts, dict) else {"this process": tuple(hosts)}
        hosts_of_nodes(groups)  # refuses a name that is given twice
        specs = [spec for group in groups.values() for spec in group]
        self._nodes: dict[str, Node] = {spec.name: spec.build(0) for spec in specs}

    def now(self) -> float:
        return time.monotonic()

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        answers: list[Answer] = []
        replies = 0
        for call in calls:
            if replies >= enough or self.now() >= until:
                reply: Reply = LATE
            else:
                reply = perform_guarded(self._nodes.get(call.node), call)
            replies += not isinstance(reply, Failed)
            answers.append(Answer(node=call.node, reply=reply))
        return tuple(answers)

    def fetch(self, payload: Payload) -> Tensor:
        vector: Tensor = payload.ref.clone()
        return vector
