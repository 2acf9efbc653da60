"""The simulator: determinism, each kind of fault, and that a fault which never fires is not called a pass."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hqde_ref.errors import WireError
from hqde_ref.messages import Accepted, Refused
from simulator.checkers import check_agreement, check_fired, check_run
from simulator.execution import conclude, exit_code, run_all
from simulator.records import Run
from simulator.scenario import Expect, Scenario
from simulator.scenario_reading import load_scenario, parse_scenario
from simulator.trace import Trace, read_trace

BASE = """
apiVersion: hqde.sim/v1
metadata: {{name: small, description: d}}
seed: {seed}
system: {{workers: 7, hosts: 4, faulty_max: 2, round_within: 2s, {system}}}
workload: {{rounds: {rounds}, batch: 140, steps: 1}}
network: {{latency: 1ms, jitter: 2ms, loss: 0.05}}
faults: [{faults}]
"""


def _scenario(*faults: str, seed: int = 5, rounds: int = 3, system: str = "") -> Scenario:
    text = BASE.format(seed=seed, rounds=rounds, faults=", ".join(faults), system=system)
    return parse_scenario(text, file="small.yaml")


def _run(scenario: Scenario) -> tuple[Run, Trace]:
    ((run, trace),) = run_all(scenario, on="sim", variants=("as written",))
    return run, trace


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    lie = "{action: byzantine, attack: {name: gaussian}, during: {rounds: [1, 3]}}"
    digests = [_run(_scenario(lie, seed=seed))[1].digest for seed in (5, 5, 6)]
    assert digests[0] == digests[1] != digests[2]


def test_another_process_with_another_hash_seed_gives_the_same_digest(tmp_path: Path) -> None:
    digests = []
    for hash_seed in ("0", "4711"):
        folder = tmp_path / hash_seed
        command = [sys.executable, "-m", "simulator", "run", "scenarios/minority_third.yaml", "--out", str(folder)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True)
        digests.append([read_trace(path).digest for path in sorted(folder.glob("*.jsonl"))])
    assert len(digests[0]) == 3
    assert digests[0] == digests[1]


def _outcome(run: Run, number: int) -> dict[str, Any]:
    return dict(run.outcome()[number - 1])


def test_a_crashed_host_is_missing_in_its_round_and_back_in_the_next() -> None:
    run, _ = _run(_scenario("{action: crash, target: h2, at: {round: 2}}"))
    assert _outcome(run, 1)["missing"] == {}
    assert set(_outcome(run, 2)["missing"].values()) == {"crashed"}
    assert _outcome(run, 3)["missing"] == {}


def test_a_host_that_never_restarts_stays_missing() -> None:
    run, _ = _run(_scenario("{action: crash, target: h2, at: {round: 1}, restart: never}"))
    assert [len(_outcome(run, number)["missing"]) for number in (1, 2, 3)] == [2, 2, 2]


def test_a_paused_host_is_late_and_the_round_still_ends_by_its_deadline() -> None:
    run, _ = _run(_scenario("{action: pause, target: h1, during: {rounds: [1, 2]}}"))
    for number in (1, 2):
        assert set(_outcome(run, number)["missing"].values()) == {"late"}
        assert run.rounds[number - 1].ended <= run.rounds[number - 1].deadline
    assert _outcome(run, 3)["missing"] == {}


def test_a_slow_host_is_late_when_it_is_too_slow_and_used_when_it_is_not() -> None:
    much, _ = _run(_scenario("{action: slow, target: h1, factor: 1000, during: {rounds: [1, 1]}}"))
    little, _ = _run(_scenario("{action: slow, target: h1, factor: 5, during: {rounds: [1, 1]}}"))
    assert set(_outcome(much, 1)["missing"].values()) == {"late"}
    assert _outcome(little, 1)["missing"] == {}
    assert little.rounds[0].ended > 0


def test_a_bit_flipped_on_the_way_is_rejected_as_corrupted() -> None:
    run, _ = _run(_scenario("{action: corrupt, target: [w3], during: {rounds: [2, 2]}}"))
    assert list(_outcome(run, 2)["rejected"]) == ["w3"]
    assert _outcome(run, 2)["rejected"]["w3"].startswith("corrupted: its bytes have digest")
    assert _outcome(run, 3)["rejected"] == {}


@pytest.mark.parametrize("attack", ["nan", "inf"])
def test_a_contribution_that_is_not_finite_is_rejected_and_the_others_are_used(attack: str) -> None:
    run, _ = _run(
        _scenario(f"{{action: byzantine, target: [w3], attack: {{name: {attack}}}, during: {{rounds: [1, 1]}}}}")
    )
    assert _outcome(run, 1)["rejected"]["w3"].startswith("not finite: parameter")
    assert len(_outcome(run, 1)["used"]) == 6


@pytest.mark.parametrize(
    "attack",
    ["sign_flip", "ipm", "alie", "mimic", "min_max", "min_sum", "gaussian", "one_coordinate"],
)
def test_the_bound_holds_and_everyone_is_accounted_for_under_every_attack(attack: str) -> None:
    scenario = _scenario(f"{{action: byzantine, attack: {{name: {attack}}}, during: {{rounds: [1, 3]}}}}")
    run, _ = _run(scenario)
    assert [finding.status for finding in check_run(scenario, run)] == ["HOLDS"] * 4
    assert run.strikes[0].fired == 3
    assert all(len(record.byzantine) == 2 for record in run.rounds)
    assert all(record.bound is not None for record in run.rounds)


def test_a_liar_on_a_dead_host_stays_silent() -> None:
    run, _ = _run(
        _scenario(
            "{action: byzantine, target: [w0], attack: {name: ipm}, during: {rounds: [1, 2]}}",
            "{action: crash, target: h0, at: {round: 2}}",
        )
    )
    assert run.rounds[0].byzantine == ("w0",)
    assert run.rounds[1].byzantine == ()
    assert _outcome(run, 2)["missing"]["w0"] == "crashed"


def test_a_fault_that_never_fires_makes_the_run_vacuous() -> None:
    lie_by_a_dead_host = _scenario(
        "{action: crash, target: h0, at: {round: 1}, restart: never}",
        "{action: byzantine, target: [w0], attack: {name: ipm}, during: {rounds: [1, 3]}}",
    )
    execution = conclude(lie_by_a_dead_host, list(run_all(lie_by_a_dead_host, on="sim", variants=("as written",))))
    statuses = {judged.finding.law: judged.finding.status for judged in execution.findings}
    assert statuses["fault 1 (byzantine) fired"] == "CANNOT_TELL"
    assert exit_code(execution) == 2


def test_a_strike_on_a_dead_host_does_not_count_as_fired() -> None:
    run, _ = _run(
        _scenario(
            "{action: crash, target: h0, at: {round: 1}, restart: never}",
            "{action: pause, target: h0, during: {rounds: [2, 2]}}",
            "{action: crash, target: h0, at: {round: 2}}",
        )
    )
    assert [strike.fired for strike in run.strikes] == [1, 0, 0]


def test_a_stage_that_is_never_reached_leaves_its_fault_unfired() -> None:
    dead = ", ".join(f"h{index}" for index in range(3))
    scenario = _scenario(
        f"{{action: crash, target: [{dead}], at: {{round: 1}}}}",
        "{action: crash, target: h3, at: {round: 1, stage: combine}}",
    )
    run, _ = _run(scenario)
    assert not isinstance(run.rounds[0].verdict, Accepted)
    assert [finding.status for finding in check_fired(run)] == ["HOLDS", "CANNOT_TELL"]


# ------------------------------------------------------------------------------------------------ checkers can fail


def _tampered(run: Run, **changes: Any) -> Run:
    verdict = dataclasses.replace(run.rounds[0].verdict, **changes)
    return dataclasses.replace(run, rounds=(dataclasses.replace(run.rounds[0], verdict=verdict), *run.rounds[1:]))


def _broken(scenario: Scenario, run: Run) -> dict[str, str]:
    return {f.law: f.because for f in check_run(scenario, run) if f.status == "BROKEN"}


def test_the_accounting_checker_sees_a_lost_a_doubled_and_a_strange_member() -> None:
    scenario = _scenario()
    run, _ = _run(scenario)
    used = run.rounds[0].verdict.used  # type: ignore[union-attr]
    assert _broken(scenario, run) == {}
    assert _broken(scenario, _tampered(run, used=used[1:])) == {
        "accounted": "w0 is neither used nor rejected nor missing"
    }
    assert "more than one of" in _broken(scenario, _tampered(run, missing={"w1": "late"}))["accounted"]
    assert _broken(scenario, _tampered(run, used=(*used, "x")))["accounted"] == "x is no member"


def test_the_bound_checker_sees_an_error_beyond_the_bound() -> None:
    scenario = _scenario()
    run, _ = _run(scenario)
    first = run.rounds[0]
    assert first.measured is not None
    far = dataclasses.replace(first.measured, error=(first.bound or 0) * 1.01 + 1)
    worse = dataclasses.replace(run, rounds=(dataclasses.replace(first, measured=far), *run.rounds[1:]))
    assert "is beyond the proven bound" in _broken(scenario, worse)["within_bound"]


def test_a_result_that_nobody_could_measure_is_no_result_within_the_bound() -> None:
    scenario = _scenario()
    run, _ = _run(scenario)
    gone = dataclasses.replace(run, rounds=(dataclasses.replace(run.rounds[0], measured=None), *run.rounds[1:]))
    assert _broken(scenario, gone)["within_bound"] == (
        "the result, or what it is measured against, is lost, although no machine was"
    )


def test_the_bound_is_not_what_the_judged_system_says_of_itself() -> None:
    scenario = _scenario()
    run, _ = _run(scenario)
    first = run.rounds[0].verdict
    assert isinstance(first, Accepted)
    boast = _tampered(run, evidence=dataclasses.replace(first.evidence, kappa=1e9))
    assert boast.rounds[0].bound == run.rounds[0].bound
    assert run.rounds[0].kappa == first.evidence.kappa == 1.5  # 7 members, 2 of them liars: (7 - 1) / (7 + 1 - 4)


def _status(scenario: Scenario, run: Run, law: str) -> tuple[str, str]:
    return next((f.status, f.because) for f in check_run(scenario, run) if f.law == law)


def test_a_rule_without_a_proven_bound_leaves_the_bound_unjudged() -> None:
    scenario = _scenario(system="rule: covariance_filter")
    run, _ = _run(scenario)
    assert _status(scenario, run, "within_bound") == (
        "CANNOT_TELL",
        "none of 3 rounds can be judged: no proven bound applies",
    )


def _refused(run: Run, missing: dict[str, str]) -> Run:
    """The first round turned into a refusal; whoever is not named is left unused."""
    unused = dict.fromkeys(run.members, "unused: the round was refused")
    verdict = Refused(round=1, reason="too few", rejected={}, missing={**unused, **missing})
    first = dataclasses.replace(run.rounds[0], verdict=verdict, measured=None, kappa=None)
    return dataclasses.replace(run, rounds=(first, *run.rounds[1:]))


def test_the_bound_checker_says_how_many_rounds_it_judged() -> None:
    scenario = _scenario()
    run, _ = _run(scenario)
    assert _status(scenario, run, "within_bound") == ("HOLDS", "in all 3 rounds")
    assert _status(scenario, _refused(run, {}), "within_bound") == (
        "HOLDS",
        "in 2 of 3 rounds; the others cannot be judged: there is no result",
    )


def test_a_refusal_inside_the_budget_is_seen_and_one_beyond_it_is_not_blamed() -> None:
    scenario = _scenario()
    run, _ = _run(scenario)
    late = {f"w{index}": "late" for index in range(3)}
    inside = _broken(scenario, _refused(run, {"w0": "late", "w1": "crashed"}))["answered"]
    assert inside == (
        "refused inside the budget (too few): 0 Byzantine, 2 absent or found out of 7 members; 5 are enough"
    )
    assert "answered" not in _broken(scenario, _refused(run, late))


def test_a_refusal_with_more_liars_than_were_promised_is_not_blamed() -> None:
    scenario = _scenario()
    run, _ = _run(scenario)
    refused = _refused(run, {})
    first = dataclasses.replace(refused.rounds[0], byzantine=("w0", "w1", "w2"))
    assert "answered" not in _broken(scenario, dataclasses.replace(refused, rounds=(first, *refused.rounds[1:])))


def test_a_refusal_because_every_aggregator_was_killed_is_not_blamed() -> None:
    scenario = _scenario("{action: crash, target: [h0, h1, h2, h3], at: {round: 1, stage: combine}}")
    run, _ = _run(scenario)
    assert not isinstance(run.rounds[0].verdict, Accepted)
    assert _broken(scenario, run) == {}


def test_absent_members_of_a_refused_round_count_towards_the_budget() -> None:
    scenario = _scenario()
    scenario = scenario.model_copy(update={"expect": Expect(always=("budget_kept",))})
    run, _ = _run(scenario)
    assert _broken(scenario, _refused(run, {"w0": "late"})) == {}
    everyone = _refused(run, dict.fromkeys(run.members, "crashed"))
    assert _broken(scenario, everyone) == {
        "budget_kept": "2 x 0 Byzantine + 7 absent is not below 7 members",
    }


def test_the_deadline_checker_sees_a_round_that_overran() -> None:
    scenario = _scenario()
    run, _ = _run(scenario)
    late = dataclasses.replace(run.rounds[0], ended=run.rounds[0].deadline + 0.001)
    assert "after its deadline" in _broken(scenario, dataclasses.replace(run, rounds=(late,)))["by_deadline"]


def test_the_agreement_checker_names_the_first_round_that_differs() -> None:
    scenario = _scenario()
    run, _ = _run(scenario)
    assert check_agreement(scenario, run, run).status == "HOLDS"
    other = _tampered(run, missing={"w1": "late"})
    finding = check_agreement(scenario, run, other)
    assert (finding.status, finding.round) == ("BROKEN", 1)


@pytest.mark.parametrize(("rule", "status"), [("trimmed_mean", "BROKEN"), ("geometric_median", "HOLDS")])
def test_other_bits_break_the_agreement_of_a_rule_that_gives_the_same_bits_in_any_order(rule: str, status: str) -> None:
    scenario = _scenario(system=f"rule: {rule}")
    run, _ = _run(scenario)
    assert check_agreement(scenario, run, run).because.startswith(
        "the same verdict in all 3 rounds, the same bits in 3"
    )
    finding = check_agreement(scenario, run, _tampered(run, digests=("other",)))
    assert (finding.status, finding.round) == (status, 1 if status == "BROKEN" else None)
    assert "the same bits in 2 of 3 with a result" in finding.because


# ------------------------------------------------------------------------------------------------ traces


def test_a_trace_is_read_back_and_a_changed_or_cut_one_is_refused(tmp_path: Path) -> None:
    _, trace = _run(_scenario())
    path = tmp_path / "trace.jsonl"
    trace.write(path)
    assert read_trace(path).events == trace.events
    lines = path.read_text().splitlines()
    for damaged in (lines[:-2] + lines[-1:], [*lines[:1], lines[1].replace("1", "2", 1), *lines[2:]]):
        path.write_text("\n".join(damaged))
        with pytest.raises(WireError, match="it was changed or cut; run again"):
            read_trace(path)
    path.write_text("{}")
    with pytest.raises(WireError, match=r"wanted a trace of format hqde\.trace/v1"):
        read_trace(path)


def test_trace_lines_are_json_with_time_in_seconds() -> None:
    _, trace = _run(_scenario())
    json.dumps(trace.events, allow_nan=False)
    assert all(event["time"] >= 0 for event in trace.events)
    assert {event["event"] for event in trace.events} == {"round began", "round ended", "span"}


def test_the_main_scenario_shows_what_it_says() -> None:
    scenario = load_scenario(Path("scenarios/minority_third.yaml"))
    execution = conclude(scenario, list(run_all(scenario, on="sim")))
    assert exit_code(execution) == 0
    laws = [judged.finding.law for judged in execution.findings]
    assert {"robust stays near healthy", "mean collapses", "last_round whole"} <= set(laws)


def test_accuracies_of_rounds_that_were_refused_say_nothing_of_a_rule() -> None:
    """A round that is too short for anything: all stay where they began, near to each other."""
    scenario = parse_scenario(
        """
apiVersion: hqde.sim/v1
metadata: {name: hasty}
system: {workers: 7, hosts: 3, faulty_max: 2, round_within: 1ms}
workload: {rounds: 2, batch: 70, steps: 1}
faults: [{action: byzantine, target: minority-third, attack: {name: sign_flip}, during: {rounds: [1, 2]}}]
expect: {always: [accounted], healthy_gap: 0.01, mean_gap: 0.0}
""",
        file="hasty.yaml",
    )
    execution = conclude(scenario, list(run_all(scenario, on="sim")))
    found = {one.finding.law: one.finding for one in execution.findings if one.variant == "all"}
    assert {finding.status for finding in found.values()} == {"CANNOT_TELL"}
    assert found["robust stays near healthy"].because.endswith(
        "but 'no faults' was refused in 2 of 2 rounds, first in round 1"
    )
    assert "was refused in 2 of 2 rounds" in found["mean collapses"].because
    assert exit_code(execution) == 2
