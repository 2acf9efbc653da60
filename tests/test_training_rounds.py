"""The stories: who is used, rejected and missing when hosts die at each stage, payloads vanish, or members lie."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from hqde_ref.core import combining
from hqde_ref.core.judging import gather, judge_budget
from hqde_ref.core.kernels.exact_sums import exact_weighted_mean
from hqde_ref.core.mapreduce import softmax
from hqde_ref.core.packing import float_blocks, split_rows
from hqde_ref.core.rules import RULES
from hqde_ref.core.sharding import join
from hqde_ref.core.staged import is_staged
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import (
    Accepted,
    Adopt,
    Answer,
    Begin,
    Begun,
    Call,
    Contribution,
    Failed,
    Payload,
    Policy,
    Refused,
    Runtime,
    Train,
    Verdict,
    payloads_of,
)
from hqde_ref.nodes.aggregator import AggregatorSpec
from hqde_ref.nodes.evaluator import EvaluatorSpec
from hqde_ref.nodes.worker import Worker, WorkerSpec
from hqde_ref.rounds.plans import RoundPlan, Seat
from hqde_ref.rounds.training import training_round
from hqde_ref.runtimes.keeping import run_rounds
from hqde_ref.runtimes.local import Local
from hqde_ref.runtimes.spreading import spread_stores
from hqde_ref.workloads import load_workload
from simulator.adversary import Moments
from simulator.runtime import Simulated

MEMBERS = tuple(f"w{index}" for index in range(8))
MEAN = Policy(rule="weighted_mean", topology="tree", branching=3, round_within_s=2.0)
ROBUST = Policy(rule="geometric_median", topology="flat", faulty_max=2, round_within_s=2.0)
SHARDED = dataclasses.replace(ROBUST, topology="sharded", shards=4)
MAPREDUCE = dataclasses.replace(MEAN, topology="mapreduce", mappers=3, reducers=2)
MEDIANS = dataclasses.replace(MEAN, rule="coordinate_median", faulty_max=1)
POLICIES = [pytest.param(p, id=p.topology) for p in (MEAN, ROBUST, SHARDED, MAPREDUCE)]
POLICIES.append(pytest.param(MEDIANS, id="tree of medians"))


def _host(index: int) -> str:
    return f"h{index // 2}"


def _hosts() -> dict[str, tuple[WorkerSpec | AggregatorSpec | EvaluatorSpec, ...]]:
    hosts: dict[str, tuple[WorkerSpec | AggregatorSpec | EvaluatorSpec, ...]] = {
        f"h{host}": (
            AggregatorSpec(name=f"a{host}"),
            *(WorkerSpec(name=m, workload="digits-mlp") for i, m in enumerate(MEMBERS) if _host(i) == f"h{host}"),
        )
        for host in range(4)
    }
    return hosts | {"trusted": (EvaluatorSpec(name="evaluator", workload="digits-mlp"),)}


def _plan(runtime: Runtime, policy: Policy, *, number: int = 1, after: Accepted | None = None) -> RoundPlan:
    request = Begin(seed=3, shards=policy.shards)
    begun = runtime.ask([Call(node="evaluator", request=request)], enough=1, until=runtime.now() + 60)[0].reply
    assert isinstance(begun, Begun)
    seats = tuple(
        Seat(aggregator=f"a{host}", beside=tuple(m for i, m in enumerate(MEMBERS) if _host(i) == f"h{host}"))
        for host in range(4)
    )
    return RoundPlan(
        round=number,
        members=MEMBERS,
        seats=seats,
        layout=begun.layout,
        state=begun.state if after is None else after.payloads,
        state_digests=begun.digests if after is None else after.digests,
        policy=policy,
        batch_start=0,
        batch=83,
        steps=1,
    )


class Watched:
    """A runtime that keeps the contributions that pass, and may lose payloads once, or have them come late."""

    def __init__(self, inner: Runtime, *, lose: str | None = None, how: str = "payload lost") -> None:
        self._inner = inner
        self._lose = lose
        self._how = how
        self.contributions: dict[str, Contribution] = {}

    def now(self) -> float:
        return self._inner.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self._inner.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        for call in calls:
            for payload in payloads_of(call.request):
                if self._lose is not None and self._lose in payload.key and not isinstance(call.request, Train):
                    self._lose = None
                    gone = Failed(reason=self._how, definite=self._how == "payload lost", lost=(payload.key,))
                    return tuple(Answer(node=c.node, reply=gone if c == call else _LATE) for c in calls)
        answers = self._inner.ask(calls, enough=enough, until=until)
        self.contributions |= {a.node: a.reply for a in answers if isinstance(a.reply, Contribution)}
        return answers


_LATE = Failed(reason="late", definite=False)


def _row(plan: RoundPlan, pieces: Sequence[Payload]) -> Tensor:
    return split_rows(join([piece.ref for piece in pieces], plan.layout), plan.layout)[0]


def _flat_mean(plan: RoundPlan, contributions: dict[str, Contribution], used: Sequence[str]) -> Tensor:
    rows = [_row(plan, contributions[member].payloads) for member in used]
    return exact_weighted_mean(rows, blocks=float_blocks(plan.layout))


def _result(plan: RoundPlan, verdict: Verdict) -> Tensor:
    assert isinstance(verdict, Accepted), verdict
    return _row(plan, verdict.payloads)


def _accounts(verdict: Verdict) -> list[str]:
    used = verdict.used if isinstance(verdict, Accepted) else ()
    return sorted([*used, *verdict.rejected, *verdict.missing])


@pytest.mark.parametrize("branching", [2, 3, 4, 8, 9])
def test_a_tree_of_any_shape_gives_the_bits_of_the_flat_mean(branching: int) -> None:
    runtime = Watched(Local(_hosts()))
    plan = _plan(runtime, dataclasses.replace(MEAN, branching=branching))
    verdict = training_round(runtime, plan)
    assert isinstance(verdict, Accepted)
    assert verdict.used == MEMBERS
    assert torch.equal(_result(plan, verdict), _flat_mean(plan, runtime.contributions, MEMBERS))


@pytest.mark.parametrize("policy", POLICIES)
def test_local_and_simulated_runtimes_give_the_same_bits(policy: Policy) -> None:
    digests = []
    for runtime in (Local(_hosts()), Simulated(_hosts())):
        verdict = training_round(runtime, _plan(runtime, policy))
        assert isinstance(verdict, Accepted)
        digests.append(verdict.digest)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("stage", ["train", "screen", "combine", "publish"])
@pytest.mark.parametrize("host", ["h0", "h3"])
def test_a_crash_costs_the_dead_hosts_members_only_if_they_had_not_sent(policy: Policy, stage: str, host: str) -> None:
    world = Simulated(_hosts())
    watched = Watched(world)
    plan = _plan(watched, policy)
    runtime = Moments(watched, round_number=1, reached=lambda now: world.crash(host) if now == stage else None)
    verdict = training_round(runtime, plan)
    assert _accounts(verdict) == sorted(MEMBERS)
    dead = [member for index, member in enumerate(MEMBERS) if _host(index) == host]
    assert verdict.missing == (dict.fromkeys(dead, "crashed") if stage == "train" else {})
    if policy in (MEAN, MAPREDUCE):
        assert isinstance(verdict, Accepted)
        assert torch.equal(_result(plan, verdict), _flat_mean(plan, watched.contributions, verdict.used))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("stage", ["screen", "combine"])
def test_an_aggregator_that_hangs_costs_no_member_and_the_round_keeps_its_deadline(policy: Policy, stage: str) -> None:
    world = Simulated(_hosts())
    plan = _plan(world, policy)
    began = world.now()
    runtime = Moments(world, round_number=1, reached=lambda now: world.pause("h0") if now == stage else None)
    verdict = training_round(runtime, plan)
    assert isinstance(verdict, Accepted)
    assert verdict.used == MEMBERS
    assert world.now() <= began + policy.round_within_s


@pytest.mark.parametrize(("mappers", "reducers"), [(1, 1), (2, 3), (4, 2), (9, 9)])
def test_the_numbers_of_mappers_and_reducers_do_not_change_the_bits(mappers: int, reducers: int) -> None:
    runtime = Watched(Local(_hosts()))
    plan = _plan(runtime, dataclasses.replace(MAPREDUCE, mappers=mappers, reducers=reducers))
    verdict = training_round(runtime, plan)
    assert torch.equal(_result(plan, verdict), _flat_mean(plan, runtime.contributions, MEMBERS))


def test_weighting_by_accuracy_is_the_softmax_of_what_was_said() -> None:
    runtime = Watched(Local(_hosts()))
    plan = _plan(runtime, dataclasses.replace(MAPREDUCE, weighting="accuracy_softmax"))
    verdict = training_round(runtime, plan)
    accuracies = [runtime.contributions[m].accuracy for m in MEMBERS]
    assert all(a is not None and 0 <= a <= 1 for a in accuracies)
    rows = [_row(plan, runtime.contributions[m].payloads) for m in MEMBERS]
    masses = softmax([float(a or 0) for a in accuracies])
    assert torch.equal(_result(plan, verdict), exact_weighted_mean(rows, masses, blocks=float_blocks(plan.layout)))


def test_the_documents_example_of_softmax_has_its_true_numbers() -> None:
    assert [round(v, 4) for v in softmax([0.92, 0.88, 0.85, 0.90])] == [0.2582, 0.2480, 0.2407, 0.2531]


@pytest.mark.parametrize(
    ("accuracy", "reason"),
    [
        (None, "accuracy: it gives none, and the weighting needs one"),
        (1.5, "accuracy: it gives 1.5, wanted a number in [0, 1]"),
        (float("nan"), "accuracy: it gives nan, wanted a number in [0, 1]"),
    ],
)
def test_an_accuracy_that_is_none_is_rejected_when_the_weighting_needs_it(accuracy: float | None, reason: str) -> None:
    replies = {"w0": _contribution(accuracy=accuracy), "w1": _contribution(worker="w1", accuracy=1)}
    gathered = gather(replies, members=["w0", "w1"], round_number=2, weighting="accuracy_softmax")
    assert gathered.rejected == {"w0": reason}
    assert [c.worker for c in gathered.contributions] == ["w1"]
    assert not gather(replies, members=["w0", "w1"], round_number=2).rejected


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_sharded_round_gives_what_the_flat_round_gives(rule: str, shards: int) -> None:
    """Bit for bit for means and coordinate-wise rules; the others see sums of another order (clause 3.8)."""
    faults = 0 if RULES[rule].family == "mean" else 1
    flat = dataclasses.replace(ROBUST, rule=rule, faulty_max=faults, outlier_factor=None)
    rows = []
    for policy in (flat, dataclasses.replace(flat, topology="sharded", shards=shards)):
        runtime = Watched(Local(_hosts()))
        plan = _plan(runtime, policy)
        rows.append(_result(plan, training_round(runtime, plan)))
    if RULES[rule].family in ("mean", "coordinatewise"):
        assert torch.equal(*rows)
        return
    scatter = float((rows[0] - rows[0].mean()).norm())
    wanted = rows[0]
    if rule == "minimum_diameter_mean":  # of subsets whose diameters are equal but for rounding it may take another
        members = [_row(plan, runtime.contributions[member].payloads) for member in MEMBERS]
        means = _narrowest_means(members, keep=len(MEMBERS) - faults)
        wanted = min(means, key=lambda mean: float((mean - rows[1]).norm()))
    assert float((wanted - rows[1]).norm()) <= 2e-6 * scatter


def _narrowest_means(rows: Sequence[Tensor], *, keep: int) -> list[Tensor]:
    """The means of all subsets of ``keep`` rows whose diameter is the least, but for a relative 1e-6."""
    stacked = torch.stack(list(rows)).double()
    far = torch.cdist(stacked, stacked, compute_mode="donot_use_mm_for_euclid_dist")
    subsets = [list(places) for places in itertools.combinations(range(len(rows)), keep)]
    diameters = [float(far[places][:, places].max()) for places in subsets]
    least = min(diameters) * (1 + 1e-6)
    return [stacked[places].mean(dim=0) for places, found in zip(subsets, diameters, strict=True) if found <= least]


def test_the_number_of_shards_does_not_change_who_is_rejected_nor_the_geometric_median() -> None:
    digests, verdicts = [], []
    for shards in (1, 2, 5):
        runtime = Watched(Local(_hosts()))
        plan = _plan(runtime, dataclasses.replace(SHARDED, shards=shards))
        verdict = training_round(runtime, plan)
        digests.append(_result(plan, verdict))
        verdicts.append((verdict.rejected, verdict.missing))
    assert torch.equal(digests[0], digests[1])
    assert torch.equal(digests[0], digests[2])
    assert verdicts[0] == verdicts[1] == verdicts[2]


@pytest.mark.parametrize("rule", sorted(name for name in RULES if is_staged(name)))
def test_a_rule_of_two_stages_counts_who_was_dropped_before_it(rule: str) -> None:
    """Far rows are rejected first: sharded and flat rounds agree on whom, on the result and on what it promises."""
    strict = dataclasses.replace(ROBUST, rule=rule, faulty_max=1 if rule == "bulyan" else 2, outlier_factor=1.0)
    verdicts, rows = [], []
    for policy in (strict, dataclasses.replace(strict, topology="sharded", shards=3)):
        runtime = Local(_hosts())
        plan = _plan(runtime, policy)
        verdict = training_round(runtime, plan)
        rows.append(_result(plan, verdict))
        assert isinstance(verdict, Accepted)
        verdicts.append(verdict)
    flat, sharded = verdicts
    assert flat.rejected
    assert (sharded.used, sharded.evidence) == (flat.used, flat.evidence)
    assert float((rows[0] - rows[1]).norm()) <= 2e-6 * float((rows[0] - rows[0].mean()).norm())


def test_a_restarted_host_is_given_the_state_and_is_whole_in_the_next_round() -> None:
    world = Simulated(_hosts())
    first = training_round(world, _plan(world, ROBUST))
    assert isinstance(first, Accepted)
    world.crash("h2")
    world.restart("h2")
    second = training_round(world, _plan(world, ROBUST, number=2, after=first))
    assert isinstance(second, Accepted)
    assert second.missing == {}
    untouched = Simulated(_hosts())
    first = training_round(untouched, _plan(untouched, ROBUST))
    assert isinstance(first, Accepted)
    same = training_round(untouched, _plan(untouched, ROBUST, number=2, after=first))
    assert isinstance(same, Accepted)
    assert second.digest == same.digest, "a worker restarted from the published state trains the same"


@pytest.mark.parametrize("how", ["payload lost", "payload late"])
def test_a_contribution_that_is_lost_or_late_is_named_so_and_the_rest_is_exact(how: str) -> None:
    runtime = Watched(Local(_hosts()), lose="w5.0/1", how=how)
    plan = _plan(runtime, MEAN)
    verdict = training_round(runtime, plan)
    assert verdict.missing == {"w5": how}
    others = [member for member in MEMBERS if member != "w5"]
    assert torch.equal(_result(plan, verdict), _flat_mean(plan, runtime.contributions, others))


def test_a_lost_partial_sum_is_made_again_and_costs_nobody() -> None:
    runtime = Watched(Local(_hosts()), lose="/sum:")
    plan = _plan(runtime, MEAN)
    verdict = training_round(runtime, plan)
    assert verdict.missing == {}
    assert torch.equal(_result(plan, verdict), _flat_mean(plan, runtime.contributions, MEMBERS))


@pytest.mark.parametrize("how", ["payload lost", "payload late"])
def test_a_refusal_names_the_partial_sums_that_could_not_be_had_and_why(how: str) -> None:
    class Again(Watched):
        """Every partial sum meets the same fate."""

        def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
            self._lose = "/sum:"
            return super().ask(calls, enough=enough, until=until)

    runtime = Again(Local(_hosts()), how=how)
    verdict = training_round(runtime, _plan(runtime, MEAN))
    assert isinstance(verdict, Refused)
    assert re.fullmatch(rf"payloads kept getting lost; lost on the way: a\d\.0/1/sum:\w+ \({how}\)", verdict.reason)
    assert _accounts(verdict) == sorted(MEMBERS)


def test_too_few_contributions_are_refused_with_what_was_needed() -> None:
    world = Simulated(_hosts())
    plan = _plan(world, ROBUST)
    for host in ("h1", "h2"):
        world.crash(host)
    verdict = training_round(world, plan)
    assert isinstance(verdict, Refused)
    assert verdict.reason == ("geometric_median with faulty_max=2 needs at least 5 usable contributions, got 4 of 8")
    assert _accounts(verdict) == sorted(MEMBERS)


def test_a_retry_of_the_same_training_does_not_train_twice() -> None:
    world = Simulated(_hosts())
    plan = _plan(world, ROBUST)
    worker = Worker("w0", load_workload("digits-mlp"), 0)
    unknown = worker.perform(Train(round=1, base=plan.state_digests, start=0, stop=9, steps=1))
    assert isinstance(unknown, Failed)
    assert unknown.reason.startswith("unknown")
    worker.perform(Adopt(round=0, state=plan.state, digests=plan.state_digests))
    request = Train(round=1, base=plan.state_digests, start=0, stop=9, steps=1)
    assert worker.perform(request) is worker.perform(request)


def test_payloads_of_different_vectors_never_have_the_same_key() -> None:
    """Equality of payloads is equality of keys: one round's vector trained on other rows is another payload."""
    plan = _plan(Local(_hosts()), ROBUST)
    worker = Worker("w0", load_workload("digits-mlp"), 0)
    worker.perform(Adopt(round=0, state=plan.state, digests=plan.state_digests))
    sent = [worker.perform(Train(round=1, base=plan.state_digests, start=0, stop=stop, steps=1)) for stop in (9, 5)]
    assert sent[0].digests != sent[1].digests
    assert sent[0].payloads != sent[1].payloads


