"""The Ray runtime on real processes: placement, traffic, and what a killed or stopped host does to a round."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import ray
import torch
from ray import exceptions as faults

from hqde_ref.core.splitting import gpu_share
from hqde_ref.errors import RuntimeFault
from hqde_ref.messages import Begin, Begun, Call, Evaluate, Evaluated, Failed, Observed, Payload
from hqde_ref.runtimes import on_ray, ray_host
from hqde_ref.runtimes.on_ray import OnRay
from tests.probes import VECTOR_BYTES, ProbeSpec, probe

pytestmark = pytest.mark.xdist_group("ray")

HOSTS = {f"h{index}": (ProbeSpec(name=f"p{index}"), ProbeSpec(name=f"q{index}")) for index in range(3)}


@pytest.fixture(scope="module")
def runtime() -> Iterator[OnRay]:
    """Three hosts on two logical GPUs: the case in which the document's share hangs (E1)."""
    with OnRay(HOSTS, gpus=2) as started:
        yield started


def _kill(runtime: OnRay, host: str) -> int:
    pid = runtime.pid_of(host)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def _until(runtime: OnRay, seconds: float = 20) -> float:
    return runtime.now() + seconds


def test_hosts_share_logical_gpus_so_that_all_are_placed(runtime: OnRay) -> None:
    assert runtime.share == gpu_share(workers=3, gpus=2) == 0.5
    answers = runtime.ask([probe(f"p{index}", index) for index in range(3)], enough=3, until=_until(runtime))
    assert all(isinstance(answer.reply, Observed) for answer in answers)
    assert ray.available_resources().get("GPU", 0.0) == pytest.approx(0.5)


def test_hosts_that_cannot_be_placed_are_named_within_the_time_limit(
    runtime: OnRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "gpu_share", lambda *, workers, gpus: 1.0)  # half a GPU is all that is left
    started = time.monotonic()
    with pytest.raises(RuntimeFault) as caught:
        OnRay({"x0": (ProbeSpec(name="x"),), "x1": (ProbeSpec(name="y"),)}, gpus=2, start_within_s=3)
    assert time.monotonic() - started < 15
    assert str(caught.value) == (
        "host(s) x0, x1: not placed within 3 s, each asking for 1 GPU; "
        "free resources, use fewer hosts or give more time."
    )


