"""Vectors on their way: what holds them, what is said of them, how their tensors lie in them.

Source: HQDE sections 0 and 1.
Data only: nothing here computes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

__all__ = ["Contribution", "Entry", "Layout", "Payload", "Seen", "message"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def message(cls: type[T]) -> type[T]:
    """Make a class a message: frozen, keyword-only, with slots."""
    return dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)


@message
class Entry:
    """One named tensor of a model: its name, its shape and its dtype (``"float32"``, ``"int64"``, ...)."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@message
class Layout:
    """What a round declares that every contribution holds, in order (clause 0.2)."""

    entries: tuple[Entry, ...]


@message
class Payload:
    """A packed vector that travels beside its message.

    Attributes:
        key: names the content: who made it, in which round and incarnation. Equality is equality of keys.
        ref: the 1-D ``uint8`` tensor or float64 sum itself, or a runtime's reference to it.
        nbytes: its size.
    """

    key: str
    ref: Any = dataclasses.field(compare=False, repr=False)
    nbytes: int


@message
class Contribution:
    """What a worker sends in a round (clause 4.10: nothing it says of itself is believed).

    Attributes:
        payloads: the packed vector, cut into the round's shards (one in a flat round). A crowd's members share theirs:
            each payload holds the rows of all of them, and ``row`` says which is this one's.
        layout: fingerprint of the layout of the whole vector.
        digests: xxh3-128 of each payload's bytes as the sender had them (clause 6.8).
        mass: the weight it asks for under a weighted mean.
        samples: how many examples it trained on in this round.
        loss: mean loss of its last step; None when it took none (E2) or the loss was not finite (E3).
        efficiency: clause 1.5, in [0.1, 1].
        accuracy: on the rows it trained on, in [0, 1]; None when it has none.
    """

    round: int
    worker: str
    incarnation: int
    payloads: tuple[Payload, ...]
    layout: str
    digests: tuple[str, ...]
    mass: float
    samples: int
    loss: float | None
    efficiency: float
    accuracy: float | None = None
    row: int | None = None


@message
class Seen:
    """What a trusted node found when it looked at a contribution itself.

    Attributes:
        reason: None when it may be used, else why not, for a person to read.
        tops: the largest magnitude in each float block of the layout; empty when rejected.
        digest: of the bytes that were looked at.
    """

    worker: str
    reason: str | None
    tops: tuple[float, ...]
    digest: str
