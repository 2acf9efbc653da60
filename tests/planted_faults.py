"""Planted bugs of section 4: the accounts, the budget of faults, the scores, and the robust rules themselves."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from hqde_ref.messages import Aggregate, Aggregated, Misused, Reply, Request, Update
from tests.planted_base import MEDIAN, InRounds, InRows, InUpdates, Planted, average, cut_like, masses, table

# ------------------------------------------------------------------------------------------------ accounts


class ForgetsMissing(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return dataclasses.replace(reply, missing=())


class UsesTheRejected(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return dataclasses.replace(reply, used=(*(reply.used or ()), *(reply.rejected or ())))


class LosesTheRejected(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return dataclasses.replace(reply, rejected={})


class SilentRejection(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return dataclasses.replace(reply, rejected=dict.fromkeys(reply.rejected or (), ""))


class ReasonIsACode(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return dataclasses.replace(reply, rejected=dict.fromkeys(reply.rejected or (), "E_17"))


# ------------------------------------------------------------------------------------------------ the budget


class TruncatesTheThird(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        if isinstance(request, Aggregate) and request.faulty_max > int(0.33 * len(request.updates)):
            return Misused(error="ValueError", sentence="more than 33% cannot be tolerated")
        return reply


def refusal(request: Aggregate, sentence: str) -> Aggregated:
    missing = tuple(request.members or ())
    return Aggregated(result=None, used=(), rejected={}, missing=missing, refused=sentence)


class WantsEveryone(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return refusal(request, "someone is missing") if reply.missing else reply


class FillsInTheSilent(InRounds):
    """Who sends nothing gets what arrived last, whoever sent it."""

    def sent(self, request: Aggregate) -> Aggregate:
        sent = {update.worker for update in request.updates}
        last = request.updates[-1].tensors
        silent = tuple(Update(worker=m, tensors=last) for m in request.members or () if m not in sent)
        return dataclasses.replace(request, updates=request.updates + silent)


class CountsRejectedTwice(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        spoilt = [reason for reason in (reply.rejected or {}).values() if reason.startswith("not finite")]
        if spoilt and 2 * request.faulty_max + 2 * len(spoilt) >= len(request.updates):
            return refusal(request, "too many faults")
        return reply


class WeakerRuleInSilence(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        if reply.result is not None or not request.updates:
            return reply
        mean = cut_like(table(request.updates).mean(dim=0), request.updates[0].tensors)
        return Aggregated(result=mean, used=tuple(update.worker for update in request.updates), rejected={}, missing=())


class RefusalSaysNoNumber(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return reply if reply.refused is None else dataclasses.replace(reply, refused="too few contributions")


class BelievesMass(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        if reply.result is None:
            return reply
        row = average(table(request.updates), masses(request.updates))
        return dataclasses.replace(reply, result=cut_like(row, reply.result))


class BelievesAccuracy(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        best = max(request.updates, key=lambda update: update.accuracy or 0.0)
        return dataclasses.replace(reply, result=best.tensors) if best.accuracy else reply


# ------------------------------------------------------------------------------------------------ rejections and scores


def reject(reply: Aggregated, workers: list[str]) -> Aggregated:
    """Move some of the used to the rejected."""
    return dataclasses.replace(
        reply,
        used=tuple(name for name in reply.used or () if name not in workers),
        rejected={**(reply.rejected or {}), **dict.fromkeys(workers, "outlier: too far out")},
    )


def farthest(reply: Aggregated, count: int) -> list[str]:
    scores = reply.scores or {}
    return sorted(reply.used or (), key=lambda name: -scores.get(name, 0.0))[:count]


class AlwaysRejectsSomeone(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return reject(reply, farthest(reply, 1))


class RejectsBeyondBudget(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return reject(reply, farthest(reply, len(request.updates) // 2))


class IgnoresTheSilent(InRounds):
    """Rejects f whoever is missing."""

    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return reject(reply, farthest(reply, request.faulty_max - len(reply.rejected or ())))


class ScoresWithoutFloor(InRounds):
    """Divides by the median distance, whatever it is."""

    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        if reply.scores is None:
            return reply
        names = list(reply.scores)
        far = torch.tensor([reply.scores[name] for name in names], dtype=torch.float64)
        ratios = dict(zip(names, (far / far.median()).tolist(), strict=True))
        outliers = [name for name in reply.used or () if not ratios[name] <= 3.0]
        return dataclasses.replace(reject(reply, outliers[: request.faulty_max or 1]), scores=ratios)


class ScoresAreAllZero(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return dataclasses.replace(reply, scores=dict.fromkeys(reply.scores or (), 0.0))


class ScoresBackwards(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return dataclasses.replace(reply, scores={name: 1 / (1 + s) for name, s in (reply.scores or {}).items()})


class ScoresByName(InRounds):
    """Sorted names, unsorted scores."""

    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        scores = reply.scores or {}
        return dataclasses.replace(reply, scores=dict(zip(reversed(list(scores)), scores.values(), strict=True)))


class HidesScores(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        shown = {name: score for name, score in (reply.scores or {}).items() if name in (reply.used or ())}
        return dataclasses.replace(reply, scores=shown)


class RejectsTheNearest(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        if not reply.rejected:
            return reply
        everyone = (*(reply.used or ()), *reply.rejected)
        nearest = sorted(everyone, key=lambda name: (reply.scores or {}).get(name, 0.0))[: len(reply.rejected)]
        return reject(dataclasses.replace(reply, used=everyone, rejected={}), nearest)


# ------------------------------------------------------------------------------------------------ the rules


class MeanCalledMedian(InRows):
    def row(self, rows: Tensor, right: Tensor, request: Aggregate) -> Tensor:
        return table(request.updates).mean(dim=0)


class StraysInOneCoordinate(InRows):
    """Too little for a bound of all coordinates together: by the middle rows' range, in one of them."""

    ways = frozenset((rule, "flat") for rule in ("coordinate_median", "trimmed_mean", "mean_around_median"))

    def row(self, rows: Tensor, right: Tensor, request: Aggregate) -> Tensor:
        ordered, cut = rows.sort(dim=0).values, request.faulty_max
        stray = right.clone()
        if len(rows) > 2 * cut:
            stray[-1] += ordered[len(rows) - 1 - cut, -1] - ordered[cut, -1]
        return stray


