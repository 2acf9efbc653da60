"""What both commands print: tables that lose nothing, lines of progress, text of others without effect."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.text import Text

from hqde_ref.clauses import CLAUSES
from hqde_ref.errors import RuntimeFault
from properties import cli as verify
from properties.examine import PROFILES
from properties.outcomes import Outcome
from properties.printing import print_clauses, print_report
from properties.session import Report, Session
from properties.suite import all_cases
from simulator import cli as sim
from simulator.progress import EVERY_S, telling
from simulator.tables import print_table
from simulator.terminal import count_of, printable, run_app


def _console(width: int) -> tuple[Console, io.StringIO]:
    told = io.StringIO()
    return Console(file=told, width=width), told


HEADS = ("round", "status", "error / bound", "because")
LONG = "a sentence that is much longer than any of these terminals is wide, so it has to be wrapped somewhere"
ROWS = [("1", Text("CANNOT_TELL"), "0.055 / 2.421", LONG), ("10000", Text("HOLDS"), "123.456 / 2000.125", "-")]


@pytest.mark.parametrize("box", [None, HEAVY_HEAD])
@pytest.mark.parametrize("width", [20, 40, 50, 60, 80, 200])
def test_a_table_cuts_no_number_and_no_status_and_wraps_sentences(width: int, box: object) -> None:
    console, told = _console(width)
    print_table(console, HEADS, ROWS, wraps=("because",), box=box)  # type: ignore[arg-type]
    text = told.getvalue()
    for whole in ("CANNOT_TELL", "0.055 / 2.421", "10000", "HOLDS", "123.456 / 2000.125"):
        assert whole in text
    assert "…" not in text
    assert [word for word in re.findall(r"[a-z,]+", text) if word in LONG.split()] == LONG.split()
    if width >= 50:
        assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_the_list_of_clauses_shows_every_clause_whole_at_any_width(width: int) -> None:
    console, told = _console(width)
    print_clauses(console)
    words = told.getvalue().replace("│", " ").split()
    for clause in CLAUSES:
        assert clause.id in words
    for word in ("MUST", "SHOULD", "properties"):
        assert word in words
    assert "…" not in told.getvalue()
    assert max(map(len, told.getvalue().splitlines())) <= width


def _report(name: str, because: str, *, examples: int = 1) -> Report:
    case = all_cases()[0]
    outcome = Outcome(
        name=case.name, status="BROKEN", examples=examples, seconds=0.0, because=because, counterexample=because
    )
    session = Session(
        word="x:Y", options=(), clauses=(), profile_name="smoke", profile=PROFILES["smoke"], seed=0, known=frozenset()
    )
    return Report(session=session, name=name, version="\x9b2J", outcomes=((case, outcome),), interrupted=False)


@pytest.mark.parametrize("width", [40, 80])
def test_control_characters_of_an_implementation_are_shown_not_obeyed(width: int) -> None:
    console, told = _console(width)
    print_report(console, _report("evil\x1b[31m\x07", "it says \x1b]0;title\x07 and [bold]this[/]"), "x:Y")
    text = told.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert "evil\\x1b[31m\\x07 \\x9b2J" in " ".join(text.split())
    assert "[bold]this[/]" in " ".join(text.replace("│", " ").split())


def test_printable_keeps_text_and_escapes_what_steers_a_terminal() -> None:
    assert printable("größer, 日本 \n\t x") == "größer, 日本 \n\t x"
    assert printable("a\x1b[2Jb\r\x7f\u202e\udc80") == "a\\x1b[2Jb\\r\\x7f\\u202e\\udc80"


def test_an_error_with_control_characters_is_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(**_: object) -> None:
        raise RuntimeFault(what="host \x1b[31mh0", problem="is gone", do="wait")

    with pytest.raises(SystemExit) as stopped:
        run_app(fail, name="x")  # type: ignore[arg-type]
    assert stopped.value.code == 5
    assert capsys.readouterr().err == "x: host \\x1b[31mh0: is gone; wait.\n"


def test_one_is_counted_in_the_singular() -> None:
    assert [count_of(n, "round") for n in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]
    console, told = _console(100)
    print_report(console, _report("name", "reason"), "x:Y")
    assert "(after 1 example)" in told.getvalue()


def test_without_a_terminal_progress_is_a_plain_line_now_and_then() -> None:
    console, told = _console(30)
    now = [0.0]
    with telling(console, 9, clock=lambda: now[0]) as tell:
        tell("too soon", done=1)
        now[0] = EVERY_S
        tell("sim, [as written], round 3 of 9, and more than fits\x1b", done=1)
        tell("too soon again", done=1)
        tell("starting Ray", at_once=True)
        now[0] = 2 * EVERY_S
        tell("done", done=6)
    assert told.getvalue().splitlines() == [
        "[2/9] sim, [as written], round 3 of 9, and more than fits\\x1b",
        "[3/9] starting Ray",
        "[9/9] done",
    ]


@pytest.mark.parametrize(("command", "name"), [(sim, "hqde-sim"), (verify, "hqde-verify")])
def test_a_bare_command_prints_its_help_once_and_exits_with_4(
    command: object, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(SystemExit) as stopped:
        command.main()  # type: ignore[attr-defined]
    told = capsys.readouterr()
    assert stopped.value.code == 4
    assert told.out == ""
    assert told.err.count(f"Usage: {name} [OPTIONS] COMMAND") == 1
    assert "Commands:" in told.err
    assert "Try '" not in told.err
