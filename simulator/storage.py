"""The weight store of a run: the published state goes into it after a round and comes out of it before the next.

Source: HQDE clauses 2.6 to 2.8. Who writes, reads and brings stores back are the stories of ``hqde_ref.rounds``; here
stands what became of it, with the bytes' own digest as the harness sees them, which the stores and stories never do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import Any

from hqde_ref.errors import RuntimeFault
from hqde_ref.messages import Acknowledged, Joined, NotJoined, Payload, Refused, Report, Reported, Value, Version
from hqde_ref.rounds.rejoining import rejoin
from hqde_ref.rounds.storing import Writer, ask_stores, get, put
from simulator.fragile import AskFate, Damage, Damaged, Fate, Reset
from simulator.records import ReadBack, Written
from simulator.scenario_store import STATE_KEY, WeightStore
from simulator.worlds import World

__all__ = ["Storage", "refuse_unread"]

_TRIES = 2  # of a rejoin: on a crowded machine one may run out of time
_LOSSY_TRIES = 10  # of the harness's own questions where messages get lost: it is no part of what is judged


class Storage:
    """Stores that begin empty, whatever they held in an earlier run in the same world.

    Args:
        nodes: over how many machines the stores are dealt.
        lossy: whether messages may get lost, so that what is not answered is asked again.
        note: told (event, fields) of every write, read and rejoin.
    """

    def __init__(
        self, settings: WeightStore, world: World, *, nodes: int, lossy: bool, note: Callable[..., None]
    ) -> None:
        self._plan = settings.plan(nodes=nodes)
        self._within = settings.within
        self._runtime = world.runtime
        self._writer = Writer("harness")
        self._tries = _LOSSY_TRIES if lossy else 1
        self._note = note

    def open(self, payload: Payload, digest: str) -> Written:
        """Forget all, and write the first state.

        Raises:
            RuntimeFault: when not all stores answer, or the write is not acknowledged: no fault has begun yet.
        """
        replies = self._ask_until(self._plan.stores, Reset(epoch=self._plan.epoch), Reported)
        silent = {store: reply.reason for store, reply in replies.items() if not isinstance(reply, Reported)}
        if silent:
            problem = f"{', '.join(silent)} did not begin ({', '.join(sorted(set(silent.values())))})"
            raise RuntimeFault(what="the weight store", problem=problem, do="run again")
        written = self.write(0, payload, digest)
        if not written.acknowledged:
            problem = f"did not take the first state ({written.reason})"
            raise RuntimeFault(what="the weight store", problem=problem, do="give it more time (system.store.within)")
        return written

    def write(self, number: int, payload: Payload, digest: str) -> Written:
        """Write the result of a round; 0 is the first state."""
        content = self._content_of(payload)
        outcome = put(self._runtime, self._plan, self._writer, STATE_KEY, payload, digest, until=self._until())
        written = Written(
            version=_plain(outcome.version),
            content=content,
            acknowledged=isinstance(outcome, Acknowledged),
            stores=outcome.stores,
            reason="" if isinstance(outcome, Acknowledged) else outcome.reason,
        )
        told = {"acknowledged": written.acknowledged, "stores": written.stores, "reason": written.reason}
        self._note("store written", round=number, version=written.version, content=content, **told)
        return written

    def read(self, number: int) -> tuple[ReadBack, Value | None]:
        """Read the state that a round is to start from, and what it is to start with; None: nothing was returned."""
        found = get(self._runtime, self._plan, STATE_KEY, until=self._until())
        if isinstance(found, Value):
            content = self._content_of(found.payload)
            read = ReadBack(version=_plain(found.version), content=content, repaired=found.repaired)
        else:
            read = ReadBack(version=None, content=None, reason=found.reason)
        told = {"version": read.version, "content": read.content, "repaired": read.repaired, "reason": read.reason}
        self._note("store read", round=number, **told)
        return read, found if isinstance(found, Value) else None

    def damage(self, stores: Collection[str], mark: int) -> dict[str, bool | None]:
        """Flip a bit in the stores' copies: whether it was flipped, False where there is no copy; None: no answer."""
        replies = self._ask_all(stores, Damage(key=STATE_KEY, mark=mark))
        return {store: reply.fired if isinstance(reply, Damaged) else None for store, reply in replies.items()}

    def ask_fates(self, stores: Collection[str], mark: int) -> dict[str, str]:
        """What became of the copies damaged under this mark (``Fate.fate``), of those stores that answer."""
        replies = self._ask_until(stores, AskFate(mark=mark), Fate)
        return {store: reply.fate for store, reply in replies.items() if isinstance(reply, Fate)}

    def tend(self, number: int, *, silent: Collection[str]) -> tuple[str, ...]:
        """Let those that came back rejoin.

        Args:
            silent: stores that faults keep dead or stopped: nobody waits for them.
        Returns:
            Those that do not serve when the round is over, dead ones among them; a stopped one is taken to serve.
        """
        out = []
        for store, reply in self._ask_all([s for s in self._plan.stores if s not in silent], Report()).items():
            if isinstance(reply, Reported) and reply.epoch is not None:
                continue
            if not self._rejoin(number, store):
                out.append(store)
        return tuple(out)

    def _rejoin(self, number: int, store: str) -> bool:
        for _ in range(_TRIES):
            match rejoin(self._runtime, self._plan, store, until=self._until()):
                case Joined(keys=keys, behind=behind):
                    self._note("store rejoined", round=number, store=store, keys=keys, behind=behind)
                    return True
                case NotJoined(reason=reason):
                    self._note("store not rejoined", round=number, store=store, reason=reason)
        return False

    def _ask_until(self, stores: Collection[str], request: Any, kind: type) -> dict[str, Any]:
        """Ask, and ask those again that do not answer with ``kind``, where that may be a lost message."""
        replies: dict[str, Any] = {}
        for _ in range(self._tries):
            waiting = [store for store in stores if not isinstance(replies.get(store), kind)]
            replies |= self._ask_all(waiting, request) if waiting else {}
        return replies

    def _ask_all(self, stores: Collection[str], request: Any) -> dict[str, Any]:
        return ask_stores(self._runtime, list(stores), request, enough=len(stores), until=self._until())

    def _until(self) -> float:
        return self._runtime.now() + self._within

    def _content_of(self, payload: Payload) -> str:
        return hashlib.blake2b(self._runtime.fetch(payload).numpy().tobytes(), digest_size=16).hexdigest()


def _plain(version: Version | None) -> tuple[int, str] | None:
    return None if version is None else (version.counter, version.writer)


def refuse_unread(number: int, members: Collection[str], read: ReadBack) -> Refused:
    """A round without a state to train from."""
    unused = dict.fromkeys(members, "unused: there is no state to start from")
    return Refused(round=number, reason=f"the state was not read: {read.reason}", rejected={}, missing=unused)
