"""Stores that can be broken: a harness's node that is a real store, and also forgets or damages what it is told to.

Source: HQDE clause 2.7.
"""

from __future__ import annotations

from hqde_ref.core.packing import digest
from hqde_ref.messages import Reply, Reported, Request, message
from hqde_ref.nodes.store import Store

__all__ = ["Damage", "Damaged", "Fragile", "FragileSpec", "Reset"]


@message
class Damage:
    """Flip one bit in the copy of this key, if there is one; ``unseen``: so that its digest fits again."""

    key: str
    unseen: bool = False


@message
class Damaged:
    """Whether a bit was flipped: there may be no copy, or one without bytes."""

    fired: bool


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

    def perform(self, request: Request, /) -> Reply:
        match request:
            case Damage():
                return Damaged(fired=self._flip_one(request))
            case Reset(epoch=epoch):
                self._epoch, self._held, self._rejoined = epoch, {}, {}
                return Reported(by=self._standing(), epoch=epoch, keys=0)
            case _:
                return super().perform(request)

    def _flip_one(self, request: Damage) -> bool:
        held = self._held.get(request.key)
        if held is None or held.content is None or not held.content.numel():
            return False
        held.content = held.content.clone()  # what was handed out before stays as it was
        held.content[-1] ^= 1
        held.digest = digest(held.content) if request.unseen else held.digest
        return True
