"""Planted bugs of an ensemble's predictions."""

from __future__ import annotations

import dataclasses

import torch

from hqde_ref.messages import Predict, Predicted, Reply, Request
from tests.planted_base import Planted


class InPredictions(Planted):
    def before(self, request: Request) -> Request:
        return self.asked(request) if isinstance(request, Predict) else request

    def after(self, request: Request, reply: Reply) -> Reply:
        return self.told(request, reply) if isinstance(reply, Predicted) else reply

    def asked(self, request: Predict) -> Predict:
        return request

    def told(self, request: Predict, predicted: Predicted) -> Predicted:
        return predicted


class PredictsByTheBest(InPredictions):
    def told(self, request: Predict, predicted: Predicted) -> Predicted:
        best = max(request.voices, key=lambda voice: voice.efficiency)
        return dataclasses.replace(predicted, outputs=best.outputs)


class ForgetsEfficiency(InPredictions):
    def asked(self, request: Predict) -> Predict:
        return dataclasses.replace(request, weighted=False)


class DeadPredictZeros(InPredictions):
    def asked(self, request: Predict) -> Predict:
        like = next(voice.outputs for voice in request.voices if voice.outputs is not None)
        filled = tuple(
            dataclasses.replace(voice, outputs=torch.zeros_like(like)) if voice.outputs is None else voice
            for voice in request.voices
        )
        return dataclasses.replace(request, voices=filled)


class HidesTheDead(InPredictions):
    def told(self, request: Predict, predicted: Predicted) -> Predicted:
        return dataclasses.replace(predicted, left_out={})


class ScoreOfNaN(InPredictions):
    """A weight is a weight."""

    def told(self, request: Predict, predicted: Predicted) -> Predicted:
        if not request.weighted or predicted.outputs is None:
            return predicted
        total = sum(voice.efficiency for voice in request.voices)
        outputs = sum(v.outputs * (v.efficiency / total) for v in request.voices if v.outputs is not None)
        return dataclasses.replace(predicted, outputs=outputs)
