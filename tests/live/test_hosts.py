"""SIGKILL and SIGSTOP of a worker host and of an aggregator, before each stage of each kind of round."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from hqde_ref.runtimes.on_ray import OnRay
from tests.live.rounds import WAYS, both_nodes, check_whole_again, send, struck_round

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(300)]
HEDGE_S = 0.5


@pytest.fixture(scope="module")
def runtime() -> Iterator[OnRay]:
    with OnRay(both_nodes(), start_within_s=120) as started:
        yield started


STAGES = ("train", "screen", "combine", "publish")
CASES = [
    (way, stage, fault, victim)
    for way in WAYS
    for stage in STAGES
    if not (way == "crowded mean" and stage == "screen")  # its crowds screen when they train
    for fault in ("kill", "stop")
    for victim in ("workers", "aggregator")
]
QUICK = {
    ("crowded mean", "combine", "kill", "workers"),
    ("tree", "combine", "stop", "aggregator"),
    ("crowded", "screen", "kill", "aggregator"),
    ("sharded", "train", "stop", "workers"),
}


@pytest.mark.parametrize(
    ("way", "stage", "fault", "victim"),
    [
        pytest.param(*case, id="-".join(case).replace(" ", "-"), marks=() if case in QUICK else pytest.mark.live)
        for case in CASES
    ],
)
def test_a_round_survives_the_loss_of_a_host_and_the_next_is_whole(
    runtime: OnRay, way: str, stage: str, fault: str, victim: str
) -> None:
    ensemble, policy = WAYS[way]
    host = "h1" if victim == "workers" else "g0"
    number = signal.SIGKILL if fault == "kill" else signal.SIGSTOP
    try:
        verdict, took = struck_round(runtime, ensemble, policy, stage=stage, strike=lambda: send(runtime, host, number))
    finally:
        if fault == "stop":
            send(runtime, host, signal.SIGCONT)
    held_alone = ("train", "combine") if way == "crowded mean" else ("train",)
    lost = ensemble.beside("h1") if victim == "workers" and stage in held_alone else ()
    assert verdict.missing == dict.fromkeys(lost, "crashed" if fault == "kill" else "late")
    if victim == "aggregator":
        assert took < HEDGE_S + 2.5, "it costs no member, only the hedge's delay"
    check_whole_again(runtime, ensemble, policy, verdict)
