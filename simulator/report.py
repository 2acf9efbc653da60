"""``hqde-sim report``: one HTML page that shows a run, and needs nothing but itself.

Source: ``docs/design.md``, reports. The page loads nothing: its style and its script stand in it, and its content
security policy allows those two and no others, by their hashes. Everything shown is escaped. The same traces give the
same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from hqde_ref.errors import RuntimeFault
from simulator.report_charts import accuracy_chart, error_chart, format_number, format_share
from simulator.report_data import VARIANTS, WORLDS, RunSeen, Seen
from simulator.report_head import head, strip
from simulator.report_lanes import choose_rounds, panel
from simulator.report_reading import read_folder
from simulator.report_tables import agreement, matrix, round_rows
from simulator.report_time import format_seconds

__all__ = ["render_report", "write_report"]

PAGE = "report.html"


def write_report(folder: Path) -> Path:
    """Write ``report.html`` beside the traces of a run and return its path.

    Raises:
        ScenarioError: when the folder holds no trace, or a scenario that is not one.
        WireError: when a trace or the summary is damaged, or the traces are not of one run.
        RuntimeFault: when jinja2 is not installed, or the page cannot be written.
    """
    page = render_report(read_folder(folder))
    path = folder / PAGE
    try:
        # JSON can hold half a character (\\ud800), UTF-8 cannot.
        path.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise RuntimeFault(what=str(path), problem=f"cannot be written: {error.strerror}", do="look at it") from None
    return path


def render_report(seen: Seen) -> str:
    """The page as text."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        do = "install it: pip install 'hqde-ref[report]'"
        raise RuntimeFault(what="hqde-sim report", problem="needs jinja2, which is not installed", do=do) from None
    environment = Environment(
        loader=PackageLoader("simulator", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": format_number, "share": format_share, "seconds": format_seconds}
    style, script = _asset("report.css"), _asset("report.js")
    return environment.get_template("report.html.j2").render(
        **_context(seen),
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
    )


def _context(seen: Seen) -> dict[str, Any]:
    agreements = agreement(seen)
    return {
        "seen": seen,
        "head": head(seen, agreements),
        "agreements": agreements,
        "worlds": [(WORLDS.index(world), _WORLD_NAMES[world]) for world in seen.worlds],
        "variants": [(VARIANTS.index(variant), _capital(variant)) for variant in seen.variants],
        "charts": [_charts(seen, world) for world in seen.worlds],
        "runs": [_details(run) for run in seen.runs],
        "absent": [
            (WORLDS.index(world), VARIANTS.index(variant), _WORLD_NAMES[world], variant)
            for world in seen.worlds
            for variant in seen.variants
            if seen.find(world, variant) is None
        ],
    }


_WORLD_NAMES = {"sim": "Simulator", "ray": "Live Ray"}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _charts(seen: Seen, world: str) -> dict[str, Any]:
    runs = [run for run in seen.runs if run.world == world]
    return {
        "world": WORLDS.index(world),
        "name": _WORLD_NAMES[world],
        "lead": runs[0],
        "accuracy": accuracy_chart(runs),
        "error": error_chart(runs),
    }


def _details(run: RunSeen) -> dict[str, Any]:
    drawn = choose_rounds(run)
    return {
        "run": run,
        "world": WORLDS.index(run.world),
        "variant": VARIANTS.index(run.variant),
        "title": f"{_WORLD_NAMES[run.world]}, {run.variant}",
        "strip": strip(run),
        "matrix": matrix(run),
        "panels": [(panel(seen, run), *round_rows(seen, run)) for seen in drawn],
        "rounds_not_drawn": len(run.rounds) - len(drawn),
    }


def _asset(name: str) -> str:
    return resources.files("simulator").joinpath("templates", name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
