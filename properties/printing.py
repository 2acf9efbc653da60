"""A report as a person reads it in a terminal: a table of clauses, then every failure with all that explains it."""

from __future__ import annotations

import textwrap
from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from properties.clauses import CLAUSES
from properties.outcomes import STATUSES, Outcome, Status, worst
from properties.session import Report, failures, reproduce
from properties.snippets import write_snippet
from properties.suite import PropertyCase, all_cases

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


def print_clauses(console: Console) -> None:
    """All clauses, and how many properties check each."""
    counts = Counter(
        number for law in {case.law.name: case.law for case in all_cases()}.values() for number in law.clauses
    )
    table = Table("clause", "level", "statement", "properties", header_style="bold")
    section = ""
    for clause in CLAUSES:
        if clause.section != section:
            section = clause.section
            table.add_section()
            table.add_row("", "", f"[bold]{section}[/]", "")
        table.add_row(clause.id, clause.level, escape(clause.statement), str(counts[clause.id] or "-"))
    console.print(table)


def print_report(console: Console, report: Report, target: str) -> None:
    """The table, the failures in full, and the sum."""
    console.print(f"[bold]{escape(report.name)} {escape(report.version)}[/] against {len(report.clauses())} clauses")
    table = Table("clause", "level", "status", "held", "because", header_style="bold")
    for clause, mine in report.clauses():
        status = worst(outcome.status for _, outcome in mine)
        held = sum(outcome.status in ("HOLDS", "FIXED") for _, outcome in mine)
        asked = sum(outcome.status != "UNSUPPORTED" for _, outcome in mine)
        count = f"{held} of {asked}" if asked else "-"
        table.add_row(clause.id, clause.level, _coloured(status), count, _because(status, mine, report.interrupted))
    console.print(table)
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
    return escape(textwrap.shorten(reasons[0], 110, placeholder=" ...")) if reasons else ""


def _print_failure(console: Console, report: Report, cases: list[tuple[PropertyCase, Outcome]], target: str) -> None:
    case, outcome = min(cases, key=lambda found: len(found[1].counterexample or ""))
    console.rule(f"{_coloured(outcome.status)} {escape(outcome.name)}", align="left")
    for clause in CLAUSES:
        if clause.id in case.law.clauses:
            console.print(f"[bold]{clause.id} {clause.level}[/] {escape(clause.statement)}")
    console.print(f"[bold]Law[/] {escape(case.law.statement)}")
    console.print(f"[bold]Because[/] {escape(outcome.because or '')}")
    if len(cases) > 1:
        others = ", ".join(other.name.partition("[")[2].rstrip("]") for other, _ in cases if other is not case)
        console.print(f"[bold]Likewise[/] {escape(others)}")
    if outcome.counterexample:
        console.print(f"[bold]Smallest values[/] (after {outcome.examples} examples)")
        _print_as_is(console, textwrap.indent(outcome.counterexample, "  "))
    console.print("[bold]Reproduce with:[/]")
    _print_as_is(console, f"  {reproduce(report.session, case)}")
    if outcome.requests:
        console.print("[bold]Without this harness:[/]")
        _print_as_is(console, textwrap.indent(write_snippet(report.name, target, outcome.requests[-1]), "  "))


def _print_as_is(console: Console, text: str) -> None:
    """Text to copy: neither wrapped nor marked up."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
