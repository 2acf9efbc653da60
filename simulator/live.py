"""The same scenario against real Ray: real processes, killed by SIGKILL, stopped by SIGSTOP, slowed by many stops.

Signals go to processes that this runtime started on this machine, and to nothing else.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from hqde_ref.errors import RuntimeFault
from hqde_ref.messages import Payload, Runtime, Span
from hqde_ref.runtimes.on_ray import OnRay
from hqde_ref.runtimes.ray_machines import Machines
from simulator.scenario import Scenario
from simulator.worlds import place_hosts, place_nodes

__all__ = ["LiveWorld"]

_PERIOD_S = 0.04  # of stopping and going on again, for a slow host
_START_S = 120.0
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


def _start_machines(scenario: Scenario) -> Machines:
    """The private Ray of a scenario that has several nodes or loses messages."""
    config = {}
    if scenario.network.loses:
        failures = {
            "num_failures": -1,  # without end
            "req_failure_prob": round(100 * scenario.network.lost_requests),
            # Ray draws once a message; in virtual time an answer can be lost only where the request was not.
            "resp_failure_prob": round(100 * scenario.network.lost_responses * (1.0 - scenario.network.lost_requests)),
            "in_flight_failure_prob": 0,
        }
        config["testing_rpc_failure"] = json.dumps({"CoreWorkerService.grpc_client.PushTask": failures})
    return Machines(place_hosts(scenario), gpus=scenario.system.gpus, config=config)


class LiveWorld:
    """Real Ray.

    Args:
        address: of a running cluster; None starts a private one and ends it on ``close``.
        say: told in words what is waited for, where that may take long.
    """

    name = "ray"

    def __init__(
        self, scenario: Scenario, *, address: str | None = None, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self._say = say
        self._crashed: list[str] = []
        self._brakes: dict[str, tuple[threading.Event, threading.Thread]] = {}
        self._observe: Callable[[Span], None] | None = None
        self._machines: Machines | None = None
        self._removed: list[str] = []
        self._scenario = scenario
        with contextlib.ExitStack() as quiet:
            quiet.enter_context(contextlib.redirect_stdout(_WithoutRaylet(sys.stdout)))
            nodes = place_nodes(scenario)
            cluster = "starting Ray" if address is None else f"joining Ray at {address}"
            say(f"ray: {cluster}, then waiting until {len(nodes)} hosts are ready, {_START_S:g} s at most")
            if address is None and (scenario.system.nodes > 1 or scenario.network.loses):
                self._machines = _start_machines(scenario)
                quiet.callback(self._machines.close)
            self._runtime = OnRay(
                nodes,
                address=address,
                gpus=scenario.system.gpus,
                start_within_s=_START_S,
                spread=scenario.system.nodes > 1,
                machines=self._machines,
                observe=self._show,
            )
            say("ray: all hosts are ready")
            self._quiet = quiet.pop_all()  # until it is closed; where Ray fails, output is as it was at once

    @property
    def runtime(self) -> Runtime:
        return self._runtime

    def crash(self, host: str) -> bool:
        self._release(host)
        self._crashed.append(host)
        return self._runtime.send(host, signal.SIGKILL)

    def remove(self, node: str) -> bool:
        assert self._machines is not None, "a cluster that was not started here is never touched"
        for host in self._scenario.hosts_on(node):
            self._release(host)
            self._crashed.append(host)
        if not self._machines.remove(node):
            return False
        self._removed.append(node)
        return True

    def pause(self, host: str) -> bool:
        self._release(host)  # its brake would let it go on
        return self._runtime.send(host, signal.SIGSTOP)

    def resume(self, host: str) -> bool:
        return self._runtime.send(host, signal.SIGCONT)

    def slow(self, host: str, factor: float) -> bool:
        """Let the host run for 1/factor of the time."""
        self._release(host)
        if not self._runtime.send(host, 0):  # only asks whether it is there
            return False
        if factor > 1:
            released = threading.Event()
            thread = threading.Thread(target=self._brake, args=(host, factor, released), daemon=True)
            self._brakes[host] = (released, thread)
            thread.start()
        return True

    def prepare_loss(self) -> None:
        self._runtime.prepare_loss()

    def lose(self, payload: Payload) -> Payload:
        return self._runtime.lose(payload)

    def take_unanswered(self) -> set[str]:
        return self._runtime.take_unanswered()

    def settle(self, *, down: tuple[str, ...] = ()) -> None:
        if back := [host for host in self._crashed if host not in down]:
            self._say(f"ray: waiting until {', '.join(back)} is back, {_SETTLE_S:g} s at most")
        for node in self._removed:
            hosts = self._scenario.hosts_on(node)
            if self._machines is not None and not set(hosts) <= set(down):
                self._machines.replace(node)
                self._removed = [other for other in self._removed if other != node]
        self._runtime.settle(within_s=_SETTLE_S, down=down)
        self._crashed = [host for host in self._crashed if host in down]

    def watch(self, observe: Callable[[Span], None]) -> None:
        self._observe = observe

    def _show(self, span: Span) -> None:
        if self._observe is not None:
            self._observe(span)

    def close(self) -> None:
        with self._quiet:
            for host in tuple(self._brakes):
                self._release(host)
            self._runtime.close()

    def _release(self, host: str) -> None:
        """Take the brake off, and wait until its thread can send no more signals."""
        if host in self._brakes:
            released, thread = self._brakes.pop(host)
            released.set()
            thread.join()

    def _brake(self, host: str, factor: float, released: threading.Event) -> None:
        while not released.is_set():
            with suppress(RuntimeFault):  # it is just being started afresh
                self._runtime.send(host, signal.SIGSTOP)
                time.sleep(_PERIOD_S * (1 - 1 / factor))
                self._runtime.send(host, signal.SIGCONT)
            released.wait(_PERIOD_S / factor)
