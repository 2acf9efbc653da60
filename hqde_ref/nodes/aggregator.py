"""A trusted aggregator: screens contributions, adds partial sums, applies robust rules. It keeps nothing between calls.

Source: HQDE clauses 0.5, 0.6, 3.3, 4.4, 6.8. No clock, no randomness, no calls outward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.combining import Resolution, combine, lower_median, promised, resolve, resolve_rows
from hqde_ref.core.condensing import condense
from hqde_ref.core.isometry import add_grams, blend, embed, express, partial_gram
from hqde_ref.core.mapreduce import join_parts, map_item, rows_of, stack_rows
from hqde_ref.core.packing import digest, merge_rows, packed_bytes, split_rows
from hqde_ref.core.screening import screen
from hqde_ref.core.staged import arrange, finish, with_landmark
from hqde_ref.messages import (
    AddGrams,
    Arrange,
    Arranged,
    Assemble,
    Blend,
    Blended,
    Combine,
    Combined,
    Condense,
    Failed,
    Finish,
    GramPart,
    Map,
    Mapped,
    PartialGram,
    Payload,
    Reduce,
    Reply,
    Request,
    Resolve,
    Resolved,
    Screen,
    Screened,
    Weigh,
    Weighed,
    message,
)

__all__ = ["Aggregator", "AggregatorSpec"]


@message
class AggregatorSpec:
    """An aggregator as data."""

    name: str

    def build(self, incarnation: int, /) -> Aggregator:
        return Aggregator(self.name, incarnation)


class Aggregator:
    """Stateless but for its name, which keys what it makes."""

    def __init__(self, name: str, incarnation: int) -> None:
        self._source = f"{name}.{incarnation}"

    def perform(self, request: Request, /) -> Reply:
        match request:
            case Screen():
                return Screened(
                    seen=tuple(
                        screen(c, c.payload.ref, request.layout, declared=request.declared) for c in request.claims
                    )
                )
            case Combine():
                packed = combine(request, [part.ref for part in request.parts])
                payload = self._named(packed, request.round, "mean" if request.root else "sum")
                return Combined(payload=payload, workers=request.workers, digest=digest(packed))
            case Condense():
                packed, radius = condense(request, [part.ref for part in request.parts])
                payload = self._named(packed, request.round, request.rule)
                return Combined(payload=payload, workers=request.workers, digest=digest(packed), radius_factor=radius)
            case Map():
                return self._map(request)
            case Reduce():
                packed = _reduce(request)
                return Blended(payload=self._named(packed, request.round, "reduced"), digest=digest(packed))
            case Assemble():
                packed = join_parts([part.ref for part in request.parts], request.layouts, request.layout)
                return Blended(payload=self._named(packed, request.round, "mean"), digest=digest(packed))
            case Resolve():
                return self._resolve(request)
            case PartialGram():
                rows = [split_rows(row, request.layout)[0] for row in _rows(request)]
                if request.landmark_of is not None:
                    rows = with_landmark(request.landmark_of, rows)
                gram, centre = partial_gram(rows)
                payload = self._named(gram.view(torch.uint8).view(-1), request.round, "gram")
                return GramPart(payload=payload, centre=centre)
            case AddGrams():
                total = add_grams([_as_gram(part) for part in request.parts])
                return GramPart(payload=self._named(total.view(torch.uint8).view(-1), request.round, "gram"))
            case Weigh():
                return _weigh(request)
            case Blend():
                return self._blend(request)
            case Arrange():
                return self._arrange(request)
            case Finish():
                return self._finish(request)
            case _:
                return Failed(reason=f"an aggregator does not answer {type(request).__name__}", definite=True)

    def _resolve(self, request: Resolve) -> Resolved:
        packed, found = resolve(
            _rows(request),
            request.layout,
            rule=request.rule,
            faulty_max=request.faulty_max,
            rejections_max=request.rejections_max,
            outlier_factor=request.outlier_factor,
            dropped=request.dropped,
        )
        code = digest(packed)
        return Resolved(
            payload=self._payload(packed, request.round, f"{request.rule}:{code[:16]}"),
            digest=code,
            kept=tuple(request.workers[index] for index in found.kept),
            scores=_scores(request.workers, found),
            limit=found.limit,
            evidence=found.evidence,
        )

    def _map(self, request: Map) -> Mapped:
        items = [map_item(item.ref, request.layout, request.parts) for item in request.items]
        arenas = [stack_rows(rows) for rows in zip(*items, strict=True)]
        return Mapped(
            arenas=tuple(self._named(arena, request.round, "pairs") for arena in arenas),
            workers=request.workers,
            pairs=len(request.items) * len(request.layout.entries),
        )

    def _blend(self, request: Blend) -> Blended:
        rows, integers = zip(*(split_rows(row, request.layout) for row in _rows(request)), strict=True)
        whole = lower_median(torch.stack([integers[index] for index in request.kept]))
        packed = merge_rows(blend(rows, request.multipliers, centre=request.centre), whole, request.layout)
        return Blended(payload=self._named(packed, request.round, "blend"), digest=digest(packed))

    def _arrange(self, request: Arrange) -> Arranged:
        gram = add_grams([_as_gram(part) for part in request.gram])
        landmarks = tuple(f"landmark {index}" for index in range(len(gram) - len(request.contents)))
        points = embed(gram, contents=(*request.contents, *landmarks)).points
        numbers = arrange(request.rule, list(points), faulty_max=request.faulty_max).contiguous()
        kept = len(request.contents)
        return Arranged(
            payload=self._named(numbers.view(torch.uint8).view(-1), request.round, "numbers"),
            shape=tuple(numbers.shape),
            evidence=promised(request.rule, kept=kept, faulty_max=request.faulty_max, dropped=request.dropped),
        )

    def _finish(self, request: Finish) -> Blended:
        rows, integers = zip(*(split_rows(row, request.layout) for row in _rows(request)), strict=True)
        numbers = request.numbers.ref.view(torch.float64).view(request.shape)
        row = finish(
            request.rule,
            with_landmark(request.rule, rows),
            numbers,
            faulty_max=request.faulty_max,
            centre=request.centre,
        )
        packed = merge_rows(row, lower_median(torch.stack(integers)), request.layout)
        return Blended(payload=self._named(packed, request.round, "finished"), digest=digest(packed))

    def _named(self, packed: Tensor, round_number: int, what: str) -> Payload:
        return self._payload(packed, round_number, f"{what}:{digest(packed)[:16]}")

    def _payload(self, packed: Tensor, round_number: int, what: str) -> Payload:
        return Payload(key=f"{self._source}/{round_number}/{what}", ref=packed, nbytes=packed.numel())


def _reduce(request: Reduce) -> Tensor:
    if packed_bytes(request.layout) == 0:  # parameters without values: nothing in the arenas tells the rows apart
        rows = [torch.empty(0, dtype=torch.uint8)] * len(request.workers)
    else:
        rows = [row for arena in request.arenas for row in rows_of(arena.ref, request.layout)]
    whole = Combine(
        round=request.round,
        layout=request.layout,
        parts=(),
        workers=request.workers,
        masses=request.masses,
        grid=request.grid,
        leaf=True,
        root=True,
    )
    return combine(whole, rows)


def _rows(request: Resolve | PartialGram | Blend | Finish) -> list[Tensor]:
    """The packed rows that a request is about: whole payloads, or places in arenas."""
    if request.places is None:
        return [row.ref for row in request.rows]
    size = packed_bytes(request.layout)
    if size == 0:
        return [request.rows[0].ref for _ in request.places]
    rows = [row for arena in request.rows for row in arena.ref.view(-1, size).unbind(0)]
    return [rows[place] for place in request.places]


def _scores(workers: Sequence[str], found: Resolution) -> dict[str, float]:
    return dict(zip(workers, found.scores, strict=True)) if found.scores else {}


def _as_gram(part: Payload) -> Tensor:
    values: Tensor = part.ref.view(torch.float64)
    side = math.isqrt(values.numel())
    return values.view(side, side)


def _weigh(request: Weigh) -> Weighed:
    embedding = embed(add_grams([_as_gram(part) for part in request.gram]), contents=request.contents)
    found = resolve_rows(
        list(embedding.points),
        rule=request.rule or "geometric_median",
        faulty_max=request.faulty_max,
        rejections_max=request.rejections_max,
        outlier_factor=request.outlier_factor,
    )
    return Weighed(
        kept=tuple(request.workers[index] for index in found.kept),
        multipliers=() if request.rule is None else express(found.row, embedding),
        scores=_scores(request.workers, found),
        limit=found.limit,
        evidence=found.evidence,
    )
