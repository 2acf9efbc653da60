"""The head of a report: the verdict, a sentence, four numbers, and the findings in order of weight. Pure."""

from __future__ import annotations

from typing import Literal

from hqde_ref.messages import message
from simulator.report_charts import format_number, format_share
from simulator.report_data import FindingSeen, RunSeen, Seen
from simulator.report_tables import Agreement
from simulator.report_time import format_seconds
from simulator.terminal import count_of

__all__ = ["Head", "Strip", "Tile", "head", "strip"]

_WEIGHT = {"BROKEN": 0, "CANNOT_TELL": 1, "HOLDS": 2}
Mood = Literal["good", "bad", "unsure", "plain"]


@message
class Tile:
    """A number with what it means."""

    title: str
    value: str
    note: str
    mood: Mood


@message
class Head:
    """What stands above everything else. ``pressing`` are the findings that do not hold."""

    verdict: str
    mood: Mood
    story: str
    tiles: tuple[Tile, ...]
    pressing: tuple[FindingSeen, ...]
    holding: tuple[FindingSeen, ...]


@message
class Strip:
    """A round's share of a whole run's time, to scale: [x, x + width] per cent."""

    number: int
    x: float
    width: float
    kind: str
    tip: str


def head(seen: Seen, agreements: tuple[Agreement, ...]) -> Head:
    """Sum a folder up. The run that stands for it is the first: as written, in virtual time if there is one."""
    lead = seen.runs[0]
    verdict, mood = _verdict(seen.findings)
    ranked = sorted(seen.findings or (), key=lambda f: _WEIGHT.get(f.status, 1))
    return Head(
        verdict=verdict,
        mood=mood,
        story=_story(seen, lead),
        tiles=(_accuracy(seen, lead), _closest(lead), _rounds(lead), _worlds(seen, agreements)),
        pressing=tuple(f for f in ranked if f.status != "HOLDS"),
        holding=tuple(f for f in ranked if f.status == "HOLDS"),
    )


def strip(run: RunSeen) -> tuple[Strip, ...]:
    """The rounds of a run on one true time scale."""
    if not run.rounds:
        return ()
    start, end = run.rounds[0].began, run.rounds[-1].ended
    scale = 100 / max(end - start, 1e-9)
    return tuple(
        Strip(
            number=r.number,
            x=round((r.began - start) * scale, 3),
            width=round(max((r.ended - r.began) * scale, 0.3), 3),
            kind="faulty" if r.faults else "calm",
            tip=f"round {r.number}: {format_seconds(r.ended - r.began)}, from {format_seconds(r.began)} of the run",
        )
        for r in run.rounds
    )


def _verdict(findings: tuple[FindingSeen, ...] | None) -> tuple[str, Mood]:
    if not findings:
        return "No findings were recorded", "plain"
    broken = sum(f.status == "BROKEN" for f in findings)
    unsure = sum(f.status not in ("BROKEN", "HOLDS") for f in findings)
    if broken:
        return f"{broken} {'law is' if broken == 1 else 'laws are'} broken", "bad"
    if unsure:
        return f"{unsure} {'law' if unsure == 1 else 'laws'} could not be judged", "unsure"
    return ("The only finding holds" if len(findings) == 1 else f"All {len(findings)} findings hold"), "good"


def _story(seen: Seen, lead: RunSeen) -> str:
    rule = next((r.rule for r in lead.rounds if r.rule), "the rule")
    runs = [run for run in seen.runs if run.world == lead.world and run.rounds]
    ends: dict[str, str] = {run.variant: format_share(run.rounds[-1].accuracy) for run in runs}
    hosts = len([host for host in lead.hosts if host != "harness"])
    members, rounds = count_of(len(lead.members), "member"), count_of(len(lead.rounds), "round")
    told = [f"{members} on {count_of(hosts, 'host')}, {rounds}."]
    words: dict[str, str] = {
        "as written": f"As written ({rule.replace('_', ' ')}) the model ends at",
        "mean instead": "with a mean instead, at",
        "no faults": "without faults, at",
    }
    clauses = [f"{wording} {ends[variant]}" for variant, wording in words.items() if variant in ends]
    text = "; ".join(clauses)
    return " ".join([*told, text[:1].upper() + text[1:] + "." if text else ""]).strip()


def _accuracy(seen: Seen, lead: RunSeen) -> Tile:
    calm = seen.find(lead.world, "no faults")
    if not lead.rounds:
        return Tile(title="Accuracy at the end", value="–", note="no round was recorded", mood="plain")
    end = lead.rounds[-1].accuracy
    note: str = lead.variant
    if calm is not None and calm.rounds and calm is not lead:
        gap = 100 * (end - calm.rounds[-1].accuracy)
        apart = f"{abs(gap):.1f} points {'below' if gap < 0 else 'above'} the run"
        note = f"{apart if abs(gap) >= 0.05 else 'the same as'} without faults"
    return Tile(title="Accuracy at the end", value=format_share(end), note=note, mood="plain")


def _closest(lead: RunSeen) -> Tile:
    title = "Closest to the bound"
    known = [(r.ratio, r) for r in lead.rounds if r.ratio is not None]
    if not known:
        return Tile(title=title, value="–", note="no bound was promised", mood="plain")
    ratio, worst = max(known, key=lambda pair: pair[0])
    note = f"round {worst.number}: error {format_number(worst.error)} of {format_number(worst.bound)}"
    return Tile(title=title, value=format_share(ratio), note=note, mood="bad" if ratio > 1 else "good")


def _rounds(lead: RunSeen) -> Tile:
    accepted = sum(r.kind == "accepted" for r in lead.rounds)
    late = sum(r.ended > r.deadline for r in lead.rounds)
    note = "each by its deadline" if not late else f"{late} after the deadline"
    mood: Mood = "unsure" if accepted < len(lead.rounds) or late else "good"
    return Tile(title="Rounds accepted", value=f"{accepted} of {len(lead.rounds)}", note=note, mood=mood)


def _worlds(seen: Seen, agreements: tuple[Agreement, ...]) -> Tile:
    title = "Simulator and Ray"
    if not agreements:
        only = {"sim": "the simulator", "ray": "live Ray"}[seen.worlds[0]]
        return Tile(title=title, value="–", note=f"only {only} ran", mood="plain")
    rounds = [each for found in agreements for each in found.rounds]
    same, bits = sum(r[1] for r in rounds), sum(r[2] for r in rounds)
    value = "agree" if same == len(rounds) else "differ"
    note = f"same verdict in {same} of {len(rounds)} rounds, same bits in {bits}"
    return Tile(title=title, value=value, note=note, mood="good" if same == len(rounds) else "bad")
