"""What a run leaves behind, round by round: data for checkers, tables and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from hqde_ref.messages import Accepted, Measured, Verdict, message
from simulator.opinions import Status

__all__ = ["Finding", "Kept", "ReadBack", "RoundRecord", "Run", "Strike", "Variant", "Written"]

Variant = Literal["as written", "mean instead", "no faults"]


@message
class Strike:
    """A fault as it was aimed and what became of it.

    Attributes:
        fault: its place in the file; None for messages that the network loses.
        hits: hosts, members or machines.
        fired: how often it really took effect, by the round; a run with a fault that never did is vacuous. Of a damaged
            copy: whether a read or a repair met it.
        met: stores whose copy was damaged, which a read or a repair has met.
        unmet: stores whose copy was damaged, which no read and no repair is known to have met.
    """

    fault: int | None
    action: str
    hits: tuple[str, ...]
    fired: int
    met: tuple[str, ...] = ()
    unmet: tuple[str, ...] = ()


@message
class Written:
    """What became of a write to the weight store.

    Attributes:
        version: (counter, writer); None when nothing was sent.
        content: of the bytes that were handed over, as the harness saw them.
        stores: who confirmed.
        reason: why it was not acknowledged.
    """

    version: tuple[int, str] | None
    content: str
    acknowledged: bool
    stores: tuple[str, ...]
    reason: str = ""


@message
class ReadBack:
    """What a read of the weight store returned; ``content`` and ``version`` are None where that is nothing."""

    version: tuple[int, str] | None
    content: str | None
    repaired: tuple[str, ...] = ()
    reason: str = ""


@message
class Kept:
    """A round and the weight store.

    Attributes:
        read: the state it started from.
        written: its result; None when it had none.
        out: stores that do not serve when it is over.
    """

    read: ReadBack
    written: Written | None
    out: tuple[str, ...]


@message
class RoundRecord:
    """One round.

    Attributes:
        began, ended: seconds since the run began; ``deadline`` likewise.
        byzantine: members whose forged contributions were delivered.
        honest: members whose honest contributions arrived.
        measured: the result against the honest; None when there is no result.
        kept: what the weight store did; None where there is none.
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
    kept: Kept | None = None

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
    status: Status
    because: str
    round: int | None = None


@message
class Run:
    """One variant of a scenario in one world.

    ``first`` and ``last``: where there is a weight store, the write of the first state and a read after the last round.
    """

    scenario: str
    world: str
    variant: Variant
    members: tuple[str, ...]
    rounds: tuple[RoundRecord, ...]
    strikes: tuple[Strike, ...]
    digest: str
    first: Written | None = None
    last: ReadBack | None = None

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
                **self._outcome_of_store(record),
            }
            for record in self.rounds
        )

    def _outcome_of_store(self, record: RoundRecord) -> Mapping[str, object]:
        if record.kept is None:
            return {}
        written = record.kept.written
        return {
            "from round": self.round_of(record.kept.read),
            "stored": written is not None and written.acknowledged,
            "stores out": list(record.kept.out),
        }

    def round_of(self, read: ReadBack) -> int | None:
        """Whose result was read, 0 for the first state; None for nothing, or what nobody wrote."""
        writes = {0: self.first} | {r.round: r.kept.written for r in self.rounds if r.kept is not None}
        return next(
            (n for n, w in writes.items() if w and (w.version, w.content) == (read.version, read.content)), None
        )
