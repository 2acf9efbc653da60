"""The two worlds a scenario runs in, behind one face: a runtime, and the faults it can be given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

from hqde_ref.messages import NodeSpec, Payload, Runtime, Span
from hqde_ref.nodes.aggregator import AggregatorSpec
from hqde_ref.nodes.crowd import CrowdSpec
from hqde_ref.nodes.evaluator import EvaluatorSpec
from hqde_ref.nodes.worker import WorkerSpec
from hqde_ref.rounds.plans import Crowding, Seat
from simulator.fragile import FragileSpec
from simulator.harness import AttackerSpec, ObserverSpec
from simulator.poisoned import PoisonableSpec
from simulator.runtime import GONE, SECOND, Network, Simulated
from simulator.scenario import Scenario

__all__ = [
    "HARNESS",
    "SimulatedWorld",
    "World",
    "member_host",
    "place_crowds",
    "place_hosts",
    "place_nodes",
    "place_seats",
]

HARNESS = "harness"  # the host of the harness's own nodes; no fault ever hits it


class World(Protocol):
    """Where a scenario runs. Faults say whether they hit something: a dead host cannot be hit."""

    name: str

    @property
    def runtime(self) -> Runtime: ...

    def crash(self, host: str) -> bool: ...

    def remove(self, node: str) -> bool:
        """A machine is lost with its hosts and the objects on it."""
        ...

    def pause(self, host: str) -> bool: ...

    def resume(self, host: str) -> bool: ...

    def slow(self, host: str, factor: float) -> bool: ...

    def prepare_loss(self) -> None:
        """Do before a round what losing payloads takes, if it takes long."""
        ...

    def lose(self, payload: Payload) -> Payload:
        """The same payload with its bytes gone, as whoever asks for them will find."""
        ...

    def take_unanswered(self) -> set[str]:
        """Hosts to or from which a message was seen to be lost since this was last asked."""
        ...

    def settle(self, *, down: tuple[str, ...] = ()) -> None:
        """Restart hosts that died, except those meant to stay down, and wait until they are ready."""
        ...

    def watch(self, observe: Callable[[Span], None]) -> None:
        """Show every request's time at its host from now on."""
        ...

    def close(self) -> None: ...


def member_host(index: int, scenario: Scenario) -> str:
    """Members are dealt to hosts in contiguous runs of nearly equal length."""
    return f"h{index * scenario.system.hosts // scenario.system.workers}"


def place_nodes(scenario: Scenario) -> Mapping[str, tuple[NodeSpec, ...]]:
    """Workers and one aggregator on each host, or apart; a store on each of its hosts; the harness's own on its own."""
    workload = f"{scenario.workload.dataset}-{scenario.workload.model}"
    hosts: dict[str, list[NodeSpec]] = {host: [] for host in scenario.hosts}
    for host in scenario.aggregator_hosts:
        hosts[host].append(AggregatorSpec(name=f"a{host[1:]}"))
    for host in scenario.store_hosts:
        hosts[host].append(FragileSpec(name=host))
    poisonable = scenario.poisonable
    for host, members in _members_by_host(scenario).items():
        workers: list[NodeSpec] = [
            (PoisonableSpec if member in poisonable else WorkerSpec)(name=member, workload=workload)
            for member in members
        ]
        hosts[host] += [CrowdSpec(name=f"c{host[1:]}", members=tuple(workers))] if scenario.system.crowds else workers
    hosts[HARNESS] = [
        AttackerSpec(name="attacker"),
        ObserverSpec(name="observer"),
        EvaluatorSpec(name="evaluator", workload=workload),
    ]
    return {host: tuple(specs) for host, specs in hosts.items()}


def place_hosts(scenario: Scenario) -> dict[str, tuple[str, ...]]:
    """The hosts of every machine, the harness's own on the first."""
    placed = {node: scenario.hosts_on(node) for node in scenario.nodes}
    return {**placed, "n0": (*placed["n0"], HARNESS)}


def place_seats(scenario: Scenario) -> tuple[Seat, ...]:
    """The aggregators with the members on their hosts."""
    by_host = _members_by_host(scenario)
    return tuple(
        Seat(aggregator=f"a{host[1:]}", beside=() if scenario.system.apart else by_host[host])
        for host in scenario.aggregator_hosts
    )


def place_crowds(scenario: Scenario) -> tuple[Crowding, ...]:
    """Every host's crowd; none where members are nodes of their own."""
    if not scenario.system.crowds:
        return ()
    by_host = _members_by_host(scenario)
    return tuple(Crowding(node=f"c{host[1:]}", members=members) for host, members in by_host.items())


def _members_by_host(scenario: Scenario) -> dict[str, tuple[str, ...]]:
    by_host: dict[str, tuple[str, ...]] = dict.fromkeys(scenario.worker_hosts, ())
    for index, member in enumerate(scenario.members):
        by_host[member_host(index, scenario)] += (member,)
    return by_host


class SimulatedWorld:
    """Virtual time."""

    name = "sim"

    def __init__(self, scenario: Scenario) -> None:
        network = Network(
            latency=round(scenario.network.latency * SECOND),
            jitter=round(scenario.network.jitter * SECOND),
            loss=scenario.network.loss,
            lost_requests=scenario.network.lost_requests,
            lost_responses=scenario.network.lost_responses,
        )
        self._machines = place_hosts(scenario)
        self._runtime = Simulated(
            place_nodes(scenario),
            seed=scenario.seed,
            network=network,
            observe=self._show,
            spared=(HARNESS,),
            machines=self._machines,
        )
        self._observe: Callable[[Span], None] | None = None
        self._dead: list[str] = []

    @property
    def runtime(self) -> Runtime:
        return self._runtime

    def crash(self, host: str) -> bool:
        if host in self._dead:
            return False
        self._runtime.crash(host)
        self._dead.append(host)
        return True

    def remove(self, node: str) -> bool:
        alive = [host for host in self._machines[node] if host not in self._dead]
        self._runtime.remove(node)
        self._dead += alive
        return bool(alive)

    def pause(self, host: str) -> bool:
        if host in self._dead:
            return False
        self._runtime.pause(host)
        return True

    def resume(self, host: str) -> bool:
        if host in self._dead:
            return False
        self._runtime.resume(host)
        return True

    def slow(self, host: str, factor: float) -> bool:
        if host in self._dead:
            return False
        self._runtime.slow(host, factor)
        return True

    def prepare_loss(self) -> None:
        """Nothing takes long here."""

    def lose(self, payload: Payload) -> Payload:
        return dataclasses.replace(payload, ref=GONE)

    def take_unanswered(self) -> set[str]:
        return self._runtime.take_unanswered()

    def settle(self, *, down: tuple[str, ...] = ()) -> None:
        for host in self._dead:
            if host not in down:
                self._runtime.restart(host)
        self._dead = [host for host in self._dead if host in down]

    def watch(self, observe: Callable[[Span], None]) -> None:
        self._observe = observe

    def close(self) -> None:
        """Nothing to release."""

    def _show(self, span: Span) -> None:
        if self._observe is not None:
            self._observe(span)
