"""A private cluster of two Ray nodes with Ray's own health checks, which take seconds to notice that one is gone.

Run as a process of its own.
"""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from hqde_ref.errors import RuntimeFault
from hqde_ref.messages import Observed
from hqde_ref.runtimes.on_ray import OnRay
from tests.live.three_nodes import LEAN, process_of
from tests.probes import ProbeSpec, probe

HOSTS = {f"h{index}": (ProbeSpec(name=f"p{index}"),) for index in range(2)}


def main() -> None:
    """A lost node's host is named while Ray has not noticed, and started afresh elsewhere once it has."""
    cluster = Cluster(initialize_head=True, head_node_args={**LEAN, "include_dashboard": False})
    try:
        victim: Any = cluster.add_node(**LEAN)
        with OnRay(HOSTS, address=cluster.address, spread=True, start_within_s=120) as runtime:
            (lost,) = (host for host in HOSTS if runtime.node_of(host) == victim.node_id)
            running = process_of(runtime, lost)
            cluster.remove_node(victim, allow_graceful=False)
            running.wait(timeout=30)  # it outlives its node for a moment
            with pytest.raises(RuntimeFault, match=rf"^host\(s\) {lost}: neither answered nor known to be dead"):
                runtime.settle(within_s=0.5)
            began = runtime.now()
            runtime.settle(within_s=60)
            print(f"{lost} back after {runtime.now() - began:.1f} s", flush=True)
            assert runtime.node_of(lost) != victim.node_id
            answers = runtime.ask([probe(f"p{index}", 1) for index in range(2)], enough=2, until=runtime.now() + 10)
            assert all(isinstance(answer.reply, Observed) for answer in answers), answers
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    assert not ray.is_initialized()
    main()
