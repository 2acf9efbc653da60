"""Requests to aggregators, mappers and reducers, with their replies.

Source: HQDE sections 2, 3 and 4.
Data only: nothing here computes.
"""

from __future__ import annotations

from hqde_ref.messages.vectors import Layout, Payload, Seen, message

__all__ = ["Claim", "Combine", "Combined", "Condense", "Map", "Mapped", "Reduce", "Screen", "Screened", "Subtotal"]


@message
class Subtotal:
    """Ask a crowd for the exact partial sum of these of its members (see ``Combine``).

    Attributes:
        shard, shards: which piece of their vectors, of how many; ``layout`` is its own, ``whole`` that of the vectors.
    """

    round: int
    shard: int
    shards: int
    layout: Layout
    whole: Layout
    workers: tuple[str, ...]
    masses: tuple[float, ...]
    grid: tuple[int, ...]


@message
class Claim:
    """A contribution, or an arena of ``rows`` of them, as its receiver must check it."""

    worker: str
    payload: Payload
    digest: str
    layout: str
    rows: int = 1


@message
class Screen:
    """Look at these contributions, or shards of them: layout, digest, finiteness, magnitude (clauses 0.5, 0.6, 6.8).

    Attributes:
        layout: of the shard at hand.
        declared: fingerprint of the layout of the whole vector, which each sender must have had.
    """

    round: int
    layout: Layout
    declared: str
    claims: tuple[Claim, ...]


@message
class Combine:
    """One node's share of a weighted mean: exact partial sums, in any grouping (clause 3.3).

    Attributes:
        parts: contributions (``leaf``) or partial sums of children.
        workers: the members inside the parts, in order; ``masses`` are theirs.
        grid: one exponent a float block, fixed by the story for the whole round.
        leaf: the parts are contributions, to be multiplied by their masses.
        root: divide, and give a packed result instead of a partial sum.
    """

    round: int
    layout: Layout
    parts: tuple[Payload, ...]
    workers: tuple[str, ...]
    masses: tuple[float, ...]
    grid: tuple[int, ...]
    leaf: bool
    root: bool


@message
class Condense:
    """One node's step of a robust rule that goes node by node up a tree (clause 3.7).

    Attributes:
        parts: contributions (``leaf``), or what children made of theirs: a float64 row, and the integer rows of their
            members unreduced (clause 0.8).
        workers: the members inside the parts, in order.
        faulty_max: how many of the parts may hold anything.
        radius_factor: the largest that the children's results have (see ``Combined``).
        root: give a packed result.
    """

    round: int
    layout: Layout
    rule: str
    parts: tuple[Payload, ...]
    workers: tuple[str, ...]
    faulty_max: int
    radius_factor: float | None
    leaf: bool
    root: bool


@message
class Map:
    """Emit one pair (name, tensor) a parameter of every item, packed by the reducer that owns the name (clause 2.1).

    Attributes:
        items: packed contributions of ``workers``.
        parts: layouts of the reducers' parameters.
    """

    round: int
    layout: Layout
    items: tuple[Payload, ...]
    workers: tuple[str, ...]
    parts: tuple[Layout, ...]


@message
class Reduce:
    """The exact weighted mean of one reducer's parameters, from the mappers' arenas (clause 2.2).

    Attributes:
        arenas: stacked rows; ``workers`` names the rows of all arenas in order, ``masses`` are theirs.
        grid: one exponent a float block of this part.
    """

    round: int
    layout: Layout
    arenas: tuple[Payload, ...]
    workers: tuple[str, ...]
    masses: tuple[float, ...]
    grid: tuple[int, ...]


@message
class Screened:
    """One finding a claim, in their order."""

    seen: tuple[Seen, ...]


@message
class Combined:
    """A partial sum, or at the root the mean; of ``Condense`` the node's own result.

    Attributes:
        radius_factor: of a geometric median node by node: as in ``Evidence``, for the honest below this node, unless
            liars own it.
    """

    payload: Payload
    workers: tuple[str, ...]
    digest: str
    radius_factor: float | None = None


@message
class Mapped:
    """A mapper's pairs, one arena a reducer; ``workers`` are the rows of each, ``pairs`` how many were emitted."""

    arenas: tuple[Payload, ...]
    workers: tuple[str, ...]
    pairs: int
