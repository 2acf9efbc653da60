"""Label flipping from a scenario file: it changes what exactly f members train, in its rounds, and it does harm."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hqde_ref.messages import (
    LATE,
    UNANSWERED,
    Accepted,
    Adopt,
    Answer,
    Begin,
    Begun,
    Call,
    Contribution,
    Forge,
    Payload,
    Runtime,
    Train,
)
from simulator.adversary import Adversary, Lie
from simulator.execution import run_all
from simulator.records import Run
from simulator.scenario import Scenario
from simulator.scenario_reading import parse_scenario
from simulator.worlds import SimulatedWorld

FILE = """
apiVersion: hqde.sim/v1
metadata: {{name: poisoned}}
seed: 3
system: {{workers: 7, hosts: 3, faulty_max: 2, round_within: 2s, rule: {rule}}}
workload: {{rounds: 3, batch: 350, steps: 5}}
faults:
  - {{action: byzantine, target: minority-third, attack: {{name: label_flip}}, during: {{rounds: [2, 3]}}}}
"""


def _scenario(rule: str = "coordinate_median") -> Scenario:
    return parse_scenario(FILE.format(rule=rule), file="poisoned.yaml")


def _first_round(scenario: Scenario) -> tuple[Runtime, Begun, list[Call]]:
    """A world whose members have the first state, that state, and what they are asked to train."""
    runtime, count = SimulatedWorld(scenario).runtime, len(scenario.members)
    begun = runtime.ask([Call(node="evaluator", request=Begin(seed=1, shards=1))], enough=1, until=10.0)[0].reply
    assert isinstance(begun, Begun)
    adopt = Adopt(round=0, state=begun.state, digests=begun.digests)
    runtime.ask([Call(node=member, request=adopt) for member in scenario.members], enough=count, until=20.0)
    calls = [
        Call(node=m, request=Train(round=1, base=begun.digests, start=50 * i, stop=50 * i + 50, steps=5))
        for i, m in enumerate(scenario.members)
    ]
    return runtime, begun, calls


def _contributions(scenario: Scenario, liars: tuple[str, ...]) -> dict[str, Contribution]:
    """What each member sends in the first round, as the round's story would see it."""
    runtime, begun, calls = _first_round(scenario)
    adversary = Adversary(
        runtime,
        lies={member: Lie(attack="label_flip", options={}) for member in liars},
        base=begun.state,
        layout=begun.layout,
        round_number=1,
        seed=3,
        train_within_s=10.0,
    )
    replies = {answer.node: answer.reply for answer in adversary.ask(calls, enough=len(calls), until=40.0)}
    found = {member: reply for member, reply in replies.items() if isinstance(reply, Contribution)}
    assert set(adversary.forged) == set(liars)
    assert set(adversary.honest) == set(scenario.members) - set(liars)
    return found


def test_exactly_f_members_train_on_other_labels_and_the_others_send_the_same_bits() -> None:
    scenario = _scenario()
    liars = scenario.aim(0)
    assert len(liars) == 2
    healthy, attacked = _contributions(scenario, ()), _contributions(scenario, liars)
    changed = {member for member in healthy if healthy[member].digests != attacked[member].digests}
    assert changed == set(liars)
    for member in liars:
        poisoned, honest = attacked[member], healthy[member]
        assert (poisoned.worker, poisoned.samples) == (member, 50)
        assert poisoned.loss is not None
        assert poisoned.loss != honest.loss


def _runs(scenario: Scenario) -> dict[str, Run]:
    return {run.variant: run for run, _ in run_all(scenario, on="sim")}


def test_a_run_is_poisoned_in_the_rounds_of_the_fault_only_and_the_model_suffers() -> None:
    scenario = _scenario("weighted_mean")
    runs = _runs(scenario)
    written, healthy = runs["as written"], runs["no faults"]
    assert [record.byzantine for record in written.rounds] == [(), scenario.aim(0), scenario.aim(0)]
    assert [strike.fired for strike in written.strikes] == [2]
    bits = [
        [record.verdict.digest for record in run.rounds if isinstance(record.verdict, Accepted)]
        for run in (written, healthy)
    ]
    assert bits[0][0] == bits[1][0]
    assert bits[0][1] != bits[1][1]
    assert written.rounds[-1].loss > healthy.rounds[-1].loss


def test_the_bound_is_judged_against_those_who_train_on_true_labels() -> None:
    written = _runs(_scenario())["as written"]
    for record in written.rounds[1:]:
        assert record.bound is not None
        assert record.measured is not None
        assert len(record.honest) == 5
        assert record.measured.error <= record.bound


class _LosesOnce:
    """A runtime in which the first answer of one member is lost on the way."""

    def __init__(self, inner: Runtime, member: str) -> None:
        self._inner, self._member, self.forges = inner, member, list[Forge]()

    def now(self) -> float:
        return self._inner.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self._inner.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        self.forges += [call.request for call in calls if isinstance(call.request, Forge)]
        answers = self._inner.ask(calls, enough=enough, until=until)
        lost, self._member = self._member, ""
        return tuple(Answer(node=a.node, reply=UNANSWERED) if a.node == lost else a for a in answers)


def test_liars_wait_for_an_honest_member_whose_answer_got_lost() -> None:
    """It is asked again; who lied without it would know less in one world than in the other."""
    scenario = _scenario()
    world, begun, calls = _first_round(scenario)
    runtime = _LosesOnce(world, "w3")
    adversary = Adversary(
        runtime,
        lies={"w0": Lie(attack="ipm", options={"epsilon": 10.0})},
        base=begun.state,
        layout=begun.layout,
        round_number=1,
        seed=3,
        train_within_s=100.0,
    )
    first = {answer.node: answer.reply for answer in adversary.ask(calls, enough=7, until=40.0)}
    assert (first["w0"], first["w3"], runtime.forges) == (LATE, UNANSWERED, [])
    again = [call for call in calls if call.node in ("w0", "w3")]
    second = {answer.node: answer.reply for answer in adversary.ask(again, enough=2, until=60.0)}
    assert isinstance(second["w0"], Contribution)
    assert [len(forge.known) for forge in runtime.forges] == [6]
