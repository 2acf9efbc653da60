"""The command ``hqde-sim``: run a scenario in virtual time, on live Ray, or on both, and look at what came of it.

Exit codes: 0 all held, 1 broken, 2 cannot tell or vacuous, 3 not deterministic, 4 bad input, 5 the harness failed, 130
interrupted.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hqde_ref.errors import ConfigurationError, RuntimeFault, ScenarioError, WireError
from simulator.execution import VARIANTS, Execution, conclude, exit_code, run_all, summarise, trace_name, write_folder
from simulator.printing import print_execution
from simulator.progress import telling
from simulator.records import Run
from simulator.runtime import SECOND, Network
from simulator.scenario import SEED_MAX, Scenario
from simulator.scenario_reading import load_scenario
from simulator.scenario_store import STATE_KEY
from simulator.tables import print_table
from simulator.terminal import (
    BAD_INPUT,
    INTERRUPTED,
    NOT_DETERMINISTIC,
    complain,
    count_of,
    require_file,
    require_folder,
    run_app,
    write_text,
)
from simulator.trace import Trace, read_trace

__all__ = ["app", "main"]

app = typer.Typer(
    name="hqde-sim",
    help="Run fault scenarios on a distributed ensemble: in virtual time, on live Ray, or on both from the same file.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
LOSS_NOTICED_S = Network().notice / SECOND
CHECKOUT = Path(__file__).resolve().parent.parent  # where an installed package has no scenarios
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
    rows = []
    for path in _scenario_files():
        told = load_scenario(path).metadata
        rows.append((str(path), told.description, ", ".join(told.clauses)))
    print_table(out, ("scenario", "shows", "clauses"), rows, wraps=("shows", "clauses"))


def _scenario_files() -> list[Path]:
    """The files in the folder ``scenarios`` where one stands, or of the checkout that this program runs from."""
    for folder in (Path("scenarios"), CHECKOUT / "scenarios"):
        if found := sorted(folder.glob("*.yaml")):
            return found
    raise ScenarioError(
        file=str(Path("scenarios").absolute()),
        where="",
        problem="no scenario (*.yaml) is there: they come with the project's sources, not with an installed package; "
        "go to a checkout, or write one of your own (`hqde-sim schema` says what it may hold)",
    )


@app.command()
def validate(files: Annotated[list[Path], typer.Argument(help="Scenario files.", metavar="FILE...")]) -> None:
    """Check scenario files without running them: all of them, also where one is wrong."""
    wrong = 0
    for path in files:
        try:
            scenario = load_scenario(path)
        except ScenarioError as error:
            wrong = complain(f"hqde-sim: {error}", BAD_INPUT)
            continue
        system = scenario.system
        told = [count_of(system.workers, "worker"), *([f"{system.nodes} nodes"] if system.nodes > 1 else [])]
        told.append(count_of(scenario.workload.rounds, "round"))
        if system.store is not None:
            told.append(f"state kept by {', '.join(system.store.plan(nodes=system.nodes).stores_of(STATE_KEY))}")
        out.print(f"{path}: fine ({', '.join(told)})", highlight=False)
    if wrong:
        raise typer.Exit(wrong)


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

    Every law the scenario names is checked; a fault that never fired makes the run vacuous (exit code 2). After
    Ctrl-C, or when live Ray fails, the variants that were run to their end are shown and written all the same.
    """
    if address is not None:
        _require_address(address, on)
    scenario, text = load_scenario(file), file.read_text(encoding="utf-8")
    if seed is not None:
        scenario = scenario.model_copy(update={"seed": seed})
    require_folder("--out", out_dir)
    require_file("--json", json_file)
    training = scenario.system.round_within * scenario.system.train_share
    if on is not World.sim and scenario.network.loses and training <= LOSS_NOTICED_S:
        err.print(
            f"Note: Ray may take {LOSS_NOTICED_S:g} s to notice that a message is lost, and members have "
            f"{training:g} s to train: many will be missing for that alone. Give system.round_within more.",
            soft_wrap=True,
        )
    execution, cut_short = _execute(scenario, on, address)
    print_execution(out, execution)
    if out_dir is not None:
        write_folder(execution, out_dir, scenario_text=_with_seed(text, scenario.seed))
    if json_file is not None:
        write_text(json_file, json.dumps(summarise(execution), indent=2, ensure_ascii=False) + "\n")
    if out_dir is not None:
        see = f" See it: hqde-sim report {out_dir}" if execution.traces else ""
        out.print(f"Written to {out_dir}.{see}", highlight=False, soft_wrap=True)
    if isinstance(cut_short, RuntimeFault):
        raise cut_short
    if cut_short is not None:
        err.print("Interrupted: only variants that were run to their end are shown.")
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(exit_code(execution))


