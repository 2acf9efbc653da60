"""Small judges of a run: each looks at its record and says whether a law of the specification held.

They know nothing of how the reference computes: they borrow neither its core nor its opinion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from hqde_ref.messages import Accepted
from simulator.checkers_store import find_unkept
from simulator.faults import Crash, Pause, Remove
from simulator.opinions import Apart, Broken, Excused, Opinion, Status, conclude_law, in_all, in_rounds
from simulator.proven_bounds import hidden_max, least_contributions, tree_tolerance
from simulator.records import Finding, RoundRecord, Run, Strike
from simulator.scenario import Scenario
from simulator.worlds import member_host

__all__ = ["check_agreement", "check_fired", "check_gaps", "check_run"]

_FLOAT32 = 2.0**-23  # one rounding of the result, per unit of its norm
_SAME_BITS = (  # exact sums or order statistics, entry by entry
    "weighted_mean",
    "coordinate_median",
    "lower_coordinate_median",
    "trimmed_mean",
    "mean_around_median",
)
_BY_LOSSES = (
    "accepted",
    "missing",
    "from round",
    "stored",
    "stores out",
)  # of an outcome: what a lost message can change
_OVERRUN_S = 0.5  # a live round's last ask may end this much after its deadline: the caller has to wake up


def check_run(scenario: Scenario, run: Run) -> tuple[Finding, ...]:
    """Every law that the scenario says holds always, over all rounds of a run."""
    findings = []
    for law in scenario.laws:
        judge, clause = _JUDGES[law]
        status, because, number = conclude_law({record.round: judge(scenario, run, record) for record in run.rounds})
        findings.append(Finding(law=law, clause=clause, status=status, because=because, round=number))
    findings.extend(_check_last(scenario, run))
    return tuple(findings)


def _find_unaccounted(scenario: Scenario, run: Run, record: RoundRecord) -> Opinion:
    used = record.verdict.used if isinstance(record.verdict, Accepted) else ()
    told = Counter([*used, *record.verdict.rejected, *record.verdict.missing])
    twice = sorted(member for member, count in told.items() if count > 1)
    if twice:
        return Broken(why=f"{twice[0]} stands in more than one of used, rejected and missing")
    lost = [member for member in run.members if member not in told]
    if lost:
        return Broken(why=f"{lost[0]} is neither used nor rejected nor missing")
    members = set(run.members)
    strange = [member for member in told if member not in members]
    return Broken(why=f"{strange[0]} is no member") if strange else None


def _has_bound(scenario: Scenario, record: RoundRecord) -> bool:
    """Clause 6.7: with more liars than were promised there is no bound. A missing measurement wants a reason."""
    is_judged = record.bound is not None or _is_unmeasured(scenario, record)
    return is_judged and len(_find_lying(record)) <= scenario.system.faulty_max


def _is_unmeasured(scenario: Scenario, record: RoundRecord) -> bool:
    """A result was accepted and could not be measured, although no machine was lost with what that takes."""
    wanted = isinstance(record.verdict, Accepted) and bool(record.honest)
    removed = any(isinstance(fault, Remove) and fault.at.round == record.round for fault in scenario.faults)
    return wanted and record.measured is None and not removed


def _find_lying(record: RoundRecord) -> list[str]:
    """A Byzantine member that is missing counts as absent."""
    absent = set(_find_absent(record))
    return [member for member in record.byzantine if member not in absent]


def _find_absent(record: RoundRecord) -> list[str]:
    """Who is missing for a reason of their own: a refusal also lists contributions that it left unused."""
    return [member for member, reason in record.verdict.missing.items() if not reason.startswith("unused")]


def _find_beyond_bound(scenario: Scenario, run: Run, record: RoundRecord) -> Opinion:
    if not isinstance(record.verdict, Accepted):
        return Apart(why="there is no result")
    if not _has_bound(scenario, record):
        return Apart(why="no proven bound applies")
    if record.bound is None or record.measured is None:
        return Broken(why="the result, or what it is measured against, is lost, although no machine was")
    slack = 8 * _FLOAT32 * record.measured.result_norm
    if record.measured.error <= record.bound + slack:
        return None
    return Broken(why=f"error {record.measured.error:.6g} is beyond the proven bound {record.bound:.6g}")


def _find_overrun(scenario: Scenario, run: Run, record: RoundRecord) -> Opinion:
    late = record.ended - record.deadline
    slack = _OVERRUN_S if run.world == "ray" else 1e-9
    return Broken(why=f"it ended {late:.3f} s after its deadline") if late > slack else None


def _find_overspent(scenario: Scenario, run: Run, record: RoundRecord) -> Opinion:
    """2 f_byz + f_absent < n, in a refused round too."""
    absent, lying = len(_find_absent(record)), len(_find_lying(record))
    if 2 * lying + absent < len(run.members):
        return None
    why = f"2 x {lying} Byzantine + {absent} absent is not below {len(run.members)} members"
    struck = _find_struck(scenario, record.round).intersection(
        _find_absent(record)
    )  # no lost message made these absent
    return Broken(why=why) if 2 * lying + len(struck) >= len(run.members) else _unless_lost(scenario, why)


def _unless_lost(scenario: Scenario, why: str) -> Broken | Excused:
    """Where messages get lost, nobody can tell who was silent by itself: not every loss is noticed in time."""
    return Excused(why=why, excuse="messages get lost") if scenario.network.loses else Broken(why=why)


def _find_needless_refusal(scenario: Scenario, run: Run, record: RoundRecord) -> Opinion:
    """A refusal although what is left withstands as many liars as were promised.

    The system cannot know how many lie, so it may count on ``faulty_max`` less those it found out. Members on hosts
    that a fault killed or stopped count as absent, even where they contributed before: their aggregators are gone.
    """
    if isinstance(record.verdict, Accepted) or len(_find_lying(record)) > scenario.system.faulty_max:
        return None
    if record.kept is not None and record.kept.read.content is None:
        return None  # the law ``stored`` says whether there should have been a state
    struck = _find_struck(scenario, record.round)
    forged = [member for member in record.verdict.rejected if member in record.byzantine]
    gone = {*_find_absent(record), *forged, *(member for member in run.members if member in struck)}
    usable = len(run.members) - len(gone)
    hidden = hidden_max(scenario.system.faulty_max, {member: record.verdict.rejected[member] for member in forged})
    needed = max(2 * hidden + 1, least_contributions(scenario.system.rule, hidden))
    if usable < needed:
        return None
    if scenario.system.topology == "tree" and scenario.system.rule != "weighted_mean":
        there = [member not in gone for member in run.members]
        if tree_tolerance(there, scenario.system.branching) < hidden:
            return None
    why = (
        f"refused inside the budget ({record.verdict.reason}): {len(_find_lying(record))} Byzantine, "
        f"{len(run.members) - usable} absent or found out of {len(run.members)} members; {needed} are enough"
    )
    return _unless_lost(scenario, why)


def _find_struck(scenario: Scenario, number: int) -> set[str]:
    """Members on hosts that a fault has killed or stopped in this round."""
    hosts: set[str] = set()
    for index, fault in enumerate(scenario.faults):
        match fault:
            case Crash(at=at, restart=restart) | Remove(at=at, restart=restart):
                on = number == at.round or (restart == "never" and number > at.round)
            case Pause(during=during):
                on = during.rounds[0] <= number <= during.rounds[1]
            case _:
                on = False
        if on:
            aimed = scenario.aim(index)
            hosts.update(scenario.hosts_on(*aimed) if isinstance(fault, Remove) else aimed)
    return {member for index, member in enumerate(scenario.members) if member_host(index, scenario) in hosts}


_JUDGES: Mapping[str, tuple[Callable[[Scenario, Run, RoundRecord], Opinion], str]] = {
    "accounted": (_find_unaccounted, "0.4"),
    "within_bound": (_find_beyond_bound, "4.5"),
    "by_deadline": (_find_overrun, "6.1"),
    "budget_kept": (_find_overspent, "4.2"),
    "answered": (_find_needless_refusal, "6.4"),
    "stored": (find_unkept, "2.7"),
}


def _check_last(scenario: Scenario, run: Run) -> Iterator[Finding]:
    if scenario.expect.last_round != "whole":
        return
    last = run.rounds[-1]
    out = [*last.verdict.rejected, *last.verdict.missing]
    whole = isinstance(last.verdict, Accepted) and not out
    why = f"{', '.join(out) or 'nobody'} left out of the last round"
    opinion = None if whole else Broken(why=why) if last.verdict.rejected else _unless_lost(scenario, why)
    status, because, _ = conclude_law({last.round: opinion})
    because = "everyone is used" if whole else because
    yield Finding(law="last_round whole", clause="6.5", status=status, because=because, round=last.round)


def check_fired(run: Run) -> tuple[Finding, ...]:
    """A fault that was asked for and never took effect makes the run vacuous."""
    return tuple(
        Finding(
            law=f"{'network' if strike.fault is None else f'fault {strike.fault}'} ({strike.action}) fired",
            clause="6.7",
            status="HOLDS" if strike.fired else "CANNOT_TELL",
            because=_tell_strike(strike),
        )
        for strike in run.strikes
    )


def _tell_strike(strike: Strike) -> str:
    """Of damage, only where it was met, and beside it where it was not."""
    told = []
    if strike.met:
        told.append(f"met on {', '.join(strike.met)}")
    elif strike.fired:
        told.append(f"{in_rounds(strike.fired)} on {', '.join(strike.hits)}")
    if strike.unmet:
        where = f"the copy on {', '.join(strike.unmet)} was damaged"
        told.append(f"{where}, but no read is known to have met it: it was written over, lost or left")
    return "; ".join(told) or "it never took effect"


def check_gaps(scenario: Scenario, runs: Mapping[str, Run]) -> tuple[Finding, ...]:
    """Final accuracy of the variants against each other; needs all three, each with rounds that came to something."""
    findings = []
    written, healthy, mean = (runs[name].final_accuracy for name in ("as written", "no faults", "mean instead"))
    if scenario.expect.healthy_gap is not None:
        gap, limit = healthy - written, scenario.expect.healthy_gap
        because = f"accuracy {written:.3f} with faults, {healthy:.3f} without; expected at most {limit:g} less"
        of_faults = runs["as written"]  # of which some may be what faults do
        vain = _tell_refused(runs["no faults"]) or _tell_refused(of_faults, at_least=len(of_faults.rounds))
        status: Status = "BROKEN" if gap > limit else "CANNOT_TELL" if vain else "HOLDS"
        findings.append(_gap_finding("robust stays near healthy", "4.5", status, because, vain))
    if scenario.expect.mean_gap is not None:
        gap, limit = healthy - mean, scenario.expect.mean_gap
        because = f"accuracy {mean:.3f} with the mean, {healthy:.3f} without faults; expected {limit:g} less"
        vain = _tell_refused(runs["no faults"]) or _tell_refused(runs["mean instead"])
        status = "HOLDS" if gap >= limit and not vain else "CANNOT_TELL"
        findings.append(_gap_finding("mean collapses", "6.7", status, because, vain))
    return tuple(findings)


def _tell_refused(run: Run, *, at_least: int = 1) -> str:
    """Why a run's accuracy says nothing of its rule: so many of its rounds were refused; empty if not."""
    refused = [record.round for record in run.rounds if not isinstance(record.verdict, Accepted)]
    if len(refused) < at_least:
        return ""
    return f"but {run.variant!r} was refused in {len(refused)} of {len(run.rounds)} rounds, first in round {refused[0]}"


