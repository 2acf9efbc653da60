"""Times all contenders of a case in turn, and judges what they return.

On one thread a time is processor time, which other work on the machine disturbs least; on more it is time by the
clock. Both are medians over rounds in which everybody is called once, in the same order.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.data import KINDS, PLAIN, Case
from benchmarks.hosts import Host, HostFailed

__all__ = ["Row", "kind_of", "measure_case"]

# Of the honest scatter; float32 rounds an offset of a thousand scatters to 6e-5 of one.
_CONVERGED, _CONVERGED_OFFSET = 1e-6, 1e-4
_ITERATED = ("geometric median", "mixed geometric median")
_SELECTED = 1e-2

Row = dict[str, Any]


@dataclass
class _Entry:
    host: Host
    place: int
    who: str
    variant: str
    oracle: str
    seconds: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    trouble: str = ""


def measure_case(
    hosts: Sequence[Host],
    case: Case,
    *,
    threads: int,
    rounds: int,
    budget_s: float,
    least: int = 1,
    skip: Sequence[str] = (),
    known: Sequence[Row] = (),
) -> list[Row]:
    """The rows of one case.

    Args:
        rounds: how often each is called, if that takes no longer than ``budget_s`` for it.
        least: how often everybody is called however long it takes.
        skip: variants that do not take part.
        known: rows of the same case on another number of threads; whoever has one is not judged again.
    """
    entries, rows = _begin(hosts, case, skip, threads)
    for _ in range(rounds):
        for entry in entries:
            if not entry.trouble and (len(entry.seconds) < least or sum(entry.seconds) < budget_s):
                _call(entry, threads)
    errors = _known_errors(entries, known) if known else _judge(hosts, entries)
    for entry, error in zip(entries, errors, strict=True):
        rows.append(_row(case, threads, entry, error))
    for host in {id(host): host for host in (*hosts[:1], *(entry.host for entry in entries))}.values():
        _quietly(host, "end")
    return rows


def kind_of(row: Row) -> str:
    """The kind of data of a row, which its note names unless it is the plain one."""
    return next((part for part in str(row["note"]).split("; ") if part in KINDS), PLAIN)


def _begin(hosts: Sequence[Host], case: Case, skip: Sequence[str], threads: int) -> tuple[list[_Entry], list[Row]]:
    entries, rows = [], []
    for host in hosts:
        try:
            reply = host.ask("begin", case=asdict(case), skip=list(skip))
        except HostFailed as error:
            failed = _Entry(host, 0, host.name, "all", "", trouble=str(error))
            rows.append(_row(case, threads, failed, None))
            continue
        entries += [_Entry(host, place, **one) for place, one in enumerate(reply["contenders"])]
        for one in reply["refused"]:
            failed = _Entry(host, 0, one["who"], one["variant"], "", trouble=one["why"])
            rows.append(_row(case, threads, failed, None))
    return entries, rows


def _call(entry: _Entry, threads: int) -> None:
    try:
        told = entry.host.ask("time", place=entry.place)
    except HostFailed as error:
        entry.trouble = str(error)
        return
    kind = "cpu" if threads == 1 else "wall"
    entry.seconds.append(told[kind])
    entry.reads.append(told[kind] / told[f"read_{kind}"])


def _judge(hosts: Sequence[Host], entries: Sequence[_Entry]) -> list[float | None]:
    errors: list[float | None] = []
    with tempfile.TemporaryDirectory() as folder:
        known: dict[str, tuple[str, float]] = {}
        for entry in entries:
            if entry.trouble:
                errors.append(None)
                continue
            try:
                if entry.oracle not in known:
                    path = str(Path(folder) / f"{len(known)}.pt")
                    known[entry.oracle] = path, hosts[0].ask("oracle", name=entry.oracle, path=path)["scatter"]
                path, scatter = known[entry.oracle]
                errors.append(entry.host.ask("judge", place=entry.place, oracle=path, scatter=scatter)["error"])
            except HostFailed as error:
                entry.trouble = entry.trouble or str(error)
                errors.append(None)
    return errors


def _known_errors(entries: Sequence[_Entry], known: Sequence[Row]) -> list[float | None]:
    found = {(row["who"], row["note"].split("; ")[0]): row["error"] for row in known}
    return [found.get((entry.who, entry.variant)) for entry in entries]


def _quietly(host: Host, do: str) -> None:
    try:
        host.ask(do)
    except HostFailed:
        return  # it has said so where it mattered


def _row(case: Case, threads: int, entry: _Entry, error: float | None) -> Row:
    seconds = statistics.median(entry.seconds) if entry.seconds else None
    reads = statistics.median(entry.reads) if entry.reads else None
    notes = [entry.variant]
    if case.kind != PLAIN:
        notes.append(case.kind)
    if entry.trouble:
        notes.append(f"failed: {entry.trouble}")
    elif error is None:
        notes.append("result is not finite")
    elif entry.oracle in _ITERATED and error > (_CONVERGED if case.kind == PLAIN else _CONVERGED_OFFSET):
        notes.append("not converged")
    elif "Multi-Krum" in entry.oracle and error > _SELECTED:
        notes.append("selects other rows")
    return {
        "bench": case.bench,
        "n": case.n,
        "d": case.d,
        "threads": threads,
        "who": entry.who,
        "seconds": seconds,
        "reads": reads,
        "error": error,
        "note": "; ".join(notes),
    }
