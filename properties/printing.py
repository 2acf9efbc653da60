"""A report as a person reads it in a terminal: a table of clauses, then every failure with all that explains it."""

from __future__ import annotations

import textwrap
from collections import Counter

from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.text import Text

from hqde_ref.clauses import CLAUSES
from properties.outcomes import STATUSES, Outcome, Status, worst
from properties.session import Report, failures, reproduce
from properties.snippets import write_snippet
from properties.suite import PropertyCase, all_cases
from simulator.tables import print_table
from simulator.terminal import count_of, printable

__all__ = ["print_clauses", "print_report"]

_COLOURS: dict[Status, str] = {
    "HOLDS": "green",
    "BROKEN": "bold red",
    "ERROR": "bold magenta",
    "CANNOT_TELL": "yellow",
    "UNSUPPORTED": "dim",
    "EXPECTED_FAILURE": "yellow",
    "FIXED": "cyan",
}


def _coloured(status: Status) -> str:
    return f"[{_COLOURS[status]}]{status}[/]"


def escape(text: str) -> str:
    """Text of a foreign implementation: neither markup nor control characters have an effect."""
    return escape_markup(printable(text))


def print_clauses(console: Console) -> None:
    """All clauses, and how many properties check each."""
    counts = Counter(
        number for law in {case.law.name: case.law for case in all_cases()}.values() for number in law.clauses
    )
    rows: list[tuple[str, ...] | str] = []
    section = ""
    for clause in CLAUSES:
        if clause.section != section:
            section = clause.section
            rows.append(section)
        rows.append((clause.id, clause.level, clause.statement, str(counts[clause.id] or "-")))
    heads = ("clause", "level", "statement", "properties")
    print_table(console, heads, rows, wraps=("statement",), box=HEAVY_HEAD)


def print_report(console: Console, report: Report, target: str) -> None:
    """The table, the failures in full, and the sum."""
    clauses = report.clauses()
    against = count_of(len(clauses), "clause")
    console.print(f"[bold]{escape(report.name)} {escape(report.version)}[/] against {against}")
    rows: list[tuple[str | Text, ...]] = []
    for clause, mine in clauses:
        status = worst(outcome.status for _, outcome in mine)
        held = sum(outcome.status in ("HOLDS", "FIXED") for _, outcome in mine)
        asked = sum(outcome.status != "UNSUPPORTED" for _, outcome in mine)
        count = f"{held} of {asked}" if asked else "-"
        coloured = Text(status, style=_COLOURS[status])
        rows.append((clause.id, clause.level, coloured, count, _because(status, mine, report.interrupted)))
    heads = ("clause", "level", "status", "held", "because")
    print_table(console, heads, rows, wraps=("because",), box=HEAVY_HEAD)
    for cases in failures(report):
        _print_failure(console, report, cases, target)
    counts = Counter(outcome.status for _, outcome in report.outcomes)
    listed = ", ".join(f"{counts[status]} {_coloured(status)}" for status in STATUSES if counts[status])
    console.print(f"properties: {listed or 'none'}" + ("; [bold]interrupted[/]" if report.interrupted else ""))


def _because(status: Status, mine: list[tuple[PropertyCase, Outcome]], interrupted: bool) -> str:
    if not mine and interrupted:
        return "interrupted before it was checked"
    if not mine:
        return "no property of this suite checks it yet"
    reasons = [outcome.because for _, outcome in mine if outcome.status == status and outcome.because]
    return textwrap.shorten(reasons[0], 110, placeholder=" ...") if reasons else ""


def _print_failure(console: Console, report: Report, cases: list[tuple[PropertyCase, Outcome]], target: str) -> None:
    case, outcome = min(cases, key=lambda found: len(found[1].counterexample or ""))
    head = f"{_coloured(outcome.status)} {escape(outcome.name)}"
    if len(outcome.status) + len(outcome.name) + 3 <= console.width:
        console.rule(head, align="left")
    else:
        console.print(head, highlight=False, soft_wrap=True)
    for clause in CLAUSES:
        if clause.id in case.law.clauses:
            console.print(f"[bold]{clause.id} {clause.level}[/] {escape(clause.statement)}")
    console.print(f"[bold]Law[/] {escape(case.law.statement)}")
    console.print(f"[bold]Because[/] {escape(outcome.because or '')}")
    if len(cases) > 1:
        others = ", ".join(other.name.partition("[")[2].rstrip("]") for other, _ in cases if other is not case)
        console.print(f"[bold]Likewise[/] {escape(others)}")
    if outcome.counterexample:
        console.print(f"[bold]Smallest values[/] (after {count_of(outcome.examples, 'example')})")
        _print_as_is(console, textwrap.indent(outcome.counterexample, "  "))
    console.print("[bold]Reproduce with:[/]")
    _print_as_is(console, f"  {reproduce(report.session, case)}")
    if outcome.requests:
        console.print("[bold]Without this harness:[/]")
        _print_as_is(console, textwrap.indent(write_snippet(report.name, target, outcome.requests[-1]), "  "))


def _print_as_is(console: Console, text: str) -> None:
    """Text to copy: neither wrapped nor marked up."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
