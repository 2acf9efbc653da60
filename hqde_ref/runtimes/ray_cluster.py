"""Finding a Ray cluster: the caller's session, one whose address was given, or a private one.

Never joins a cluster it was not told of. One that does not answer is an error within a bounded time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import ray

from hqde_ref.errors import RuntimeFault

__all__ = ["alive_nodes", "connect"]

_ANSWER_S = 12.0  # how long a cluster may take to answer


def connect(address: str | None, gpus: int, store_bytes: int) -> bool:
    """Use the caller's session, join the cluster named, or start a private one. True if it is ours to end.

    Raises:
        RuntimeFault: the cluster does not answer, or Ray is in use already, perhaps with another cluster.
    """
    if ray.is_initialized():
        if address is not None:
            raise RuntimeFault(
                what=f"Ray cluster at {address}",
                problem="cannot be joined: this process is connected to Ray already",
                do="call ray.shutdown() first, or leave the address out to use that session",
            )
        return False
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is not None:
        _require_answer(address)
        ray.init(address=address, **options)
        return True
    ray.init(
        address="local",
        num_gpus=gpus,
        include_dashboard=False,
        object_store_memory=store_bytes,
        num_cpus=os.cpu_count(),
        **options,
    )
    return True


def _require_answer(address: str) -> None:
    """Make sure that there is a cluster: ``ray.init`` may hang, or end the whole process, where there is none.

    Raises:
        RuntimeFault: nobody listens there, or whoever does is no Ray cluster that answers.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit()) or "://" in address:
        raise _unanswered(address, "is no address of the form host:port")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        raise _unanswered(address, f"does not answer ({error})") from error
    # Only joining it shows that it is a cluster; a process of its own can be given up.
    trial = [sys.executable, "-c", "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)", address]
    try:
        done = subprocess.run(trial, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unanswered(address, f"does not answer as a Ray cluster within {_ANSWER_S:g} s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise _unanswered(address, f"does not answer as a Ray cluster ({lines[-1]})")


def _unanswered(address: str, problem: str) -> RuntimeFault:
    return RuntimeFault(
        what=f"Ray cluster at {address}", problem=problem, do="check that it runs, or leave the address out"
    )


def alive_nodes() -> list[str]:
    """Ids of the cluster's nodes that are alive, in an order of their own."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return sorted(node["NodeID"] for node in nodes if node["Alive"])
