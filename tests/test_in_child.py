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
    Adopt,
    Adopted,
    Aggregate,
    Aggregated,
    Answer,
    Begin,
    Begun,
    Call,
    Evaluate,
    Failed,
    Misused,
    Payload,
    Update,
)
from hqde_ref.runtimes.in_child import ForeignImplementation, InChild, Limits, python_command
from tests import foreign_samples

SAMPLES = "tests.foreign_samples"
BIG = torch.arange(300_000, dtype=torch.float64)
PATIENT = Limits(memory_mib=2048, call_within_s=60, start_within_s=60)


def ask_for(rule: str, *rows: torch.Tensor) -> Aggregate:
    updates = tuple(Update(worker=f"w{i}", tensors={"x": row}) for i, row in enumerate(rows))
    return Aggregate(rule=rule, topology="flat", updates=updates, faulty_max=0)


def foreign(what: str = "Behaving", limits: Limits = PATIENT) -> ForeignImplementation:
    return ForeignImplementation(python_command(f"{SAMPLES}:{what}"), label=what, limits=limits)


def program(tmp_path: Path, body: str, limits: Limits = PATIENT) -> ForeignImplementation:
    """A ``cmd:`` program that says hello and then does what ``body`` says with each line."""
    hello = '{"hello": {"protocol": 1, "name": "p", "version": "2", "supports": ["Aggregate"]}}'
    script = tmp_path / "program.py"
    script.write_text(f"import sys, json, time, os\nprint('{hello}', flush=True)\n" + textwrap.dedent(body))
    return ForeignImplementation((sys.executable, "-S", str(script)), label="program", limits=limits)


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
        with foreign() as implementation:
            implementation.start().perform(ask_for("weighted_mean", BIG))
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
        ("no_such_module:Thing", "module 'no_such_module' does not import (ModuleNotFoundError: No module named"),
        (f"{SAMPLES}:Nothing", f"module '{SAMPLES}' has no 'Nothing'; check the name after the colon"),
        (f"{SAMPLES}:broken_factory", "does not start (ValueError: no licence found)"),
        (f"{SAMPLES}:Incomplete", "is no implementation: it lacks version, supports, start, stop"),
        (f"{SAMPLES}:Unknown", "it says that it supports 'int', which is no request"),
    ],
)
def test_a_target_that_does_not_load_is_one_clear_line(target: str, problem: str) -> None:
    with pytest.raises(ForeignError) as caught:
        ForeignImplementation(python_command(target), label=target, limits=PATIENT)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"implementation '{target}': ")
    assert "\n" not in str(caught.value)


def test_a_factory_function_is_as_good_as_a_class() -> None:
    with foreign("factory") as implementation:
        assert implementation.name == "behaving"


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
        foreign("Slow", Limits(start_within_s=0.3))


# ------------------------------------------------------------------------------------------------ it misbehaves


def test_an_endless_loop_is_ended_and_the_next_call_finds_a_fresh_child() -> None:
    with foreign(limits=Limits(call_within_s=0.5)) as implementation:
        node = implementation.start()
        node.perform(ask_for("count"))
        began = time.monotonic()
        reply = node.perform(ask_for("loop"))
        assert reply == Failed(reason="ended by the guard: time limit of 0.5 s a call exceeded", definite=True)
        assert time.monotonic() - began < 5
        assert node.perform(ask_for("count")) == Misused(error="Count", sentence="1")
        assert implementation.starts == 2


def test_memory_is_limited_over_all_descendants_together() -> None:
    with foreign(limits=Limits(memory_mib=700)) as implementation:
        reply = implementation.start().perform(ask_for("eat"))
        assert isinstance(reply, Failed)
        assert reply.reason.startswith("ended by the guard: memory limit of 700 MiB exceeded (")
        assert reply.reason.endswith(" MiB in 3 processes)")
        assert reply.definite


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("leave", "exited with code 3; last words: leaving now"),
        ("crash", "crashed: killed by SIGSEGV"),
    ],
)
def test_a_crash_tells_the_signal_or_exit_code_and_the_last_words(rule: str, reason: str) -> None:
    with foreign() as implementation:
        reply = implementation.start().perform(ask_for(rule))
        assert isinstance(reply, Failed)
        assert reply.reason.startswith(reason)
        assert reply.definite
        assert isinstance(implementation.start().perform(ask_for("count")), Misused)


