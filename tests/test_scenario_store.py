"""A scenario's weight store: the state travels through it, faults strike it, and the judge sees one that cheats."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hqde_ref.errors import RuntimeFault, ScenarioError
from hqde_ref.messages import (
    UNANSWERED,
    Accepted,
    Acknowledged,
    Get,
    Look,
    Put,
    Reply,
    Request,
    Stored,
)
from hqde_ref.nodes import store as nodes
from hqde_ref.rounds import storing
from simulator import storage
from simulator.checkers import check_run
from simulator.cli import validate
from simulator.execution import conclude, run_all, summarise
from simulator.fragile import Damage, Fragile, Reset
from simulator.printing import print_execution
from simulator.records import ReadBack, Run, Written
from simulator.report import write_report
from simulator.runner import run_variant
from simulator.scenario import Scenario
from simulator.scenario_reading import load_scenario, parse_scenario
from simulator.scenario_store import STATE_KEY
from simulator.streams import stream
from simulator.worlds import SimulatedWorld
from tests.store_scenarios import BASE, FIVE, HOLDERS, broken_law, column_of, plant_store, small, stored_law, written

# ------------------------------------------------------------------------------------------------ the state travels


def test_the_state_goes_through_the_store_and_the_results_are_the_bits_of_a_run_without() -> None:
    through, _ = written(small())
    straight, _ = written(small(store=""))
    digests = [[r.verdict.digest for r in run.rounds if isinstance(r.verdict, Accepted)] for run in (through, straight)]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 3
    assert column_of(through, "from round") == [0, 1, 2]
    assert column_of(through, "stored") == [True, True, True]
    assert through.last is not None
    assert through.round_of(through.last) == 3
    assert "stored" not in straight.outcome()[0]


def test_the_same_scenario_gives_the_same_trace_whatever_ran_before() -> None:
    crash = f"{{action: crash, target: {HOLDERS[0]}, at: {{round: 2, stage: write}}}}"
    digests = {written(small(crash))[1].digest for _ in range(3)}
    assert len(digests) == 1
    assert written(small())[1].digest not in digests


def test_a_result_without_a_quorum_is_not_called_written_and_the_round_after_goes_on_from_the_one_before() -> None:
    scenario = small(
        f"{{action: pause, target: [{HOLDERS[0]}, {HOLDERS[1]}], stage: write, during: {{rounds: [2, 2]}}}}"
    )
    run, _ = written(scenario)
    assert column_of(run, "accepted") == [True, True, True]
    assert column_of(run, "stored") == [True, False, True]
    assert column_of(run, "from round") == [0, 1, 1]
    assert run.rounds[1].kept is not None
    assert run.rounds[1].kept.written is not None
    assert "1 of 2 stores told their version, so nothing was written" in run.rounds[1].kept.written.reason
    assert stored_law(scenario, run)[0] == "HOLDS"


def test_without_a_read_quorum_rounds_are_refused_and_nobody_is_blamed() -> None:
    scenario = small(f"{{action: crash, target: [{HOLDERS[0]}, {HOLDERS[1]}], at: {{round: 1, stage: write}}}}")
    run, _ = written(scenario)
    assert column_of(run, "accepted") == [True, False, False]
    assert column_of(run, "stores out") == [["s0", "s2"]] * 3
    assert getattr(run.rounds[1].verdict, "reason", "").startswith("the state was not read: ")
    assert {f.law: f.status for f in check_run(scenario, run)} == {
        "accounted": "HOLDS",
        "within_bound": "HOLDS",
        "by_deadline": "HOLDS",
        "answered": "HOLDS",
        "stored": "HOLDS",
    }


def test_a_store_that_lost_its_memory_serves_again_after_the_round() -> None:
    run, trace = written(small(f"{{action: crash, target: {HOLDERS[0]}, at: {{round: 2, stage: read}}}}"))
    assert column_of(run, "stores out") == [[], [], []]
    rejoined = [(event["round"], event["store"]) for event in trace.events if event["event"] == "store rejoined"]
    assert rejoined == [(2, HOLDERS[0])]


def test_a_store_that_never_comes_back_is_told_and_missed_by_nobody() -> None:
    scenario = small(f"{{action: crash, target: {HOLDERS[0]}, at: {{round: 1, stage: write}}, restart: never}}")
    run, _ = written(scenario)
    assert column_of(run, "stores out") == [[HOLDERS[0]]] * 3
    assert stored_law(scenario, run) == ("HOLDS", None, "in all 3 rounds")


def test_a_second_run_in_the_same_world_begins_with_empty_stores_that_all_serve() -> None:
    scenario = small(
        f"{{action: crash, target: [{HOLDERS[0]}, {HOLDERS[1]}], at: {{round: 1, stage: write}}, restart: never}}"
    )
    world = SimulatedWorld(scenario)
    run_variant(scenario, world)
    run, _ = run_variant(scenario, world, variant="no faults")
    assert column_of(run, "stored") == [True, True, True]
    assert column_of(run, "stores out") == [[], [], []]


def test_a_store_under_two_pauses_goes_on_when_the_later_one_ends() -> None:
    first = "{action: pause, target: s2, stage: write, during: {rounds: [1, 2]}}"
    run, _ = written(small(first, "{action: pause, target: [s2], stage: read, during: {rounds: [2, 3]}}"))
    confirmed = [r.kept.written.stores for r in run.rounds if r.kept is not None and r.kept.written is not None]
    assert confirmed == [("s0", "s1")] * 3


def test_a_stopped_store_that_was_killed_and_is_back_may_confirm() -> None:
    pause = "{action: pause, target: s2, stage: read, during: {rounds: [1, 3]}}"
    scenario = small(pause, "{action: crash, target: s2, at: {round: 2, stage: write}}")
    run, _ = written(scenario)
    kept = run.rounds[2].kept
    assert kept is not None
    assert kept.written is not None
    assert "s2" in kept.written.stores
    assert stored_law(scenario, run)[0] == "HOLDS"


# ------------------------------------------------------------------------------------------------ stores that cheat


class _Forgets(Fragile):
    """It confirms, and keeps nothing once it holds a value."""

    def perform(self, request: Request, /) -> Reply:
        reply = super().perform(request)
        if isinstance(request, Put) and request.version.counter > 1:
            self._held.clear()
        return reply


class _KeepsTheFirst(Fragile):
    """It confirms every write, and goes on returning the first value under the newest version's name."""

    def perform(self, request: Request, /) -> Reply:
        held = self._held.get(STATE_KEY)
        if isinstance(request, Put) and held is not None:
            self._held[STATE_KEY] = dataclasses.replace(held, version=request.version)
            return Stored(by=self._standing(), key=request.key, version=request.version)
        return super().perform(request)


