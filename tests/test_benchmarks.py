"""The benchmarks: rows as promised, oracles that are right, and targets that are judged honestly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import report
from benchmarks.data import FAR, HARD, Case, Rows, make_rows
from benchmarks.measure import Row
from benchmarks.memory import measure_memory
from benchmarks.oracles import ORACLES, honest_scatter
from benchmarks.ours import CONTENDERS
from benchmarks.targets import judge_targets
from hqde_ref.core.certificates import certify_geometric_median
from hqde_ref.core.rules import RULES

KEYS = {"bench", "n", "d", "threads", "who", "seconds", "reads", "error", "note"}
CLOSE = 1e-4


def small(bench: str, kind: str = "plain", n: int = 9) -> Rows:
    return make_rows(Case(bench=bench, n=n, d=700, faulty=2, kind=kind))


def row(**changes: object) -> Row:
    plain = {
        "bench": "median",
        "n": 8,
        "d": 100,
        "threads": 1,
        "who": "hqde_ref",
        "seconds": 1.0,
        "reads": 4.0,
        "error": 0.0,
        "note": "list",
    }
    return {**plain, **changes}


def test_an_unknown_bench_is_one_clear_line_and_exit_4(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["--only", "meen", "--json", str(tmp_path / "rows.json")]) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("--only must be names among mean, exact_mean, ")
    assert said.endswith("got 'meen'; leave it out for all of them.\n")


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "run", lambda *_, **__: pytest.fail("it was measured"))
    for path, said in (
        (tmp_path, "must be a file in a folder that exists"),
        (tmp_path / "nowhere" / "rows.json", "make the folder first"),
        (Path("/proc/rows.json"), "must be a file that can be written"),
    ):
        assert command.main(["--quick", "--json", str(path)]) == 4
        assert said in capsys.readouterr().err


def test_an_interrupted_run_keeps_the_rows_of_finished_cases(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(only: Sequence[str], *, quick: bool, save: Callable[[list[Row]], None]) -> list[Row]:
        if "median" in only:
            save([row(), row(who="numpy")])
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", run)
    path = tmp_path / "rows.json"
    assert command.main(["--quick", "--only", "mean", "--json", str(path)]) == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"
    assert command.main(["--quick", "--only", "median", "--json", str(path)]) == 130
    assert capsys.readouterr().err == f"interrupted; {path} has the 2 rows measured so far\n"
    assert len(json.loads(path.read_text())) == 2


def test_a_run_writes_rows_and_goes_on_without_peers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HQDE_PEERS", str(tmp_path))
    monkeypatch.setattr(command, "QUICK_SIZES", ((8, 1000),))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    assert command.main(["--quick", "--only", "mean", "--json", str(tmp_path / "rows.json")]) == 0
    assert "byzfl: not installed (make peers)" in capsys.readouterr().err
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert all(set(found) == KEYS for found in rows)
    assert {found["who"] for found in rows} == {"hqde_ref", "torch", "numpy"}
    assert {found["threads"] for found in rows} == {1, 2}
    assert all(found["seconds"] > 0 and found["reads"] > 0 and found["error"] < CLOSE for found in rows)
    assert report.main(tmp_path / "rows.json") == 0
    assert "weighted mean, arena" in (tmp_path / "benchmarks.md").read_text()
    assert "<svg" in (tmp_path / "benchmarks.svg").read_text()


def test_two_threads_are_left_out_where_there_is_one_core(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of "two threads" on one core are no such rows, and nothing in them says so."""
    monkeypatch.setenv("HQDE_PEERS", str(tmp_path))
    monkeypatch.setattr(command, "QUICK_SIZES", ((8, 1000),))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert command.main(["--quick", "--only", "mean", "--json", str(tmp_path / "rows.json")]) == 0
    assert "two threads: not measured, this process may use one core only\n" in capsys.readouterr().err
    assert {found["threads"] for found in json.loads((tmp_path / "rows.json").read_text())} == {1}
    assert report.main(tmp_path / "rows.json") == 0
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert command._thread_counts() == (1, 2)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert command._thread_counts() == (1,)


def test_a_report_without_rows_says_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert report.main(tmp_path / "none.json") == 4
    assert "run python -m benchmarks --json" in capsys.readouterr().err


def test_data_is_the_same_in_list_and_arena_and_has_its_outliers() -> None:
    for kind in ("plain", HARD, FAR):
        rows = small("mean", kind)
        assert torch.equal(torch.stack(rows.separate), rows.arena)
        assert len(rows.honest) == 7
        away = (rows.arena.double() - rows.arena[rows.honest].double().mean(dim=0)).norm(dim=1)
        assert float(away[rows.honest].max()) < 0.2 * float(away.sort().values[-2])