def test_an_empty_slice_trains_nothing_and_reports_no_loss() -> None:
    runtime = Watched(Local(_hosts()))
    plan = dataclasses.replace(_plan(runtime, MEAN), batch=3)
    training_round(runtime, plan)
    idle = runtime.contributions["w0"]
    assert (idle.samples, idle.loss) == (0, None)
    assert torch.equal(idle.payloads[0].ref, plan.state[0].ref)
    assert runtime.contributions["w7"].samples == 3


def _contribution(**changes: object) -> Contribution:
    payload = Payload(key="x", ref=torch.zeros(8, dtype=torch.uint8), nbytes=8)
    usual = {
        "round": 2,
        "worker": "w0",
        "incarnation": 0,
        "payloads": (payload,),
        "layout": "",
        "digests": ("",),
        "mass": 1.0,
        "samples": 1,
        "loss": 0.5,
        "efficiency": 1.0,
    }
    return Contribution(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"round": 1}, "stale: it is for round 1, this is round 2"),
        ({"worker": "w1"}, "impersonation: it says it comes from 'w1'"),
        ({"mass": 0.0}, "misshapen: its mass is 0.0, wanted a positive number"),
        ({"mass": float("nan")}, "misshapen: its mass is nan, wanted a positive number"),
        ({"mass": float("inf")}, "misshapen: its mass is inf, wanted a positive number"),
    ],
)
def test_a_contribution_that_cannot_be_meant_is_rejected_at_once(changes: dict[str, object], reason: str) -> None:
    gathered = gather({"w0": _contribution(**changes)}, members=["w0"], round_number=2)
    assert gathered.rejected == {"w0": reason}
    assert not gathered.contributions


