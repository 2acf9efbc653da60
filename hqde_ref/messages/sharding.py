"""Requests of a sharded round, with their replies.

Source: HQDE sections 2 and 4.
Data only: nothing here computes.
"""

from __future__ import annotations

from collections.abc import Mapping

from hqde_ref.messages.vectors import Layout, Payload, message
from hqde_ref.messages.verdicts import Evidence

__all__ = [
    "AddGrams",
    "Arrange",
    "Arranged",
    "Assemble",
    "Blend",
    "Blended",
    "Finish",
    "GramPart",
    "PartialGram",
    "Resolve",
    "Resolved",
    "Weigh",
    "Weighed",
]


@message
class Assemble:
    """Join the reducers' parameters to one vector of the whole layout."""

    round: int
    layout: Layout
    parts: tuple[Payload, ...]
    layouts: tuple[Layout, ...]


@message
class Resolve:
    """Reject outliers and apply a robust rule to these rows, at one node that holds them all (clause 4.4).

    Attributes:
        places: where each worker's row stands among the rows of all payloads; None: in order, one a payload.
        faulty_max: how many of the rows may hold anything.
        dropped: how many contributions were rejected as outliers before: the bound counts them.
    """

    round: int
    layout: Layout
    rule: str
    rows: tuple[Payload, ...]
    workers: tuple[str, ...]
    faulty_max: int
    rejections_max: int
    outlier_factor: float | None
    dropped: int = 0
    places: tuple[int, ...] | None = None


@message
class PartialGram:
    """Inner products of the rows within one shard, around one of them (clause 3.8); ``places`` as in ``Resolve``.

    Attributes:
        landmark_of: a rule of two stages, whose landmark (``hqde_ref.core.staged``) is one more row.
    """

    round: int
    layout: Layout
    rows: tuple[Payload, ...]
    places: tuple[int, ...] | None = None
    landmark_of: str | None = None


@message
class AddGrams:
    """Add up partial Gram matrices of n rows, so that no node receives more than b of them."""

    round: int
    parts: tuple[Payload, ...]


@message
class Weigh:
    """From the whole Gram matrix: who is kept, and how every shard is to be combined (clause 3.8).

    Attributes:
        contents: one text a row; equal texts mean equal rows.
        rule: the others are as in ``Resolve``; None only rejects outliers and gives no multipliers.
    """

    round: int
    gram: tuple[Payload, ...]
    workers: tuple[str, ...]
    contents: tuple[str, ...]
    rule: str | None
    faulty_max: int
    rejections_max: int
    outlier_factor: float | None


@message
class Blend:
    """Combine the rows of one shard around one of them; integer entries by the lower median of those kept.

    Attributes:
        multipliers: one a row.
        kept: indices of the rows that were not rejected.
        centre: the row that the shard's Gram matrix was made around.
        places: as in ``Resolve``.
    """

    round: int
    layout: Layout
    rows: tuple[Payload, ...]
    multipliers: tuple[float, ...]
    kept: tuple[int, ...]
    centre: int
    places: tuple[int, ...] | None = None


@message
class Arrange:
    """From the whole Gram matrix of the rows kept: the numbers of the first stage of a rule of two (clause 3.8).

    Attributes:
        contents: one text a row; equal texts mean equal rows.
        dropped: how many rows were rejected before; the bound counts them.
    """

    round: int
    gram: tuple[Payload, ...]
    contents: tuple[str, ...]
    rule: str
    faulty_max: int
    dropped: int


@message
class Finish:
    """The second stage of such a rule on one shard of the rows kept; integer entries by their lower median.

    Attributes:
        numbers: of the first stage.
        centre: the row that the shard's Gram matrix was made around.
        places: as in ``Resolve``.
    """

    round: int
    layout: Layout
    rows: tuple[Payload, ...]
    numbers: Payload
    shape: tuple[int, ...]
    rule: str
    faulty_max: int
    centre: int
    places: tuple[int, ...] | None = None


@message
class Resolved:
    """A robust rule's result. ``scores`` are distances from the robust centre, ``limit`` what was allowed."""

    payload: Payload
    digest: str
    kept: tuple[str, ...]
    scores: Mapping[str, float]
    limit: float
    evidence: Evidence


@message
class GramPart:
    """A partial Gram matrix, (n, n) float64 as bytes; ``centre`` is the row it was made around, None for a sum."""

    payload: Payload
    centre: int | None = None


@message
class Weighed:
    """Who is kept and how to combine; see ``Resolved``."""

    kept: tuple[str, ...]
    multipliers: tuple[float, ...]
    scores: Mapping[str, float]
    limit: float
    evidence: Evidence


@message
class Arranged:
    """The numbers of a rule's first stage, float64 as bytes, their shape, and what is promised of the result."""

    payload: Payload
    shape: tuple[int, ...]
    evidence: Evidence


@message
class Blended:
    """One part of the result, or all of it."""

    payload: Payload
    digest: str
