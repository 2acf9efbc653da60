"""The README's tour and that of docs/rounds.md are true: every command and output, and the files they point to."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path("README.md").read_text(encoding="utf-8")
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _sessions(console: str) -> list[tuple[str, list[str]]]:
    """Commands with the output lines that the README shows."""
    found: list[tuple[str, list[str]]] = []
    for line in console.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def _pattern(lines: list[str]) -> re.Pattern[str]:
    """``...`` on a line of its own stands for lines, within a line for characters."""
    parts = []
    for line in lines:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(r".*?".join(re.escape(piece) for piece in line.rstrip().split("...")) + r"[ ]*\n")
    return re.compile("".join(parts))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("document", "least"),
    [("README.md", 5), pytest.param("docs/rounds.md", 2, marks=pytest.mark.xdist_group("ray"))],
)
def test_every_command_of_a_tour_prints_what_the_document_says(document: str, least: int, tmp_path: Path) -> None:
    text = Path(document).read_text(encoding="utf-8")
    for block in PYTHON.findall(text):
        if found := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / found[1]).write_text(block, encoding="utf-8")
    (tmp_path / "scenarios").symlink_to(Path("scenarios").resolve())
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "PYTHONPATH": os.getcwd(),
    }
    commands = [session for console in CONSOLE.findall(text) for session in _sessions(console)]
    assert len(commands) >= least
    for command, lines in commands:
        done = subprocess.run(
            shlex.split(command),
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        printed = done.stdout or done.stderr  # lines of progress are for those who have no terminal
        assert _pattern(lines).fullmatch(printed), f"$ {command}\n{printed}"


def test_the_python_of_the_tour_is_true() -> None:
    (text,) = [block for block in PYTHON.findall(README) if block.startswith(">>>")]
    test = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert runner.tries > 4
    assert runner.failures == 0


def test_every_file_that_a_document_points_to_exists() -> None:
    for document in (Path("README.md"), *Path("docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if not target.startswith(("http:", "https:")):
                assert (document.parent / target).exists(), f"{document} points to {target}"


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"make ([a-z]+)\b(?=[^a-z]*(?:#|`|$))", README, re.MULTILINE))
    assert named <= targets, named - targets


def test_the_folders_of_the_design_page_are_those_that_exist() -> None:
    text = Path("docs/design.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^(\w+)/ ", text, re.MULTILINE))
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=False).stdout.splitlines()
    there = {path.split("/")[0] for path in tracked if "/" in path and not path.startswith(".")}
    if there:  # an unpacked archive has no git to ask
        assert named == there
