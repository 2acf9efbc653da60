"""Small scenarios with a weight store, and what the judge says of their runs."""

from __future__ import annotations

import pytest

from hqde_ref.messages import message
from simulator import worlds
from simulator.checkers import check_run
from simulator.execution import run_all
from simulator.fragile import Fragile
from simulator.records import Run
from simulator.scenario import Scenario
from simulator.scenario_reading import parse_scenario
from simulator.trace import Trace

BASE = """
apiVersion: hqde.sim/v1
metadata: {{name: small, description: d}}
seed: 5
system: {{workers: 4, hosts: 2, faulty_max: 1, round_within: 2s{store}}}
workload: {{rounds: {rounds}, batch: 80, steps: 1}}
network: {{latency: 1ms}}
faults: [{faults}]
"""
FIVE = ", store: {stores: 5, copies: 3, writes: 2, reads: 2}"
HOLDERS = ("s2", "s0", "s1")  # of the state, best first


def small(*faults: str, rounds: int = 3, store: str = FIVE) -> Scenario:
    return parse_scenario(BASE.format(faults=", ".join(faults), rounds=rounds, store=store), file="small.yaml")


def written(scenario: Scenario) -> tuple[Run, Trace]:
    ((run, trace),) = run_all(scenario, on="sim", variants=("as written",))
    return run, trace


def stored_law(scenario: Scenario, run: Run) -> tuple[str, int | None, str]:
    return next((f.status, f.round, f.because) for f in check_run(scenario, run) if f.law == "stored")


def broken_law(scenario: Scenario, run: Run) -> str:
    status, number, because = stored_law(scenario, run)
    assert status == "BROKEN", because
    return f"round {number}: {because}"


def column_of(run: Run, key: str) -> list[object]:
    return [outcome[key] for outcome in run.outcome()]


def plant_store(patch: pytest.MonkeyPatch, kind: type[Fragile]) -> None:
    @message
    class Spec:
        name: str

        def build(self, incarnation: int, /) -> Fragile:
            return kind(self.name, incarnation, epoch=0 if incarnation == 0 else None)

    patch.setattr(worlds, "FragileSpec", Spec)