class FarthestWins(InRows):
    def row(self, rows: Tensor, right: Tensor, request: Aggregate) -> Tensor:
        everyone = table(request.updates)
        return everyone[(everyone - right).norm(dim=1).argmax()]


class MedianOfEachCoordinate(InRows):
    ways = MEDIAN

    def row(self, rows: Tensor, right: Tensor, request: Aggregate) -> Tensor:
        return rows.median(dim=0).values


class MedianOfEachCoordinateDoubled(InRows):
    def row(self, rows: Tensor, right: Tensor, request: Aggregate) -> Tensor:
        return 2.0 * rows.median(dim=0).values


class StopsShort(InRows):
    def row(self, rows: Tensor, right: Tensor, request: Aggregate) -> Tensor:
        return right + 0.05 * (table(request.updates).mean(dim=0) - right)


class WeiszfeldFromMean(InRows):
    """Weiszfeld's iteration as textbooks have it."""

    ways = MEDIAN
    steps, stop, smooth = 30, 0.0, 1e-300

    def row(self, rows: Tensor, right: Tensor, request: Aggregate) -> Tensor:
        point = rows.mean(dim=0)
        for _ in range(self.steps):
            weights = 1.0 / (rows - point).norm(dim=1).clamp_min(self.smooth)
            following = (weights[:, None] * rows).sum(dim=0) / weights.sum()
            moved, point = float((following - point).norm()), following
            if moved < self.stop:
                break
        return point


class AbsoluteStop(WeiszfeldFromMean):
    steps, stop = 500, 1e-6


class SmoothsByAConstant(WeiszfeldFromMean):
    steps, smooth = 200, 1e-2


class ClipsNorms(InUpdates):
    def update(self, update: Update, request: Aggregate) -> Update:
        row = table([update])[0]
        clipped = row * min(1.0, 1.0 / max(float(row.norm()), 1e-300))
        return dataclasses.replace(update, tensors=cut_like(clipped, update.tensors))


class PullsTowardsZero(InRows):
    def row(self, rows: Tensor, right: Tensor, request: Aggregate) -> Tensor:
        return 0.99 * right


class SortsByTheFirstCoordinate(InRows):
    """The contribution in the middle, as Python sorts rows."""

    def row(self, rows: Tensor, right: Tensor, request: Aggregate) -> Tensor:
        return torch.tensor(sorted(rows.tolist())[len(rows) // 2], dtype=rows.dtype)


class MeanAroundTheMedian(InRows):
    """What is farthest from the result is left out, so that raising a value may take it out."""

    def row(self, rows: Tensor, right: Tensor, request: Aggregate) -> Tensor:
        nearest = (rows - right).abs().argsort(dim=0)[: len(rows) - request.faulty_max]
        return rows.gather(0, nearest).mean(dim=0)
