"""What a run found, as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from simulator.execution import Execution
from simulator.records import Finding, Run
from simulator.tables import print_table

__all__ = ["print_execution"]


def print_execution(out: Console, execution: Execution) -> None:
    """The rounds as written, the accuracies of all variants, and what held."""
    if not execution.runs:
        out.print("No variant was run to its end: there is nothing to show.", highlight=False)
        return
    for run_done in execution.runs:
        if run_done.variant == "as written":
            _print_rounds(out, run_done)
    _print_accuracies(out, execution)
    _print_findings(out, execution)


def _print_findings(out: Console, execution: Execution) -> None:
    """One row a finding; worlds in which the same was found share one."""
    where: dict[Finding, list[str]] = {}
    for judged in execution.findings:
        place = judged.world if judged.variant in ("as written", "all") else judged.variant
        where.setdefault(judged.finding, []).append("sim, ray" if place == "both" else place)
    colours = {"HOLDS": "green", "BROKEN": "bold red", "CANNOT_TELL": "yellow"}
    rows: list[tuple[str | Text, ...]] = []
    for finding, places in where.items():
        number = f"round {finding.round}: " if finding.round is not None and finding.status == "BROKEN" else ""
        status = Text(finding.status, style=colours[finding.status])
        rows.append((finding.law, finding.clause, ", ".join(places), status, number + finding.because))
    heads = ("law", "clause", "where", "", "because")
    print_table(out, heads, rows, wraps=("law", "where", "because"), title="What held")


def _print_rounds(out: Console, run_done: Run) -> None:
    rows = []
    with_store = run_done.first is not None
    for record, outcome in zip(run_done.rounds, run_done.outcome(), strict=True):
        ratio = "-"
        if record.measured is not None and record.bound:
            ratio = f"{record.measured.error:.3f} / {record.bound:.3f}"
        rows.append(
            (
                str(record.round),
                str(len(list(outcome["used"]))) if outcome["accepted"] else "refused",  # type: ignore[call-overload]
                _listed(record.verdict.rejected),
                _listed(record.verdict.missing),
                *([_state(outcome)] if with_store else []),
                f"{record.accuracy:.3f}",
                ratio,
            )
        )
    heads = ("round", "used", "rejected", "missing", *(["state"] if with_store else []), "accuracy", "error / bound")
    title = f"{run_done.scenario} on {run_done.world}, as written (trace {run_done.digest})"
    print_table(out, heads, rows, wraps=("rejected", "missing"), title=title)


def _state(outcome: Mapping[str, object]) -> str:
    """Which round's result was read from the weight store, and whether this one's was written."""
    source = outcome["from round"]
    read = "none read" if source is None else f"from {source}" if source else "first"
    return f"{read}, {'written' if outcome['stored'] else 'not written'}"


def _listed(reasons: Mapping[str, str]) -> str:
    """Members by the first words of their reason: ``w1, w2 crashed``."""
    groups: dict[str, list[str]] = {}
    for member, reason in sorted(reasons.items()):
        groups.setdefault(reason.split(":")[0], []).append(member)
    return "; ".join(f"{', '.join(members)} {reason}" for reason, members in groups.items()) or "-"


def _print_accuracies(out: Console, execution: Execution) -> None:
    """In blocks of as many rounds as fit."""
    rounds = execution.scenario.workload.rounds
    block = max((out.width - len(" world  variant       ")) // len("0.123  "), 1)
    for first in range(0, rounds, block):
        numbers = range(first, min(first + block, rounds))
        rows = [
            (
                run.world,
                run.variant,
                *(f"{run.rounds[n].accuracy:.3f}" if n < len(run.rounds) else "-" for n in numbers),
            )
            for run in execution.runs
        ]
        lossy = ", messages lost in every variant" if execution.scenario.network.loses else ""
        title = f"Accuracy after each round{lossy}" if first == 0 else None
        print_table(out, ("world", "variant", *(str(n + 1) for n in numbers)), rows, title=title)
