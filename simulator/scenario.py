"""What a scenario file may say, field by field.

Reading one, with errors in one line, is ``simulator.scenario_reading``. The JSON Schema is
``Scenario.model_json_schema()`` (``hqde-sim schema``). Durations are strings with a unit (``90ms``).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hqde_ref.core.judging import check_policy
from hqde_ref.core.trees import plan_tree
from hqde_ref.messages import Policy
from simulator.attacks import check_attack
from simulator.harness import BIT_FLIP
from simulator.streams import stream
from simulator.targets import Placement, Strict, Target, choose_targets

__all__ = [
    "Byzantine",
    "Corrupt",
    "Crash",
    "Fault",
    "Pause",
    "Scenario",
    "Slow",
]

SEED_MAX = 2**63 - 1  # what torch takes
_LONGEST = 1e6
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def _duration(value: object) -> float:
    """Seconds from a text such as ``90ms``."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ns|us|ms|s|m)\s*", str(value))
    if found is None:
        raise ValueError(f"wanted a duration with a unit such as 90ms or 2s, got {value!r}")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST:
        raise ValueError(f"wanted at most {_LONGEST:g} s, got {value!r}")
    return seconds


Duration = Annotated[float, BeforeValidator(_duration)]


class Metadata(Strict):
    """What the scenario is called and which clauses it exercises."""

    name: str
    description: str = ""
    clauses: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _clause_numbers(cls, values: Any) -> Any:
        # YAML reads 4.1 as a number, and 4.10 as the number 4.1: the latter has to be quoted.
        if isinstance(values, dict) and isinstance(values.get("clauses"), list):
            values = {**values, "clauses": [str(clause) for clause in values["clauses"]]}
        return values


class System(Strict):
    """The ensemble and how it aggregates."""

    workers: Annotated[int, Field(ge=1, le=10_000, strict=True)]
    hosts: Annotated[int, Field(ge=1, strict=True)]
    branching: Annotated[int, Field(strict=True)] = 3
    topology: Literal["flat", "tree", "mapreduce", "sharded"] = "flat"
    shards: Annotated[int, Field(ge=1, strict=True)] | None = None
    rule: str = "geometric_median"
    faulty_max: Annotated[int, Field(ge=0, strict=True)] = 0
    outlier_factor: Annotated[float, Field(ge=1)] | None = 3.0
    gpus: Annotated[int, Field(ge=0, strict=True)] = 0
    round_within: Annotated[Duration, Field(gt=0)] = 5.0
    train_share: Annotated[float, Field(gt=0, lt=1)] = 0.6
    slow_factor: Annotated[float, Field(gt=1)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> System:
        if self.hosts > self.workers:
            raise ValueError(f"hosts: wanted at most one a worker ({self.workers}), got {self.hosts}")
        plan_tree(workers=self.workers, branching=self.branching)
        check_policy(self.policy(), members=self.workers)
        return self

    def policy(self) -> Policy:
        return Policy(
            rule=self.rule,
            topology=self.topology,
            shards=(self.shards or self.hosts) if self.topology == "sharded" else 1,
            faulty_max=self.faulty_max,
            branching=self.branching,
            outlier_factor=self.outlier_factor,
            round_within_s=self.round_within,
            train_share=self.train_share,
            slow_factor=self.slow_factor,
        )


class Workload(Strict):
    """What is trained and for how long."""

    dataset: Literal["digits"] = "digits"
    model: Literal["mlp"] = "mlp"
    rounds: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 5
    batch: Annotated[int, Field(ge=1, strict=True)] = 1000
    steps: Annotated[int, Field(ge=1, strict=True)] = 5


class NetworkModel(Strict):
    """The simulated network; live runs have the real one."""

    latency: Duration = 0.001
    jitter: Duration = 0.0
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0


Stage = Literal["train", "screen", "combine", "publish"]


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
        check_attack(self.name, self.options)
        return self


class Byzantine(Strict):
    """Members lie."""

    action: Literal["byzantine"]
    target: Target = "minority-third"
    placement: Placement = "random"
    attack: AttackModel
    during: During


class Corrupt(Strict):
    """One bit of what members send is flipped on the way."""

    action: Literal["corrupt"]
    target: Target = "one"
    placement: Placement = "random"
    during: During

    @property
    def attack(self) -> Any:
        return AttackModel.model_construct(name=BIT_FLIP)


class Crash(Strict):
    """A host's process is killed; it is back before the next round, or never."""

    action: Literal["crash"]
    target: Target = "one"
    at: At
    restart: Literal["next-round", "never"] = "next-round"


class Pause(Strict):
    """A host stops (SIGSTOP) for these rounds and then goes on."""

    action: Literal["pause"]
    target: Target = "one"
    during: During


class Slow(Strict):
    """A host takes ``factor`` times as long for these rounds."""

    action: Literal["slow"]
    target: Target = "one"
    factor: Annotated[float, Field(gt=1, le=1000)]
    during: During


Fault = Annotated[Byzantine | Corrupt | Crash | Pause | Slow, Field(discriminator="action")]
Always = Literal["accounted", "within_bound", "by_deadline", "budget_kept", "answered"]


class Expect(Strict):
    """What must come of it.

    ``healthy_gap``: final accuracy may fall short of a run without faults by at most this.
    ``mean_gap``: with the mean in place of the rule, it falls short by at least this.
    """

    always: tuple[Always, ...] = ("accounted", "within_bound", "by_deadline", "answered")
    last_round: Literal["whole", "any"] = "any"
    healthy_gap: Annotated[float, Field(ge=0, le=1)] | None = None
    mean_gap: Annotated[float, Field(ge=0, le=1)] | None = None


class Scenario(Strict):
    """One file: a system, its workload, the faults, and what is expected."""

    api_version: Literal["hqde.sim/v1"] = Field(alias="apiVersion")
    metadata: Metadata
    seed: Annotated[int, Field(ge=0, le=SEED_MAX, strict=True)] = 0
    system: System
    workload: Workload = Workload()
    network: NetworkModel = NetworkModel()
    faults: tuple[Fault, ...] = ()
    expect: Expect = Expect()

    @model_validator(mode="after")
    def _faults_fit(self) -> Scenario:
        for index, fault in enumerate(self.faults):
            last = fault.at.round if isinstance(fault, Crash) else fault.during.rounds[1]
            if last > self.workload.rounds:
                raise ValueError(f"faults[{index}]: round {last} is after the last round, {self.workload.rounds}")
            try:
                self.aim(index)
            except ValueError as error:
                raise ValueError(f"faults[{index}].target: {error}") from None
        return self

    def aim(self, index: int) -> tuple[str, ...]:
        """The hosts or members that a fault hits: the same for the same file and seed."""
        fault = self.faults[index]
        on_members = isinstance(fault, Byzantine | Corrupt)
        return choose_targets(
            fault.target,
            self.members if on_members else self.hosts,
            draw=stream(self.seed, "target", index),
            placement=fault.placement if isinstance(fault, Byzantine | Corrupt) else "random",
        )

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(f"w{index}" for index in range(self.system.workers))

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(f"h{index}" for index in range(self.system.hosts))
