"""The runtime whose hosts fail on demand: what a fault does, and what its caller gets to see of vectors."""

from __future__ import annotations

import pytest
import torch

from hqde_ref.messages import CRASHED, LATE, Begin, Begun, Call, Evaluate, Evaluated, Observed, Request
from hqde_ref.runtimes.frail import LATENCY_S, LOST, Frail
from tests.probes import VECTOR_BYTES, ProbeSpec, probe, seconds_of


def _frail(*, hosts: int = 2) -> Frail:
    specs = {f"h{index}": (ProbeSpec(name=f"p{index}", sleeps=False),) for index in range(hosts)}
    return Frail(specs, seconds_of=seconds_of)


def _ask(runtime: Frail, node: str, number: float, *, within_s: float = 10.0, seconds: float = 0.0) -> object:
    return runtime.ask([probe(node, number, seconds)], enough=1, until=runtime.now() + within_s)[0].reply


def test_a_crash_breaks_what_is_on_its_way_and_what_comes_after() -> None:
    runtime = _frail()
    assert _ask(runtime, "p0", 1, seconds=5.0, within_s=1.0) == LATE
    runtime.crash("h0")
    assert _ask(runtime, "p0", 1, seconds=5.0) == CRASHED
    began = runtime.now()
    assert _ask(runtime, "p0", 2) == CRASHED
    assert runtime.now() - began == pytest.approx(2 * LATENCY_S), "a broken connection is seen at once"


def test_a_restarted_host_has_fresh_nodes() -> None:
    runtime = _frail()
    assert _ask(runtime, "p0", 1) == Observed(scores=(1.0, 1))
    runtime.crash("h0")
    runtime.restart("h0")
    assert _ask(runtime, "p0", 2) == Observed(scores=(1.0, 2))


def test_restarting_a_host_that_did_not_end_changes_nothing() -> None:
    runtime = _frail()
    _ask(runtime, "p0", 1)
    runtime.restart("h0")
    assert _ask(runtime, "p0", 2) == Observed(scores=(2.0, 2))


def test_a_host_that_hangs_answers_nothing_until_it_goes_on_and_then_everything() -> None:
    runtime = _frail()
    runtime.hang("h0")
    began = runtime.now()
    assert _ask(runtime, "p0", 1, within_s=3.0) == LATE
    assert runtime.now() - began == 3.0
    runtime.resume("h0")
    assert _ask(runtime, "p0", 1) == Observed(scores=(1.0, 1)), "an equal call joins the one that waited"


def test_a_delay_hits_one_message_and_not_the_next_incarnation() -> None:
    runtime = _frail()
    runtime.delay("h0", 2.0)
    _ask(runtime, "p0", 1)
    assert runtime.now() == pytest.approx(2.0 + 2 * LATENCY_S)
    _ask(runtime, "p0", 2)
    assert runtime.now() == pytest.approx(2.0 + 4 * LATENCY_S)
    runtime.delay("h0", 2.0)
    runtime.crash("h0")
    runtime.restart("h0")
    began = runtime.now()
    _ask(runtime, "p0", 3)
    assert runtime.now() - began < 1.0


def test_a_slow_host_that_is_well_again_does_not_stay_busy() -> None:
    runtime = _frail()
    runtime.delay("h0", 1000.0)
    assert _ask(runtime, "p0", 1, within_s=1.0) == LATE
    runtime.resume("h0")
    began = runtime.now()
    assert _ask(runtime, "p0", 2) == Observed(scores=(2.0, 2))
    assert runtime.now() - began < 1.0


def test_the_first_of_several_calls_can_end_the_host_for_the_others() -> None:
    seen: list[str] = []

    def on_arrival(host: str, request: Request) -> None:
        seen.append(host)
        runtime.crash(host)

    runtime = Frail(
        {"h0": (ProbeSpec(name="p0", sleeps=False), ProbeSpec(name="q0", sleeps=False))}, on_arrival=on_arrival
    )
    answers = runtime.ask([probe("p0", 1), probe("q0", 2)], enough=2, until=9.0)
    assert [answer.reply for answer in answers] == [CRASHED, CRASHED]
    assert seen == ["h0"], "nothing reaches a host that is down"


def test_a_lost_answer_is_a_failure_that_may_be_asked_again_and_the_work_was_done() -> None:
    runtime = _frail()
    runtime.lose("h0")
    assert _ask(runtime, "p0", 1) == LOST
    assert not LOST.definite
    assert _ask(runtime, "p0", 1) == Observed(scores=(2.0, 1))


def test_the_caller_holds_handles_and_few_bytes_and_hosts_hold_vectors() -> None:
    runtime = _frail()
    made = runtime.ask([Call(node="p0", request=Begin(seed=3))], enough=1, until=9.0)[0].reply
    assert isinstance(made, Begun)
    assert not isinstance(made.state[0].ref, torch.Tensor)
    seen = runtime.ask([Call(node="p1", request=Evaluate(round=1, state=made.state))], enough=1, until=9.0)
    assert seen[0].reply == Evaluated(accuracy=3.0, loss=3.0)
    assert runtime.fetch(made.state[0]).numel() == VECTOR_BYTES
    assert 0 < runtime.traffic.bytes < VECTOR_BYTES / 100
    assert (runtime.traffic.most_received, runtime.traffic.most_sent) == (1, 1)


def test_a_vector_that_was_lent_is_open_to_hosts() -> None:
    runtime = _frail()
    lent = runtime.lend("value", torch.full((8,), 3, dtype=torch.uint8))
    assert not isinstance(lent.ref, torch.Tensor)
    seen = runtime.ask([Call(node="p1", request=Evaluate(round=1, state=(lent,)))], enough=1, until=9.0)
    assert seen[0].reply == Evaluated(accuracy=3.0, loss=3.0)
    assert runtime.fetch(lent).tolist() == [3] * 8
