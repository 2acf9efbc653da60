"""Virtual time: what a host's work takes when other things happen meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hqde_ref.messages import Call, Observed, Reply, Request, Span
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


class _Counting:
    """A request that counts how often it is compared."""

    compared = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        _Counting.compared += 1
        return isinstance(other, _Counting) and self.number == other.number


class _Answering:
    """A node, and its own data."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, incarnation: int, /) -> _Answering:
        return self

    def perform(self, request: Request, /) -> Reply:
        return Observed(scores=())


@pytest.mark.parametrize("members", [50, 1000])
def test_asking_many_members_of_a_host_compares_each_call_a_few_times(members: int) -> None:
    names = [f"p{index}" for index in range(members)]
    world = Simulated({"h0": tuple(map(_Answering, names))}, work=lambda request: 1)
    calls = [Call(node=name, request=_Counting(index)) for index, name in enumerate(names)]  # type: ignore[arg-type]
    _Counting.compared = 0
    answers = world.ask([*calls, *calls], enough=2 * members, until=1.0)
    assert len(answers) == 2 * members
    assert _Counting.compared <= 8 * members
