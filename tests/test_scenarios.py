"""Every scenario that comes along: what it expects holds in virtual time, and on real processes with equal verdicts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from simulator.execution import conclude, exit_code, run_all
from simulator.live import LiveWorld
from simulator.runner import run_variant
from simulator.scenario import Scenario
from simulator.scenario_reading import load_scenario
from simulator.worlds import place_nodes

FILES = sorted(Path("scenarios").glob("*.yaml"))
BY_NAME = [pytest.param(path, id=path.stem) for path in FILES]
QUICK = {"sharded_liars_and_crash"}  # the main scenario has a test of its own


@pytest.mark.parametrize("path", BY_NAME)
def test_what_a_scenario_expects_holds_in_virtual_time(path: Path) -> None:
    scenario = load_scenario(path)
    execution = conclude(scenario, list(run_all(scenario, on="sim")))
    assert [j for j in execution.findings if j.finding.status != "HOLDS"] == []
    assert exit_code(execution) == 0


def test_scenarios_are_told_apart_by_name_and_say_which_clauses_they_exercise() -> None:
    scenarios: list[Scenario] = [load_scenario(path) for path in FILES]
    assert [s.metadata.name.replace("-", "_") for s in scenarios] == [path.stem for path in FILES]
    assert all(s.metadata.clauses and s.metadata.description for s in scenarios)


def test_faults_of_every_kind_and_at_every_stage_have_a_scenario() -> None:
    faults = [fault for path in FILES for fault in load_scenario(path).faults]
    assert {fault.action for fault in faults} == {
        *("byzantine", "corrupt", "crash", "damage", "duplicate", "lose", "pause", "remove", "slow"),
    }
    lost = {load_scenario(path).network.loses for path in FILES}
    assert {"lost_requests", "lost_responses"} <= lost
    stages = {"read", "train", "screen", "combine", "reduce", "publish", "write"}
    assert {fault.at.stage for fault in faults if fault.action == "crash"} == stages
    assert {fault.stage for fault in faults if fault.action == "pause"} == stages


@pytest.mark.parametrize("victim", ["worker_host", "aggregator", "reducer", "mapper"])
def test_kill_and_stop_of_every_role_strike_at_each_stage_of_its_rounds(victim: str) -> None:
    killed, stopped = (load_scenario(Path(f"scenarios/{how}_{victim}.yaml")) for how in ("kill", "stop"))
    crashes = [(fault.target, fault.at.round, fault.at.stage) for fault in killed.faults if fault.action == "crash"]
    pauses = [(f.target, f.during.rounds[0], f.stage) for f in stopped.faults if f.action == "pause"]
    assert crashes == pauses
    assert len({stage for _, _, stage in crashes}) == 4
    assert killed.system.apart, "it is a host of its own"


class Hosts:
    """Live hosts, kept from one scenario to the next while it places the same nodes: starting them takes longest."""

    def __init__(self) -> None:
        self._placed = ""
        self._world: LiveWorld | None = None

    def world(self, scenario: Scenario) -> LiveWorld:
        placed = repr(place_nodes(scenario))
        if self._world is None or placed != self._placed:
            self.close()
            self._world, self._placed = LiveWorld(scenario), placed
        self._world.settle()  # a scenario may have left hosts dead
        return self._world

    def close(self) -> None:
        if self._world is not None:
            self._world.close()
            self._world = None


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """One Ray session for all scenarios."""
    mine = not ray.is_initialized()
    if mine:
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    started = Hosts()
    yield started
    started.close()
    if mine:
        with suppress(RuntimeError):
            ray.shutdown()


def _needs_its_own_ray(scenario: Scenario) -> bool:
    """One of several nodes, or one that loses messages."""
    return scenario.system.nodes > 1 or bool(scenario.network.loses)


OF_THEIR_OWN = [path for path in FILES if _needs_its_own_ray(load_scenario(path))]
BY_PLACING = sorted(
    set(FILES) - set(OF_THEIR_OWN), key=lambda path: (repr(place_nodes(load_scenario(path))), path.stem)
)


@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=() if p.stem in QUICK else pytest.mark.live) for p in BY_PLACING]
)
def test_a_scenario_has_the_same_verdicts_on_real_processes(path: Path, hosts: Hosts) -> None:
    scenario = load_scenario(path)
    done = list(run_all(scenario, on="sim", variants=("as written",)))
    execution = conclude(scenario, [*done, run_variant(scenario, hosts.world(scenario))])
    assert [j for j in execution.findings if j.finding.status != "HOLDS"] == []
    simulated, live = execution.runs
    digests = [[getattr(r.verdict, "digest", None) for r in run.rounds] for run in (simulated, live)]
    assert digests[0] == digests[1], "the same bits"


@pytest.mark.live
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in OF_THEIR_OWN])
def test_a_scenario_with_a_ray_of_its_own_has_the_same_verdicts_there(path: Path, tmp_path: Path) -> None:
    """As a user runs it: a node really goes, messages really get lost, and each is seen to have happened."""
    command = [sys.executable, "-m", "simulator", "run", str(path), "--on", "both", "--json", str(tmp_path / "s.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "s.json").read_text())
    assert {finding["status"] for finding in summary["findings"]} == {"HOLDS"}
    laws = {finding["law"] for finding in summary["findings"] if finding["world"] == "ray"}
    assert any(law.endswith("fired") for law in laws)
    runs = {(run["world"], run["variant"]): [r["digest"] for r in run["rounds"]] for run in summary["runs"]}
    for variant in ("as written", "mean instead", "no faults"):
        assert runs["sim", variant] == runs["ray", variant], "the same bits"
