"""Section 1 once more: what the ensemble predicts, also where members are dead or have no score."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from hypothesis import strategies as st

from hqde_ref.messages import Predict, Predicted, Voice
from properties.declaring import law
from properties.laws import ask, largest, require_close, said
from properties.oracles import mean_of_rows
from properties.strategies import name_workers
from properties.subject import Subject
from properties.tolerances import mean_tolerance


@st.composite
def _voices(draw: st.DrawFn) -> tuple[Voice, ...]:
    """Two to six members with outputs of a few samples and classes, and efficiencies in [0.1, 1]."""
    shape = draw(st.sampled_from(((1, 2), (3, 2), (2, 4))))
    dtype = draw(st.sampled_from((torch.float32, torch.float64)))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    return tuple(
        Voice(
            worker=worker,
            outputs=torch.randn(shape, generator=noise, dtype=torch.float64).to(dtype) + index,
            efficiency=draw(st.sampled_from((0.1, 0.25, 0.5, 1.0))),
        )
        for index, worker in enumerate(name_workers(draw(st.integers(2, 6))))
    )


def _require_mean(predicted: Predicted, voices: Sequence[Voice], *, weighted: bool) -> None:
    """The outputs are the mean of these members', within rounding."""
    assert predicted.outputs is not None, f"the ensemble must predict, but refused: {predicted.refused}"
    rows = [voice.outputs for voice in voices if voice.outputs is not None]
    outputs = predicted.outputs
    assert outputs.shape == rows[0].shape, (
        f"the outputs have shape {tuple(outputs.shape)}, the members' {rows[0].shape}"
    )
    weights = [voice.efficiency if weighted else 1.0 for voice in voices]
    dtype = str(rows[0].dtype).removeprefix("torch.")
    tolerance = mean_tolerance(dtype, count=len(rows), top=largest(rows))
    require_close(outputs, mean_of_rows(rows, weights), tolerance, "the ensemble's outputs")


@law(needs=(Predict,), voices=_voices(), weighted=st.booleans())
def test_the_ensemble_predicts_the_mean(implementation: Subject, voices: tuple[Voice, ...], weighted: bool) -> None:
    """The outputs are the plain mean of the members', or the mean by their efficiencies.

    Clause: 1.8. Catches: planted.PredictsByTheBest, planted.ForgetsEfficiency.
    """
    predicted = ask(implementation, Predict(voices=voices, weighted=weighted), Predicted)
    _require_mean(predicted, voices, weighted=weighted)


@law(needs=(Predict,), voices=_voices(), weighted=st.booleans(), dead=st.integers(0, 5))
def test_a_dead_member_does_not_spoil_the_prediction(
    implementation: Subject, voices: tuple[Voice, ...], weighted: bool, dead: int
) -> None:
    """The mean is taken over those that live; the dead count neither as zeros nor in the sum of weights.

    Clause: 1.8. Catches: planted.DeadPredictZeros, planted.HidesTheDead.
    """
    gone = dead % len(voices)
    told = tuple(dataclasses.replace(v, outputs=None) if index == gone else v for index, v in enumerate(voices))
    predicted = ask(implementation, Predict(voices=told, weighted=weighted), Predicted)
    _require_mean(predicted, [voice for voice in told if voice.outputs is not None], weighted=weighted)
    left_out = said(predicted.left_out, "who was left out")
    assert voices[gone].worker in left_out, f"{voices[gone].worker} is dead, and nothing says that it was left out"


@law(needs=(Predict,), voices=_voices(), score=st.sampled_from((math.nan, math.inf)), odd=st.integers(0, 5))
def test_a_score_that_is_no_number_does_not_spoil_the_prediction(
    implementation: Subject, voices: tuple[Voice, ...], score: float, odd: int
) -> None:
    """With such a score a member is left out of the weighted mean, or weighs no more than it could with a good one.

    Clause: 1.8. Catches: planted.ScoreOfNaN.
    """
    at = odd % len(voices)
    told = tuple(dataclasses.replace(v, efficiency=score) if index == at else v for index, v in enumerate(voices))
    predicted = ask(implementation, Predict(voices=told, weighted=True), Predicted)
    assert predicted.outputs is not None, f"the ensemble must predict, but refused: {predicted.refused}"
    assert bool(torch.isfinite(predicted.outputs).all()), f"a score of {score} reached the outputs"
    others = [voice for index, voice in enumerate(voices) if index != at]
    if voices[at].worker not in said(predicted.used, "who was used"):
        _require_mean(predicted, others, weighted=True)
        return
    rows = torch.stack([voice.outputs.double() for voice in voices if voice.outputs is not None])
    low, high = rows.min(dim=0).values, rows.max(dim=0).values
    slack = 1e-6 * (1.0 + float(rows.abs().max()))
    outside = (predicted.outputs.double() < low - slack) | (predicted.outputs.double() > high + slack)
    assert not bool(outside.any()), f"with a score of {score} the outputs leave the range of the members' outputs"