class _ReturnsAnOlderVersion(Fragile):
    """It confirms every write and keeps the first, version and all."""

    def perform(self, request: Request, /) -> Reply:
        if isinstance(request, Put) and STATE_KEY in self._held:
            return Stored(by=self._standing(), key=request.key, version=request.version)
        return super().perform(request)


@pytest.mark.parametrize(
    ("kind", "because"),
    [
        (_Forgets, "round 2: nothing was read (there is no key 'published state'"),
        (
            _KeepsTheFirst,
            "round 2: what was read is nothing that was written: version (2, 'harness'), not the bytes of the",
        ),
        (_ReturnsAnOlderVersion, "round 2: the first state was read, which is older than the result of round 1"),
    ],
)
def test_a_store_that_forgets_or_returns_something_old_is_caught(
    monkeypatch: pytest.MonkeyPatch, kind: type[Fragile], because: str
) -> None:
    plant_store(monkeypatch, kind)
    scenario = small()
    run, _ = written(scenario)
    assert because in broken_law(scenario, run)


def test_a_write_that_is_acknowledged_with_a_single_copy_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty(*args: Any, **options: Any) -> Any:
        outcome = storing.put(*args, **options)
        return dataclasses.replace(outcome, stores=outcome.stores[:1]) if isinstance(outcome, Acknowledged) else outcome

    monkeypatch.setattr(storage, "put", hasty)
    scenario = small()
    assert broken_law(scenario, written(scenario)[0]) == (
        "round 1: the write is called acknowledged, but 1 of 2 stores confirmed it (s2)"
    )


