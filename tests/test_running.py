"""Rounds with faults as the reference answers them, and what the harness makes of faults that never took effect."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hqde_ref import wire
from hqde_ref.messages import (
    Entry,
    Layout,
    MapShuffle,
    Misused,
    Node,
    Pair,
    Predict,
    Predicted,
    ReplanTree,
    Reply,
    Request,
    RoundEnded,
    RoundFault,
    RunRound,
    Shuffled,
    StoreFault,
    StoreFaulted,
    TreeReplanned,
    Update,
    Voice,
)
from hqde_ref.reference import Reference
from properties.examine import PROFILES, examine
from properties.showing import show_reply, show_request
from properties.snippets import write_snippet
from properties.subject import Subject
from properties.suite import all_cases
from tests.planted_base import Planted, State

LAYOUT = Layout(entries=(Entry(name="weight", shape=(2,), dtype="float32"),))
UPDATES = tuple(Update(worker=f"w{i}", tensors={"weight": torch.tensor([i + 1.0, -i])}) for i in range(5))
DEATH = RoundFault(role="member", index=1, kind="dies")


def _round(**changes: Any) -> RunRound:
    usual: dict[str, Any] = {
        "number": 1,
        "rule": "weighted_mean",
        "topology": "tree",
        "updates": UPDATES,
        "layout": LAYOUT,
        "within_s": 5.0,
    }
    return RunRound(**(usual | changes))


def _run(node: Node | None = None, **changes: Any) -> RoundEnded:
    ended = (node or Reference().start()).perform(_round(**changes))
    assert isinstance(ended, RoundEnded), ended
    return ended


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"faults": (RoundFault(role="king", index=0, kind="dies"),)},
            "role of a fault must be one of member, mapper, reducer, inner, got 'king'; choose one.",
        ),
        (
            {"faults": (RoundFault(role="inner", index=0, kind="is stale"),)},
            "kind of a fault must be one of dies, hangs, is slow, loses an answer, got 'is stale'; choose one.",
        ),
        ({"weighting": "heavy"}, "weighting must be one of flat, hierarchical, got 'heavy'; choose one."),
        ({"number": 0}, "number of the round must be an integer above 0, got 0; count on."),
        ({"hosts": 0}, "hosts must be an integer of at least 1, got 0; give the round a machine."),
        ({"faulty_max": 2}, "faulty_max must be at least 0 and below a third of 5 members"),
        ({"within_s": 0.0}, "round_within_s must be a positive number of seconds, got 0.0"),
    ],
)
def test_a_round_that_makes_no_sense_is_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    reply = Reference().start().perform(_round(**changes))
    assert isinstance(reply, Misused), reply
    assert reply.sentence.startswith(sentence)


def test_rounds_of_a_node_are_of_one_system_and_count_on() -> None:
    node = Reference().start()
    _run(node)
    again, others = node.perform(_round()), node.perform(_round(number=2, updates=UPDATES[:3]))
    assert again == Misused(
        error="ConfigurationError", sentence="number of the round must be an integer above 1, got 1; count on."
    )
    assert isinstance(others, Misused)
    assert others.sentence.startswith("members, layout and hosts must be those of the round before, got ")
    assert _run(node, number=2).used == tuple(update.worker for update in UPDATES)


def test_a_member_that_dies_is_back_in_the_next_round_and_needs_the_state_first() -> None:
    node = Reference().start()
    first = _run(node, faults=(DEATH,))
    assert (first.fired, first.missing) == ((True,), {"w1": "crashed"})
    assert len(_run(node, number=2).used or ()) == 5


@pytest.mark.parametrize(
    "fault",
    [
        RoundFault(role="mapper", index=0, kind="dies"),  # a tree has none
        RoundFault(role="inner", index=0, kind="dies", after=9),  # it has not so much to do
        RoundFault(role="member", index=0, kind="equivocates"),  # it has one thing to say
    ],
    ids=["no mapper", "too late", "one tale"],
)
def test_a_fault_that_cannot_take_effect_did_not_fire(fault: RoundFault) -> None:
    ended = _run(faults=(fault,))
    assert ended.fired == (False,)
    assert len(ended.used or ()) == 5


def test_of_two_faults_that_meet_one_host_the_second_finds_it_down() -> None:
    hang = dataclasses.replace(DEATH, kind="hangs")
    assert _run(faults=(DEATH, hang)).fired == (True, False)


def test_a_member_equivocates_only_where_it_is_asked_to_and_towards_several_receivers() -> None:
    other = dataclasses.replace(UPDATES[0], tensors={"weight": torch.tensor([500.0, 500.0])})
    request: dict[str, Any] = {"updates": (*UPDATES, other), "rule": "geometric_median", "faulty_max": 1}
    fault = RoundFault(role="member", index=0, kind="equivocates")
    assert _run(topology="sharded", faults=(fault,), **request).fired == (True,)
    assert _run(topology="flat", faults=(fault,), **request).fired == (False,)
    assert _run(topology="sharded", **request).fired == ()


def test_an_answer_that_got_lost_is_asked_for_again_and_counts_once() -> None:
    faults = (
        dataclasses.replace(DEATH, kind="loses an answer", after=1),
        RoundFault(role="inner", index=0, kind="loses an answer"),
    )
    ended = _run(faults=faults)
    assert (ended.fired, ended.used) == ((True, True), tuple(update.worker for update in UPDATES))


def test_a_silent_member_is_missing_and_a_stranger_is_rejected() -> None:
    stranger = dataclasses.replace(UPDATES[0], worker="who")
    ended = _run(updates=(*UPDATES[:4], stranger), members=tuple(update.worker for update in UPDATES))
    assert ended.missing == {"w4": "nothing arrived"}
    assert ended.rejected == {"who": "not a member of this round"}


MESSAGES = [
    Predict(
        voices=(Voice(worker="w0", outputs=torch.ones(1, 2), efficiency=0.5), Voice(worker="w1", outputs=None)),
        weighted=True,
    ),
    Predicted(outputs=torch.ones(1, 2), used=("w0",), left_out={"w1": "dead: it gives no outputs"}),
    MapShuffle(items=UPDATES, layout=LAYOUT, mappers=2, reducers=3),
    Shuffled(groups={"weight": (Pair(source="w0", tensor=torch.ones(2)),)}, unmapped={"w1": "misshapen"}),
    ReplanTree(workers=5, branching=2, seconds={"h0": 0.5, "h1": 1.0}),
    TreeReplanned(levels=(1, 2), depth=1, parents={"0.0": None, "1.0": "0.0", "1.1": "0.0"}, hosts={"0.0": "h0"}),
    _round(faults=(DEATH, RoundFault(role="inner", index=2, kind="is slow", after=1, seconds=0.5))),
    RoundEnded(result=None, refused="nobody came"),
    RoundEnded(
        result={"weight": torch.ones(2)},
        used=("w0",),
        rejected={"w1": "stale"},
        missing={},
        fired=(True,),
        seconds=1.5,
        most_received=3,
        most_sent=1,
        coordinator_bytes=900,
    ),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_survive_the_wire(message: object) -> None:
    tensors: dict[str, torch.Tensor] = {}
    line = wire.dumps(message, tensors)
    back = wire.loads(line, tensors)
    assert type(back) is type(message)
    again: dict[str, torch.Tensor] = {}
    assert wire.dumps(back, again) == line
    assert all(torch.equal(tensor, again[key]) for key, tensor in tensors.items())


class NeverFires(Planted):
    """Everything goes well in its rounds, and it says so."""

    said: tuple[bool, ...] | None = ()

    def before(self, request: Request) -> Request:
        return dataclasses.replace(request, faults=()) if isinstance(request, RunRound) else request

    def after(self, request: Request, reply: Reply) -> Reply:
        if isinstance(request, RunRound) and isinstance(reply, RoundEnded):
            fired = None if self.said is None else (False,) * len(request.faults)
            return dataclasses.replace(reply, fired=fired)
        return reply


class SaysNothing(NeverFires):
    """Nor does it say whether a fault took effect."""

    said = None


FAULTY = ["test_the_work_of_a_dead_mapper_or_reducer_is_done_again", "test_damaged_bytes_are_not_aggregated"]


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize(
    ("kind", "because"),
    [
        (NeverFires, "faults that were asked for did not take effect"),
        (SaysNothing, "it does not say which faults took effect"),
    ],
)
def test_a_law_about_faults_cannot_tell_where_none_took_effect(name: str, kind: type[Planted], because: str) -> None:
    case = next(case for case in all_cases() if case.name == name)
    outcome = examine(case, Subject(kind()), profile=PROFILES["smoke"], seed=0)
    assert outcome.status == "CANNOT_TELL"
    assert (outcome.because or "").endswith(because)


class _DoesNothing(Planted):
    """Stores that no fault befalls."""

    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        return StoreFaulted(fired=False) if isinstance(request, StoreFault) else ask(request)


@pytest.mark.parametrize(
    "name", ["test_stores_that_came_back_stand_in_for_the_others", "test_reads_repair_damaged_copies"]
)
def test_a_law_about_stores_cannot_tell_where_no_fault_took_effect(name: str) -> None:
    case = next(case for case in all_cases() if case.name == name)
    outcome = examine(case, Subject(_DoesNothing()), profile=PROFILES["smoke"], seed=0)
    assert outcome.status == "CANNOT_TELL"
    assert (outcome.because or "").endswith("a fault that was asked for did not take effect")


def test_a_round_is_shown_with_its_faults_and_its_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    slow = RoundFault(role="inner", index=0, kind="is slow", after=1, seconds=2.0)
    request = _round(faults=(DEATH, slow))
    lines = show_request(request).splitlines()
    assert lines[0] == (
        "RunRound(1, weighted_mean, tree, 5 updates, faulty_max=0, branching=3, hosts=3, weighting=flat, within_s=5.0)"
    )
    assert lines[1:4] == [
        "  fault: member 1 dies",
        "  fault: inner 0 is slow by 2.0 s, after 1 piece(s) of work",
        "  layout: 'weight' float32(2,)",
    ]
    assert "missing ['w1']; seconds=" in show_reply(_run(faults=(DEATH, slow)))
    code = write_snippet("mine", "hqde_ref.reference:Reference", request)
    exec(compile(code, "snippet", "exec"), {})
    assert "RoundEnded(" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("voices", "sentence"),
    [
        (
            (Voice(worker="w0", outputs=torch.ones(2)), Voice(worker="w1", outputs=torch.ones(3))),
            "outputs: wanted one floating dtype and shape, got float32(2,), float32(3,); predict the same rows.",
        ),
        (
            (Voice(worker="w0", outputs=torch.ones(2)),) * 2,
            "voices must be distinct members, got ('w0', 'w0'); name every member once.",
        ),
    ],
)
def test_predictions_that_cannot_be_combined_are_refused(voices: tuple[Voice, ...], sentence: str) -> None:
    reply = Reference().start().perform(Predict(voices=voices, weighted=False))
    assert isinstance(reply, Misused)
    assert reply.sentence == sentence


def test_with_nobody_left_there_is_no_prediction() -> None:
    bad = (Voice(worker="w0", outputs=None), Voice(worker="w1", outputs=torch.tensor([float("nan")])))
    reply = Reference().start().perform(Predict(voices=bad, weighted=False))
    assert (reply.outputs, reply.used, reply.refused) == (None, (), "no member is left to predict")
    assert reply.left_out == {
        "w0": "dead: it gives no outputs",
        "w1": "not finite: its outputs hold NaN or infinity",
    }
