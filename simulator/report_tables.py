"""Members against rounds, each round in numbers, and what two worlds say of the same round. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from hqde_ref.messages import message
from simulator.report_charts import format_number
from simulator.report_data import RoundSeen, RunSeen, Seen

__all__ = ["Agreement", "Cell", "Matrix", "Row", "agreement", "matrix", "round_rows"]

MEMBERS_DRAWN: Final = 120
ROUNDS_DRAWN: Final = 40
ROWS_DRAWN: Final = 40
FORGERIES: Final = {
    "": "",
    "byzantine": "\nByzantine: a forgery was delivered in its name",
    "corrupt": "\nDamaged on the way: not the bits it sent",
}
Fate = Literal["used", "rejected", "missing", "idle", "unknown"]


@message
class Cell:
    """A member in a round. ``over`` marks one that was used although it lay beyond the limit."""

    fate: Fate
    text: str
    forgery: str
    over: bool
    tip: str


@message
class Matrix:
    """Cells by member and round; what the limits left out is counted."""

    rounds: tuple[RoundSeen, ...]
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]
    members_left_out: int
    rounds_left_out: int


@message
class Row:
    """A member in a round, in words and numbers."""

    member: str
    host: str
    cell: Cell
    why: str
    score: str
    limit: str


@message
class Agreement:
    """One variant in two worlds; each round: its number, are the verdicts equal, are the bits, and what differs."""

    variant: str
    rounds: tuple[tuple[int, bool, bool, str], ...]

    @property
    def agrees(self) -> bool:
        return all(same for _, same, _, _ in self.rounds)


def matrix(run: RunSeen) -> Matrix:
    """All members and rounds, as far as the limits allow: those with something to tell come first."""
    rounds = run.rounds[:ROUNDS_DRAWN]
    troubled = {name for r in run.rounds for name in (*r.rejected, *r.missing, *r.byzantine)}
    kept = set(sorted(run.members, key=lambda name: (name not in troubled, run.members.index(name)))[:MEMBERS_DRAWN])
    return Matrix(
        rounds=rounds,
        rows=tuple(
            (name, run.seats.get(name, "–"), tuple(cell(name, seen) for seen in rounds))
            for name in run.members
            if name in kept
        ),
        members_left_out=len(run.members) - len(kept),
        rounds_left_out=len(run.rounds) - len(rounds),
    )


def cell(member: str, seen: RoundSeen) -> Cell:
    """What became of a member in a round."""
    fate = fate_of(member, seen)
    score, limit = seen.scores.get(member), seen.limit
    over = fate == "used" and score is not None and limit is not None and score > limit
    forgery = seen.forgery(member)
    match fate:
        case "used" | "idle":
            text = fate if score is None else format_number(score)
        case "rejected":
            text = seen.rejected[member].split(":")[0] if score is None else format_number(score)
        case "missing":
            text = seen.missing[member].split(":")[0]
        case "unknown":
            text = "not named"
    return Cell(
        fate=fate,
        text=text if len(text) <= 14 else text[:13] + "…",
        forgery=forgery,
        over=over,
        tip=f"{member}, round {seen.number}: {fate}\n{why(member, seen)}" + FORGERIES[forgery],
    )


def fate_of(member: str, seen: RoundSeen) -> Fate:
    if member in seen.rejected:
        return "rejected"
    if member in seen.missing:
        return "missing"
    if member in seen.used:
        return "used"
    return "idle" if seen.kind == "refused" else "unknown"


def why(member: str, seen: RoundSeen) -> str:
    """The reason in a sentence or less."""
    score, limit = seen.scores.get(member), seen.limit
    match fate_of(member, seen):
        case "rejected":
            return seen.rejected[member]
        case "missing":
            return seen.missing[member]
        case "idle":
            return "it answered, but the round was refused"
        case "unknown":
            return "the verdict does not name it"
        case "used" if score is None:
            return "in the result"
        case "used" if limit is not None and score > limit:
            return (
                f"distance {format_number(score)} is beyond {format_number(limit)}, but no more may be rejected: "
                "the absent and the rejected together stay within f"
            )
    return f"distance {format_number(score)} from the centre"


def round_rows(seen: RoundSeen, run: RunSeen) -> tuple[tuple[Row, ...], int]:
    """The members of a round, as many as there is room for, and how many were left out to whom nothing happened."""
    telling = {*seen.rejected, *seen.missing, *seen.byzantine}
    ranked = sorted(run.members, key=lambda name: (name not in telling, run.members.index(name)))
    kept = set(ranked[:ROWS_DRAWN])
    rows = tuple(
        Row(
            member=name,
            host=run.seats.get(name, "–"),
            cell=cell(name, seen),
            why=why(name, seen),
            score=format_number(seen.scores.get(name)),
            limit=format_number(seen.limit),
        )
        for name in run.members
        if name in kept
    )
    return rows, len(run.members) - len(rows)


# ------------------------------------------------------------------------------------------------ two worlds


def agreement(seen: Seen) -> tuple[Agreement, ...]:
    """Each variant that two worlds ran, compared round by round; nothing when there is one world."""
    if len(seen.worlds) < 2:
        return ()
    first, second = seen.worlds[:2]
    pairs = [(seen.find(first, variant), seen.find(second, variant)) for variant in seen.variants]
    return tuple(_compare(left, right) for left, right in pairs if left is not None and right is not None)


def _compare(left: RunSeen, right: RunSeen) -> Agreement:
    lefts, rights = ({r.number: r for r in run.rounds} for run in (left, right))
    rounds = []
    for number in sorted({*lefts, *rights}):
        one, other = lefts.get(number), rights.get(number)
        if one is None or other is None:
            rounds.append((number, False, False, f"only {left.world if other is None else right.world} has this round"))
            continue
        differs = "; ".join(_differences(one, other, worlds=(left.world, right.world)))
        rounds.append((number, not differs, not differs and one.digest == other.digest, differs))
    return Agreement(variant=left.variant, rounds=tuple(rounds))


def _differences(one: RoundSeen, other: RoundSeen, *, worlds: Sequence[str]) -> list[str]:
    found = [] if one.kind == other.kind else [f"{one.kind} in {worlds[0]}, {other.kind} in {worlds[1]}"]
    for member in sorted({*one.used, *one.rejected, *one.missing, *other.used, *other.rejected, *other.missing}):
        fates = [fate_of(member, seen) for seen in (one, other)]
        reasons = [seen.rejected.get(member) or seen.missing.get(member) or "" for seen in (one, other)]
        if fates[0] != fates[1]:
            found.append(f"{member}: {fates[0]} in {worlds[0]}, {fates[1]} in {worlds[1]}")
        elif reasons[0] != reasons[1]:
            found.append(f"{member}: {reasons[0]!r} in {worlds[0]}, {reasons[1]!r} in {worlds[1]}")
    return found
