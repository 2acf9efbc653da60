"""An aggregator that straggles costs the hedge's delay and nothing else; asserted in virtual time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from torch import Tensor

from hqde_ref.messages import LATE, UNANSWERED, Answer, Call, Failed, Observe, Observed, Payload
from hqde_ref.rounds.asking import ATTEMPTS, Lost, Unserved, ask_somewhere
from hqde_ref.rounds.calling import ask_everyone
from simulator.runtime import SECOND, Simulated
from tests.probes import ProbeSpec, seconds_of

HEDGE_S = 0.5
STEP_S = 0.003  # there and back at 1 ms each, and 1 ms of work


class Counted:
    """A simulated runtime that remembers which calls really left: an equal call in flight is joined."""

    def __init__(self, hosts: int = 4) -> None:
        specs = {f"h{index}": (ProbeSpec(name=f"p{index}", sleeps=False),) for index in range(hosts)}
        self.world = Simulated(specs, work=lambda request: SECOND // 1000 + int(seconds_of(request) * SECOND))
        self.sent: list[tuple[str, int]] = []

    def now(self) -> float:
        return self.world.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self.world.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        self.sent += [(call.node, call.attempt) for call in calls if (call.node, call.attempt) not in self.sent]
        return self.world.ask(calls, enough=enough, until=until)


def _ask(
    runtime: Counted,
    count: int = 1,
    *,
    seats: list[str] | None = None,
    until: float = 10.0,
    hedged: set[str] | None = None,
) -> object:
    requests = [Observe(losses=(float(index), 0.0)) for index in range(count)]
    order = [f"p{index}" for index in range(4)] if seats is None else seats
    return ask_somewhere(runtime, requests, seats=order, until=until, hedge_after_s=HEDGE_S, hedged=hedged)


def _numbers(replies: object) -> list[float]:
    assert isinstance(replies, tuple), replies
    return [reply.scores[1] for reply in replies if isinstance(reply, Observed)]


def test_without_faults_nothing_is_asked_twice() -> None:
    runtime = Counted()
    assert _numbers(_ask(runtime, 8)) == list(range(8))
    assert all(attempt == 0 for _, attempt in runtime.sent)
    assert runtime.now() < 0.01


def test_a_stopped_aggregator_costs_the_hedges_delay() -> None:
    runtime, seats, hedged = Counted(), ["p0", "p1", "p2", "p3"], set[str]()
    runtime.world.pause("h0")
    assert _numbers(_ask(runtime, 4, seats=seats, hedged=hedged)) == [0, 1, 2, 3]
    assert runtime.now() == pytest.approx(HEDGE_S + STEP_S)
    assert runtime.sent == [("p0", 0), ("p1", 0), ("p2", 0), ("p3", 0), ("p1", 1)]
    assert hedged == {"p0"}
    _ask(runtime, 8, seats=seats, hedged=hedged)
    assert runtime.now() < HEDGE_S + 5 * STEP_S, "the next step pays nothing, however much there is to do"


def test_two_stopped_aggregators_in_a_row_cost_two_delays() -> None:
    runtime = Counted()
    runtime.world.pause("h0")
    runtime.world.pause("h1")
    assert _numbers(_ask(runtime)) == [0]
    assert runtime.now() == pytest.approx(2 * HEDGE_S + STEP_S)


def test_a_straggler_that_is_done_first_after_all_counts_and_was_not_asked_twice() -> None:
    runtime = Counted(2)
    request = Observe(losses=(7.0, 0.6))  # longer than the hedge's delay at whoever is asked
    replies = ask_somewhere(runtime, [request], seats=["p0", "p1"], until=10.0, hedge_after_s=HEDGE_S)
    assert _numbers(replies) == [7.0]
    assert runtime.now() == pytest.approx(0.6 + STEP_S), "the first call was joined, not sent again"
    assert runtime.sent == [("p0", 0), ("p1", 1)]


def test_a_dead_aggregator_costs_no_delay_and_is_struck_off() -> None:
    runtime, seats = Counted(), ["p0", "p1", "p2", "p3"]
    runtime.world.crash("h0")
    assert _numbers(_ask(runtime, 2, seats=seats)) == [0, 1]
    assert runtime.now() < 0.01
    assert seats == ["p1", "p2", "p3"]


def test_the_last_of_many_aggregators_is_found_when_the_others_are_dead() -> None:
    runtime = Counted()
    for host in ("h0", "h1", "h2"):
        runtime.world.crash(host)
    assert _numbers(_ask(runtime, 5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("hosts", "dead", "hung"),
    [(3, ["h0"], ["h1"]), (4, ["h0"], ["h1", "h2"]), (4, ["h0", "h1"], ["h2"]), (7, ["h0", "h1", "h2", "h3"], ["h4"])],
)
@pytest.mark.parametrize("count", [1, 3])
def test_the_last_healthy_aggregator_is_found_when_some_are_dead_and_some_hang(
    hosts: int, dead: list[str], hung: list[str], count: int
) -> None:
    """Those that are struck off must not use up the hedges of those that are left."""
    runtime = Counted(hosts)
    for host in dead:
        runtime.world.crash(host)
    for host in hung:
        runtime.world.pause(host)
    assert _numbers(_ask(runtime, count, seats=[f"p{index}" for index in range(hosts)])) == list(range(count))
    assert runtime.now() < (len(hung) + 1) * HEDGE_S + 0.1


def test_the_deadline_ends_it_when_everybody_hangs() -> None:
    runtime = Counted()
    for index in range(4):
        runtime.world.pause(f"h{index}")
    outcome = _ask(runtime, 2, until=2.0)
    assert isinstance(outcome, Unserved)
    assert outcome.reason.endswith(": late)")
    assert runtime.now() == pytest.approx(2.0)


@pytest.mark.parametrize("began", [0.0, 3.3217488370000003, 1e4 / 3])
def test_moments_that_fall_between_ticks_of_the_clock_still_come(began: float) -> None:
    """In nanoseconds a clock may read a little less than the moment it waited for: that must not go round for ever."""
    runtime = Counted()
    runtime.world.ask([], enough=1, until=began)
    runtime.world._time = round(began * SECOND)
    for index in range(4):
        runtime.world.pause(f"h{index}")
    until = began + 1.7000000004
    assert isinstance(_ask(runtime, until=until), Unserved)
    assert runtime.now() == pytest.approx(until)


def test_a_lone_aggregator_that_fails_is_asked_again_and_then_given_up() -> None:
    runtime = Counted(1)
    runtime.world.crash("h0")
    assert _ask(runtime, seats=["p0"]) == Unserved(reason="no aggregator did its work in 20 attempts (p0: crashed)")
    assert [attempt for _, attempt in runtime.sent] == list(range(ATTEMPTS))


@pytest.mark.parametrize("seats", [["p0"], ["p0", "p1", "p2"]])
def test_a_request_that_gets_lost_a_dozen_times_is_answered_while_there_is_time(seats: list[str]) -> None:
    """Losses say nothing against the aggregators: all are asked in turn, and nobody is struck off."""

    class Losing(Counted):
        def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
            answers = super().ask(calls, enough=enough, until=until)
            return answers if calls[-1].attempt == 12 else tuple(Answer(node=c.node, reply=UNANSWERED) for c in calls)

    runtime = Losing()
    everybody = list(seats)
    assert _numbers(_ask(runtime, seats=seats)) == [0.0]
    assert seats == everybody
    asked = [sum(node == seat for node, _ in runtime.sent) for seat in everybody]
    assert max(asked) - min(asked) <= 1, "in turn"


def test_a_lost_message_is_sent_again_while_another_aggregator_hangs() -> None:
    class Losing(Counted):
        def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
            answers = super().ask(calls, enough=enough, until=until)
            lost = [call.node == "p1" and call.attempt == 1 for call in calls]
            return tuple(
                Answer(node=a.node, reply=UNANSWERED) if gone else a for a, gone in zip(answers, lost, strict=True)
            )

    runtime = Losing(2)
    runtime.world.pause("h0")
    assert _numbers(_ask(runtime, seats=["p0", "p1"])) == [0.0]
    assert runtime.sent == [("p0", 0), ("p1", 1), ("p1", 2)]
    assert runtime.now() < 2 * HEDGE_S + 4 * STEP_S


def test_what_got_lost_is_asked_again_while_another_node_hangs() -> None:
    class Losing(Counted):
        def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
            answers = super().ask(calls, enough=enough, until=until)
            lost = [call.node == "p2" or (call.node == "p1" and call.attempt == 0) for call in calls]
            return tuple(
                Answer(node=a.node, reply=UNANSWERED) if gone else a for a, gone in zip(answers, lost, strict=True)
            )

    runtime = Losing(3)
    runtime.world.pause("h0")
    calls = {node: Call(node=node, request=Observe(losses=(1.0, 0.0))) for node in ("p0", "p1", "p2")}
    replies = ask_everyone(runtime, calls, until=15.0, look_up_s=HEDGE_S)
    assert (replies["p0"], replies["p2"]) == (LATE, UNANSWERED)
    assert isinstance(replies["p1"], Observed)
    assert sorted(runtime.sent) == [("p0", 0), ("p1", 0), ("p1", 1), *(("p2", number) for number in range(ATTEMPTS))]
    assert runtime.now() == pytest.approx(15.0), "the hanging one is waited for to the end"


def test_a_lost_payload_is_told_at_once_even_if_another_aggregator_hangs() -> None:
    class Losing(Counted):
        def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
            gone = Failed(reason="payload lost", definite=True, lost=("w3.0/1/0",))
            return tuple(Answer(node=call.node, reply=gone) for call in calls)

    assert _ask(Losing()) == Lost(reasons={"w3.0/1/0": "payload lost"})
