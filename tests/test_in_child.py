"""The guarded child: it answers, and whatever it does instead, the caller gets a sentence and nothing survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from hqde_ref.errors import ForeignError, RuntimeFault
from hqde_ref.messages import (
    Aggregate,
    Aggregated,
    Answer,
    Call,
    Failed,
    Misused,
    Observe,
    Observed,
    PlanShare,
    Update,
)
from hqde_ref.runtimes.child_main import CannotLoad, load
from hqde_ref.runtimes.in_child import ForeignImplementation, InChild, Limits, python_command

SAMPLES = "tests.foreign_samples"
BIG = torch.arange(300_000, dtype=torch.float64)
PROGRAM = (sys.executable, "-S", str(Path(__file__).with_name("misbehaving_program.py")))
PATIENT = Limits(memory_mib=2048, call_within_s=60, start_within_s=60)


def ask_for(rule: str, *rows: torch.Tensor) -> Aggregate:
    updates = tuple(Update(worker=f"w{i}", tensors={"x": row}) for i, row in enumerate(rows))
    return Aggregate(rule=rule, topology="flat", updates=updates, faulty_max=0)


def foreign(what: str = "Behaving", limits: Limits = PATIENT) -> ForeignImplementation:
    return ForeignImplementation(python_command(f"{SAMPLES}:{what}"), label=what, limits=limits)


def program(*arguments: str, limits: Limits = PATIENT) -> ForeignImplementation:
    """A ``cmd:`` program that does what the rule says; see there."""
    return ForeignImplementation((*PROGRAM, *arguments), label="program", limits=limits)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_dead(pids: list[int], within_s: float = 10) -> list[int]:
    until = time.monotonic() + within_s
    while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < until:
        time.sleep(0.02)
    return left


@pytest.fixture(scope="module")
def behaving() -> Iterator[ForeignImplementation]:
    with foreign() as implementation:
        yield implementation


# ------------------------------------------------------------------------------------------------ it answers


def test_hello_tells_name_version_supported_requests_and_rules(behaving: ForeignImplementation) -> None:
    assert (behaving.name, behaving.version) == ("behaving", "1.0")
    assert behaving.supports == {Aggregate}
    assert behaving.rules == {("weighted_mean", "flat"), ("median", "tree")}


def test_tensors_travel_bit_for_bit_in_both_directions(behaving: ForeignImplementation) -> None:
    reply = behaving.start().perform(ask_for("weighted_mean", BIG, BIG))
    assert isinstance(reply, Aggregated)
    assert reply.result is not None
    assert torch.equal(reply.result["x"], BIG)


def test_every_started_node_has_a_state_of_its_own(behaving: ForeignImplementation) -> None:
    one, other = behaving.start(), behaving.start()
    counts = [node.perform(ask_for("count")) for node in (one, one, other)]
    assert [count.sentence for count in counts] == ["1", "2", "1"]


def test_an_exception_in_the_child_is_a_failed_in_one_line_with_its_place(behaving: ForeignImplementation) -> None:
    reply = behaving.start().perform(ask_for("fall_over"))
    assert isinstance(reply, Failed)
    assert reply.reason.startswith("RuntimeError: stack expects each tensor to be equal (tests/foreign_samples.py:")
    assert reply.reason.endswith("in fall_over)")
    assert reply.definite


def test_sys_exit_in_foreign_code_does_not_end_the_child(behaving: ForeignImplementation) -> None:
    starts = behaving.starts
    assert behaving.start().perform(ask_for("exit_politely")).reason.startswith("SystemExit: I give up")
    assert behaving.starts == starts


def test_what_foreign_code_prints_or_reads_cannot_spoil_the_protocol(behaving: ForeignImplementation) -> None:
    assert behaving.start().perform(ask_for("chatter")) == Misused(error="Chatter", sentence="done")
    assert behaving.last_words().endswith("neither is this")
    assert len(behaving.last_words()) <= 16_384


def test_a_reply_that_is_no_message_is_a_failed(behaving: ForeignImplementation) -> None:
    reply = behaving.start().perform(ask_for("nonsense"))
    assert reply.reason.startswith("broke the protocol: a reply that is no message: {'a': 'mapping'}")


def test_temporary_files_are_gone_after_every_call_and_the_folder_after_stop(tmp_path: Path) -> None:
    os.environ["TMPDIR"], before = str(tmp_path), os.environ.get("TMPDIR")
    try:
        import tempfile

        tempfile.tempdir = None
        with program() as implementation:
            implementation.start().perform(ask_for("count", BIG))
            assert [path.name for path in tmp_path.glob("hqde-child-*/*")] == ["path"]
        assert list(tmp_path.iterdir()) == []
    finally:
        tempfile.tempdir = None
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


# ------------------------------------------------------------------------------------------------ it does not start


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("nothing", "'nothing' is not of the form module:attribute"),
        ("no_such_module:Thing", "module 'no_such_module' does not import (ModuleNotFoundError: No module named"),
        (f"{SAMPLES}:Nothing", f"module '{SAMPLES}' has no 'Nothing'"),
        (f"{SAMPLES}:time", "is no implementation and makes none"),
        (f"{SAMPLES}:broken_factory", "does not start (ValueError: no licence found)"),
        (f"{SAMPLES}:Incomplete", "is no implementation: it lacks version, supports, start, stop"),
    ],
)
def test_a_target_that_does_not_load_is_told_in_one_line(target: str, problem: str) -> None:
    with pytest.raises(CannotLoad) as caught:
        load(target)
    assert problem in caught.value.problem
    assert "\n" not in caught.value.problem + caught.value.do


def test_what_the_child_cannot_load_is_one_clear_line_with_advice() -> None:
    with pytest.raises(ForeignError) as caught:
        foreign("Nothing")
    problem = f"module '{SAMPLES}' has no 'Nothing'; check the name after the colon."
    assert str(caught.value) == f"implementation 'Nothing': {problem}"


def test_a_child_that_supports_something_unknown_is_refused() -> None:
    with pytest.raises(
        ForeignError,
        match=r"its supports: wanted a set of request types of hqde_ref, got <class 'int'>",
    ):
        foreign("Unknown")


def test_a_factory_function_is_as_good_as_a_class() -> None:
    assert load(f"{SAMPLES}:factory").name == load(f"{SAMPLES}:Behaving").name == "behaving"


def test_a_command_that_is_not_there_is_one_clear_line() -> None:
    with pytest.raises(ForeignError, match=r"could not be started: No such file or directory: \./nothing"):
        ForeignImplementation(("./nothing",), label="cmd:./nothing", limits=PATIENT)


def test_a_program_that_says_no_hello_is_quoted() -> None:
    with pytest.raises(ForeignError, match=r"broke the protocol: a line: wanted a hello, got 'hallo'"):
        ForeignImplementation(("echo", "hallo"), label="cmd:echo hallo", limits=PATIENT)
    code = "import sys; sys.exit('bad licence')"
    with pytest.raises(ForeignError, match="exited with code 1; last words: bad licence; run it by hand"):
        ForeignImplementation((sys.executable, "-S", "-c", code), label="cmd:python", limits=PATIENT)


def test_a_start_that_takes_too_long_is_ended() -> None:
    with pytest.raises(ForeignError, match=r"ended by the guard: start limit of 0\.3 s exceeded"):
        program("no hello", limits=Limits(start_within_s=0.3))


# ------------------------------------------------------------------------------------------------ it misbehaves


def test_an_endless_loop_is_ended_and_the_next_call_finds_a_fresh_child() -> None:
    with program(limits=Limits(call_within_s=0.5)) as implementation:
        node = implementation.start()
        began = time.monotonic()
        reply = node.perform(ask_for("loop"))
        assert reply == Failed(reason="ended by the guard: time limit of 0.5 s a call exceeded", definite=True)
        assert time.monotonic() - began < 5
        assert node.perform(ask_for("count")) == Misused(error="None", sentence="n1 count True")
        assert implementation.starts == 2


def test_memory_is_limited_over_all_descendants_together() -> None:
    with program(limits=Limits(memory_mib=140)) as implementation:
        reply = implementation.start().perform(ask_for("eat"))
        assert isinstance(reply, Failed)
        assert reply.reason.startswith("ended by the guard: memory limit of 140 MiB exceeded (")
        assert reply.reason.endswith(" MiB in 3 processes)")
        assert reply.definite


@pytest.mark.parametrize(
    ("rule", "reason"),
    [("leave", "exited with code 3; last words: leaving now"), ("crash", "crashed: killed by SIGSEGV")],
)
def test_a_crash_tells_the_signal_or_exit_code_and_the_last_words(rule: str, reason: str) -> None:
    with program() as implementation:
        reply = implementation.start().perform(ask_for(rule))
        assert reply == Failed(reason=reason, definite=True)
        assert isinstance(implementation.start().perform(ask_for("count")), Misused)


def test_processes_that_lost_their_parent_die_with_the_child() -> None:
    with program() as implementation:
        node = implementation.start()
        orphan = int(node.perform(ask_for("abandon")).sentence)
        assert is_alive(orphan)
        node.perform(ask_for("leave"))
        assert not is_alive(orphan)  # the reply comes when nothing is alive any more
        orphan = int(node.perform(ask_for("abandon")).sentence)
    assert not is_alive(orphan)


def test_nothing_survives_when_the_parent_is_killed() -> None:
    script = """
        import time
        from tests.test_in_child import ask_for, program
        implementation = program()
        orphan = implementation.start().perform(ask_for("abandon")).sentence
        print(orphan, implementation._host.running[0].program(), implementation._host.folder, flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        *words, folder = parent.stdout.readline().split()
        pids = [int(word) for word in words]
        assert [is_alive(pid) for pid in pids] == [True, True]
        parent.kill()
    assert wait_until_dead(pids) == []
    until = time.monotonic() + 10
    while Path(folder).exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("wrong id", "broke the protocol: a line: wanted an answer with the id of a call, got '{\"id\": 99}'"),
        ("no JSON", "broke the protocol: a line: wanted an answer with the id of a call, got 'oops'"),
        ("no reply", "broke the protocol: an answer without reply and error"),
        ("closed output", "ended by the guard: time limit of 1 s a call exceeded"),
        ("a path outside", "broke the protocol: tensors: wanted a file name in $HQDE_CHILD_FOLDER, got '../x'"),
        ("half a message", "broke the protocol: Misused: wanted all its fields"),
    ],
)
def test_a_program_that_breaks_the_protocol_gives_a_failed_that_says_how(rule: str, reason: str) -> None:
    with program(limits=Limits(call_within_s=1)) as implementation:
        reply = implementation.start().perform(ask_for(rule))
        assert isinstance(reply, Failed)
        assert reply.reason.startswith(reason)
        assert reply.definite


