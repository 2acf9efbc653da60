"""The main scenario on real processes: the same verdicts and the same bits as in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

from hqde_ref.messages import Accepted
from simulator.execution import conclude, exit_code, run_all
from simulator.scenario_reading import load_scenario

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(300)]


def test_the_main_scenario_agrees_on_live_ray_and_in_the_simulator() -> None:
    scenario = load_scenario(Path("scenarios/minority_third.yaml"))
    execution = conclude(scenario, list(run_all(scenario, on="both")))
    broken = [judged for judged in execution.findings if judged.finding.status != "HOLDS"]
    assert not broken
    assert exit_code(execution) == 0
    simulated, live = (run for run in execution.runs if run.variant == "as written")
    assert [r.verdict.digest for r in live.rounds if isinstance(r.verdict, Accepted)] == [
        r.verdict.digest for r in simulated.rounds if isinstance(r.verdict, Accepted)
    ]
