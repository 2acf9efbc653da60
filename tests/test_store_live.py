"""The weight store on real processes that are killed, stopped, continued and damaged, beside a plain dictionary."""

from __future__ import annotations

import os
import pickle
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import pytest
import ray
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from hqde_ref.core.packing import digest
from hqde_ref.core.placement import choose_stores
from hqde_ref.core.quorums import StorePlan, plan_store
from hqde_ref.messages import (
    Absent,
    Acknowledged,
    Begin,
    Begun,
    Call,
    Get,
    Joined,
    Look,
    NotAcknowledged,
    Put,
    Request,
    Runtime,
    Value,
)
from hqde_ref.rounds.rejoining import change_plan, rejoin
from hqde_ref.rounds.storing import Writer, get, put, scrub
from hqde_ref.runtimes.on_ray import OnRay
from simulator.fragile import Damage, FragileSpec, Reset
from tests.probes import VECTOR_BYTES, ProbeSpec
from tests.store_fire import under_fire
from tests.stores import Struck, content_of, payload_of, read_text, write_text

pytestmark = pytest.mark.xdist_group("ray")

NAMES = tuple(f"s{index}" for index in range(4))
SPARE = "s4"
KEYS = ("", "a/b")
ACTS = ("put", "read", "stop", "kill", "damage", "rejoin", "add")


class LiveFleet:
    """Stores in processes of their own, kept over all tests of this file: starting one takes a second or more."""

    def __init__(self) -> None:
        hosts: dict[str, Any] = {name: (FragileSpec(name=name),) for name in NAMES}
        hosts[SPARE] = (FragileSpec(name=SPARE, joined=False), ProbeSpec(name="source"))
        self.world = OnRay(hosts)
        self.plan: StorePlan = plan_store(NAMES)
        self.down: set[str] = set()
        self.stopped: set[str] = set()

    def _signal(self, store: str, number: signal.Signals) -> None:
        pid = self.world.pid_of(store)
        assert pid is not None
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def tell(self, store: str, request: Request) -> None:
        now = self.world.now()
        self.world.ask([Call(node=store, request=request, attempt=round(now * 1e9))], enough=1, until=now + 60)

    def kill(self, store: str) -> None:
        self._signal(store, signal.SIGKILL)
        self.stopped.discard(store)
        self.down.add(store)

    def pause(self, store: str) -> None:
        self._signal(store, signal.SIGSTOP)
        self.stopped.add(store)

    def resume(self, store: str) -> None:
        self._signal(store, signal.SIGCONT)
        self.stopped.discard(store)

    def restart(self, store: str) -> None:
        self.world.restart(store)
        self.down.discard(store)
        self.world.settle(within_s=60, down=tuple(self.down))

    def reset(self) -> None:
        """As if all had just been started: cheaper than starting them."""
        for store in sorted(self.stopped):
            self.resume(store)
        for store in sorted(self.down):
            self.restart(store)
        for store in NAMES:
            self.tell(store, Reset(epoch=0))
        self.tell(SPARE, Reset(epoch=None))
        self.plan = plan_store(NAMES)


@pytest.fixture(scope="module")
def fleet() -> Iterator[LiveFleet]:
    started = LiveFleet()
    yield started
    started.world.close()


@pytest.fixture(autouse=True)
def _fresh(fleet: LiveFleet) -> None:
    fleet.reset()


