"""Machines that are lost with their hosts and objects, in virtual time; and what a file may say of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hqde_ref.errors import ConfigurationError, RuntimeFault, ScenarioError
from hqde_ref.messages import Payload
from hqde_ref.runtimes.on_ray import OnRay
from simulator.checkers import check_fired, check_run
from simulator.copies import Copies
from simulator.execution import run_all
from simulator.records import Run
from simulator.scenario import Scenario
from simulator.scenario_reading import parse_scenario
from simulator.trace import Trace
from simulator.worlds import place_hosts

BASE = """
apiVersion: hqde.sim/v1
metadata: {{name: small, description: d}}
seed: 5
system: {{workers: 8, hosts: 5, topology: tree, branching: 2, rule: weighted_mean, round_within: 2s{system}}}
workload: {{rounds: 3, batch: 160, steps: 1}}
faults: [{faults}]
expect: {{always: [accounted, answered, by_deadline]}}
"""
N1 = {"w2", "w3", "w7"}  # members on h1 and h4


def _scenario(*faults: str, system: str = ", nodes: 3") -> Scenario:
    return parse_scenario(BASE.format(faults=", ".join(faults), system=system), file="small.yaml")


def _run(scenario: Scenario) -> tuple[Run, Trace]:
    ((run, trace),) = run_all(scenario, on="sim", variants=("as written",))
    return run, trace


def _remove(stage: str, target: str = "n1", more: str = "") -> str:
    return f"{{action: remove, target: {target}, at: {{round: 2, stage: {stage}}}{more}}}"


def test_hosts_are_dealt_to_machines_in_turn_and_the_harness_is_on_the_first() -> None:
    assert place_hosts(_scenario()) == {"n0": ("h0", "h3", "harness"), "n1": ("h1", "h4"), "n2": ("h2",)}
    apart = place_hosts(_scenario(system=", nodes: 2, apart: true"))
    assert apart["n1"] == ("h1", "h3", "g1", "g3"), "aggregators are dealt like workers"


def test_a_machine_lost_before_training_costs_all_its_members_and_the_next_round_is_whole() -> None:
    scenario = _scenario(_remove("train"))
    run, trace = _run(scenario)
    assert [dict(record.verdict.missing) for record in run.rounds] == [{}, dict.fromkeys(sorted(N1), "crashed"), {}]
    assert {finding.status for finding in (*check_run(scenario, run), *check_fired(run))} == {"HOLDS"}
    (noted,) = (event for event in trace.events if event["event"] == "fault")
    assert noted["hits"] == ["n1", "h1", "h4"], "a report draws the hosts that it took"


def test_what_only_the_lost_machine_held_is_lost_and_what_was_read_elsewhere_is_not() -> None:
    crashed, _ = _run(
        _scenario(*(f"{{action: crash, target: {h}, at: {{round: 2, stage: combine}}}}" for h in ("h1", "h4")))
    )
    removed, _ = _run(_scenario(_remove("combine")))
    assert crashed.rounds[1].verdict.missing == {}, "on one machine, objects outlive who made them"
    lost = dict(removed.rounds[1].verdict.missing)
    assert lost
    assert set(lost) < N1
    assert set(lost.values()) == {"payload lost"}


def test_a_machine_that_stays_away_keeps_its_members_missing() -> None:
    run, _ = _run(_scenario(_remove("train", more=", restart: never")))
    assert [set(record.verdict.missing) for record in run.rounds] == [set(), N1, N1]


def test_a_machine_whose_hosts_are_all_dead_cannot_be_removed_and_the_run_says_so() -> None:
    gone = _remove("train", more=", restart: never")
    run, _ = _run(_scenario(gone, gone.replace("round: 2", "round: 3")))
    assert [finding.status for finding in check_fired(run)] == ["HOLDS", "CANNOT_TELL"]


def test_machines_alone_change_no_trace() -> None:
    assert _run(_scenario())[1].digest == _run(_scenario(system=""))[1].digest


def test_copies_are_lost_with_the_last_machine_and_are_back_when_made_anew() -> None:
    copies = Copies({"h0": "n0", "h1": "n1", "h2": "n2"})
    mine, read = (Payload(key=key, ref=torch.zeros(1), nbytes=4) for key in ("mine", "read"))
    copies.make("h1", (mine, read))
    copies.read("h2", (read,))
    copies.drop("n1")
    assert [copies.is_gone(p) for p in (mine, read)] == [True, False]
    copies.read("h2", (mine,))  # a host that asks for it in vain has no copy
    copies.drop("n2")
    assert [copies.is_gone(p) for p in (mine, read)] == [True, True]
    copies.make("h1", (mine,))
    assert not copies.is_gone(mine)


@pytest.mark.parametrize(
    ("system", "fault", "message"),
    [
        (", nodes: 6", "", "system: nodes: wanted at most one a host (5), got 6; add hosts."),
        (", nodes: 2, gpus: 2", "", "system: gpus: wanted none with nodes: 2, which share no GPUs, got 2."),
        (
            "",
            _remove("train"),
            "faults[0].target: there is one machine, n0, and it carries the harness; "
            "wanted system: {nodes: 2} or more.",
        ),
        (
            ", nodes: 3",
            _remove("train", "n0"),
            "faults[0].target: n0 carries the harness, so no fault hits it; there are n1, n2.",
        ),
        (", nodes: 3", _remove("train", "n3"), "faults[0].target: there is no 'n3'; there are n1, n2"),
        (", nodes: 3", _remove("train", "h1"), "faults[0].target: there is no 'h1'; there are n1, n2"),
        (
            ", nodes: 3",
            "{action: remove, at: {round: 4}}",
            "faults[0]: round 4 is after the last round, 3.",
        ),
    ],
)
def test_what_a_file_says_wrongly_of_machines_is_one_line(system: str, fault: str, message: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        _scenario(*([fault] if fault else []), system=system)
    assert message.rstrip(".?") in str(raised.value)


@pytest.mark.parametrize("target", ["all", "one", "{fixed: 2}"])
def test_a_worded_target_never_means_the_machine_of_the_harness(target: str) -> None:
    assert "n0" not in _scenario(_remove("train", target)).aim(0)


def test_a_given_cluster_is_never_touched() -> None:
    with pytest.raises(ConfigurationError) as raised:
        list(run_all(_scenario(_remove("train")), on="both", address="10.0.0.1:6379"))
    assert str(raised.value) == (
        "--address must be absent with the fault remove, which needs a Ray that was started here, got '10.0.0.1:6379'; "
        "leave it out, and a private Ray is started."
    )


@pytest.mark.parametrize(
    ("action", "rest"),
    [
        ("crash", "at: {round: 1}"),
        ("pause", "during: {rounds: [1, 1]}"),
        ("slow", "factor: 2, during: {rounds: [1, 1]}"),
    ],
)
def test_hosts_on_several_machines_of_a_given_cluster_take_no_faults_that_are_signals(action: str, rest: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        list(run_all(_scenario(f"{{action: {action}, target: h1, {rest}}}"), on="both", address="10.0.0.1:6379"))
    assert str(raised.value) == (
        f"--address must be absent with the fault {action} and nodes: 3, of which signals reach one, "
        "got '10.0.0.1:6379'; leave it out, and a private Ray of so many nodes is started."
    )


def test_a_host_of_a_removed_machine_is_started_nowhere_else() -> None:
    runtime = object.__new__(OnRay)
    runtime._hosts = {"h1": SimpleNamespace()}  # type: ignore[dict-item]
    runtime._machines = SimpleNamespace(node_of=lambda host: None)  # type: ignore[assignment]
    with pytest.raises(RuntimeFault, match=r"host h1: cannot be started: its node was removed; put another node in"):
        runtime.restart("h1")
