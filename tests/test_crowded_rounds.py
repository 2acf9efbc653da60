"""Crowds: a host answers for all its members, and the result and the verdict are those of a round without crowds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from hqde_ref.core.packing import fingerprint, pack
from hqde_ref.core.sharding import cut, name_pieces
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import (
    UNANSWERED,
    Accepted,
    Adopt,
    Adopted,
    Answer,
    Call,
    Contribution,
    Entry,
    Failed,
    Layout,
    Mustered,
    NodeSpec,
    Payload,
    Policy,
    Refused,
    Reply,
    Request,
    Runtime,
    Subtotal,
    Train,
    Verdict,
    message,
    payloads_of,
    replace_payloads,
)
from hqde_ref.nodes.aggregator import AggregatorSpec
from hqde_ref.nodes.crowd import CrowdSpec
from hqde_ref.rounds.plans import Crowding, RoundPlan, Seat
from hqde_ref.rounds.training import training_round
from hqde_ref.runtimes.local import Local
from simulator.adversary import Moments
from simulator.ensembles import Ensemble, accounts, numbered
from simulator.runtime import Simulated

MEMBERS = numbered(22)
ALONE = Ensemble(members=MEMBERS, hosts=4, floats=1003, lies={"w0003": "nan", "w0011": "far", "w0020": "far"})
CROWDED = dataclasses.replace(ALONE, crowds=True)
TREE = Policy(rule="weighted_mean", topology="tree", branching=3, round_within_s=2.0)
ROBUST = Policy(rule="geometric_median", topology="flat", faulty_max=5, round_within_s=2.0)
SHARDED = dataclasses.replace(ROBUST, topology="sharded", shards=3)
POLICIES = [
    pytest.param(policy, id=f"{policy.topology}-{policy.rule}-{policy.outlier_factor}")
    for policy in (
        TREE,
        dataclasses.replace(TREE, topology="flat"),
        dataclasses.replace(TREE, topology="sharded", shards=4),
        dataclasses.replace(TREE, topology="mapreduce"),
        dataclasses.replace(TREE, weighting="accuracy_softmax"),
        ROBUST,
        SHARDED,
        dataclasses.replace(SHARDED, rule="coordinate_median"),
        dataclasses.replace(SHARDED, rule="coordinate_median", outlier_factor=None),
        dataclasses.replace(ROBUST, rule="krum", outlier_factor=None),
    )
]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_crowded_round_has_the_bits_and_the_verdict_of_the_round_without_crowds(policy: Policy) -> None:
    verdicts = []
    for ensemble in (ALONE, CROWDED):
        for runtime in (Local(ensemble.nodes()), Simulated(ensemble.nodes())):
            verdict = training_round(runtime, ensemble.plan(runtime, policy))
            assert isinstance(verdict, Accepted), verdict
            verdicts.append(verdict)
    first = verdicts[0]
    for other in verdicts[1:]:
        assert other.digests == first.digests
        assert (other.used, sorted(other.rejected), other.missing) == (first.used, sorted(first.rejected), {})
        assert (other.scores, other.evidence) == (first.scores, first.evidence)
    assert first.rejected["w0003"].startswith("not finite: parameter")


def test_more_shards_than_coordinates_leave_some_reducers_with_nothing() -> None:
    for policy in (dataclasses.replace(SHARDED, shards=9), dataclasses.replace(TREE, topology="sharded", shards=9)):
        digests = []
        for ensemble in (ALONE, CROWDED):
            tiny = dataclasses.replace(ensemble, floats=4, lies={})
            runtime = Local(tiny.nodes())
            verdict = training_round(runtime, tiny.plan(runtime, policy))
            assert isinstance(verdict, Accepted), verdict
            digests.append(verdict.digests)
        assert digests[0] == digests[1]


HONEST = dataclasses.replace(CROWDED, lies={})


@pytest.mark.parametrize("policy", [TREE, ROBUST, SHARDED], ids=["mean", "flat", "sharded"])
@pytest.mark.parametrize("stage", ["train", "screen", "combine", "publish"])
@pytest.mark.parametrize("fault", ["crash", "pause"])
def test_a_host_that_dies_or_hangs_costs_its_members_only_while_it_alone_has_their_rows(
    policy: Policy, stage: str, fault: str
) -> None:
    world = Simulated(HONEST.nodes())
    plan = HONEST.plan(world, policy)
    strike = world.crash if fault == "crash" else world.pause
    runtime = Moments(world, round_number=1, reached=lambda now: strike("h1") if now == stage else None)
    began = world.now()
    verdict = training_round(runtime, plan)
    assert world.now() <= began + policy.round_within_s
    assert accounts(verdict) == sorted(MEMBERS)
    assert isinstance(verdict, Accepted)
    holds_rows = ("train", "combine") if policy is TREE else ("train",)  # a mean has no stage "screen"
    reason = "crashed" if fault == "crash" else "late"
    assert verdict.missing == (dict.fromkeys(HONEST.beside("h1"), reason) if stage in holds_rows else {})
    if policy is TREE:
        assert verdict.digests == HONEST.mean_digests(verdict.used, 1, number=1), "exact for those that are left"
    if fault == "crash":
        world.restart("h1")
    else:
        world.resume("h1")
    second = training_round(world, HONEST.plan(world, policy, number=2, after=verdict))
    assert isinstance(second, Accepted)
    assert (second.used, second.missing) == (MEMBERS, {}), "whole again: who lost the state was given it"


def test_a_crowd_without_a_usable_member_leaves_the_others_exact() -> None:
    bad = dataclasses.replace(CROWDED, lies=dict.fromkeys(CROWDED.beside("h2"), "nan"))
    for policy in (TREE, dataclasses.replace(SHARDED, faulty_max=5, outlier_factor=None)):
        runtime = Local(bad.nodes())
        verdict = training_round(runtime, bad.plan(runtime, policy))
        assert isinstance(verdict, Accepted), verdict
        assert sorted(verdict.rejected) == list(bad.beside("h2"))
        if policy is TREE:
            assert verdict.digests == bad.mean_digests(verdict.used, 1, number=1)


def test_when_no_crowd_answers_the_round_is_refused_and_everybody_is_named() -> None:
    world = Simulated(HONEST.nodes())
    for policy in (TREE, SHARDED):
        plan = HONEST.plan(world, policy)
        for index in range(4):
            world.crash(f"h{index}")
        verdict = training_round(world, plan)
        assert isinstance(verdict, Refused)
        assert verdict.missing == dict.fromkeys(MEMBERS, "crashed")
        for index in range(4):
            world.restart(f"h{index}")


class Losing:
    """The first request for a partial sum to one crowd is lost, and so noticed; everybody else is served."""

    def __init__(self, inner: Runtime, *, crowd: str) -> None:
        self._inner = inner
        self._crowd = crowd
        self.lost = 0

    def now(self) -> float:
        return self._inner.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self._inner.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        answers = self._inner.ask(calls, enough=enough, until=until)
        return tuple(self._lose(call, answer) for call, answer in zip(calls, answers, strict=True))

    def _lose(self, call: Call, answer: Answer) -> Answer:
        if not isinstance(call.request, Subtotal) or call.node != self._crowd or call.attempt > 0:
            return answer
        self.lost += 1
        return Answer(node=call.node, reply=UNANSWERED)


def test_a_lost_request_for_a_partial_sum_is_sent_again_while_another_crowd_hangs() -> None:
    """It waited for the crowd that hung until no time was left, and its members were lost with the other's."""
    world = Simulated(HONEST.nodes())
    policy = dataclasses.replace(TREE, hedge_after_s=0.2)
    moments = Moments(world, round_number=1, reached=lambda now: world.pause("h1") if now == "combine" else None)
    runtime = Losing(moments, crowd="c2")
    verdict = training_round(runtime, HONEST.plan(runtime, policy))
    assert runtime.lost == 1
    assert isinstance(verdict, Accepted), verdict
    assert verdict.missing == dict.fromkeys(HONEST.beside("h1"), "late")
    assert verdict.digests == HONEST.mean_digests(verdict.used, 1, number=1)


