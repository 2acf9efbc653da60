"""Every runtime keeps the laws of ``ask`` (docs/design.md), whatever carries its calls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext

import pytest

from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import Begin, Begun, Call, Evaluate, Evaluated, Failed, Observed, Runtime
from hqde_ref.runtimes.frail import Frail
from hqde_ref.runtimes.in_child import InChild, python_command
from hqde_ref.runtimes.local import Local
from hqde_ref.runtimes.on_ray import OnRay
from simulator.runtime import SECOND, Simulated
from tests.probes import VECTOR_BYTES, ProbeSpec, probe, seconds_of

HOSTS = {"h0": ("p0", "q0"), "h1": ("p1",), "h2": ("p2",)}


def _specs(*, sleeps: bool = True) -> dict[str, tuple[ProbeSpec, ...]]:
    return {host: tuple(ProbeSpec(name=name, sleeps=sleeps) for name in names) for host, names in HOSTS.items()}


def _local() -> AbstractContextManager[Runtime]:
    return nullcontext(Local(_specs()))


def _simulated() -> AbstractContextManager[Runtime]:
    return nullcontext(
        Simulated(_specs(sleeps=False), work=lambda request: 1_000_000 + int(seconds_of(request) * SECOND))
    )


def _frail() -> AbstractContextManager[Runtime]:
    return nullcontext(Frail(_specs(sleeps=False), seconds_of=lambda request: 0.001 + seconds_of(request)))


def _on_ray() -> AbstractContextManager[Runtime]:
    return closing(OnRay(_specs()))


def _in_child() -> AbstractContextManager[Runtime]:
    host_of = {name: host for host, names in HOSTS.items() for name in names}
    command = python_command("tests.probes:ProbeImplementation")
    return closing(InChild(dict.fromkeys(HOSTS, command), host_of.__getitem__))


SEQUENTIAL = [pytest.param(_local, id="local")]
CONCURRENT = [
    pytest.param(_simulated, id="simulated"),
    pytest.param(_frail, id="frail"),
    pytest.param(_in_child, id="in_child"),
    pytest.param(_on_ray, id="on_ray", marks=pytest.mark.xdist_group("ray")),
]


@pytest.fixture(scope="module")
def runtimes() -> Iterator[Callable[[Callable[[], AbstractContextManager[Runtime]]], Runtime]]:
    """Each runtime is started once for all tests of this file."""
    started: dict[object, tuple[AbstractContextManager[Runtime], Runtime]] = {}

    def get(make: Callable[[], AbstractContextManager[Runtime]]) -> Runtime:
        if make not in started:
            context = make()
            started[make] = (context, context.__enter__())
        return started[make][1]

    yield get
    for context, _ in started.values():
        context.__exit__(None, None, None)


@pytest.fixture(params=[*SEQUENTIAL, *CONCURRENT])
def runtime(request: pytest.FixtureRequest, runtimes: Callable[..., Runtime]) -> Runtime:
    return runtimes(request.param)


@pytest.fixture(params=CONCURRENT)
def concurrent(request: pytest.FixtureRequest, runtimes: Callable[..., Runtime]) -> Runtime:
    """Runtimes in which calls go on beside each other; ``local`` performs them one by one."""
    return runtimes(request.param)


def _number(reply: object) -> float:
    assert isinstance(reply, Observed), reply
    return reply.scores[1]


def test_answers_stand_in_the_order_of_the_calls_not_of_arrival(runtime: Runtime) -> None:
    calls = [probe("p0", 1, 0.3), probe("p1", 2, 0.0), probe("p2", 3, 0.1), probe("q0", 4, 0.0)]
    answers = runtime.ask(calls, enough=4, until=runtime.now() + 20)
    assert [answer.node for answer in answers] == ["p0", "p1", "p2", "q0"]
    assert [_number(answer.reply) for answer in answers] == [1, 2, 3, 4]


def test_an_ask_may_have_no_deadline(runtime: Runtime) -> None:
    answers = runtime.ask([probe("p0", 5)], enough=1, until=math.inf)
    assert _number(answers[0].reply) == 5


def test_a_node_that_is_not_there_is_a_definite_failure_that_names_it(runtime: Runtime) -> None:
    answers = runtime.ask([probe("nobody", 1), probe("p1", 2)], enough=2, until=runtime.now() + 20)
    assert answers[0].reply == Failed(reason="there is no node 'nobody'", definite=True)
    assert _number(answers[1].reply) == 2


def test_a_refusal_of_a_node_comes_back_as_its_sentence_and_spares_its_neighbours(runtime: Runtime) -> None:
    answers = runtime.ask([probe("p0", -1), probe("q0", 7)], enough=2, until=runtime.now() + 20)
    refusal = answers[0].reply
    assert isinstance(refusal, Failed)
    assert refusal.reason == "ConfigurationError: number must be at least 0, got -1; ask for more."
    assert refusal.definite
    assert _number(answers[1].reply) == 7


def test_failures_settle_an_ask_long_before_its_deadline(runtime: Runtime) -> None:
    started = time.monotonic()
    runtime.ask([probe("nobody", 1), probe("p1", -1)], enough=2, until=runtime.now() + 60)
    assert time.monotonic() - started < 30


def test_no_calls_are_answered_at_once(runtime: Runtime) -> None:
    assert runtime.ask([], enough=0, until=runtime.now() + 60) == ()


def test_a_payload_travels_from_node_to_node_and_is_the_same_bytes(runtime: Runtime) -> None:
    made = runtime.ask([Call(node="p0", request=Begin(seed=7))], enough=1, until=runtime.now() + 20)[0].reply
    assert isinstance(made, Begun), made
    seen = runtime.ask(
        [Call(node=node, request=Evaluate(round=1, state=made.state)) for node in ("p1", "q0")],
        enough=2,
        until=runtime.now() + 20,
    )
    assert [answer.reply for answer in seen] == [Evaluated(accuracy=7.0, loss=7.0)] * 2
    vector = runtime.fetch(made.state[0])
    assert vector.numel() == VECTOR_BYTES
    assert bool((vector == 7).all())


def test_an_ask_ends_at_its_absolute_deadline_and_says_who_is_late(concurrent: Runtime) -> None:
    began = concurrent.now()
    answers = concurrent.ask([probe("p1", 11, 1.5), probe("p2", 12)], enough=2, until=began + 0.6)
    assert concurrent.now() - began < 1.4
    assert answers[0].reply == Failed(reason="late", definite=False)
    assert _number(answers[1].reply) == 12


def test_an_ask_ends_at_enough_replies(concurrent: Runtime) -> None:
    began = concurrent.now()
    answers = concurrent.ask([probe("p1", 21, 3.0), probe("p2", 22)], enough=1, until=began + 30)
    assert concurrent.now() - began < 2.5
    assert isinstance(answers[0].reply, Failed)
    assert _number(answers[1].reply) == 22


def test_the_answers_of_one_host_come_together(concurrent: Runtime) -> None:
    answers = concurrent.ask([probe("p0", 31), probe("q0", 32, 0.5)], enough=1, until=concurrent.now() + 20)
    assert [_number(answer.reply) for answer in answers] == [31, 32]


def test_an_equal_call_joins_the_one_in_flight(concurrent: Runtime) -> None:
    count = _performed(concurrent, "p2", 40)
    call = probe("p2", 41, 1.0)
    late = concurrent.ask([call], enough=1, until=concurrent.now() + 0.3)
    assert isinstance(late[0].reply, Failed)
    joined = concurrent.ask([call], enough=1, until=concurrent.now() + 20)
    assert joined[0].reply == Observed(scores=(count + 1, 41))


def test_another_attempt_is_another_call(concurrent: Runtime) -> None:
    count = _performed(concurrent, "p2", 50)
    first = concurrent.ask([probe("p2", 51)], enough=1, until=concurrent.now() + 20)
    second = concurrent.ask([probe("p2", 51, attempt=1)], enough=1, until=concurrent.now() + 20)
    assert first[0].reply == Observed(scores=(count + 1, 51))
    assert second[0].reply == Observed(scores=(count + 2, 51))


def test_a_late_answer_belongs_to_no_ask(concurrent: Runtime) -> None:
    count = _performed(concurrent, "p1", 60)
    concurrent.ask([probe("p1", 61, 0.5)], enough=1, until=concurrent.now() + 0.1)
    answers = concurrent.ask([probe("p1", 62)], enough=1, until=concurrent.now() + 20)
    assert answers[0].reply == Observed(scores=(count + 2, 62))


def test_the_same_call_twice_in_an_ask_is_performed_once_and_answered_twice(concurrent: Runtime) -> None:
    count = _performed(concurrent, "p1", 70)
    answers = concurrent.ask([probe("p1", 71), probe("p1", 71)], enough=2, until=concurrent.now() + 20)
    assert [answer.reply for answer in answers] == [Observed(scores=(count + 1, 71))] * 2


def _performed(runtime: Runtime, node: str, number: float) -> float:
    """How often a node has performed, this one included; waits until it is idle."""
    reply = runtime.ask([probe(node, number)], enough=1, until=runtime.now() + 20)[0].reply
    assert isinstance(reply, Observed)
    return reply.scores[0]


@pytest.mark.parametrize("runtime", [Local, Simulated, Frail, OnRay])
def test_a_name_that_two_nodes_have_is_refused_before_anything_is_started(runtime: Callable[..., Runtime]) -> None:
    hosts = {"h0": (ProbeSpec(name="p0"),), "h1": (ProbeSpec(name="p1"), ProbeSpec(name="p0"))}
    with pytest.raises(ConfigurationError, match="nodes of h0 and h1 must be a name for each node, got \"'p0' twice\""):
        runtime(hosts)
