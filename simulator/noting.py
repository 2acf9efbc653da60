"""What a trace keeps of a round."""

from __future__ import annotations

from typing import Any

from hqde_ref.messages import Accepted
from simulator.records import RoundRecord
from simulator.trace import Trace

__all__ = ["note_round"]


def note_round(trace: Trace, record: RoundRecord) -> None:
    """Add the event ``round ended``."""
    verdict = record.verdict
    fields: dict[str, Any] = {
        "round": record.round,
        "began": record.began,
        "deadline": record.deadline,
        "rejected": dict(sorted(verdict.rejected.items())),
        "missing": dict(sorted(verdict.missing.items())),
        "byzantine": record.byzantine,
        "accuracy": record.accuracy,
        "loss": record.loss,
    }
    if isinstance(verdict, Accepted):
        fields |= {
            "kind": "accepted",
            "used": verdict.used,
            "digest": verdict.digest,
            "scores": dict(verdict.scores),
            "limit": verdict.limit if verdict.scores else None,
            "rule": verdict.evidence.rule,
            "kappa": verdict.evidence.kappa,
        }
    else:
        fields |= {"kind": "refused", "reason": verdict.reason, "used": []}
    if record.measured is not None:
        fields |= {"error": record.measured.error, "deviation": record.measured.deviation, "bound": record.bound}
    trace.add("round ended", record.ended, **fields)
