"""``hqde-verify`` as a user has it: its words, its JSON, its exit codes, one line for wrong input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hqde_ref.clauses import CLAUSES
from properties import cli
from tests import verify_samples


def _verify(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["hqde-verify", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_list_names_every_clause(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _verify(monkeypatch, "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["id"] for entry in listed] == [clause.id for clause in CLAUSES]
    assert set(listed[0]) == {"id", "level", "section", "statement", "properties"}
    assert "test_inputs_keep_their_bits" in listed[0]["properties"]
    assert _verify(monkeypatch, "list") == 0
    assert "The aggregation tree" in capsys.readouterr().out


def test_a_run_that_holds_writes_its_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "ref.json"
    code = _verify(
        monkeypatch, "run", "reference", "--clause", "3.1", "--profile", "smoke", "--seed", "5", "--json", str(file)
    )
    report = json.loads(file.read_text())
    assert code == 0
    assert set(report) == {"implementation", "spec", "suite", "seed", "summary", "clauses"}
    assert report["implementation"]["name"] == "reference"
    assert report["seed"] == 5
    assert report["summary"]["HOLDS"] == 2
    (clause,) = report["clauses"]
    assert (clause["id"], clause["level"], clause["status"]) == ("3.1", "MUST", "HOLDS")
    assert set(clause["properties"][0]) == {
        "name",
        "status",
        "examples",
        "seconds",
        "because",
        "counterexample",
        "reproduce",
    }


def test_a_broken_run_tells_clause_values_command_and_snippet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, target = tmp_path / "out.json", "tests.planted_rounds:MeanOfMeans"
    code = _verify(monkeypatch, "run", target, "--in-process", "--clause", "3.3", "--json", str(file))
    told = capsys.readouterr().out
    command = f"hqde-verify run {target} --clause 3.3 --profile standard --seed 0 --in-process"
    assert code == 1
    assert "A weighted mean up the tree equals the flat one" in told
    assert "w2: 'weight' = float32(2,) [3.0, 3.0]" in told
    assert f"Reproduce with:\n  {command}\n" in told
    assert "  from tests.planted_rounds import MeanOfMeans\n" in told
    (clause,) = json.loads(file.read_text())["clauses"]
    broken = [entry for entry in clause["properties"] if entry["status"] == "BROKEN"]
    assert broken
    assert all(entry["reproduce"] == command for entry in broken)


def test_known_failures_are_expected_and_noticed_when_fixed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known, file = tmp_path / "known.txt", tmp_path / "out.json"
    known.write_text("# ours\n3.3  # averages averages\ntest_levels_shrink_by_the_branching_factor\n")
    arguments = ["run", "tests.planted_rounds:MeanOfMeans", "--in-process", "--clause", "3.3", "--clause", "3.1"]
    code = _verify(monkeypatch, *arguments, "--known-failures", str(known), "--json", str(file))
    summary = json.loads(file.read_text())["summary"]
    assert code == 0
    assert (summary["BROKEN"], summary["FIXED"], summary["HOLDS"]) == (0, 3, 1)
    assert summary["EXPECTED_FAILURE"] == 3


def test_a_clause_without_properties_cannot_be_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unchecked = next(c.id for c in CLAUSES if not any(c.id in case.law.clauses for case in cli.all_cases()))
    assert _verify(monkeypatch, "run", "reference", "--clause", unchecked) == 2
    assert "no property of this suite checks it" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_an_interrupt_leaves_the_partial_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    verify_samples.Interrupting.calls = 0
    target = "tests.verify_samples:Interrupting"
    code = _verify(monkeypatch, "run", target, "--in-process", "--clause", "3.1", "--json", str(file))
    report = json.loads(file.read_text())
    assert code == 130
    assert report["interrupted"] is True
    assert report["clauses"] == [] or report["clauses"][0]["properties"] == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["run", "reference", "--clause", "9.9"],
            "--clause must be the id of a clause, got '9.9'; hqde-verify list shows them all.",
        ),
        (
            ["run", "reference", "--profile", "hard"],
            "--profile must be one of smoke, standard, deep, got 'hard'; choose one of these.",
        ),
        (
            ["run", "no_such_module:Thing", "--in-process"],
            "implementation 'no_such_module:Thing': module 'no_such_module' does not import "
            "(ModuleNotFoundError: No module named 'no_such_module'); "
            "check its name and that it is installed for the interpreter that runs it.",
        ),
        (
            ["run", "tests.verify_samples:Picky", "--in-process"],
            "implementation 'tests.verify_samples:Picky': 'tests.verify_samples:Picky' does not start (TypeError: ",
        ),
        (
            ["run", "tests.verify_samples:SupportsAName", "--in-process"],
            "implementation 'tests.verify_samples:SupportsAName': "
            "its supports: wanted a set of request types of hqde_ref, got 'Aggregate'; import what it ",
        ),
        (
            ["run", "tests.verify_samples:SupportsNoSet", "--in-process"],
            "implementation 'tests.verify_samples:SupportsNoSet': "
            "its supports: wanted a set of request types of hqde_ref, got 5",
        ),
        (
            ["run", "tests.verify_samples:RulesWithoutTopology", "--in-process"],
            "implementation 'tests.verify_samples:RulesWithoutTopology': "
            "its rules: wanted (rule, topology) pairs or None, got 'krum'; ",
        ),
        (
            ["run", "tests.verify_samples:NumberedVersion", "--in-process"],
            "implementation 'tests.verify_samples:NumberedVersion': "
            "its version: wanted a text, got 3; put it in quotes.",
        ),
        (["run", "nobody"], "implementation 'nobody': no implementation has this name (known:"),
        (
            ["run", "reference", "--known-failures", "no-such-file"],
            "--known-failures must be a text file, got 'no-such-file'; check it (FileNotFoundError).",
        ),
        (["run", "reference", "--json", "no/such/folder/x"], "--json must be a file in a folder that exists"),
        (["run", "x:y", "--in-process", "--python", "p"], "--python must be absent with --in-process, got 'p'"),
        (["run"], "Missing argument 'implementation'"),
        (["walk"], "No such command 'walk'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    assert _verify(monkeypatch, *arguments) == 4
    told = capsys.readouterr()
    assert told.err.startswith(f"hqde-verify: {line}")
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_a_child_says_the_same_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _verify(monkeypatch, "run", "tests.verify_samples:SupportsAName") == 4
    told = capsys.readouterr().err
    assert "wanted a set of request types of hqde_ref, got 'Aggregate'; import what it answers" in told
    assert told.count("\n") == 1


def test_an_unknown_name_among_known_failures_is_named_with_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    known = tmp_path / "known.txt"
    known.write_text("\n# fine\ntest_the_plan_is_a_treee\n")
    assert _verify(monkeypatch, "run", "reference", "--known-failures", str(known)) == 4
    assert capsys.readouterr().err == (
        f"hqde-verify: line 3 of {known} must be the id of a clause or the name of a property, "
        "got 'test_the_plan_is_a_treee'; did you mean test_the_plan_is_a_tree?.\n"
    )
