"""What a run leaves behind, round by round: data for checkers, tables and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from hqde_ref.messages import Accepted, Measured, Verdict, message

__all__ = ["Finding", "RoundRecord", "Run", "Strike", "Variant"]

Variant = Literal["as written", "mean instead", "no faults"]


@message
class Strike:
    """A fault as it was aimed and what became of it.

    Attributes:
        fault: its place in the file; None for messages that the network loses.
        hits: hosts, members or machines.
        fired: how often it really took effect, by the round; a run with a fault that never did is vacuous.
    """

    fault: int | None
    action: str
    hits: tuple[str, ...]
    fired: int


@message
class RoundRecord:
    """One round.

    Attributes:
        began, ended: seconds since the run began; ``deadline`` likewise.
        byzantine: members whose forged contributions were delivered.
        honest: members whose honest contributions arrived.
        measured: the result against the honest; None when there is no result.
        kappa: what is proven of the rule that was asked for, whatever the evidence says; None where nothing is.
    """

    round: int
    began: float
    ended: float
    deadline: float
    verdict: Verdict
    byzantine: tuple[str, ...]
    honest: tuple[str, ...]
    measured: Measured | None
    kappa: float | None
    accuracy: float
    loss: float

    @property
    def bound(self) -> float | None:
        """How far the result may lie from the honest mean: sqrt(kappa) times their deviation; None without a proof."""
        if self.measured is None or self.kappa is None:
            return None
        return float(self.kappa**0.5) * self.measured.deviation


@message
class Finding:
    """What a checker says of a law in a run."""

    law: str
    clause: str
    status: Literal["HOLDS", "BROKEN", "CANNOT_TELL"]
    because: str
    round: int | None = None


@message
class Run:
    """One variant of a scenario in one world."""

    scenario: str
    world: str
    variant: Variant
    members: tuple[str, ...]
    rounds: tuple[RoundRecord, ...]
    strikes: tuple[Strike, ...]
    digest: str

    @property
    def final_accuracy(self) -> float:
        return self.rounds[-1].accuracy

    def outcome(self) -> tuple[Mapping[str, object], ...]:
        """What must agree between worlds: for each round who was used, rejected and missing, and why."""
        return tuple(
            {
                "round": record.round,
                "accepted": isinstance(record.verdict, Accepted),
                "used": sorted(record.verdict.used) if isinstance(record.verdict, Accepted) else [],
                "rejected": dict(sorted(record.verdict.rejected.items())),
                "missing": dict(sorted(record.verdict.missing.items())),
            }
            for record in self.rounds
        )
