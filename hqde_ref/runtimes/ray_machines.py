"""A private Ray of several nodes on this machine, one raylet each, of which some can be removed and replaced.

For fault tests. Nodes share a kernel and a clock: what is lost with one are its processes and objects. Only what was
started here is ever ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import psutil
import ray
from ray.cluster_utils import Cluster

from hqde_ref.errors import RuntimeFault
from hqde_ref.runtimes.ray_cluster import own_signals, whole_or_nothing

__all__ = ["Machines"]

_CONFIG: Final[Mapping[str, Any]] = {
    "worker_niceness": 0,  # as for a private Ray of one node
    # A node that is gone is known in a second instead of fifteen.
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 5,
    # From this many bytes on, objects lie on the node that made them, as large ones always do, and are lost with it.
    "max_direct_call_object_size": 1000,
}
_LEAN: Final[Mapping[str, Any]] = {"include_log_monitor": False}
_GONE_S: Final = 10.0  # how long processes of a removed node may take to end


class Machines:
    """Ray nodes, the first of them the head, and this process joined to it.

    Args:
        hosts: which hosts each node carries, by its name; the first is the head.
        store_bytes: of each node's object store.
        config: of Ray's own, beside what several nodes take.

    Raises:
        RuntimeFault: they cannot be started, or this process uses Ray already.
    """

    def __init__(
        self,
        hosts: Mapping[str, Sequence[str]],
        *,
        gpus: int = 0,
        store_bytes: int = 128 << 20,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if ray.is_initialized():
            problem = "cannot be started: this process is connected to Ray already"
            raise RuntimeFault(what="a private Ray", problem=problem, do="call ray.shutdown() first")
        self._node_of = {host: node for node, held in hosts.items() for host in held}
        self._args = {**_LEAN, "num_cpus": 1, "object_store_memory": store_bytes}
        self._ids: set[str] = set()
        head, *others = hosts
        system = {**(_CONFIG if others else {"worker_niceness": 0}), **(config or {})}
        options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
        with whole_or_nothing(), own_signals():
            try:
                self._cluster: Any = Cluster(
                    initialize_head=True,
                    head_node_args={
                        **self._args,
                        "num_gpus": gpus,
                        "include_dashboard": False,
                        "_system_config": system,
                    },
                )
                self._nodes: dict[str, Any] = {head: self._cluster.head_node}
                self._ids.add(str(self._nodes[head].node_id))
                for node in others:
                    self._add(node)
                ray.init(address=self._cluster.address, **options)
            except Exception as error:  # Ray raises all kinds where it cannot start
                problem = f"cannot be used ({type(error).__name__}: {' '.join(str(error).split())})"
                do = "look for what it lacks, such as memory or ports"
                raise RuntimeFault(what=f"a private Ray of {len(hosts)} nodes", problem=problem, do=do) from error

    def node_of(self, host: str) -> str | None:
        """Id of the Ray node that a host belongs on; None while that is removed."""
        node = self._nodes.get(self._node_of[host])
        return None if node is None else str(node.node_id)

    def is_here(self, node_id: str) -> bool:
        """Whether the processes of this Ray node are, or were, on this machine."""
        return node_id in self._ids

    def remove(self, node: str) -> bool:
        """Kill a node with everything that runs on it; False if it is not there.

        Raises:
            RuntimeFault: some process of it does not end.
        """
        found: Any = self._nodes.pop(node, None)
        if found is None:
            return False
        raylet = psutil.Process(found.all_processes["raylet"][0].process.pid)
        running = raylet.children(recursive=True)
        self._cluster.remove_node(found, allow_graceful=False)
        for process in running:  # they outlive their raylet for a moment, and would train
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _, left = psutil.wait_procs(running, timeout=_GONE_S)
        if left:
            problem = f"{len(left)} of its processes did not end within {_GONE_S:g} s"
            raise RuntimeFault(what=f"node {node}", problem=problem, do="run again on a machine with less to do")
        return True

    def replace(self, node: str) -> None:
        """A fresh node in place of one that was removed; hosts go there when they are started again."""
        assert node not in self._nodes, f"{node} is still there"
        with own_signals():
            self._add(node)

    def close(self) -> None:
        """Leave and end them all."""
        with own_signals():
            ray.shutdown()
            self._cluster.shutdown()

    def _add(self, node: str) -> None:
        self._nodes[node] = self._cluster.add_node(**self._args)
        self._ids.add(str(self._nodes[node].node_id))
