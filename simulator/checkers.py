"""Small judges of a run: each looks at its record and says whether a law of the specification held.

They know nothing of how the reference computes: they borrow neither its core nor its opinion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hqde_ref.messages import Accepted
from simulator.records import Finding, RoundRecord, Run
from simulator.scenario import Scenario

__all__ = ["check_agreement", "check_fired", "check_gaps", "check_run"]

_FLOAT32 = 2.0**-23  # one rounding of the result, per unit of its norm
_OVERRUN_S = 0.5  # a live round's last ask may end this much after its deadline: the caller has to wake up


def check_run(scenario: Scenario, run: Run) -> tuple[Finding, ...]:
    """Every law that the scenario says holds always, over all rounds of a run."""
    findings = []
    for law in scenario.expect.always:
        judge, clause = _JUDGES[law]
        broken = [(record.round, why) for record in run.rounds if (why := judge(scenario, run, record)) is not None]
        first = broken[0] if broken else None
        findings.append(
            Finding(
                law=law,
                clause=clause,
                status="BROKEN" if first else "HOLDS",
                because=first[1] if first else f"in all {len(run.rounds)} rounds",
                round=first[0] if first else None,
            )
        )
    findings.extend(_check_last(scenario, run))
    return tuple(findings)


def _find_unaccounted(scenario: Scenario, run: Run, record: RoundRecord) -> str | None:
    used = record.verdict.used if isinstance(record.verdict, Accepted) else ()
    told = [*used, *record.verdict.rejected, *record.verdict.missing]
    twice = sorted({member for member in told if told.count(member) > 1})
    if twice:
        return f"{twice[0]} stands in more than one of used, rejected and missing"
    lost = [member for member in run.members if member not in told]
    if lost:
        return f"{lost[0]} is neither used nor rejected nor missing"
    strange = [member for member in told if member not in run.members]
    return f"{strange[0]} is no member" if strange else None


def _find_beyond_bound(scenario: Scenario, run: Run, record: RoundRecord) -> str | None:
    if record.bound is None or record.measured is None or not isinstance(record.verdict, Accepted):
        return None
    hidden = [member for member in record.byzantine if member not in record.verdict.missing]
    if len(hidden) > scenario.system.faulty_max:
        return None  # clause 6.7: beyond what was promised there is no bound
    slack = 8 * _FLOAT32 * record.measured.result_norm
    if record.measured.error <= record.bound + slack:
        return None
    return f"error {record.measured.error:.6g} is beyond the proven bound {record.bound:.6g}"


def _find_overrun(scenario: Scenario, run: Run, record: RoundRecord) -> str | None:
    late = record.ended - record.deadline
    return f"it ended {late:.3f} s after its deadline" if late > (_OVERRUN_S if run.world == "ray" else 1e-9) else None


def _find_overspent(scenario: Scenario, run: Run, record: RoundRecord) -> str | None:
    """2 f_byz + f_absent < n: a Byzantine member that is missing counts as absent."""
    absent = len(record.verdict.missing) if isinstance(record.verdict, Accepted) else 0
    lying = len([member for member in record.byzantine if member not in record.verdict.missing])
    if 2 * lying + absent < len(run.members):
        return None
    return f"2 x {lying} Byzantine + {absent} absent is not below {len(run.members)} members"


_JUDGES = {
    "accounted": (_find_unaccounted, "0.4"),
    "within_bound": (_find_beyond_bound, "4.5"),
    "by_deadline": (_find_overrun, "6.1"),
    "budget_kept": (_find_overspent, "4.2"),
}


def _check_last(scenario: Scenario, run: Run) -> Iterator[Finding]:
    if scenario.expect.last_round != "whole":
        return
    last = run.rounds[-1]
    out = [*last.verdict.rejected, *last.verdict.missing]
    whole = isinstance(last.verdict, Accepted) and not out
    yield Finding(
        law="last_round whole",
        clause="6.5",
        status="HOLDS" if whole else "BROKEN",
        because="everyone is used" if whole else f"{', '.join(out) or 'nobody'} left out of the last round",
        round=last.round,
    )


def check_fired(run: Run) -> tuple[Finding, ...]:
    """A fault that was asked for and never took effect makes the run vacuous."""
    return tuple(
        Finding(
            law=f"fault {strike.fault} ({strike.action}) fired",
            clause="6.7",
            status="HOLDS" if strike.fired else "CANNOT_TELL",
            because=f"{strike.fired} times on {', '.join(strike.hits)}" if strike.fired else "it never took effect",
        )
        for strike in run.strikes
    )


def check_gaps(scenario: Scenario, accuracies: Mapping[str, float]) -> tuple[Finding, ...]:
    """Final accuracy of the variants against each other; needs all three."""
    findings = []
    written, healthy, mean = (accuracies[name] for name in ("as written", "no faults", "mean instead"))
    if scenario.expect.healthy_gap is not None:
        gap, limit = healthy - written, scenario.expect.healthy_gap
        findings.append(
            Finding(
                law="robust stays near healthy",
                clause="4.5",
                status="HOLDS" if gap <= limit else "BROKEN",
                because=f"accuracy {written:.3f} with faults, {healthy:.3f} without; expected at most {limit:g} less",
            )
        )
    if scenario.expect.mean_gap is not None:
        gap, limit = healthy - mean, scenario.expect.mean_gap
        findings.append(
            Finding(
                law="mean collapses",
                clause="6.7",
                status="HOLDS" if gap >= limit else "CANNOT_TELL",
                because=f"accuracy {mean:.3f} with the mean, {healthy:.3f} without faults; expected {limit:g} less",
            )
        )
    return tuple(findings)


def check_agreement(first: Run, second: Run) -> Finding:
    """Two worlds tell the same story: who was used, rejected and missing, round by round, and why."""
    worlds = f"{first.world} and {second.world}"
    for mine, theirs in zip(first.outcome(), second.outcome(), strict=True):
        differing = [key for key in mine if mine[key] != theirs[key]]
        if differing:
            key = differing[0]
            return Finding(
                law=f"{worlds} agree",
                clause="0.10",
                status="BROKEN",
                because=f"{key}: {first.world} says {mine[key]}, {second.world} says {theirs[key]}",
                round=int(str(mine["round"])),
            )
    equal = _count_equal_results(first.rounds, second.rounds)
    return Finding(
        law=f"{worlds} agree",
        clause="0.10",
        status="HOLDS",
        because=f"the same verdict in all {len(first.rounds)} rounds, the same bits in {equal}",
    )


def _count_equal_results(first: Sequence[RoundRecord], second: Sequence[RoundRecord]) -> int:
    return sum(
        isinstance(a.verdict, Accepted) and isinstance(b.verdict, Accepted) and a.verdict.digest == b.verdict.digest
        for a, b in zip(first, second, strict=True)
    )