def test_vectors_do_not_pass_through_the_caller(runtime: OnRay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 3.5: what the caller sends and reads stays small, whatever the size of the vectors."""
    sent: list[Any] = []
    read: list[Any] = []
    submit, get = OnRay._submit, ray.get

    def counting_submit(self: OnRay, host: str, calls: list[Call], until: float) -> Any:
        sent.extend(calls)
        return submit(self, host, calls, until)

    def counting_get(*args: Any, **options: Any) -> Any:
        value = get(*args, **options)
        read.append(value)
        return value

    monkeypatch.setattr(OnRay, "_submit", counting_submit)
    monkeypatch.setattr(ray, "get", counting_get)
    calls = [Call(node=f"p{index}", request=Begin(seed=index)) for index in range(3)]
    made = runtime.ask(calls, enough=3, until=_until(runtime))
    states = [answer.reply.state for answer in made if isinstance(answer.reply, Begun)]
    assert len(states) == 3
    seen = runtime.ask(
        [Call(node=f"q{index}", request=Evaluate(round=1, state=states[(index + 1) % 3])) for index in range(3)],
        enough=3,
        until=_until(runtime),
    )
    assert [answer.reply for answer in seen] == [Evaluated(accuracy=float(v), loss=float(v)) for v in (1, 2, 0)]
    traffic = sum(len(ray.cloudpickle.dumps(call)) for call in sent) + sum(len(pickle.dumps(value)) for value in read)
    assert traffic < 6 * 2_000, f"the caller handled {traffic} bytes for six calls"
    assert 20 * traffic / 6 < VECTOR_BYTES


def test_a_killed_host_is_known_at_once_and_is_whole_again_after_settling(runtime: OnRay) -> None:
    pid = _kill(runtime, "h1")
    began = runtime.now()
    answers = runtime.ask([probe("p1", 1), probe("p2", 2)], enough=2, until=_until(runtime))
    assert answers[0].reply == Failed(reason="crashed", definite=True)
    assert isinstance(answers[1].reply, Observed)
    assert runtime.now() - began < 10
    runtime.settle(within_s=60)
    assert runtime.pid_of("h1") not in (None, pid)
    again = runtime.ask([probe("p1", 3)], enough=1, until=_until(runtime))
    assert again[0].reply == Observed(scores=(1.0, 3)), "a restarted host has fresh nodes"


def test_a_host_that_was_killed_without_being_asked_is_restarted_by_settling(runtime: OnRay) -> None:
    pid = _kill(runtime, "h2")
    runtime.settle(within_s=60)
    assert runtime.pid_of("h2") not in (None, pid)
    assert isinstance(runtime.ask([probe("p2", 1)], enough=1, until=_until(runtime))[0].reply, Observed)


def test_a_host_meant_to_stay_down_is_not_restarted(runtime: OnRay) -> None:
    _kill(runtime, "h2")
    runtime.settle(within_s=60, down=("h2",))
    answers = runtime.ask([probe("p2", 1)], enough=1, until=_until(runtime))
    assert answers[0].reply == Failed(reason="crashed", definite=True)
    runtime.settle(within_s=60)


def test_what_a_dead_host_returned_stays_readable(runtime: OnRay) -> None:
    made = runtime.ask([Call(node="p0", request=Begin(seed=5))], enough=1, until=_until(runtime))[0].reply
    assert isinstance(made, Begun)
    _kill(runtime, "h0")
    seen = runtime.ask([Call(node="p1", request=Evaluate(round=1, state=made.state))], enough=1, until=_until(runtime))
    assert seen[0].reply == Evaluated(accuracy=5.0, loss=5.0)
    assert bool((runtime.fetch(made.state[0]) == torch.tensor(5, dtype=torch.uint8)).all())
    runtime.settle(within_s=60)


def test_a_payload_of_a_host_that_died_making_it_is_reported_lost_by_key(runtime: OnRay) -> None:
    """A reference whose maker died before it returned: only the call that needs it fails, and says which."""
    first = runtime.ask([Call(node="p1", request=Begin(seed=9))], enough=1, until=_until(runtime))[0].reply
    assert isinstance(first, Begun)
    pid = runtime.pid_of("h0")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    runtime.ask([Call(node="p0", request=Begin(seed=3))], enough=1, until=_until(runtime, 0.3))
    (message,) = [m for m in runtime._flying if m.host == "h0"]
    os.kill(pid, signal.SIGKILL)
    gone = dataclasses.replace(first.state[0], key="vector/3/0", ref=message.vectors[0])
    calls = [Call(node="p2", request=Evaluate(round=1, state=state)) for state in ((gone,), first.state)]
    answers = runtime.ask(calls, enough=2, until=_until(runtime))
    assert answers[0].reply == Failed(reason="payload lost", definite=True, lost=("vector/3/0",))
    assert answers[1].reply == Evaluated(accuracy=9.0, loss=9.0)
    runtime.settle(within_s=60)


def test_a_stopped_host_is_late_and_goes_on_where_it_stopped(runtime: OnRay) -> None:
    pid = runtime.pid_of("h1")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    late = runtime.ask([probe("q1", 1)], enough=1, until=_until(runtime, 0.5))
    assert late[0].reply == Failed(reason="late", definite=False)
    os.kill(pid, signal.SIGCONT)
    assert isinstance(runtime.ask([probe("q1", 1)], enough=1, until=_until(runtime))[0].reply, Observed)


def test_settling_waits_for_no_host_that_is_stopped_on_this_machine(runtime: OnRay) -> None:
    pid = runtime.pid_of("h1")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        runtime.settle(within_s=3)
    finally:
        os.kill(pid, signal.SIGCONT)
    runtime.settle(within_s=60)
    assert runtime.pid_of("h1") == pid, "it lives, so nobody started it afresh"


def test_closing_ends_the_hosts_and_leaves_the_callers_ray_alone(runtime: OnRay) -> None:
    """Clause 0.12: this second runtime uses the session that the first one started."""
    second = OnRay({"z0": (ProbeSpec(name="z"),)})
    pid = second.pid_of("z0")
    assert pid is not None
    second.close()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the host outlives its runtime"
        time.sleep(0.05)
    assert ray.is_initialized()
    assert isinstance(runtime.ask([probe("p0", 1)], enough=1, until=_until(runtime))[0].reply, Observed)


def test_a_killed_host_has_no_process_and_signals_hit_nothing(runtime: OnRay) -> None:
    pid = _kill(runtime, "h1")
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert runtime.pid_of("h1") is None
    assert not runtime.send("h1", signal.SIGKILL)
    runtime.settle(within_s=60)


def test_a_process_that_is_another_one_by_now_or_on_another_machine_is_never_signalled(runtime: OnRay) -> None:
    seat = runtime._hosts["h2"]
    real = seat.process
    assert real is not None
    assert runtime.send("h2", 0)
    try:
        seat.process = dataclasses.replace(real, born=real.born - 100)
        assert runtime.pid_of("h2") is None
        assert not runtime.send("h2", signal.SIGKILL)
        seat.process = dataclasses.replace(real, machine="elsewhere")
        assert runtime.pid_of("h2") is None
        with pytest.raises(RuntimeFault, match="host h2: runs on another machine, which signals do not reach"):
            runtime.send("h2", signal.SIGKILL)
    finally:
        seat.process = real
    assert isinstance(runtime.ask([probe("p2", 1)], enough=1, until=_until(runtime))[0].reply, Observed)


def test_an_address_is_refused_while_this_process_is_connected_to_ray_already(runtime: OnRay) -> None:
    with pytest.raises(RuntimeFault, match="cannot be joined: this process is connected to Ray already"):
        OnRay({}, address="127.0.0.1:6379")
    assert isinstance(runtime.ask([probe("p0", 1)], enough=1, until=_until(runtime))[0].reply, Observed)


@pytest.mark.usefixtures("runtime")
def test_an_interrupted_start_ends_the_hosts_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[OnRay] = []
    close = OnRay.close

    def interrupt(self: OnRay, **_: Any) -> None:
        raise KeyboardInterrupt

    def noting(self: OnRay) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(OnRay, "settle", interrupt)
    monkeypatch.setattr(OnRay, "close", noting)
    with pytest.raises(KeyboardInterrupt):
        OnRay({"y0": (ProbeSpec(name="y"),)})
    (abandoned,) = closed
    assert all(seat.dead for seat in abandoned._hosts.values())


@pytest.mark.usefixtures("runtime")
def test_a_payload_that_is_slow_is_not_called_lost() -> None:
    @ray.remote(num_cpus=0)
    def slow() -> Any:
        time.sleep(3)
        return np.zeros(4, dtype=np.uint8)

    payload = Payload(key="slow/1/0", ref=slow.remote(), nbytes=4)
    assert ray_host._load([payload], time.monotonic()) == ({}, (), ("slow/1/0",))
    found, lost, late = ray_host._load([payload], time.monotonic() + 60)
    assert (list(found), lost, late) == (["slow/1/0"], (), ())


@ray.remote(num_cpus=0, num_returns=64)
def _hanging() -> Any:
    time.sleep(8)
    return [np.zeros(4, dtype=np.uint8)] * 64


@pytest.mark.usefixtures("runtime")
def test_many_payloads_that_hang_take_no_longer_than_one_and_those_that_are_there_are_used() -> None:
    """They are waited for together: at a time each, 64 rows took the host's only thread for 3.2 s more."""
    refs = [*_hanging.remote(), ray.put(np.full(4, 7, dtype=np.uint8))]
    payloads = [Payload(key=f"vector/{index}/0", ref=ref, nbytes=4) for index, ref in enumerate(refs)]
    host = ray_host.Host((ProbeSpec(name="p"),), 0)
    calls = [Call(node="p", request=Evaluate(round=1, state=state)) for state in (tuple(payloads), (payloads[-1],))]
    began = time.monotonic()
    (first, *_), (second, *_) = host.perform(calls, 1.0)
    assert time.monotonic() - began < 1.5
    late = tuple(payload.key for payload in payloads[:-1])
    assert first == Failed(reason="payload late", definite=False, lost=late)
    assert second == Evaluated(accuracy=7.0, loss=7.0)


@pytest.mark.usefixtures("runtime")
def test_a_reply_with_more_payloads_than_were_declared_is_a_bug_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_host, "payloads_in_reply", lambda request: 0)
    with pytest.raises(AssertionError, match="the reply to Begin carries 1 payloads, 1 more than declared"):
        ray_host.Host((ProbeSpec(name="p"),), 0).perform([Call(node="p", request=Begin(seed=1))], 1.0)


