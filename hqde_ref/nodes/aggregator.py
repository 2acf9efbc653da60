"""A trusted aggregator: screens contributions, adds partial sums, applies robust rules. It keeps nothing between calls.

Source: HQDE clauses 0.5, 0.6, 3.3, 4.4, 6.8. No clock, no randomness, no calls outward.
"""

from __future__ import annotations

from torch import Tensor

from hqde_ref.core.combining import combine, resolve
from hqde_ref.core.packing import digest
from hqde_ref.core.screening import screen
from hqde_ref.messages import (
    Combine,
    Combined,
    Failed,
    Payload,
    Reply,
    Request,
    Resolve,
    Resolved,
    Screen,
    Screened,
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
                part = "mean" if request.root else "sum"
                payload = self._payload(packed, request.round, f"{part}:{digest(packed)[:16]}")
                return Combined(payload=payload, workers=request.workers, digest=digest(packed))
            case Resolve():
                return self._resolve(request)
            case _:
                return Failed(reason=f"an aggregator does not answer {type(request).__name__}", definite=True)

    def _resolve(self, request: Resolve) -> Resolved:
        found = resolve(
            [row.ref for row in request.rows],
            request.layout,
            rule=request.rule,
            faulty_max=request.faulty_max,
            rejections_max=request.rejections_max,
            outlier_factor=request.outlier_factor,
        )
        code = digest(found.packed)
        return Resolved(
            payload=self._payload(found.packed, request.round, f"{request.rule}:{code[:16]}"),
            digest=code,
            kept=tuple(request.workers[index] for index in found.kept),
            scores=dict(zip(request.workers, found.scores, strict=True)),
            limit=found.limit,
            evidence=found.evidence,
        )

    def _payload(self, packed: Tensor, round_number: int, what: str) -> Payload:
        return Payload(key=f"{self._source}/{round_number}/{what}", ref=packed, nbytes=packed.numel())
