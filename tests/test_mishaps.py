"""Messages that come twice, payloads that get lost, hosts that hang from a stage on, and crowds: in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from hqde_ref.core.packing import pack
from hqde_ref.messages import Accepted, Reply, Train
from hqde_ref.nodes.worker import Worker
from simulator.checkers import check_fired, check_run
from simulator.execution import run_all
from simulator.records import Run
from simulator.scenario import Scenario
from simulator.scenario_reading import parse_scenario
from simulator.trace import Trace

BASE = """
apiVersion: hqde.sim/v1
metadata: {{name: small, description: d}}
seed: 5
system: {{workers: 8, hosts: 4, topology: tree, branching: 2, rule: weighted_mean, round_within: 2s{system}}}
workload: {{rounds: 3, batch: 160, steps: 1}}
faults: [{faults}]
expect: {{always: [accounted, answered, by_deadline]}}
"""


def _scenario(*faults: str, system: str = "") -> Scenario:
    return parse_scenario(BASE.format(faults=", ".join(faults), system=system), file="small.yaml")


def _run(scenario: Scenario) -> tuple[Run, Trace]:
    ((run, trace),) = run_all(scenario, on="sim", variants=("as written",))
    assert [finding.status for finding in (*check_run(scenario, run), *check_fired(run))] == ["HOLDS"] * (
        3 + len(scenario.faults)
    )
    return run, trace


def _digests(run: Run) -> list[str]:
    return [record.verdict.digest for record in run.rounds if isinstance(record.verdict, Accepted)]


TWICE = _scenario("{action: duplicate, target: {fixed: 4}, during: {rounds: [1, 2]}}")


def who_is_asked_twice_counts_once() -> None:
    run, trace = _run(TWICE)
    assert run.strikes[0].fired == 2
    once, plain = _run(_scenario())
    assert _digests(run) == _digests(once), "the result is that without the fault"
    hits = run.strikes[0].hits
    often, usual = ([e["node"] for e in _events(t, "Train")] for t in (trace, plain))
    assert [m for m in run.members if often.count(m) != usual.count(m)] == list(hits)


def test_who_is_asked_twice_counts_once() -> None:
    who_is_asked_twice_counts_once()


def test_a_planted_worker_that_trains_on_when_asked_again_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    train = Worker._train

    def trains_on(self: Worker, request: Train) -> Reply:
        reply = train(self, request)
        if self._done is not None:
            self._state, self._done = pack(self._model.state_dict(), self._layout), None
        return reply

    monkeypatch.setattr(Worker, "_train", trains_on)
    with pytest.raises(AssertionError, match="the result is that without the fault"):
        who_is_asked_twice_counts_once()


def test_a_payload_that_is_lost_costs_its_member_and_no_other() -> None:
    scenario = _scenario("{action: lose, target: [w2, w5], during: {rounds: [2, 2]}}")
    run, _ = _run(scenario)
    assert [dict(record.verdict.missing) for record in run.rounds] == [
        {},
        {"w2": "payload lost", "w5": "payload lost"},
        {},
    ]
    assert run.strikes[0].fired == 1


@pytest.mark.parametrize("stage", ["train", "screen", "combine", "publish"])
def test_a_host_hangs_from_the_stage_on_that_the_file_says(stage: str) -> None:
    run, trace = _run(_scenario(f"{{action: pause, target: h1, stage: {stage}, during: {{rounds: [2, 2]}}}}"))
    late = dict(run.rounds[1].verdict.missing)
    assert late == ({"w2": "late", "w3": "late"} if stage == "train" else {})
    (struck,) = (event["time"] for event in trace.events if event["event"] == "fault")
    rounds = [event["time"] for event in trace.events if event["event"] == "round began"]
    assert (struck == rounds[1]) == (stage == "train")
    assert not run.rounds[2].verdict.missing


def _events(trace: Trace, request: str) -> list[dict[str, Any]]:
    return [event for event in trace.events if event["event"] == "span" and event["request"] == request]


def test_crowds_of_a_file_answer_for_their_members_with_the_bits_of_members_alone() -> None:
    crowded, trace = _run(_scenario(system=", crowds: true"))
    assert _digests(crowded) == _digests(_run(_scenario())[0])
    assert {event["node"] for event in _events(trace, "Muster")} == {"c0", "c1", "c2", "c3"}
    assert not _events(trace, "Train")


def test_a_crowd_whose_host_dies_is_missing_with_all_its_members() -> None:
    run, _ = _run(_scenario("{action: crash, target: h1, at: {round: 2, stage: combine}}", system=", crowds: true"))
    assert [dict(record.verdict.missing) for record in run.rounds] == [{}, {"w2": "crashed", "w3": "crashed"}, {}]


def test_aggregators_apart_are_hosts_that_faults_can_hit() -> None:
    run, trace = _run(_scenario("{action: crash, target: g0, at: {round: 2, stage: combine}}", system=", apart: true"))
    assert not any(record.verdict.missing for record in run.rounds)
    assert {event["host"] for event in _events(trace, "Combine")} <= {"g0", "g1", "g2", "g3"}
    assert _digests(run) == _digests(_run(_scenario())[0])
