"""The command ``hqde-sim``: run a scenario in virtual time, on live Ray, or on both, and look at what came of it.

Exit codes: 0 all held, 1 broken, 2 cannot tell or vacuous, 3 not deterministic, 4 bad input, 5 the harness failed, 130
interrupted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from hqde_ref.errors import ScenarioError, WireError
from simulator.execution import VARIANTS, Execution, conclude, exit_code, run_all, summarise, trace_name, write_folder
from simulator.records import Finding, Run
from simulator.scenario import SEED_MAX, Scenario
from simulator.scenario_reading import load_scenario
from simulator.terminal import INTERRUPTED, NOT_DETERMINISTIC, require_file, require_folder, run_app, write_text
from simulator.trace import Trace, read_trace

__all__ = ["app", "main"]

app = typer.Typer(
    name="hqde-sim",
    help="Run fault scenarios on a distributed ensemble: in virtual time, on live Ray, or on both from the same file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)


class World(StrEnum):
    """Where to run."""

    sim = "sim"
    ray = "ray"
    both = "both"


ScenarioFile = Annotated[Path, typer.Argument(help="A scenario file (YAML).", metavar="FILE")]
Folder = Annotated[Path, typer.Argument(help="A folder that `hqde-sim run --out` wrote.", metavar="DIR")]


@app.command("list")
def list_scenarios() -> None:
    """List the scenarios that come along, with what they show."""
    folder = _scenarios_folder()
    table = Table("scenario", "shows", "clauses", box=None)
    for path in sorted(folder.glob("*.yaml")):
        scenario = load_scenario(path)
        table.add_row(f"{folder.name}/{path.name}", scenario.metadata.description, ", ".join(scenario.metadata.clauses))
    out.print(table)


def _scenarios_folder() -> Path:
    here = Path("scenarios")
    if not here.is_dir():
        raise ScenarioError(
            file="scenarios/",
            where="",
            problem="there is no such folder here; run this where the project is checked out",
        )
    return here


@app.command()
def validate(files: Annotated[list[Path], typer.Argument(help="Scenario files.", metavar="FILE...")]) -> None:
    """Check scenario files without running them."""
    for path in files:
        scenario = load_scenario(path)
        out.print(
            f"{path}: fine ({scenario.system.workers} workers, {scenario.workload.rounds} rounds)", highlight=False
        )


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    print(json.dumps(Scenario.model_json_schema(by_alias=True), indent=2))


@app.command()
def run(
    file: ScenarioFile,
    on: Annotated[World, typer.Option(help="Virtual time, live Ray, or both and compare them.")] = World.sim,
    seed: Annotated[int | None, typer.Option(help="Instead of the file's seed.", min=0, max=SEED_MAX)] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Write traces and summary into this folder.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the summary into this file.")] = None,
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster; without it a private one.")] = None,
) -> None:
    """Run a scenario: as written, with a mean instead of its rule, and without its faults.

    Every law the scenario names is checked; a fault that never fired makes the run vacuous (exit code 2). Ctrl-C writes
    what is done so far and exits with 130.
    """
    scenario, text = load_scenario(file), file.read_text(encoding="utf-8")
    if seed is not None:
        scenario = scenario.model_copy(update={"seed": seed})
    require_folder("--out", out_dir)
    require_file("--json", json_file)
    execution, interrupted = _execute(scenario, on, address)
    _show(execution)
    if out_dir is not None:
        write_folder(execution, out_dir, scenario_text=_with_seed(text, scenario.seed))
    if json_file is not None:
        write_text(json_file, json.dumps(summarise(execution), indent=2, ensure_ascii=False) + "\n")
    if out_dir is not None:
        out.print(f"Written to {out_dir}. See it: hqde-sim report {out_dir}", highlight=False, soft_wrap=True)
    if interrupted:
        err.print("Interrupted: only what was done is shown.")
    raise typer.Exit(INTERRUPTED if interrupted else exit_code(execution))


def _with_seed(text: str, seed: int) -> str:
    """The scenario's text with the seed that was used, so that the folder can be replayed by itself."""
    line = f"seed: {seed}"
    if re.search(r"^seed:", text, re.MULTILINE):
        return re.sub(r"^seed:.*$", line, text, count=1, flags=re.MULTILINE)
    return f"{text.rstrip()}\n{line}\n"