def _require_address(address: str, on: World) -> None:
    if on is World.sim:
        raise ConfigurationError(
            setting="--address",
            wanted="absent with --on sim",
            got=address,
            do="add --on ray or --on both, or remove it",
        )
    host, _, port = address.rpartition(":")
    if not host or "://" in address or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigurationError(
            setting="--address", wanted="host:port of a Ray cluster", got=address, do="leave it out for a private one"
        )


def _with_seed(text: str, seed: int) -> str:
    """The scenario's text with the seed that was used, so that the folder can be replayed by itself."""
    line = f"seed: {seed}"
    if re.search(r"^seed:", text, re.MULTILINE):
        return re.sub(r"^seed:.*$", line, text, count=1, flags=re.MULTILINE)
    return f"{text.rstrip()}\n{line}\n"


def _execute(
    scenario: Scenario, on: World, address: str | None
) -> tuple[Execution, KeyboardInterrupt | RuntimeFault | None]:
    """What was run, and what cut it short."""
    worlds = 2 if on is World.both else 1
    done: list[tuple[Run, Trace]] = []
    rounds = scenario.workload.rounds
    with telling(err, worlds * len(VARIANTS) * rounds) as tell:

        def begin(world: str, variant: str, number: int) -> None:
            """Each round when it begins; the one after the last, when that has ended."""
            now = f"{world}, {variant}, " + (f"round {number} of {rounds}" if number <= rounds else "done")
            tell(now, done=int(number > 1))

        try:
            for pair in run_all(
                scenario, on=on.value, address=address, progress=begin, say=partial(tell, at_once=True)
            ):
                done.append(pair)  # one by one: what is done stays when the next is cut short
        except (KeyboardInterrupt, RuntimeFault) as error:
            return conclude(scenario, done), error
    return conclude(scenario, done), None


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
    _require_traces(folder)
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


def _require_traces(folder: Path) -> None:
    """Every simulated trace that the summary names is there."""
    path = folder / "summary.json"
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        named = [trace_name(run["world"], run["variant"]) for run in runs if run["world"] == "sim"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        what, got = str(path), f"{type(error).__name__}: {error}"
        raise WireError(
            what=what, wanted="the summary of a run", got=got, do="it was changed or lost; run again"
        ) from None
    for name in named:
        if not (folder / name).is_file():
            problem = f"{name} is missing, which the summary names; run again, or replay a copy that is whole"
            raise ScenarioError(file=str(folder), where="", problem=problem)


def _check_header(trace: Trace, path: Path) -> None:
    seed, variant = trace.header.get("seed"), trace.header.get("variant")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= SEED_MAX:
        raise WireError(what=f"{path}: seed", wanted="an integer", got=repr(seed), do="it was changed; run again")
    if variant not in VARIANTS or trace_name(str(trace.header.get("world")), variant) != path.name:
        raise WireError(
            what=f"{path}: variant", wanted="the one its name says", got=repr(variant), do="it was changed; run again"
        )


@app.command()
def report(folder: Folder) -> None:
    """Write DIR/report.html: rounds over time, faults, who was used and rejected and why, accuracy, error and bound."""
    from simulator.report import write_report  # needs jinja2, an extra

    out.print(f"Open it in a browser: {write_report(folder)}", highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of ``hqde-sim``."""
    run_app(app, name="hqde-sim")
