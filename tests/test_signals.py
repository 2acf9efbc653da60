"""An end from outside (SIGTERM, Ctrl-C) during a live run: Ray's own handlers do not get in the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import psutil
import pytest

from hqde_ref.errors import RuntimeFault
from hqde_ref.runtimes import ray_cluster


class _Told(BaseException):
    """Raised by the caller's own handler."""


def _mine(number: int, frame: object) -> NoReturn:
    raise _Told


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = {number: signal.signal(number, _mine) for number in ray_cluster._ENDS}
    yield
    for number, old in before.items():
        signal.signal(number, old)


def _ray(monkeypatch: pytest.MonkeyPatch, init: Callable[[], None]) -> list[str]:
    """In place of Ray: ``init`` replaces the handler as Ray does, then acts."""
    done: list[str] = []

    def fake_init(**_: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        init()

    def fake_shutdown() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        done.append("shutdown")

    fake = SimpleNamespace(init=fake_init, shutdown=fake_shutdown, is_initialized=lambda: False)
    monkeypatch.setattr(ray_cluster, "ray", fake)
    return done


def test_the_callers_handler_of_sigterm_stays_when_ray_starts_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    _ray(monkeypatch, lambda: None)
    assert ray_cluster.connect(None, 0, 1)
    assert signal.getsignal(signal.SIGTERM) is _mine
    ray_cluster.disconnect()
    assert signal.getsignal(signal.SIGTERM) is _mine


def test_a_signal_while_ray_starts_reaches_the_callers_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    done = _ray(monkeypatch, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(_Told):
        ray_cluster.connect(None, 0, 1)
    assert done == ["shutdown"]
    assert signal.getsignal(signal.SIGTERM) is _mine


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_ray_has_started_so_nothing_of_ray_can_swallow_it(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    went_on: list[bool] = []

    def careless() -> None:
        with suppress(BaseException):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            went_on.append(True)

    done = _ray(monkeypatch, careless)
    with pytest.raises(_Told):
        ray_cluster.connect(None, 0, 1)
    assert went_on == [True]
    assert done == ["shutdown"]
    assert signal.getsignal(number) is _mine
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_another_thread_takes_while_ray_starts_is_not_swallowed_either(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signals are blocked in the main thread alone; its handlers are run for what any thread takes."""

    def careless() -> None:
        with suppress(BaseException):
            _take_elsewhere(number)
            time.sleep(0.01)

    done = _ray(monkeypatch, careless)
    with pytest.raises(_Told):
        ray_cluster.connect(None, 0, 1)
    assert done == ["shutdown"]
    assert signal.signal is ray_cluster._set_handler


def _take_elsewhere(number: signal.Signals) -> None:
    taker = threading.Thread(target=_take, args=(number,))
    taker.start()
    taker.join()


def _take(number: signal.Signals) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    signal.raise_signal(number)


_SHOW = "import os, signal; print(os.getpgid(0) == os.getpid(), [*signal.pthread_sigmask(signal.SIG_BLOCK, ())])"


def test_what_ray_starts_is_in_a_group_of_its_own_and_takes_signals() -> None:
    """Ray starts its processes with a ``preexec_fn``; a group's signal (Ctrl-C, ``timeout``) is not for them."""
    shown = {}
    for own in (True, False):
        with ray_cluster.own_signals() if own else nullcontext():
            command = [sys.executable, "-c", _SHOW]
            done = subprocess.run(command, preexec_fn=lambda: None, capture_output=True, text=True, check=True)
            shown[own] = done.stdout.strip()
    assert shown == {True: "True []", False: "False []"}


def test_what_another_thread_starts_meanwhile_is_left_alone() -> None:
    with ray_cluster.own_signals():
        shown: list[str] = []
        command = [sys.executable, "-c", _SHOW]
        starter = threading.Thread(
            target=lambda: shown.append(
                subprocess.run(
                    command, preexec_fn=lambda: None, start_new_session=True, capture_output=True, text=True, check=True
                ).stdout.strip()
            )
        )
        starter.start()
        starter.join()
    assert [text.split(" ", 1)[0] for text in shown] == ["True"]  # of its own session; setsid() was refused


def test_an_end_in_the_very_moment_of_leaving_raises_and_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread takes it when one handler is the caller's again and the other is not."""
    set_handler, told = ray_cluster._set_handler, list[bool]()

    def told_between(number: int, handler: Any) -> Any:
        before = set_handler(number, handler)
        if handler is _mine and not told:
            told.append(True)
            _take_elsewhere(signal.SIGINT)
            time.sleep(0.01)
        return before

    monkeypatch.setattr(ray_cluster, "_set_handler", told_between)
    with pytest.raises(_Told), ray_cluster.own_signals():
        pass
    assert told == [True]
    assert {signal.getsignal(number) for number in ray_cluster._ENDS} == {_mine}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert ray_cluster._starting == []
    assert signal.signal is set_handler


def test_an_end_while_ray_fails_to_start_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("no port is free")

    done = _ray(monkeypatch, fail)
    with pytest.raises(_Told):
        ray_cluster.connect(None, 0, 1)
    assert done == ["shutdown"]


def test_a_second_end_does_not_cut_the_clearing_up_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_LEAVE_S", 0.1)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)", ray_cluster._HOME]
    begun: list[subprocess.Popen[bytes]] = []

    def start_half() -> None:
        begun.append(subprocess.Popen(sleep))
        os.kill(os.getpid(), signal.SIGTERM)

    done = _ray(monkeypatch, start_half)
    shutdown = ray_cluster.ray.shutdown

    def interrupted() -> None:
        shutdown()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ray_cluster.ray, "shutdown", interrupted)
    try:
        with pytest.raises(_Told):
            ray_cluster.connect(None, 0, 1)
        assert done == ["shutdown"]
        assert begun[0].wait(timeout=10) == -signal.SIGKILL
    finally:
        begun[0].kill()
        begun[0].wait()


def test_a_start_of_ray_that_is_broken_off_leaves_nothing_of_ray_and_touches_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_cluster, "_LEAVE_S", 0.1)
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    begun: list[subprocess.Popen[bytes]] = []

    def start_half() -> None:
        begun.extend([subprocess.Popen([*sleep, ray_cluster._HOME]), subprocess.Popen(sleep)])
        os.kill(os.getpid(), signal.SIGTERM)

    _ray(monkeypatch, start_half)
    earlier = subprocess.Popen([*sleep, ray_cluster._HOME])
    try:
        with pytest.raises(_Told):
            ray_cluster.connect(None, 0, 1)
        agent, other = begun
        assert agent.wait(timeout=10) == -signal.SIGKILL
        assert other.poll() is None
        assert earlier.poll() is None
    finally:
        for process in (earlier, *begun):
            process.kill()
            process.wait()


def test_outside_the_main_thread_handlers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ray_cluster, "ray", SimpleNamespace(init=lambda **_: None, is_initialized=lambda: False), raising=True
    )
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(ray_cluster.connect(None, 0, 1)))
    thread.start()
    thread.join()
    assert found == [True]