def test_a_program_that_never_reads_does_not_block_the_caller() -> None:
    with program("never reads", limits=Limits(call_within_s=1)) as implementation:
        longer_than_a_pipe_holds = [torch.zeros(1)] * 2000
        reply = implementation.start().perform(ask_for("count", *longer_than_a_pipe_holds))
        assert reply == Failed(reason="ended by the guard: time limit of 1 s a call exceeded", definite=True)


def test_a_program_in_any_language_needs_only_json_lines() -> None:
    with program() as implementation:
        assert (implementation.version, implementation.rules) == ("2", None)
        assert implementation.start().perform(ask_for("median")).sentence == "n1 median True"


# ------------------------------------------------------------------------------------------------ hosts of a runtime


@pytest.fixture(scope="module")
def runtime() -> Iterator[InChild]:
    hosts = {name: python_command(f"{SAMPLES}:Hosts") for name in ("h0", "h1")}
    with InChild(hosts, lambda node: f"h{node[0]}", limits=Limits(call_within_s=3)) as made:
        yield made


def observe(node: str, seconds: float = 0.0, attempt: int = 0) -> Call:
    return Call(node=node, request=Observe(losses=(seconds,)), attempt=attempt)


def performed(answer: Answer) -> float:
    assert isinstance(answer.reply, Observed), answer
    return answer.reply.scores[0]