@pytest.mark.parametrize("bench", CONTENDERS)
def test_a_read_is_of_the_memory_that_the_contender_takes_its_rows_from(bench: str) -> None:
    rows = small("mean")
    for contender in CONTENDERS[bench]:
        begins = contender.reads(rows)[0].data_ptr()
        assert (begins == rows.arena.data_ptr()) == ("arena" in contender.variant)
        assert len(contender.reads(rows)) == len(rows.separate)


@pytest.mark.parametrize("bench", CONTENDERS)
def test_everybody_in_our_process_agrees_with_the_oracle(bench: str) -> None:
    rows = small(bench)
    for contender in CONTENDERS[bench]:
        if contender.variant != "compiled":
            found = torch.as_tensor(contender.make(rows)()).double()
            wanted = ORACLES[contender.oracle](rows)
            scale = float(wanted.norm()) if "scores" in contender.oracle else honest_scatter(rows)
            assert float((found - wanted).norm()) < CLOSE * scale, contender


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel's own counts are needed (Linux)")
def test_memory_is_measured_of_every_rule_from_a_list_and_from_an_arena() -> None:
    found = measure_memory(n=16, d=50_000, faulty=3)
    assert {name.removesuffix(", list") for name in found if name.endswith("list")} >= set(RULES)
    assert {name.removesuffix(", arena") for name in found if name.endswith("arena")} >= set(RULES)
    assert all(extra >= 0 for extra in found.values())


def test_oracles_are_what_their_names_say() -> None:
    rows = small("median", n=8)
    x = rows.arena.double().numpy()
    numpy.testing.assert_allclose(ORACLES["median"](rows).numpy(), numpy.median(x, axis=0))
    numpy.testing.assert_allclose(ORACLES["trimmed mean"](rows).numpy(), numpy.sort(x, axis=0)[2:6].mean(axis=0))
    for kind in ("plain", HARD, FAR):
        case = small("geometric_median", kind)
        certificate = certify_geometric_median(case.arena, ORACLES["geometric median"](case), faulty_max=2)
        assert certificate.excess < 1e-9


def test_targets_compare_with_the_fastest_peer_on_one_thread() -> None:
    rows = [
        row(),
        row(who="torch", seconds=30.0, note="stack, torch.median (lower)"),
        row(who="byzfl", seconds=9.0, note="Median"),
        row(who="numpy", seconds=1.0, threads=2, note="numpy.median"),
        row(note="compiled", reads=2.5),
    ]
    found = {verdict.target: verdict for verdict in judge_targets(rows)}
    assert found["median, list"].measured == "9.0"
    assert not found["median, list"].is_reached
    assert not found["median, compiled"].is_reached
    assert "Missed:" in report.write_report(rows)


def test_a_peer_that_selects_other_rows_or_is_less_accurate_is_no_peer_of_the_same_accuracy() -> None:
    rows = [
        row(bench="large_n krum", n=1000, error=1e-7),
        row(bench="large_n krum", n=1000, error=0.3, who="byzfl", seconds=0.1, note="MultiKrum; selects other rows"),
        row(bench="large_n krum", n=1000, error=1e-7, who="torch", seconds=2.0, note="stack, torch.cdist"),
    ]
    (verdict,) = judge_targets(rows)
    assert (verdict.wanted, verdict.measured, verdict.is_reached) == ("at least 1 times torch", "2.0", True)


def test_whole_rounds_have_targets_too() -> None:
    rows = [
        row(bench="round", n=64, who="tree", seconds=1.0),
        row(bench="round", n=64, who="sharded", seconds=1.5),
        row(bench="round", n=64, who="the document's way", seconds=3.0),
        row(bench="crowd", n=1000, who="crowded mean", seconds=0.3),
        row(bench="crowd", n=1000, who="crowded geometric median", seconds=2.5),
        row(bench="reducer memory", n=64, who="flat geometric median", seconds=None, reads=2.0),
        row(bench="reducer memory", n=64, who="sharded geometric median, 4 shards", seconds=None, reads=0.7),
    ]
    found = {verdict.target: (verdict.measured, verdict.is_reached) for verdict in judge_targets(rows)}
    assert found == {
        "round, tree": ("3.0", True),
        "round, sharded": ("2.0", False),
        "round, crowded mean": ("0.30 s", True),
        "round, crowded geometric median": ("2.50 s", False),
        "memory of a reducer, 4 shards": ("0.35 of it", False),
    }
