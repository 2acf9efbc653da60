"""The guard: a small program between a process and a foreign one, which ends everything that the foreign one started.

Source: HQDE clauses 0.7 and 0.12; docs/design.md, "Foreign implementations".
Run as a file, so that it imports nothing of ours: ``python guard.py LEASH REPORT MEMORY_MIB COMMAND...``, with

- LEASH: a file descriptor that this end reads; when it closes, or when the parent process is gone, everything is ended;
- REPORT: one JSON object is written here when nothing is alive any more (``exit``, or ``ended`` and what was measured);
- MEMORY_MIB: what all processes together may hold.

On Linux the guard is the "subreaper" of all that its command starts: a process whose parent died (Ray's daemons, in
process groups of their own) becomes the guard's own child and is found. Elsewhere it remembers every process it has
seen. Processes are ended by psutil, which checks the creation time, so that a reused pid is never hit. Standard input
and output belong to the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

SHORTEST_PAUSE_S = 0.05
END_WITHIN_S = 10.0
FOLDER = "HQDE_CHILD_FOLDER"  # as in protocol.py
MIB = 1 << 20

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


class Watched:
    """Every process that descends from this one, remembered as long as it lives."""

    def __init__(self) -> None:
        self._me = psutil.Process()
        self._known: set[psutil.Process] = set()

    def alive(self) -> list[psutil.Process]:
        """The descendants that are running now, orphans included."""
        self._known.update(self._me.children(recursive=True))
        self._known = {process for process in self._known if _is_alive(process)}
        return list(self._known)

    def end(self) -> int:
        """Kill and collect them all, again and again while new ones come up; return how many would not die."""
        until = time.monotonic() + END_WITHIN_S
        while time.monotonic() < until:
            for process in self.alive():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            _reap(0)
            if not self._known and not self._me.children():
                return 0
            time.sleep(0.01)
        return len(self.alive())


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _held(processes: list[psutil.Process], limit: int) -> int:
    """Bytes that these processes hold together.

    Resident sizes count shared pages once a process, so their sum is an upper bound, and cheap; only when it is over
    the limit are shared pages divided among their users.
    """
    resident = sum(_measure(processes, "rss"))
    return resident if resident <= limit else sum(_measure(processes, "shared"))


def _measure(processes: list[psutil.Process], what: str) -> Iterator[int]:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if what == "rss":
                yield process.memory_info().rss
            else:
                full = process.memory_full_info()
                yield getattr(full, "pss", full.uss)


def _reap(command: int) -> int | None:
    """Collect whoever has ended; the exit code of the command if it was among them (negative: minus the signal)."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == command:
                code = os.waitstatus_to_exitcode(status)
    return code


def _start(command: list[str]) -> int:
    """Start the command on this process's standard input and output, and let go of them."""
    process = subprocess.Popen(command, preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    process.returncode = 0  # it is reaped by _reap, not by subprocess
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return process.pid


def _ends_of(command: int) -> list[int]:
    """A file descriptor that becomes readable when the command ends, where there is such a thing: nobody waits then."""
    try:
        return [os.pidfd_open(command)]
    except (AttributeError, OSError):
        return []


def watch(command: int, leash: int, memory: int, watched: Watched) -> dict[str, object]:
    """Wait until there is a reason to end; say which."""
    parent = os.getppid()
    pause = SHORTEST_PAUSE_S
    wakers = [leash, *_ends_of(command)]
    while True:
        readable, _, _ = select.select(wakers, [], [], pause)
        if leash in readable or os.getppid() != parent:
            return {"ended": "leash"}
        code = _reap(command)
        if code is not None:
            return {"exit": code}
        began = time.monotonic()
        processes = watched.alive()
        held = _held(processes, memory)
        if held > memory:
            return {"ended": "memory", "held_mib": held // MIB, "processes": len(processes)}
        pause = max(SHORTEST_PAUSE_S, 20 * (time.monotonic() - began))  # watching takes a twentieth of a core at most


def main(arguments: list[str]) -> int:
    """Start, watch, end, report."""
    leash, report, memory_mib = int(arguments[0]), int(arguments[1]), int(arguments[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    parent = os.getppid()
    watched = Watched()
    outcome: dict[str, object] = {"ended": "guard"}
    try:
        outcome = watch(_start(arguments[3:]), leash, memory_mib * MIB, watched)
    except OSError as error:
        outcome = {"ended": "start", "text": f"{error.strerror or error}: {arguments[3]}"}
    finally:
        outcome["survivors"] = watched.end()
        with contextlib.suppress(OSError):
            os.write(report, json.dumps(outcome).encode())
        if os.getppid() != parent and FOLDER in os.environ:  # nobody else is left to remove it
            shutil.rmtree(os.environ[FOLDER], ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