def test_a_bug_in_a_node_is_raised_and_does_not_look_like_a_fault(runtime: OnRay) -> None:
    nodes = [specs[0].name for specs in HOSTS.values()]
    with pytest.raises(AssertionError, match="a probe was asked"):
        runtime.ask([Call(node=node, request="nonsense") for node in nodes], enough=3, until=_until(runtime))
    time.sleep(0.5)  # all have said so by now, and the next ask is none of their business
    answers = runtime.ask([probe(node, 1.0) for node in nodes], enough=3, until=_until(runtime))
    assert all(isinstance(answer.reply, Observed) for answer in answers)


def _cluster_error(address: str) -> tuple[float, str]:
    """A process without a session of its own meets this address: how long it took, and what it said."""
    code = (
        "import sys\nfrom hqde_ref.errors import RuntimeFault\nfrom hqde_ref.runtimes.on_ray import OnRay\n"
        "try:\n    OnRay({}, address=sys.argv[1])\nexcept RuntimeFault as error:\n    print(error)"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, address], capture_output=True, text=True, timeout=60, check=False
    )
    return time.monotonic() - began, done.stdout.strip()


def test_an_address_where_nobody_listens_is_a_clear_error_within_bounded_time() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    took, sentence = _cluster_error(f"127.0.0.1:{port}")
    assert took < 15
    assert sentence.startswith(f"Ray cluster at 127.0.0.1:{port}: does not answer (")
    assert sentence.endswith("; check that it runs, or leave the address out.")


