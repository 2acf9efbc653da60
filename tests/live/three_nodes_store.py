"""The weight store on a private cluster of three Ray nodes, of which two are removed one after the other.

Run as a process of its own. Six stores, two a node: copies of a key lie on all three, so a node takes one of each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import ray
from ray.cluster_utils import Cluster

from hqde_ref.core.quorums import StorePlan
from hqde_ref.messages import Acknowledged, Call, Get, Joined, Look, Put, Value
from hqde_ref.rounds.rejoining import rejoin
from hqde_ref.rounds.storing import Writer, get, put
from hqde_ref.runtimes.on_ray import OnRay
from hqde_ref.runtimes.spreading import spread_stores
from tests.live.three_nodes import LEAN, QUICK_CHECKS
from tests.stores import Struck, content_of, payload_of

NAMES = tuple(f"s{index}" for index in range(6))
STAGES = {"look": Look, "put": Put, "get": Get}
WITHIN_S = 30.0
LARGE = 300_000  # bytes: Ray keeps such a value in its object store, a small one beside the answer


class Nodes:
    """The cluster, and the stores on it."""

    def __init__(self, cluster: Cluster, runtime: OnRay, plan: StorePlan) -> None:
        self.cluster = cluster
        self.runtime = runtime
        self.plan = plan
        self.newest: dict[str, str] = {}
        self._writer = Writer("w")

    def node_of(self, store: str) -> str:
        node = self.runtime.node_of(store)
        assert node is not None
        return node

    def write(self, key: str, text: str, world: Struck | None = None) -> None:
        runtime = self.runtime if world is None else world
        payload, code = payload_of(text, size=LARGE if key.endswith("0") else 64)
        outcome = put(runtime, self.plan, self._writer, key, payload, code, until=runtime.now() + WITHIN_S)
        assert isinstance(outcome, Acknowledged), outcome
        self.newest[key] = text

    def read(self, key: str, world: Struck | None = None) -> None:
        runtime = self.runtime if world is None else world
        found = get(runtime, self.plan, key, until=runtime.now() + WITHIN_S)
        assert isinstance(found, Value), found
        assert content_of(self.runtime.fetch(found.payload)) == self.newest[key]

    def removing(self, node: object, stage: str) -> Struck:
        """A runtime that removes the node before the first request of this kind goes out."""
        fired: list[int] = []

        def strike(number: int, calls: Sequence[Call]) -> None:
            if not fired and isinstance(calls[0].request, STAGES[stage]):
                fired.append(number)
                self.cluster.remove_node(node, allow_graceful=False)

        return Struck(self.runtime, strike)

    def check_apart(self) -> None:
        """No two copies of any key are on one node, as the nodes really are."""
        for key in (*self.newest, *(f"other {number}" for number in range(100))):
            assert len({self.node_of(store) for store in self.plan.stores_of(key)}) == self.plan.copies


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _await_death_of(node_id: str) -> None:
    """The reads do not wait until Ray has noticed that a node is gone, and may be over by then."""
    until = time.monotonic() + WITHIN_S
    while node_id in _alive():
        assert time.monotonic() < until, f"Ray still counts node {node_id}, which was removed, among the living"
        time.sleep(0.05)


def main(stage: str) -> None:
    """Remove a node while writing, replace it, remove another while reading: nothing acknowledged is lost."""
    head = {**LEAN, "include_dashboard": False, "_system_config": QUICK_CHECKS}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        first, second = (cluster.add_node(**LEAN) for _ in range(2))
        with spread_stores(NAMES, address=cluster.address) as (runtime, plan):
            nodes = Nodes(cluster, runtime, plan)
            nodes.check_apart()
            for number in range(40):
                nodes.write(f"k{number}", f"early {number}")
            began, world = runtime.now(), nodes.removing(first, stage)
            for number in range(20, 60):
                nodes.write(f"k{number}", f"late {number}", world)
            for key in nodes.newest:
                nodes.read(key)
            print(f"{stage}: 40 writes and {len(nodes.newest)} reads in {runtime.now() - began:.1f} s", flush=True)
            lost = [name for name in NAMES if nodes.node_of(name) == first.node_id]
            replacement = cluster.add_node(**LEAN)
            runtime.settle(within_s=60)
            assert [nodes.node_of(name) for name in lost] == [replacement.node_id] * 2
            nodes.check_apart()
            for name in lost:
                outcome = rejoin(runtime, nodes.plan, name, until=runtime.now() + WITHIN_S)
                assert isinstance(outcome, Joined), outcome
                assert not outcome.behind, outcome
            began, world = runtime.now(), nodes.removing(second, "get")
            for key in nodes.newest:
                nodes.read(key, world)
            print(f"another node removed: {len(nodes.newest)} reads in {runtime.now() - began:.1f} s", flush=True)
            _await_death_of(second.node_id)
            assert len({nodes.node_of(name) for name in NAMES} & _alive()) == 2
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    assert not ray.is_initialized()
    main(*sys.argv[1:])
