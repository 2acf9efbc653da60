"""Rounds with faults: asking for one, and what must be true of however it ends.

Source: HQDE clauses 0.4, 3.6, 6.1. The faults go in with the request. An example whose faults did not take effect is
thrown away, so a law that holds was tried on faults that did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st
from torch import Tensor

from hqde_ref.messages import RoundEnded, RoundFault, RunRound, Update, message
from properties.declaring import Way
from properties.laws import ask, require_mean, said
from properties.liars import as_updates, flat_layout, honest_rows
from properties.strategies import Round, name_workers
from properties.subject import Subject, WatchedNode

__all__ = [
    "MEAN",
    "ROBUST_RUNS",
    "TOPOLOGIES",
    "WITHIN_S",
    "Trouble",
    "faults_of_nodes",
    "mean_round",
    "members_rounds",
    "require_accounts",
    "require_in_time",
    "require_mean_of_used",
    "result_of_round",
    "round_of",
    "run",
    "troubles",
]

MEAN = "weighted_mean"
WITHIN_S = 5.0
KINDS = ("dies", "hangs", "is slow", "loses an answer")
TOPOLOGIES = ("flat", "tree", "mapreduce", "sharded")
ROBUST_AT = ("flat", "sharded")  # where robust rules keep the full 3f < n


@st.composite
def members_rounds(draw: st.DrawFn, *, least: int = 3, most: int = 9, faulty_max: int = 0) -> Round:
    """What members contribute: a few values each, no two members alike but by chance."""
    count, size = draw(st.integers(least, most)), draw(st.integers(1, 5))
    layout = flat_layout(size, draw(st.sampled_from(("float32", "float64"))), blocks=draw(st.integers(1, 2)))
    noise = np.random.default_rng(draw(st.integers(0, 2**16)))
    rows = honest_rows(draw(st.sampled_from(("steps", "random"))), count, size, noise)
    updates, _ = as_updates(layout, name_workers(count), rows)
    return Round(layout=layout, updates=updates, faulty_max=faulty_max)


def faults_of_nodes(
    *roles: str, slow_s: Sequence[float] = (2.0,), after_most: int = 1
) -> st.SearchStrategy[RoundFault]:
    """A node of a role dies, hangs, is slow or loses an answer, at one of its first pieces of work."""
    return st.builds(
        RoundFault,
        role=st.sampled_from(roles),
        index=st.integers(0, 4),
        kind=st.sampled_from(KINDS),
        after=st.integers(0, after_most),
        seconds=st.sampled_from(slow_s),
    )


def roles_of(topology: str) -> tuple[str, ...]:
    """Who can fail in a round of this topology."""
    return ("member", "mapper", "reducer") if topology == "mapreduce" else ("member", "inner")


@message
class Trouble:
    """A way to aggregate, and what fails meanwhile."""

    way: Way
    faults: tuple[RoundFault, ...]

    @property
    def is_mean(self) -> bool:
        return self.way.rule == MEAN


ROBUST_RUNS = (
    *(Way(rule, topology) for rule in ("geometric_median", "trimmed_mean") for topology in ROBUST_AT),
    Way("mixed_trimmed_mean", "sharded"),  # its two stages are more pieces of work, each of which can fail
)
_RUNS = tuple(Way(MEAN, topology) for topology in TOPOLOGIES) + ROBUST_RUNS


@st.composite
def troubles(draw: st.DrawFn) -> Trouble:
    """A mean or a robust rule, and one to five faults of nodes that its topology has."""
    way = draw(st.sampled_from(_RUNS))
    one = faults_of_nodes(*roles_of(way.topology), slow_s=(0.01, 2.0, 30.0))
    return Trouble(way=way, faults=tuple(draw(st.lists(one, min_size=1, max_size=5))))


def mean_round(case: Round, topology: str, *, faults: Sequence[RoundFault] = (), number: int = 1) -> RunRound:
    """A round of equal masses with what a mean needs: the rest as it stands in ``RunRound``."""
    return round_of(case, Way(MEAN, topology), faults=faults, number=number)


def round_of(case: Round, way: Way, *, faults: Sequence[RoundFault] = (), number: int = 1) -> RunRound:
    """A round by this rule, for as many liars as the case has."""
    return RunRound(
        number=number,
        rule=way.rule,
        topology=way.topology,
        faulty_max=case.faulty_max,
        updates=case.updates,
        layout=case.layout,
        within_s=WITHIN_S,
        faults=tuple(faults),
    )


def run(subject: Subject, request: RunRound, *, node: WatchedNode | None = None, every: bool = True) -> RoundEnded:
    """How the round ended; nothing is learnt unless every fault (or ``every`` False: one of them) took effect."""
    ended = ask(subject, request, RoundEnded, node=node)
    if request.faults:
        fired = said(ended.fired, "which faults took effect")
        assert len(fired) == len(request.faults), f"it says {list(fired)} of {len(request.faults)} faults"
        if not (all(fired) if every else any(fired)):
            reject()
    return ended


def result_of_round(ended: RoundEnded) -> Mapping[str, Tensor]:
    """The result of a round that has to give one."""
    assert ended.result is not None, f"the round must give a result, but was refused: {ended.refused}"
    return ended.result


def require_accounts(ended: RoundEnded, members: Sequence[str]) -> tuple[str, ...]:
    """Each member is used, rejected or missing, and nobody else is used; those used."""
    used, rejected = said(ended.used, "who was used"), said(ended.rejected, "who was rejected")
    missing = said(ended.missing, "who is missing")
    for member in members:
        stands = [what for what, who in (("used", used), ("rejected", rejected), ("missing", missing)) if member in who]
        assert len(stands) == 1, f"{member} is {' and '.join(stands) or 'neither used, nor rejected, nor missing'}"
    strangers = sorted(set(used) - set(members))
    assert not strangers, f"{strangers[0]} was used, but is no member"
    assert len(set(used)) == len(used), f"somebody was used twice: {list(used)}"
    return used


def require_in_time(ended: RoundEnded, request: RunRound) -> None:
    """The round ended by its deadline, with a verdict or a refusal."""
    seconds = said(ended.seconds, "how long the round took")
    assert seconds <= request.within_s * (1 + 1e-9), (
        f"the round took {seconds:.6g} s of the {request.within_s:g} it had"
    )
    if ended.result is None:
        assert (ended.refused or "").strip(), "the round ended with neither a result nor a reason for its refusal"


def require_mean_of_used(ended: RoundEnded, updates: Sequence[Update], case: Round) -> None:
    """The result is the mean of what those used contributed, whole and once each."""
    used = require_accounts(ended, [update.worker for update in updates])
    result = result_of_round(ended)
    assert used, "the round gave a result of nobody's contribution"
    require_mean(result, [update for update in updates if update.worker in used], case.layout)
