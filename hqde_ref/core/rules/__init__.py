"""stub"""

from dataclasses import dataclass
from typing import Any

from hqde_ref.core.rules.geometric_median import geometric_median
from hqde_ref.core.rules.weighted_mean import weighted_mean
from hqde_ref.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Rule:
    name: str
    aggregate: Any
    least_contributions: Any
    kappa: Any
    family: str


RULES = {
    "weighted_mean": Rule(
        name="weighted_mean",
        aggregate=lambda u, *, faulty_max: weighted_mean(u),
        least_contributions=lambda f: 1,
        kappa=None,
        family="mean",
    ),
    "geometric_median": Rule(
        name="geometric_median",
        aggregate=geometric_median,
        least_contributions=lambda f: 2 * f + 1,
        kappa=lambda n, f: n / (n - 2 * f),
        family="gram",
    ),
}


def get_rule(name):
    if name not in RULES:
        raise ConfigurationError(setting="rule", wanted="one of " + ", ".join(RULES), got=name, do="choose one")
    return RULES[name]
