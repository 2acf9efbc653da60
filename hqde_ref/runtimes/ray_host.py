"""A host as a Ray actor: holds nodes, resolves payloads under a guard, performs calls one after the other."""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from ray import exceptions as faults
from torch import Tensor

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

__all__ = ["LOSSES", "Host"]

LOSSES = (faults.ObjectLostError, faults.RayActorError, faults.WorkerCrashedError, faults.GetTimeoutError)


class Host:
    """The actor: holds nodes, resolves payloads, performs calls one after the other."""

    def __init__(self, specs: tuple[NodeSpec, ...], incarnation: int) -> None:
        torch.set_num_threads(1)  # sums in another order would be other bits
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        self._nodes: dict[str, Node] = {spec.name: spec.build(incarnation) for spec in specs}

    def ready(self) -> int:
        return os.getpid()

    def perform(self, calls: list[Call], patience_s: float) -> Any:
        until = time.monotonic() + patience_s
        metas: list[tuple[Reply, float, float]] = []
        vectors: list[Any] = []
        for call in calls:
            start = time.monotonic()
            reply = self._one(call, until)
            mine: list[Any] = []
            metas.append((replace_payloads(reply, partial(_strip, mine)), start, time.monotonic()))
            vectors += mine + [None] * (payloads_in_reply(call.request) - len(mine))
        return [metas, *vectors] if vectors else metas

    def _one(self, call: Call, until: float) -> Reply:
        arrays, lost = _load([p for p in payloads_of(call.request) if isinstance(p.ref, ray.ObjectRef)], until)
        if lost:
            return Failed(reason="payload lost", definite=True, lost=lost)

        def swap(payload: Payload) -> Payload:
            held = arrays.get(payload.key)
            return payload if held is None else dataclasses.replace(payload, ref=held)

        request = replace_payloads(call.request, swap)
        return perform_guarded(self._nodes.get(call.node), dataclasses.replace(call, request=request))


def _load(payloads: list[Payload], until: float) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The vectors by key, and the keys of those that cannot be had."""
    refs = {payload.key: payload.ref for payload in payloads}
    try:
        arrays = ray.get(list(refs.values()), timeout=max(until - time.monotonic(), 0.05))
        return {key: torch.from_numpy(array) for key, array in zip(refs, arrays, strict=True)}, ()
    except LOSSES:
        pass  # which of them it is has to be asked one by one
    found, lost = {}, []
    for key, ref in refs.items():
        try:
            found[key] = torch.from_numpy(ray.get(ref, timeout=max(until - time.monotonic(), 0.05)))
        except LOSSES:
            lost.append(key)
    return found, tuple(lost)


def _strip(out: list[Any], payload: Payload) -> Payload:
    """Take the vector out of a reply and leave its index."""
    out.append(np.ascontiguousarray(payload.ref.numpy()))
    return dataclasses.replace(payload, ref=len(out) - 1)
