"""The weight store: what its nodes are asked, and what becomes of a write, a read, a rejoin.

Source: HQDE section 2.
Data only: nothing here computes.
"""

from __future__ import annotations

import dataclasses

from hqde_ref.messages.vectors import Payload, message

__all__ = [
    "Absent",
    "Acknowledged",
    "Copy",
    "Expect",
    "Expected",
    "Found",
    "Get",
    "Joined",
    "List",
    "Listed",
    "Look",
    "Looked",
    "NotAcknowledged",
    "NotJoined",
    "Put",
    "Report",
    "Reported",
    "Serve",
    "Serving",
    "Standing",
    "Stored",
    "Unavailable",
    "Value",
    "Version",
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Version:
    """When a value was written: by the writer's clock, and for equal clocks by the writer's name. Totally ordered."""

    counter: int
    writer: str


@message
class Copy:
    """What a store says that it holds for a key; the bytes are not in it."""

    key: str
    version: Version
    digest: str


@message
class Standing:
    """Who answers, and which stores it has seen come back empty.

    Attributes:
        rejoined: (store, incarnation) of every store that was brought up to date with this one's help. What such a
            store had acknowledged in an earlier incarnation counts no more.
    """

    store: str
    incarnation: int
    rejoined: tuple[tuple[str, int], ...]


@message
class Look:
    """Which version of the key does this store hold? With ``whole`` it reads the bytes, and fails if they are damaged.

    A store that has not joined the plan of this epoch fails.
    """

    epoch: int
    key: str
    whole: bool


@message
class Put:
    """Keep this value unless a newer one is there. ``epoch`` None: part of bringing the store up to date."""

    epoch: int | None
    key: str
    version: Version
    payload: Payload
    digest: str


@message
class Get:
    """Give the value of the key, if it is whole and not older than ``least``."""

    key: str
    least: Version


@message
class Report:
    """Say how you stand."""


@message
class List:
    """Which copies do you hold that ``store`` should have too? It comes back, or is new, in this incarnation.

    Attributes:
        stores, copies, domains: of the plan, from which the node finds the keys that are placed on ``store``.
        after: only keys after this one, in order; None starts. At most ``limit`` are listed.
    """

    epoch: int
    store: str
    incarnation: int
    stores: tuple[str, ...]
    copies: int
    after: str | None
    limit: int
    domains: tuple[str, ...] | None = None


@message
class Expect:
    """Never serve anything older than these, even before their bytes have come."""

    incarnation: int
    copies: tuple[Copy, ...]


@message
class Serve:
    """Join the plan of this epoch: from now on answers count.

    Attributes:
        incarnation: which was brought up to date; None: whoever served the plan just before, and gains no key.
        rejoined: what the stores that helped know about others.
    """

    epoch: int
    incarnation: int | None
    rejoined: tuple[tuple[str, int], ...]


@message
class Looked:
    """The version held and its digest; None where there is no copy."""

    by: Standing
    version: Version | None
    digest: str | None


@message
class Stored:
    """This store holds that version of the key, or a newer one."""

    by: Standing
    key: str
    version: Version


@message
class Found:
    """The value of a key as this store holds it; its digest was checked."""

    by: Standing
    key: str
    version: Version
    digest: str
    payload: Payload


@message
class Reported:
    """How a store stands. ``epoch`` is of the plan it has joined, None if none: it does not serve."""

    by: Standing
    epoch: int | None
    keys: int


@message
class Listed:
    """A page of copies, by key; ``more`` says that others follow."""

    by: Standing
    copies: tuple[Copy, ...]
    more: bool


@message
class Expected:
    """Keys of which this store has no whole copy yet."""

    by: Standing
    missing: tuple[str, ...]


@message
class Serving:
    """The store has joined the plan of this epoch."""

    by: Standing
    epoch: int


@message
class Acknowledged:
    """A write that a write quorum holds: it survives every fault that leaves a read quorum (clause 2.7)."""

    key: str
    version: Version
    stores: tuple[str, ...]


@message
class NotAcknowledged:
    """A write that too few stores confirmed.

    Attributes:
        version: None when nothing was sent, so the write did not happen. Else it may or may not survive: a later read
            returns it, or what was there before, and once it was returned it stays.
        stores: who confirmed.
    """

    key: str
    version: Version | None
    stores: tuple[str, ...]
    reason: str


@message
class Value:
    """What a read returns: the newest version, which a write quorum now holds. ``repaired`` were brought up to it."""

    key: str
    version: Version
    digest: str
    payload: Payload
    repaired: tuple[str, ...]


@message
class Absent:
    """A read quorum has never heard of this key: an error that names it (clause 2.8)."""

    key: str
    reason: str


@message
class Unavailable:
    """A read that found no quorum in time. It says nothing about the key."""

    key: str
    reason: str


@message
class Joined:
    """A store serves again. ``behind``: keys whose bytes could not be had yet; it does not serve those."""

    store: str
    incarnation: int
    epoch: int
    keys: int
    behind: tuple[str, ...]


@message
class NotJoined:
    """A store that does not serve, and why."""

    store: str
    reason: str
