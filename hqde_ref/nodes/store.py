"""A store: one replica of the keys that are placed on it.

Source: HQDE clauses 2.6 to 2.8. No clock, no randomness, no calls outward.

What it promises: a version never replaces a newer one, whatever arrives late or twice; bytes are checked against their
digest when they come and whenever they are read; a store that came back empty does not serve before it was told to,
in that incarnation. A damaged copy keeps its version as a floor: only that version or a newer one mends it, since an
older one could be mistaken for the newest.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from hqde_ref.core.packing import digest
from hqde_ref.core.placement import choose_stores
from hqde_ref.core.screening import CORRUPTED
from hqde_ref.messages import (
    Copy,
    Expect,
    Expected,
    Failed,
    Found,
    Get,
    List,
    Listed,
    Look,
    Looked,
    Payload,
    Put,
    Reply,
    Report,
    Reported,
    Request,
    Serve,
    Serving,
    Standing,
    Stored,
    StoreFault,
    StoreFaulted,
    Version,
    message,
)

__all__ = ["NOT_SERVING", "Store", "StoreSpec"]

NOT_SERVING = "not serving"


@message
class StoreSpec:
    """A store as data. One that is added to a running system has not ``joined``: it is brought up to date first."""

    name: str
    joined: bool = True

    def build(self, incarnation: int, /) -> Store:
        fresh = incarnation == 0 and self.joined
        return Store(self.name, incarnation, epoch=0 if fresh else None)


@dataclasses.dataclass(slots=True)
class _Held:
    """A copy; ``content`` is None where only the version is known yet."""

    version: Version
    digest: str
    content: Tensor | None

    def is_whole(self) -> bool:
        return self.content is not None and digest(self.content) == self.digest


class Store:
    """Holds versions, digests and its own copies of the bytes; ``epoch`` is None while it does not serve."""

    def __init__(self, name: str, incarnation: int, *, epoch: int | None) -> None:
        self._name = name
        self._incarnation = incarnation
        self._epoch = epoch
        self._held: dict[str, _Held] = {}
        self._rejoined: dict[str, int] = {}

    def perform(self, request: Request, /) -> Reply:
        match request:
            case Look():
                return self._look(request)
            case Put():
                return self._put(request)
            case Get():
                return self._get(request)
            case Report():
                return Reported(by=self._standing(), epoch=self._epoch, keys=len(self._held))
            case List():
                return self._list(request)
            case Expect():
                return self._expect(request)
            case Serve():
                return self._serve(request)
            case StoreFault(kind="damage", key=str(key)):
                return StoreFaulted(fired=self._flip_bits(key))
            case _:
                return Failed(reason=f"a store does not answer {type(request).__name__}", definite=True)

    # ---------------------------------------------------------------------------------------------- reading, writing

    def _look(self, request: Look) -> Reply:
        if self._epoch != request.epoch:
            return self._not_serving(request.epoch)
        held = self._held.get(request.key)
        if held is None:
            return Looked(by=self._standing(), version=None, digest=None)
        if request.whole and not held.is_whole():
            return self._damaged(request.key)
        return Looked(by=self._standing(), version=held.version, digest=held.digest)

    def _put(self, request: Put) -> Reply:
        if request.epoch is not None and self._epoch is not None and self._epoch != request.epoch:
            return self._not_serving(request.epoch)
        found = digest(request.payload.ref)
        if found != request.digest:
            return Failed(
                reason=f"{CORRUPTED}: the payload of key {request.key!r} has digest {found[:12]}, "
                f"it was sent with {request.digest[:12]}",
                definite=True,
            )
        refused = self._keep(request)
        if refused is not None:
            return refused
        if request.epoch is not None and self._epoch is None:
            return self._not_serving(request.epoch)  # kept, but not to be counted: see core.quorums
        return Stored(by=self._standing(), key=request.key, version=request.version)

    def _keep(self, request: Put) -> Failed | None:
        held = self._held.get(request.key)
        if held is not None and held.version == request.version and held.digest != request.digest:
            return Failed(
                reason=f"conflict: key {request.key!r} has another value of version {request.version.counter} "
                f"by {request.version.writer!r}; give every writer a name of its own",
                definite=True,
            )
        if held is None or held.version < request.version or not held.is_whole():
            if held is not None and held.version > request.version:
                return self._damaged(request.key)
            content = request.payload.ref.clone()
            self._held[request.key] = _Held(version=request.version, digest=request.digest, content=content)
        return None

    def _get(self, request: Get) -> Reply:
        held = self._held.get(request.key)
        if held is None or held.version < request.least:
            return Failed(reason=f"{self._name} has no such version of key {request.key!r}", definite=True)
        if held.content is None or not held.is_whole():
            return self._damaged(request.key)
        payload = Payload(
            key=f"{self._name}.{self._incarnation}/{held.digest}", ref=held.content, nbytes=held.content.numel()
        )
        return Found(by=self._standing(), key=request.key, version=held.version, digest=held.digest, payload=payload)

    def _flip_bits(self, key: str) -> bool:
        """Flip bits of the copy of this key, as a failing memory does; False where there is none. For fault tests."""
        held = self._held.get(key)
        if held is None or held.content is None:
            return False
        held.content = held.content.bitwise_not()
        return True

    # ---------------------------------------------------------------------------------------------- joining

    def _list(self, request: List) -> Reply:
        if self._epoch is None or not request.epoch - 1 <= self._epoch <= request.epoch:
            return self._not_serving(request.epoch)
        self._rejoined[request.store] = max(self._rejoined.get(request.store, 0), request.incarnation)
        mine = [
            Copy(key=key, version=self._held[key].version, digest=self._held[key].digest)
            for key in sorted(self._held)
            if (request.after is None or key > request.after)
            and request.store
            in choose_stores(key, stores=request.stores, copies=request.copies, domains=request.domains)
        ]
        return Listed(by=self._standing(), copies=tuple(mine[: request.limit]), more=len(mine) > request.limit)

    def _expect(self, request: Expect) -> Reply:
        if request.incarnation != self._incarnation:
            return self._restarted(request.incarnation)
        for copy in request.copies:
            held = self._held.get(copy.key)
            if held is None or held.version < copy.version:
                self._held[copy.key] = _Held(version=copy.version, digest=copy.digest, content=None)
        missing = tuple(copy.key for copy in request.copies if not self._held[copy.key].is_whole())
        return Expected(by=self._standing(), missing=missing)

    def _serve(self, request: Serve) -> Reply:
        if request.incarnation is None and self._epoch not in (request.epoch - 1, request.epoch):
            return self._not_serving(request.epoch)
        if request.incarnation not in (None, self._incarnation):
            return self._restarted(request.incarnation)
        if self._epoch is not None and self._epoch > request.epoch:
            return self._not_serving(request.epoch)
        for store, incarnation in request.rejoined:
            self._rejoined[store] = max(self._rejoined.get(store, 0), incarnation)
        self._epoch = request.epoch
        return Serving(by=self._standing(), epoch=request.epoch)

    # ---------------------------------------------------------------------------------------------- words

    def _standing(self) -> Standing:
        return Standing(store=self._name, incarnation=self._incarnation, rejoined=tuple(sorted(self._rejoined.items())))

    def _not_serving(self, epoch: int) -> Failed:
        state = "has joined no plan" if self._epoch is None else f"has joined plan {self._epoch}"
        return Failed(reason=f"{NOT_SERVING}: {self._name} {state}, wanted plan {epoch}; rejoin it", definite=True)

    def _restarted(self, wanted: int | None) -> Failed:
        return Failed(
            reason=f"{self._name} restarted meanwhile: this is incarnation {self._incarnation}, not {wanted}",
            definite=True,
        )

    def _damaged(self, key: str) -> Failed:
        return Failed(reason=f"{CORRUPTED}: the copy of key {key!r} in {self._name} is damaged", definite=True)
