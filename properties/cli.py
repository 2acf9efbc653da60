"""``hqde-verify``: does an implementation keep the promises of HQDE, and if not, what is the smallest example?

Source: docs/design.md, "The two commands". Exit codes: 0 everything asked held, 1 something is broken, 2 cannot tell or
vacuous, 4 bad input, 5 the harness or an adapter failed, 130 interrupted (the partial report is written).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from hqde_ref.clauses import CLAUSES, find_clause
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import Implementation
from properties.examine import PROFILES
from properties.known_failures import read_known_failures
from properties.outcomes import Outcome, exit_code
from properties.session import Report, Session, as_document, run_session, select_cases
from properties.subject import Subject
from properties.suite import PropertyCase, all_cases
from simulator.progress import telling
from simulator.terminal import INTERRUPTED, require_file, require_folder, run_app, write_text

__all__ = ["main"]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def _verify() -> None:
    """Does an implementation keep the promises of HQDE, and if not, what is the smallest example?"""


@app.command("list")
def list_clauses(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> int:
    """The clauses, and how many properties check each."""
    from properties.printing import print_clauses

    if as_json:
        laws = {case.law.name: case.law for case in all_cases()}.values()
        clauses = [
            {
                "id": clause.id,
                "level": clause.level,
                "section": clause.section,
                "statement": clause.statement,
                "properties": [law.name for law in laws if clause.id in law.clauses],
            }
            for clause in CLAUSES
        ]
        print(json.dumps(clauses, indent=1, ensure_ascii=False))
    else:
        print_clauses(Console())
    return 0


@app.command("run")
def run(
    implementation: Annotated[str, typer.Argument(help="A registered name, module:attribute, or cmd:./program.")],
    clause: Annotated[list[str] | None, typer.Option(help="Only the properties of this clause; repeatable.")] = None,
    profile: Annotated[str, typer.Option(help="smoke, standard or deep: how hard to search.")] = "standard",
    seed: Annotated[int, typer.Option(help="The same seed gives the same examples.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report here.")] = None,
    report_dir: Annotated[Path | None, typer.Option("--report", help="Write a Markdown page into this folder.")] = None,
    known_failures: Annotated[Path | None, typer.Option(help="Names that are expected to fail, one a line.")] = None,
    in_process: Annotated[bool, typer.Option("--in-process", help="No guarded child process.")] = False,
    python: Annotated[str | None, typer.Option(help="The interpreter of the child process.")] = None,
) -> int:
    """Verify an implementation."""
    if in_process and python is not None:
        raise ConfigurationError(
            setting="--python", wanted="absent with --in-process", got=python, do="give one of the two"
        )
    session = _session(implementation, clause or [], profile, seed, known_failures, in_process, python)
    require_file("--json", json_file)
    require_folder("--report", report_dir)
    with _started(implementation, python=python, in_process=in_process) as (subject, target):
        cases = select_cases(all_cases(), session.clauses)
        with _progress(len(cases)) as tell:
            report = run_session(session, subject, cases, tell=tell)
    return _finish(report, target, json_file, report_dir)


def _session(
    word: str,
    clauses: list[str],
    profile: str,
    seed: int,
    known_failures: Path | None,
    in_process: bool,
    python: str | None,
) -> Session:
    for number in clauses:
        if find_clause(number) is None:
            raise ConfigurationError(
                setting="--clause", wanted="the id of a clause", got=number, do="hqde-verify list shows them all"
            )
    if profile not in PROFILES:
        wanted = f"one of {', '.join(PROFILES)}"
        raise ConfigurationError(setting="--profile", wanted=wanted, got=profile, do="choose one of these")
    options = (["--in-process"] if in_process else []) + ([] if python is None else ["--python", python])
    return Session(
        word=word,
        options=tuple(options),
        clauses=tuple(dict.fromkeys(clauses)),
        profile_name=profile,
        profile=PROFILES[profile],
        seed=seed,
        known=frozenset() if known_failures is None else read_known_failures(known_failures, all_cases()),
    )


@contextlib.contextmanager
def _started(word: str, *, python: str | None, in_process: bool) -> Iterator[tuple[Subject, str]]:
    """The implementation under watch and its ``module:attribute``; stopped at the end."""
    from hqde_ref.runtimes.in_child import ForeignImplementation
    from properties.implementations import names, resolve

    found: Implementation = resolve(word, python=python, in_process=in_process)
    try:
        yield Subject(found, in_process=not isinstance(found, ForeignImplementation)), names().get(word, word)
    finally:
        found.stop()


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[PropertyCase, Outcome | None], None]]:
    """Each property as it begins and ends."""
    with telling(Console(stderr=True), total) as say:

        def tell(case: PropertyCase, outcome: Outcome | None) -> None:
            say(case.name if outcome is None else f"{case.name} {outcome.status}", done=int(outcome is not None))

        yield tell


def _finish(report: Report, target: str, json_file: Path | None, folder: Path | None) -> int:
    from properties.page import write_page
    from properties.printing import print_report

    print_report(Console(), report, target)
    if json_file is not None:
        write_text(json_file, json.dumps(as_document(report), indent=1, ensure_ascii=False) + "\n")
    if folder is not None:
        print(f"Page: {write_page(report, target, folder)}")
    if report.interrupted:
        return INTERRUPTED
    statuses = [outcome.status for _, outcome in report.outcomes]
    unchecked = [clause.id for clause, mine in report.clauses() if not mine]
    return exit_code([*statuses, "CANNOT_TELL"] if unchecked else statuses)


def main() -> NoReturn:
    """The command; wrong input is one line and exit code 4."""
    run_app(app, name="hqde-verify")
