"""Byzantine attacks as pure functions: from what the honest sent to what a liar sends.

Source: the names are the literature's; each entry cites its paper. Pure: randomness comes as a generator.

All colluders of a round send what one function returns (``collude``). Rows are float rows (d,) of one dtype; the result
has it too, and is finite unless the attack is not. Label flipping is not among them: it poisons the data, not a vector,
so it lives where a worker trains (``simulator.poisoned``).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Final

import torch
from torch import Tensor

from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import message
from simulator.attack_knowledge import Knowledge, checked_knowledge, honest_mean, honest_rows
from simulator.attack_search import adaptive, alie_search, duplicate, min_max, min_sum

__all__ = ["ATTACKS", "DATA_ATTACKS", "Attack", "Knowledge", "check_attack", "collude", "forge"]

DATA_ATTACKS: Final = ("label_flip",)  # of scenarios, without options


@message
class Attack:
    """An attack with the options it takes, their defaults, and the ranges they must lie in."""

    make: Callable[..., Tensor]
    options: Mapping[str, float]
    source: str
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def sign_flip(known: Knowledge, *, scale: float) -> Tensor:
    """Send the opposite of the honest mean update."""
    base = known.base.double()
    return base - scale * (honest_mean(known) - base)


def inner_product_manipulation(known: Knowledge, *, epsilon: float) -> Tensor:
    """Make the inner product of the average with the true update negative, by ``epsilon`` times its opposite."""
    base = known.base.double()
    return base - epsilon * (honest_mean(known) - base)


def a_little_is_enough(known: Knowledge, *, tau: float) -> Tensor:
    """Stay within ``tau`` honest standard deviations of the mean, on every coordinate, all on the same side."""
    rows = honest_rows(known)
    return rows.mean(dim=0) - tau * rows.std(dim=0, correction=0)


def mimic(known: Knowledge, *, victim: float) -> Tensor:
    """Repeat one honest contribution, so that it counts too much."""
    return known.honest[int(victim) % len(known.honest)].double()


def gaussian(known: Knowledge, *, deviation: float) -> Tensor:
    """The honest mean plus noise."""
    mean = honest_mean(known)
    noise = torch.randn(mean.shape, generator=known.generator, dtype=torch.float64)
    return mean + deviation * noise


def infinity(known: Knowledge) -> Tensor:
    """Infinities everywhere."""
    return torch.full_like(known.base, math.inf, dtype=torch.float64)


def not_a_number(known: Knowledge) -> Tensor:
    """One NaN, in the middle."""
    row = known.honest[0].double().clone()
    row[row.numel() // 2] = math.nan
    return row


def one_coordinate(known: Knowledge, *, index: float, value: float) -> Tensor:
    """The honest mean, but for one coordinate."""
    mean = honest_mean(known)
    mean[int(index) % mean.numel()] = value
    return mean


_POSITIVE = (0.0, math.inf)
_COUNT = (1.0, 1e6)

ATTACKS: Final[Mapping[str, Attack]] = {
    "sign_flip": Attack(make=sign_flip, options={"scale": 1.0}, source="Allen-Zhu et al. 2020"),
    "ipm": Attack(make=inner_product_manipulation, options={"epsilon": 10.0}, source="Xie et al. 2019"),
    "alie": Attack(make=a_little_is_enough, options={"tau": 1.5}, source="Baruch et al. 2019"),
    "alie_search": Attack(
        make=alie_search,
        options={"tau_max": 10.0, "steps": 40.0},
        ranges={"tau_max": _POSITIVE, "steps": _COUNT},
        source="Baruch et al. 2019; line search as Allouah et al. 2023",
    ),
    "mimic": Attack(make=mimic, options={"victim": 0.0}, source="Karimireddy et al. 2022"),
    "min_max": Attack(make=min_max, options={}, source="Shejwalkar and Houmansadr 2021"),
    "min_sum": Attack(make=min_sum, options={}, source="Shejwalkar and Houmansadr 2021"),
    "gaussian": Attack(
        make=gaussian, options={"deviation": 1.0}, ranges={"deviation": _POSITIVE}, source="Blanchard et al. 2017"
    ),
    "inf": Attack(make=infinity, options={}, source="clause 0.5"),
    "nan": Attack(make=not_a_number, options={}, source="clause 0.5"),
    "one_coordinate": Attack(make=one_coordinate, options={"index": 0.0, "value": 1e6}, source="El Mhamdi et al. 2018"),
    "duplicate": Attack(make=duplicate, options={}, source="Blanchard et al. 2017, the score of Krum"),
    "adaptive": Attack(
        make=adaptive, options={"steps": 100.0}, ranges={"steps": _COUNT}, source="after Fang et al. 2020"
    ),
}


def check_attack(name: str, options: Mapping[str, float]) -> None:
    """Refuse an attack or an option that does not exist, and a value that makes no sense.

    Raises:
        ConfigurationError: with the nearest name, or the range.
    """
    if name not in ATTACKS:
        near = difflib.get_close_matches(name, ATTACKS, n=1)
        do = f"did you mean {near[0]!r}" if near else "choose one of these"
        if name in DATA_ATTACKS:
            do = "it poisons data, not vectors: name it in a scenario, or build the worker with flips_labels=True"
        raise ConfigurationError(setting="attack", wanted=f"one of {', '.join(ATTACKS)}", got=name, do=do)
    attack = ATTACKS[name]
    if not isinstance(options, Mapping):
        do = "pass {} for the attack's own"
        raise ConfigurationError(
            setting=f"options of {name}", wanted="a mapping of names to numbers", got=options, do=do
        )
    for option, value in options.items():
        if option not in attack.options:
            known = ", ".join(attack.options) or "none"
            raise ConfigurationError(setting=f"option of {name}", wanted=known, got=option, do="remove it")
        low, high = attack.ranges.get(option, (-math.inf, math.inf))
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not (is_number and low <= value <= high):
            wanted = "a finite number" + (f" of at least {low:g}" if low > -math.inf else "")
            raise ConfigurationError(
                setting=f"{option} of {name}",
                wanted=wanted + (f" and at most {high:g}" if high < math.inf else ""),
                got=value,
                do=f"leave it out for {attack.options[option]:g}",
            )


def forge(name: str, options: Mapping[str, float], known: Knowledge) -> Tensor:
    """What the colluders send.

    Raises:
        ConfigurationError: for an unknown attack or option, a value out of its range, or knowledge of no honest row.
        LayoutError: honest contributions and base do not fit together.
    """
    check_attack(name, options)
    known = checked_knowledge(known, attack=name)
    attack = ATTACKS[name]
    lie = attack.make(known, **{**attack.options, **options})
    dtype = known.honest[0].dtype
    greatest = torch.finfo(dtype).max
    # What is finite stays so: 1e6 is none of float16, and a lie of infinities is another attack.
    return torch.where(torch.isfinite(lie), lie.clamp(-greatest, greatest), lie).to(dtype)


def collude(name: str, options: Mapping[str, float], known: Knowledge) -> tuple[Tensor, ...]:
    """All contributions of a round under attack: the honest ones untouched, then one from each colluder."""
    lie = forge(name, options, known)
    return (*known.honest, *(lie.clone() for _ in range(known.colluders)))