def test_ray_that_cannot_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("no port\n is free")

    _ray(monkeypatch, fail)
    with pytest.raises(RuntimeFault) as caught:
        ray_cluster.connect(None, 0, 1)
    assert str(caught.value) == (
        "a private Ray: cannot be used (ValueError: no port is free); look for what it lacks, such as memory or ports."
    )


PAUSED = """
apiVersion: hqde.sim/v1
metadata: {name: paused}
system: {workers: 2, hosts: 2, round_within: 200s}
workload: {rounds: 1, batch: 20, steps: 1}
faults: [{action: pause, target: h1, during: {rounds: [1, 1]}}]
"""


def _await_raylet(pid: int) -> list[psutil.Process]:
    """All that the process has started, once there is a raylet: the middle of Ray's start."""
    for _ in range(3000):
        started = psutil.Process(pid).children(recursive=True)
        for process in started:
            with suppress(psutil.NoSuchProcess):
                if process.name() == "raylet":
                    return started
        time.sleep(0.01)
    raise AssertionError("no raylet")


@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.live) for n in (signal.SIGINT, signal.SIGHUP))]
)
@pytest.mark.parametrize("until", ["starting Ray", "all hosts are ready"])
def test_a_live_run_ended_from_outside_keeps_what_is_done_and_leaves_nothing_behind(
    number: signal.Signals, until: str, tmp_path: Path
) -> None:
    (tmp_path / "paused.yaml").write_text(PAUSED, encoding="utf-8")
    words = ["run", tmp_path / "paused.yaml", "--on", "ray", "--out", tmp_path / "out", "--json", tmp_path / "x.json"]
    command = [sys.executable, "-m", "simulator", *map(str, words)]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    default = partial(signal.signal, number, signal.SIG_DFL)  # a script's & starts all with SIGINT ignored
    with subprocess.Popen(command, start_new_session=True, preexec_fn=default, **pipes) as process:
        assert process.stderr is not None
        told = ""
        while until not in told:
            line = process.stderr.readline()
            assert line, f"it ended with {process.poll()}: {told}"
            told += line
        if until == "starting Ray":
            started = _await_raylet(process.pid)
        else:
            time.sleep(3)  # into the round that waits for the paused host
            started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, number)  # to the whole group, as a terminal and ``timeout`` do
        told += process.communicate(timeout=100)[1]
    assert process.returncode == 130, told
    assert "Interrupted: only variants that were run to their end are shown." in told
    assert "received at time" not in told, "Ray's dump of its stack"
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["scenario"] == "paused"
    assert (tmp_path / "out" / "summary.json").exists()
    assert started
    _, alive = psutil.wait_procs(started, timeout=30)
    for left in alive:
        with suppress(psutil.NoSuchProcess):
            left.kill()
    assert not alive
