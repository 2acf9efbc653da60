"""What a scenario file may say, field by field; its faults are in ``simulator.faults``.

Reading one, with errors in one line, is ``simulator.scenario_reading``. The JSON Schema is
``Scenario.model_json_schema()`` (``hqde-sim schema``). Durations are strings with a unit (``90ms``).
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from hqde_ref.clauses import CLAUSES
from hqde_ref.core.judging import check_policy
from hqde_ref.core.trees import plan_tree
from hqde_ref.messages import Policy
from simulator.attacks import DATA_ATTACKS
from simulator.durations import Duration, lasting
from simulator.faults import Byzantine, Corrupt, Crash, Damage, Duplicate, Fault, Lose, OnMembers, Remove
from simulator.scenario_store import WeightStore, needs_store
from simulator.streams import stream
from simulator.targets import Strict, choose_targets

__all__ = ["Expect", "Scenario"]

SEED_MAX = 2**63 - 1  # what torch takes


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

    @field_validator("clauses")
    @classmethod
    def _known(cls, numbers: tuple[str, ...]) -> tuple[str, ...]:
        ids = [clause.id for clause in CLAUSES]
        for number in numbers:
            if number not in ids:
                near = difflib.get_close_matches(number, ids, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {ids[0]} to {ids[-1]}"
                raise ValueError(f"there is no clause {number!r}; {hint} (`hqde-verify list` shows them all)")
        return numbers


class System(Strict):
    """The ensemble and how it aggregates.

    ``crowds``: a host answers for all its members in one message. ``apart``: aggregators are on hosts of their own, g0,
    g1, and so on. ``store``: the published state goes through a weight store, on hosts s0, s1, and so on. ``nodes``:
    over how many machines (n0, n1, ...; live, Ray nodes) hosts are dealt, in turn; n0 carries the harness too, so no
    fault hits it.
    """

    workers: Annotated[int, Field(ge=1, le=10_000, strict=True)]
    hosts: Annotated[int, Field(ge=1, strict=True)]
    branching: Annotated[int, Field(strict=True)] = 3
    topology: Literal["flat", "tree", "mapreduce", "sharded"] = "flat"
    shards: Annotated[int, Field(ge=1, strict=True)] | None = None
    rule: str = "geometric_median"
    faulty_max: Annotated[int, Field(ge=0, strict=True)] = 0
    outlier_factor: Annotated[float, Field(ge=1)] | None = 3.0
    nodes: Annotated[int, Field(ge=1, strict=True)] = 1
    gpus: Annotated[int, Field(ge=0, strict=True)] = 0
    round_within: Duration = lasting("5s", gt=0.0)
    train_share: Annotated[float, Field(gt=0, lt=1)] = 0.6
    slow_factor: Annotated[float, Field(gt=1)] | None = None
    crowds: bool = False
    apart: bool = False
    store: WeightStore | None = None

    @model_validator(mode="after")
    def _fits(self) -> System:
        if self.hosts > self.workers:
            raise ValueError(f"hosts: wanted at most one a worker ({self.workers}), got {self.hosts}")
        if self.nodes > self.hosts:
            raise ValueError(f"nodes: wanted at most one a host ({self.hosts}), got {self.nodes}; add hosts")
        if self.nodes > 1 and self.gpus:
            raise ValueError(f"gpus: wanted none with nodes: {self.nodes}, which share no GPUs, got {self.gpus}")
        if self.apart and self.slow_factor is not None:
            raise ValueError("slow_factor: wanted none with apart, where no member's time tells that of an aggregator")
        if self.shards is not None and self.topology != "sharded":
            raise ValueError(f"shards: wanted none with topology {self.topology}, got {self.shards}")
        if self.crowds and self.topology == "tree" and self.rule != "weighted_mean":
            raise ValueError(
                f"crowds: wanted false with the robust rule {self.rule} on topology tree, whose groups are not the "
                "crowds, got true; use topology flat or sharded, or rule weighted_mean"
            )
        if self.crowds and self.topology == "mapreduce":
            raise ValueError(
                "crowds: wanted false with topology mapreduce, whose mappers members feed one by one, got true; "
                "use another topology"
            )
        if self.store is not None and self.policy().shards > 1:
            raise ValueError(
                f"store: wanted none with a state of {self.policy().shards} shards: several keys read together may mix "
                "two rounds; use shards: 1, another topology, or no store"
            )
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


def _hundredths(value: float) -> float:
    """A chance that Ray can take: it counts in whole hundredths."""
    if round(100 * value) / 100 != value:
        raise ValueError(f"wanted a multiple of 0.01, got {value!r}")
    return value


Hundredths = Annotated[float, Field(ge=0, le=0.5, json_schema_extra={"multipleOf": 0.01}), AfterValidator(_hundredths)]


class NetworkModel(Strict):
    """The network: latency, jitter and loss (of packets, sent again unseen) of the simulated one; live, it is real.

    ``lost_requests``, ``lost_responses``: the chance that a message to a host, or its answer, is lost for good, in both
    worlds, in whole hundredths; live by Ray's own means, which are set where Ray starts: so for the whole run, in every
    variant. Messages of the harness's own host, if lost, are asked again and do not count.
    """

    latency: Duration = lasting("1ms")
    jitter: Duration = lasting("0s")
    loss: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    lost_requests: Hundredths = 0.0
    lost_responses: Hundredths = 0.0

    @property
    def loses(self) -> str:
        """Which messages get lost, as a run names it; empty where none do."""
        both = self.lost_requests and self.lost_responses
        return (
            "lost_messages"
            if both
            else "lost_requests" * bool(self.lost_requests) or "lost_responses" * bool(self.lost_responses)
        )

    @property
    def is_lossy(self) -> bool:
        """Whether silence may be a message that is lost, or late because it was."""
        return bool(self.loses) or self.loss > 0.0


Always = Literal["accounted", "within_bound", "by_deadline", "budget_kept", "answered", "stored"]


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
    def _everybody_trains(self) -> Scenario:
        if self.workload.batch < self.system.workers and self.system.rule != "weighted_mean":
            raise ValueError(
                f"workload.batch: wanted at least one sample for each of {self.system.workers} workers, or those that "
                f"train would be the outliers of {self.system.rule}, got {self.workload.batch}; "
                "give a larger batch, or rule weighted_mean"
            )
        return self

    @model_validator(mode="after")
    def _faults_fit(self) -> Scenario:
        for index, fault in enumerate(self.faults):
            last = fault.at.round if isinstance(fault, Crash | Damage | Remove) else fault.during.rounds[1]
            if last > self.workload.rounds:
                raise ValueError(f"faults[{index}]: round {last} is after the last round, {self.workload.rounds}")
            if self.system.crowds and isinstance(fault, OnMembers):
                raise ValueError(
                    f"faults[{index}].action: {fault.action} is for members, and crowds answer for them; "
                    "wanted crash, pause or slow, or a system without crowds"
                )
            if self.system.store is None and (problem := needs_store(fault)) is not None:
                raise ValueError(f"faults[{index}].{problem}, wanted a system with a store")
            try:
                self.aim(index)
            except ValueError as error:
                raise ValueError(f"faults[{index}].target: {error}") from None
        if self.expect.mean_gap is not None and not any(isinstance(f, Byzantine | Corrupt) for f in self.faults):
            raise ValueError(
                "expect.mean_gap: wanted with a fault that a mean suffers from, byzantine or corrupt, got none; "
                "add one, or leave it out"
            )
        if self.system.store is None and "stored" in self.expect.always:
            raise ValueError("expect.always: stored is about the weight store, wanted a system with a store")
        return self

    @property
    def laws(self) -> tuple[Always, ...]:
        """What must hold always: as the file says; where it says nothing, of the store too."""
        silent = self.system.store is not None and "always" not in self.expect.model_fields_set
        return (*self.expect.always, "stored") if silent else self.expect.always

    def aim(self, index: int) -> tuple[str, ...]:
        """The hosts, members or machines that a fault hits: the same for the same file and seed."""
        fault = self.faults[index]
        return choose_targets(
            fault.target,
            self._exposed(fault),
            draw=stream(self.seed, "target", index),
            placement=fault.placement if isinstance(fault, OnMembers) else "random",
        )

    def _require_removable(self, target: object) -> None:
        if self.system.nodes == 1:
            raise ValueError("there is one machine, n0, and it carries the harness; wanted system: {nodes: 2} or more")
        if "n0" in ([target] if isinstance(target, str) else target if isinstance(target, tuple) else []):
            raise ValueError(f"n0 carries the harness, so no fault hits it; there are {', '.join(self.nodes[1:])}")

    def struck_hosts(self, index: int) -> tuple[str, ...]:
        """The hosts that a fault of a host or a machine hits."""
        hits = self.aim(index)
        return self.hosts_on(*hits) if isinstance(self.faults[index], Remove) else hits

    def _exposed(self, fault: Fault) -> tuple[str, ...]:
        """What a fault of this kind can hit."""
        match fault:
            case Remove():
                self._require_removable(fault.target)
                return self.nodes[1:]
            case Damage():
                return self.store_hosts
            case Byzantine() | Corrupt() | Duplicate() | Lose():
                return self.members
            case _:
                return self.hosts

    @property
    def poisonable(self) -> frozenset[str]:
        """Members whose data some fault poisons."""
        return frozenset(
            member
            for index, fault in enumerate(self.faults)
            if isinstance(fault, Byzantine) and fault.attack.name in DATA_ATTACKS
            for member in self.aim(index)
        )

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(f"w{index}" for index in range(self.system.workers))

    @property
    def hosts(self) -> tuple[str, ...]:
        """Everything that a fault of a host can hit."""
        return self.worker_hosts + (self.aggregator_hosts if self.system.apart else ()) + self.store_hosts

    @property
    def nodes(self) -> tuple[str, ...]:
        """The machines."""
        return tuple(f"n{index}" for index in range(self.system.nodes))

    def hosts_on(self, *nodes: str) -> tuple[str, ...]:
        """The hosts on these machines: h0, h1, ... are dealt to them in turn, and so are g0, g1, ..."""
        return tuple(host for host in self.hosts if f"n{int(host[1:]) % self.system.nodes}" in nodes)

    @property
    def worker_hosts(self) -> tuple[str, ...]:
        return tuple(f"h{index}" for index in range(self.system.hosts))

    @property
    def aggregator_hosts(self) -> tuple[str, ...]:
        return tuple(f"g{index}" for index in range(self.system.hosts)) if self.system.apart else self.worker_hosts

    @property
    def store_hosts(self) -> tuple[str, ...]:
        """Each carries the store of its own name."""
        return () if self.system.store is None else self.system.store.plan().stores
