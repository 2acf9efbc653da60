"""Everything that `hqde-sim run` does, without the terminal: variants in worlds, findings, files.

A run folder holds ``scenario.yaml``, ``summary.json``, and one trace a world and variant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from hqde_ref.errors import ConfigurationError, RuntimeFault
from hqde_ref.messages import Accepted, message
from simulator.checkers import check_agreement, check_fired, check_gaps, check_run
from simulator.faults import Crash, Pause, Remove, Slow
from simulator.records import Finding, Run, Variant
from simulator.runner import run_variant
from simulator.scenario import Scenario
from simulator.threads import one_thread
from simulator.trace import Trace
from simulator.worlds import SimulatedWorld, World

__all__ = [
    "VARIANTS",
    "Execution",
    "Judged",
    "conclude",
    "exit_code",
    "run_all",
    "summarise",
    "trace_name",
    "write_folder",
]

VARIANTS: Final[tuple[Variant, ...]] = ("as written", "mean instead", "no faults")
On = Literal["sim", "ray", "both"]


@message
class Judged:
    """A finding and where it was made."""

    world: str
    variant: str
    finding: Finding


@message
class Execution:
    """All runs of a scenario, their traces and the findings."""

    scenario: Scenario
    runs: tuple[Run, ...]
    traces: tuple[Trace, ...]
    findings: tuple[Judged, ...]


def run_all(
    scenario: Scenario,
    *,
    on: On,
    address: str | None = None,
    variants: Sequence[Variant] = VARIANTS,
    progress: Callable[[str, str, int], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[Run, Trace]]:
    """Run the variants in the worlds asked for, one after the other.

    Args:
        progress: told (world, variant, round) as each round begins, and once more when the last has ended.
        say: told in words what a live run waits for.
    Raises:
        RuntimeFault: when live Ray cannot be used.
        ConfigurationError: when the scenario would do to the cluster at ``address`` what is done to a private one only.
    """
    if address is not None:
        _require_untouched(scenario, address)
    for name in ("sim", "ray") if on == "both" else (on,):
        with one_thread(), closing(_LiveOnce(scenario, address, say)) as live:
            for variant in variants:
                world = live.get() if name == "ray" else SimulatedWorld(scenario)
                told = None if progress is None else partial(progress, name, variant)
                yield run_variant(scenario, world, variant=variant, progress=told)


def _require_untouched(scenario: Scenario, address: str) -> None:
    """A cluster not started here loses no nodes and is not set to lose messages, and signals do not reach all of it."""
    removes = any(isinstance(fault, Remove) for fault in scenario.faults)
    if removes or scenario.network.loses:
        what = "the fault remove" if removes else f"network: {scenario.network.loses}"
        raise ConfigurationError(
            setting="--address",
            wanted=f"absent with {what}, which needs a Ray that was started here",
            got=address,
            do="leave it out, and a private Ray is started",
        )
    struck = next((fault.action for fault in scenario.faults if isinstance(fault, Crash | Pause | Slow)), None)
    if struck is not None and scenario.system.nodes > 1:
        raise ConfigurationError(
            setting="--address",
            wanted=f"absent with the fault {struck} and nodes: {scenario.system.nodes}, of which signals reach one",
            got=address,
            do="leave it out, and a private Ray of so many nodes is started",
        )


class _LiveOnce:
    """Live hosts, started at the first use and shared by all variants: starting them takes longer than a run."""

    def __init__(self, scenario: Scenario, address: str | None, say: Callable[[str], None]) -> None:
        self._scenario = scenario
        self._address = address
        self._say = say
        self._world: World | None = None

    def get(self) -> World:
        if self._world is None:
            from simulator.live import LiveWorld  # imports Ray, which a simulated run does not need

            self._world = LiveWorld(self._scenario, address=self._address, say=self._say)
        return self._world

    def close(self) -> None:
        if self._world is not None:
            self._world.close()


def conclude(scenario: Scenario, done: Sequence[tuple[Run, Trace]]) -> Execution:
    """Judge the runs that were made, be it all or, after an interruption, some."""
    runs = tuple(run for run, _ in done)
    return Execution(
        scenario=scenario,
        runs=runs,
        traces=tuple(trace for _, trace in done),
        findings=tuple(_judge(scenario, runs)),
    )


def _judge(scenario: Scenario, runs: Sequence[Run]) -> Iterator[Judged]:
    for run in runs:
        if run.variant == "as written":
            for finding in (*check_run(scenario, run), *check_fired(run)):
                yield Judged(world=run.world, variant=run.variant, finding=finding)
    for world in dict.fromkeys(run.world for run in runs):
        variants: dict[str, Run] = {run.variant: run for run in runs if run.world == world}
        if len(variants) == len(VARIANTS):
            for finding in check_gaps(scenario, variants):
                yield Judged(world=world, variant="all", finding=finding)
    for variant in dict.fromkeys(run.variant for run in runs):
        pair = [run for run in runs if run.variant == variant]
        if len(pair) == 2:
            yield Judged(world="both", variant=variant, finding=check_agreement(scenario, *pair))


def exit_code(execution: Execution) -> int:
    """0 all held, 1 something is broken, 2 something cannot be told: a fault never fired."""
    statuses = [judged.finding.status for judged in execution.findings]
    return 1 if "BROKEN" in statuses else 2 if "CANNOT_TELL" in statuses else 0


def summarise(execution: Execution) -> dict[str, Any]:
    """The whole outcome as JSON values."""
    scenario = execution.scenario
    return {
        "scenario": scenario.metadata.name,
        "description": scenario.metadata.description,
        "seed": scenario.seed,
        "exit_code": exit_code(execution),
        "findings": [
            {
                "world": judged.world,
                "variant": judged.variant,
                "law": judged.finding.law,
                "clause": judged.finding.clause,
                "status": judged.finding.status,
                "because": judged.finding.because,
                "round": judged.finding.round,
            }
            for judged in execution.findings
        ],
        "runs": [_summarise_run(run) for run in execution.runs],
    }


def _summarise_run(run: Run) -> dict[str, Any]:
    rounds = []
    for record, outcome in zip(run.rounds, run.outcome(), strict=True):
        verdict = record.verdict
        rounds.append(
            {
                **outcome,
                "accuracy": record.accuracy,
                "loss": record.loss,
                "error": None if record.measured is None else record.measured.error,
                "bound": record.bound,
                "byzantine": list(record.byzantine),
                "digest": verdict.digest if isinstance(verdict, Accepted) else None,
                "reason": None if isinstance(verdict, Accepted) else verdict.reason,
            }
        )
    return {
        "world": run.world,
        "variant": run.variant,
        "digest": run.digest,
        "final_accuracy": run.final_accuracy,
        "faults": [
            {"action": s.action, "hits": list(s.hits), "fired": s.fired}
            | ({"met": list(s.met), "unmet": list(s.unmet)} if s.action == "damage" else {})
            for s in run.strikes
        ],
        "rounds": rounds,
    }


def trace_name(world: str, variant: str) -> str:
    """File name of a trace within a run folder."""
    return f"trace-{world}-{variant.replace(' ', '-')}.jsonl"


def write_folder(execution: Execution, folder: Path, *, scenario_text: str) -> None:
    """Write a run folder. What an earlier run left in it goes: traces of two runs would contradict each other.

    Raises:
        RuntimeFault: when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in (*folder.glob("trace-*.jsonl"), folder / "report.html"):
            old.unlink(missing_ok=True)
        _write_files(execution, folder, scenario_text)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise RuntimeFault(what=str(folder), problem=problem, do="free space or name another") from None


def _write_files(execution: Execution, folder: Path, scenario_text: str) -> None:
    (folder / "scenario.yaml").write_text(scenario_text, encoding="utf-8")
    for trace in execution.traces:
        trace.write(folder / trace_name(trace.header["world"], trace.header["variant"]))
    text = json.dumps(summarise(execution), indent=2, ensure_ascii=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
