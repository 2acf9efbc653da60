"""Reads a run's folder for a report: traces, findings, and the scenario if it is there.

Source: ``docs/design.md``, traces. Everything that comes in is checked here, once; what is wrong is one sentence that
names the file and the event.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from hqde_ref.errors import ScenarioError, WireError
from simulator.faults import Crash, Pause, Remove, Slow
from simulator.report_data import (
    VARIANTS,
    WORLDS,
    FaultSeen,
    FindingSeen,
    RoundSeen,
    RunSeen,
    Seen,
    SpanSeen,
    natural,
)
from simulator.report_fields import Fields
from simulator.report_store import STORE_EVENTS, tell_store
from simulator.scenario import Scenario
from simulator.scenario_reading import load_scenario
from simulator.trace import Trace, read_trace

__all__ = ["read_folder"]


def read_folder(folder: Path) -> Seen:
    """Read what ``hqde-sim run --out`` left in a folder.

    Raises:
        ScenarioError: when the folder holds no trace, or its scenario is not one.
        WireError: when a trace or the summary is damaged, or the traces are not of one run.
    """
    paths = sorted(folder.glob("trace-*.jsonl")) if folder.is_dir() else []
    if not paths:
        problem = "holds no trace-*.jsonl" if folder.is_dir() else "there is no such folder"
        raise ScenarioError(file=str(folder), where="", problem=f"{problem}; name one that `hqde-sim run --out` wrote")
    known = folder / "scenario.yaml"
    scenario = load_scenario(known) if known.is_file() else None
    traces = [(path, read_trace(path)) for path in paths]
    names = {(str(trace.header.get("scenario")), str(trace.header.get("seed"))) for _, trace in traces}
    if len(names) > 1:
        got = " and ".join(f"{name} with seed {seed}" for name, seed in sorted(names))
        do = "give each run a folder of its own"
        raise WireError(what=str(folder), wanted="traces of one scenario and seed", got=got, do=do)
    runs = [_run(path, trace, scenario) for path, trace in traces]
    ((name, seed),) = names
    return Seen(
        name=name,
        description=scenario.metadata.description if scenario else "",
        seed=seed,
        runs=tuple(sorted(_distinct(runs, folder), key=_place)),
        findings=_findings(folder / "summary.json"),
    )


def _place(run: RunSeen) -> tuple[int, int]:
    return WORLDS.index(run.world), VARIANTS.index(run.variant)


def _distinct(runs: list[RunSeen], folder: Path) -> list[RunSeen]:
    for index, run in enumerate(runs):
        for other in runs[:index]:
            if _place(run) == _place(other):
                got = f"{other.file} and {run.file} of {run.world}, {run.variant}"
                raise WireError(what=str(folder), wanted="one trace a world and variant", got=got, do="remove one")
    return runs


# ------------------------------------------------------------------------------------------------ one trace


def _run(path: Path, trace: Trace, scenario: Scenario | None) -> RunSeen:
    head = Fields(trace.header, f"{path}: header")
    world, variant = head.text("world"), head.text("variant")
    if world not in WORLDS or variant not in VARIANTS:
        wanted = f"a world of {', '.join(WORLDS)} and a variant of {', '.join(VARIANTS)}"
        raise WireError(what=str(path), wanted=wanted, got=f"{world}, {variant}", do="name a folder of hqde-sim run")
    stray = next((event for event in trace.events if not isinstance(event, dict)), None)
    if stray is not None:
        raise WireError(what=str(path), wanted="events that are objects", got=repr(stray)[:80], do="run it again")
    events = [(str(event.get("event")), Fields(event, f"{path}: event {i}")) for i, event in enumerate(trace.events)]
    spans = [_span(fields) for event, fields in events if event == "span"]
    faults = [fields for event, fields in events if event == "fault"]
    ends = [fields for event, fields in events if event == "round ended"]
    begins = [fields.number("began") for fields in ends]
    last = max((fields.whole("round") for fields in ends), default=0)
    # The first state is written before round 1 and not shown; the read after the last round is shown with that.
    kept = [(fields.whole("round"), tell_store(event, fields)) for event, fields in events if event in STORE_EVENTS]
    rounds = []
    for fields, began, after in zip(ends, begins, [*begins, math.inf][1:], strict=True):
        inside = tuple(span for span in spans if began <= span.start < after)
        told = tuple(sentence for number, sentence in kept if min(number, last) == fields.whole("round"))
        rounds.append(_round(fields, inside, _faults_of(fields, faults, _lasting(scenario), last), told))
    seats = {span.node: span.host for span in spans}
    return RunSeen(
        world=world,
        variant=variant,
        file=path.name,
        digest=trace.digest,
        version=head.text("version", ""),
        rounds=tuple(rounds),
        members=_sorted(name for r in rounds for name in (*r.used, *r.rejected, *r.missing, *r.scores)),
        hosts=_sorted(span.host for span in spans),
        seats=seats,
    )


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names), key=natural))


def _span(fields: Fields) -> SpanSeen:
    texts = {key: fields.text(key) for key in ("host", "node", "request", "outcome")}
    return SpanSeen(**texts, start=fields.number("time"), finish=fields.number("finish"))


def _lasting(scenario: Scenario | None) -> dict[tuple[str, int], float]:
    """(action, first round) -> last round that the fault is on at the end of; a trace only notes its beginning."""
    lasting: dict[tuple[str, int], float] = {}
    for fault in scenario.faults if scenario else ():
        match fault:
            case Pause(during=during) | Slow(during=during):
                lasting[fault.action, during.rounds[0]] = during.rounds[1]
            case Crash(restart="never") | Remove(restart="never"):
                lasting[fault.action, fault.at.round] = math.inf
            case _:
                pass
    return lasting


def _faults_of(
    fields: Fields, faults: list[Fields], lasting: Mapping[tuple[str, int], float], final: int
) -> tuple[FaultSeen, ...]:
    number, began = fields.whole("round"), fields.number("began")
    found = []
    for fault in faults:
        first, action = fault.whole("round"), fault.text("action")
        last = min(lasting.get((action, first), first), final + 1)
        if first <= number <= last:
            found.append(
                FaultSeen(
                    action=action,
                    hits=fault.names("hits"),
                    time=fault.number("time") if first == number else began,
                    attack=fault.text("attack", "") or None,
                    lasts=number < last,
                )
            )
    return tuple(found)


def _round(
    fields: Fields, spans: tuple[SpanSeen, ...], faults: tuple[FaultSeen, ...], store: tuple[str, ...]
) -> RoundSeen:
    rejected = fields.reasons("rejected")
    return RoundSeen(
        number=fields.whole("round"),
        began=fields.number("began"),
        ended=fields.number("time"),
        deadline=fields.number("deadline"),
        kind="accepted" if fields.text("kind") == "accepted" else "refused",
        reason=fields.text("reason", ""),
        rule=fields.text("rule", ""),
        used=fields.names("used"),
        rejected=rejected,
        missing=fields.reasons("missing"),
        byzantine=fields.names("byzantine"),
        scores=fields.numbers("scores"),
        limit=fields.maybe("limit"),
        accuracy=fields.number("accuracy"),
        loss=fields.number("loss"),
        error=fields.maybe("error"),
        bound=fields.maybe("bound"),
        digest=fields.text("digest", ""),
        spans=spans,
        faults=faults,
        store=store,
    )


# ------------------------------------------------------------------------------------------------ findings


def _findings(path: Path) -> tuple[FindingSeen, ...] | None:
    """The findings of a summary; None when there is no summary or it records none."""
    if not path.is_file():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WireError(what=str(path), wanted="JSON", got=str(error), do="run the scenario again") from None
    found = summary.get("findings") if isinstance(summary, dict) else None
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise WireError(what=f"{path}: findings", wanted="a list of objects", got=repr(found)[:80], do="run it again")
    return tuple(_finding(Fields(item, f"{path}: findings[{index}]")) for index, item in enumerate(found))


def _finding(fields: Fields) -> FindingSeen:
    number = fields.maybe("round")
    return FindingSeen(
        law=fields.text("law"),
        clause=fields.text("clause", ""),
        status=fields.text("status"),
        because=fields.text("because", ""),
        round=None if number is None else int(number),
        world=fields.text("world", ""),
        variant=fields.text("variant", ""),
    )
