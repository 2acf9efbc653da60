"""The live world without Ray: what it asks of its runtime, and what it leaves behind."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hqde_ref.errors import RuntimeFault
from simulator import live
from simulator.scenario import Scenario
from simulator.scenario_reading import load_scenario


@pytest.fixture
def scenario() -> Scenario:
    return load_scenario(Path("scenarios/slow_host.yaml"))


class _Hosts:
    """Notes signals; ``dead`` hosts are hit by none."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.sent: list[int] = []
        self.dead: set[str] = set()

    def send(self, host: str, number: int) -> bool:
        self.sent.append(number)
        return host not in self.dead

    def settle(self, **_: Any) -> None:
        pass

    def close(self) -> None:
        pass


class _Machines:
    """Notes what is done to nodes, in order."""

    def __init__(self, hosts: Any, *, config: Any, **_: Any) -> None:
        self.hosts, self.config, self.done = hosts, config, list[str]()

    def remove(self, node: str) -> bool:
        self.done.append(f"removed {node}")
        return True

    def replace(self, node: str) -> None:
        self.done.append(f"replaced {node}")

    def close(self) -> None:
        self.done.append("closed")


def _world(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> tuple[live.LiveWorld, _Hosts]:
    hosts = _Hosts()
    monkeypatch.setattr(live, "OnRay", lambda *_, **__: hosts)
    return live.LiveWorld(scenario), hosts


def test_output_is_restored_when_ray_cannot_be_used(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeFault(what="Ray", problem="is away", do="bring it back")

    monkeypatch.setattr(live, "OnRay", fail)
    before = sys.stdout
    with pytest.raises(RuntimeFault, match="is away"):
        live.LiveWorld(scenario)
    assert sys.stdout is before


def test_closing_restores_output_and_ends_the_brakes(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    before, threads = sys.stdout, threading.active_count()
    world, _ = _world(scenario, monkeypatch)
    assert sys.stdout is not before
    assert world.slow("h0", 5.0)
    world.close()
    assert sys.stdout is before
    assert threading.active_count() == threads


def test_pausing_a_braked_host_releases_the_brake_first(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    world, hosts = _world(scenario, monkeypatch)
    world.slow("h0", 5.0)
    time.sleep(0.1)
    assert world.pause("h0")
    sent = len(hosts.sent)
    time.sleep(0.2)
    assert len(hosts.sent) == sent, "a brake still sends signals"
    assert hosts.sent[-1] == signal.SIGSTOP
    world.close()


def test_a_fault_on_a_dead_host_hits_nothing(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    world, hosts = _world(scenario, monkeypatch)
    hosts.dead.add("h0")
    assert not any((world.crash("h0"), world.pause("h0"), world.slow("h0", 3.0), world.resume("h0")))
    assert world.crash("h1")
    world.close()


def _on_machines(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[live.LiveWorld, _Machines]:
    made: list[_Machines] = []

    def make(*args: Any, **options: Any) -> _Machines:
        made.append(_Machines(*args, **options))
        return made[-1]

    monkeypatch.setattr(live, "Machines", make)
    world, _ = _world(load_scenario(Path(f"scenarios/{name}.yaml")), monkeypatch)
    return world, made[0]


def test_a_removed_node_is_braked_no_more_and_replaced_before_the_next_round(monkeypatch: pytest.MonkeyPatch) -> None:
    world, machines = _on_machines("node_removed", monkeypatch)
    threads = threading.active_count()
    assert world.slow("h4", 5.0)
    assert world.remove("n1")
    assert threading.active_count() == threads
    world.settle()
    world.remove("n1")
    world.settle(down=("h1", "h4"))
    world.close()
    assert machines.done == ["removed n1", "replaced n1", "removed n1", "closed"], "who stays down needs no node"
    assert machines.hosts == {"n0": ("h0", "h3", "harness"), "n1": ("h1", "h4"), "n2": ("h2",)}


@pytest.mark.parametrize("lost", ["requests", "responses"])
def test_ray_is_told_to_lose_just_what_the_file_says(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world, machines = _on_machines(f"lost_{lost}", monkeypatch)
    world.close()
    (knob,) = json.loads(machines.config["testing_rpc_failure"]).values()
    told = (knob["num_failures"], knob["req_failure_prob"], knob["resp_failure_prob"])
    assert told == ((-1, 8, 0) if lost == "requests" else (-1, 0, 8))
