"""The faults that a scenario file may ask for, field by field.

What they do is in ``simulator.runner`` and the worlds; when they begin is said by rounds and stages, never by a clock.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hqde_ref.errors import ConfigurationError
from simulator.attacks import ATTACKS, DATA_ATTACKS, check_attack
from simulator.harness import BIT_FLIP
from simulator.targets import Placement, Strict, Target

__all__ = [
    "AttackModel",
    "Byzantine",
    "Corrupt",
    "Crash",
    "Damage",
    "Duplicate",
    "Fault",
    "Lose",
    "OnMembers",
    "Pause",
    "Remove",
    "Slow",
]

# reduce: of a mapreduce round only. A round begins with read and ends with write, where there is a weight store.
Stage = Literal["train", "screen", "combine", "reduce", "publish", "write", "read"]


class At(Strict):
    """A moment: before the first request of a stage goes out."""

    round: Annotated[int, Field(ge=1, strict=True)]
    stage: Stage = "train"


class During(Strict):
    """Rounds from first to last, both included."""

    rounds: tuple[Annotated[int, Field(ge=1, strict=True)], Annotated[int, Field(ge=1, strict=True)]]

    @model_validator(mode="after")
    def _ordered(self) -> During:
        if self.rounds[0] > self.rounds[1]:
            raise ValueError(f"rounds: the last, {self.rounds[1]}, is before the first, {self.rounds[0]}")
        return self


class AttackModel(BaseModel):
    """An attack by name, with its options beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> dict[str, float]:
        return {key: float(value) for key, value in (self.model_extra or {}).items()}

    @model_validator(mode="after")
    def _known(self) -> AttackModel:
        for key, value in (self.model_extra or {}).items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"option {key}: wanted a number, got {value!r}")
        if self.name in DATA_ATTACKS:
            for option in self.options:
                raise ConfigurationError(setting=f"option of {self.name}", wanted="none", got=option, do="remove it")
            return self
        if self.name not in ATTACKS:
            names = (*ATTACKS, *DATA_ATTACKS)
            near = difflib.get_close_matches(self.name, names, n=1)
            do = f"did you mean {near[0]!r}" if near else "choose one of these"
            raise ConfigurationError(setting="attack", wanted=f"one of {', '.join(names)}", got=self.name, do=do)
        check_attack(self.name, self.options)
        return self


class _OfMembers(Strict):
    """What befalls members for some rounds."""

    target: Target = "one"
    placement: Placement = "random"
    during: During


class Byzantine(_OfMembers):
    """Members lie."""

    action: Literal["byzantine"]
    target: Target = "minority-third"
    attack: AttackModel


class Corrupt(_OfMembers):
    """One bit of what members send is flipped on the way."""

    action: Literal["corrupt"]

    @property
    def attack(self) -> Any:
        return AttackModel.model_construct(name=BIT_FLIP)


class Duplicate(_OfMembers):
    """Every request to train reaches members twice, and they answer twice."""

    action: Literal["duplicate"]


class Lose(_OfMembers):
    """What members sent is gone before anybody looked at it."""

    action: Literal["lose"]


class Crash(Strict):
    """A host's process is killed; it is back before the next round, or never."""

    action: Literal["crash"]
    target: Target = "one"
    at: At
    restart: Literal["next-round", "never"] = "next-round"


class Remove(Strict):
    """A machine is lost, with its hosts and the objects on it; a fresh one is there before the next round, or never."""

    action: Literal["remove"]
    target: Target = "one"
    at: At
    restart: Literal["next-round", "never"] = "next-round"


class Pause(Strict):
    """A host stops (SIGSTOP) for these rounds, in the first of them from this stage on, and then goes on."""

    action: Literal["pause"]
    target: Target = "one"
    stage: Stage = "train"
    during: During


class Slow(Strict):
    """A host takes ``factor`` times as long for these rounds."""

    action: Literal["slow"]
    target: Target = "one"
    factor: Annotated[float, Field(gt=1, le=1000)]
    during: During


class Damage(Strict):
    """One bit flips in the copy of the published state that a store holds; it has fired when a read has met it.

    Best at stage ``read``: a result that is written goes over a copy, damaged or not, and nothing would be shown.
    """

    action: Literal["damage"]
    target: Target = "one"
    at: At


OnMembers: TypeAlias = Byzantine | Corrupt | Duplicate | Lose
Fault = Annotated[OnMembers | Crash | Pause | Remove | Slow | Damage, Field(discriminator="action")]
