"""The pytest plugin: ``pytest properties --hqde-implementation hqde`` runs what ``hqde-verify run hqde`` runs.

Source: docs/design.md, "Layout" (entry point group pytest11). Everything heavy is imported when a property is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

__all__ = ["implementation", "pytest_addoption", "pytest_pyfunc_call"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--hqde-implementation`` and ``--hqde-profile``."""
    group = parser.getgroup("hqde", "verification of HQDE implementations")
    group.addoption(
        "--hqde-implementation", default="reference", help="a registered name, module:attribute, or cmd:./program"
    )
    group.addoption("--hqde-profile", default="standard", help="smoke, standard or deep: how hard to search")


@pytest.fixture(scope="session")
def implementation(pytestconfig: pytest.Config) -> Iterator[Any]:
    """The implementation that properties are about."""
    from hqde_ref.errors import ForeignError
    from hqde_ref.runtimes.in_child import ForeignImplementation
    from properties.implementations import resolve
    from properties.subject import Subject

    try:
        found = resolve(pytestconfig.getoption("--hqde-implementation"))
    except ForeignError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
    yield Subject(found, in_process=not isinstance(found, ForeignImplementation))
    found.stop()


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run a property as the command does; leave all other tests to pytest."""
    if not hasattr(pyfuncitem.obj, "__hqde_law__"):
        return None
    from properties.declaring import find_law
    from properties.examine import PROFILES, examine
    from properties.suite import PropertyCase

    law = find_law(pyfuncitem.obj)
    assert law is not None
    profile = pyfuncitem.config.getoption("--hqde-profile")
    if profile not in PROFILES:
        pytest.exit(f"there is no profile {profile!r}; choose {', '.join(PROFILES)}", pytest.ExitCode.USAGE_ERROR)
    given: dict[str, Any] = pyfuncitem.funcargs
    parameters = {name: value for name, value in given.items() if name in _parameters(pyfuncitem)}
    case = PropertyCase(name=pyfuncitem.name, law=law, parameters=parameters)
    outcome = examine(case, given["implementation"], profile=PROFILES[profile], seed=0)
    if outcome.status in ("UNSUPPORTED", "CANNOT_TELL"):
        pytest.skip(f"{outcome.status}: {outcome.because}")
    if outcome.status != "HOLDS":
        pytest.fail(
            f"{outcome.status}: {law.statement}\nBecause {outcome.because}\n{outcome.counterexample or ''}",
            pytrace=False,
        )
    return True


def _parameters(item: pytest.Function) -> dict[str, Any]:
    return dict(item.callspec.params) if hasattr(item, "callspec") else {}