def _gap_finding(law: str, clause: str, status: Status, because: str, vain: str) -> Finding:
    return Finding(law=law, clause=clause, status=status, because="; ".join(filter(None, (because, vain))))


def check_agreement(scenario: Scenario, first: Run, second: Run) -> Finding:
    """Two worlds tell the same story: who was used, rejected and missing, round by round, and why.

    Where a rule's result does not depend on the order of its sums, the results must be the same bits too.
    """
    law = f"{first.world} and {second.world} agree"
    pairs = zip(first.rounds, first.outcome(), second.outcome(), strict=True)
    apart = {r.round: (mine, theirs) for r, mine, theirs in pairs if mine != theirs}
    number = min(apart, default=None)
    accepted = [
        (a.round, a.verdict.digest == b.verdict.digest)
        for a, b in zip(first.rounds, second.rounds, strict=True)
        if isinstance(a.verdict, Accepted) and isinstance(b.verdict, Accepted)
        if number is None or a.round < number  # beyond it the state may be another one
    ]
    same = sum(equal for _, equal in accepted)
    bits = f"the same bits in {same} of {len(accepted)} with a result"
    rule = "weighted_mean" if first.variant == "mean instead" else scenario.system.rule
    unequal = [place for place, equal in accepted if not equal]
    if unequal and rule in _SAME_BITS:
        because = f"the same verdict in round {unequal[0]}, {bits}; {rule} gives the same bits in any order"
        return Finding(law=law, clause="0.10", status="BROKEN", because=because, round=unequal[0])
    if number is None:
        because = f"the same verdict {in_all(len(first.rounds))}, {bits}"
        return Finding(law=law, clause="0.10", status="HOLDS", because=because)
    mine, theirs = apart[number]
    keys = [key for key in mine if mine[key] != theirs[key]]
    by_losses = [key for key in keys if key in _BY_LOSSES] if scenario.network.loses else []
    told = _tell_difference((by_losses or keys)[0], first.world, mine, second.world, theirs)
    if by_losses:
        because = f"not judged from round {number} on, since each world loses messages of its own; {told}"
        return Finding(law=law, clause="0.10", status="CANNOT_TELL", because=because)
    return Finding(law=law, clause="0.10", status="BROKEN", because=told, round=number)


def _tell_difference(
    key: str, first: str, mine: Mapping[str, object], second: str, theirs: Mapping[str, object]
) -> str:
    """What one world says of a round and the other does not."""
    own, other = _beyond(mine[key], theirs[key]), _beyond(theirs[key], mine[key])
    if own == other:  # the same names, in another order
        own, other = str(mine[key]), str(theirs[key])
    return f"{key}: {first} says {own}, {second} says {other}"


def _beyond(these: object, those: object) -> str:
    """Of names, those that only the one world has, or has for another reason; of all else, what it says."""
    match these, those:
        case dict(), dict():
            left = [f"{name} ({why})" for name, why in these.items() if those.get(name) != why]
            return ", ".join(left) or "nobody else"
        case list(), list():
            return ", ".join((Counter(these) - Counter(those)).elements()) or "nobody else"
        case bool(), _:
            return "yes" if these else "no"
        case _:
            return "nothing" if these is None else str(these)
