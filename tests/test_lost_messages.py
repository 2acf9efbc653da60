"""Requests and answers that are lost on the way, in virtual time: asked again, counted once, and seen to be lost."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hqde_ref.errors import ConfigurationError, ScenarioError
from hqde_ref.messages import UNANSWERED, Accepted, Refused
from simulator.checkers import check_agreement, check_fired, check_run
from simulator.execution import conclude, exit_code, run_all
from simulator.records import RoundRecord, Run
from simulator.runtime import Network, Simulated
from simulator.scenario import Scenario
from simulator.scenario_reading import parse_scenario
from simulator.trace import Trace
from tests.probes import ProbeSpec, probe

BASE = """
apiVersion: hqde.sim/v1
metadata: {{name: small, description: d}}
seed: 5
system: {{workers: 6, hosts: 3, topology: tree, branching: 2, rule: weighted_mean, round_within: 60s}}
workload: {{rounds: 3, batch: 160, steps: 1}}
network: {{{network}}}
faults: [{faults}]
expect: {{always: [accounted, answered, by_deadline], last_round: whole}}
"""


def _scenario(network: str = "", *faults: str) -> Scenario:
    return parse_scenario(BASE.format(network=network, faults=", ".join(faults)), file="small.yaml")


def _run(scenario: Scenario) -> tuple[Run, Trace]:
    ((run, trace),) = run_all(scenario, on="sim", variants=("as written",))
    return run, trace


def _digests(run: Run) -> list[str]:
    return [record.verdict.digest for record in run.rounds if isinstance(record.verdict, Accepted)]


@pytest.mark.parametrize("lost", ["lost_requests", "lost_responses"])
def test_messages_lost_are_asked_again_and_the_result_is_that_without_losses(lost: str) -> None:
    run, trace = _run(_scenario(f"{lost}: 0.2"))
    assert _digests(run) == _digests(_run(_scenario())[0])
    assert not any(record.verdict.missing for record in run.rounds)
    (strike,) = run.strikes
    assert (strike.action, strike.fault) == (lost, None)
    assert strike.fired == len([event for event in trace.events if event["event"] == "fault"]) > 0
    assert set(strike.hits) <= {"h0", "h1", "h2"}


def test_a_state_that_is_lost_on_its_way_to_a_host_costs_no_member() -> None:
    """Handing out the state spends no attempts of whoever waits for it."""
    for seed in range(30):
        run, _ = _run(_scenario("lost_requests: 0.1").model_copy(update={"seed": seed}))
        assert not any("unknown" in reason for r in run.rounds for reason in r.verdict.missing.values()), seed


def test_half_of_the_messages_lost_cost_no_round_and_no_member() -> None:
    """Six losses in a row are common here."""
    for seed in range(10):
        run, _ = _run(_scenario("lost_requests: 0.5").model_copy(update={"seed": seed}))
        assert all(isinstance(record.verdict, Accepted) for record in run.rounds), seed
        assert not any(record.verdict.missing for record in run.rounds), seed


def test_messages_lost_while_a_host_hangs_cost_no_round() -> None:
    for seed in range(10):
        scenario = _scenario("lost_requests: 0.5", "{action: pause, target: h1, during: {rounds: [2, 3]}}")
        run, _ = _run(scenario.model_copy(update={"seed": seed}))
        assert all(isinstance(record.verdict, Accepted) for record in run.rounds), seed


def test_a_round_refused_for_lost_messages_is_nobodys_fault() -> None:
    """A loss is noticed after two seconds, of which this round has hardly one left."""
    text = BASE.format(network="lost_requests: 0.5", faults="").replace("60s", "2500ms")
    scenario = parse_scenario(text, file="small.yaml")
    run, trace = _run(scenario)
    assert any(isinstance(record.verdict, Refused) for record in run.rounds)
    said = {judged.finding.law: judged.finding for judged in conclude(scenario, [(run, trace)]).findings}
    assert said["answered"].status == "CANNOT_TELL"
    assert "messages get lost" in said["answered"].because


def test_who_is_left_out_of_the_last_round_where_messages_get_lost_is_not_judged() -> None:
    for network, status in (("lost_requests: 0.01", "CANNOT_TELL"), ("", "BROKEN")):
        scenario = _scenario(network)
        run, _ = _run(scenario)
        last = run.rounds[-1]
        assert isinstance(last.verdict, Accepted)
        late = dataclasses.replace(last.verdict, used=last.verdict.used[1:], missing={"w0": "late"})
        short = dataclasses.replace(run, rounds=(*run.rounds[:-1], dataclasses.replace(last, verdict=late)))
        said = {finding.law: finding for finding in check_run(scenario, short)}["last_round whole"]
        assert said.status == status
        assert said.because.endswith("w0 left out of the last round")


def test_members_absent_where_messages_get_lost_are_not_blamed_for_the_budget() -> None:
    for network, status in (("lost_requests: 0.01", "CANNOT_TELL"), ("", "BROKEN")):
        scenario = parse_scenario(
            BASE.format(network=network, faults="").replace("accounted, ", "budget_kept, "), file="small.yaml"
        )
        run, _ = _run(scenario)
        verdict = Refused(round=1, reason="too few", rejected={}, missing=dict.fromkeys(run.members, "late"))
        silent = dataclasses.replace(run, rounds=(dataclasses.replace(run.rounds[0], verdict=verdict), *run.rounds[1:]))
        said = {finding.law: finding for finding in check_run(scenario, silent)}["budget_kept"]
        assert said.status == status
        assert "2 x 0 Byzantine + 6 absent is not below 6 members" in said.because
        lying = dataclasses.replace(run, rounds=(dataclasses.replace(run.rounds[0], byzantine=run.members[:4]),))
        said = {finding.law: finding for finding in check_run(scenario, lying)}["budget_kept"]
        assert (said.status, said.because) == ("BROKEN", "2 x 4 Byzantine + 0 absent is not below 6 members")


def test_worlds_that_lose_messages_of_their_own_need_not_agree() -> None:
    for network, status in (("lost_requests: 0.01", "CANNOT_TELL"), ("", "BROKEN")):
        scenario = _scenario(network)
        run, _ = _run(scenario)
        first, second, third = run.rounds
        assert isinstance(second.verdict, Accepted)
        late = dataclasses.replace(second.verdict, used=second.verdict.used[1:], missing={"w0": "late"})
        other = dataclasses.replace(
            run, world="ray", rounds=(first, dataclasses.replace(second, verdict=late), _with_digest(third, "another"))
        )
        said = check_agreement(scenario, run, other)
        assert said.status == status
        told = "missing: sim says nobody else, ray says w0 (late)" if network else "used: sim says w0, ray says nobody"
        assert told in said.because


def test_what_no_lost_message_can_do_is_a_disagreement_whatever_gets_lost() -> None:
    scenario = _scenario("lost_requests: 0.01")
    run, _ = _run(scenario)
    verdict = run.rounds[1].verdict
    assert isinstance(verdict, Accepted)
    rejecting = dataclasses.replace(verdict, used=verdict.used[1:], rejected={"w0": "corrupted"})
    doubling = dataclasses.replace(verdict, used=("w0", *verdict.used))
    for changed, told in (
        (rejecting, "used: sim says w0, ray says nobody else"),
        (doubling, "used: sim says nobody else, ray says w0"),
    ):
        second = dataclasses.replace(run.rounds[1], verdict=changed)
        other = dataclasses.replace(run, world="ray", rounds=(run.rounds[0], second, run.rounds[2]))
        said = check_agreement(scenario, run, other)
        assert (said.status, said.round, said.because) == ("BROKEN", 2, told)


def test_other_bits_before_any_message_is_missed_are_broken_whatever_gets_lost() -> None:
    scenario = _scenario("lost_requests: 0.01")
    run, _ = _run(scenario)
    other = dataclasses.replace(run, world="ray", rounds=(_with_digest(run.rounds[0], "another"), *run.rounds[1:]))
    said = check_agreement(scenario, run, other)
    assert (said.status, said.round) == ("BROKEN", 1)
    assert "weighted_mean gives the same bits in any order" in said.because


def _with_digest(record: RoundRecord, digest: str) -> RoundRecord:
    assert isinstance(record.verdict, Accepted)
    return dataclasses.replace(record, verdict=dataclasses.replace(record.verdict, digests=(digest,)))


def test_messages_that_never_got_lost_make_the_run_vacuous() -> None:
    scenario = _scenario("lost_requests: 0.01")
    run, trace = _run(scenario)
    assert run.strikes[0].fired == 0
    (finding,) = check_fired(run)
    assert (finding.law, finding.status) == ("network (lost_requests) fired", "CANNOT_TELL")
    assert exit_code(conclude(scenario, [(run, trace)])) == 2


def test_what_a_dying_host_leaves_unanswered_is_no_lost_message() -> None:
    scenario = _scenario("lost_requests: 0.01", "{action: crash, target: h1, at: {round: 2}}")
    run, _ = _run(scenario)
    assert [strike.fired for strike in run.strikes] == [1, 0]


def _probed(network: Network, *, spared: tuple[str, ...] = ()) -> tuple[Simulated, Any]:
    runtime = Simulated({"h0": (ProbeSpec(name="p0"),)}, network=network, spared=spared)
    return runtime, runtime.ask([probe("p0", 1)], enough=1, until=100.0)[0].reply


@pytest.mark.parametrize(
    "network",
    [Network(loss=0.9), Network(lost_requests=0.999), Network(lost_responses=0.999)],
)
def test_the_networks_faults_spare_the_harness(network: Network) -> None:
    """It is no part of the system that is judged."""
    runtime, reply = _probed(network, spared=("h0",))
    assert reply != UNANSWERED
    assert runtime.now() < 0.1
    struck, other = _probed(network)
    assert other == UNANSWERED or struck.now() > 0.1, "others it does hit"


@pytest.mark.parametrize("which", ["lost_requests", "lost_responses"])
def test_the_caller_learns_after_a_while_that_a_message_was_lost_and_not_which_way(which: str) -> None:
    runtime, reply = _probed(dataclasses.replace(Network(), **{which: 0.999}))
    assert reply == UNANSWERED
    assert 2.0 <= runtime.now() < 2.3


def test_a_message_with_a_lost_answer_was_carried_out_and_one_that_is_lost_itself_was_not() -> None:
    for which, done in (("lost_requests", 0), ("lost_responses", 1)):
        runtime, _ = _probed(dataclasses.replace(Network(), **{which: 0.999}))
        runtime._network = Network()
        (answer,) = runtime.ask([probe("p0", 2)], enough=1, until=200.0)
        assert answer.reply.scores[0] == done + 1, which


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("0.6", "less than or equal to 0.5"), ("0.005", "a multiple of 0.01"), ("0.3000000001", "a multiple of 0.01")],
)
def test_a_chance_that_ray_cannot_be_told_is_one_line(value: str, wanted: str) -> None:
    with pytest.raises(ScenarioError, match=f"network.lost_requests: wanted {wanted}, got {value}"):
        _scenario(f"lost_requests: {value}")


def test_a_given_cluster_is_not_set_to_lose_messages() -> None:
    with pytest.raises(ConfigurationError) as raised:
        list(run_all(_scenario("lost_requests: 0.1"), on="ray", address="10.0.0.1:6379"))
    assert str(raised.value).startswith("--address must be absent with network: lost_requests, which needs a Ray that")
