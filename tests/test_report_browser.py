"""The report in a real browser: nothing complains, nothing is fetched, and mouse, keyboard and narrow screens work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.records import Variant
from simulator.report import write_report
from simulator.runner import run_variant
from simulator.scenario_reading import parse_scenario
from simulator.worlds import SimulatedWorld

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'hqde-ref[test]'")

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"needs a Chromium on PATH ({', '.join(NAMES)}): apt-get install chromium"
)
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCENARIO = """
apiVersion: hqde.sim/v1
metadata: {name: "seen <b>in a browser</b>"}
system: {workers: 7, hosts: 3, rule: geometric_median, faulty_max: 2, round_within: 2s}
workload: {dataset: digits, model: mlp, rounds: 3, batch: 140, steps: 1}
network: {latency: 1ms}
faults:
  - {action: byzantine, target: [w1], attack: {name: ipm, epsilon: 10}, during: {rounds: [1, 2]}}
  - {action: pause, target: h2, during: {rounds: [2, 2]}}
"""
VARIANTS: tuple[Variant, ...] = ("as written", "mean instead")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of both worlds; the second is the first one's traces under the other name."""
    folder = tmp_path_factory.mktemp("seen")
    (folder / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    scenario = parse_scenario(SCENARIO, file="seen.yaml")
    for variant in VARIANTS:
        _, trace = run_variant(scenario, SimulatedWorld(scenario), variant=variant)
        for world in ("sim", "ray"):
            trace.header["world"] = world
            trace.write(folder / f"trace-{world}-{variant.replace(' ', '-')}.jsonl")
    return write_report(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any, report: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page; at the end of a test nothing may have complained or been fetched."""
    width, scheme = getattr(request, "param", (1440, "light"))
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("requestfailed", lambda failed: complaints.append(f"failed: {failed.url}"))
    page.on("request", lambda asked: complaints.extend([] if asked.url.startswith("file:") else [asked.url]))
    page.goto(report.as_uri())
    yield page
    page.close()
    assert complaints == []


SCREENS = [(width, scheme) for width in (360, 800, 1440) for scheme in ("light", "dark")]


@pytest.mark.parametrize("opened", SCREENS, indirect=True, ids=lambda screen: f"{screen[0]}-{screen[1]}")
def test_the_page_fits_its_screen(opened: Any) -> None:
    for choice in (None, "#world-1", "#variant-1"):
        if choice:
            opened.locator(choice).check(force=True)
        for fold in opened.locator("details:visible > summary").all():
            fold.click()
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"wider than the screen: {choice}"


def test_dark_and_light_differ(browser: Any, report: Path) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(report.as_uri())
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert len(grounds) == 2


def test_the_switches_choose_world_and_variant(opened: Any) -> None:
    def shown() -> list[str]:
        return [str(each.get_attribute("aria-label")) for each in opened.locator("article > section:visible").all()]

    assert shown() == ["Who was used, Simulator, as written", "Rounds over time, Simulator, as written"]
    opened.get_by_role("radio", name="Live Ray").check()
    opened.get_by_role("radio", name="Mean instead").check()
    assert shown() == ["Who was used, Live Ray, mean instead", "Rounds over time, Live Ray, mean instead"]
    assert opened.locator(".charts:visible").count() == 1


def test_hovering_a_bar_shows_what_it_is(opened: Any) -> None:
    tip = opened.locator("#tip")
    assert tip.is_hidden()
    opened.locator("svg.lanes:visible .bar.k-train").first.hover()
    assert "Train → " in tip.inner_text()
    opened.locator("td.fate-missing:visible .tip").first.hover()
    assert "missing" in tip.inner_text()
    opened.locator("h1").hover()
    assert tip.is_hidden()


def test_arrow_keys_walk_through_bars_and_escape_closes(opened: Any) -> None:
    tip = opened.locator("#tip")
    opened.locator("svg.lanes:visible").first.focus()
    told = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "End"):
        opened.keyboard.press(key)
        assert tip.is_visible(), f"no tooltip after {key}"
        told.append(tip.inner_text())
    assert len(set(told)) == len(told), "each key leads to another bar"
    opened.keyboard.press("Escape")
    assert tip.is_hidden()


def test_a_long_wait_is_drawn_short(opened: Any) -> None:
    paused = opened.locator("section.panel:visible", has_text="Round 2")
    assert paused.locator("rect.break").count() >= 1
    widths = paused.locator(".bar.k-train").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    assert min(widths) >= 1


def test_markup_in_a_name_is_text(opened: Any) -> None:
    assert opened.locator("h1").inner_text() == "seen <b>in a browser</b>"
    assert opened.locator("h1 b").count() == 0


def test_without_scripts_everything_can_still_be_read(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    page.get_by_role("radio", name="Mean instead").check()
    assert page.get_by_role("heading", name="Round 1 accepted").first.is_visible()
    assert page.locator("svg.lanes:visible .tip > title").first.text_content()
    context.close()
