"""Virtual time: what a host's work takes when other things happen meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hqde_ref.messages import Span
from simulator.runtime import SECOND, Network, Simulated
from tests.probes import ProbeSpec, probe, seconds_of


def _world(spans: list[Span]) -> Simulated:
    return Simulated(
        {"h0": (ProbeSpec(name="p0", sleeps=False),)},
        network=Network(latency=0),
        work=lambda request: round(seconds_of(request) * SECOND),
        observe=spans.append,
    )


def _times(spans: list[Span]) -> list[tuple[float, float]]:
    return [(round(span.start, 9), round(span.finish, 9)) for span in spans]


def test_an_arrival_at_a_busy_host_does_not_restart_its_work() -> None:
    spans: list[Span] = []
    world = _world(spans)
    world.ask([probe("p0", 1, 0.010)], enough=1, until=0.005)
    world.ask([probe("p0", 2, 0.003)], enough=1, until=1.0)
    assert _times(spans) == [(0.0, 0.010), (0.010, 0.013)]


@pytest.mark.parametrize(
    ("meanwhile", "finish"),
    [
        (lambda world: world.resume("h0"), 0.010),
        (lambda world: world.slow("h0", 1.0), 0.010),
        (lambda world: world.slow("h0", 3.0), 0.020),
    ],
)
def test_work_done_before_the_pace_changes_counts(meanwhile: Callable[[Simulated], None], finish: float) -> None:
    spans: list[Span] = []
    world = _world(spans)
    job = probe("p0", 1, 0.010)
    world.ask([job], enough=1, until=0.005)
    meanwhile(world)
    world.ask([job], enough=1, until=1.0)
    assert _times(spans) == [(0.0, finish)]


def test_a_paused_host_goes_on_where_it_stopped() -> None:
    spans: list[Span] = []
    world = _world(spans)
    job = probe("p0", 1, 0.010)
    world.ask([job], enough=1, until=0.005)
    world.pause("h0")
    world.ask([job], enough=1, until=0.025)
    world.resume("h0")
    world.ask([job], enough=1, until=1.0)
    assert _times(spans) == [(0.0, 0.030)]