class StoreMachine(RuleBasedStateMachine):
    """Whatever happens to the stores, a read gives the newest acknowledged value, or says that it cannot.

    ``possible`` holds for each key what a read may give, oldest first: an unacknowledged write may or may not survive.
    With at most one store faulty for a key, reads and writes of it must succeed.
    """

    fleet: ClassVar[LiveFleet]
    acts: ClassVar[Counter[str]] = Counter()  # what happened over all examples: a run without faults shows nothing
    unseen: ClassVar[bool] = False  # a planted bug: damage is not noticed

    @initialize()
    def start(self) -> None:
        self.fleet.reset()
        self.writer = Writer("w")
        self.possible: dict[str, list[str]] = {}
        self.empty: set[str] = set()
        self.damaged: dict[str, set[str]] = {}
        self.number = 0

    def _faulty(self, key: str) -> set[str]:
        return self.fleet.down | self.fleet.stopped | self.empty | self.damaged.get(key, set())

    def _until(self, key: str) -> float:
        return self.fleet.world.now() + (30.0 if len(self._faulty(key)) <= 1 else 1.0)

    @rule(key=st.sampled_from(KEYS))
    def put(self, key: str) -> None:
        self.number += 1
        self.acts["put"] += 1
        payload, code = payload_of(str(self.number))
        until = self._until(key)
        outcome = put(self.fleet.world, self.fleet.plan, self.writer, key, payload, code, until=until)
        assert self.fleet.world.now() < until + 5
        match outcome:
            case Acknowledged():
                self.possible[key] = [str(self.number)]
            case NotAcknowledged(version=version, reason=reason):
                assert len(self._faulty(key)) > 1, reason
                self.possible[key] = self.possible.get(key, [""]) + ([str(self.number)] if version else [])

    @rule(thorough=st.booleans())
    def get_all(self, thorough: bool) -> None:
        for key in KEYS:
            self._get(key, thorough)

    def _get(self, key: str, thorough: bool) -> None:
        before = self._faulty(key)
        read = scrub if thorough else get
        found = read(self.fleet.world, self.fleet.plan, key, until=self._until(key))
        possible = self.possible.get(key, [""])
        match found:
            case Value(payload=payload, digest=code):
                self.acts["read"] += 1
                vector = self.fleet.world.fetch(payload)
                assert digest(vector) == code
                text = content_of(vector)
                assert text in possible, f"read {text!r}, possible were {possible}"
                self.possible[key] = possible[possible.index(text) :]
                if thorough and not before - self.damaged.get(key, set()):
                    self.damaged.pop(key, None)
            case Absent(reason=reason):
                assert possible[0] == "", reason
                assert repr(key) in reason
            case unavailable:
                assert len(before) > 1, unavailable.reason

    @rule(store=st.sampled_from(NAMES), how=st.sampled_from(["stop", "stop", "kill"]))
    def break_one(self, store: str, how: str) -> None:
        if store in self.fleet.down or (how == "stop" and store in self.fleet.stopped):
            return
        self.acts[how] += 1
        if how == "stop":
            self.fleet.pause(store)
        else:
            self.fleet.kill(store)
            self.empty.add(store)

    @precondition(lambda self: self.fleet.stopped)
    @rule()
    def go_on(self) -> None:
        for store in sorted(self.fleet.stopped):
            self.fleet.resume(store)

    @precondition(lambda self: self.possible)
    @rule(which=st.integers(0, 1), place=st.integers(0, 2))
    def damage(self, which: int, place: int) -> None:
        key = sorted(self.possible)[which % len(self.possible)]
        store = choose_stores(key, stores=self.fleet.plan.stores, copies=3)[place]
        if store in self._faulty(key):
            return
        self.acts["damage"] += 1
        self.fleet.tell(store, Damage(key=key, unseen=self.unseen))
        self.damaged.setdefault(key, set()).add(store)

    @precondition(lambda self: self.empty)
    @rule()
    def bring_back(self) -> None:
        for store in sorted(self.empty):
            if store in self.fleet.down:
                self.fleet.restart(store)
            until = self.fleet.world.now() + (2.0 if self.fleet.stopped or len(self.empty) > 1 else 30.0)
            if isinstance(rejoin(self.fleet.world, self.fleet.plan, store, until=until), Joined):
                self.acts["rejoin"] += 1
                self.empty.discard(store)

    def teardown(self) -> None:
        """Faults stop; what can be had must be had, and nothing may have been lost."""
        if not hasattr(self, "possible"):
            return
        self.go_on()
        self.bring_back()
        self.bring_back()
        self.get_all(thorough=True)

    @precondition(lambda self: self.fleet.plan.epoch == 0 and not (self.fleet.down | self.fleet.stopped | self.empty))
    @rule()
    def add_a_store(self) -> None:
        after = StorePlan(stores=(*NAMES, SPARE), epoch=1)
        standing, joined = change_plan(self.fleet.world, self.fleet.plan, after, until=self.fleet.world.now() + 30)
        assert standing == after
        assert all(isinstance(outcome, Joined) for outcome in joined), joined
        self.fleet.plan = after
        self.acts["add"] += 1
        # A key whose newest whole copies were damaged may have come to the new store as a version without bytes.
        for stores in self.damaged.values():
            stores.add(SPARE)


def _run_machine(fleet: LiveFleet, *, examples: int, steps: int, machine: type[StoreMachine] = StoreMachine) -> None:
    machine.fleet = fleet
    machine.acts.clear()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=(Phase.generate,),  # a live failure need not come again, so there is nothing to shrink
            suppress_health_check=list(HealthCheck),
        ),
    )


def _run_script(fleet: LiveFleet) -> None:
    """One example that has everything in it; the others are drawn, and a short run of them may have no faults."""
    StoreMachine.fleet = fleet
    machine = StoreMachine()
    machine.start()
    machine.add_a_store()
    machine.put(key="a/b")
    machine.break_one(store="s1", how="kill")
    machine.put(key="")
    machine.bring_back()
    machine.break_one(store="s2", how="stop")
    machine.get_all(thorough=False)
    machine.go_on()
    machine.damage(which=1, place=0)
    machine.get_all(thorough=True)
    machine.teardown()


def _require_acts(acts: Counter[str]) -> None:
    never = [act for act in ACTS if not acts[act]]
    assert not never, f"these never happened: {never}; what did: {dict(acts)}"


@pytest.mark.timeout(300)
def test_real_stores_under_fire_are_a_dictionary(fleet: LiveFleet) -> None:
    _run_machine(fleet, examples=6, steps=20)
    _run_script(fleet)
    _require_acts(StoreMachine.acts)


class _Unseen(StoreMachine):
    unseen = True


