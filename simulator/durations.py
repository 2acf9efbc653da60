"""Durations as scenario files write them: with a unit, and within what clocks can take."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

__all__ = ["Duration", "lasting"]

_LONGEST = 1e6
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PATTERN = rf"\s*(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})\s*"


def _duration(value: object) -> float:
    """Seconds from a text such as ``90ms``."""
    found = re.fullmatch(_PATTERN, str(value))
    if found is None:
        raise ValueError(f"wanted a duration such as 90ms or 2s (units: {', '.join(_UNITS)}), got {value!r}")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST:
        raise ValueError(f"wanted at most {_LONGEST:g} s, got {value!r}")
    return seconds


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{_PATTERN}$", "examples": ["90ms", "2s"]}),
]


def lasting(text: str, *, gt: float | None = None) -> Any:
    """A field's default, which the schema tells as files write it; ``gt``: what its seconds must be above."""
    return Field(default=_duration(text), gt=gt, json_schema_extra={"default": text})