def test_a_rejected_liar_counts_once_and_an_absent_member_proves_nothing() -> None:
    policy = Policy(faulty_max=3)
    lied = judge_budget(policy=policy, members=10, rejected={"w0": "not finite: x"}, usable=9)
    assert (lied.hidden_max, lied.rejections_max) == (2, 2)
    away = judge_budget(policy=policy, members=10, rejected={}, usable=9)
    assert (away.hidden_max, away.rejections_max) == (3, 2)
    damaged = judge_budget(policy=policy, members=10, rejected={"w0": "corrupted: x"}, usable=9)
    assert damaged.hidden_max == 3, "bytes damaged on the way say nothing against their sender"


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (
            Policy(faulty_max=3),
            "faulty_max must be at least 0 and below a third of 8 members (3f < n), got 3; "
            "lower it to 2 or add workers.",
        ),
        (Policy(rule="mean"), "rule must be"),
        (Policy(topology="ring"), "topology must be one of flat, tree, mapreduce, sharded, got 'ring'; choose one."),
        (dataclasses.replace(MEAN, branching=1), "branching must be an integer of at least 2, got 1"),
        (
            Policy(topology="tree", branching=2, faulty_max=2),
            "faulty_max of a geometric_median tree with 8 workers and branching 2 must be at most 0, got 2; "
            "use topology flat or sharded, which keep 3f < n, or a larger branching factor.",
        ),
        (
            Policy(weighting="accuracy_softmax"),
            "weighting of a geometric_median round must be mass, which a robust rule takes no notice of, "
            "got 'accuracy_softmax'; use rule weighted_mean, or leave the weighting out.",
        ),
        (
            Policy(rule="krum", topology="tree", faulty_max=1),
            "rule of a tree round must be one of coordinate_median, geometric_median, lower_coordinate_median, "
            "trimmed_mean, weighted_mean, got 'krum'; use topology flat or sharded for this rule.",
        ),
        (
            Policy(rule="krum", topology="mapreduce", faulty_max=1),
            "rule of a mapreduce round must be one of weighted_mean, got 'krum'; ",
        ),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_before_anyone_is_asked(policy: Policy, sentence: str) -> None:
    runtime = Local(_hosts())
    plan = dataclasses.replace(_plan(runtime, ROBUST), policy=policy)
    with pytest.raises(ConfigurationError) as caught:
        training_round(runtime, plan)
    assert str(caught.value).startswith(sentence)


