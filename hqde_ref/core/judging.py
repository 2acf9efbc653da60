"""What a story decides from answers: who contributed, whether that is enough, what the rule must withstand.

Source: HQDE clauses 0.4, 0.7, 4.1, 4.2, 4.4, 4.9, 6.2, 6.3. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hqde_ref.core.isometry import require_shardable
from hqde_ref.core.mapreduce import accuracy_masses, partition_items, partition_names
from hqde_ref.core.rules import get_rule
from hqde_ref.core.screening import MISSHAPEN, NOT_FINITE
from hqde_ref.core.trees import plan_tree, require_tolerance
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import Contribution, Failed, Layout, Policy, Reply, message

TOPOLOGIES = ("flat", "tree", "mapreduce", "sharded")
WEIGHTINGS = ("mass", "accuracy_softmax")

__all__ = ["TOPOLOGIES", "WEIGHTINGS", "Budget", "Gathered", "check_policy", "find_shortage", "gather", "judge_budget"]


def check_policy(policy: Policy, *, members: int) -> None:
    """Refuse a policy that makes no sense for so many members (clauses 0.7, 3.7, 4.1).

    Raises:
        ConfigurationError: naming the setting.
    """
    if members < 1:
        raise ConfigurationError(setting="members", wanted="at least 1", got=members, do="add workers")
    rule = get_rule(policy.rule)
    if isinstance(policy.faulty_max, bool) or not isinstance(policy.faulty_max, int):
        raise ConfigurationError(
            setting="faulty_max", wanted="an integer", got=policy.faulty_max, do="say how many members may lie"
        )
    if policy.faulty_max < 0 or 3 * policy.faulty_max >= members:
        raise ConfigurationError(
            setting="faulty_max",
            wanted=f"at least 0 and below a third of {members} members (3f < n)",
            got=policy.faulty_max,
            do=f"lower it to {(members - 1) // 3} or add workers",
        )
    if policy.topology not in TOPOLOGIES:
        wanted = ", ".join(TOPOLOGIES)
        raise ConfigurationError(setting="topology", wanted=f"one of {wanted}", got=policy.topology, do="choose one")
    if policy.shards < 1 or (policy.shards > 1 and policy.topology != "sharded"):
        raise ConfigurationError(
            setting="shards", wanted="1 unless the topology is sharded", got=policy.shards, do="use topology sharded"
        )
    if policy.topology == "sharded":
        require_shardable(policy.rule)
    if not 0 < policy.train_share < 1:
        raise ConfigurationError(
            setting="train_share", wanted="between 0 and 1", got=policy.train_share, do="leave time to aggregate"
        )
    if not policy.hedge_after_s > 0:
        raise ConfigurationError(
            setting="hedge_after_s", wanted="above 0", got=policy.hedge_after_s, do="give an aggregator time to answer"
        )
    if policy.weighting not in WEIGHTINGS:
        wanted = ", ".join(WEIGHTINGS)
        raise ConfigurationError(setting="weighting", wanted=f"one of {wanted}", got=policy.weighting, do="choose one")
    if policy.topology == "mapreduce":
        partition_items(1, mappers=policy.mappers)
        partition_names(Layout(entries=()), reducers=policy.reducers)
        if rule.family != "mean":
            raise ConfigurationError(
                setting="rule of a mapreduce round", wanted="a mean", got=policy.rule, do="use topology sharded instead"
            )
    if policy.topology == "tree":
        plan = plan_tree(workers=members, branching=policy.branching)
        if rule.family != "mean":
            require_tolerance(plan, rule=policy.rule, faulty_max=policy.faulty_max, node_rule="third")
            raise ConfigurationError(
                setting="rule of a tree", wanted="a mean", got=policy.rule, do="use topology flat for robust rules"
            )


@message
class Gathered:
    """Answers to Train, sorted: contributions by member id; who was rejected at once, and who is missing, and why."""

    contributions: tuple[Contribution, ...]
    rejected: Mapping[str, str]
    missing: Mapping[str, str]


def gather(
    replies: Mapping[str, Reply], *, members: Sequence[str], round_number: int, weighting: str = "mass"
) -> Gathered:
    """Sort the replies of members; each member stands in exactly one of the three (clauses 0.4, 6.2, 6.3)."""
    contributions: list[Contribution] = []
    rejected: dict[str, str] = {}
    missing: dict[str, str] = {}
    for member in sorted(members):
        match replies.get(member):
            case Contribution(round=number) if number != round_number:
                rejected[member] = f"stale: it is for round {number}, this is round {round_number}"
            case Contribution(worker=worker) if worker != member:
                rejected[member] = f"impersonation: it says it comes from {worker!r}"
            case Contribution(mass=mass) if not 0 < mass < math.inf:
                rejected[member] = f"{MISSHAPEN}: its mass is {mass}, wanted a positive number"
            case Contribution() as contribution:
                contributions.append(contribution)
            case Failed(reason=reason):
                missing[member] = reason
            case None:
                missing[member] = "not asked"
            case other:
                rejected[member] = f"{MISSHAPEN}: a {type(other).__name__} instead of a contribution"
    if weighting == "accuracy_softmax":
        _, without = accuracy_masses({c.worker: c.accuracy for c in contributions})
        rejected |= without
        contributions = [c for c in contributions if c.worker not in without]
    return Gathered(contributions=tuple(contributions), rejected=rejected, missing=missing)


@message
class Budget:
    """What is left of the fault budget once some members are known to be out (clause 4.2).

    Attributes:
        usable: contributions that may be aggregated.
        hidden_max: how many of those may still be Byzantine.
        rejections_max: how many more may be rejected as outliers (clause 4.4).
    """

    usable: int
    hidden_max: int
    rejections_max: int


def judge_budget(*, policy: Policy, members: int, rejected: Mapping[str, str], usable: int) -> Budget:
    """A contribution rejected as Byzantine beyond doubt counts once; absence alone proves nothing (clause 4.2)."""
    proven = sum(reason.startswith((NOT_FINITE, MISSHAPEN)) for reason in rejected.values())
    absent = members - usable
    hidden = max(0, policy.faulty_max - proven)
    spare = usable - get_rule(policy.rule).least_contributions(hidden)  # what the rule can do without
    return Budget(
        usable=usable,
        hidden_max=hidden,
        rejections_max=max(0, min(policy.faulty_max - absent, spare)),
    )


def find_shortage(budget: Budget, *, policy: Policy, members: int) -> str | None:
    """Say why these contributions are too few, or None (clause 4.9)."""
    rule = get_rule(policy.rule)
    needed = max(1, rule.least_contributions(budget.hidden_max))
    if rule.family != "mean":
        needed = max(needed, 2 * budget.hidden_max + 1)
    if budget.usable >= needed:
        return None
    return (
        f"{policy.rule} with faulty_max={policy.faulty_max} needs at least {needed} usable contributions, "
        f"got {budget.usable} of {members}"
    )
