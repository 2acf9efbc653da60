"""What a rule, a pre-aggregation or a certificate takes beside rows and faulty_max, read off its signature.

Source: HQDE clause 0.7: what makes no sense is refused with a sentence.
Pure: no clock, no randomness, no input or output. Whether a value is in its range is the function's own affair.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable

from hqde_ref.errors import ConfigurationError

__all__ = ["check_settings", "is_size", "settings_of"]

_BACKEND = "backend"  # gives the same bits: may be chosen where there is one, and is no setting
_NO_SETTINGS = frozenset({"updates", "output", "faulty_max", _BACKEND})


def settings_of(function: Callable[..., object]) -> tuple[str, ...]:
    """Return the names of the settings that change what ``function`` gives, in the order of its signature."""
    return tuple(name for name in inspect.signature(function).parameters if name not in _NO_SETTINGS)


def check_settings(name: str, function: Callable[..., object], given: Iterable[str]) -> None:
    """Refuse settings that ``function``, known as ``name``, does not take, and the lack of those it cannot do without.

    Raises:
        ConfigurationError: it names the settings there are.
    """
    known, parameters = settings_of(function), inspect.signature(function).parameters
    named = sorted(one for one in given if one != _BACKEND or _BACKEND not in parameters)
    missing = [one for one in known if parameters[one].default is inspect.Parameter.empty and one not in named]
    unknown = [one for one in named if one not in known]
    if unknown:
        raise ConfigurationError(
            setting=f"a setting of {name}",
            wanted=f"one of {', '.join(known)}" if known else "left out (it has none)",
            got=", ".join(unknown),
            do="see its signature",
        )
    if missing:
        raise ConfigurationError(
            setting=f"settings of {name}",
            wanted=f"given: {', '.join(missing)}",
            got=", ".join(named) or "none",
            do="it cannot do without",
        )


def is_size(value: object) -> bool:
    """Ask whether a setting is a finite number of at least 0; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0.0