def test_answers_come_in_the_order_of_the_calls(runtime: InChild) -> None:
    calls = [observe("1b"), observe("0a", 0.2), observe("1a"), observe("0b")]
    answers = runtime.ask(calls, enough=4, until=runtime.now() + 20)
    assert [answer.node for answer in answers] == ["1b", "0a", "1a", "0b"]
    assert [performed(answer) for answer in answers] == [1, 1, 1, 1]


def test_a_deadline_is_absolute_and_silence_is_not_definite(runtime: InChild) -> None:
    began = runtime.now()
    answers = runtime.ask([observe("0d", 0.8), observe("1d")], enough=2, until=began + 0.4)
    assert runtime.now() - began >= 0.4
    assert answers[0].reply == Failed(reason="late", definite=False)
    assert performed(answers[1]) == 1


def test_it_ends_at_enough_replies(runtime: InChild) -> None:
    answers = runtime.ask([observe("0e", 1.0), observe("1e")], enough=1, until=runtime.now() + 20)
    assert answers[0].reply == Failed(reason="late", definite=False)
    assert performed(answers[1]) == 1


def test_an_equal_call_joins_the_one_in_flight_and_another_attempt_does_not(runtime: InChild) -> None:
    call = observe("0j", 0.5)
    (early,) = runtime.ask([call], enough=1, until=runtime.now() + 0.1)
    again = runtime.ask([call, call], enough=2, until=runtime.now() + 20)
    assert isinstance(early.reply, Failed)
    assert [performed(answer) for answer in again] == [1, 1]
    (other,) = runtime.ask([observe("0j", 0.5, attempt=1)], enough=1, until=runtime.now() + 20)
    assert performed(other) == 2