class Tampering:
    """Changes what the crowds answer, or loses payloads that a request names."""

    def __init__(self, inner: Runtime, *, lose: str = "", corrupt: str = "") -> None:
        self._inner = inner
        self._lose = lose
        self._corrupt = corrupt

    def now(self) -> float:
        return self._inner.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self._inner.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        lost = [p.key for call in calls for p in payloads_of(call.request) if self._lose and self._lose in p.key]
        if lost:
            self._lose = self._lose if "rows" in self._lose else ""  # a lost sum is made anew, lost rows stay lost
            gone = Failed(reason="payload lost", definite=True, lost=tuple(lost[:1]))
            return tuple(Answer(node=call.node, reply=gone) for call in calls)
        answers = self._inner.ask(calls, enough=enough, until=until)
        return tuple(dataclasses.replace(answer, reply=self._damage(answer.reply)) for answer in answers)

    def _damage(self, reply: object) -> object:
        def flip(payload: Payload) -> Payload:
            if self._corrupt not in payload.key:
                return payload
            damaged = payload.ref.clone()
            damaged[1] ^= 4
            return dataclasses.replace(payload, ref=damaged)

        return replace_payloads(reply, flip) if self._corrupt and isinstance(reply, Mustered) else reply


@pytest.mark.parametrize("policy", [ROBUST, SHARDED], ids=["flat", "sharded"])
def test_lost_rows_name_everybody_in_them_and_the_rest_is_used(policy: Policy) -> None:
    runtime = Tampering(Local(HONEST.nodes()), lose="c3.0/1/rows:0")
    verdict = training_round(runtime, HONEST.plan(runtime, dataclasses.replace(policy, faulty_max=2)))
    assert isinstance(verdict, Accepted), verdict
    assert verdict.missing == dict.fromkeys(HONEST.beside("h3"), "payload lost")
    assert accounts(verdict) == sorted(MEMBERS)