def test_an_address_where_something_else_listens_is_a_clear_error_within_bounded_time() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        took, sentence = _cluster_error(address)
    assert took < 30
    assert sentence.startswith(f"Ray cluster at {address}: does not answer as a Ray cluster")


def test_an_address_that_is_none_is_refused() -> None:
    for address in ("auto", "ray://127.0.0.1:10001", "127.0.0.1"):
        _, sentence = _cluster_error(address)
        assert sentence.startswith(f"Ray cluster at {address}: is no address of the form host:port; ")


def test_a_payload_whose_owner_was_killed_is_reported_lost_by_key(runtime: OnRay) -> None:
    """A put belongs to the process that made it and dies with it; that is why hosts return their vectors."""

    class Owner:
        def put(self) -> list[Any]:
            return [ray.put(np.zeros(VECTOR_BYTES, dtype=np.uint8)), os.getpid()]

    remote: Any = ray.remote(num_cpus=0, max_restarts=0)(Owner)
    owner = remote.remote()
    reference, pid = ray.get(owner.put.remote(), timeout=60)
    os.kill(pid, signal.SIGKILL)
    gone = Payload(key="put/1/0", ref=reference, nbytes=VECTOR_BYTES)
    call = Call(node="p1", request=Evaluate(round=1, state=(gone,)))
    deadline = time.monotonic() + 30
    while True:  # until Ray has noticed, the copy on this node still serves
        answers = runtime.ask([call, probe("p2", 1)], enough=2, until=_until(runtime))
        assert isinstance(answers[1].reply, Observed), "only the call that needs it fails"
        if answers[0].reply == Failed(reason="payload lost", definite=True, lost=("put/1/0",)):
            break
        assert time.monotonic() < deadline, answers[0].reply
        time.sleep(0.2)
    del owner


