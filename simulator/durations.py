"""Durations as scenario files write them: with a unit, and within what clocks can take."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

__all__ = ["Duration"]

_LONGEST = 1e6
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _duration(value: object) -> float:
    """Seconds from a text such as ``90ms``."""
    found = re.fullmatch(rf"\s*(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})\s*", str(value))
    if found is None:
        raise ValueError(f"wanted a duration such as 90ms or 2s (units: {', '.join(_UNITS)}), got {value!r}")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST:
        raise ValueError(f"wanted at most {_LONGEST:g} s, got {value!r}")
    return seconds


Duration = Annotated[float, BeforeValidator(_duration)]
