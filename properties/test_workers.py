"""Section 1: shares of GPUs, slices of a batch, training steps and efficiency scores."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from hqde_ref.messages import (
    Observe,
    Observed,
    PlanShare,
    PlanSplit,
    SharePlanned,
    SplitPlanned,
    Trained,
    TrainSteps,
)
from properties.declaring import law
from properties.laws import ask, have_same_bits
from properties.oracles import efficiency_scores, share_of_gpu, train_plainly
from properties.showing import show_tensor
from properties.subject import Subject
from properties.tolerances import NEAR

_UNITS = 10_000  # Ray counts resources in units of 1e-4, and rounds what it is given to them


@law(needs=(PlanShare,), workers=st.integers(1, 60), gpus=st.integers(0, 16))
def test_all_workers_can_be_placed_at_once(implementation: Subject, workers: int, gpus: int) -> None:
    """With the planned share all workers find room on the GPUs; below one a share stays on a single GPU.

    The document's G / W hangs for three workers on two GPUs, and Ray refuses 1.5 for two on three.

    Clause: 1.1. Catches: planted.GpuShareGW, planted.GpuShareRoundsUp.
    """
    share = ask(implementation, PlanShare(workers=workers, gpus=gpus), SharePlanned).share
    assert math.isfinite(share), f"the share is {share}"
    assert share >= 0, f"the share is {share}"
    assert share <= 1 or share == int(share), f"a share of {share}: above one only whole GPUs can be had"
    wanted, free, placed = round(share * _UNITS), [_UNITS] * gpus, 0
    for _ in range(workers):
        if wanted <= _UNITS:
            at = next((index for index, left in enumerate(free) if left >= wanted), None)
            if at is None and wanted:
                break
            if at is not None:
                free[at] -= wanted
        else:
            whole = [index for index, left in enumerate(free) if left == _UNITS][: wanted // _UNITS]
            if len(whole) * _UNITS < wanted:
                break
            for index in whole:
                free[index] = 0
        placed += 1
    assert placed == workers, f"with a share of {share} only {placed} of {workers} workers fit on {gpus} GPUs"


@law(needs=(PlanShare,), workers=st.integers(1, 60), gpus=st.integers(0, 16))
def test_no_gpu_is_left_unused(implementation: Subject, workers: int, gpus: int) -> None:
    """The share is the largest with which all workers fit, and 0 only without GPUs.

    Clause: 1.1. Catches: planted.GpuShareGW, planted.GpuShareTimid.
    """
    share = ask(implementation, PlanShare(workers=workers, gpus=gpus), SharePlanned).share
    wanted = share_of_gpu(workers, gpus)
    assert abs(share - wanted) <= NEAR, f"the share is {share}, wanted {wanted}"


@law(needs=(PlanSplit,), samples=st.integers(0, 200), workers=st.integers(1, 20))
def test_slices_cover_the_batch_once_and_in_order(implementation: Subject, samples: int, workers: int) -> None:
    """One slice per worker; they follow each other without gap or overlap from the first sample to the last.

    Clause: 1.3. Catches: planted.DropsRemainder, planted.OverlapsSlices, planted.SkipsEmptySlices.
    """
    slices = ask(implementation, PlanSplit(samples=samples, workers=workers), SplitPlanned).slices
    assert len(slices) == workers, f"{len(slices)} slices for {workers} workers"
    reached = 0
    for index, (start, stop) in enumerate(slices):
        assert start == reached, f"slice {index} starts at {start}, the one before ended at {reached}: {slices}"
        assert stop >= start, f"slice {index} goes from {start} back to {stop}"
        reached = stop
    assert reached == samples, f"the slices end at {reached} of {samples} samples"


@st.composite
def _trainings(draw: st.DrawFn, *, samples: st.SearchStrategy[int], poison: bool = False) -> TrainSteps:
    """A softmax regression on drawn data."""
    count, features, labels = draw(samples), draw(st.integers(1, 5)), draw(st.integers(2, 4))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    inputs = torch.randn(count, features, generator=noise)
    if poison:
        inputs[draw(st.integers(0, count - 1)), 0] = draw(st.sampled_from((math.inf, math.nan, -math.inf)))
    return TrainSteps(
        inputs=inputs,
        targets=torch.randint(0, labels, (count,), generator=noise),
        weight=torch.randn(labels, features, generator=noise),
        bias=torch.randn(labels, generator=noise),
        steps=draw(st.integers(1, 4)),
        rate=draw(st.sampled_from((0.5, 0.1, 1.0))),
    )


def _require_weights(trained: Trained, weight: Tensor, bias: Tensor, what: str) -> None:
    for name, got, wanted in (("weight", trained.weight, weight), ("bias", trained.bias, bias)):
        if not have_same_bits(got, wanted):
            raise AssertionError(f"{what}: the {name} is {show_tensor(got)}, wanted {show_tensor(wanted)}")


@law(needs=(TrainSteps,), request=_trainings(samples=st.integers(1, 12)))
def test_training_is_the_plain_loop(implementation: Subject, request: TrainSteps) -> None:
    """After k steps of gradient descent the weights have the bits of a plain single-process PyTorch loop.

    Clause: 1.4. Catches: planted.ForgetsZeroGrad, planted.UsesMomentum, planted.StepsOnceMore.
    """
    trained = ask(implementation, request, Trained)
    weight, bias = train_plainly(
        request.inputs, request.targets, request.weight, request.bias, steps=request.steps, rate=request.rate
    )
    _require_weights(trained, weight, bias, f"after {request.steps} steps")
    assert len(trained.losses) == request.steps, f"{len(trained.losses)} losses for {request.steps} steps"


@law(needs=(TrainSteps,), request=_trainings(samples=st.just(0)))
def test_an_empty_slice_does_not_train(implementation: Subject, request: TrainSteps) -> None:
    """Without samples the weights stay, bit for bit, and no loss is reported; the mean of nothing would be NaN.

    Clause: 1.3. Catches: planted.EmptySliceNaN, planted.EmptySliceIsZeroLoss.
    """
    trained = ask(implementation, request, Trained)
    _require_weights(trained, request.weight, request.bias, "without samples")
    reported = [loss for loss in trained.losses if loss is not None]
    assert not reported, f"the losses of no samples are {reported}"


@law(needs=(TrainSteps,), request=_trainings(samples=st.integers(1, 6), poison=True))
def test_a_loss_that_is_not_finite_takes_no_step(implementation: Subject, request: TrainSteps) -> None:
    """Where the loss is NaN or infinite the weights stay as they were, finite, bit for bit.

    Clause: 1.5. Catches: planted.StepsOnNaN, planted.ResetsOnNaN.
    """
    trained = ask(implementation, request, Trained)
    _require_weights(trained, request.weight, request.bias, "after a loss that is not finite")


_LOSSES = st.one_of(
    st.sampled_from((0.0, 1.0, 1e9, -1.0, -0.5, math.inf, -math.inf, math.nan)),
    st.floats(0.0, 50.0),
)


_FED = st.one_of(st.lists(_LOSSES, min_size=1, max_size=12), st.just([math.inf] * 12))


@law(needs=(Observe,), losses=_FED, again=st.sampled_from((1, 40)))
def test_efficiency_follows_its_recursion(implementation: Subject, losses: list[float], again: int) -> None:
    """Each loss moves the score by the rule of clause 1.5, from 1.0 on, and the score stays within [0.1, 1].

    Clause: 1.5. Catches: planted.EfficiencyStartsAtZero, planted.TrustsNegativeLoss, planted.NaNEfficiency,
    planted.NoFloor.
    """
    fed = tuple(losses) * again
    scores = ask(implementation, Observe(losses=fed), Observed).scores
    assert len(scores) == len(fed), f"{len(scores)} scores for {len(fed)} losses"
    for index, (got, wanted) in enumerate(zip(scores, efficiency_scores(fed), strict=True)):
        assert 0.1 <= got <= 1.0, f"score {index} is {got!r}, outside [0.1, 1], after a loss of {fed[index]!r}"
        assert abs(got - wanted) <= NEAR, f"score {index} is {got!r}, wanted {wanted!r}, after {fed[index]!r}"


@law(
    needs=(Observe,),
    losses=st.lists(st.floats(0.0, 50.0), min_size=1, max_size=8),
    more=st.floats(0.0, 50.0),
    at=st.integers(0, 7),
)
def test_efficiency_falls_as_loss_grows(implementation: Subject, losses: list[float], more: float, at: int) -> None:
    """Raising one loss never raises any later score.

    Clause: 1.5. Catches: planted.EfficiencyRises.
    """
    raised = list(losses)
    raised[at % len(losses)] += more
    low = ask(implementation, Observe(losses=tuple(raised)), Observed).scores
    high = ask(implementation, Observe(losses=tuple(losses)), Observed).scores
    for index, (with_more, without) in enumerate(zip(low, high, strict=True)):
        assert with_more <= without + NEAR, f"score {index} rose from {without!r} to {with_more!r} with a larger loss"
