"""Values to put into stores, and a small fleet of stores in virtual time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hqde_ref.core.packing import digest
from hqde_ref.core.quorums import StorePlan, plan_store
from hqde_ref.messages import (
    Absent,
    Acknowledged,
    Answer,
    Call,
    NotAcknowledged,
    Payload,
    Request,
    Runtime,
    Unavailable,
    Value,
)
from hqde_ref.rounds.storing import Writer, get, put
from simulator.fragile import FragileSpec
from simulator.runtime import Simulated

__all__ = ["Fleet", "Struck", "content_of", "payload_of", "read_text", "write_text"]


def payload_of(text: str, *, size: int = 64) -> tuple[Payload, str]:
    """A value that begins with this text, and its digest."""
    raw = text.encode("utf-8", "surrogatepass")
    vector = torch.frombuffer(bytearray(raw.ljust(size, b".")), dtype=torch.uint8)
    return Payload(key=f"value/{text}", ref=vector, nbytes=vector.numel()), digest(vector)


def content_of(vector: Tensor) -> str:
    """The text a value began with."""
    return bytes(vector.numpy()).rstrip(b".").decode("utf-8", "surrogatepass")


class Fleet:
    """One store a host, in virtual time, and the faults it can be given."""

    def __init__(
        self,
        count: int = 3,
        *,
        spare: int = 0,
        spec: Callable[..., FragileSpec] = FragileSpec,
        domains: Sequence[str] | None = None,
    ) -> None:
        names = [f"s{index}" for index in range(count + spare)]
        self.plan: StorePlan = plan_store(names[:count], copies=3, domains=domains)
        hosts = {name: (spec(name=name, joined=index < count),) for index, name in enumerate(names)}
        self.world = Simulated(hosts)
        self.down: set[str] = set()
        self.stopped: set[str] = set()
        self.empty: set[str] = set()

    def tell(self, store: str, request: Request) -> None:
        """Perform a test's own request at once, whatever the state of the host."""
        self.world._hosts[store].nodes[store].perform(request)

    def kill(self, store: str) -> None:
        if store not in self.down:
            self.world.crash(store)
            self.down.add(store)
            self.stopped.discard(store)

    def pause(self, store: str) -> None:
        if store not in self.down:
            self.world.pause(store)
            self.stopped.add(store)

    def resume(self, store: str) -> None:
        if store in self.stopped:
            self.world.resume(store)
            self.stopped.discard(store)

    def restart(self, store: str) -> None:
        """It comes back empty, and nobody brings it up to date yet."""
        self.kill(store)
        self.world.restart(store)
        self.down.discard(store)
        self.empty.add(store)


@dataclasses.dataclass
class Struck:
    """A runtime that calls ``strike(n, calls)`` before its n-th ask."""

    inner: Runtime
    strike: Callable[[int, Sequence[Call]], None]
    asks: int = 0

    def now(self) -> float:
        return self.inner.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self.inner.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        self.asks += 1
        self.strike(self.asks, calls)
        return self.inner.ask(calls, enough=enough, until=until)


def write_text(
    runtime: Runtime, plan: StorePlan, writer: Writer, key: str, text: str, *, within_s: float = 3.0
) -> Acknowledged | NotAcknowledged:
    payload, code = payload_of(text)
    return put(runtime, plan, writer, key, payload, code, until=runtime.now() + within_s)


def read_text(runtime: Runtime, plan: StorePlan, key: str, *, within_s: float = 3.0) -> str | Absent | Unavailable:
    found = get(runtime, plan, key, until=runtime.now() + within_s)
    return content_of(runtime.fetch(found.payload)) if isinstance(found, Value) else found
