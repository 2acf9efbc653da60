"""A report as a Markdown page: what `hqde-verify run --report DIR` writes, to keep or to send to an author."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hqde_ref.clauses import CLAUSES
from properties.outcomes import STATUSES, Outcome, worst
from properties.session import Report, failures, reproduce
from properties.snippets import write_snippet
from properties.suite import PropertyCase
from simulator.terminal import count_of, printable

__all__ = ["write_page"]


def write_page(report: Report, target: str, folder: Path) -> Path:
    """Write ``NAME-VERSION.md`` into the folder, which is made if it is not there; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "-", f"{report.name}-{report.version}")
    path = folder / f"{name}.md"
    path.write_text(printable("\n".join(_lines(report, target))) + "\n", encoding="utf-8")
    return path


def _lines(report: Report, target: str) -> list[str]:
    session = report.session
    counts = Counter(outcome.status for _, outcome in report.outcomes)
    listed = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    lines = [
        f"# {report.name} {report.version}",
        "",
        f"Profile {session.profile_name}, seed {session.seed}. Properties: {listed or 'none'}."
        + (" Interrupted: this is what was found by then." if report.interrupted else ""),
        "",
        "| clause | level | status | held | statement |",
        "|---|---|---|---|---|",
    ]
    for clause, mine in report.clauses():
        held = sum(outcome.status in ("HOLDS", "FIXED") for _, outcome in mine)
        asked = sum(outcome.status != "UNSUPPORTED" for _, outcome in mine)
        status = worst(outcome.status for _, outcome in mine)
        count = f"{held} of {asked}" if asked else "-"
        lines.append(f"| {clause.id} | {clause.level} | {status} | {count} | {_cell(clause.statement)} |")
    for cases in failures(report):
        lines += ["", *_failure(report, cases, target)]
    return lines


def _failure(report: Report, cases: list[tuple[PropertyCase, Outcome]], target: str) -> list[str]:
    case, outcome = min(cases, key=lambda found: len(found[1].counterexample or ""))
    lines = [f"## {outcome.status}: {case.law.name.removeprefix('test_').replace('_', ' ')}", ""]
    lines += [f"- **{c.id} {c.level}** {c.statement}" for c in CLAUSES if c.id in case.law.clauses]
    lines += ["", f"Law: {case.law.statement}", "", f"Because: {_fenceless(outcome.because or '')}"]
    if len(cases) > 1:
        others = ", ".join(other.name.partition("[")[2].rstrip("]") for other, _ in cases if other is not case)
        lines += ["", f"Likewise: {others}"]
    if outcome.counterexample:
        lines += [
            "",
            f"Smallest values, after {count_of(outcome.examples, 'example')}:",
            "",
            *_fenced("text", outcome.counterexample),
        ]
    lines += ["", "Reproduce with:", "", *_fenced("console", f"$ {reproduce(report.session, case)}")]
    if outcome.requests:
        snippet = write_snippet(report.name, target, outcome.requests[-1])
        lines += ["", "Without this harness:", "", *_fenced("python", snippet)]
    return lines


def _fenced(language: str, text: str) -> list[str]:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *text.splitlines(), fence]


def _fenceless(text: str) -> str:
    """Text of a foreign package within a sentence: no markup, no line breaks."""
    return " ".join(text.replace("<", "&lt;").replace("`", "'").split())


def _cell(text: str) -> str:
    return _fenceless(text).replace("|", "\\|")