@pytest.mark.live
@pytest.mark.timeout(1200)
def test_the_machine_catches_damage_that_stores_do_not_notice(fleet: LiveFleet) -> None:
    with pytest.raises(AssertionError, match="possible were"):
        _run_machine(fleet, examples=60, steps=25, machine=_Unseen)


@pytest.mark.live
@pytest.mark.timeout(1200)
def test_real_stores_under_long_fire_are_a_dictionary(fleet: LiveFleet) -> None:
    _run_machine(fleet, examples=60, steps=25)
    _require_acts(StoreMachine.acts)


def _strike_once(fleet: LiveFleet, stage: type, fault: str, place: int) -> tuple[Struck, list[str]]:
    """A runtime that strikes one of the stores asked, before the first request of this kind goes out; and which one."""
    struck: list[str] = []

    def strike(number: int, calls: Sequence[Call]) -> None:
        if not struck and calls and isinstance(calls[0].request, stage):
            struck.append(calls[place % len(calls)].node)
            (fleet.kill if fault == "kill" else fleet.pause)(struck[0])

    return Struck(fleet.world, strike), struck


@pytest.mark.live
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", ["kill", "stop"])
@pytest.mark.parametrize(("operation", "stage"), [("write", Look), ("write", Put), ("read", Look), ("read", Get)])
def test_an_operation_survives_the_loss_of_a_store_in_the_midst_of_it(
    fleet: LiveFleet, operation: str, stage: type, fault: str
) -> None:
    """Everything is read while the store is lost, and, once it is back, while another one hangs."""
    writer, newest = Writer("w"), {f"k{number}": "early" for number in range(6)}

    def write(world: Runtime, key: str, text: str) -> None:
        outcome = write_text(world, fleet.plan, writer, key, text, within_s=30)
        assert isinstance(outcome, Acknowledged), outcome
        newest[key] = text

    def read(world: Runtime, keys: Iterable[str]) -> None:
        assert {key: read_text(world, fleet.plan, key, within_s=30) for key in keys} == {k: newest[k] for k in keys}

    for key, text in list(newest.items()):
        write(fleet.world, key, text)
    for place in range(3):
        key = f"k{place}"
        world, struck = _strike_once(fleet, stage, fault, place)
        began = fleet.world.now()
        write(world, key, f"late {place}") if operation == "write" else read(world, [key])
        assert struck, f"a {operation} has no {stage.__name__}"
        assert fleet.world.now() - began < 30
        read(fleet.world, list(newest))
        if fault == "kill":
            fleet.restart(struck[0])
            assert isinstance(rejoin(fleet.world, fleet.plan, struck[0], until=fleet.world.now() + 30), Joined)
        else:
            fleet.resume(struck[0])
        other = next(store for store in fleet.plan.stores_of(key) if store != struck[0])
        fleet.pause(other)
        read(fleet.world, list(newest))
        fleet.resume(other)


@pytest.mark.timeout(600)
def test_six_hundred_acknowledged_writes_with_a_real_store_killed_every_200(fleet: LiveFleet) -> None:
    assert under_fire(fleet, 600, kill_every=200, seed=7) == (600, [])


@pytest.mark.live
@pytest.mark.timeout(3600)
def test_ten_thousand_acknowledged_writes_with_a_real_store_killed_every_200(fleet: LiveFleet) -> None:
    assert under_fire(fleet, 10_000, kill_every=200, seed=7) == (10_000, [])


def test_vectors_go_from_store_to_store_and_not_through_the_caller(
    fleet: LiveFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 3.5, for writing, reading, repairing and coming back: the caller handles less than 2 kB a message."""
    messages: list[int] = []
    submit, read = OnRay._submit, ray.get

    def counting_submit(self: OnRay, host: str, calls: list[Call], until: float) -> Any:
        messages.append(len(ray.cloudpickle.dumps(calls)))
        return submit(self, host, calls, until)

    def counting_get(*args: Any, **options: Any) -> Any:
        value = read(*args, **options)
        messages.append(len(pickle.dumps(value)))
        return value

    monkeypatch.setattr(OnRay, "_submit", counting_submit)
    monkeypatch.setattr(ray, "get", counting_get)
    world, plan = fleet.world, fleet.plan
    made = world.ask([Call(node="source", request=Begin(seed=7))], enough=1, until=world.now() + 30)[0].reply
    assert isinstance(made, Begun)
    code = digest(torch.full((VECTOR_BYTES,), 7, dtype=torch.uint8))
    for key in ("a", "b", "c"):
        assert isinstance(put(world, plan, Writer(key), key, made.state[0], code, until=world.now() + 30), Acknowledged)
        fleet.tell("s2", Damage(key=key))
        assert isinstance(scrub(world, plan, key, until=world.now() + 30), Value)
    fleet.kill("s1")
    fleet.restart("s1")
    assert isinstance(rejoin(world, plan, "s1", until=world.now() + 30), Joined)
    monkeypatch.undo()
    assert max(messages) < 2_000, f"a message of {max(messages)} bytes"
    found = get(world, plan, "a", until=world.now() + 30)
    assert isinstance(found, Value)
    assert digest(world.fetch(found.payload)) == code
