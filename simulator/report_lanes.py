"""A round as lanes over time: one a host, requests as bars, faults and borders marked. Per cent across, pixels down.

Pure: what a round holds becomes values that the template draws as they are. Everything has a limit; what a limit
left out is counted, and the page says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hqde_ref.messages import message
from simulator.report_data import FaultSeen, RoundSeen, RunSeen, SpanSeen, natural
from simulator.report_tables import FORGERIES
from simulator.report_time import Stretch, Tick, TimeScale, format_seconds, plan_scale

__all__ = ["Bar", "Hatch", "Lane", "Panel", "choose_rounds", "panel"]

KINDS: Final = ("Train", "Adopt", "Screen", "Resolve", "Combine", "Forge", "Measure", "Evaluate")
SHARDED: Final = {
    "Condense": "resolve",
    "PartialGram": "gram",
    "AddGrams": "gram",
    "Weigh": "resolve",
    "Blend": "combine",
    "Arrange": "resolve",
    "Finish": "combine",
}
STORED: Final = ("Look", "Put", "Get", "Report", "List", "Expect", "Serve")  # what stores are asked
HOSTS_DRAWN: Final = 40
BARS_DRAWN: Final = 4000  # in one run
_BAR = 16
_ROW = 20
_PAD = 9
_LEAST = 0.4  # per cent: what is shorter is drawn this wide
_LETTER_FROM = 2.6  # per cent
_HARNESS = "harness"


@message
class Bar:
    """A request at a host. ``kind`` picks the colour, ``forgery`` the mark above it."""

    x: float
    width: float
    y: int
    kind: str
    letter: str
    failed: bool
    forgery: str
    tip: str


@message
class Hatch:
    """A fault's stretch in a lane; one with a ``label`` has that and an icon at its beginning."""

    x: float
    width: float
    action: str
    label: str
    tip: str


@message
class Lane:
    """A host: its label, its place, what it did and what was done to it."""

    host: str
    beside: tuple[tuple[str, str], ...]
    y: int
    height: int
    bars: tuple[Bar, ...]
    hatches: tuple[Hatch, ...]


@message
class Panel:
    """A round, ready to draw."""

    round: RoundSeen
    length: str
    height: int
    lanes: tuple[Lane, ...]
    hosts_left_out: int
    ticks: tuple[Tick, ...]
    breaks: tuple[tuple[Stretch, str], ...]
    ended: float
    deadline: float | None
    deadline_note: str
    chips: tuple[tuple[str, str], ...]


def choose_rounds(run: RunSeen) -> tuple[RoundSeen, ...]:
    """The rounds worth drawing, as many as the limit on bars allows: faulty or refused ones first, then in order."""
    dull = [r for r in run.rounds if not r.faults and r.kind == "accepted"]
    telling = [r for r in run.rounds if r.faults or r.kind == "refused"]
    chosen: list[RoundSeen] = []
    room = BARS_DRAWN
    for seen in [*telling, *dull]:
        room -= len(seen.spans)
        if chosen and room < 0:
            break
        chosen.append(seen)
    return tuple(sorted(chosen, key=lambda r: r.number))


def panel(seen: RoundSeen, run: RunSeen) -> Panel:
    """Lay one round out."""
    end = max([seen.ended, *(span.finish for span in seen.spans)])
    moments = [moment for span in seen.spans for moment in (span.start, span.finish)]
    moments += [seen.ended, *(fault.time for fault in seen.faults)]
    scale = plan_scale(moments, begin=seen.began, end=end)
    hosts = _hosts_drawn(seen, run)
    lanes, y = [], 0
    for host in hosts:
        lane = _lane(host, seen, run, scale, y)
        y += lane.height
        lanes.append(lane)
    return Panel(
        round=seen,
        length=format_seconds(seen.ended - seen.began),
        height=max(y, _ROW + _PAD),
        lanes=tuple(lanes),
        hosts_left_out=len(run.hosts) - len(hosts),
        ticks=scale.ticks(),
        breaks=tuple((piece, format_seconds(piece.stop - piece.start)) for piece in scale.breaks),
        ended=scale.at(seen.ended),
        deadline=scale.at(seen.deadline) if seen.deadline <= end else None,
        deadline_note=_deadline_note(seen.deadline - seen.ended),
        chips=tuple((fault.action, _chip(fault)) for fault in seen.faults),
    )


def _deadline_note(left: float) -> str:
    return f"Deadline {format_seconds(abs(left))} {'after' if left >= 0 else 'before'} the verdict"


def _chip(fault: FaultSeen) -> str:
    names = ", ".join(fault.hits[:4]) + (f" and {len(fault.hits) - 4} more" if len(fault.hits) > 4 else "")
    what = f"{fault.action} ({fault.attack})" if fault.attack and fault.action == "byzantine" else fault.action
    return f"{what}: {names}"


