"""The report of a run: what stands on the page, what it says to damaged input, and that it needs nothing but itself."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hqde_ref.errors import ScenarioError, WireError
from simulator.records import Variant
from simulator.report import write_report
from simulator.report_data import natural
from simulator.report_time import format_seconds, plan_scale
from simulator.runner import run_variant
from simulator.scenario_reading import parse_scenario
from simulator.trace import Trace, read_trace
from simulator.worlds import SimulatedWorld

SCENARIO = """
apiVersion: hqde.sim/v1
metadata: {name: small, description: One lies and one hangs.}
seed: 3
system: {workers: 7, hosts: 3, rule: geometric_median, faulty_max: 2, round_within: 2s}
workload: {dataset: digits, model: mlp, rounds: 4, batch: 140, steps: 1}
network: {latency: 1ms}
faults:
  - {action: byzantine, target: [w1], attack: {name: ipm, epsilon: 10}, during: {rounds: [1, 2]}}
  - {action: crash, target: h1, at: {round: 2, stage: train}}
  - {action: pause, target: [h0, h1], during: {rounds: [3, 3]}}
"""
VARIANTS: tuple[Variant, ...] = ("as written", "mean instead", "no faults")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a run leaves it, all variants, in virtual time."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    scenario = parse_scenario(SCENARIO, file="small.yaml")
    for variant in VARIANTS:
        _, trace = run_variant(scenario, SimulatedWorld(scenario), variant=variant)
        trace.write(folder / f"trace-sim-{variant.replace(' ', '-')}.jsonl")
    return folder


def copy(ran: Path, to: Path, *, only: str = "*") -> Path:
    for path in ran.glob(f"trace-{only}.jsonl"):
        (to / path.name).write_bytes(path.read_bytes())
    (to / "scenario.yaml").write_bytes((ran / "scenario.yaml").read_bytes())
    return to


def made(*events: Mapping[str, Any], world: str = "sim", scenario: str = "made") -> Trace:
    trace = Trace(scenario=scenario, seed=1, world=world, variant="as written", version="0")
    for event in events:
        fields = dict(event)
        trace.add(fields.pop("event"), fields.pop("time"), **fields)
    return trace


def ended(number: int, **fields: Any) -> dict[str, Any]:
    usual = {
        "event": "round ended",
        "time": float(number),
        "round": number,
        "began": number - 0.5,
        "deadline": number + 1.0,
        "kind": "accepted",
        "used": ["w0", "w1"],
        "rejected": {},
        "missing": {},
        "byzantine": [],
        "accuracy": 0.5,
        "loss": 1.0,
    }
    return usual | fields


def page_of(folder: Path, *traces: Trace) -> str:
    for trace in traces:
        trace.write(folder / f"trace-{trace.header['world']}-as-written.jsonl")
    return write_report(folder).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------ what it shows


def test_every_round_and_member_is_shown_with_its_outcome(ran: Path, tmp_path: Path) -> None:
    page = write_report(copy(ran, tmp_path)).read_text(encoding="utf-8")
    for number in range(1, 5):
        assert page.count(f"Round {number} <span") == len(VARIANTS)
        for member in range(7):
            assert f"w{member}, round {number}: " in page, f"w{member} of round {number} is not on the page"


def test_every_reason_and_every_fault_is_told(ran: Path, tmp_path: Path) -> None:
    page = write_report(copy(ran, tmp_path, only="sim-as-written")).read_text(encoding="utf-8")
    ends = [e for e in read_trace(ran / "trace-sim-as-written.jsonl").events if e["event"] == "round ended"]
    reasons = [why for e in ends for why in [*e["rejected"].values(), *e["missing"].values(), e.get("reason", "")]]
    assert any(reasons)
    for reason in reasons:
        assert reason in page
    for chip in ("byzantine (ipm): w1", "crash: h1", "pause: h0, h1"):
        assert chip in page


def test_a_refused_round_says_why(ran: Path, tmp_path: Path) -> None:
    page = write_report(copy(ran, tmp_path, only="sim-as-written")).read_text(encoding="utf-8")
    refused = [e for e in read_trace(ran / "trace-sim-as-written.jsonl").events if e.get("kind") == "refused"]
    assert refused, "the scenario is meant to have a round with too few contributions"
    assert refused[0]["reason"] in page
    assert "3 of 4" in page


def test_a_contribution_beyond_the_limit_that_had_to_be_used_is_marked(tmp_path: Path) -> None:
    reason = {"w2": "outlier: distance 9 from the centre, 1.5 is allowed"}
    seen = ended(1, rejected=reason, limit=1.5, scores={"w0": 0.5, "w1": 8.0, "w2": 9.0}, byzantine=["w1", "w2"])
    page = page_of(tmp_path, made(seen))
    assert "distance 8 is beyond 1.5, but no more may be rejected" in page
    assert page.count('class="fate-used over"') == 1


def test_findings_head_the_page_with_the_broken_ones_first(ran: Path, tmp_path: Path) -> None:
    copy(ran, tmp_path, only="sim-as-written")
    found = [
        {"law": "accounted", "clause": "0.4", "status": "HOLDS", "because": "all named", "round": None, "world": "sim"},
        {"law": "within_bound", "clause": "4.5", "status": "BROKEN", "because": "too far", "round": 2, "world": "sim"},
    ]
    (tmp_path / "summary.json").write_text(json.dumps({"findings": found}), encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "1 law is broken" in page
    assert page.index("too far") < page.index("all named")


def test_worlds_that_agree_say_so_and_a_difference_is_named(tmp_path: Path) -> None:
    same = page_of(tmp_path, made(ended(1, digest="d")), made(ended(1, digest="d"), world="ray"))
    assert "same verdict in 1 of 1 rounds, same bits in 1" in same
    other = made(ended(1, used=["w0"], missing={"w1": "late"}), world="ray")
    assert "w1: used in sim, missing in ray" in page_of(tmp_path, other)


def test_a_round_says_how_its_deadline_was_met(tmp_path: Path) -> None:
    page = page_of(tmp_path, made(ended(1), ended(2, deadline=1.75)))
    assert "Deadline 1 s after the verdict" in page
    assert "Deadline 250 ms before the verdict" in page
    assert "1 after the deadline" in page


def test_one_trace_without_scenario_or_summary_is_enough(tmp_path: Path) -> None:
    page = page_of(tmp_path, made(ended(1)))
    assert "No findings were recorded" in page
    assert "only the simulator ran" in page


def test_a_run_without_rounds_is_a_page_that_says_so(tmp_path: Path) -> None:
    assert "no round was recorded" in page_of(tmp_path, made())


def test_numbers_that_are_not_finite_are_shown_and_not_drawn(tmp_path: Path) -> None:
    wild = ended(1, accuracy=float("nan"), error=float("inf"), bound=float("inf"), scores={"w0": float("inf")})
    page = page_of(tmp_path, made(wild, ended(2, error=0.0, bound=0.0)))
    assert "∞" in page
    assert not re.search(r'="[^"]*\b(nan|inf)\b[^"]*%?"', page), "a place on the page is not a number"


def test_a_great_run_stays_within_its_limits_and_says_what_it_left_out(tmp_path: Path) -> None:
    members = [f"w{index}" for index in range(1000)]
    work = {"event": "span", "node": "w0", "request": "Train", "outcome": "Contribution"}
    events = [
        event
        for number in range(1, 81)
        for event in (
            *({**work, "time": number - 0.4, "finish": number - 0.3, "host": f"h{host}"} for host in range(100)),
            ended(number, used=members),
        )
    ]
    page = page_of(tmp_path, made(*events))
    assert len(page) < 20e6
    assert "880 members to whom nothing happened, and the last 40 rounds" in page
    assert "40 rounds without faults are not drawn" in page
    assert "60 quiet hosts are not drawn" in page


# ------------------------------------------------------------------------------------------------ safety


def test_hostile_names_are_escaped_and_nothing_is_loaded(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    quote = "\"' onload=alert(2) </title><img src=x onerror=alert(3)>"
    span = {"event": "span", "time": 0.6, "finish": 0.7, "host": evil, "node": evil, "request": quote, "outcome": quote}
    fault = {"event": "fault", "time": 0.6, "round": 1, "action": quote, "hits": [evil], "attack": evil}
    seen = ended(1, used=[evil], rejected={quote: evil}, missing={"w": quote}, byzantine=[evil], rule=evil, digest=evil)
    page = page_of(tmp_path, made(span, fault, seen, ended(2, kind="refused", reason=evil), scenario=evil))
    assert page.count("<script>") == 1, "the page's own script is the only one"
    assert "<img" not in page
    assert evil.replace("<", "&lt;").replace(">", "&gt;") in page


def test_the_page_refers_to_nothing_outside_itself(ran: Path, tmp_path: Path) -> None:
    page = write_report(copy(ran, tmp_path)).read_text(encoding="utf-8")
    assert "://" not in page
    assert not re.search(r"<(link|img|iframe|object|embed|script)[^>]*(src|href)=\"(?!data:)", page)
    assert not re.search(r"@import|url\((?!#)", page)
    assert not re.search(r"\sstyle=", page), "the policy forbids styles in attributes"
    assert "default-src 'none'" in html.unescape(page)


def test_the_same_traces_give_the_same_bytes_in_another_process(ran: Path, tmp_path: Path) -> None:
    here = write_report(copy(ran, tmp_path)).read_bytes()
    code = f"import pathlib, simulator.report as r; r.write_report(pathlib.Path({str(tmp_path)!r}))"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    )
    assert (tmp_path / "report.html").read_bytes() == here


# ------------------------------------------------------------------------------------------------ bad input


def test_a_folder_without_traces_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"holds no trace-\*\.jsonl; name one that `hqde-sim run --out` wrote$"):
        write_report(tmp_path)
    with pytest.raises(ScenarioError, match="there is no such folder"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_truncated_trace_is_an_error_that_names_the_file(ran: Path, tmp_path: Path, cut: int) -> None:
    path = copy(ran, tmp_path) / "trace-sim-no-faults.jsonl"
    path.write_bytes(path.read_bytes()[: -cut - 1])
    with pytest.raises(WireError, match=r"trace-sim-no-faults\.jsonl: wanted .*, got .*; "):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"accuracy": "high"}, r"event 0: accuracy: wanted a number, got 'high'"),
        ({"round": True}, r"event 0: round: wanted a whole number, got True"),
        ({"used": "w0"}, r"event 0: used: wanted a list, got 'w0'"),
        ({"missing": ["w0"]}, r"event 0: missing: wanted a mapping, got \['w0'\]"),
    ],
)
def test_an_event_of_the_wrong_shape_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(WireError, match=says):
        page_of(tmp_path, made(ended(1, **change)))


def test_an_event_that_is_no_object_is_named(tmp_path: Path) -> None:
    trace = made(ended(1))
    trace.events.append([1])  # type: ignore[arg-type]
    with pytest.raises(WireError, match=r"wanted events that are objects, got \[1\]"):
        page_of(tmp_path, trace)


def test_traces_of_two_scenarios_in_one_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="wanted traces of one scenario and seed, got a with seed 1 and b with seed 1"):
        page_of(tmp_path, made(ended(1), scenario="a"), made(ended(1), scenario="b", world="ray"))


def test_a_summary_that_is_not_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"findings": [{"law": 3}]}', encoding="utf-8")
    with pytest.raises(WireError, match=r"summary\.json: findings\[0\]: law: wanted a text, got 3"):
        page_of(tmp_path, made(ended(1)))


def test_half_a_character_in_a_summary_does_not_stop_the_report(tmp_path: Path) -> None:
    found = {"law": "half \ud800", "status": "BROKEN"}
    (tmp_path / "summary.json").write_text(json.dumps({"findings": [found]}), encoding="utf-8")
    assert "half ?" in page_of(tmp_path, made(ended(1)))


# ------------------------------------------------------------------------------------------------ the time axis


def test_a_long_wait_is_cut_short_and_the_work_around_it_stays_readable() -> None:
    moments = [0.001, 0.002, 0.003, 0.004, 1.9, 1.901, 1.902]
    scale = plan_scale(moments, begin=0.0, end=1.903)
    assert [(piece.start, piece.stop) for piece in scale.breaks] == [(0.004, 1.9)]
    assert scale.at(0.002) - scale.at(0.001) > 10
    places = [scale.at(moment) for moment in (0.0, *moments, 1.903)]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0.0, 100.0)


def test_an_even_round_is_drawn_to_scale() -> None:
    scale = plan_scale([0.1 * step for step in range(1, 10)], begin=0.0, end=1.0)
    assert not scale.breaks
    assert scale.at(0.35) == pytest.approx(35.0, abs=0.01)
    assert [tick.label for tick in scale.ticks()][:3] == ["0", "200 ms", "400 ms"]


def test_durations_are_worded_for_people() -> None:
    assert [format_seconds(s) for s in (0.0, 0.0003, 0.0234, 1.953, 75.0)] == [
        "0 s",
        "300 µs",
        "23.4 ms",
        "1.95 s",
        "75 s",
    ]


def test_members_are_sorted_as_people_count() -> None:
    assert sorted(["w10", "w2", "a", "w1"], key=natural) == ["a", "w1", "w2", "w10"]