def test_processes_that_lost_their_parent_die_with_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "orphans"
    monkeypatch.setenv(foreign_samples.ORPHANS, str(listed))
    with foreign(limits=Limits(call_within_s=20)) as implementation:
        node = implementation.start()
        node.perform(ask_for("orphans"))
        orphans = foreign_samples.read_orphans(listed)
        assert [is_alive(pid) for pid in orphans] == [True]
        node.perform(ask_for("leave"))
        assert wait_until_dead(orphans, 0) == []  # the reply comes when nothing is alive any more
        node.perform(ask_for("orphans"))
    assert wait_until_dead(foreign_samples.read_orphans(listed), 0) == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_when_the_parent_is_killed(tmp_path: Path, end: signal.Signals) -> None:
    listed = tmp_path / "orphans"
    script = """
        import sys, time
        from tests.test_in_child import ask_for, foreign
        implementation = foreign()
        implementation.start().perform(ask_for("orphans"))
        print(implementation._host.running[0].program(), flush=True)
        time.sleep(600)
    """
    environment = {**os.environ, foreign_samples.ORPHANS: str(listed)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()), *foreign_samples.read_orphans(listed)]
        assert all(is_alive(pid) for pid in pids)
        parent.send_signal(end)
    assert wait_until_dead(pids) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "sys.stdin.readline(); print('{\"id\": 99}', flush=True); time.sleep(60)",
            "wanted an answer with the id of a",
        ),
        ("sys.stdin.readline(); print('oops', flush=True); time.sleep(60)", "got \"'oops'\""),
        ("sys.stdin.readline(); print('{\"id\": 1}', flush=True); time.sleep(60)", "an answer without reply and error"),
        ("sys.stdin.readline(); os.close(1); time.sleep(60)", "ended by the guard: time limit of 2 s a call exceeded"),
        ("time.sleep(60)", "ended by the guard: time limit of 2 s a call exceeded"),
        (
            "sys.stdin.readline()\n"
            'answer = {"id": 1, "reply": {"$type": "Misused", "error": "", "sentence": ""}, "tensors": "../x"}\n'
            "print(json.dumps(answer), flush=True)\n"
            "time.sleep(60)",
            "broke the protocol: tensors: wanted a file name in $HQDE_CHILD_FOLDER, got '../x'",
        ),
        (
            'sys.stdin.readline(); print(\'{"id": 1, "reply": {"$type": "Misused"}}\', flush=True)',
            "wanted all its fields",
        ),
    ],
    ids=["wrong id", "no JSON", "no reply", "closed output", "never reads", "a path outside", "half a message"],
)
def test_a_program_that_breaks_the_protocol_is_told_from_one_that_answers(
    tmp_path: Path, body: str, reason: str
) -> None:
    rows = [torch.zeros(2)] * (400 if body == "time.sleep(60)" else 1)  # a line longer than a pipe holds
    with program(tmp_path, body, Limits(call_within_s=2)) as implementation:
        reply = implementation.start().perform(ask_for("weighted_mean", *rows))
        assert isinstance(reply, Failed)
        assert reason in reply.reason
        assert reply.definite


def test_a_program_in_any_language_needs_only_json_lines(tmp_path: Path) -> None:
    body = """
        for line in sys.stdin:
            asked = json.loads(line)
            if asked["verb"] == "stop":
                break
            sentence = f'{asked["node"]} {asked["request"]["rule"]} {os.path.exists(os.environ["HQDE_CHILD_FOLDER"])}'
            reply = {"$type": "Misused", "error": "None", "sentence": sentence}
            print(json.dumps({"id": asked["id"], "reply": reply, "tensors": None}), flush=True)
    """
    with program(tmp_path, body) as implementation:
        assert implementation.rules is None
        assert implementation.start().perform(ask_for("median")).sentence == "n1 median True"


# ------------------------------------------------------------------------------------------------ hosts of a runtime


@pytest.fixture(scope="module")
def runtime() -> Iterator[InChild]:
    hosts = {name: python_command(f"{SAMPLES}:Hosts") for name in ("h0", "h1")}
    with InChild(hosts, lambda node: f"h{node[0]}", limits=Limits(call_within_s=3)) as made:
        yield made


def adopt(node: str, hundredths: int, attempt: int = 0) -> Call:
    state = Payload(key="s", ref=torch.zeros(1, dtype=torch.uint8), nbytes=1)
    return Call(node=node, request=Adopt(round=hundredths, state=state, digest=""), attempt=attempt)


def replies(answers: tuple[Answer, ...]) -> list[type]:
    return [type(answer.reply) for answer in answers]


