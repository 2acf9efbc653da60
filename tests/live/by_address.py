"""A cluster of two Ray nodes, and ``hqde-sim run --address`` with ``nodes: 2`` on it. Run as a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from hqde_ref.runtimes.on_ray import OnRay
from simulator.live import LiveWorld
from simulator.scenario_reading import parse_scenario
from tests.live.three_nodes import LEAN, QUICK_CHECKS

TEXT = """
apiVersion: hqde.sim/v1
metadata: {{name: two-nodes}}
system: {{workers: 4, hosts: 4, nodes: 2, faulty_max: 1, round_within: 20s}}
workload: {{rounds: 2, batch: 80, steps: 1}}
faults: [{fault}]
"""
LIE = "{action: byzantine, target: one, attack: {name: ipm}, during: {rounds: [1, 2]}}"


def _sim(address: str, fault: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "two.yaml"
        path.write_text(TEXT.format(fault=fault), encoding="utf-8")
        words = ["run", str(path), "--on", "ray", "--address", address]
        command = [sys.executable, "-m", "simulator", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def main() -> None:
    """A run holds; hosts are on both nodes; the cluster stays."""
    head = {**LEAN, "include_dashboard": False, "_system_config": QUICK_CHECKS}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(**LEAN)
        done = _sim(cluster.address, LIE)
        assert done.returncode == 0, done
        assert "in 2 rounds on w" in done.stdout, done
        world = LiveWorld(parse_scenario(TEXT.format(fault=LIE), file="two.yaml"), address=cluster.address)
        runtime = world.runtime
        assert isinstance(runtime, OnRay)
        placed = [runtime.node_of(host) for host in ("h0", "h1", "h2", "h3")]
        world.close()
        assert sorted(placed.count(node) for node in set(placed)) == [2, 2], placed
        ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        assert [node["Alive"] for node in ray.nodes()] == [True, True]
        ray.shutdown()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    assert not ray.is_initialized()
    main()