def test_a_retry_gets_the_reply_that_came_in_after_the_deadline(runtime: InChild) -> None:
    call = observe("1r", 0.2)
    runtime.ask([call], enough=1, until=runtime.now() + 0.05)
    time.sleep(0.5)
    (answer,) = runtime.ask([call], enough=1, until=runtime.now() + 20)
    (once_more,) = runtime.ask([call], enough=1, until=runtime.now() + 20)
    assert (performed(answer), performed(once_more)) == (1, 2)


def test_a_late_answer_belongs_to_no_ask(runtime: InChild) -> None:
    runtime.ask([observe("1l", 0.3)], enough=1, until=runtime.now() + 0.05)
    (answer,) = runtime.ask([observe("1l")], enough=1, until=runtime.now() + 20)
    assert performed(answer) == 2


def test_a_node_that_its_host_does_not_know_is_a_definite_failure(runtime: InChild) -> None:
    answers = runtime.ask([observe("0?"), observe("9x")], enough=2, until=runtime.now() + 20)
    unknown = [Failed(reason=f"there is no node '{name}'", definite=True) for name in ("0?", "9x")]
    assert [answer.reply for answer in answers] == unknown


def test_an_empty_ask_is_answered_at_once(runtime: InChild) -> None:
    assert runtime.ask([], enough=0, until=runtime.now() + 20) == ()


def test_a_killed_host_settles_its_calls_at_once_and_comes_back_with_fresh_nodes(runtime: InChild) -> None:
    (before,) = runtime.ask([observe("0k")], enough=1, until=runtime.now() + 20)
    os.kill(runtime.processes()["h0"], signal.SIGKILL)
    answers = runtime.ask([observe("0k", 2.5), observe("1k")], enough=2, until=runtime.now() + 20)
    assert answers[0].reply == Failed(reason="crashed: killed by SIGKILL", definite=True)
    assert performed(answers[1]) == 1
    (after,) = runtime.ask([observe("0k")], enough=1, until=runtime.now() + 20)
    assert after.reply.scores == (1, before.reply.scores[1] + 1)


def test_a_host_that_dies_fails_its_whole_batch_and_no_other(runtime: InChild) -> None:
    fatal = Call(node="1f", request=PlanShare(workers=1, gpus=1))
    answers = runtime.ask([observe("1c"), fatal, observe("0c")], enough=3, until=runtime.now() + 20)
    assert [answer.reply for answer in answers[:2]] == [Failed(reason="exited with code 9", definite=True)] * 2
    assert performed(answers[2]) == 1
    (again,) = runtime.ask([observe("1c")], enough=1, until=runtime.now() + 20)
    assert performed(again) == 1


def test_hosts_that_do_not_start_are_named() -> None:
    hosts = {"good": python_command(f"{SAMPLES}:Hosts"), "bad": python_command("no_such_module:Thing")}
    with pytest.raises(RuntimeFault, match=r"child hosts: bad \(module 'no_such_module' does not import .* did not st"):
        InChild(hosts, lambda node: "good", limits=PATIENT)
