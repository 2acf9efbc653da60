"""Finding a Ray cluster: the caller's session, one whose address was given, or a private one.

Never joins a cluster it was not told of. One that does not answer is an error within a bounded time. Signals stay the
caller's: while Ray starts or ends they wait, since Ray puts handlers of its own there, which end the process at once or
with a dump of its stack, and drops some of what the caller's raise.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import ray

from hqde_ref.errors import RuntimeFault

__all__ = ["alive_nodes", "connect", "disconnect", "own_signals", "whole_or_nothing"]

_HOME = str(Path(ray.__file__).parent)  # stands in the command lines of Ray's own processes
_ANSWER_S = 12.0  # how long a cluster may take to answer
_LEAVE_S = 3.0  # how long what was begun of one may take to end by itself
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_set_handler = signal.signal


class _Starting(NamedTuple):
    """A call of Ray's within ``own_signals``: in which thread, and which signals that one had blocked before."""

    thread: int
    mask: set[int | signal.Signals]


_starting: list[_Starting] = []


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
    with whole_or_nothing(), own_signals():
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
    """Let an end from outside (SIGINT, SIGTERM, SIGHUP) wait through a call of Ray's, then reach the caller's handlers.

    What Ray starts in here is in a process group of its own: a Ctrl-C, or ``timeout``, tells the whole group of this
    process, and Ray's processes would end under it. Outside the main thread nothing is done: signals do not go there.
    How long an end may have to wait, Ray's own limits say.
    """
    mine = {number: signal.getsignal(number) for number in _ENDS}
    if threading.current_thread() is not threading.main_thread() or None in mine.values():
        yield
        return
    waiting: list[int] = []

    def collect() -> None:
        for number, handler in mine.items():
            if handler is not signal.SIG_IGN:
                _set_handler(number, lambda taken, frame: waiting.append(taken))

    mask, set_signal, depth = signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.signal, len(_starting)
    try:
        # Blocked, signals keep away from handlers that Ray sets below Python. Other threads still take some, and then
        # these handlers are run, here; Ray's own in Python would raise, and Ray drops what is raised in places.
        collect()
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        _starting.append(_Starting(thread=threading.get_ident(), mask=mask))
        signal.signal = _leave_ends
        yield
    finally:
        signal.signal = set_signal
        del _starting[depth:]
        collect()  # once more, in place of what Ray has set below Python
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # what was blocked comes now
        with ExitStack() as every:  # the first to be told may raise before the last is back
            for number, handler in mine.items():
                every.callback(_set_handler, number, handler)
        for came in dict.fromkeys(waiting):
            signal.raise_signal(came)


def _leave_ends(signalnum: int, handler: Any) -> Any:
    """In place of ``signal.signal``, which Ray replaces too while it starts: the handlers of these signals stay."""
    return signal.getsignal(signalnum) if signalnum in _ENDS else _set_handler(signalnum, handler)


def _leave_group() -> None:
    """In a process that Ray is starting: it does not take part in what this one waits through."""
    if not _starting or _starting[-1].thread != threading.get_ident():
        return  # what another thread starts meanwhile is nobody's business here
    os.setpgid(0, 0)
    for number in _ENDS:  # what came to the group before this: the handlers here are those of the other process
        _set_handler(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, _starting[-1].mask)
    for number in _ENDS:
        _set_handler(number, signal.SIG_DFL)


# Ray starts its processes with a function to run there, so this runs too.
os.register_at_fork(after_in_child=_leave_group)


@contextmanager
def whole_or_nothing() -> Iterator[None]:
    """End what Ray had started when its start is broken off: its agents outlive a raylet that ends before they run."""
    before = _processes_of_ray()
    try:
        yield
    except BaseException:
        with own_signals():
            begun = _processes_of_ray() - before
            with suppress(Exception):
                ray.shutdown()
            # A raylet that is killed under a driver that is joined aborts the driver.
            _, left = psutil.wait_procs(begun, timeout=_LEAVE_S)
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