def test_a_host_that_comes_back_is_placed_where_fewest_hosts_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a node was lost and another came, the stores of the former belong on the latter."""
    monkeypatch.setattr("hqde_ref.runtimes.on_ray.alive_nodes", lambda: ["n0", "n2", "n3"])
    runtime = OnRay.__new__(OnRay)
    seats = {"s0": ("n0", False), "s1": ("n1", True), "s2": ("n2", False), "s3": ("n0", False), "s4": ("n1", True)}
    runtime._hosts = {host: SimpleNamespace(node=node, dead=dead) for host, (node, dead) in seats.items()}
    placed = []
    for host in ("s1", "s4", "s5"):
        placed.append(runtime._choose_node())
        runtime._hosts[host] = SimpleNamespace(node=placed[-1], dead=False)
    assert placed == ["n3", "n2", "n3"]
    monkeypatch.setattr("hqde_ref.runtimes.on_ray.alive_nodes", list)
    assert runtime._choose_node() is None, "Ray says what is wrong"


DEATHS = [
    faults.ActorDiedError(),
    faults.OutOfMemoryError("killed by the memory monitor"),
    faults.NodeDiedError("its node is gone"),
    faults.ActorUnschedulableError("its node is gone"),
    faults.LocalRayletDiedError(),
    faults.WorkerCrashedError(),
]


def _dying(monkeypatch: pytest.MonkeyPatch, error: Exception, *, times: int = 1) -> None:
    """Let the next reads of what Ray returns end in this error."""
    get, left = ray.get, [error] * times

    def dying(*args: Any, **options: Any) -> Any:
        if left:
            raise left.pop()
        return get(*args, **options)

    monkeypatch.setattr(ray, "get", dying)


@pytest.mark.parametrize("error", DEATHS, ids=lambda error: type(error).__name__)
def test_whatever_ray_calls_the_death_of_a_host_it_is_a_crash(
    runtime: OnRay, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A read of an answer, and then a probe, end in this: the host is dead, and settling is not broken off."""
    seat = runtime._hosts["h1"]
    with monkeypatch.context() as patched:
        _dying(patched, error)
        answers = runtime.ask([probe("p1", 1)], enough=1, until=_until(runtime))
    assert answers[0].reply == Failed(reason="crashed", definite=True)
    assert seat.dead
    seat.dead = False
    with monkeypatch.context() as patched:
        _dying(patched, error)
        assert runtime._note_answer(seat, None)
    assert seat.dead
    seat.dead = False


def test_a_host_whose_disk_is_full_is_out_of_reach_and_not_dead(
    runtime: OnRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        _dying(patched, faults.OutOfDiskError())
        answers = runtime.ask([probe("p1", 1)], enough=1, until=_until(runtime))
    assert answers[0].reply == Failed(reason="unreachable", definite=False)
    assert not runtime._hosts["h1"].dead


@pytest.mark.parametrize("error", [*DEATHS, faults.OutOfDiskError()], ids=lambda error: type(error).__name__)
@pytest.mark.usefixtures("runtime")
def test_a_payload_is_lost_whatever_ended_the_host_that_made_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    payload = Payload(key="vector/1/0", ref=ray.put(np.zeros(4, dtype=np.uint8)), nbytes=4)
    with monkeypatch.context() as patched:
        _dying(patched, error, times=2)
        assert ray_host._load([payload], time.monotonic() + 5) == ({}, ("vector/1/0",), ())


@pytest.mark.parametrize("error", DEATHS, ids=lambda error: type(error).__name__)
def test_a_host_that_dies_while_it_starts_is_started_afresh_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    started: list[str] = []
    runtime = OnRay.__new__(OnRay)
    runtime._hosts = {"h": SimpleNamespace(pending="first", process=None)}

    def restart(host: str) -> None:
        started.append(host)
        runtime._hosts[host] = SimpleNamespace(pending=f"fresh {len(started)}", process=None)

    def get(pending: str, *, timeout: float) -> str:
        if pending == "fresh 2":
            return "ready"
        raise error

    monkeypatch.setattr(runtime, "restart", restart)
    monkeypatch.setattr(ray, "get", get)
    runtime._become_ready("h", time.monotonic() + 10)
    assert started == ["h", "h"]
    assert (runtime._hosts["h"].process, runtime._hosts["h"].pending) == ("ready", None)
    runtime._hosts["h"].pending = "again"
    runtime._become_ready("h", time.monotonic() - 1)
    assert runtime._hosts["h"].pending is not None, "no time is left, so the caller names it"


@pytest.mark.usefixtures("runtime")
def test_nodes_that_cannot_be_built_are_said_so_and_not_tried_again() -> None:
    with pytest.raises(RuntimeFault, match="host x0: its nodes cannot be built") as caught:
        OnRay({"x0": (BrokenSpec(name="x"),)}, start_within_s=60)
    assert "no such model" in str(caught.value)


@dataclasses.dataclass(frozen=True)
class BrokenSpec:
    name: str

    def build(self, incarnation: int, /) -> Any:
        raise ValueError("no such model")
