"""Nodes in Ray actors: one actor a host, several members a host, vectors in Ray's object store.

Source: HQDE clauses 1.1, 1.2, 3.5; ``docs/design.md``, the laws of ``ask``. Ray is imported here, in ``ray_host`` and
in ``ray_cluster``, and nowhere else in this package.

- One message a host and ask. Its return values are small metadata and one object a payload, so vectors go from host to
  host and the caller reads metadata only. Objects are returned, never put: what a dead host returned stays readable.
- Ray retries nothing (``max_restarts=0``, ``max_task_retries=0``). A host that died is started afresh by this runtime,
  with the next incarnation and without its state.
- It never joins a cluster it was not told of and never stops one that it did not start.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import psutil
import ray
import torch
from ray import exceptions as faults
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from torch import Tensor

from hqde_ref.core.splitting import gpu_share
from hqde_ref.errors import RuntimeFault
from hqde_ref.messages import (
    CRASHED,
    LATE,
    UNANSWERED,
    Answer,
    Call,
    Failed,
    NodeSpec,
    Payload,
    Reply,
    Span,
    payloads_in_reply,
    replace_payloads,
)
from hqde_ref.runtimes.naming import hosts_of_nodes
from hqde_ref.runtimes.ray_cluster import alive_nodes, connect, disconnect, own_signals
from hqde_ref.runtimes.ray_host import DEATHS, LOSSES, UNREACHABLE, Host, Process, make_lost
from hqde_ref.runtimes.ray_machines import Machines

__all__ = ["OnRay"]

_AGAIN_S = 0.2
_ANSWER_S = 1.0  # how long a host may take to say that it is there
_FETCH_S = 60.0
_LEAVE_S = 2.0  # how long hosts may take to end by themselves
_FOREVER_S = 1e6  # Ray keeps timeouts in integer milliseconds and overflows on math.inf


def _point_to(refs: list[Any], payload: Payload) -> Payload:
    """Put the object reference where the host left an index."""
    return dataclasses.replace(payload, ref=refs[payload.ref])


@dataclasses.dataclass(slots=True)
class _Seat:
    """What the runtime knows of a host."""

    specs: tuple[NodeSpec, ...]
    actor: Any
    incarnation: int
    node: str | None
    process: Process | None = None
    pending: Any = None  # the reference that answers when a fresh actor is ready
    dead: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class _Message:
    """Calls that travel to a host together, and what is to come back."""

    host: str
    incarnation: int
    calls: list[Call]
    meta: Any
    vectors: list[Any]


class OnRay:
    """A runtime on Ray actors.

    Args:
        hosts: which nodes each host carries.
        address: of a running cluster (``host:port``); None starts a private one, which ``close`` ends.
        gpus: logical GPUs to share among the hosts (clause 1.1); 0 uses none.
        start_within_s: how long hosts may take to be placed and ready (clause 1.2).
        spread: place each host, by hard affinity, on the node of the cluster that is alive and carries the fewest; a
            host that died is placed anew. Without it Ray places them.
        machines: nodes of a private Ray on this machine, which say where each host belongs; they stay the caller's to
            end.
        store_bytes: size of a private cluster's object store.
        observe: called with a ``Span`` for every request that was answered.

    Raises:
        RuntimeFault: when the cluster does not answer, or naming the hosts that could not be placed in time.
    """

    def __init__(
        self,
        hosts: Mapping[str, tuple[NodeSpec, ...]],
        *,
        address: str | None = None,
        gpus: int = 0,
        start_within_s: float = 120.0,
        spread: bool = False,
        machines: Machines | None = None,
        store_bytes: int = 512 << 20,
        observe: Callable[[Span], None] | None = None,
    ) -> None:
        self._observe = observe
        self._flying: list[_Message] = []
        self._gone: Any = None  # a reference to what is lost, once a test wants one
        self._spread = spread
        self._machines = machines
        self._unanswered: set[str] = set()
        self._hosts: dict[str, _Seat] = {}
        self._host_of = hosts_of_nodes(hosts)
        self._owns_ray = connect(address, gpus, store_bytes)
        try:
            self._machine: str = ray.get_runtime_context().get_node_id()
            self._share = gpu_share(workers=max(len(hosts), 1), gpus=gpus)
            self._remote = ray.remote(num_cpus=0, num_gpus=self._share, max_restarts=0, max_task_retries=0)(Host)
            for host, specs in hosts.items():
                self._hosts[host] = self._start(host, tuple(specs), 0)
            self.settle(within_s=start_within_s)
        except BaseException:  # an interruption too must not leave processes behind
            self.close()
            raise

    # ---------------------------------------------------------------------------------------------- Runtime

    def now(self) -> float:
        return time.monotonic()

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        until = min(until, time.monotonic() + _FOREVER_S)
        self._drop_settled(calls)
        replies: dict[int, Reply] = {}
        # Requests hold objects that cannot be hashed: by node and attempt first, then by equality.
        places: dict[tuple[str, int], list[int]] = {}
        for index, call in enumerate(calls):
            places.setdefault((call.node, call.attempt), []).append(index)
        waiting = self._send(calls, replies, until)
        while waiting and sum(not isinstance(r, Failed) for r in replies.values()) < enough:
            left = until - time.monotonic()
            if left <= 0:
                break
            ready, _ = ray.wait([message.meta for message in waiting], num_returns=1, timeout=left)
            for message in [m for m in waiting if m.meta in ready]:
                waiting.remove(message)
                for call, reply in self._receive(message, until):
                    at = places.get((call.node, call.attempt), ())
                    replies |= {index: reply for index in at if calls[index] == call}
        return tuple(Answer(node=call.node, reply=replies.get(index, LATE)) for index, call in enumerate(calls))

    def fetch(self, payload: Payload) -> Tensor:
        """The vector, copied out of the object store.

        Raises:
            RuntimeFault: when it is lost, or does not come in time.
        """
        try:
            return torch.from_numpy(np.array(ray.get(payload.ref, timeout=_FETCH_S)))
        except LOSSES as error:
            raise RuntimeFault(what=f"payload {payload.key}", problem="is lost", do="run the round again") from error
        except faults.GetTimeoutError as error:
            problem = f"did not come within {_FETCH_S:g} s"
            raise RuntimeFault(what=f"payload {payload.key}", problem=problem, do="try again") from error

    def lose(self, payload: Payload) -> Payload:
        """For fault tests: the same payload with its bytes really gone.

        Raises:
            RuntimeFault: Ray does not make one in time; see ``prepare_loss``.
        """
        self.prepare_loss()
        return dataclasses.replace(payload, ref=self._gone)

    def prepare_loss(self) -> None:
        """Make an object and lose it: that takes a process, so it should not happen within a round."""
        if self._gone is None:
            self._gone = make_lost(until=time.monotonic() + _FETCH_S)

    # ---------------------------------------------------------------------------------------------- hosts

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(self._hosts)

    @property
    def share(self) -> float:
        """The GPUs that each host holds."""
        return self._share

    def pid_of(self, host: str) -> int | None:
        """Process id of a host on this machine; None while it starts and once its process is gone."""
        process = self._find_process(self._hosts[host])
        return None if process is None else process.pid

    def send(self, host: str, number: int) -> bool:
        """Send a signal to a host's process; False if the process is gone.

        Raises:
            RuntimeFault: the host is not ready, or runs on another machine, where no signal reaches it.
        """
        seat = self._hosts[host]
        if seat.process is None:
            raise RuntimeFault(what=f"host {host}", problem="has no process to signal", do="wait until it is ready")
        if not self._is_here(seat.process.machine):
            problem = "runs on another machine, which signals do not reach"
            raise RuntimeFault(what=f"host {host}", problem=problem, do="place the hosts on this machine")
        process = self._find_process(seat)
        if process is None:
            return False
        try:
            process.send_signal(number)  # psutil looks at the creation time once more
        except psutil.NoSuchProcess:
            return False
        return True

    def take_unanswered(self) -> set[str]:
        """Hosts to or from which a message was seen to be lost since this was last asked, be it in vain by then."""
        found, self._unanswered = self._unanswered, set()
        return found

    def node_of(self, host: str) -> str | None:
        """Id of the Ray node that a host was dealt to; None where Ray placed it."""
        return self._hosts[host].node

    def restart(self, host: str) -> None:
        """Start a fresh actor for a host whose process is gone; ``settle`` waits for it."""
        seat = self._hosts[host]
        if self._machines is not None and self._machines.node_of(host) is None:
            do = "put another node in its place, or name the host among those that stay down"
            raise RuntimeFault(what=f"host {host}", problem="cannot be started: its node was removed", do=do)
        with suppress(faults.RayError):
            ray.kill(seat.actor)  # it may only have been out of reach
        seat.dead = True
        self._hosts[host] = self._start(host, seat.specs, seat.incarnation + 1)

    def settle(self, *, within_s: float, down: Sequence[str] = ()) -> None:
        """Restart what died, except the hosts that shall stay ``down``, and wait until the rest is ready.

        By default Ray takes some 15 s to notice that a node is gone, so where nodes may be lost give more than that.

        Raises:
            RuntimeFault: naming the hosts that are not, once the time is up (clause 1.2).
        """
        until = time.monotonic() + within_s
        if doubtful := self._note_deaths(until):
            raise RuntimeFault(
                what=f"host(s) {', '.join(doubtful)}",
                problem=f"neither answered nor known to be dead within {within_s:g} s",
                do="give more time: Ray may not have noticed yet that a node is gone",
            )
        for host, seat in self._hosts.items():
            if seat.dead and host not in down:
                self.restart(host)
        for host in self._hosts:
            self._become_ready(host, until)
        late = [host for host, seat in self._hosts.items() if seat.pending is not None]
        if late:
            raise RuntimeFault(
                what=f"host(s) {', '.join(late)}",
                problem=f"not placed within {within_s:g} s, each asking for {self._share:g} GPU"
                if self._share
                else f"not ready within {within_s:g} s",
                do="free resources, use fewer hosts or give more time",
            )

    def close(self) -> None:
        """End the actors, and Ray if this runtime started it; an end from outside waits until that is done."""
        with own_signals():
            processes = []
            for seat in self._hosts.values():
                if ray.is_initialized():
                    ray.kill(seat.actor)
                process = self._find_process(seat)
                processes += [process] if process is not None else []
                seat.dead = True
            # Killed at once, Ray would report each on standard output; a stopped one outlives ray.kill for seconds.
            _, left = psutil.wait_procs(processes, timeout=_LEAVE_S)
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._flying.clear()
            if self._owns_ray and ray.is_initialized():
                self._owns_ray = False
                disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------- inside

    def _find_process(self, seat: _Seat) -> psutil.Process | None:
        """The process that was started for a host, while it lives on this machine: its id may be another's by now."""
        if seat.dead or seat.process is None or not self._is_here(seat.process.machine):
            return None
        try:
            found = psutil.Process(seat.process.pid)
            same = found.create_time() == seat.process.born and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return found if same else None

    def _is_here(self, node: str) -> bool:
        """Whether the processes of a Ray node are on this machine."""
        return node == self._machine or (self._machines is not None and self._machines.is_here(node))

    def _start(self, host: str, specs: tuple[NodeSpec, ...], incarnation: int) -> _Seat:
        node = self._choose_node() if self._spread else None
        if self._machines is not None:
            node = self._machines.node_of(host)
        where = "DEFAULT" if node is None else NodeAffinitySchedulingStrategy(node, soft=False)
        actor: Any = self._remote.options(scheduling_strategy=where).remote(specs, incarnation)
        return _Seat(
            specs=specs,
            actor=actor,
            incarnation=incarnation,
            node=node,
            pending=actor.ready.remote(),
        )

    def _choose_node(self) -> str | None:
        """The node that carries the fewest hosts: what came back from a lost one goes where there is room."""
        load = Counter(seat.node for seat in self._hosts.values() if not seat.dead)
        return min(alive_nodes(), key=lambda node: (load[node], node), default=None)

    def _become_ready(self, host: str, until: float) -> None:
        seat = self._hosts[host]
        while seat.pending is not None:
            try:
                seat.process = ray.get(seat.pending, timeout=max(until - time.monotonic(), 0.001))
                seat.pending = None
            except faults.GetTimeoutError:
                return
            except UNREACHABLE:  # the question or its answer was lost on the way
                time.sleep(_AGAIN_S)
                seat.pending = seat.actor.ready.remote()
            except DEATHS as error:
                if isinstance(error, faults.RayActorError) and error.actor_init_failed:
                    problem = f"its nodes cannot be built ({error})"
                    raise RuntimeFault(what=f"host {host}", problem=problem, do="mend them") from error
                if time.monotonic() >= until:
                    return
                time.sleep(_AGAIN_S)  # it died while it started, perhaps with its node
                self.restart(host)
                seat = self._hosts[host]

    def _note_deaths(self, until: float) -> list[str]:
        """Mark hosts whose process is gone, and name those of which that is not known when the time is up.

        A host may be busy or stopped: while its process is seen on this machine, one that does not answer counts as
        alive. On another, silence may mean that its node is lost, and Ray takes seconds to say so: it is waited for.
        """
        asked = [host for host, seat in self._hosts.items() if not seat.dead and seat.pending is None]
        probes = {host: self._hosts[host].actor.ready.remote() for host in asked}
        while probes:
            _, silent = ray.wait(list(probes.values()), num_returns=len(probes), timeout=_ANSWER_S)
            alive = alive_nodes() if silent else []
            for host, probe in list(probes.items()):
                seat = self._hosts[host]
                if probe in silent:
                    seat.dead = seat.process is not None and seat.process.machine not in alive
                    known = seat.dead or self._find_process(seat) is not None
                elif not (known := self._note_answer(seat, probe)):
                    probes[host] = seat.actor.ready.remote()
                if known:
                    del probes[host]
            if time.monotonic() >= until:
                break
            if probes:
                time.sleep(_AGAIN_S)
        return list(probes)

    def _note_answer(self, seat: _Seat, probe: Any) -> bool:
        """Mark a host that is dead; False if it is out of reach: dead with its node, or a message was lost."""
        try:
            ray.get(probe)
        except UNREACHABLE:
            return False
        except DEATHS:
            seat.dead = True
        return True

    def _send(self, calls: Sequence[Call], replies: dict[int, Reply], until: float) -> list[_Message]:
        """The messages to wait for: those in flight that an equal call joins, and one new one a host."""
        waiting: list[_Message] = []
        groups: dict[str, list[Call]] = {}
        flights: dict[tuple[str, int], list[tuple[Call, _Message]]] = {}
        for message in self._flying:
            for sent in message.calls:
                flights.setdefault((sent.node, sent.attempt), []).append((sent, message))
        new: dict[tuple[str, int], list[Call]] = {}
        for index, call in enumerate(calls):
            key = (call.node, call.attempt)
            flying = next((m for sent, m in flights.get(key, ()) if sent == call), None)
            host = self._host_of.get(call.node)
            if flying is not None:
                if flying not in waiting:
                    waiting.append(flying)
            elif host is None:
                replies[index] = Failed(reason=f"there is no node {call.node!r}", definite=True)
            elif self._hosts[host].dead:
                replies[index] = CRASHED
            elif call not in new.setdefault(key, []):
                new[key].append(call)
                groups.setdefault(host, []).append(call)
        for host, group in groups.items():
            waiting.append(self._submit(host, group, until))
        return waiting

    def _submit(self, host: str, calls: list[Call], until: float) -> _Message:
        seat = self._hosts[host]
        vectors = sum(payloads_in_reply(call.request) for call in calls)
        last = max(until if call.until is None else call.until for call in calls)
        patience = min(max(last - time.monotonic(), 0.05), _FOREVER_S)
        method = seat.actor.perform.options(num_returns=1 + vectors)
        refs = method.remote(calls, patience)
        meta, *rest = refs if vectors else [refs]
        message = _Message(host=host, incarnation=seat.incarnation, calls=calls, meta=meta, vectors=rest)
        self._flying.append(message)
        return message

    def _receive(self, message: _Message, until: float) -> list[tuple[Call, Reply]]:
        if message in self._flying:
            self._flying.remove(message)
        try:
            metas = ray.get(message.meta, timeout=max(until - time.monotonic(), 1.0))
        except (*UNREACHABLE, faults.ObjectLostError, faults.GetTimeoutError):
            self._unanswered.add(message.host)
            return [(call, UNANSWERED) for call in message.calls]
        except DEATHS:
            seat = self._hosts[message.host]
            if seat.incarnation == message.incarnation:
                seat.dead = True
            return [(call, CRASHED) for call in message.calls]
        except faults.RayTaskError as error:
            self._flying.clear()  # what was asked beside it may say the same, and not to whoever asks next
            raise error.cause from error  # a bug of a node: it must not look like a fault
        answers: list[tuple[Call, Reply]] = []
        at = 0
        for call, (reply, start, finish) in zip(message.calls, metas, strict=True):
            mine = message.vectors[at : at + payloads_in_reply(call.request)]
            at += payloads_in_reply(call.request)
            answers.append((call, replace_payloads(reply, partial(_point_to, mine))))
            if self._observe is not None:
                self._observe(_span(message.host, call, reply, start, finish))
        return answers

    def _drop_settled(self, calls: Sequence[Call]) -> None:
        """Forget late messages that have come in, unless a call asks for them again: they belong to no ask."""
        again: dict[tuple[str, int], list[Call]] = {}
        for call in calls:
            again.setdefault((call.node, call.attempt), []).append(call)
        old = [m for m in self._flying if not any(sent in again.get((sent.node, sent.attempt), ()) for sent in m.calls)]
        if old:
            ready, _ = ray.wait([m.meta for m in old], num_returns=len(old), timeout=0)
            for message in [m for m in old if m.meta in ready]:
                self._receive(message, time.monotonic())


def _span(host: str, call: Call, reply: Reply, start: float, finish: float) -> Span:
    return Span(
        host=host,
        node=call.node,
        request=type(call.request).__name__,
        start=start,
        finish=finish,
        outcome=type(reply).__name__,
    )