def _execute(scenario: Scenario, on: World, address: str | None) -> tuple[Execution, bool]:
    """What was run, and whether Ctrl-C cut it short."""
    worlds = 2 if on is World.both else 1
    done: list[tuple[Run, Trace]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("starting", total=worlds * len(VARIANTS) * scenario.workload.rounds)

        def tell(world: str, variant: str, number: int) -> None:
            bar.update(task, advance=1, description=f"{world}, {variant}, round {number}")

        try:
            for pair in run_all(scenario, on=on.value, address=address, progress=tell):
                done.append(pair)  # one by one: what is done stays when the next is cut short
        except KeyboardInterrupt:
            return conclude(scenario, done), True
    return conclude(scenario, done), False


@app.command()
def replay(folder: Folder) -> None:
    """Run a folder's simulated traces again and compare digests; exit code 3 if one differs.

    Live traces are not replayed: their times are real.
    """
    scenario = load_scenario(folder / "scenario.yaml")
    paths = sorted(folder.glob("trace-sim-*.jsonl"))
    if not paths:
        raise ScenarioError(
            file=str(folder), where="", problem="holds no simulated trace; run `hqde-sim run --out` first"
        )
    differing = 0
    for path in paths:
        recorded = read_trace(path)
        _check_header(recorded, path)
        again = scenario.model_copy(update={"seed": recorded.header["seed"]})
        ((_, trace),) = run_all(again, on="sim", variants=(recorded.header["variant"],))
        same = trace.digest == recorded.digest
        differing += not same
        out.print(f"{path.name}: {'the same digest' if same else 'DIFFERENT'} {trace.digest}", highlight=False)
    raise typer.Exit(NOT_DETERMINISTIC if differing else 0)


def _check_header(trace: Trace, path: Path) -> None:
    seed, variant = trace.header.get("seed"), trace.header.get("variant")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= SEED_MAX:
        raise WireError(what=f"{path}: seed", wanted="an integer", got=repr(seed), do="it was changed; run again")
    if variant not in VARIANTS or trace_name(trace) != path.name:
        raise WireError(
            what=f"{path}: variant", wanted="the one its name says", got=repr(variant), do="it was changed; run again"
        )


@app.command()
def report(folder: Folder) -> None:
    """Write DIR/report.html: rounds over time, faults, who was used and rejected and why, accuracy, error and bound."""
    from simulator.report import write_report  # needs jinja2, an extra

    out.print(f"Open it in a browser: {write_report(folder)}", highlight=False, soft_wrap=True)


def _show(execution: Execution) -> None:
    for run_done in execution.runs:
        if run_done.variant == "as written":
            out.print(_rounds_table(run_done))
    out.print(_accuracy_table(execution))
    out.print(_findings_table(execution))


def _findings_table(execution: Execution) -> Table:
    """One row a finding; worlds in which the same was found share one."""
    where: dict[Finding, list[str]] = {}
    for judged in execution.findings:
        place = judged.world if judged.variant in ("as written", "all") else judged.variant
        where.setdefault(judged.finding, []).append("sim, ray" if place == "both" else place)
    table = Table("law", "clause", "where", "", "because", title="What held", title_justify="left", box=None)
    colours = {"HOLDS": "green", "BROKEN": "bold red", "CANNOT_TELL": "yellow"}
    for finding, places in where.items():
        number = f"round {finding.round}: " if finding.round is not None and finding.status == "BROKEN" else ""
        status = f"[{colours[finding.status]}]{finding.status}[/]"
        table.add_row(finding.law, finding.clause, ", ".join(places), status, number + finding.because)
    return table


def _rounds_table(run_done: Run) -> Table:
    title = f"{escape(run_done.scenario)} on {run_done.world}, as written (trace {run_done.digest})"
    table = Table(
        "round", "used", "rejected", "missing", "accuracy", "error / bound", title=title, title_justify="left", box=None
    )
    for record, outcome in zip(run_done.rounds, run_done.outcome(), strict=True):
        ratio = "-"
        if record.measured is not None and record.bound:
            ratio = f"{record.measured.error:.3f} / {record.bound:.3f}"
        table.add_row(
            str(record.round),
            str(len(list(outcome["used"]))) if outcome["accepted"] else "refused",  # type: ignore[call-overload]
            _listed(record.verdict.rejected),
            _listed(record.verdict.missing),
            f"{record.accuracy:.3f}",
            ratio,
        )
    return table


def _listed(reasons: Mapping[str, str]) -> str:
    """Members by the first words of their reason: ``w1, w2 crashed``."""
    groups: dict[str, list[str]] = {}
    for member, reason in sorted(reasons.items()):
        groups.setdefault(reason.split(":")[0], []).append(member)
    return "; ".join(f"{', '.join(members)} {reason}" for reason, members in groups.items()) or "-"


def _accuracy_table(execution: Execution) -> Table:
    rounds = execution.scenario.workload.rounds
    heads = ["world", "variant", *(str(number) for number in range(1, rounds + 1))]
    table = Table(*heads, title="Accuracy after each round", title_justify="left", box=None)
    for run_done in execution.runs:
        table.add_row(run_done.world, run_done.variant, *(f"{record.accuracy:.3f}" for record in run_done.rounds))
    return table


def main() -> None:
    """Entry point of ``hqde-sim``."""
    run_app(app, name="hqde-sim")