def test_a_batch_too_small_for_a_robust_rule_is_refused_and_a_mean_takes_it() -> None:
    """All but the last member would send the state as it is, and the one that trained would be the outlier."""
    runtime = Local(_hosts())
    plan = dataclasses.replace(_plan(runtime, ROBUST), batch=7)
    with pytest.raises(ConfigurationError) as caught:
        training_round(runtime, plan)
    assert str(caught.value) == (
        "batch of a geometric_median round with 8 members must be at least one sample a member, or those that train "
        "would be the outliers, got 7; give a larger batch, use fewer members, or a mean."
    )
    verdict = training_round(runtime, dataclasses.replace(_plan(runtime, MEAN), batch=7))
    assert isinstance(verdict, Accepted)
    assert verdict.used == MEMBERS


def test_a_host_that_hangs_does_not_keep_a_restarted_one_from_getting_the_state() -> None:
    world = Simulated(_hosts())
    first = training_round(world, _plan(world, ROBUST))
    world.crash("h1")
    world.restart("h1")
    world.pause("h3")
    assert isinstance(first, Accepted)
    second = training_round(world, _plan(world, ROBUST, number=2, after=first))
    assert second.missing == dict.fromkeys(["w6", "w7"], "late"), "the members of the restarted host are not missing"


@pytest.mark.parametrize("policy", [ROBUST, SHARDED], ids=["flat", "sharded"])
def test_a_result_whose_certificate_is_broken_is_refused(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 6.7. Arithmetic that goes wrong is noticed, since the certificate shares nothing with the solver."""
    right = RULES["geometric_median"]
    wrong = dataclasses.replace(right, aggregate=lambda rows, faulty_max: rows[0] + 1e3)
    monkeypatch.setattr(combining, "get_rule", lambda name: wrong if name == right.name else RULES[name])
    runtime = Local(_hosts())
    verdict = training_round(runtime, _plan(runtime, policy))
    assert isinstance(verdict, Refused)
    assert "the certificate of geometric_median is broken: 8 of 8 contributions pull at it" in verdict.reason
    assert _accounts(verdict) == sorted(MEMBERS)


@pytest.mark.parametrize("policy", POLICIES)
def test_members_and_aggregators_are_named_once(policy: Policy) -> None:
    runtime = Local(_hosts())
    plan = _plan(runtime, policy)
    with pytest.raises(ConfigurationError, match=r"members of a round must be at least one, .* got \['w0'\]"):
        training_round(runtime, dataclasses.replace(plan, members=(*MEMBERS, "w0")))
    with pytest.raises(ConfigurationError, match=r"aggregators of a round must be .* got \['a1'\]"):
        training_round(runtime, dataclasses.replace(plan, seats=(*plan.seats, plan.seats[1])))
    with pytest.raises(ConfigurationError, match=r"got \[\]; name at least one aggregator"):
        training_round(runtime, dataclasses.replace(plan, seats=()))


@pytest.mark.parametrize("stage", ["train", "screen"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_host_that_hangs_costs_its_members_and_one_delay_however_many_shards_there_are(
    policy: Policy, stage: str
) -> None:
    took = []
    for hung in (None, "h0"):
        world = Simulated(_hosts())
        plan = _plan(world, dataclasses.replace(policy, hedge_after_s=0.2, round_within_s=4.0, outlier_factor=None))
        struck = Moments(
            world, round_number=1, reached=lambda now, w=world, h=hung: w.pause(h) if h and now == stage else None
        )
        verdict = training_round(struck, plan)
        assert isinstance(verdict, Accepted), verdict
        assert set(verdict.missing) == ({"w0", "w1"} if hung and stage == "train" else set())
        took.append(world.now())
    train = 4.0 * policy.train_share if stage == "train" else 0.0  # a host that hangs in training is waited for
    assert took[1] < max(took[0], train) + 2 * 0.2 + 0.1


@pytest.mark.parametrize(
    ("setting", "value"), [("steps", 0), ("steps", -1), ("round", 0), ("batch", 0), ("batch_start", -1), ("steps", 2.5)]
)
def test_numbers_of_a_plan_that_make_no_round_are_refused(setting: str, value: object) -> None:
    """Nobody trained with steps=-1, and all was accepted."""
    runtime = Local(_hosts())
    plan = dataclasses.replace(_plan(runtime, MEAN), **{setting: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=rf"{setting} of a round must be an integer of at least [01], got"):
        training_round(runtime, plan)


@pytest.mark.parametrize("rounds", [0, -1, True, 1.5])
def test_no_round_at_all_is_refused_at_once(rounds: int) -> None:
    runtime = Local(_hosts())
    with pytest.raises(ConfigurationError, match="rounds of run_rounds must be an integer of at least 1, got"):
        run_rounds(runtime, _plan(runtime, MEAN), rounds=rounds)  # type: ignore[arg-type]


def test_stores_that_are_one_word_are_refused() -> None:
    with (
        pytest.raises(
            ConfigurationError, match=r"names of stores must be a sequence of names, got 's0'; pass \['s0'\]"
        ),
        spread_stores("s0", copies=1),
    ):
        pass
