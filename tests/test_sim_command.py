"""The command hqde-sim as its user meets it: outputs that cannot be written, folders used twice, ends from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from hqde_ref.errors import RuntimeFault
from simulator import cli
from simulator.execution import run_all
from simulator.scenario_reading import load_scenario
from simulator.trace import read_trace

SMALL = """
apiVersion: hqde.sim/v1
metadata: {{name: "{name}"}}
seed: 1
system: {{workers: 4, hosts: 2, faulty_max: 1}}
workload: {{rounds: {rounds}, batch: 40, steps: 1}}
"""


def _file(folder: Path, *, name: str = "small", rounds: int = 1) -> Path:
    path = folder / "small.yaml"
    path.write_text(SMALL.format(name=name, rounds=rounds), encoding="utf-8")
    return path


def _sim(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simulator", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def _one_line(done: subprocess.CompletedProcess[str], code: int = 4) -> str:
    """The error, which is one line after those of progress that a slow machine prints."""
    assert done.returncode == code, done
    *progress, line = done.stderr.splitlines()
    assert all(told.startswith("[") for told in progress), done.stderr
    return line


STRUCK = """
import os, signal
os.kill(os.getpid(), signal.{name})
raise RuntimeError("torch was imported to its end")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("module", "name"), [("simulator", "hqde-sim"), ("properties", "hqde-verify")])
def test_an_end_from_outside_while_a_command_is_still_imported_is_one_line(
    module: str, name: str, number: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text(STRUCK.format(name=number.name), encoding="utf-8")  # imported instead of torch
    target = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"][name]
    assert target == f"{module}.entry:main"
    for words in (["-m", module], ["-c", f"from {module}.entry import main; main()"]):
        done = subprocess.run(
            [sys.executable, *words, "list"],
            # Tests that a script runs with & are started with SIGINT ignored, and so would this be.
            preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        told = (done.returncode, done.stdout, done.stderr)
        assert told == (130, "", f"{name}: interrupted before anything was run.\n")


def test_outputs_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path) -> None:
    scenario, blocked = _file(tmp_path), tmp_path / "a file"
    blocked.write_text("mine", encoding="utf-8")
    assert "--out must be a folder that can be written" in _one_line(_sim("run", scenario, "--out", blocked / "sub"))
    assert "--out must be a folder that can be written" in _one_line(_sim("run", scenario, "--out", blocked))
    assert "--json must be a file in a folder that exists" in _one_line(_sim("run", scenario, "--json", tmp_path))
    assert blocked.read_text(encoding="utf-8") == "mine"


def test_a_full_disk_is_one_line_after_the_tables(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which Linux has")
    done = _sim("run", _file(tmp_path), "--json", "/dev/full")
    assert "What held" in done.stdout
    assert "/dev/full: cannot be written (No space left on device)" in _one_line(done, 5)


def test_a_name_with_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    done = _sim("run", _file(tmp_path, name="[bold red]x[/nope]"))
    assert done.returncode == 0, done.stderr
    assert "[bold red]x[/nope] on sim" in done.stdout


def test_a_folder_used_again_holds_one_run_with_the_seed_it_had(tmp_path: Path) -> None:
    scenario, folder = _file(tmp_path), tmp_path / "out"
    assert _sim("run", scenario, "--out", folder).returncode == 0
    (folder / "trace-ray-as-written.jsonl").write_text("from an earlier run", encoding="utf-8")
    assert _sim("run", scenario, "--seed", "7", "--out", folder).returncode == 0
    assert not (folder / "trace-ray-as-written.jsonl").exists()
    assert "seed: 7\n" in (folder / "scenario.yaml").read_text(encoding="utf-8")
    assert _sim("report", folder).returncode == 0
    assert _sim("replay", folder).returncode == 0


@pytest.mark.parametrize(
    ("field", "value"), [("seed", "x"), ("seed", None), ("variant", "zzz"), ("variant", "no faults")]
)
def test_replay_does_not_trust_a_header_that_was_changed(tmp_path: Path, field: str, value: object) -> None:
    folder = tmp_path / "out"
    assert _sim("run", _file(tmp_path), "--out", folder).returncode == 0
    path = folder / "trace-sim-as-written.jsonl"
    trace = read_trace(path)
    trace.header[field] = value
    trace.write(path)
    assert f"{field}: wanted" in _one_line(_sim("replay", folder))


def test_a_termination_from_outside_keeps_what_is_done(tmp_path: Path) -> None:
    scenario, summary = _file(tmp_path, rounds=5_000), tmp_path / "out.json"
    command = [sys.executable, "-m", "simulator", "run", str(scenario), "--json", str(summary)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(8)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Interrupted" in errors
    assert json.loads(summary.read_text(encoding="utf-8"))["scenario"] == "small"


def _sim_here(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["hqde-sim", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.mark.parametrize(
    ("on", "address", "line"),
    [
        (
            "ray",
            "garbage",
            "--address must be host:port of a Ray cluster, got 'garbage'; leave it out for a private one.",
        ),
        ("both", "host:99999", "--address must be host:port of a Ray cluster, got 'host:99999'"),
        ("ray", "ray://host:1", "--address must be host:port of a Ray cluster, got 'ray://host:1'"),
        (
            "sim",
            "host:1",
            "--address must be absent with --on sim, got 'host:1'; add --on ray or --on both, or remove it.",
        ),
    ],
)
def test_an_address_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], on: str, address: str, line: str
) -> None:
    assert _sim_here(monkeypatch, "run", "scenarios/slow_host.yaml", "--on", on, "--address", address) == 4
    assert capsys.readouterr().err.startswith(f"hqde-sim: {line}")


def test_validate_goes_on_to_the_next_file_where_one_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wrong = [tmp_path / "first.yaml", tmp_path / "second.yaml"]
    for path in wrong:
        path.write_text("seed: [", encoding="utf-8")
    assert _sim_here(monkeypatch, "validate", wrong[0], "scenarios/slow_host.yaml", wrong[1]) == 4
    told = capsys.readouterr()
    assert told.out.startswith("scenarios/slow_host.yaml: fine (")
    assert [line.split(": is not YAML")[0] for line in told.err.splitlines()] == [f"hqde-sim: {path}" for path in wrong]


def test_a_round_shorter_than_ray_takes_to_notice_a_loss_is_said_before_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*_: object) -> NoReturn:
        raise RuntimeFault(what="Ray", problem="is not started here", do="nothing")

    monkeypatch.setattr(cli, "_execute", fail)
    text = Path("scenarios/lost_requests.yaml").read_text(encoding="utf-8")
    note = "Note: Ray may take 2 s to notice that a message is lost, and members have 1.98 s to train"
    for within, told in (("3300ms", note), ("3400ms", "")):
        path = tmp_path / "lossy.yaml"
        path.write_text(re.sub(r"round_within: \w+", f"round_within: {within}", text), encoding="utf-8")
        assert _sim_here(monkeypatch, "run", path, "--on", "ray") == 5
        assert ("Note" in (said := capsys.readouterr().err)) == bool(told)
        assert told in said


def test_list_outside_a_checkout_says_what_it_looked_for_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "CHECKOUT", tmp_path)
    assert _sim_here(monkeypatch, "list") == 4
    told = capsys.readouterr().err
    assert told.startswith(f"hqde-sim: {tmp_path / 'scenarios'}: no scenario (*.yaml) is there")
    assert "go to a checkout" in told
    assert told.count("\n") == 1


def test_list_finds_the_scenarios_of_the_checkout_it_runs_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")
    assert _sim_here(monkeypatch, "list") == 0
    assert str(cli.CHECKOUT / "scenarios" / "minority_third.yaml") in capsys.readouterr().out


def test_replay_says_which_trace_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    assert _sim_here(monkeypatch, "run", _file(tmp_path), "--out", folder) == 0
    (folder / "trace-sim-mean-instead.jsonl").unlink()
    assert _sim_here(monkeypatch, "replay", folder) == 4
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{folder}: trace-sim-mean-instead.jsonl is missing, which the summary names" in line
    assert "run again" in line
    (folder / "summary.json").write_text("[", encoding="utf-8")
    assert _sim_here(monkeypatch, "replay", folder) == 4
    assert "summary.json: wanted the summary of a run" in capsys.readouterr().err


def test_an_interrupted_run_replays_what_it_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def cut_short(*_: object, **__: object) -> Iterator[object]:
        yield from run_all(load_scenario(_file(tmp_path)), on="sim", variants=("as written",))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cli, "run_all", cut_short)
        assert _sim_here(patch, "run", _file(tmp_path), "--out", tmp_path / "out") == 130
    assert _sim_here(monkeypatch, "replay", tmp_path / "out") == 0