def test_a_lost_partial_sum_is_made_again_and_costs_nobody() -> None:
    runtime = Tampering(Local(HONEST.nodes()), lose="/sum:")
    verdict = training_round(runtime, HONEST.plan(runtime, TREE))
    assert isinstance(verdict, Accepted), verdict
    assert verdict.digests == HONEST.mean_digests(MEMBERS, 1, number=1)


@pytest.mark.parametrize("policy", [ROBUST, SHARDED], ids=["flat", "sharded"])
def test_rows_damaged_on_the_way_are_rejected_before_they_are_aggregated(policy: Policy) -> None:
    runtime = Tampering(Local(HONEST.nodes()), corrupt="c0.0/1/rows:0")
    verdict = training_round(runtime, HONEST.plan(runtime, dataclasses.replace(policy, faulty_max=2)))
    assert isinstance(verdict, Accepted), verdict
    assert sorted(verdict.rejected) == list(HONEST.beside("h0"))
    assert all(reason.startswith("corrupted: its bytes have digest") for reason in verdict.rejected.values())


def test_crowds_of_other_members_than_the_rounds_are_refused_by_name() -> None:
    runtime = Local(HONEST.nodes())
    plan = HONEST.plan(runtime, TREE)
    for members, odd in ((("w0000", "stranger"), "stranger"), (("w0007",), "w0007")):
        wrong = dataclasses.replace(plan, crowds=(*plan.crowds[1:], Crowding(node="c0", members=members)))
        with pytest.raises(ConfigurationError) as caught:
            training_round(runtime, wrong)
        assert str(caught.value) == (
            f"crowds must be members of the round, each in one crowd, got '{odd}'; "
            "plan the crowds from the round's members."
        )


