"""Synthetic contributions belong to their round: the exactness check of the live tests sees a stale one."""

from __future__ import annotations

import dataclasses

import pytest

from hqde_ref.messages import Accepted, Adopt, Contribution, Reply, Request, Train, message
from hqde_ref.rounds.training import training_round
from simulator.ensembles import Ensemble
from simulator.runtime import Simulated
from simulator.synthetic import Synthetic, SyntheticSpec
from tests.live.rounds import WAYS, check_exact


@message
class StaleSpec:
    """A planted bug as data: see ``Stale``."""

    name: str
    inner: SyntheticSpec

    def build(self, incarnation: int, /) -> Stale:
        return Stale(self.inner.build(incarnation))


class Stale:
    """Planted: gives what it contributed to its first round again, with the number of the round that is on."""

    def __init__(self, inner: Synthetic) -> None:
        self._inner = inner
        self._first: Contribution | None = None

    def perform(self, request: Request, /) -> Reply:
        reply = self._inner.perform(request)
        if isinstance(reply, Contribution):
            self._first = self._first or reply
            return dataclasses.replace(self._first, round=reply.round)
        return reply


@dataclasses.dataclass(frozen=True)
class _Planted(Ensemble):
    """The ensemble, one member of which is stale."""

    def spec(self, member: str) -> SyntheticSpec:
        honest = super().spec(member)
        return StaleSpec(name=member, inner=honest) if member == self.members[4] else honest  # type: ignore[return-value]


def _plant(ensemble: Ensemble) -> Ensemble:
    return _Planted(**{field.name: getattr(ensemble, field.name) for field in dataclasses.fields(ensemble)})


def _second_round(way: str, *, stale: bool) -> None:
    ensemble, policy = WAYS[way]
    small = dataclasses.replace(ensemble, floats=1003)
    world = Simulated((_plant(small) if stale else small).nodes())
    first = training_round(world, small.plan(world, policy))
    check_exact(small, policy, first)
    second = training_round(world, small.plan(world, policy, number=2, after=first))
    assert isinstance(second, Accepted), second
    assert second.used == small.members, "it looks as good as the others"
    check_exact(small, policy, second)


@pytest.mark.parametrize("way", WAYS)
def test_the_exactness_check_catches_a_stale_contribution_that_counts(way: str) -> None:
    _second_round(way, stale=False)
    with pytest.raises(AssertionError) as caught:
        _second_round(way, stale=True)
    assert caught.traceback[-1].name == "check_exact"


def test_contributions_to_two_rounds_differ_in_every_shard() -> None:
    worker = SyntheticSpec(name="w0").build(0)
    worker.perform(Adopt(round=0, state=(), digests=()))
    sent = [worker.perform(Train(round=n, base=(), start=0, stop=1, steps=1, shards=3)) for n in (1, 2, 1)]
    digests = [reply.digests for reply in sent if isinstance(reply, Contribution)]
    assert all(one != other for one, other in zip(*digests[:2], strict=True))
    assert digests[2] == digests[0]
