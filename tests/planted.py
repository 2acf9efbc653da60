"""Every planted bug by name: the reference with one thing wrong each. Docstrings of properties name what they catch."""

from __future__ import annotations

from tests import (
    planted_faults,
    planted_mapreduce,
    planted_plans,
    planted_predictions,
    planted_rounds,
    planted_running,
    planted_stores,
    planted_trees,
)
from tests.planted_base import Planted

_MODULES = (
    planted_rounds,
    planted_plans,
    planted_faults,
    planted_stores,
    planted_mapreduce,
    planted_running,
    planted_predictions,
    planted_trees,
)

# A class that only shares code with others starts with "In" and has no bug of its own.
BUGS: dict[str, type[Planted]] = {
    name: kind
    for module in _MODULES
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, Planted) and kind is not Planted and not name.startswith("In")
}
