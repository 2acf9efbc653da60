"""Stores that can be broken: a harness's node that is a real store, and also forgets or damages what it is told to.

Source: HQDE clause 2.7.
"""

from __future__ import annotations

from typing import Literal

from hqde_ref.core.packing import digest
from hqde_ref.messages import Get, Look, Put, Reply, Reported, Request, message
from hqde_ref.nodes.store import Store

__all__ = ["AskFate", "Damage", "Damaged", "Fate", "Fragile", "FragileSpec", "Reset"]


@message
class Damage:
    """Flip one bit in the copy of this key, if there is one; ``unseen``: so that its digest fits again.

    ``mark``: what ``AskFate`` calls this damage, and which bit it is: two damages never undo each other.
    """

    key: str
    mark: int = 0
    unseen: bool = False


@message
class Damaged:
    """Whether a bit was flipped: there may be no copy, or one without bytes."""

    fired: bool


@message
class AskFate:
    """What became of the copy that was damaged under this mark?"""

    mark: int


@message
class Fate:
    """``met``: its bytes were read, or its version was written once more over it. ``gone``: neither ever can be.

    ``unheard of``: this process has damaged nothing under this mark.
    """

    fate: Literal["met", "in place", "gone", "unheard of"]


@message
class Reset:
    """Forget everything, and serve plan ``epoch`` (None: do not serve), as a fresh process would."""

    epoch: int | None


@message
class FragileSpec:
    """A store that also answers ``Damage`` and ``Reset``."""

    name: str
    joined: bool = True

    def build(self, incarnation: int, /) -> Fragile:
        return Fragile(self.name, incarnation, epoch=0 if self.joined and incarnation == 0 else None)


class Fragile(Store):
    """A store that the harness can break."""

    def __init__(self, name: str, incarnation: int, *, epoch: int | None) -> None:
        super().__init__(name, incarnation, epoch=epoch)
        self._flipped: dict[int, tuple[str, object]] = {}  # by mark: the key, and the copy as the store holds it
        self._met: set[int] = set()

    def perform(self, request: Request, /) -> Reply:
        match request:
            case Damage():
                return Damaged(fired=self._flip_one(request))
            case AskFate(mark=mark):
                return Fate(fate=self._fate_of(mark))
            case Reset(epoch=epoch):
                self._epoch, self._held, self._rejoined = epoch, {}, {}
                self._flipped, self._met = {}, set()
                return Reported(by=self._standing(), epoch=epoch, keys=0)
            case _:
                if self._flipped and self._meets(request):
                    self._met |= self._in_place()
                return super().perform(request)

    def _fate_of(self, mark: int) -> Literal["met", "in place", "gone", "unheard of"]:
        if mark not in self._flipped:
            return "unheard of"
        return "met" if mark in self._met else "in place" if mark in self._in_place() else "gone"

    def _in_place(self) -> set[int]:
        return {mark for mark, (key, held) in self._flipped.items() if self._held.get(key) is held}

    def _meets(self, request: Request) -> bool:
        """Whether the bytes of a damaged copy are about to be read, or mended; a newer version just goes over them."""
        held = None if not isinstance(request, Look | Get | Put) else self._held.get(request.key)
        if held is None:
            return False
        match request:
            case Look(epoch=epoch, whole=True):
                return epoch == self._epoch
            case Get(least=least):
                return held.version >= least
            case Put(version=version):
                return held.version == version
            case _:
                return False

    def _flip_one(self, request: Damage) -> bool:
        if request.mark in self._flipped:  # the message came twice
            return True
        held = self._held.get(request.key)
        if held is None or held.content is None or not held.content.numel():
            return False
        held.content = held.content.clone()  # what was handed out before stays as it was
        byte, bit = divmod(request.mark % (8 * held.content.numel()), 8)
        held.content[-1 - byte] ^= 1 << bit
        held.digest = digest(held.content) if request.unseen else held.digest
        self._flipped[request.mark] = (request.key, held)
        return True