def test_a_member_in_no_crowd_is_missing_by_name() -> None:
    runtime = Local(HONEST.nodes())
    plan = HONEST.plan(runtime, TREE)
    verdict = training_round(runtime, dataclasses.replace(plan, crowds=plan.crowds[1:]))
    assert isinstance(verdict, Accepted)
    assert verdict.missing == dict.fromkeys(HONEST.beside("h0"), "not asked")


WIDE = Layout(entries=(Entry(name="w", shape=(40,), dtype="float64"),))


@message
class WideSpec:
    """A member with float64 values, one of which may be large."""

    name: str
    largest: float | None = None

    def build(self, incarnation: int, /) -> Wide:
        return Wide(self)


class Wide:
    def __init__(self, spec: WideSpec) -> None:
        self._name = spec.name
        self._row = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(int(spec.name[1:])))
        if spec.largest is not None:
            self._row[3] = spec.largest

    def perform(self, request: Request, /) -> Reply:
        if isinstance(request, Adopt):
            return Adopted(worker=self._name, round=request.round, incarnation=0)
        assert isinstance(request, Train)
        payloads, digests = name_pieces(self._name, cut(pack({"w": self._row}, WIDE), WIDE, request.shards))
        return Contribution(
            round=request.round,
            worker=self._name,
            incarnation=0,
            payloads=payloads,
            layout=fingerprint(WIDE),
            digests=digests,
            mass=1.0,
            samples=1,
            loss=None,
            efficiency=1.0,
        )


def _wide_round(policy: Policy, *, largest: float, crowds: bool) -> Verdict:
    members = numbered(8)
    specs = tuple(WideSpec(name=m, largest=largest if m == members[0] else None) for m in members)
    crowd = (CrowdSpec(name="c0", members=specs[:4]), CrowdSpec(name="c1", members=specs[4:]))
    nodes: dict[str, tuple[NodeSpec, ...]] = {"h0": crowd if crowds else specs, "g0": (AggregatorSpec(name="a0"),)}
    state, digests = name_pieces("zeros", cut(torch.zeros(320, dtype=torch.uint8), WIDE, policy.shards))
    plan = RoundPlan(
        round=1,
        members=members,
        seats=(Seat(aggregator="a0", beside=()),),
        layout=WIDE,
        state=state,
        state_digests=digests,
        policy=policy,
        batch_start=0,
        batch=8,
        steps=1,
        crowds=tuple(Crowding(node=c.name, members=tuple(s.name for s in c.members)) for c in crowd) if crowds else (),
    )
    return training_round(Local(nodes), plan)


@pytest.mark.parametrize("largest", [1e145, 1e200, 1e300])
@pytest.mark.parametrize(
    ("rule", "factor"),
    [("geometric_median", 3.0), ("bulyan", None), ("coordinate_median", 3.0), ("coordinate_median", None)],
)
def test_one_member_whose_values_cannot_be_multiplied_is_rejected_alone(
    rule: str, factor: float | None, largest: float
) -> None:
    faulty_max = 1 if rule == "bulyan" else 2
    policy = dataclasses.replace(SHARDED, rule=rule, faulty_max=faulty_max, outlier_factor=factor)
    alone, crowded = (_wide_round(policy, largest=largest, crowds=crowds) for crowds in (False, True))
    assert isinstance(alone, Accepted), alone
    assert isinstance(crowded, Accepted), crowded
    assert (crowded.digests, crowded.used, crowded.rejected) == (alone.digests, alone.used, alone.rejected)
    assert (crowded.scores, crowded.limit, crowded.evidence) == (alone.scores, alone.limit, alone.evidence)
    reason = f"not finite: a value of {largest:.3g} cannot be multiplied, at most 1e+140 can"
    multiplies = (rule, factor) != ("coordinate_median", None)
    assert alone.rejected == ({"w0000": reason} if multiplies else {})
