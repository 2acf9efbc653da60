"""Byzantine attacks as pure functions: from what the honest sent to what a liar sends.

Source: the names are the literature's; each function cites its paper. Pure: randomness comes as a generator.

All colluders of a round send what one function returns. Rows are float rows (d,) of one dtype; the result has it too.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import message

__all__ = ["ATTACKS", "Attack", "Knowledge", "check_attack", "forge"]


@message
class Knowledge:
    """What an omniscient adversary works with.

    Attributes:
        honest: contributions of the honest in this round, at least one.
        base: the state that the round started from.
        generator: the attack's own random stream.
    """

    honest: Sequence[Tensor]
    base: Tensor
    generator: torch.Generator


@message
class Attack:
    """An attack with the options it takes and their defaults."""

    make: Callable[..., Tensor]
    options: Mapping[str, float]
    source: str


def _mean_update(known: Knowledge) -> tuple[Tensor, Tensor]:
    """Mean of the honest, and the mean update it makes to the base, in float64."""
    mean = torch.stack([row.double() for row in known.honest]).mean(dim=0)
    return mean, mean - known.base.double()


def sign_flip(known: Knowledge, *, scale: float) -> Tensor:
    """Send the opposite of the honest mean update."""
    _, update = _mean_update(known)
    return known.base.double() - scale * update


def inner_product_manipulation(known: Knowledge, *, epsilon: float) -> Tensor:
    """Make the inner product of the average with the true update negative."""
    _, update = _mean_update(known)
    return known.base.double() - epsilon * update


def a_little_is_enough(known: Knowledge, *, tau: float) -> Tensor:
    """Stay within ``tau`` honest standard deviations of the mean, on every coordinate, all on the same side."""
    rows = torch.stack([row.double() for row in known.honest])
    return rows.mean(dim=0) - tau * rows.std(dim=0, correction=0)


def mimic(known: Knowledge, *, victim: float) -> Tensor:
    """Repeat one honest contribution, so that it counts too much."""
    return known.honest[int(victim) % len(known.honest)].double()


def gaussian(known: Knowledge, *, deviation: float) -> Tensor:
    """The honest mean plus noise."""
    mean, _ = _mean_update(known)
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
    mean, _ = _mean_update(known)
    mean[int(index) % mean.numel()] = value
    return mean


def _scaled(known: Knowledge, is_hidden: Callable[[Tensor, Sequence[Tensor]], bool]) -> Tensor:
    """The farthest point along minus the honest deviation that ``is_hidden`` still allows, by bisection."""
    rows = [row.double() for row in known.honest]
    stacked = torch.stack(rows)
    mean, direction = stacked.mean(dim=0), -stacked.std(dim=0, correction=0)
    low, high = 0.0, 1.0
    while is_hidden(mean + high * direction, rows) and high < 1e6:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if is_hidden(mean + middle * direction, rows) else (low, middle)
    return mean + low * direction


def min_max(known: Knowledge) -> Tensor:
    """As far off as the farthest pair of honest contributions allows."""
    widest = max(float((a.double() - b.double()).norm()) for a in known.honest for b in known.honest)
    return _scaled(known, lambda point, rows: max(float((point - row).norm()) for row in rows) <= widest)


def min_sum(known: Knowledge) -> Tensor:
    """As far off as the largest sum of squared distances between honest contributions allows."""

    def total(point: Tensor, rows: Sequence[Tensor]) -> float:
        return sum(float((point - row.double()).norm()) ** 2 for row in rows)

    largest = max(total(row.double(), known.honest) for row in known.honest)
    return _scaled(known, lambda point, rows: total(point, rows) <= largest)


ATTACKS: Final[Mapping[str, Attack]] = {
    "sign_flip": Attack(make=sign_flip, options={"scale": 1.0}, source="Allen-Zhu et al. 2020"),
    "ipm": Attack(make=inner_product_manipulation, options={"epsilon": 10.0}, source="Xie et al. 2019"),
    "alie": Attack(make=a_little_is_enough, options={"tau": 1.5}, source="Baruch et al. 2019"),
    "mimic": Attack(make=mimic, options={"victim": 0.0}, source="Karimireddy et al. 2022"),
    "min_max": Attack(make=min_max, options={}, source="Shejwalkar and Houmansadr 2021"),
    "min_sum": Attack(make=min_sum, options={}, source="Shejwalkar and Houmansadr 2021"),
    "gaussian": Attack(make=gaussian, options={"deviation": 1.0}, source="Blanchard et al. 2017"),
    "inf": Attack(make=infinity, options={}, source="clause 0.5"),
    "nan": Attack(make=not_a_number, options={}, source="clause 0.5"),
    "one_coordinate": Attack(make=one_coordinate, options={"index": 0.0, "value": 1e6}, source="El Mhamdi et al. 2018"),
}


def check_attack(name: str, options: Mapping[str, float]) -> None:
    """Refuse an attack or an option that does not exist.

    Raises:
        ConfigurationError: with the nearest name.
    """
    if name not in ATTACKS:
        near = difflib.get_close_matches(name, ATTACKS, n=1)
        raise ConfigurationError(
            setting="attack",
            wanted=f"one of {', '.join(ATTACKS)}",
            got=name,
            do=f"did you mean {near[0]!r}" if near else "choose one of these",
        )
    for option in options:
        if option not in ATTACKS[name].options:
            known = ", ".join(ATTACKS[name].options) or "none"
            raise ConfigurationError(setting=f"option of {name}", wanted=known, got=option, do="remove it")


def forge(name: str, options: Mapping[str, float], known: Knowledge) -> Tensor:
    """What the colluders send.

    Raises:
        ConfigurationError: for an unknown attack or option.
    """
    check_attack(name, options)
    attack = ATTACKS[name]
    return attack.make(known, **{**attack.options, **options}).to(known.base.dtype)