def test_a_write_that_names_a_stopped_store_among_its_quorum_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def boastful(*args: Any, **options: Any) -> Any:
        outcome = storing.put(*args, **options)
        return Acknowledged(key=outcome.key, version=outcome.version, stores=HOLDERS[:2])

    monkeypatch.setattr(storage, "put", boastful)
    scenario = small(f"{{action: pause, target: {HOLDERS[0]}, stage: write, during: {{rounds: [2, 2]}}}}")
    assert broken_law(scenario, written(scenario)[0]) == (
        "round 2: the write is called acknowledged, but 1 of 2 stores confirmed it (s0; s2 cannot have)"
    )


def test_a_single_real_copy_that_is_lost_shows_in_the_next_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim looks like a quorum, but only the store that then dies has it."""

    def lonely(runtime: Any, plan: Any, *args: Any, **options: Any) -> Any:
        alone = dataclasses.replace(plan, stores=(HOLDERS[0],), copies=1, writes=1, reads=1)
        outcome = storing.put(runtime, alone, *args, **options)
        return dataclasses.replace(outcome, stores=HOLDERS[:2])

    monkeypatch.setattr(storage, "put", lonely)
    scenario = small(f"{{action: crash, target: {HOLDERS[0]}, at: {{round: 2, stage: read}}}}")
    assert broken_law(scenario, written(scenario)[0]) == (
        "round 2: the first state was read, which is older than the result of round 1"
    )


def test_damage_that_is_served_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes._Held, "is_whole", lambda self: self.content is not None)
    scenario = small(f"{{action: damage, target: {HOLDERS[0]}, at: {{round: 2, stage: read}}}}")
    assert "round 2: what was read is nothing that was written" in broken_law(scenario, written(scenario)[0])


def test_a_copy_damaged_so_that_its_digest_fits_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "Damage", lambda key, mark: Damage(key=key, mark=mark, unseen=True))
    scenario = small(f"{{action: damage, target: {HOLDERS[0]}, at: {{round: 3, stage: read}}}}")
    assert "round 3: what was read is nothing that was written" in broken_law(scenario, written(scenario)[0])


def test_a_read_that_gives_up_within_what_is_to_be_put_up_with_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shy(Fragile):
        def perform(self, request: Request, /) -> Reply:
            wanted = isinstance(request, Look) and request.whole and self._held
            return self._damaged(STATE_KEY) if wanted else super().perform(request)

    plant_store(monkeypatch, Shy)
    scenario = small()
    because = broken_law(scenario, written(scenario)[0])
    assert because.startswith("round 1: nothing was read (0 of 2 stores have a whole copy or none")
    assert because.endswith("although no store may fail, and 1 are to be put up with")


def test_a_store_that_stays_out_without_need_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.Storage, "_rejoin", lambda self, number, store: False)
    scenario = small(f"{{action: crash, target: {HOLDERS[0]}, at: {{round: 1, stage: write}}}}")
    assert (
        broken_law(scenario, written(scenario)[0])
        == "round 1: s2 does not serve again, although every other store does"
    )


def test_two_stores_that_stay_out_although_nothing_struck_them_are_caught() -> None:
    scenario = small()
    assert broken_law(scenario, _with_kept(written(scenario)[0], 1, out=("s0", "s1"))) == (
        "round 1: s0 does not serve, although no fault has struck it"
    )


def test_two_stores_that_were_struck_together_may_stay_out() -> None:
    scenario = small("{action: crash, target: [s0, s1], at: {round: 1, stage: combine}}")
    assert stored_law(scenario, _with_kept(written(scenario)[0], 1, out=("s0", "s1")))[0] == "HOLDS"


def test_a_fault_of_the_next_round_excuses_no_store_that_stays_out() -> None:
    scenario = small("{action: crash, target: s1, at: {round: 3, stage: train}}")
    assert broken_law(scenario, _with_kept(written(scenario)[0], 2, out=("s0",))) == (
        "round 2: s0 does not serve again, although every other store does"
    )


def test_stores_lost_with_their_machine_rejoin_even_one_that_was_stopped_for_copies_lie_on_distinct_ones() -> None:
    pause = "{action: pause, target: s1, during: {rounds: [1, 2]}}"
    remove = "{action: remove, target: n1, at: {round: 1, stage: train}}"
    text = BASE.replace("hosts: 2", "hosts: 3").format(faults=f"{pause}, {remove}", rounds=3, store=FIVE + ", nodes: 3")
    scenario = parse_scenario(text, file="small.yaml")
    run, trace = written(scenario)
    rejoined = [(event["round"], event["store"]) for event in trace.events if event["event"] == "store rejoined"]
    assert rejoined == [(1, "s1"), (1, "s4")]
    assert column_of(run, "stores out") == [[], [], []]
    assert stored_law(scenario, run)[0] == "HOLDS"


def test_what_a_read_after_the_last_round_shows_counts() -> None:
    scenario = small()
    run, _ = written(scenario)
    assert run.last is not None
    old = run.rounds[1].kept
    assert old is not None
    stale = dataclasses.replace(run, last=old.read)
    assert broken_law(scenario, stale) == (
        "round 3: afterwards: the result of round 1 was read, which is older than the result of round 3"
    )


def _with_kept(run: Run, number: int, **changes: Any) -> Run:
    rounds = list(run.rounds)
    kept = rounds[number - 1].kept
    assert kept is not None
    rounds[number - 1] = dataclasses.replace(rounds[number - 1], kept=dataclasses.replace(kept, **changes))
    return dataclasses.replace(run, rounds=tuple(rounds))


def test_the_judge_sees_a_needless_refusal_to_write_and_a_round_from_nothing() -> None:
    scenario = small()
    run, _ = written(scenario)
    refused = Written(version=None, content="x", acknowledged=False, stores=(), reason="too few")
    assert broken_law(scenario, _with_kept(run, 3, written=refused)) == (
        "round 3: the write was not acknowledged (too few), although no store may fail, and 1 are to be put up with"
    )
    lossy = small("{action: crash, target: [s0, s1], at: {round: 2, stage: combine}}")
    nothing = ReadBack(version=None, content=None, reason="none")
    assert broken_law(lossy, _with_kept(run, 2, read=nothing)) == (
        "round 2: it was accepted, although there was no state to start from"
    )


def test_a_write_that_was_not_acknowledged_may_be_read_and_then_it_stays() -> None:
    scenario = small("{action: crash, target: [s0, s1], at: {round: 1, stage: combine}}")
    run, _ = written(small())
    maybe = run.rounds[0].kept
    assert maybe is not None
    assert maybe.written is not None
    unsure = _with_kept(run, 1, written=dataclasses.replace(maybe.written, acknowledged=False, reason="1 of 2"))
    assert stored_law(scenario, unsure)[0] == "HOLDS"
    back = _with_kept(unsure, 3, read=maybe.read)
    assert broken_law(scenario, back) == "round 3: the first state was read, which is older than the result of round 2"


def test_stores_that_do_not_take_the_first_state_end_the_run_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(Fragile):
        def perform(self, request: Request, /) -> Reply:
            return self._not_serving(0) if isinstance(request, Get | Look) else super().perform(request)

    plant_store(monkeypatch, Deaf)
    with pytest.raises(RuntimeFault, match=r"the weight store: did not take the first state \(0 of 2 stores told"):
        written(small())


@pytest.mark.parametrize(("network", "times"), [("latency: 1ms", 1), ("lost_requests: 0.01", 10)])
def test_stores_that_do_not_begin_are_all_named_and_asked_again_only_where_messages_get_lost(
    monkeypatch: pytest.MonkeyPatch, network: str, times: int
) -> None:
    asked = []

    class Dead(Fragile):
        def perform(self, request: Request, /) -> Reply:
            if self._name not in ("s1", "s3") or not isinstance(request, Reset):
                return super().perform(request)
            asked.append(self._name)
            return UNANSWERED

    plant_store(monkeypatch, Dead)
    text = BASE.format(faults="", rounds=1, store=FIVE).replace("latency: 1ms", network)
    with pytest.raises(RuntimeFault) as caught:
        written(parse_scenario(text, file="small.yaml"))
    assert str(caught.value) == "the weight store: s1, s3 did not begin (unreachable); run again."
    assert (asked.count("s1"), asked.count("s3")) == (times, times)


@pytest.mark.parametrize("network", ["lost_requests: 0.01", "lost_responses: 0.01", "loss: 0.01"])
def test_a_read_after_the_last_round_that_returns_nothing_is_excused_where_messages_get_lost(network: str) -> None:
    text = BASE.format(faults="", rounds=3, store=FIVE).replace("latency: 1ms", network)
    run = dataclasses.replace(written(small())[0], last=ReadBack(version=None, content=None, reason="none came"))
    assert stored_law(parse_scenario(text, file="small.yaml"), run) == (
        "CANNOT_TELL",
        None,
        "not judged in 1 of 3 rounds because messages get lost; round 3: afterwards: nothing was read (none came)",
    )
    assert stored_law(small(), run)[0] == "BROKEN"


@pytest.mark.parametrize("network", ["lost_requests: 0.01", "lost_responses: 0.01", "loss: 0.01"])
def test_silence_where_messages_get_lost_is_not_judged_and_that_is_what_the_record_says(network: str) -> None:
    text = BASE.format(faults="", rounds=3, store=FIVE).replace("latency: 1ms", network)
    lossy, run = parse_scenario(text, file="small.yaml"), written(small())[0]
    assert stored_law(lossy, run) == ("HOLDS", None, "in all 3 rounds")
    kept = run.rounds[2].kept
    assert kept is not None
    assert kept.written is not None
    silent = _with_kept(run, 3, written=dataclasses.replace(kept.written, acknowledged=False, reason="too few"))
    assert stored_law(lossy, silent) == (
        "CANNOT_TELL",
        None,
        "not judged in 1 of 3 rounds because messages get lost; round 3: the write was not acknowledged (too few)",
    )
    old = silent.rounds[0].kept
    assert old is not None
    assert broken_law(lossy, _with_kept(silent, 3, read=old.read)).startswith("round 3: the first state was read")
    assert stored_law(small(), silent)[0] == "BROKEN"


@pytest.mark.parametrize("network", ["lost_requests: 0.2", "lost_responses: 0.2"])
def test_stores_begin_although_messages_get_lost(network: str) -> None:
    text = BASE.format(faults="", rounds=1, store=", store: {within: 20s}").replace("latency: 1ms", network)
    for seed in range(10):
        run, _ = written(parse_scenario(text, file="small.yaml").model_copy(update={"seed": seed}))
        assert run.first is not None
        assert run.first.acknowledged


# ------------------------------------------------------------------------------------------------ what files may say


@pytest.mark.parametrize(
    ("store", "faults", "sentence"),
    [
        (
            ", store: {stores: 2, copies: 3}",
            "",
            "small.yaml: system.store: copies must be an integer from 1 to the number of stores (2), got 3; "
            "lower it or add stores.",
        ),
        (
            ", store: {writes: 1}",
            "",
            "small.yaml: system.store: writes + reads must be above copies=3, so that every read meets every write, "
            "got 3; raise writes or reads.",
        ),
        (", store: {stores: -1}", "", "small.yaml: system.store.stores: wanted greater than or equal to 1, got -1"),
        (", store: {stores: 0}", "", "small.yaml: system.store.stores: wanted greater than or equal to 1, got 0"),
        (", store: {copys: 3}", "", "small.yaml: system.store.copys: unknown key 'copys'; did you mean 'copies'?"),
        (", store: {stores: five}", "", "small.yaml: system.store.stores: wanted a valid integer, got 'five'"),
        (
            ", store: {within: 3}",
            "",
            "small.yaml: system.store.within: wanted a duration such as 90ms or 2s (units: ns, us, ms, s, m, h), got 3",
        ),
        (
            ", topology: sharded, store: {}",
            "",
            "small.yaml: system: store: wanted none with a state of 2 shards: several keys read together may mix two "
            "rounds; use shards: 1, another topology, or no store",
        ),
        (
            "",
            "{action: crash, target: h0, at: {round: 1, stage: write}}",
            "small.yaml: faults[0].at.stage: only a weight store has a stage write, wanted a system with a store",
        ),
        (
            "",
            "{action: pause, target: h0, stage: read, during: {rounds: [1, 1]}}",
            "small.yaml: faults[0].stage: only a weight store has a stage read, wanted a system with a store",
        ),
        (
            "",
            "{action: damage, at: {round: 1}}",
            "small.yaml: faults[0].action: damage is for what stores hold, wanted a system with a store",
        ),
        (FIVE, "{action: damage, target: h0, at: {round: 1}}", "small.yaml: faults[0].target: there is no 'h0'"),
        (FIVE, "{action: damage, at: {round: 4}}", "small.yaml: faults[0]: round 4 is after the last round, 3"),
        (FIVE, "{action: crash, target: s5, at: {round: 1}}", "small.yaml: faults[0].target: there is no 's5'"),
    ],
)
def test_a_mistake_about_the_store_is_one_line_that_says_what_to_do(store: str, faults: str, sentence: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        small(faults, store=store)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_the_law_needs_a_store_and_is_checked_where_there_is_one_unless_the_file_says_otherwise() -> None:
    law = "expect: {always: [stored]}\n"
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(BASE.format(faults="", rounds=3, store="") + law, file="small.yaml")
    assert "expect.always: stored is about the weight store, wanted a system with a store" in str(caught.value)
    assert "stored" in small().laws
    assert "stored" not in small(store="").laws
    text = BASE.format(faults="", rounds=3, store=FIVE) + "expect: {always: [accounted]}\n"
    assert parse_scenario(text, file="small.yaml").laws == ("accounted",)


def test_the_schema_has_the_store_its_fault_and_its_stages() -> None:
    known = Scenario.model_json_schema(by_alias=True)["$defs"]
    assert set(known["WeightStore"]["properties"]) == {"stores", "copies", "writes", "reads", "within"}
    assert set(known["Damage"]["properties"]) == {"action", "target", "at"}
    assert {"write", "read"} <= set(known["At"]["properties"]["stage"]["enum"])


def test_validate_says_which_stores_keep_the_state(capsys: pytest.CaptureFixture[str]) -> None:
    validate([Path("scenarios/store_stopped.yaml")])
    told = " ".join(capsys.readouterr().out.split())
    assert told == "scenarios/store_stopped.yaml: fine (6 workers, 6 rounds, state kept by s2, s0, s1)"


def test_the_store_scenarios_strike_the_stores_that_keep_the_state() -> None:
    """Where the state is kept depends on its key: a fault of another store would show nothing."""
    for path in sorted(Path("scenarios").glob("store_*.yaml")):
        scenario = load_scenario(path)
        assert scenario.system.store is not None
        assert scenario.system.store.plan().stores_of(STATE_KEY) == HOLDERS
        hit = {store for index in range(len(scenario.faults)) for store in scenario.aim(index)}
        assert hit <= set(HOLDERS), path


# ------------------------------------------------------------------------------------------------ what people see


def test_the_table_of_rounds_says_from_which_result_each_started() -> None:
    scenario = small("{action: crash, target: [s2, s0], at: {round: 2, stage: write}}")
    console = Console(width=120, file=io.StringIO(), record=True)
    print_execution(console, conclude(scenario, list(run_all(scenario, on="sim", variants=("as written",)))))
    text = console.export_text()
    assert "first, written" in text
    assert "from 1, not written" in text
    assert "none read, not written" in text


def test_a_run_of_which_nothing_was_finished_has_no_empty_tables() -> None:
    console = Console(width=120, file=io.StringIO(), record=True)
    print_execution(console, conclude(small(""), []))
    assert console.export_text() == "No variant was run to its end: there is nothing to show.\n"


def test_the_summary_and_the_report_say_what_the_store_did(tmp_path: Path) -> None:
    faults = (
        f"{{action: crash, target: {HOLDERS[0]}, at: {{round: 1, stage: write}}}}",
        f"{{action: damage, target: {HOLDERS[1]}, at: {{round: 2, stage: read}}}}",
        f"{{action: pause, target: [{HOLDERS[0]}, {HOLDERS[1]}], stage: write, during: {{rounds: [3, 3]}}}}",
    )
    scenario = small(*faults)
    done = list(run_all(scenario, on="sim", variants=("as written",)))
    done[0][1].write(tmp_path / "trace-sim-as-written.jsonl")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert (
        "the result was written as version 2, by s0, s1; s2 came back empty, was brought up to date and serves again"
        in (page)
    )
    assert "the state was read in version 2, and s0 repaired" in page
    assert "the result is not called written: 1 of 2 stores told their version" in page
    assert "one bit flipped" in page
    assert "k-store" in page
    rounds = summarise(conclude(scenario, done))["runs"][0]["rounds"]
    assert [(r["from round"], r["stored"]) for r in rounds] == [(0, True), (1, True), (2, False)]


# ------------------------------------------------------------------------------------------------ anything may happen


def _drawn(seed: int) -> str:
    """A scenario with some faults of stores, beyond what is to be put up with or not."""
    draw = stream(seed, "faults of stores")
    count = draw.choice([3, 4, 5])
    copies, writes, reads = draw.choice([(3, 2, 2), (3, 2, 2), (3, 3, 1), (2, 2, 1), (3, 2, 3), (1, 1, 1)])
    faults = []
    for _ in range(draw.randint(1, 4)):
        first, stage = draw.randint(1, 5), draw.choice(["read", "train", "combine", "publish", "write"])
        target = f"target: s{draw.randrange(count)}"
        at, during = (
            f"at: {{round: {first}, stage: {stage}}}",
            f"during: {{rounds: [{first}, {draw.randint(first, 5)}]}}",
        )
        back = draw.choice(["next-round", "never"])
        faults.append(
            draw.choice(
                [
                    f"{{action: crash, {target}, {at}, restart: {back}}}",
                    f"{{action: pause, {target}, stage: {stage}, {during}}}",
                    f"{{action: slow, {target}, factor: {draw.choice([2, 900])}, {during}}}",
                    f"{{action: damage, {target}, {at}}}",
                ]
            )
        )
    plan = f", store: {{stores: {count}, copies: {copies}, writes: {writes}, reads: {reads}}}"
    return BASE.format(faults=", ".join(faults), rounds=5, store=plan)


def test_whatever_befalls_the_stores_nothing_acknowledged_is_lost_and_nobody_is_blamed_without_cause() -> None:
    refused = unwritten = 0
    for seed in range(60):
        scenario = parse_scenario(_drawn(seed), file=f"drawn {seed}")
        run, _ = written(scenario)
        assert [f for f in check_run(scenario, run) if f.status == "BROKEN"] == [], seed
        refused += column_of(run, "accepted").count(False)
        unwritten += column_of(run, "stored").count(False)
    assert 0 < refused < unwritten, "some draws must go beyond what stores put up with"