def test_answers_come_in_the_order_of_the_calls(runtime: InChild) -> None:
    calls = [adopt("1b", 0), adopt("0a", 20), adopt("1a", 0), adopt("0b", 0)]
    answers = runtime.ask(calls, enough=4, until=runtime.now() + 20)
    assert [answer.node for answer in answers] == ["1b", "0a", "1a", "0b"]
    assert [answer.reply.worker for answer in answers] == ["1b", "0a", "1a", "0b"]


def test_payloads_come_back_and_can_be_fetched_as_a_copy(runtime: InChild) -> None:
    (answer,) = runtime.ask([Call(node="0p", request=Begin(seed=0))], enough=1, until=runtime.now() + 20)
    state = answer.reply.state
    fetched = runtime.fetch(state)
    fetched += 1
    assert (state.key, state.ref.tolist()) == ("0p/1", [1, 1, 1, 1])


def test_a_deadline_is_absolute_and_silence_is_not_definite(runtime: InChild) -> None:
    began = runtime.now()
    answers = runtime.ask([adopt("0a", 60), adopt("1a", 0)], enough=2, until=began + 0.3)
    assert 0.3 <= runtime.now() - began < 0.5
    assert answers[0].reply == Failed(reason="no answer by the deadline", definite=False)
    assert isinstance(answers[1].reply, Adopted)


def test_it_ends_at_enough_replies(runtime: InChild) -> None:
    began = runtime.now()
    answers = runtime.ask([adopt("0a", 100), adopt("1a", 1)], enough=1, until=began + 20)
    assert runtime.now() - began < 0.9
    assert answers[0].reply == Failed(reason="not waited for: there were enough replies", definite=False)


def test_an_equal_call_joins_the_one_in_flight_and_another_attempt_does_not(runtime: InChild) -> None:
    call = Call(node="0j", request=Begin(seed=40))
    (early,) = runtime.ask([call], enough=1, until=runtime.now() + 0.1)
    again = runtime.ask([call, call], enough=2, until=runtime.now() + 20)
    assert isinstance(early.reply, Failed)
    assert [answer.reply.digest for answer in again] == ["1", "1"]
    (other,) = runtime.ask([Call(node="0j", request=Begin(seed=40), attempt=1)], enough=1, until=runtime.now() + 20)
    assert other.reply.digest == "2"


def test_a_late_answer_belongs_to_no_ask(runtime: InChild) -> None:
    runtime.ask([Call(node="1l", request=Begin(seed=30))], enough=1, until=runtime.now() + 0.05)
    time.sleep(0.5)
    (answer,) = runtime.ask([adopt("1l", 0)], enough=1, until=runtime.now() + 20)
    assert isinstance(answer.reply, Adopted)


def test_an_empty_ask_is_answered_at_once(runtime: InChild) -> None:
    assert runtime.ask([], enough=0, until=runtime.now() + 20) == ()


def test_a_killed_host_settles_its_calls_at_once_and_comes_back_with_fresh_nodes(runtime: InChild) -> None:
    (before,) = runtime.ask([adopt("0k", 0)], enough=1, until=runtime.now() + 20)
    os.kill(runtime.processes()["h0"], signal.SIGKILL)
    began = runtime.now()
    answers = runtime.ask([adopt("0k", 90), adopt("1k", 0)], enough=2, until=began + 20)
    assert runtime.now() - began < 2
    assert answers[0].reply == Failed(reason="crashed: killed by SIGKILL", definite=True)
    assert isinstance(answers[1].reply, Adopted)
    (after,) = runtime.ask([adopt("0k", 0)], enough=1, until=runtime.now() + 20)
    assert after.reply.incarnation == before.reply.incarnation + 1


def test_the_failure_of_one_member_of_a_batch_is_its_own_unless_the_host_dies(runtime: InChild) -> None:
    state = Payload(key="s", ref=torch.zeros(1, dtype=torch.uint8), nbytes=1)
    fatal = Call(node="1d", request=Evaluate(round=0, state=state))
    answers = runtime.ask([adopt("1c", 0), fatal, adopt("0c", 0)], enough=3, until=runtime.now() + 20)
    assert replies(answers) == [Failed, Failed, Adopted]
    assert answers[0].reply.reason == "exited with code 9"
    (begun,) = runtime.ask([Call(node="1c", request=Begin(seed=0))], enough=1, until=runtime.now() + 20)
    assert isinstance(begun.reply, Begun)


def test_hosts_that_do_not_start_are_named() -> None:
    hosts = {"good": python_command(f"{SAMPLES}:Hosts"), "bad": python_command("no_such_module:Thing")}
    with pytest.raises(RuntimeFault, match=r"child hosts: bad \(module 'no_such_module' does not import .* did not st"):
        InChild(hosts, lambda node: "good", limits=PATIENT)
