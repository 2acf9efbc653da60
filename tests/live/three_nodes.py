"""A private cluster of three Ray nodes, of which one is removed in the middle of a round. Run as a process of its own.

Nodes share a kernel and a clock here: this shows lost objects and lost hosts, not partitions.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from hqde_ref.runtimes.on_ray import OnRay
from tests.live.rounds import ALONE, CROWDED, SHARDED, TREE, check_whole_again, struck_round

QUICK_CHECKS = {  # a node that is gone is known in half a second instead of fifteen
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 5,
}
LEAN: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 128 << 20, "include_log_monitor": False}


def process_of(runtime: OnRay, host: str) -> psutil.Process:
    """That of a host on any node of this machine: ``pid_of`` knows those of the caller's node only."""
    process = runtime._hosts[host].process
    assert process is not None
    return psutil.Process(process.pid)


def main(way: str, stage: str) -> None:
    """Remove a node that carries members, check the round, and that the next one has everybody."""
    ensemble = dataclasses.replace(CROWDED if "crowded" in way else ALONE, apart=False)
    policy = dataclasses.replace(SHARDED if way in ("sharded", "crowded") else TREE, round_within_s=16.0)
    head = {**LEAN, "include_dashboard": False, "_system_config": QUICK_CHECKS}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        others = [cluster.add_node(**LEAN) for _ in range(2)]
        with OnRay(ensemble.nodes(), address=cluster.address, spread=True, start_within_s=120) as runtime:
            victim = others[0]
            gone = [host for host in runtime.hosts if runtime.node_of(host) == victim.node_id]
            assert gone, "every node carries a host"

            def remove() -> None:
                running = [process_of(runtime, host) for host in gone]
                cluster.remove_node(victim, allow_graceful=False)
                psutil.wait_procs(running, timeout=10)  # hosts outlive their node for a moment, and would train

            verdict, took = struck_round(
                runtime,
                ensemble,
                policy,
                stage=stage,
                strike=remove,
            )
            lost = [member for member in ensemble.members if ensemble.host_of(member) in gone]
            print(
                f"{way}, {stage}: {len(verdict.used)} used, missing {dict(verdict.missing)}, {took:.1f} s", flush=True
            )
            assert set(verdict.missing) <= set(lost), "only members of the removed node may be missing"
            if stage == "train":
                assert set(verdict.missing) == set(lost), "who was gone before training has contributed nothing"
            check_whole_again(runtime, ensemble, policy, verdict)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    assert not ray.is_initialized()
    main(*sys.argv[1:])
