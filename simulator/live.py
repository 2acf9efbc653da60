"""The same scenario against real Ray: real processes, killed by SIGKILL, stopped by SIGSTOP, slowed by many stops.

Signals go to processes that this runtime started, by process id, and to nothing else.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from hqde_ref.errors import RuntimeFault
from hqde_ref.messages import Runtime, Span
from hqde_ref.runtimes.on_ray import OnRay
from simulator.scenario import Scenario
from simulator.worlds import place_nodes

__all__ = ["LiveWorld"]

_PERIOD_S = 0.04  # of stopping and going on again, for a slow host
_SETTLE_S = 60.0


class _WithoutRaylet(io.TextIOBase):
    """Standard output without the raylet's report of each process that a fault has killed: the run reports it."""

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._dropped = False

    def write(self, text: str) -> int:
        ends_dropped_line = self._dropped and text == "\n"
        self._dropped = "(raylet)" in text
        return len(text) if self._dropped or ends_dropped_line else self._target.write(text)

    def flush(self) -> None:
        self._target.flush()

    @property
    def closed(self) -> bool:
        return self._target.closed

    def isatty(self) -> bool:
        return self._target.isatty()

    def fileno(self) -> int:
        return self._target.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._target.encoding


class LiveWorld:
    """Real Ray. ``address`` is that of a running cluster; None starts a private one and ends it on ``close``."""

    name = "ray"

    def __init__(self, scenario: Scenario, *, address: str | None = None) -> None:
        self._brakes: dict[str, threading.Event] = {}
        self._quiet = contextlib.redirect_stdout(_WithoutRaylet(sys.stdout))
        self._quiet.__enter__()
        self._observe: Callable[[Span], None] | None = None
        self._runtime = OnRay(place_nodes(scenario), address=address, gpus=scenario.system.gpus, observe=self._show)

    @property
    def runtime(self) -> Runtime:
        return self._runtime

    def crash(self, host: str) -> None:
        self._signal(host, signal.SIGKILL)

    def pause(self, host: str) -> None:
        self._signal(host, signal.SIGSTOP)

    def resume(self, host: str) -> None:
        self._signal(host, signal.SIGCONT)

    def slow(self, host: str, factor: float) -> None:
        """Let the host run for 1/factor of the time."""
        if host in self._brakes:
            self._brakes.pop(host).set()
        if factor <= 1:
            return
        released = self._brakes[host] = threading.Event()
        threading.Thread(target=self._brake, args=(host, factor, released), daemon=True).start()

    def settle(self, *, down: tuple[str, ...] = ()) -> None:
        self._runtime.settle(within_s=_SETTLE_S, down=down)

    def watch(self, observe: Callable[[Span], None]) -> None:
        self._observe = observe

    def _show(self, span: Span) -> None:
        if self._observe is not None:
            self._observe(span)

    def close(self) -> None:
        for released in self._brakes.values():
            released.set()
        self._runtime.close()
        self._quiet.__exit__(None, None, None)

    def _brake(self, host: str, factor: float, released: threading.Event) -> None:
        while not released.is_set():
            with suppress(ProcessLookupError, RuntimeFault):
                self._signal(host, signal.SIGSTOP)
                time.sleep(_PERIOD_S * (1 - 1 / factor))
                self._signal(host, signal.SIGCONT)
            released.wait(_PERIOD_S / factor)

    def _signal(self, host: str, number: signal.Signals) -> None:
        pid = self._runtime.pid_of(host)
        if pid is None:
            raise RuntimeFault(what=f"host {host}", problem="has no process to signal", do="wait until it is ready")
        os.kill(pid, number)
