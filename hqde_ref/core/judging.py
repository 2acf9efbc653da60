"""What a story decides from answers: who contributed, whether that is enough, what the rule must withstand.

Source: HQDE clauses 0.4, 0.7, 4.1, 4.2, 4.4, 4.9, 6.2, 6.3, 6.6. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from hqde_ref.core.mapreduce import accuracy_masses
from hqde_ref.core.rules import RULES, get_rule
from hqde_ref.core.screening import MISSHAPEN, NOT_FINITE
from hqde_ref.core.trees import breaking_cost, plan_tree, require_tolerance
from hqde_ref.errors import ConfigurationError, require_integer
from hqde_ref.messages import Contribution, Failed, Payload, Policy, Reply, message

EQUIVOCATION = "equivocation"
_PROVEN = (NOT_FINITE, MISSHAPEN, EQUIVOCATION)  # what no honest member sends, and no damage on the way makes of it
TOPOLOGIES = ("flat", "tree", "mapreduce", "sharded")
WEIGHTINGS = ("mass", "accuracy_softmax")

__all__ = [
    "EQUIVOCATION",
    "TOPOLOGIES",
    "WEIGHTINGS",
    "Budget",
    "Gathered",
    "check_policy",
    "find_shortage",
    "find_thin_tree",
    "gather",
    "judge_budget",
]


def check_policy(policy: Policy, *, members: int) -> None:
    """Refuse a policy that makes no sense for so many members (clauses 0.7, 3.7, 4.1, 4.5).

    Raises:
        ConfigurationError: naming the setting.
    """
    require_integer("members", members, least=1, do="add workers")
    _check_words(policy)
    for setting, least in (("faulty_max", 0), ("shards", 1), ("mappers", 1), ("reducers", 1)):
        require_integer(setting, getattr(policy, setting), least=least, do="count whole ones")
    plan = plan_tree(workers=members, branching=policy.branching)
    _check_times(policy)
    _check_faults(policy, members)
    rule = get_rule(policy.rule)
    if policy.shards > 1 and policy.topology != "sharded":
        raise ConfigurationError(
            setting="shards", wanted="1 unless the topology is sharded", got=policy.shards, do="use topology sharded"
        )
    if policy.weighting != "mass" and rule.family != "mean":
        raise ConfigurationError(
            setting=f"weighting of a {policy.rule} round",
            wanted="mass, which a robust rule takes no notice of",
            got=policy.weighting,
            do="use rule weighted_mean, or leave the weighting out",
        )
    if policy.topology not in rule.topologies:
        known = ", ".join(sorted(name for name, entry in RULES.items() if policy.topology in entry.topologies))
        raise ConfigurationError(
            setting=f"rule of a {policy.topology} round",
            wanted=f"one of {known}",
            got=policy.rule,
            do="use topology flat or sharded for this rule",
        )
    if policy.topology == "tree" and rule.in_tree is not None:
        require_tolerance(plan, rule=policy.rule, faulty_max=policy.faulty_max, node_rule=rule.in_tree)


def _check_words(policy: Policy) -> None:
    for setting, known in (("topology", TOPOLOGIES), ("weighting", WEIGHTINGS)):
        got = getattr(policy, setting)
        if got not in known:
            raise ConfigurationError(setting=setting, wanted=f"one of {', '.join(known)}", got=got, do="choose one")


def _check_times(policy: Policy) -> None:
    if not 0 < policy.train_share < 1:
        raise ConfigurationError(
            setting="train_share", wanted="between 0 and 1", got=policy.train_share, do="leave time to aggregate"
        )
    for setting, do in (
        ("round_within_s", "give the round time"),
        ("hedge_after_s", "give an aggregator time to answer"),
    ):
        if not 0 < getattr(policy, setting) < math.inf:
            raise ConfigurationError(
                setting=setting, wanted="a positive number of seconds", got=getattr(policy, setting), do=do
            )
    if policy.slow_factor is not None and not 1 < policy.slow_factor < math.inf:
        raise ConfigurationError(
            setting="slow_factor",
            wanted="above 1, or None to take no notice of times",
            got=policy.slow_factor,
            do="2 is usual",
        )


def _check_faults(policy: Policy, members: int) -> None:
    """3f < n, enough members for the rule if nobody is absent, and no outlier limit below the median distance."""
    if 3 * policy.faulty_max >= members:
        raise ConfigurationError(
            setting="faulty_max",
            wanted=f"at least 0 and below a third of {members} members (3f < n)",
            got=policy.faulty_max,
            do=f"lower it to {(members - 1) // 3} or add workers",
        )
    rule = get_rule(policy.rule)
    needed = rule.least_contributions(policy.faulty_max)
    if policy.faulty_max and members < needed:
        raise ConfigurationError(
            setting=f"members of a {policy.rule} round with faulty_max={policy.faulty_max}",
            wanted=f"at least {needed}",
            got=members,
            do="add workers or lower faulty_max",
        )
    factor = policy.outlier_factor
    if factor is not None and not 1 <= factor < math.inf:
        raise ConfigurationError(
            setting="outlier_factor", wanted="at least 1, or None to reject no one", got=factor, do="3 is usual"
        )


@message
class Gathered:
    """Answers to Train, sorted: contributions by member id; who was rejected at once, and who is missing, and why."""

    contributions: tuple[Contribution, ...]
    rejected: Mapping[str, str]
    missing: Mapping[str, str]


def gather(
    replies: Mapping[str, Reply],
    *,
    members: Sequence[str],
    round_number: int,
    weighting: str = "mass",
    shards: int = 1,
) -> Gathered:
    """Sort the replies of members; each member stands in exactly one of the three (clauses 0.4, 6.2, 6.3).

    What a member sends is not believed to have the right form: whatever it holds, the others' round goes on.
    """
    contributions: list[Contribution] = []
    rejected: dict[str, str] = {}
    missing: dict[str, str] = {}
    for member in sorted(members):
        match replies.get(member):
            case Contribution() as contribution:
                fault = _find_fault(contribution, member, round_number, shards)
                if fault is None:
                    contributions.append(contribution)
                else:
                    rejected[member] = fault
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


def _find_fault(sent: Contribution, member: str, round_number: int, shards: int) -> str | None:
    """Why a contribution cannot be meant, or None."""
    if sent.round != round_number:
        return f"stale: it is for round {sent.round}, this is round {round_number}"
    if sent.worker != member:
        return f"impersonation: it says it comes from {sent.worker!r}"
    if not _is_number(sent.mass) or not 0 < sent.mass < math.inf:
        return f"{MISSHAPEN}: its mass is {sent.mass}, wanted a positive number"
    payloads = isinstance(sent.payloads, tuple) and all(isinstance(p, Payload) for p in sent.payloads)
    digests = isinstance(sent.digests, tuple) and all(isinstance(d, str) for d in sent.digests)
    if not payloads or not digests or not len(sent.payloads) == len(sent.digests) == shards:
        return f"{MISSHAPEN}: wanted {shards} shard(s), each with its digest"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
    """A contribution rejected as Byzantine beyond doubt counts once; absence alone proves nothing (clause 4.2).

    Where more are proven than f provides for, the policy was wrong about its members: then proofs use up nothing, and
    another f may hide among the rest (clause 6.7).
    """
    proven = sum(reason.startswith(_PROVEN) for reason in rejected.values())
    absent = members - usable
    hidden = policy.faulty_max - proven if proven <= policy.faulty_max else policy.faulty_max
    spare = usable - get_rule(policy.rule).least_contributions(hidden)  # what the rule can do without
    return Budget(
        usable=usable,
        hidden_max=hidden,
        rejections_max=max(0, min(policy.faulty_max - absent, spare)),
    )


def find_shortage(budget: Budget, *, policy: Policy, members: int) -> str | None:
    """Say why these contributions are too few, or None (clauses 4.9 and 6.7)."""
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


def find_thin_tree(budget: Budget, *, policy: Policy, members: Sequence[str], usable: Collection[str]) -> str | None:
    """Say why a robust rule cannot go node by node through what is left of the tree, or None (clauses 3.7 and 4.9).

    A member that is missing counts in the group it leaves: the same recursion is done on those that are there.
    """
    kind = get_rule(policy.rule).in_tree
    assert kind is not None, "the policy was checked"
    plan = plan_tree(workers=len(members), branching=policy.branching)
    present = frozenset(leaf for leaf, member in enumerate(members) if member in usable)
    survived = breaking_cost(plan, node_rule=kind, present=present) - 1
    if survived >= budget.hidden_max:
        return None
    return (
        f"{policy.rule} in a tree of branching {policy.branching} needs contributions with which it survives "
        f"{budget.hidden_max} liar(s) wherever they sit, with the {len(present)} usable of {len(members)} it survives "
        f"{max(survived, 0)}: missing members leave their groups smaller"
    )
