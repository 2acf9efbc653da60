"""Finding a Ray cluster: the caller's session, one whose address was given, or a private one.

Never joins a cluster it was not told of. One that does not answer is an error within a bounded time. The handler of
SIGTERM stays the caller's: Ray puts its own there, which ends the process at once or with a dump of its stack.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray

from hqde_ref.errors import RuntimeFault

__all__ = ["alive_nodes", "connect", "disconnect", "own_signals", "whole_or_nothing"]

_HOME = str(Path(ray.__file__).parent)  # stands in the command lines of Ray's own processes
_ANSWER_S = 12.0  # how long a cluster may take to answer
_LEAVE_S = 3.0  # how long what was begun of one may take to end by itself


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
        options["address"] = address
    else:
        options |= {
            "address": "local",
            "num_gpus": gpus,
            "include_dashboard": False,
            "object_store_memory": store_bytes,
            "num_cpus": os.cpu_count(),
            # Ray makes its workers the last in the queue; beside other programs hosts would miss their deadlines.
            "_system_config": {"worker_niceness": 0},
        }
    with own_signals(), whole_or_nothing():
        try:
            ray.init(**options)
        except Exception as error:  # Ray raises all kinds where it cannot start
            what = "a private Ray" if address is None else f"Ray cluster at {address}"
            problem = f"cannot be used ({type(error).__name__}: {' '.join(str(error).split())})"
            do = "look for what it lacks, such as memory or ports"
            raise RuntimeFault(what=what, problem=problem, do=do) from error
    return True


def disconnect() -> None:
    """Leave the cluster, and end it if it was started here."""
    with own_signals():
        ray.shutdown()


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep the caller's handler of SIGTERM through a call of Ray's, which replaces it, in Python and below.

    While Ray starts, its own handler is there: the signal that made it leave is sent once more, to the caller's.
    """
    mine = signal.getsignal(signal.SIGTERM)
    keeps = threading.current_thread() is threading.main_thread() and mine is not None
    stopped: SystemExit | None = None
    try:
        yield
    except SystemExit as stop:
        if not keeps or stop.code != signal.SIGTERM:
            raise
        stopped = stop
    finally:
        if keeps:
            signal.signal(signal.SIGTERM, mine)
    if stopped is not None:
        signal.raise_signal(signal.SIGTERM)
        raise stopped


@contextmanager
def whole_or_nothing() -> Iterator[None]:
    """End what Ray had started when its start is broken off: its agents outlive a raylet that ends before they run."""
    before = _processes_of_ray()
    try:
        yield
    except BaseException:
        begun = _processes_of_ray() - before
        with suppress(Exception):
            ray.shutdown()
        _, left = psutil.wait_procs(begun, timeout=_LEAVE_S)  # a raylet killed under a driver that is joined aborts it
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        raise


def _processes_of_ray() -> set[psutil.Process]:
    """Those that descend from this process and run Ray: nobody else's, and no other program's."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            words = " ".join(process.cmdline())
            if words.startswith("ray::") or _HOME in words:
                found.add(process)
    return found


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
