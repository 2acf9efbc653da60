"""A result that is lost before anybody has it, and a state that cannot be given: in virtual time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from torch import Tensor

from hqde_ref.messages import (
    CRASHED,
    LATE,
    UNKNOWN,
    Accepted,
    Adopt,
    Adopted,
    Answer,
    Call,
    Evidence,
    Failed,
    Payload,
    Policy,
    Refused,
    payloads_of,
    replace_payloads,
)
from hqde_ref.rounds.publishing import publish
from hqde_ref.rounds.training import training_round
from simulator.ensembles import Ensemble, accounts, numbered
from simulator.runtime import GONE, Simulated

ALONE = Ensemble(members=numbered(6), hosts=3, floats=300, apart=True)
CROWDED = dataclasses.replace(ALONE, crowds=True)
TREE = Policy(rule="weighted_mean", topology="tree", branching=3, round_within_s=6.0)
MEDIANS = dataclasses.replace(TREE, rule="geometric_median", faulty_max=1)
FLAT = Policy(rule="geometric_median", topology="flat", faulty_max=1, round_within_s=6.0)
SHARDED = dataclasses.replace(FLAT, topology="sharded", shards=2)
WAYS = {
    "tree": (ALONE, TREE),
    "tree of medians": (ALONE, MEDIANS),
    "flat": (ALONE, FLAT),
    "sharded": (ALONE, SHARDED),
    "crowded mean": (CROWDED, TREE),
    "crowded flat": (CROWDED, FLAT),
    "crowded": (CROWDED, SHARDED),
}


class Losing:
    """A world in which a node goes just before results of round 2 are given away, and what lies there with it.

    Args:
        times: how many results of the round are lost so.
        contributions: whether the contributions lay there too.
    """

    def __init__(self, world: Simulated, *, times: int = 1, contributions: bool = False) -> None:
        self._world = world
        self._times = times
        self._contributions = contributions
        self._made: list[Payload] = []
        self._gone: list[object] = []
        self.lost: set[str] = set()

    def now(self) -> float:
        return self._world.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self._world.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        published = [call.request for call in calls if isinstance(call.request, Adopt) and call.request.round == 2]
        if published and self._times:
            self._times -= 1
            mine = list(payloads_of(published[0]))
            self.lost |= {payload.key for payload in mine}
            self._gone += [payload.ref for payload in (*mine, *(self._made if self._contributions else ()))]
        calls = [dataclasses.replace(call, request=replace_payloads(call.request, self._lose)) for call in calls]
        answers = self._world.ask(calls, enough=enough, until=until)
        self._made += [payload for answer in answers for payload in payloads_of(answer.reply)]
        return answers

    def told(self) -> str:
        return ", ".join(f"{key} (payload lost)" for key in sorted(self.lost))

    def _lose(self, payload: Payload) -> Payload:
        gone = any(payload.ref is ref for ref in self._gone)
        return dataclasses.replace(payload, ref=GONE) if gone else payload


def _first(ensemble: Ensemble, policy: Policy) -> tuple[Simulated, Accepted]:
    world = Simulated(ensemble.nodes())
    verdict = training_round(world, ensemble.plan(world, policy))
    assert isinstance(verdict, Accepted), verdict
    return world, verdict


def _check_whole(runtime: Losing, ensemble: Ensemble, policy: Policy, after: Accepted) -> None:
    third = training_round(runtime, ensemble.plan(runtime, policy, number=3, after=after))
    assert isinstance(third, Accepted), third
    assert (third.used, third.missing) == (ensemble.members, {})


@pytest.mark.parametrize("way", WAYS)
def test_a_result_that_is_lost_before_anybody_has_it_is_made_again(way: str) -> None:
    ensemble, policy = WAYS[way]
    world, first = _first(ensemble, policy)
    runtime = Losing(world)
    second = training_round(runtime, ensemble.plan(runtime, policy, number=2, after=first))
    assert runtime.lost
    assert isinstance(second, Accepted), second
    assert (second.used, second.missing) == (ensemble.members, {})
    _check_whole(runtime, ensemble, policy, second)


@pytest.mark.parametrize("way", WAYS)
def test_a_result_that_is_lost_again_and_again_is_refused_by_name_and_the_state_before_stands(way: str) -> None:
    ensemble, policy = WAYS[way]
    world, first = _first(ensemble, policy)
    runtime = Losing(world, times=99)
    began = runtime.now()
    second = training_round(runtime, ensemble.plan(runtime, policy, number=2, after=first))
    assert runtime.now() <= began + policy.round_within_s
    assert isinstance(second, Refused), second
    assert second.reason == f"payloads kept getting lost; lost on the way: {runtime.told()}"
    assert accounts(second) == sorted(ensemble.members)
    _check_whole(runtime, ensemble, policy, first)


@pytest.mark.parametrize("way", ["tree", "flat", "sharded", "crowded flat", "crowded"])
def test_a_result_that_is_lost_with_all_contributions_is_refused_by_name(way: str) -> None:
    ensemble, policy = WAYS[way]
    world, first = _first(ensemble, policy)
    runtime = Losing(world, contributions=True)
    second = training_round(runtime, ensemble.plan(runtime, policy, number=2, after=first))
    assert isinstance(second, Refused), second
    assert second.reason.startswith(policy.rule)
    assert second.reason.endswith(f"; lost on the way: {runtime.told()}")
    assert second.missing == dict.fromkeys(ensemble.members, "payload lost")
    _check_whole(runtime, ensemble, policy, first)


class Partly(Losing):
    """The first node gets the result before it is lost."""

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        if not self.lost and any(isinstance(call.request, Adopt) for call in calls):
            had = self._world.ask(calls[:1], enough=1, until=until)
            return (*had, *super().ask(calls[1:], enough=enough, until=until))
        return super().ask(calls, enough=enough, until=until)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_a_result_that_is_lost_when_one_has_it_is_made_again_for_the_others(way: str, times: int) -> None:
    ensemble, policy = WAYS[way]
    world, first = _first(ensemble, policy)
    healthy = training_round(world, ensemble.plan(world, policy, number=2, after=first))
    assert isinstance(healthy, Accepted)
    world, first = _first(ensemble, policy)
    runtime = Partly(world, times=times)
    second = training_round(runtime, ensemble.plan(runtime, policy, number=2, after=first))
    assert runtime.lost
    assert isinstance(second, Accepted), second
    assert (second.used, second.missing, second.behind) == (ensemble.members, {}, {})
    assert second.digests == healthy.digests
    _check_whole(runtime, ensemble, policy, second)


@pytest.mark.parametrize("way", ["tree", "flat", "sharded", "tree of medians"])
def test_a_result_that_one_has_and_that_cannot_be_made_again_stands_and_names_who_lacks_it(way: str) -> None:
    """They say so in the next round too."""
    ensemble, policy = WAYS[way]
    world, first = _first(ensemble, policy)
    runtime = Partly(world, contributions=True)
    began = runtime.now()
    second = training_round(runtime, ensemble.plan(runtime, policy, number=2, after=first))
    assert runtime.now() <= began + policy.round_within_s
    assert isinstance(second, Accepted), second
    assert (second.used, second.missing) == (ensemble.members, {})
    assert set(second.behind) == set(ensemble.members[1:])
    assert all(reason.startswith("payload lost: ") for reason in second.behind.values())


def test_members_that_lack_the_result_say_so_in_the_next_round() -> None:
    world, first = _first(ALONE, TREE)
    runtime = Partly(world, contributions=True)
    second = training_round(runtime, ALONE.plan(runtime, TREE, number=2, after=first))
    assert isinstance(second, Accepted)
    third = training_round(runtime, ALONE.plan(runtime, TREE, number=3, after=second))
    assert isinstance(third, Accepted)
    assert third.used == ("w0000",)
    assert set(third.missing.values()) == {f"{UNKNOWN} (payload lost: {second.payloads[0].key})"}


@pytest.mark.parametrize("way", ["flat", "crowded flat"])
def test_a_member_that_cannot_be_given_the_state_is_missing_with_the_reason(way: str) -> None:
    ensemble, policy = WAYS[way]
    world, first = _first(ensemble, policy)
    world.crash("h1")
    world.restart("h1")
    gone = dataclasses.replace(first, payloads=tuple(dataclasses.replace(p, ref=GONE) for p in first.payloads))
    second = training_round(world, ensemble.plan(world, policy, number=2, after=gone))
    reason = f"{UNKNOWN} (payload lost: {first.payloads[0].key})"
    assert second.missing == dict.fromkeys(ensemble.beside("h1"), reason) | (
        dict.fromkeys([*ensemble.beside("h0"), *ensemble.beside("h2")], "unused: the round was refused")
        if isinstance(second, Refused)
        else {}
    )


def test_a_published_result_that_nobody_can_take_before_the_deadline_stands_if_it_is_not_lost() -> None:
    world, first = _first(ALONE, TREE)

    class Hanging(Losing):
        def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
            if any(isinstance(call.request, Adopt) and call.request.round == 2 for call in calls):
                for host in ("h0", "h1", "h2"):
                    world.pause(host)
            return super().ask(calls, enough=enough, until=until)

    runtime = Hanging(world, times=0)
    began = runtime.now()
    second = training_round(runtime, ALONE.plan(runtime, TREE, number=2, after=first))
    assert isinstance(second, Accepted)
    assert runtime.now() <= began + TREE.round_within_s
    for host in ("h0", "h1", "h2"):
        world.resume(host)
    _check_whole(runtime, ALONE, TREE, second)


class _Scripted:
    """A runtime in which the first Adopt of "b" finds its payload lost, and the second one what is given."""

    def __init__(self, second: Failed) -> None:
        self._replies = {0: Failed(reason="payload lost", definite=True, lost=("k",)), 1: second}

    def now(self) -> float:
        return 0.0

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        taken = Adopted(worker="a", round=1, incarnation=0)
        return tuple(
            Answer(node=c.node, reply=taken if c.node == "a" else self._replies[min(c.attempt, 1)]) for c in calls
        )


@pytest.mark.parametrize("second", [CRASHED, LATE])
def test_whoever_could_not_be_given_the_result_stays_named_however_the_next_attempt_ends(second: Failed) -> None:
    plan = SimpleNamespace(crowds=(), members=("a", "b"), round=1, policy=Policy(rule="weighted_mean", topology="flat"))
    result = Accepted(
        round=1, payloads=(), digests=("x",), used=("a", "b"), rejected={}, missing={}, scores={}, limit=0.0,
        evidence=Evidence(rule="weighted_mean", faulty_max=0, kappa=None),
    )  # fmt: skip
    given = publish(
        _Scripted(second), plan, result, remake=lambda until: result, present=frozenset({"a", "b"}), until=9.0
    )
    assert isinstance(given, Accepted)
    assert given.behind == {"b": "payload lost: k"}
