"""A host as a Ray actor: holds nodes, resolves payloads under a guard, performs calls one after the other."""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import psutil
import ray
import torch
from ray import exceptions as faults
from torch import Tensor

from hqde_ref.errors import RuntimeFault
from hqde_ref.messages import (
    Call,
    Failed,
    Node,
    NodeSpec,
    Payload,
    Reply,
    payloads_in_reply,
    payloads_of,
    replace_payloads,
)
from hqde_ref.runtimes.local import perform_guarded

__all__ = ["DEATHS", "LOSSES", "UNREACHABLE", "Host", "Process", "make_lost"]

# Nothing came back, and the host may live.
UNREACHABLE = (faults.ActorUnavailableError, faults.OutOfDiskError)
# The host is gone. Only the first is a RayActorError, and ActorUnavailableError is one too: catch UNREACHABLE before.
DEATHS = (
    faults.RayActorError,
    faults.WorkerCrashedError,
    faults.OutOfMemoryError,
    faults.NodeDiedError,
    faults.LocalRayletDiedError,
    faults.ActorUnschedulableError,  # its node is gone before it was placed there
)
LOSSES = (faults.ObjectLostError, faults.OutOfDiskError, *DEATHS)


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """Which process a host is: its id alone may be another process's by now, or one of another machine.

    Attributes:
        born: when it was created, as psutil says it.
        machine: id of the Ray node it runs on.
    """

    pid: int
    born: float
    machine: str


class Host:
    """The actor: holds nodes, resolves payloads, performs calls one after the other."""

    def __init__(self, specs: tuple[NodeSpec, ...], incarnation: int) -> None:
        torch.set_num_threads(1)  # sums in another order would be other bits
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        self._nodes: dict[str, Node] = {spec.name: spec.build(incarnation) for spec in specs}

    def ready(self) -> Process:
        return Process(
            pid=os.getpid(),
            born=psutil.Process().create_time(),
            machine=ray.get_runtime_context().get_node_id(),
        )

    def perform(self, calls: list[Call], patience_s: float) -> Any:
        """The replies with their times, and the vectors.

        Args:
            patience_s: how long to wait for payloads. A duration, since the clocks of two machines need not agree. It
                starts when this method does: assumed is that a message is on its way for next to no time. One that
                queued behind an earlier message waits for payloads that much longer than its caller meant.
        """
        until = time.monotonic() + patience_s
        _wait([payload for call in calls for payload in _referred(call)], until)  # what hangs costs no other call time
        metas: list[tuple[Reply, float, float]] = []
        vectors: list[Any] = []
        for call in calls:
            start = time.monotonic()
            reply = self._one(call, until)
            mine: list[Any] = []
            metas.append((replace_payloads(reply, partial(_strip, mine)), start, time.monotonic()))
            spare = payloads_in_reply(call.request) - len(mine)
            assert spare >= 0, (
                f"the reply to {type(call.request).__name__} carries {len(mine)} payloads, {-spare} more than declared"
            )
            vectors += mine + [None] * spare
        return [metas, *vectors] if vectors else metas

    def _one(self, call: Call, until: float) -> Reply:
        arrays, lost, slow = _load(_referred(call), until)
        if lost:
            return Failed(reason="payload lost", definite=True, lost=lost)
        if slow:  # named as well, so that the caller can go on without them
            return Failed(reason="payload late", definite=False, lost=slow)

        def swap(payload: Payload) -> Payload:
            held = arrays.get(payload.key)
            return payload if held is None else dataclasses.replace(payload, ref=held)

        request = replace_payloads(call.request, swap)
        return perform_guarded(self._nodes.get(call.node), dataclasses.replace(call, request=request))


class _Owner:
    """Makes an object that is its own, and so dies with it."""

    def put(self) -> list[Any]:
        return [ray.put(np.zeros(1, dtype=np.uint8))]


def make_lost(*, until: float) -> Any:
    """For fault tests: a reference to an object that is gone, since the process that owned it was killed.

    Raises:
        RuntimeFault: the process does not start, or Ray does not notice its end, in time.
    """
    remote: Any = ray.remote(num_cpus=0, max_restarts=0)(_Owner)
    owner = remote.remote()
    try:
        reference = ray.get(owner.put.remote(), timeout=max(until - time.monotonic(), 0.05))[0]
    except faults.GetTimeoutError as error:
        raise RuntimeFault(what="a payload to lose", problem="was not made in time", do="give more time") from error
    finally:
        ray.kill(owner)
    gone = Payload(key="gone", ref=reference, nbytes=1)
    while time.monotonic() < until:
        if _load([gone], time.monotonic() + 1.0)[1]:
            return reference
        time.sleep(0.05)
    raise RuntimeFault(what="a payload to lose", problem="is still there", do="give more time")


def _referred(call: Call) -> list[Payload]:
    """The payloads of a call that are in the object store."""
    return [payload for payload in payloads_of(call.request) if isinstance(payload.ref, ray.ObjectRef)]


def _wait(payloads: list[Payload], until: float) -> list[Any]:
    """Wait for all of them together, and return the references that can be read now, if only to hear of their loss.

    Ray fetches none while it waits for one that is not made, or is being made again: those get half of the time.
    """
    refs = list({payload.ref for payload in payloads})
    for share, fetch in ((0.5, False), (1.0, True)):
        if refs:
            left = max(until - time.monotonic(), 0)
            refs, _ = ray.wait(refs, num_returns=len(refs), timeout=share * left, fetch_local=fetch)
    return refs


def _load(payloads: list[Payload], until: float) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """The vectors by key, the keys of those that are lost, and of those that did not come in time.

    What is slow may still come: only what Ray says is gone is lost.
    """
    ready = set(_wait(payloads, until))
    here = {payload.key: payload.ref for payload in payloads if payload.ref in ready}
    slow = [payload.key for payload in payloads if payload.ref not in ready]
    with suppress(*LOSSES, faults.GetTimeoutError):  # which of them it is has to be asked one by one
        arrays = ray.get(list(here.values()), timeout=0)
        return {key: torch.from_numpy(array) for key, array in zip(here, arrays, strict=True)}, (), tuple(slow)
    found: dict[str, Tensor] = {}
    lost: list[str] = []
    for key, ref in here.items():
        try:
            found[key] = torch.from_numpy(ray.get(ref, timeout=0))
        except faults.GetTimeoutError:  # it had to make room again
            slow.append(key)
        except LOSSES:
            lost.append(key)
    return found, tuple(lost), tuple(slow)


def _strip(out: list[Any], payload: Payload) -> Payload:
    """Take the vector out of a reply and leave its index."""
    out.append(np.ascontiguousarray(payload.ref.numpy()))
    return dataclasses.replace(payload, ref=len(out) - 1)
