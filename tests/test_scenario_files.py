"""Scenario files: what is accepted, and that each mistake is one line that says where and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hqde_ref.errors import ScenarioError
from simulator.scenario import Scenario
from simulator.scenario_reading import load_scenario, parse_scenario
from simulator.streams import stream
from simulator.targets import Fixed, FixedPercent, choose_targets, target_count

GOOD = """
apiVersion: hqde.sim/v1
metadata: {name: small, clauses: [0.4, "4.10"]}
seed: 1
system: {workers: 7, hosts: 3, faulty_max: 2, round_within: 90ms}
workload: {rounds: 3}
faults:
  - {action: byzantine, target: minority-third, attack: {name: ipm, epsilon: 10}, during: {rounds: [1, 2]}}
  - {action: crash, target: h1, at: {round: 2}}
"""


def test_a_good_file_is_read_with_its_units_and_clauses() -> None:
    scenario = parse_scenario(GOOD, file="good.yaml")
    assert scenario.system.round_within == pytest.approx(0.09)
    assert scenario.metadata.clauses == ("0.4", "4.10")
    assert len(scenario.aim(0)) == 2
    assert scenario.aim(1) == ("h1",)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seed: 1", "sed: 1", "bad.yaml: sed: unknown key 'sed'; did you mean 'seed'?"),
        ("hosts: 3", "hosts: 3, rul: x", "bad.yaml: system.rul: unknown key 'rul'; did you mean 'rule'?"),
        (
            "faulty_max: 2",
            "faulty_max: 3",
            "bad.yaml: system: faulty_max must be at least 0 and below a third of 7 members (3f < n), got 3; "
            "lower it to 2 or add workers.",
        ),
        (
            "hosts: 3",
            "hosts: 3, branching: 1",
            "bad.yaml: system: branching must be an integer of at least 2, got 1; "
            "with fewer than two children a node the tree would never end.",
        ),
        ("hosts: 3", "hosts: 8", "bad.yaml: system: hosts: wanted at most one a worker (7), got 8"),
        ("workers: 7", "workers: 0", "bad.yaml: system.workers: wanted greater than or equal to 1, got 0"),
        ("workers: 7, ", "", "bad.yaml: system.workers: is required and missing"),
        (
            "round_within: 90ms",
            "round_within: 90",
            "bad.yaml: system.round_within: wanted a duration such as 90ms or 2s (units: ns, us, ms, s, m, h), got 90",
        ),
        ("hosts: 3", "hosts: 3, rule: geometric_medan", "geometric_median"),
        ("name: ipm", "name: imp", "did you mean 'ipm'"),
        ("epsilon: 10", "epsilom: 10", "option of ipm must be epsilon, got 'epsilom'"),
        ("action: crash", "action: crsh", "bad.yaml: faults[1].action: unknown action 'crsh'; did you mean 'crash'?"),
        ("target: h1", "target: h7", "bad.yaml: faults[1].target: there is no 'h7'"),
        ("hosts: 3", "hosts: 3, slow_factor: 1", "bad.yaml: system.slow_factor: wanted greater than 1, got 1"),
        (
            "hosts: 3",
            "hosts: 3, slow_factor: 2, apart: true",
            "bad.yaml: system: slow_factor: wanted none with apart, where no member's time tells that of an aggregator",
        ),
        (
            "hosts: 3",
            "hosts: 3, crowds: true",
            "bad.yaml: faults[0].action: byzantine is for members, and crowds answer for them; "
            "wanted crash, pause or slow, or a system without crowds",
        ),
        ("target: h1", "target: g1", "bad.yaml: faults[1].target: there is no 'g1'"),
        ("at: {round: 2}", "at: {round: 4}", "bad.yaml: faults[1]: round 4 is after the last round, 3"),
        ("rounds: [1, 2]", "rounds: [2, 1]", "the last, 1, is before the first, 2"),
        ("target: minority-third", "target: {fixed: 9}", "bad.yaml: faults[0].target: wanted 9 of only 7"),
        ("apiVersion: hqde.sim/v1", "apiVersion: hqde.sim/v2", "bad.yaml: apiVersion: wanted 'hqde.sim/v1'"),
        ("seed: 1", "seed: [", "bad.yaml: is not YAML"),
        ("seed: 1", "seed: 1\nseed: 2", "key 'seed' stands twice"),
        ("seed: 1", "seed: 99999999999999999999", "bad.yaml: seed: wanted less than or equal to 9223372036854775807"),
        ("seed: 1", "2026-99-99: 1", "bad.yaml: is not YAML"),
        ("epsilon: 10", "epsilon: [1]", "option epsilon: wanted a number, got [1]"),
        (
            "round_within: 90ms",
            "round_within: .inf",
            "wanted a duration such as 90ms or 2s (units: ns, us, ms, s, m, h), got inf",
        ),
        (
            "round_within: 90ms",
            "round_within: 8.0",
            "wanted a duration such as 90ms or 2s (units: ns, us, ms, s, m, h), got 8.0",
        ),
        (
            "target: h1",
            "target: 3",
            "bad.yaml: faults[1].target: wanted one, all, minority, majority, minority-third, {fixed",
        ),
        (
            "target: h1",
            "target: {fixed: -1}",
            "bad.yaml: faults[1].target.fixed: wanted greater than or equal to 0, got -1",
        ),
        (
            "target: h1",
            "target: {fixd: 1}",
            "bad.yaml: faults[1].target.fixd: unknown key 'fixd'; did you mean 'fixed'?",
        ),
        ("target: h1", "target: [h1, 2]", "bad.yaml: faults[1].target[1]: wanted a valid string, got 2"),
        ("target: h1", "target: {fixed-percent: 200}", "bad.yaml: faults[1].target.fixed-percent: wanted less than or"),
        ("action: crash, ", "", "bad.yaml: faults[1].action: is required and missing"),
        ("at: {round: 2}", "at: {}", "bad.yaml: faults[1].at.round: is required and missing"),
        (
            "at: {round: 2}",
            "at: {round: 2, stage: x}",
            "bad.yaml: faults[1].at.stage: wanted 'train', 'screen', 'combine'",
        ),
        (", attack: {name: ipm, epsilon: 10}", "", "bad.yaml: faults[0].attack: is required and missing"),
        ("rounds: [1, 2]", "rounds: [1, x]", "bad.yaml: faults[0].during.rounds[1]: wanted a valid integer, got 'x'"),
        ("0.4, ", "4.11, 99.9, ", "bad.yaml: metadata.clauses: there is no clause '99.9'; there are 0.1 to 6.8"),
        ("0.4, ", "0.44, ", "bad.yaml: metadata.clauses: there is no clause '0.44'; did you mean 0.4?"),
        ("name: ipm, epsilon: 10", "name: label_flop", "did you mean 'label_flip'"),
        (
            "name: ipm, epsilon",
            "name: label_flip, epsilon",
            "option of label_flip must be none, got 'epsilon'; remove it",
        ),
        ("round_within: 90ms", "round_within: 0s", "bad.yaml: system.round_within: wanted greater than 0"),
        ("round_within: 90ms", "round_within: 90ms, shards: 3", "shards: wanted none with topology"),
        (
            "round_within: 90ms",
            "round_within: 90ms, topology: tree, branching: 10, crowds: true",
            "bad.yaml: system: crowds: wanted false with the robust rule geometric_median on topology tree, whose "
            "groups are not the crowds, got true; use topology flat or sharded, or rule weighted_mean",
        ),
        (
            "round_within: 90ms",
            "round_within: 90ms, topology: mapreduce, rule: weighted_mean, crowds: true",
            "bad.yaml: system: crowds: wanted false with topology mapreduce, whose mappers members feed one by one, "
            "got true; use another topology",
        ),
        ("target: h1", "target: x99", "there is no 'x99'; there are h0, h1"),
        (
            "rounds: 3",
            "rounds: 3, batch: 6",
            "bad.yaml: workload.batch: wanted at least one sample for each of 7 workers, or those that train would be "
            "the outliers of geometric_median, got 6; give a larger batch, or rule weighted_mean",
        ),
    ],
)
def test_a_mistake_is_one_line_that_says_where_and_what(old: str, new: str, sentence: str) -> None:
    assert old in GOOD
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(GOOD.replace(old, new), file="bad.yaml")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_collapse_of_the_mean_is_expected_of_lies_alone() -> None:
    text = GOOD.replace("  - {action: byzantine", "  #").rstrip() + "\nexpect: {mean_gap: 0.1}\n"
    sentence = "bad.yaml: expect.mean_gap: wanted with a fault that a mean suffers from, byzantine or corrupt, got none"
    with pytest.raises(ScenarioError, match=re.escape(sentence)):
        parse_scenario(text, file="bad.yaml")


def test_a_file_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(ScenarioError, match="is nested too deeply"):
        parse_scenario("[" * 20_000, file="bad.yaml")


@pytest.mark.parametrize("text", ["", "3", "- a", "null"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ScenarioError, match="wanted a mapping with apiVersion"):
        parse_scenario(text, file="bad.yaml")


def test_a_file_that_is_not_there_suggests_a_near_one(tmp_path: Path) -> None:
    (tmp_path / "minority.yaml").write_text(GOOD)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(tmp_path / "minoritty.yaml")
    assert str(caught.value).endswith(f"there is no such file; did you mean {tmp_path / 'minority.yaml'}?")


def test_yaml_tags_that_run_code_are_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(ScenarioError, match="is not YAML"):
        parse_scenario(f"seed: !!python/object/apply:os.system ['touch {marker}']", file="bad.yaml")
    assert not marker.exists()


def test_every_shipped_scenario_is_valid_and_says_what_it_shows() -> None:
    paths = sorted(Path("scenarios").glob("*.yaml"))
    assert paths
    for path in paths:
        scenario = load_scenario(path)
        assert scenario.metadata.description
        assert scenario.metadata.clauses


def test_the_schema_describes_the_keys_as_files_spell_them() -> None:
    schema = Scenario.model_json_schema(by_alias=True)
    assert "apiVersion" in schema["properties"]
    latency = schema["$defs"]["NetworkModel"]["properties"]["latency"]
    assert (latency["type"], latency["default"]) == ("string", "1ms")
    assert all(re.search(latency["pattern"], text) for text in ("1ms", "2s", "0.5h", " 90 us "))
    assert not any(re.search(latency["pattern"], text) for text in ("0.001", "1d", "x1ms", "1msx"))


@pytest.mark.parametrize(("text", "seconds"), [("3ms", 0.003), ("2s", 2.0), ("1.5m", 90.0), ("1h", 3600.0)])
def test_durations_are_seconds_whatever_their_unit(text: str, seconds: float) -> None:
    scenario = parse_scenario(GOOD.replace("round_within: 90ms", f"round_within: {text}"), file="good.yaml")
    assert scenario.system.round_within == pytest.approx(seconds)


def test_the_schema_names_kinds_of_target_as_files_do() -> None:
    schema = Scenario.model_json_schema(by_alias=True)
    assert "fixed-percent" in schema["$defs"]["FixedPercent"]["properties"]


@pytest.mark.parametrize("n", range(1, 40))
def test_minority_third_is_the_largest_f_with_3f_below_n(n: int) -> None:
    assert target_count("minority-third", population=n) == max(f for f in range(n + 1) if 3 * f < n)


def test_targets_are_counted_and_placed_as_worded() -> None:
    names = [f"w{index}" for index in range(10)]

    def chosen(target: object, placement: str = "random") -> tuple[str, ...]:
        return choose_targets(target, names, draw=stream(3, "x"), placement=placement)  # type: ignore[arg-type]

    assert chosen("all") == tuple(names)
    assert chosen(Fixed(fixed=3), "packed") == ("w0", "w1", "w2")
    assert chosen(Fixed(fixed=3), "spread") == ("w0", "w3", "w6")
    assert len(chosen(FixedPercent(**{"fixed-percent": 25}))) == 2
    assert chosen(("w4", "w2")) == ("w2", "w4")
    assert len(chosen("majority")) == 6
    assert len(chosen("minority")) == 4
    assert chosen("one") == chosen("one"), "the same stream gives the same target"