def _hosts_drawn(seen: RoundSeen, run: RunSeen) -> list[str]:
    """All hosts if there is room; else those that faults hit, then the busiest; the harness last."""
    hit = {name for fault in seen.faults for name in fault.hits}
    hit |= {run.seats[name] for name in hit if name in run.seats}
    work = dict.fromkeys(run.hosts, 0)
    for span in seen.spans:
        work[span.host] += 1
    ranked = sorted(run.hosts, key=lambda host: (host != _HARNESS, host not in hit, -work[host], natural(host)))
    return sorted(ranked[:HOSTS_DRAWN], key=lambda host: (host == _HARNESS, natural(host)))


# ------------------------------------------------------------------------------------------------ one lane


def _lane(host: str, seen: RoundSeen, run: RunSeen, scale: TimeScale, y: int) -> Lane:
    spans = sorted((span for span in seen.spans if span.host == host), key=lambda s: (s.start, s.finish, s.node))
    rows, placed = _pack(spans)
    bars: list[Bar] = []
    for span, row in zip(spans, placed, strict=True):
        bar = _bar(span, seen, scale, y + _PAD + row * _ROW)
        before = bars[-1] if bars else None
        if before is not None and _blur_together(before, bar):
            bars[-1] = _join(before, bar)
        else:
            bars.append(bar)
    beside = tuple((member, seen.forgery(member)) for member in run.members if run.seats.get(member) == host)
    return Lane(
        host=host,
        beside=beside,
        y=y,
        height=max(rows, 1) * _ROW + 2 * _PAD - (_ROW - _BAR),
        bars=tuple(bars),
        hatches=tuple(_hatch(fault, seen, scale) for fault in seen.faults if host in fault.hits),
    )


def _pack(spans: Sequence[SpanSeen]) -> tuple[int, list[int]]:
    """How many rows it takes that no two spans overlap, and each span's row; spans come in order of their start."""
    free_from: list[float] = []
    placed = []
    for span in spans:
        row = next((index for index, free in enumerate(free_from) if free <= span.start + 1e-9), len(free_from))
        free_from[row : row + 1] = [span.finish]
        placed.append(row)
    return len(free_from), placed


def _bar(span: SpanSeen, seen: RoundSeen, scale: TimeScale, y: int) -> Bar:
    x = min(scale.at(span.start), 100 - _LEAST)
    width = max(scale.at(span.finish) - x, _LEAST)
    failed = span.outcome == "Failed"
    request = span.request.removeprefix("Poisoned")
    since, until = (format_seconds(time - seen.began) for time in (span.start, span.finish))
    forgery = seen.forgery(span.node) if request == "Train" and not failed else ""
    return Bar(
        x=x,
        width=round(width, 3),
        y=y,
        kind=_kind(request),
        letter=request[:1] if width >= _LETTER_FROM else "",
        failed=failed,
        forgery=forgery,
        tip=f"{span.node} on {span.host}: {span.request} → {span.outcome}\n"
        f"{since} to {until} after the round began ({format_seconds(span.finish - span.start)}){FORGERIES[forgery]}",
    )


def _kind(request: str) -> str:
    if request in KINDS:
        return request.lower()
    return "store" if request in STORED else SHARDED.get(request, "other")


def _blur_together(before: Bar, bar: Bar) -> bool:
    alike = (before.kind, before.failed, before.forgery, before.y) == (bar.kind, bar.failed, bar.forgery, bar.y)
    return alike and bar.width <= _LEAST and bar.x - before.x < 2 * _LEAST


def _join(before: Bar, bar: Bar) -> Bar:
    return Bar(
        x=before.x,
        width=round(max(before.width, bar.x + bar.width - before.x), 3),
        y=bar.y,
        kind=bar.kind,
        letter="",
        failed=bar.failed,
        forgery=bar.forgery,
        tip=f"{before.tip}\n{bar.tip}",
    )


_WORDS: Final = {
    "crash": "process killed",
    "remove": "machine lost",
    "pause": "process stopped",
    "slow": "slowed down",
    "damage": "one bit flipped",
}


def _hatch(fault: FaultSeen, seen: RoundSeen, scale: TimeScale) -> Hatch:
    x = scale.at(fault.time)
    until = 100.0 if fault.lasts or fault.time > seen.ended else scale.at(seen.ended)
    if fault.action == "damage":
        until = x  # it is over at once
    word = _WORDS.get(fault.action, fault.action)
    tip = f"{word} {format_seconds(fault.time - seen.began)} after the round began"
    return Hatch(
        x=x,
        width=round(max(until - x, _LEAST), 3),
        action=fault.action,
        label=word if fault.action != "slow" else "",
        tip=f"{', '.join(fault.hits)}: {tip}" + ("; it stays so after this round" if fault.lasts else ""),
    )
